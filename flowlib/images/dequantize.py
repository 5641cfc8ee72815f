"""From integers to real numbers: a density needs room around each integer, and noise that fills it."""
from __future__ import annotations

import math
from typing import TypeVar

import torch
from torch import Tensor
from torch.distributions import constraints

from ..core import Bijection

__all__ = ["Dequantize", "bits_per_dim"]

Nats = TypeVar("Nats", float, Tensor)
EDGE = 2.0**-10  # of a cell: more than a float32 round trip through a trained flow of 256 levels moves a pixel
ROUNDINGS = 32  # the same in units of the last place of the unit interval


class PixelNoise(Bijection):
    """Pixels 0..L-1 and points of the unit cube: what `Dequantize` and `VariationalDequantize` share. The noise of a
    pixel lies in $[e, 1-e]$, so that rounding does not carry it into the next cell; its density is that much higher,
    and never clamped: atoms would make the bound no bound."""

    likelihood = "bound"
    like: Tensor

    def __init__(self, levels: int, ndim: int):
        super().__init__()
        if levels < 2:
            raise ValueError(f"pixels need at least two levels, got {levels}")
        self.levels = levels
        self.latent_ndim = self.event_ndim = ndim
        self.domain = constraints.independent(constraints.unit_interval, ndim)
        self.codomain = constraints.independent(constraints.integer_interval(0, levels - 1), ndim)
        self.register_buffer("like", torch.empty(0), persistent=False)  # carries the dtype of v

    def edge(self, dtype: torch.dtype) -> float:
        """e, for noise of this dtype; ValueError where so many levels leave it no room in a cell."""
        ulp = self.levels * torch.finfo(dtype).eps
        edge = max(min(EDGE, ROUNDINGS * ulp), 2 * ulp)  # (x + u) / L and its product with L are off by 1.5 of them
        if edge >= 0.25:
            raise ValueError(f"{dtype} is too coarse for pixels of {self.levels} levels: use a finer dtype (.double())")
        return edge

    def _read(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Integer pixels as real numbers, 0 for those out of range, and for each image whether it has such ones."""
        if x.is_floating_point() or x.is_complex() or x.dtype == torch.bool:
            raise ValueError(f"pixels are integers 0..{self.levels - 1}, got dtype {x.dtype}")
        x = x.to(self.like.dtype)
        outside = (x < 0) | (x >= self.levels)
        return x.masked_fill(outside, 0.0), outside.flatten(x.ndim - self.event_ndim).any(-1)

    def _add(self, x: Tensor, u: Tensor) -> Tensor:
        """v of pixels x and noise u in [0, 1]."""
        edge = self.edge(u.dtype)
        return (x + (edge + (1 - 2 * edge) * u)) / self.levels

    def _floor(self, v: Tensor) -> Tensor:
        return (v * self.levels).floor().clamp(0, self.levels - 1)

    def _integers(self, x: Tensor) -> Tensor:
        return x.to(torch.uint8 if self.levels <= 256 else torch.int64)

    def _log_volume(self, v: Tensor) -> float:
        """The log-density of uniform noise: $D \\ln L - D \\ln(1 - 2e)$."""
        dims = v.shape[v.ndim - self.event_ndim :].numel()
        return dims * (math.log(self.levels) - math.log1p(-2 * self.edge(v.dtype)))


class Dequantize(PixelNoise):
    r"""Uniform dequantization of pixels 0..L-1. `inverse` is random: $v = (x + u)/L$ with u uniform on $[e, 1-e]^D$,
    and returns $-\ln q(v|x) = -D \ln L + D \ln(1 - 2e)$ as its log-det; `forward` is $x = \lfloor L v \rfloor$ with the
    opposite log-det.

    So `log_prob` of a flow that ends with it is one sample of $E_q[\ln p(v) - \ln q(v|x)]$, a lower bound of $\ln P(x)$
    for every density p (Theis et al. 2016, arXiv:1511.01844, section 3.1). u is kept e off both edges of its cell, so
    that the integers come back exactly from a trained flow too: for 256 levels $e = 2^{-10}$ in float32, which costs at
    most about $-\log_2(1 - 2e) = 0.0028$ bits/dim (0.0007 on the shipped Glow of MNIST), and less than $10^{-10}$ in
    float64. Cost: O(D).

    Args:
        levels: L; uint8 out up to 256 levels, int64 above.
        ndim: Number of axes of one event, 3 for images.

    Raises:
        ValueError: Fewer than two levels; an input of `inverse` that is not of an integer type; a flow of a dtype too
            coarse for so many levels (2^20 in float32, 128 in float16).

    Example:
        >>> from flowlib import Dequantize
        >>> v, log_det = Dequantize(256).double().inverse(torch.zeros(1, 2, 2, dtype=torch.uint8))
        >>> log_det / 4  # -ln 256
        tensor(-5.5452, dtype=torch.float64)
    """

    def __init__(self, levels: int = 256, *, ndim: int = 3):
        super().__init__(levels, ndim)

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._integers(self._floor(z)), z.new_full(z.shape[: z.ndim - self.latent_ndim], self._log_volume(z))

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        x, outside = self._read(x)
        v = self._add(x, torch.rand_like(x))
        return v, v.new_full(outside.shape, -self._log_volume(v)).masked_fill(outside, -torch.inf)


def bits_per_dim(log_prob: Nats, dims: int) -> Nats:
    r"""$-\log p / (D \ln 2)$: nats an image into bits a dimension. Nothing to add: `log_prob` is that of the integers.

    Args:
        log_prob: Nats per event, a number or a tensor.
        dims: D, the number of sub-pixels of the *original* image (C H W).

    Example:
        >>> from flowlib import bits_per_dim
        >>> bits_per_dim(torch.tensor(-64 * 5.545177), 64)  # uniform over 256 levels
        tensor(8.0000)
    """
    return -log_prob / (dims * math.log(2))
