"""From integers to real numbers: a density needs room around each integer, and noise that fills it."""
from __future__ import annotations

import math

import torch
from torch.distributions import constraints

from ..core import Bijection

__all__ = ["Dequantize", "bits_per_dim"]

EDGE = 2.0**-9  # of a cell; clamping u there moves the mean of ln p by about its slope times EDGE^2


def off_edges(u, levels: int):
    """The noise u in [0, 1], kept away from both edges: by more than the error of a round trip through a float32 flow, and by
    more than the two roundings of floor(L * ((x + u) / L)), which count where L is large."""
    edge = max(EDGE, 2 * levels * torch.finfo(u.dtype).eps)
    return u.clamp(edge, 1 - edge)


class Dequantize(Bijection):
    r"""Uniform dequantization of pixels 0..L-1. `inverse` is random: $v = (x + u)/L$ with u uniform on [0, 1)^D, and returns
    $-\ln q(v|x) = -D \ln L$ as its log-det; `forward` is $x = \lfloor L v \rfloor$ with log-det $D \ln L$.

    So `log_prob` of a flow that ends with it is one sample of $E_u \ln p(v) - D\ln L$, a lower bound of $\ln P(x)$ (Theis et al.
    2016, arXiv:1511.01844, section 3.1). u is float32 or better whatever autocast does, and is kept `EDGE` off both edges of
    its cell, so that the integers come back exactly from a trained flow too; that moves the bound by less than 1e-4 bits/dim.
    Cost: O(D).

    Args:
        levels: L; uint8 out up to 256 levels, int64 above.
        ndim: Number of axes of one event, 3 for images.

    Raises:
        ValueError: Fewer than two levels; an input of `inverse` that is not of an integer type.

    Example:
        >>> from flowlib import Dequantize
        >>> v, log_det = Dequantize(256).inverse(torch.zeros(1, 2, 2, dtype=torch.uint8)); log_det / 4  # -ln 256
        tensor(-5.5452)
    """

    codomain = constraints.nonnegative_integer
    likelihood = "bound"

    def __init__(self, levels: int = 256, *, ndim: int = 3):
        super().__init__()
        if levels < 2:
            raise ValueError(f"pixels need at least two levels, got {levels}")
        self.levels = levels
        self.latent_ndim = self.event_ndim = ndim
        self.domain = constraints.independent(constraints.unit_interval, ndim)
        self.codomain = constraints.independent(constraints.integer_interval(0, levels - 1), ndim)
        self.register_buffer("like", torch.empty(0), persistent=False)  # carries the dtype of v

    def _event(self, values):
        return values.sum(tuple(range(-self.event_ndim, 0)))

    def forward(self, z, context=None):
        x = (z * self.levels).floor().clamp(0, self.levels - 1)
        log_det = self._event(torch.full_like(z, math.log(self.levels)))
        return x.to(torch.uint8 if self.levels <= 256 else torch.int64), log_det

    def inverse(self, x, context=None):
        if x.is_floating_point() or x.is_complex() or x.dtype == torch.bool:
            raise ValueError(f"pixels are integers 0..{self.levels - 1}, got dtype {x.dtype}")
        dtype = self.like.dtype
        x = x.to(dtype)
        outside = (x < 0) | (x >= self.levels)
        x = x.masked_fill(outside, 0.0)
        v = (x + off_edges(torch.rand_like(x), self.levels)) / self.levels
        log_q = torch.full_like(v, -math.log(self.levels)).masked_fill(outside, -torch.inf)
        return v, self._event(log_q)


def bits_per_dim(log_prob, dims: int):
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
