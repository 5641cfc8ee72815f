"""The Householder flow: reflections, one after the other. They turn a Gaussian and cost no determinant."""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .conditioned import Conditioned, check_dim, unit

__all__ = ["Householder", "compact", "reflect", "reflections"]


def compact(vectors: Tensor) -> tuple[Tensor, Tensor]:
    r"""V and W, (..., T, D) each, with $x^\top H_1 \cdots H_T = x^\top - x^\top V^\top W$ for the reflections of T
    vectors.

    The compact WY form (Schreiber and Van Loan, 1989). For unit vectors, the rows of V, $H_1 \cdots H_T = I - 2 V^\top
    U^{-1} V$ with U upper triangular, $U_{ii} = 1$ and $U_{ij} = 2\, v_i \cdot v_j$: two matrix products for all T
    reflections, in place of T passes over the data.
    """
    v = unit(vectors)
    double = v + v
    return v, torch.linalg.solve_triangular(double @ v.mT, double, upper=True, unitriangular=True)


def reflect(value: Tensor, vectors: Tensor, backwards: bool = False) -> Tensor:
    r"""Reflect rows at the hyperplanes of T vectors, the first first (`backwards`: the last first, the inverse).

    Cost: O(T D) a row.

    Args:
        value: (..., D).
        vectors: (..., T, D), of any length.
        backwards: Whether the last reflection comes first.

    Returns:
        (..., D).
    """
    v, w = compact(vectors)
    if backwards:  # the transpose
        v, w = w, v
    if v.ndim > 2:
        return value - ((value[..., None, :] @ v.mT) @ w).squeeze(-2)
    rows = value if value.ndim == 2 else value.reshape(-1, value.shape[-1])
    out = torch.addmm(rows, F.linear(rows, v), w, alpha=-1)
    return out if value.ndim == 2 else out.view_as(value)


def reflections(axes: Tensor) -> Tensor:
    """The vectors of reflections that turn to given axes: `reflect(x, vectors, backwards=True)` are the coordinates of
    x along them, up to their signs. They are those of a QR factorisation, which LAPACK makes of reflections.

    Args:
        axes: (D, D), orthonormal rows.

    Returns:
        (D - 1, D): the last coordinate's reflection could change its sign only. For D = 1 one vector.
    """
    packed, _ = torch.geqrf(axes.mT)
    vectors = (packed.tril(-1) + torch.eye(len(axes), dtype=axes.dtype, device=axes.device)).mT
    return vectors[: max(len(axes) - 1, 1)].flip(0)


class Householder(Conditioned):
    r"""$x = H_T \cdots H_1 z$ with reflections $H_t = I - 2\,v_t v_t^\top/\lVert v_t\rVert^2$. Orthogonal, so
    $\log|\det| = 0$ (the determinant is $(-1)^T$). The inverse reflects in the reverse order. Cost: O(T D) a row, both
    ways.

    A diagonal Gaussian becomes one of full covariance; $T = D - 1$ reflections reach every covariance. An isotropic
    Gaussian stays as it is.

    Args:
        dim: D.
        reflections: T.
        context_dim: Width of a context, or None. With a context $v_1$ is linear in it and $v_t$ linear in $v_{t-1}$.

    Raises:
        ValueError: No dimension, or no reflection.

    Papers: Tomczak and Welling (2016), arXiv:1611.09630, equations 8-10.

    Example:
        >>> from flowlib import Householder
        >>> x, _ = Householder(3, reflections=2)(torch.ones(3)); round(x.norm().item() ** 2, 4)
        3.0
    """

    def __init__(self, dim: int, reflections: int = 1, *, context_dim: int | None = None):
        check_dim(dim)
        if reflections < 1:
            raise ValueError(f"a Householder flow needs at least one reflection, got {reflections}")
        self.reflections = reflections
        super().__init__(dim, None, context_dim)

    def _make_params(self, start):
        dim, t = self.dim, self.reflections
        if self.context_dim is None:
            self.vectors = nn.Parameter(torch.randn(t, dim))
        else:
            self.linears = nn.ModuleList(nn.Linear(dim if k else self.context_dim, dim) for k in range(t))

    def _params(self, context):
        """The vectors, (T, D) or (..., T, D)."""
        if self.context_dim is None:
            return self.vectors
        vectors = []
        for linear in self.linears:
            vectors.append(linear(vectors[-1] if vectors else context))
        return torch.stack(vectors, -2)

    def _forward(self, z, params):
        return reflect(z, params), z.new_zeros(z.shape[:-1])

    def _inverse(self, x, params):
        return reflect(x, params, backwards=True), x.new_zeros(x.shape[:-1])
