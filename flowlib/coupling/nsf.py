"""Neural spline flow, coupling form: the same couplings with a spline in place of the affine map."""
from __future__ import annotations

from collections.abc import Sequence

from ..bases import StandardNormal
from ..core import Compose, Flow
from ..elementwise.spline import RationalQuadraticSpline
from ..recipes import FLAT, Recipe, Settings
from .vector import Coupling

__all__ = ["NSF"]


class NSF(Flow):
    r"""Rational-quadratic spline couplings over a Gaussian base (Durkan et al. 2019, arXiv:1906.04032, RQ-NSF (C)).

    Each layer bends the axes inside the box $[-B, B]$ and leaves what is outside: standardise the data first. Cost:
    `layers` network passes, both ways.

    Args:
        dim: D.
        layers: Number of couplings.
        hidden: Widths of each network's hidden layers.
        bins: Pieces of each spline.
        box: B.
        context_dim: Width of a context, or None.

    Example:
        >>> from flowlib import NSF
        >>> NSF(2).sample(3).shape
        torch.Size([3, 2])
    """

    def __init__(self, dim: int, *, layers: int = 4, hidden: Sequence[int] = (64, 64), bins: int = 8,
                 box: float = 5.0, context_dim: int | None = None):
        spline = RationalQuadraticSpline(bins, box)
        couplings = [Coupling(dim, spline, hidden=hidden, swap=k % 2 == 1, context_dim=context_dim)
                     for k in range(layers)]
        super().__init__(StandardNormal(dim), Compose(*couplings))


RECIPES = (Recipe("nsf-flat", NSF, over="vectors", small=Settings(dict(layers=4, hidden=(128, 128)), FLAT)),)
