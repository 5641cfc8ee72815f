"""What the finite flows share: a flat list of parameters, their own or read from a context, and the precision they need."""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core import Bijection
from ..numerics import full_precision, reduced, tame, wide

__all__ = ["Conditioned"]

START = 0.1  # of a context's weights, over torch's own law: amortised parameters start near the static ones' start


class Conditioned(Bijection):
    """A layer over vectors (..., D) whose parameters are its own, or one linear map reads them from a context (amortised).

    A subclass writes `_forward(z, params)` and `_inverse(x, params)`, pure functions of a value (..., D) and parameters (n,),
    or (..., n) from a context. They run outside of autocast, in float32 at least (half precision is rounded at the end), and
    on values small enough that sums of products with them do not overflow.

    Args:
        dim: D.
        start: The static parameters at the start, (n,); the bias of the linear map.
        context_dim: Width of the context, or None.
    """

    def __init__(self, dim: int, start: Tensor, context_dim: int | None = None):
        super().__init__()
        self.dim, self.context_dim = dim, context_dim
        self.event_shape = self.latent_shape = (dim,)
        self._make_params(start)

    def _make_params(self, start):
        if self.context_dim is None:
            self.params = nn.Parameter(start)
        else:
            self.linear = nn.Linear(self.context_dim, len(start))
            with torch.no_grad():
                self.linear.weight.mul_(START)
                self.linear.bias.copy_(start)

    def _params(self, context: Tensor | None) -> Tensor:
        return self.params if self.context_shape is None else self.linear(context)

    def _run(self, move, value, context):
        if not reduced(value):
            return move(tame(value), self._params(context))
        with full_precision(value):
            out, log_det = move(tame(wide(value)), wide(self._params(context)))
        return out.to(value.dtype), log_det.to(value.dtype)

    def forward(self, z, context=None):
        return self._run(self._forward, z, context)

    def inverse(self, x, context=None):
        return self._run(self._inverse, x, context)


def check_dim(dim: int) -> None:
    """ValueError where there is no dimension to act on."""
    if dim < 1:
        raise ValueError(f"dim must be positive, got {dim}")


def apply(matrix: Tensor, value: Tensor) -> Tensor:
    """The products of one matrix (M, N), or one each (..., M, N), with rows (..., N): (..., M)."""
    return F.linear(value, matrix) if matrix.ndim == 2 else (matrix @ value[..., None]).squeeze(-1)


def dot(value: Tensor, vector: Tensor) -> Tensor:
    """The dot products of rows (..., D) with one vector (D,), or with one each (..., D)."""
    return value @ vector if vector.ndim == 1 else (value * vector).sum(-1)


def add_outer(value: Tensor, factor: Tensor, vector: Tensor) -> Tensor:
    """value + factor * vector by rows: (..., D), (...), and one vector (D,) or one each (..., D)."""
    if value.ndim == 2 and factor.requires_grad and vector.ndim == 1:  # slower, but backward it is matrix products too
        return torch.addr(value, factor, vector)
    return torch.addcmul(value, factor[..., None], vector)


def largest(vectors: Tensor) -> Tensor:
    """The largest entry of vectors (..., D), a constant (..., 1) to divide by: not zero."""
    vectors = vectors.detach()
    if vectors.numel() < 1024:  # one operation in place of two, but much slower for many
        top = torch.linalg.vector_norm(vectors, torch.inf, -1, True)
    else:
        top = vectors.abs().amax(-1, keepdim=True)
    return top.clamp_min(torch.finfo(vectors.dtype).tiny)


def unit(vectors: Tensor) -> Tensor:
    """Vectors (..., D) of length one, whose squares may under- or overflow; a zero vector stays zero."""
    scaled = vectors / largest(vectors)
    return scaled / torch.linalg.vector_norm(scaled, dim=-1, keepdim=True).clamp(min=0.5)  # at least 1, or it is zero


def length(vectors: Tensor) -> Tensor:
    """The lengths (...) of vectors (..., D), also where squares under- or overflow."""
    scale = largest(vectors)
    return scale.squeeze(-1) * torch.linalg.vector_norm(vectors / scale, dim=-1)
