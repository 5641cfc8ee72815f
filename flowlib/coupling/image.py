"""The coupling layer for images: keep half of the channels, or the even fields of a checkerboard, and move the rest."""
from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from ..arguments import declared_context
from ..elementwise.base import ElementwiseMap
from ..images.squeeze import checkerboard
from ..nets.conv import NETS, at_pixels
from .halves import Halves

__all__ = ["ImageCoupling"]


class ImageCoupling(Halves):
    r"""$x_a = z_a,\quad x_b = g(z_b; \theta(z_a, c))$ as in `Coupling`, with a convolutional $\theta$ (Dinh et al.
    2017, arXiv:1605.08803, section 3.4). $\log|\det| = \sum_{i \in b} \ln g'(z_i)$. Cost: one pass of the network, both
    ways.

    Args:
        shape: (C, H, W).
        elementwise: The map g, such as `Affine()`.
        hidden: Channels of the network.
        mask: "channel": the first C // 2 channels are kept; "checkerboard": the pixels with even row + column; or a
            boolean tensor that broadcasts to the shape, True where kept.
        swap: Keep the others instead.
        context_dim: Width K of a context (..., K) that the network also reads, the same at every pixel, or None.
        context_shape: (K,), or (K, H', W') for a context of images, averaged to this layer's size; in place of
            context_dim.
        net: "conv" (Glow's), "residual" (RealNVP's), "attention" (Flow++'s), or a function of ((C', H, W) that it
            reads, outputs, context_dim) that makes a module, which is called with x (..., C', H, W), and where there is
            one a context (..., context_dim, H, W) that broadcasts against it, and gives (..., outputs, H, W).
            Second derivatives through "attention": see `nets.conv.GatedAttentionNet`.
        blocks: Number of the network's blocks, which "conv" has not.

    Raises:
        ValueError: An unknown mask, net or map; one channel and the channel mask.

    Example:
        >>> import torch; from flowlib import Affine, ImageCoupling
        >>> ImageCoupling((4, 8, 8), Affine())(torch.zeros(2, 4, 8, 8))[1].shape
        torch.Size([2])
    """

    latent_ndim = event_ndim = 3
    axis = -3

    def __init__(self, shape: tuple[int, int, int], elementwise: ElementwiseMap, *, hidden: int = 64,
                 mask: str | Tensor = "channel", swap: bool = False, context_dim: int | None = None,
                 net: str | Callable[[tuple[int, int, int], int, int | None], nn.Module] = "conv", blocks: int = 2,
                 context_shape: tuple[int, ...] | None = None):
        super().__init__()
        self.context_shape = declared_context(context_dim, context_shape)
        c, h, w = self.latent_shape = self.event_shape = tuple(shape)
        if isinstance(mask, str) and mask not in ("channel", "checkerboard"):
            raise ValueError(f'mask is "channel", "checkerboard" or a boolean tensor, got {mask!r}')
        if isinstance(net, str) and net not in NETS:
            raise ValueError(f"net is one of {sorted(NETS)} or a function that makes a network, got {net!r}")
        if isinstance(mask, str) and mask == "channel" and c < 2:
            raise ValueError(f"a channel mask needs at least two channels, got shape {tuple(shape)}")
        kept = mask if isinstance(mask, Tensor) else checkerboard(h, w) if mask == "checkerboard" else None
        inputs, moved = self._divide(elementwise, kept, swap)
        reads, outputs = (inputs, h, w), moved * elementwise.n_params
        self.net = (NETS[net](reads, outputs, hidden, self.context_dim, blocks) if isinstance(net, str) else
                    net(reads, outputs, self.context_dim))

    def _read(self, kept, context):
        if self.context_shape is None:
            return self.net(kept)
        return self.net(kept, at_pixels(context, self.context_shape, self.event_shape[-2:]))
