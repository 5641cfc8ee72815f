"""NICE: additive couplings, which preserve volume, and one scale per coordinate, which does not."""
from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from ..bases import StandardLogistic
from ..core import Compose, Flow
from ..elementwise.affine import Additive
from ..images.norms import DiagonalScale
from ..maps import Permutation
from ..recipes import FLAT, Recipe, Settings
from .vector import Coupling

__all__ = ["NICE"]


class NICE(Flow):
    r"""Additive couplings and a diagonal scale over a logistic base (Dinh et al. 2015, arXiv:1410.8516).

    Cost: `layers` network passes, both ways. Call `initialize(batch)` first (`train.fit` does): the scale starts from
    data.

    Args:
        dim: D.
        layers: Number of couplings, which keep the two halves in turn.
        hidden: Widths of each network's hidden layers.
        context_dim: Width of a context, or None.
        alternate: The two halves are the even and the odd coordinates, as in the paper, and not the first and the last:
            of an image, neighbouring pixels then tell of each other.

    Example:
        >>> from flowlib import NICE
        >>> NICE(4).sample(3).shape
        torch.Size([3, 4])
    """

    def __init__(self, dim: int, *, layers: int = 4, hidden: Sequence[int] = (64, 64), context_dim: int | None = None,
                 alternate: bool = False):
        couplings = [Coupling(dim, Additive(), hidden=hidden, swap=k % 2 == 1, context_dim=context_dim)
                     for k in range(layers)]
        places = torch.arange(dim)  # the first half of the latent goes to the even places
        weave = [Permutation(torch.cat([places[::2], places[1::2]]).argsort())] if alternate else []
        scale = DiagonalScale(dim, std=math.pi / math.sqrt(3))
        super().__init__(StandardLogistic(dim), Compose(scale, *couplings, *weave))


RECIPES = (
    Recipe("nice", NICE, over="vectors",
           small=Settings(dict(layers=4, hidden=(256, 256), alternate=True), dict(steps=1500, batch_size=200, lr=1e-3)),
           # section 5.1: MNIST, 1,500 epochs of batches of 200
           paper=Settings(dict(layers=4, hidden=(1000,) * 5, alternate=True),
                          dict(epochs=1500, batch_size=200, lr=1e-3))),
    Recipe("nice-flat", NICE, over="vectors", small=Settings(dict(layers=6, hidden=(256, 256)), FLAT)),
)
