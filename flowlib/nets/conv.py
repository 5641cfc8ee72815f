"""Convolutional conditioners (..., C, H, W) -> (..., outputs, H, W), whose last layer starts at zero."""
from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .transformer import attend

__all__ = ["NETS", "ConvNet", "GatedAttentionNet", "ResidualNet", "at_pixels"]


def at_pixels(context: Tensor | None, shape: tuple[int, ...] | None, size: tuple[int, ...]) -> Tensor | None:
    """A context of this declared shape for a layer of H, W = `size`, (..., K, H, W): (..., K) is the same at every
    pixel, (..., K, H', W') is averaged down, as on a coarser scale. None for a layer that declares none."""
    if shape is None:
        return None
    assert context is not None  # `Bijection.check` has looked
    if len(shape) == 1:
        return context[..., None, None].expand(*context.shape, *size)
    height, width = size
    pooled = F.adaptive_avg_pool2d(context.reshape(-1, *context.shape[-3:]), (height, width))
    return pooled.reshape(*context.shape[:-2], *size)


class _ImageNet(nn.Module):
    """Leading axes are folded into one batch; a context (..., K, H, W) joins as further channels."""

    build: Callable[[int, int, int, int], nn.Module]  # of inputs, outputs, hidden channels and blocks

    def __init__(self, shape: tuple[int, int, int], outputs: int, hidden: int, context_dim: int | None = None,
                 blocks: int = 2):
        super().__init__()
        self.outputs = outputs
        self.body = self.build(shape[0] + (context_dim or 0), outputs, hidden, blocks)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """(..., outputs, H, W)."""
        if context is not None:
            batch = torch.broadcast_shapes(x.shape[:-3], context.shape[:-3])
            x = torch.cat([x.expand(*batch, *x.shape[-3:]), context.expand(*batch, *context.shape[-3:])], -3)
        # Channels last in memory: convolutions of few channels take half the time. Said by axes, as vmap knows them.
        h = self.body(x.reshape(-1, *x.shape[-3:]).movedim(-3, -1).contiguous().movedim(-1, -3))
        return h.reshape(*x.shape[:-3], *h.shape[1:])


def _zero(layer):
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


class ConvNet(_ImageNet):
    """Glow's network: 3x3, 1x1, 3x3 with ReLU (Kingma and Dhariwal 2018, section 5). It has no blocks."""

    @staticmethod
    def build(inputs: int, outputs: int, hidden: int, blocks: int) -> nn.Sequential:
        return nn.Sequential(nn.Conv2d(inputs, hidden, 3, padding=1), nn.ReLU(), nn.Conv2d(hidden, hidden, 1),
                             nn.ReLU(), _zero(nn.Conv2d(hidden, outputs, 3, padding=1)))


class _Residual(nn.Module):
    def __init__(self, hidden):
        super().__init__()
        self.body = nn.Sequential(nn.ReLU(), nn.Conv2d(hidden, hidden, 3, padding=1), nn.ReLU(),
                                  nn.Conv2d(hidden, hidden, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class ResidualNet(_ImageNet):
    """RealNVP's network: residual blocks of 3x3 convolutions (Dinh et al. 2017, section 4.1)."""

    @staticmethod
    def build(inputs: int, outputs: int, hidden: int, blocks: int) -> nn.Sequential:
        residual = [_Residual(hidden) for _ in range(blocks)]
        return nn.Sequential(nn.Conv2d(inputs, hidden, 3, padding=1), *residual, nn.ReLU(),
                             _zero(nn.Conv2d(hidden, outputs, 1)))


class _GatedConv(nn.Module):
    """x + a * sigmoid(b) with (a, b) from concatenated-ELU features, then a norm over channels and pixels together (the
    paper's is over the channels of each pixel)."""

    def __init__(self, hidden):
        super().__init__()
        self.conv = nn.Conv2d(2 * hidden, hidden, 3, padding=1)
        self.gate = nn.Conv2d(2 * hidden, 2 * hidden, 1)
        self.norm = nn.GroupNorm(1, hidden)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv(F.elu(torch.cat([x, -x], 1)))
        a, b = self.gate(F.elu(torch.cat([h, -h], 1))).chunk(2, 1)
        return self.norm(x + a * torch.sigmoid(b))


class _Attention(nn.Module):
    """Self-attention over all pixels, gated and residual, with a learned place code and the norm of `_GatedConv`."""

    def __init__(self, hidden, height, width, heads=4):
        super().__init__()
        self.heads = heads if hidden % heads == 0 else 1
        self.place = nn.Parameter(0.01 * torch.randn(hidden, height, width))
        self.qkv = nn.Conv2d(hidden, 3 * hidden, 1)
        self.gate = nn.Conv2d(hidden, 2 * hidden, 1)
        self.norm = nn.GroupNorm(1, hidden)

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        q, k, v = self.qkv(x + self.place).reshape(n, 3, self.heads, c // self.heads, h * w).transpose(-1, -2).unbind(1)
        y = attend(q, k, v).mT.reshape(n, c, h, w)
        a, b = self.gate(y).chunk(2, 1)
        return self.norm(x + a * torch.sigmoid(b))


class GatedAttentionNet(_ImageNet):
    """Flow++'s network: gated convolutions and self-attention (Ho et al. 2019, arXiv:1902.00275, section 3.3).

    Over more than 64 pixels it takes PyTorch's fused attention, which can be differentiated once; for second
    derivatives run under `torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH)`.
    """

    def __init__(self, shape: tuple[int, int, int], outputs: int, hidden: int, context_dim: int | None = None,
                 blocks: int = 2):
        self.place = shape[1:]
        super().__init__(shape, outputs, hidden, context_dim, blocks)

    def build(self, inputs: int, outputs: int, hidden: int, blocks: int) -> nn.Sequential:
        layers = [layer for _ in range(blocks) for layer in (_GatedConv(hidden), _Attention(hidden, *self.place))]
        return nn.Sequential(nn.Conv2d(inputs, hidden, 3, padding=1), *layers,
                             _zero(nn.Conv2d(hidden, outputs, 3, padding=1)))


NETS = {"conv": ConvNet, "residual": ResidualNet, "attention": GatedAttentionNet}
