"""Variational dequantization: noise that is learned, and looks at the image it is added to."""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..bases import StandardNormal
from ..core import Compose
from ..coupling.image import ImageCoupling
from ..elementwise.affine import Affine
from .dequantize import PixelNoise

__all__ = ["VariationalDequantize"]


class VariationalDequantize(PixelNoise):
    r"""Dequantization of pixels 0..L-1 by a conditional flow: $v = (x + u)/L$ with
    $u = e + (1-2e)\,\sigma(g(\epsilon; x))$, $\epsilon \sim N(0, I)$, g a chain of affine checkerboard couplings that
    read x. `inverse` is random and returns $-\ln q(v|x)$ as its log-det, $\ln q(v|x) = \ln q(u|x) + D \ln L$; `forward`
    is $x = \lfloor L v\rfloor$ with $+\ln q(v|x)$.

    $E_q[\ln p(v) - \ln q(v|x)] \le \ln P(x)$ for every p (Ho et al. 2019, arXiv:1902.00275, section 3.1). q comes near
    uniform noise but does not hold it: a sigmoid of Gaussians is 0.014 bits/dim away at best. u is computed in float32
    or better; e is that of `Dequantize`. Cost: `layers` network passes, both ways.

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

    def __init__(self, shape: tuple[int, int, int], levels: int = 256, *, layers: int = 4, hidden: int = 32):
        super().__init__(levels, 3)
        self.latent_shape = self.event_shape = tuple(shape)
        self.base = StandardNormal(*shape)
        self.noise = Compose(*(ImageCoupling(shape, Affine(), hidden=hidden, mask="checkerboard", swap=k % 2 == 1,
                                             context_shape=shape) for k in range(layers)))

    def _log_q(self, epsilon, h, log_det):
        """ln q(v|x) at v = (x + e + (1 - 2e) sigmoid(h)) / L, h = g(epsilon), from ln|det dg/d epsilon|."""
        log_slope = (F.logsigmoid(h) + F.logsigmoid(-h)).sum((-3, -2, -1))  # of the sigmoid
        return self.base.log_prob(epsilon) - log_det - log_slope + self._log_volume(h)

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        x, edge = self._floor(z), self.edge(z.dtype)
        u = (z * self.levels - x - edge) / (1 - 2 * edge)
        h = torch.logit(u, torch.finfo(z.dtype).eps)  # q is 0 at the edges of a cell: the nearest point inside
        epsilon, log_det = self.noise.inverse(h, self._context(x))
        return self._integers(x), self._log_q(epsilon, h, -log_det)

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        x, outside = self._read(x)
        epsilon = torch.randn_like(x)
        h, log_det = self.noise(epsilon, self._context(x))
        return self._add(x, torch.sigmoid(h)), (-self._log_q(epsilon, h, log_det)).masked_fill(outside, -torch.inf)

    def _context(self, x):
        """What the couplings see of the pixels: numbers in [-1, 1]."""
        return 2 * x / (self.levels - 1) - 1
