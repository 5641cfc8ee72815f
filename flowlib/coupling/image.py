"""The coupling layer for images: keep half of the channels, or the white fields of a checkerboard, and move the rest."""
from __future__ import annotations

import torch
import torch.nn.functional as F

from ..core import Bijection, declared_context
from ..images.squeeze import checkerboard
from ..nets.conv import NETS

__all__ = ["ImageCoupling"]


class ImageCoupling(Bijection):
    r"""$x_a = z_a,\quad x_b = g(z_b; \theta(z_a, c))$ as in `Coupling`, with a convolutional $\theta$ (Dinh et al. 2017,
    arXiv:1605.08803, section 3.4). $\log|\det| = \sum_{i \in b} \ln g'(z_i)$. Cost: one pass of the network, both ways.

    Args:
        shape: (C, H, W).
        elementwise: The map g, such as `Affine()`.
        hidden: Channels of the network.
        mask: "channel": the first C // 2 channels are kept; "checkerboard": the pixels with even row + column.
        swap: Keep the others instead.
        context_dim: Width K of a context (..., K) that the network also reads, the same at every pixel, or None.
        context_shape: (K,), or (K, H', W') for a context of images, averaged to this layer's size; in place of context_dim.
        net: "conv" (Glow's), "residual" (RealNVP's) or "attention" (Flow++'s).
        blocks: Number of the network's blocks, which "conv" has not.

    Raises:
        ValueError: An unknown mask or net; one channel and the channel mask.

    Example:
        >>> from flowlib import Affine, ImageCoupling
        >>> ImageCoupling((4, 8, 8), Affine())(torch.zeros(2, 4, 8, 8))[1].shape
        torch.Size([2])
    """

    latent_ndim = event_ndim = 3

    def __init__(self, shape: tuple[int, int, int], elementwise, hidden: int = 64, mask: str = "channel", swap: bool = False,
                 context_dim: int | None = None, net: str = "conv", blocks: int = 2,
                 context_shape: tuple[int, ...] | None = None):
        super().__init__()
        self.context_shape = declared_context(context_dim, context_shape)
        c, h, w = self.latent_shape = self.event_shape = tuple(shape)
        if mask not in ("channel", "checkerboard") or net not in NETS:
            raise ValueError(f'mask is "channel" or "checkerboard", net one of {sorted(NETS)}; got {mask!r}, {net!r}')
        if mask == "channel" and c < 2:
            raise ValueError(f"a channel mask needs at least two channels, got shape {tuple(shape)}")
        self.elementwise, self.swap = elementwise, swap
        self.cut = c // 2 if mask == "channel" else None
        if mask == "channel":
            moved = self.cut if swap else c - self.cut
            self.net = NETS[net]((c - moved, h, w), moved * elementwise.n_params, hidden, self.context_dim, blocks)
        else:
            self.register_buffer("kept", checkerboard(h, w) ^ swap)
            self.net = NETS[net](shape, c * elementwise.n_params, hidden, self.context_dim, blocks)

    def _params(self, kept, context):
        """(..., moved channels, H, W, n_params); the network may run in bfloat16, the map and its log-det do not."""
        return self.net(kept, context).unflatten(-3, (-1, self.elementwise.n_params)).movedim(-3, -1).to(kept.dtype)

    def _to_pixels(self, context, size):
        """(..., K) the same at every pixel; (..., K, H', W') averaged down to this layer's size, as on a coarser scale."""
        if self.context_shape is None:
            return None
        if len(self.context_shape) == 1:
            return context[..., None, None].expand(*context.shape, *size)
        pooled = F.adaptive_avg_pool2d(context.reshape(-1, *context.shape[-3:]), size)
        return pooled.reshape(*context.shape[:-2], *size)

    def _move(self, value, context, g):
        context = self._to_pixels(context, value.shape[-2:])
        if self.cut is None:
            params = self._params(value * self.kept, context)
            moved, log_slope = g(value.expand(params.shape[:-1]), params)
            return torch.where(self.kept, value, moved), (log_slope * ~self.kept).sum((-3, -2, -1))
        first, last = value[..., : self.cut, :, :], value[..., self.cut :, :, :]
        kept, moved = (last, first) if self.swap else (first, last)
        params = self._params(kept, context)
        moved, log_slope = g(moved.expand(params.shape[:-1]), params)
        kept = kept.expand(*moved.shape[:-3], *kept.shape[-3:])
        return torch.cat([moved, kept] if self.swap else [kept, moved], -3), log_slope.sum((-3, -2, -1))

    def forward(self, z, context=None):
        return self._move(z, context, self.elementwise.forward)

    def inverse(self, x, context=None):
        return self._move(x, context, self.elementwise.inverse)
