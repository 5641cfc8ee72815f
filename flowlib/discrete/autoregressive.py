"""One category after the other, each given those before it: the exact likelihood that a categorical flow is measured
by, and itself a flow."""
from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from ..autoregressive.layer import MaskedAutoregressive
from ..bases import Uniform
from ..core import Compose, Flow
from ..elementwise.categorical import CategoricalCDF
from ..images.dequantize import Dequantize

__all__ = ["CategoricalMAF"]


class _OfLabels(MaskedAutoregressive):
    """Its network reads of each coordinate which cell it lies in, and nothing of the noise."""

    def __init__(self, length: int, categories: int, hidden: Sequence[int], order: str | Iterable[int]):
        super().__init__(length, CategoricalCDF(categories), hidden=hidden, order=order, sampling="passes")
        self.categories = categories

    def _params(self, x: Tensor, context: Tensor | None) -> Tensor:
        label = (x.detach() * self.categories).floor().clamp(0, self.categories - 1)
        return super()._params(2 * label / (self.categories - 1) - 1, context)


class CategoricalMAF(Flow):
    r"""$P(x) = \prod_i p(x_i | x_{<i})$ for N categories 0..K-1, each from a softmax that a masked network computes.

    An autoregressive model of categories, written as a flow: uniform dequantization $v = (x + u)/K$, and each $v_i$
    through the distribution function of its category ([CategoricalCDF](#flowlib.CategoricalCDF)) to a uniform latent.
    The density of v is the same in the whole cell of x, so the bound of uniform dequantization is no loss: `log_prob`
    is $\ln P(x)$ to a few millionths (see `Dequantize` for the edge of a cell). Cost: one pass of the network for
    `log_prob`, N of them for `sample`.

    Args:
        length: N.
        categories: K, at least 2.
        hidden: Widths of the network's hidden layers.
        order: "natural", "reversed", "random", or a sequence of the places 0..N-1 as they come.

    Raises:
        ValueError: Fewer than two categories, or what `MADE` refuses.

    Example:
        >>> from flowlib import CategoricalMAF
        >>> round(CategoricalMAF(3, 5).log_prob(torch.tensor([0, 4, 2])).exp().item(), 4)  # 5^-3 at the start
        0.008
    """

    def __init__(self, length: int, categories: int, *, hidden: Sequence[int] = (128, 128),
                 order: str | Iterable[int] = "natural"):
        if categories < 2:
            raise ValueError(f"CategoricalMAF needs at least two categories, got {categories}")
        super().__init__(Uniform(torch.zeros(length), torch.ones(length)),
                         Compose(_OfLabels(length, categories, hidden, order), Dequantize(categories, ndim=1)))
