"""NICE: additive couplings, which preserve volume, and one scale per coordinate, which does not."""
from __future__ import annotations

import math

import torch
from torch import nn

from ..bases import StandardLogistic
from ..core import Bijection, Compose, Flow
from ..elementwise.affine import Additive
from ..maps import Permutation
from ..recipes import FLAT, Recipe, Settings
from .vector import Coupling

__all__ = ["DiagonalScale", "NICE"]


class DiagonalScale(Bijection):
    r"""$x_i = z_i e^{s_i}$ with $\log|\det| = \sum_i s_i$: the layer at the latent end of NICE (Dinh et al. 2015,
    arXiv:1410.8516, section 3.3). Without it a NICE model preserves volume and cannot fit data of another scale.

    `initialize` sets s so that the latents of the batch have the standard deviation `std` in every coordinate. Cost: O(D).

    Args:
        dim: D.
        std: Standard deviation of the base.

    Example:
        >>> from flowlib import DiagonalScale
        >>> DiagonalScale(2)(torch.ones(2))[0].tolist()
        [1.0, 1.0]
    """

    def __init__(self, dim: int, *, std: float = 1.0):
        super().__init__()
        self.event_shape = self.latent_shape = (dim,)
        self.std = std
        self.log_scale = nn.Parameter(torch.zeros(dim))
        self.register_buffer("initialized", torch.tensor(False))

    def forward(self, z, context=None):
        return z * self.log_scale.exp(), self.log_scale.sum().expand(z.shape[:-1])

    def inverse(self, x, context=None):
        return x * (-self.log_scale).exp(), -self.log_scale.sum().expand(x.shape[:-1])

    @torch.no_grad()
    def initialize(self, batch, context=None, inverse=True):
        if not self.initialized:
            rows = batch.reshape(-1, batch.shape[-1])
            if len(rows) < 2:
                raise ValueError("a data-dependent start needs at least two rows")
            log_ratio = (rows.std(0).clamp(min=1e-4) / self.std).log()  # a constant coordinate has no scale: keep it finite
            self.log_scale.copy_(log_ratio if inverse else -log_ratio)
            self.initialized.fill_(True)
        return super().initialize(batch, context, inverse)


class NICE(Flow):
    r"""Additive couplings and a diagonal scale over a logistic base (Dinh et al. 2015, arXiv:1410.8516).

    Cost: `layers` network passes, both ways. Call `initialize(batch)` first (`train.fit` does): the scale starts from data.

    Args:
        dim: D.
        layers: Number of couplings, which keep the two halves in turn.
        hidden: Widths of each network's hidden layers.
        context_dim: Width of a context, or None.
        alternate: The two halves are the even and the odd coordinates, as in the paper, and not the first and the last: of an
            image, neighbouring pixels then tell of each other.

    Example:
        >>> from flowlib import NICE
        >>> NICE(4).sample(3).shape
        torch.Size([3, 4])
    """

    def __init__(self, dim: int, *, layers: int = 4, hidden: tuple[int, ...] = (64, 64), context_dim: int | None = None,
                 alternate: bool = False):
        couplings = [Coupling(dim, Additive(), hidden=hidden, swap=k % 2 == 1, context_dim=context_dim) for k in range(layers)]
        places = torch.arange(dim)  # the first half of the latent goes to the even places
        weave = [Permutation(torch.cat([places[::2], places[1::2]]).argsort())] if alternate else []
        super().__init__(StandardLogistic(dim), Compose(DiagonalScale(dim, std=math.pi / math.sqrt(3)), *couplings, *weave))


RECIPES = (
    Recipe("nice", NICE, over="vectors", preprocess="scale",
           small=Settings(dict(layers=4, hidden=(256, 256), alternate=True), dict(steps=1500, batch_size=200, lr=1e-3)),
           # section 5.1: MNIST, 1,500 epochs of batches of 200
           paper=Settings(dict(layers=4, hidden=(1000,) * 5, alternate=True), dict(epochs=1500, batch_size=200, lr=1e-3))),
    Recipe("nice-flat", NICE, over="vectors", small=Settings(dict(layers=6, hidden=(256, 256)), FLAT)),
)
