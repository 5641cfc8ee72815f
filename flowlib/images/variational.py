"""Variational dequantization: noise that is learned, and looks at the image it is added to."""
from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch.distributions import constraints

from ..bases import StandardNormal
from ..core import Bijection, Compose
from ..coupling.image import ImageCoupling
from ..elementwise.affine import Affine
from .dequantize import off_edges

__all__ = ["VariationalDequantize"]


class VariationalDequantize(Bijection):
    r"""Dequantization of pixels 0..L-1 by a conditional flow: $v = (x + u)/L$ with $u = \sigma(g(\epsilon; x))$, $\epsilon \sim
    N(0, I)$, g a chain of affine checkerboard couplings that read x. `inverse` is random and returns $-\ln q(v|x)$ as its
    log-det, $\ln q(v|x) = \ln q(u|x) + D \ln L$; `forward` is $x = \lfloor L v\rfloor$ with $+\ln q(v|x)$.

    $E_q[\ln p(v) - \ln q(v|x)] \le \ln P(x)$, and never below the uniform bound at the optimum, since q can be uniform
    (Ho et al. 2019, arXiv:1902.00275, section 3.1). All of u is computed in float32 or better, and kept off the edges of its
    cell, so that the integers come back exactly. Cost: `layers` network passes, both ways.

    Args:
        shape: (C, H, W).
        levels: L; uint8 out up to 256 levels, int64 above.
        layers: Number of couplings.
        hidden: Channels of their networks.

    Example:
        >>> from flowlib import VariationalDequantize
        >>> v, log_det = VariationalDequantize((1, 4, 4), levels=4).inverse(torch.ones(2, 1, 4, 4, dtype=torch.uint8))
        >>> bool(((v > 0.25) & (v < 0.5)).all()), log_det.shape
        (True, torch.Size([2]))
    """

    latent_ndim = event_ndim = 3
    likelihood = "bound"

    def __init__(self, shape: tuple[int, int, int], levels: int = 256, *, layers: int = 4, hidden: int = 32):
        super().__init__()
        if levels < 2:
            raise ValueError(f"pixels need at least two levels, got {levels}")
        self.latent_shape = self.event_shape = tuple(shape)
        self.levels = levels
        self.domain = constraints.independent(constraints.unit_interval, 3)
        self.codomain = constraints.independent(constraints.integer_interval(0, levels - 1), 3)
        self.base = StandardNormal(*shape)
        self.noise = Compose(*(ImageCoupling(shape, Affine(), hidden=hidden, mask="checkerboard", swap=k % 2 == 1, context_shape=shape)
                               for k in range(layers)))

    def _log_q(self, epsilon, h, log_det):
        """ln q(v|x) at u = sigmoid(h), h = g(epsilon), from ln|det dg/d epsilon|."""
        log_slope = (F.logsigmoid(h) + F.logsigmoid(-h)).sum((-3, -2, -1))  # of the sigmoid
        return self.base.log_prob(epsilon) - log_det - log_slope + math.prod(self.event_shape) * math.log(self.levels)

    def forward(self, z, context=None):
        x = (z * self.levels).floor().clamp(0, self.levels - 1)
        u = off_edges(z * self.levels - x, self.levels)
        h = torch.logit(u)
        epsilon, log_det = self.noise.inverse(h, 2 * x / (self.levels - 1) - 1)
        return x.to(torch.uint8 if self.levels <= 256 else torch.int64), self._log_q(epsilon, h, -log_det)

    def inverse(self, x, context=None):
        if x.is_floating_point() or x.is_complex() or x.dtype == torch.bool:
            raise ValueError(f"pixels are integers 0..{self.levels - 1}, got dtype {x.dtype}")
        x = x.to(self.dtype)
        outside = (x < 0) | (x >= self.levels)
        x = x.masked_fill(outside, 0.0)
        epsilon = torch.randn_like(x)
        h, log_det = self.noise(epsilon, 2 * x / (self.levels - 1) - 1)
        v = (x + off_edges(torch.sigmoid(h), self.levels)) / self.levels
        log_q = self._log_q(epsilon, h, log_det)
        return v, (-log_q).masked_fill(outside.any((-3, -2, -1)), -torch.inf)
