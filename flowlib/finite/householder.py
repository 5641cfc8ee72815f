"""The Householder flow: reflections, one after the other. They turn a Gaussian and cost no determinant."""
from __future__ import annotations

import torch
from torch import Tensor, nn

from ..core import Bijection
from .amortised import check_dim

__all__ = ["Householder", "compact", "reflect"]


def _unit(vectors: Tensor) -> Tensor:
    """Vectors of length one; a zero vector stays zero, and reflects nothing."""
    length = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
    return vectors / length.clamp(min=torch.finfo(vectors.dtype).tiny)


def compact(vectors: Tensor) -> tuple[Tensor, Tensor]:
    r"""V and W, (..., T, D) each, with $x^\top H_1 \cdots H_T = x^\top - x^\top V^\top W$ for the reflections of T vectors.

    For unit vectors, the rows of V, $H_1 \cdots H_T = I - 2 V^\top U^{-1} V$ with U upper triangular, $U_{ii} = 1$ and $U_{ij} =
    2\, v_i \cdot v_j$: two matrix products for all T reflections, in place of T passes over the data.
    """
    v = _unit(vectors)
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
    v, w = compact(vectors.flip(-2) if backwards else vectors)
    if v.ndim == 2:
        rows = value.reshape(-1, value.shape[-1])
        return torch.addmm(rows, rows @ v.mT, w, alpha=-1).view_as(value)
    return value - ((value[..., None, :] @ v.mT) @ w).squeeze(-2)


class Householder(Bijection):
    r"""$x = H_T \cdots H_1 z$ with reflections $H_t = I - 2\,v_t v_t^\top/\lVert v_t\rVert^2$. Orthogonal, so $\log|\det| = 0$ (the
    determinant is $(-1)^T$). The inverse reflects in the reverse order. Cost: O(T D) a row, both ways.

    A diagonal Gaussian becomes one of full covariance; $T = D - 1$ reflections reach every covariance. An isotropic Gaussian
    stays as it is.

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
        super().__init__()
        check_dim(dim)
        if reflections < 1:
            raise ValueError(f"a Householder flow needs at least one reflection, got {reflections}")
        self.event_shape = self.latent_shape = (dim,)
        self.context_dim = context_dim
        if context_dim is None:
            self.vectors = nn.Parameter(torch.randn(reflections, dim))
        else:
            self.linears = nn.ModuleList(nn.Linear(context_dim if t == 0 else dim, dim) for t in range(reflections))

    def _vectors(self, context):
        if self.context_shape is None:
            return self.vectors
        vectors = [self.linears[0](context)]
        for linear in self.linears[1:]:
            vectors.append(linear(vectors[-1]))
        return torch.stack(vectors, -2)

    def _reflect(self, value, context, backwards):
        with torch.autocast(value.device.type, enabled=False):
            out = reflect(value, self._vectors(context), backwards)
        return out, out.new_zeros(out.shape[:-1])

    def forward(self, z, context=None):
        return self._reflect(z, context, False)

    def inverse(self, x, context=None):
        return self._reflect(x, context, True)
