"""The masked autoregressive layer: each coordinate is moved by an elementwise map whose parameters a network reads
from the coordinates before it.

To the latent, all parameters are read from the data at once: one pass of the network. From the latent, a coordinate
must be known before the parameters of the next are, so the obvious loop passes the whole network D times. There are two
faster ways to the same numbers.
"""
from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from ..core import Bijection
from ..elementwise.base import ElementwiseMap, check_map, readable
from ..nets.made import MADE
from .units import by_units

__all__ = ["MaskedAutoregressive", "by_sweeps", "turned"]

WAYS = ("units", "sweeps", "passes")


class MaskedAutoregressive(Bijection):
    r"""$x_i = g(z_i;\, \theta_i(x_{<i}, c))$ for an elementwise map g, all $\theta$ read by one `MADE`. What is before
    i, the order says.

    $$\frac{\partial x}{\partial z}\ \text{is triangular in the order}, \qquad \log|\det| = \sum_i \ln g'(z_i)$$

    Cost of `inverse` (density): one pass of the network. Cost of `forward` (sampling): D steps one after the other, by
    one of three ways that give the same x and the same gradients.

    - "units": each step computes only the hidden units that have just become known, so that all steps together do the
      work of one pass.
    - "sweeps": passes of the whole network, for all coordinates at once, until nothing changes. After k passes the
      first k coordinates are right, so D suffice (and are made where a gradient is wanted), mostly far fewer.
    - "passes": always D passes, as in the papers: what the other two are measured by.

    Args:
        dim: D.
        elementwise: The map g: `Affine()` (MAF), `RationalQuadraticSpline()`, `LogisticMixtureCDF()`, ...
        hidden: Widths of the network's hidden layers.
        order: "natural", "reversed", "random", or a sequence of the coordinates 0..D-1 as they come.
        context_dim: Width of a context that the network also reads, or None.
        residual: Whether hidden layers after the first add to the one before.
        sampling: "units", "sweeps" or "passes"; an attribute, which may be changed at any time.

    Raises:
        ValueError: What `MADE` refuses, another way of sampling, or what is no elementwise map.

    Papers: Germain et al. (2015), arXiv:1502.03509; Papamakarios et al. (2017), arXiv:1705.07057, section 3; sampling
    as a fixed point: Song et al. (2021), arXiv:2002.03629.

    Example:
        >>> from flowlib import Affine, MaskedAutoregressive
        >>> z, log_det = MaskedAutoregressive(4, Affine()).inverse(torch.ones(10, 4)); z.shape, log_det.shape
        (torch.Size([10, 4]), torch.Size([10]))
    """

    def __init__(self, dim: int, elementwise: ElementwiseMap, *, hidden: Sequence[int] = (64, 64),
                 order: str | Iterable[int] = "natural", context_dim: int | None = None, residual: bool = False,
                 sampling: str = "units"):
        super().__init__()
        check_map(elementwise, "MaskedAutoregressive")
        if sampling not in WAYS:
            raise ValueError(f"sampling is one of {', '.join(WAYS)}, got {sampling!r}")
        self.event_shape = self.latent_shape = (dim,)
        self.elementwise, self.context_dim, self.sampling = elementwise, context_dim, sampling
        self.net = MADE(dim, elementwise.n_params, hidden=hidden, order=order, context_dim=context_dim,
                        residual=residual)

    def _params(self, x, context):
        """(..., D, n_params), in x's dtype whatever autocast does."""
        return self.net(readable(x), context).to(x.dtype)

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        params = self._params(x, context if self.context_shape else None)
        z, log_slope = self.elementwise.inverse(x.expand(params.shape[:-1]), params)
        return z, log_slope.sum(-1)

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if self.context_shape is None:
            context = None
        elif context is not None:  # which may bring batch axes
            batch = torch.broadcast_shapes(z.shape[:-1], context.shape[:-1])
            z, context = z.expand(*batch, -1), context.expand(*batch, -1)
        if self.sampling != "units":
            x, log_slope = by_sweeps(lambda x: self.elementwise.forward(z, self._params(x, context)), z, z.shape[-1],
                                     stops=self.sampling == "sweeps")
            return x, log_slope.sum(-1)
        rows = z.reshape(-1, z.shape[-1])
        x, log_slope = by_units(self.net, self.elementwise, rows,
                                None if context is None else context.reshape(len(rows), -1))
        return x.reshape(z.shape), log_slope.reshape(z.shape).sum(-1)


def by_sweeps(step: Callable[[Tensor], tuple[Tensor, Tensor]], z: Tensor, count: int, stops: bool = True
              ) -> tuple[Tensor, Tensor]:
    """The fixed point of x = g(z; theta(x)), and the log-slopes there, by passes `step(x)` of the whole network.
    `count` of them are exact whatever the start, in value and in gradient; without a gradient it may stop before."""
    x, log_slope = z, torch.zeros_like(z)
    for _ in range(count):
        last = x
        x, log_slope = step(x)
        if stops and not torch.is_grad_enabled() and settled(x, last):
            break
    return x, log_slope


def settled(x: Tensor, last: Tensor) -> bool:
    """Whether two sweeps agree to a few units in the last place; False where there are no numbers to look at."""
    close = (x - last).abs() <= 4 * torch.finfo(x.dtype).eps * x.abs().clamp(min=1.0)
    try:
        return bool(close.all())
    except RuntimeError:  # under vmap, or on the meta device
        return False


def turned(k: int) -> str:
    """The order of a flow's layer k: reversed in every second one, so that what came last in one comes first in the
    next."""
    return "reversed" if k % 2 else "natural"
