"""The coupling layer: split the event, keep one part, move the other by an elementwise map whose parameters a network reads
from the part that stayed. Its Jacobian is triangular, its inverse is as cheap as itself, and the network may be any."""
from __future__ import annotations

import torch

from ..core import Bijection
from ..nets.mlp import MLP

__all__ = ["Coupling"]


class Coupling(Bijection):
    r"""$x_a = z_a,\quad x_b = g(z_b;\, \theta(z_a, c))$ for an elementwise map g and a conditioner $\theta$ (an MLP).

    $$\frac{\partial x}{\partial z} = \begin{pmatrix} I & 0 \\ * & \operatorname{diag} g' \end{pmatrix}, \qquad
    \log|\det| = \sum_{i \in b} \ln g'(z_i)$$

    The inverse reads the same parameters, since $x_a = z_a$. Cost: one pass of the network, both ways.

    Args:
        dim: D. The first D // 2 coordinates are kept, the others moved.
        elementwise: The map g: `Additive()`, `Affine()`, `RationalQuadraticSpline()`, ...
        hidden: Widths of the network's hidden layers.
        swap: Keep the last D - D // 2 coordinates instead, and move the first.
        context_dim: Width of a context that the network also reads, or None.

    Raises:
        ValueError: D = 1 without a context: there is nothing to read from.

    Papers: Dinh et al. (2015), arXiv:1410.8516, section 3.1; Dinh et al. (2017), arXiv:1605.08803, section 3.2.

    Example:
        >>> from flowlib import Affine, Coupling
        >>> x, log_det = Coupling(4, Affine())(torch.ones(10, 4)); x.shape, log_det.shape
        (torch.Size([10, 4]), torch.Size([10]))
    """

    def __init__(self, dim: int, elementwise, hidden: tuple[int, ...] = (64, 64), swap: bool = False,
                 context_dim: int | None = None):
        super().__init__()
        if dim < 1 or (dim == 1 and context_dim is None):
            raise ValueError(f"a coupling needs dim >= 2, or a context for dim 1; got dim={dim}, context_dim={context_dim}")
        self.event_shape = self.latent_shape = (dim,)
        self.elementwise, self.context_dim = elementwise, context_dim
        self.cut = dim // 2
        self.swap = swap and dim > 1
        moved = self.cut if self.swap else dim - self.cut
        self.net = MLP(dim - moved, moved * elementwise.n_params, hidden, context_dim)

    def _move(self, value, context, g):
        context = context if self.context_shape is not None else None
        first, last = value.split_with_sizes([self.cut, value.shape[-1] - self.cut], -1)
        kept, moved = (last, first) if self.swap else (first, last)
        # (..., moved, n_params), in memory the other way round, so that each parameter lies together for all coordinates;
        # under autocast the network is bfloat16, the map and its log-det are not
        params = self.net(kept, context).to(value.dtype).unflatten(-1, (self.elementwise.n_params, -1)).mT
        if context is not None:  # which may have brought batch axes
            kept, moved = (part.expand(*params.shape[:-2], -1) for part in (kept, moved))
        moved, log_slope = g(moved, params)
        return torch.cat([moved, kept] if self.swap else [kept, moved], -1), log_slope.sum(-1)

    def forward(self, z, context=None):
        return self._move(z, context, self.elementwise.forward)

    def inverse(self, x, context=None):
        return self._move(x, context, self.elementwise.inverse)
