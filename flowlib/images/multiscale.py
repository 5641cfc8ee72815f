"""Several scales: after each, half of the channels are finished, and only the other half goes on."""
from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from ..arguments import shared_context
from ..core import LIKELIHOODS, Bijection, Compose
from ..elementwise.affine import Affine
from ..elementwise.base import arrange, readable
from ..nets.conv import ConvNet, at_pixels
from .squeeze import Squeeze

__all__ = ["MultiScale", "scale_shapes", "unsqueezed_shapes"]


def scale_shapes(shape: tuple[int, int, int], scales: int) -> list[tuple[int, int, int]]:
    """Shape of the image after each scale's squeeze, before its split: (4C, H/2, W/2), then (8C, H/4, W/4), ...

    Raises:
        ValueError: A height or width that cannot be halved `scales` times.

    Example:
        >>> scale_shapes((3, 32, 32), 3)
        [(12, 16, 16), (24, 8, 8), (48, 4, 4)]
    """
    c, h, w = shape
    if scales < 1 or h % 2**scales or w % 2**scales:
        raise ValueError(f"scales={scales} need a height and width divisible by {2**scales}, got shape {tuple(shape)}")
    return [(c * 2 ** (k + 1), h // 2**k, w // 2**k) for k in range(1, scales + 1)]


def unsqueezed_shapes(shape: tuple[int, int, int], scales: int) -> list[tuple[int, int, int]]:
    """Shape of the image before each scale's squeeze: that of the image, then of the halves that go on.

    Example:
        >>> unsqueezed_shapes((3, 32, 32), 3)
        [(3, 32, 32), (6, 16, 16), (12, 8, 8)]
    """
    c, h, w = shape
    return [(c, h, w), *((c // 2, h, w) for c, h, w in scale_shapes(shape, scales)[:-1])]


class MultiScale(Bijection):
    r"""All latents as one vector to the image, over several scales (Dinh et al. 2017, arXiv:1605.08803, section 3.6).

    To the latent: squeeze, the scale's layers, then half of the channels is *factored out* and Gaussianised given the
    other half, $z = (y - \mu(h))\,e^{-s(h)}$, which goes on to the next scale; where the layers read a context, $\mu$
    and s do, too. So every latent is kept, the base is N(0, I), and the map stays a bijection: encode and decode are
    exact. $\mu$ and s start at zero. With `learn_prior=False` the factored-out half is taken as it is. Cost: that of
    all layers, both ways.

    Args:
        shape: (C, H, W) of the image.
        layers: The layers of each scale, one bijection over `scale_shapes(shape, len(layers))[k]` each.
        before: Layers of each scale before its squeeze, over (C, H, W), (2C, H/2, W/2), ...; or None.
        hidden: Channels of the networks for $\mu$ and s.
        learn_prior: Whether the factored-out half is Gaussianised given the other.

    Raises:
        ValueError: A height or width that cannot be halved so often, or layers of another shape.

    Example:
        >>> from flowlib import ActNorm, MultiScale, scale_shapes
        >>> f = MultiScale((1, 8, 8), [ActNorm(s) for s in scale_shapes((1, 8, 8), 2)])
        >>> [tuple(z.shape) for z in f.split(torch.zeros(64))]
        [(2, 4, 4), (8, 2, 2)]
    """

    event_ndim = 3

    def __init__(self, shape: tuple[int, int, int], layers: Sequence[Bijection],
                 before: Sequence[Bijection] | None = None, *, hidden: int = 32, learn_prior: bool = True):
        super().__init__()
        shapes = scale_shapes(shape, len(layers))
        unsqueezed = unsqueezed_shapes(shape, len(layers))
        if before and len(before) != len(layers):
            raise ValueError(f"{len(layers)} scales need as many layers before their squeezes, got {len(before)}")
        parts: list[Bijection] = [*layers, *(before or [])]
        for f, expected in zip(parts, shapes + unsqueezed):
            if f.event_shape != expected or f.latent_shape != expected:
                raise ValueError(f"the layers of this scale should have shape {expected}, not {f.event_shape}")
        self.event_shape, self.latent_shape = tuple(shape), (math.prod(shape),)
        self.latents = [(c // 2, h, w) for c, h, w in shapes[:-1]] + [shapes[-1]]
        # One bijection a scale: generatively its layers, then un-squeeze, then the layers before the squeeze.
        scales = (Compose(f, Squeeze(s), *([before[k]] if before else []))
                  for k, (f, s) in enumerate(zip(layers, unsqueezed)))
        self.scales = cast("Sequence[Compose]", nn.ModuleList(scales))
        self.context_shape = shared_context(self.scales)
        self.likelihood = max((f.likelihood for f in self.scales), key=LIKELIHOODS.index)
        self.affine = Affine()
        priors = (ConvNet((c // 2, h, w), c, hidden, self.context_dim) for c, h, w in shapes[:-1] if learn_prior)
        self.priors = cast("Sequence[ConvNet]", nn.ModuleList(priors))

    def split(self, z: Tensor) -> list[Tensor]:
        """The latents of each scale, the finest first: (..., C_k, H_k, W_k)."""
        sizes = [math.prod(s) for s in self.latents]
        return [part.unflatten(-1, s) for part, s in zip(z.split(sizes, -1), self.latents)]

    def join(self, parts: Sequence[Tensor]) -> Tensor:
        """The inverse of `split`: (..., D)."""
        return torch.cat([part.flatten(-3) for part in parts], -1)

    def _params(self, k, kept, context):
        """Log-scale and shift of the half that left at scale k, given the half that went on and the context:
        (..., c, H, W, 2)."""
        output = self.priors[k](readable(kept), at_pixels(context, self.context_shape, kept.shape[-2:]))
        return arrange(output, self.affine.n_params, -3).to(kept.dtype)

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        *finished, h = self.split(z)
        h, log_det = self.scales[-1](h, context)
        for k in reversed(range(len(finished))):
            y, term = self._colour(k, finished[k], h, context)
            h, other = self.scales[k](torch.cat([y, h], -3), context)
            log_det = log_det + term + other
        return h, log_det

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        finished, h, log_det = [], x, x.new_zeros(x.shape[:-3])
        for k, f in enumerate(self.scales):
            h, term = f.inverse(h, context)
            log_det = log_det + term
            if k + 1 < len(self.scales):
                y, h = h.chunk(2, -3)
                y, term = self._whiten(k, y, h, context)
                log_det = log_det + term
                finished.append(y)
        return self.join([*finished, h]), log_det

    def _colour(self, k, z, kept, context):
        """The factored-out half from its latent, and the log-det."""
        if not self.priors:
            return z, 0
        params = self._params(k, kept, context)
        y, log_slope = self.affine.forward(z.expand(params.shape[:-1]), params)
        return y, log_slope.sum((-3, -2, -1))

    def _whiten(self, k, y, kept, context):
        """The latent of the factored-out half, and the log-det."""
        if not self.priors:
            return y, 0
        params = self._params(k, kept, context)
        z, log_slope = self.affine.inverse(y.expand(params.shape[:-1]), params)
        return z, log_slope.sum((-3, -2, -1))

    @torch.no_grad()
    def initialize(self, batch: Tensor, context: Tensor | None = None, inverse: bool = True) -> Tensor:
        if inverse:
            finished, h = [], batch
            for k, f in enumerate(self.scales):
                h = f.initialize(h, context)
                if k + 1 < len(self.scales):
                    y, h = h.chunk(2, -3)
                    finished.append(self._whiten(k, y, h, context)[0])
            return self.join([*finished, h])
        *finished, h = self.split(batch)
        h = self.scales[-1].initialize(h, context, False)
        for k in reversed(range(len(finished))):
            both = torch.cat([self._colour(k, finished[k], h, context)[0], h], -3)
            h = self.scales[k].initialize(both, context, False)
        return h
