"""Where the parameters of a finite flow come from: they are its own, or one linear map reads them from a context."""
from __future__ import annotations

import torch
from torch import Tensor, nn

from ..core import Bijection

__all__ = ["Amortised"]


class Amortised(Bijection):
    """A layer over vectors (..., D) with a flat list of parameters, static or amortised.

    Args:
        dim: D.
        start: The static parameters at the start, (n,); amortised ones start near them, as the bias of the linear map.
        context_dim: Width of the context, or None.
    """

    def __init__(self, dim: int, start: Tensor, context_dim: int | None = None):
        super().__init__()
        self.dim, self.context_dim = dim, context_dim
        self.event_shape = self.latent_shape = (dim,)
        if context_dim is None:
            self.params = nn.Parameter(start)
        else:
            self.linear = nn.Linear(context_dim, len(start))
            with torch.no_grad():
                self.linear.weight.mul_(0.1)
                self.linear.bias.copy_(start)

    def _params(self, value: Tensor, context: Tensor | None) -> Tensor:
        """(n,), or (..., n) for a context."""
        return self.params if self.context_shape is None else self.linear(context).to(value.dtype)


def check_dim(dim: int) -> None:
    """ValueError where there is no dimension to act on."""
    if dim < 1:
        raise ValueError(f"dim must be positive, got {dim}")


def _one_vector(vector: Tensor) -> bool:
    # for all rows: then a matrix product is fastest, but autocast would run it in half precision
    return vector.ndim == 1 and not torch.is_autocast_enabled(vector.device.type)


def dot(value: Tensor, vector: Tensor) -> Tensor:
    """The dot products of rows (..., D) with one vector (D,), or with one each (..., D)."""
    return value @ vector if _one_vector(vector) else (value * vector).sum(-1)


def add_outer(value: Tensor, factor: Tensor, vector: Tensor) -> Tensor:
    """value + factor * vector by rows: (..., D), (...), and one vector (D,) or one each (..., D)."""
    if value.ndim == 2 and factor.requires_grad and _one_vector(vector):  # slower, but backward it is matrix products too
        return torch.addr(value, factor, vector)
    return torch.addcmul(value, factor[..., None], vector)
