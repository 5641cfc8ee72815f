"""Neural spline flow: couplings, or autoregressive layers, with a spline in place of the affine map."""
from __future__ import annotations

from collections.abc import Sequence

from ..autoregressive.layer import MaskedAutoregressive, turned
from ..bases import StandardNormal
from ..core import Compose, Flow
from ..elementwise.spline import RationalQuadraticSpline
from ..recipes import FLAT, Recipe, Settings
from .vector import Coupling

__all__ = ["NSF"]


class NSF(Flow):
    r"""Rational-quadratic splines over a Gaussian base (Durkan et al. 2019, arXiv:1906.04032): in couplings, RQ-NSF
    (C), or in autoregressive layers, RQ-NSF (AR).

    Each layer bends the axes inside the box $[-B, B]$ and leaves what is outside: standardise the data first. Cost of
    couplings: `layers` network passes, both ways; of autoregressive layers, which fit better, that of a
    [MAF](#flowlib.MAF).

    Args:
        dim: D.
        layers: Number of layers; every second one has the other half, or the reversed order.
        hidden: Widths of each network's hidden layers.
        bins: Pieces of each spline.
        box: B.
        context_dim: Width of a context, or None.
        autoregressive: Which of the two.

    Example:
        >>> from flowlib import NSF
        >>> NSF(2).sample(3).shape
        torch.Size([3, 2])
    """

    def __init__(self, dim: int, *, layers: int = 4, hidden: Sequence[int] = (64, 64), bins: int = 8,
                 box: float = 5.0, context_dim: int | None = None, autoregressive: bool = False):
        spline = RationalQuadraticSpline(bins, box)
        shared = {"hidden": hidden, "context_dim": context_dim}
        super().__init__(StandardNormal(dim), Compose(*(
            MaskedAutoregressive(dim, spline, order=turned(k), **shared) if autoregressive
            else Coupling(dim, spline, swap=k % 2 == 1, **shared) for k in range(layers))))


RECIPES = (
    Recipe("nsf-flat", NSF, over="vectors", small=Settings(dict(layers=4, hidden=(128, 128)), FLAT)),
    Recipe("nsf-ar", NSF, over="vectors",
           small=Settings(dict(layers=4, hidden=(128, 128), autoregressive=True), FLAT)),
)
