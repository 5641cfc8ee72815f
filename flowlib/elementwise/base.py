"""Elementwise maps: increasing functions of one number whose parameters something else computes.

They hold no parameters of their own. Each has `n_params`, and `forward(z, params)` and `inverse(x, params)` for z of any shape
(...) and params (..., n_params), which return the value and the log-derivative *per element*; containers (`Elementwise`,
`Coupling`, ...) sum over the event. With params of zero every map is the identity.
"""
from __future__ import annotations

import torch
from torch import nn

from ..core import Bijection

__all__ = ["Elementwise"]


class Elementwise(Bijection):
    r"""An elementwise map on every coordinate of a vector, with parameters of its own, or read from a context by one linear
    map. $\log|\det| = \sum_i \ln f_i'(z_i)$. It moves each axis by itself: dependence must come from other layers.

    Args:
        dim: D.
        elementwise: The map, such as `RationalQuadraticSpline()`.
        context_dim: Width of a context, or None.

    Example:
        >>> from flowlib import Affine, Elementwise
        >>> Elementwise(3, Affine())(torch.ones(3))[1]  # the identity at the start
        tensor(0., grad_fn=<SumBackward1>)
    """

    def __init__(self, dim: int, elementwise, context_dim: int | None = None):
        super().__init__()
        if dim < 1:
            raise ValueError(f"dim must be positive, got {dim}")
        self.event_shape = self.latent_shape = (dim,)
        self.elementwise, self.context_dim = elementwise, context_dim
        self.params = nn.Parameter(torch.zeros(dim, elementwise.n_params))
        if context_dim is not None:
            self.shift = nn.Linear(context_dim, dim * elementwise.n_params, bias=False)
            nn.init.zeros_(self.shift.weight)

    def _broadcast(self, value, context):
        params = self.params
        if self.context_shape is not None:
            params = params + self.shift(context).unflatten(-1, params.shape).to(value.dtype)
        shape = torch.broadcast_shapes(value.shape, params.shape[:-1])
        return value.expand(shape), params.expand(*shape, -1)

    def forward(self, z, context=None):
        x, log_slope = self.elementwise.forward(*self._broadcast(z, context))
        return x, log_slope.sum(-1)

    def inverse(self, x, context=None):
        z, log_slope = self.elementwise.inverse(*self._broadcast(x, context))
        return z, log_slope.sum(-1)
