"""The same numbers in another shape: vectors to images and back."""
from __future__ import annotations

import math

from torch import Tensor

from ..core import Bijection

__all__ = ["Reshape"]


class Reshape(Bijection):
    """The same numbers in another shape; $\\log|\\det| = 0$.

    Args:
        latent_shape, event_shape: Shapes of one latent and one data point, of equal size.

    Raises:
        ValueError: Shapes of different sizes.

    Example:
        >>> import torch; from flowlib import Reshape
        >>> Reshape((4,), (1, 2, 2))(torch.zeros(7, 4))[0].shape
        torch.Size([7, 1, 2, 2])
    """

    latent_shape: tuple[int, ...]
    event_shape: tuple[int, ...]

    def __init__(self, latent_shape: tuple[int, ...], event_shape: tuple[int, ...]):
        super().__init__()
        if math.prod(latent_shape) != math.prod(event_shape):
            raise ValueError(f"cannot reshape events of shape {tuple(latent_shape)} into {tuple(event_shape)}")
        self.latent_shape, self.event_shape = tuple(latent_shape), tuple(event_shape)
        self.latent_ndim, self.event_ndim = len(latent_shape), len(event_shape)

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        batch = z.shape[: z.ndim - self.latent_ndim]
        return z.reshape(*batch, *self.event_shape), z.new_zeros(batch)

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        batch = x.shape[: x.ndim - self.event_ndim]
        return x.reshape(*batch, *self.latent_shape), x.new_zeros(batch)
