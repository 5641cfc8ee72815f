"""An image as a sequence of tokens, each a square patch of it."""
from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["patches"]


def patches(shape: tuple[int, int, int], patch: int) -> Tensor:
    """Which numbers of a flattened image make each patch: an (N, C p p) tensor of indices, patches in raster order.

    Args:
        shape: (C, H, W).
        patch: p, which divides H and W.

    Raises:
        ValueError: A patch that does not divide height and width.

    Example:
        >>> patches((1, 2, 4), 2)
        tensor([[0, 1, 4, 5],
                [2, 3, 6, 7]])
    """
    c, h, w = shape
    if patch < 1 or h % patch or w % patch:
        raise ValueError(f"patches need a size that divides height and width, got shape {tuple(shape)}, patch={patch}")
    grid = torch.arange(c * h * w).reshape(c, h // patch, patch, w // patch, patch)
    return grid.permute(1, 3, 0, 2, 4).reshape(-1, c * patch * patch)
