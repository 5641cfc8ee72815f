"""Trading space for channels, and the two ways of cutting an image in half: by channels, or like a checkerboard."""
from __future__ import annotations

import torch
from torch import Tensor

from ..core import Bijection

__all__ = ["Squeeze", "checkerboard"]


class Squeeze(Bijection):
    r"""Each 2 x 2 block of pixels becomes 4 channels on the way to the latent: `inverse` maps (C, H, W) to (4C, H/2,
    W/2), `forward` back. A reordering, $\log|\det| = 0$ (Dinh et al. 2017, arXiv:1605.08803, section 3.6). Cost: O(D)
    both ways.

    Args:
        shape: (C, H, W) of the data side.

    Raises:
        ValueError: An odd height or width.

    Example:
        >>> import torch; from flowlib import Squeeze
        >>> Squeeze((1, 4, 4)).inverse(torch.zeros(7, 1, 4, 4))[0].shape
        torch.Size([7, 4, 2, 2])
    """

    latent_ndim = event_ndim = 3
    latent_shape: tuple[int, int, int]
    event_shape: tuple[int, int, int]

    def __init__(self, shape: tuple[int, int, int]):
        super().__init__()
        c, h, w = shape
        if h % 2 or w % 2:
            raise ValueError(f"Squeeze needs an even height and width, got shape {tuple(shape)}")
        self.event_shape, self.latent_shape = (c, h, w), (4 * c, h // 2, w // 2)

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        c, h, w = self.event_shape
        x = z.unflatten(-3, (c, 2, 2)).movedim((-4, -3), (-3, -1))  # (..., c, H/2, 2, W/2, 2)
        return x.reshape(*z.shape[:-3], c, h, w), z.new_zeros(z.shape[:-3])

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        c, h, w = self.event_shape
        z = x.reshape(*x.shape[:-3], c, h // 2, 2, w // 2, 2).movedim((-3, -1), (-4, -3))
        return z.reshape(*x.shape[:-3], *self.latent_shape), x.new_zeros(x.shape[:-3])


def checkerboard(height: int, width: int) -> Tensor:
    """A (height, width) mask that is True where row + column is even.

    Example:
        >>> checkerboard(2, 3).int()
        tensor([[1, 0, 1],
                [0, 1, 0]], dtype=torch.int32)
    """
    return (torch.arange(height)[:, None] + torch.arange(width)) % 2 == 0
