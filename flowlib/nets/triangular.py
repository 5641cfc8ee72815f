"""A convolutional network with a triangular Jacobian: each output sees the inputs that come before it, whatever the
weights, and rises with its own."""
from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..numerics import wide

__all__ = ["MaskedConv", "Pass", "TriangularNet"]


class MaskedConv(nn.Module):
    r"""A convolution of images (N, C I, H, W) to (N, C J, H, W) with I numbers in and J out for each channel of an
    image, channel by channel. An output sees what comes before it in raster order: all channels of the pixels above
    and to the left, and at its own pixel the channels before its own. Weights to the numbers of its *own* channel and
    pixel count with their absolute value, and with the product of both ends' signs.

    Rows of the kernel below its centre would be masked, so there are none. Weights start as those of `MaskedLinear`.

    Args:
        channels: C.
        kernel: Width of the kernel, odd.
        inputs, outputs: Signs of the I and the J, (I,) and (J,).
    """

    before: Tensor
    own: Tensor

    def __init__(self, channels: int, kernel: int, inputs: Tensor, outputs: Tensor):
        super().__init__()
        self.channels, self.reach = channels, kernel // 2
        rank = torch.arange(channels)
        to, of = rank.repeat_interleave(len(outputs))[:, None], rank.repeat_interleave(len(inputs))
        before = torch.ones(len(to), len(of), self.reach + 1, kernel, dtype=torch.bool)
        before[..., -1, self.reach:] = False
        before[..., -1, self.reach] = to > of
        signs = torch.outer(outputs.repeat(channels), inputs.repeat(channels))
        self.register_buffer("before", before)
        self.register_buffer("own", ((to == of) * signs).to(torch.int8))
        bound = (before.sum((1, 2, 3)) + len(inputs)).rsqrt()
        self.weight = nn.Parameter((2 * torch.rand(before.shape) - 1) * bound[:, None, None, None])
        self.bias = nn.Parameter((2 * torch.rand(len(to)) - 1) * bound)

    def _own(self):
        """(C J, C I), zero but for weights to a number's own channel."""
        return self.weight[..., -1, self.reach].abs() * self.own

    def own_weights(self) -> Tensor:
        """Those to a number's own channel and pixel: (C J, I, 1, 1), for a convolution of C groups."""
        blocks = wide(self._own()).unflatten(0, (self.channels, -1)).unflatten(2, (self.channels, -1))  # (C, J, C, I)
        return blocks.diagonal(dim1=0, dim2=2).movedim(-1, 0).flatten(0, 1)[..., None, None]

    def forward(self, x: Tensor) -> Tensor:
        """(N, C I, H, W) to (N, C J, H, W)."""
        around = (self.reach, self.reach, self.reach, 0)
        # the same bytes read as integers, which torch converts faster than truth values
        before = self.weight * self.before.view(torch.uint8).to(self.weight.dtype)
        weight = wide(before + F.pad(self._own()[..., None, None], around))
        return F.conv2d(F.pad(x, around) if self.reach else x, weight, wide(self.bias))


class Pass(NamedTuple):
    """What one pass of a `TriangularNet` leaves: the values, the diagonal of the Jacobian, both (N, C, H, W), and what
    the hidden units were given, (N, C K, H, W) twice."""

    value: Tensor
    diagonal: Tensor
    hidden: tuple[Tensor, Tensor]


def _elu(v):
    """ELU and its slope, which is what its left branch is made of."""
    slope = (-(-v).relu()).exp()
    return v.relu() + (slope - 1), slope


class TriangularNet(nn.Module):
    r"""$g(x) = W_3\, h(W_2\, h(W_1 x + b_1) + b_2) + b_3$ on images, with three masked convolutions and h the ELU (Song
    et al. 2019, arXiv:1907.07945, equation 7). The product of triangular matrices is triangular, and its diagonal that
    of the diagonals, so

    $$\frac{\partial g_i}{\partial x_i} = \sum_{k, l} |w^3_{ik}|\, h'(v^2_{ik})\, |w^2_{ikl}|\, h'(v^1_{il})\,
    |w^1_{il}| \ge 0$$

    over the K hidden units l, k of each layer that share i's channel and pixel. Half of the units have the sign +1,
    half -1, which the weights to and from them take there, so that rising functions of either bend can be made. (In the
    paper W_2 takes the signs of W_1 and W_3, whose weights are free; where one of these goes through zero, g jumps.)

    Cost: one pass of three convolutions of C, C K and C K channels; the diagonal by two of 1 x 1 and C groups.

    Args:
        channels: C.
        units: K.
        kernel: Width of the kernels, odd.
        context_dim: Width of a context that every output may see, or None.

    Example:
        >>> value, diagonal, _ = TriangularNet(1, 4, 3)(torch.zeros(2, 1, 5, 5)); bool((diagonal >= 0).all())
        True
    """

    def __init__(self, channels: int, units: int, kernel: int, context_dim: int | None = None):
        super().__init__()
        self.channels = channels
        one, signs = torch.ones(1), 1.0 - 2.0 * (torch.arange(units) % 2)
        self.convs = cast("Sequence[MaskedConv]", nn.ModuleList(
            MaskedConv(channels, kernel, a, b) for a, b in ((one, signs), (signs, signs), (signs, one))))
        self.context = None if context_dim is None else nn.Conv2d(context_dim, channels * units, 1, bias=False)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Pass:
        """Images (N, C, H, W) and, where the net was built with `context_dim`, a context (N, K', H, W)."""
        first, second, third = self.convs
        v = first(x)
        if self.context is not None:
            v = v + F.conv2d(cast("Tensor", context), wide(self.context.weight))
        h, slope = _elu(v)
        w = second(h)
        h, other = _elu(w)
        return Pass(third(h), self._diagonal(slope, other, self.own_weights()), (v, w))

    def own_weights(self) -> tuple[Tensor, ...]:
        """Of the three convolutions."""
        return tuple(conv.own_weights() for conv in self.convs)

    def _grouped(self, x, weight):
        return F.conv2d(x, weight, groups=self.channels)

    def _diagonal(self, first, second, own):
        """From the slopes of h in both hidden layers."""
        to_second = own[1].unflatten(0, (self.channels, -1)) * own[0].reshape(self.channels, 1, -1, 1, 1)
        return self._grouped(second * self._grouped(first, to_second.flatten(0, 1)), own[2])

    def along(self, step: Tensor, hidden: tuple[Tensor, Tensor], own: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        """How much each output rises if its own input alone is moved by `step` (N, C, H, W) from where a pass found
        `hidden`, and the slope there. Cost: four convolutions of 1 x 1 and C groups."""
        v, w = hidden
        new = v + self._grouped(step, own[0])
        h, slope = _elu(new)
        rise = self._grouped(h - _elu(v)[0], own[1])
        h, other = _elu(w + rise)
        return self._grouped(h - _elu(w)[0], own[2]), self._diagonal(slope, other, own)
