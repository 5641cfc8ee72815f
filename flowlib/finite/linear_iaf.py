"""Linear inverse autoregressive flows: unit triangular matrices, alone or in a convex combination."""
from __future__ import annotations

import torch
from torch import Tensor

from .conditioned import Conditioned, apply, check_dim

__all__ = ["ConvexLinearIAF", "LinearIAF"]


class LinearIAF(Conditioned):
    r"""$x = L z$ with L lower triangular and ones on its diagonal: $\log|\det| = 0$. Over a diagonal Gaussian, x has any full
    covariance. Inverse: forward substitution. Cost: O(D^2) a row, both ways.

    Args:
        dim: D.
        context_dim: Width of a context from which one linear map reads L (amortised), or None.

    Raises:
        ValueError: No dimension.

    Papers: Tomczak and Welling (2017), arXiv:1706.02326, section 2.2, after Kingma et al. (2016), arXiv:1606.04934.

    Example:
        >>> from flowlib import LinearIAF
        >>> LinearIAF(3)(torch.ones(3))[1]
        tensor(0.)
    """

    components, extra = 1, 0  # of the convex form below: how many matrices, how many weights

    def __init__(self, dim: int, *, context_dim: int | None = None):
        check_dim(dim)
        rows, columns = torch.tril_indices(dim, dim, offset=-1)
        super().__init__(dim, torch.randn(self.components * len(rows) + self.extra) / dim**0.5, context_dim)
        self.register_buffer("below", rows * dim + columns)  # places below the diagonal in a flat matrix

    def _matrix(self, params: Tensor) -> Tensor:
        """L, (D, D) or (..., D, D)."""
        flat = self._combine(params)
        ones = torch.eye(self.dim, dtype=flat.dtype, device=flat.device).view(-1).expand(*flat.shape[:-1], -1)
        return ones.index_copy(-1, self.below, flat).unflatten(-1, (self.dim, self.dim))

    def _combine(self, params):
        return params

    def _forward(self, z, params):
        x = apply(self._matrix(params), z)
        return x, x.new_zeros(x.shape[:-1])

    def _inverse(self, x, params):
        matrix = self._matrix(params)
        if matrix.ndim == 2:  # from the right, for rows
            rows = x.reshape(-1, self.dim)
            z = torch.linalg.solve_triangular(matrix.mT, rows, upper=True, left=False, unitriangular=True).view_as(x)
        else:
            z = torch.linalg.solve_triangular(matrix, x[..., None], upper=False, unitriangular=True).squeeze(-1)
        return z, z.new_zeros(z.shape[:-1])


class ConvexLinearIAF(LinearIAF):
    r"""$x = \left(\sum_k y_k L_k\right) z$ with unit lower triangular $L_k$ and convex weights y = softmax. The diagonal of the
    combination is $\sum_k y_k = 1$, so $\log|\det| = 0$ still (with orthogonal matrices in place of triangular ones it would not
    be). Cost: O(K D^2) for the matrix, O(D^2) a row, both ways.

    Args:
        dim: D.
        components: K.
        context_dim: Width of a context from which one linear map reads all $L_k$ and y (amortised), or None.

    Raises:
        ValueError: No dimension, or no component.

    Papers: Tomczak and Welling (2017), arXiv:1706.02326, section 3.

    Example:
        >>> from flowlib import ConvexLinearIAF
        >>> ConvexLinearIAF(3, components=2)(torch.ones(5, 3))[0].shape
        torch.Size([5, 3])
    """

    def __init__(self, dim: int, components: int = 5, *, context_dim: int | None = None):
        if components < 1:
            raise ValueError(f"a convex combination needs at least one component, got {components}")
        self.components = self.extra = components
        super().__init__(dim, context_dim=context_dim)

    def _combine(self, params):
        """The entries below the diagonal, combined before the ones are added: the weights sum to one."""
        entries, weights = params[..., : -self.extra], params[..., -self.extra :].softmax(-1)
        return (weights[..., None] * entries.unflatten(-1, (self.components, -1))).sum(-2)
