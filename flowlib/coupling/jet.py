"""Jet: couplings over patches, whose networks are vision transformers."""
from __future__ import annotations

import math

import torch
from torch import Tensor

from ..bases import StandardNormal
from ..core import Bijection, Compose, Flow
from ..elementwise.affine import SigmoidAffine
from ..elementwise.base import ElementwiseMap, arrange, check_map, readable
from ..images.dequantize import Dequantize
from ..images.patches import patches
from ..images.preprocess import preprocessing
from ..images.reshape import Reshape
from ..images.squeeze import checkerboard
from ..nets.transformer import Transformer
from ..recipes import Recipe, Settings

__all__ = ["Jet", "PatchCoupling"]


class PatchCoupling(Bijection):
    r"""$x_a = z_a,\quad x_b = g(z_b; \theta(z_a, c))$ as in `Coupling`, for an image cut into patches, where $\theta$
    is a `Transformer` over tokens. $\log|\det| = \sum_{i \in b} \ln g'(z_i)$. Cost: one pass of the network, both ways.

    With split "channel" a token is a patch, and a is one half of its numbers, the same of all patches, drawn at random
    when the layer is made. With split "spatial" a and b are the patches of the two colours of a checkerboard, and the
    network reads only those of a.

    Args:
        shape: (C, H, W).
        elementwise: The map g: `SigmoidAffine()` in Jet.
        patch: Side of a patch, which divides H and W.
        split: "channel" or "spatial".
        swap: Of a spatial split, whether the other colour is kept.
        hidden: Width of the transformer.
        depth: Its number of blocks.
        heads: Of its attention; they divide `hidden`.
        context_dim: Width of a context (..., C), the same for every token, or None.

    Raises:
        ValueError: A patch that does not divide height and width; patches of one number, which have no halves; an odd
            number of patches for a spatial split; what `Transformer` refuses; what is no elementwise map.

    Example:
        >>> from flowlib import Affine, PatchCoupling
        >>> PatchCoupling((1, 8, 8), Affine(), split="spatial")(torch.zeros(7, 1, 8, 8))[1].shape
        torch.Size([7])
    """

    latent_ndim = event_ndim = 3
    order: Tensor
    back: Tensor
    event_shape: tuple[int, int, int]

    def __init__(self, shape: tuple[int, int, int], elementwise: ElementwiseMap, *, patch: int = 2,
                 split: str = "channel", swap: bool = False, hidden: int = 64, depth: int = 2, heads: int = 4,
                 context_dim: int | None = None):
        super().__init__()
        check_map(elementwise, "PatchCoupling")
        if split not in ("channel", "spatial"):
            raise ValueError(f'split is "channel" or "spatial", got {split!r}')
        c, h, w = shape
        self.latent_shape = self.event_shape = (c, h, w)
        self.elementwise, self.context_dim = elementwise, context_dim
        order = patches(shape, patch)  # (N, d), then (tokens, what is kept of each and what is moved)
        if split == "channel":
            order = order[:, torch.randperm(order.shape[1])]
        else:
            if len(order) % 2:
                raise ValueError(f"a spatial split needs an even number of patches, got {len(order)}")
            moved = checkerboard(h // patch, w // patch).flatten() ^ (not swap)
            order = torch.cat(order[moved.int().argsort(stable=True)].chunk(2), 1)
        length, dim = order.shape
        self.cut = dim // 2
        if self.cut < 1:
            raise ValueError("a channel split needs patches of at least two numbers, "
                             f"got shape {tuple(shape)}, patch={patch}")
        self.register_buffer("order", order)
        self.register_buffer("back", order.flatten().argsort())
        self.net = Transformer(length, self.cut, (dim - self.cut) * elementwise.n_params, hidden, depth, heads,
                               context_dim=context_dim)

    def _move(self, value, context, g):
        kept, moved = value.flatten(-3)[..., self.order].tensor_split([self.cut], -1)
        output = self.net(readable(kept), context if self.context_shape else None)
        params = arrange(output, self.elementwise.n_params, -1).to(value.dtype)
        batch = params.shape[:-2]  # to which a context may have brought axes
        kept, moved = (part.expand(*batch, -1) for part in (kept, moved))
        moved, log_slope = g(moved, params)
        tokens = torch.cat([kept, moved], -1).flatten(-2)
        return tokens[..., self.back].unflatten(-1, self.event_shape), log_slope.sum((-2, -1))

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._move(z, context, self.elementwise.forward)

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._move(x, context, self.elementwise.inverse)


class Jet(Flow):
    r"""Jet (Kolesnikov et al. 2024, arXiv:2412.15129) over integer pixels: `PatchCoupling`s with the map
    `SigmoidAffine`, two that split channels and one that splits space in turn, and nothing else: no scales, no learned
    mixing, no normalisation.

    Pixels are uniformly dequantized, so `log_prob` is a lower bound and random. Cost: one pass of all networks, both
    ways.

    Args:
        shape: (C, H, W).
        levels: Number of grey values.
        patch: Side of a patch, which divides H and W; there are an even number of patches.
        layers: Number of couplings.
        depth: Transformer blocks of each.
        hidden: Their width.
        heads: Of their attention.
        context_dim: Width of a context, a one-hot class for a class-conditional model, or None.
        preprocess: What the flow sees of a pixel: "scale", "centre", "logit" or the logit's alpha
            (`flowlib.images.preprocess`).

    Raises:
        ValueError: What `PatchCoupling` refuses.

    Example:
        >>> from flowlib import Jet
        >>> Jet((1, 8, 8), levels=17, layers=3, hidden=8).sample(3).shape
        torch.Size([3, 1, 8, 8])
    """

    def __init__(self, shape: tuple[int, int, int], *, levels: int = 256, patch: int = 2, layers: int = 12,
                 depth: int = 2, hidden: int = 64, heads: int = 4, context_dim: int | None = None,
                 preprocess: str | float = "logit"):
        couplings = [PatchCoupling(shape, SigmoidAffine(), patch=patch, split="spatial" if k % 3 == 2 else "channel",
                                   swap=k % 6 == 5, hidden=hidden, depth=depth, heads=heads, context_dim=context_dim)
                     for k in range(layers)]
        dims = math.prod(shape)
        super().__init__(StandardNormal(dims), Compose(
            Compose(Reshape((dims,), tuple(shape)), *couplings), *preprocessing(preprocess), Dequantize(levels)))
        self.levels = levels


RECIPES = (Recipe("jet", Jet, over="images",
                  small=Settings(dict(patch=2, layers=12, depth=1, hidden=56),
                                 dict(epochs=60, batch_size=64, lr=3e-3, weight_decay=0.3, ema=0.98))),)
