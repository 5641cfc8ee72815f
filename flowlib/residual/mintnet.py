"""MintNet: Mint layers in both raster orders, at the resolution of the image and of its squeezed forms."""
from __future__ import annotations

import math

from ..arguments import declared_context
from ..bases import StandardNormal
from ..core import Bijection, Compose, Flow
from ..images.dequantize import Dequantize
from ..images.norms import ActNorm
from ..images.preprocess import preprocessing
from ..images.reshape import Reshape
from ..images.squeeze import Squeeze
from ..recipes import Recipe, Settings
from .mint import MintLayer

__all__ = ["MintNet"]


class MintNet(Flow):
    r"""MintNet (Song et al. 2019, arXiv:1907.07945) over integer pixels: pairs of `MintLayer`s, the second of a pair in
    the reverse of raster order, at the resolution of the image and after each of `scales` squeezes. All numbers go
    through all layers. (An `ActNorm` before each pair is not in the paper.)

    Pixels are uniformly dequantized, so `log_prob` is a lower bound and random. Call `initialize(batch)` first
    (`train.fit` does). Cost: density one pass of all networks; sampling a few to a few dozen passes of each, for all
    pixels at once, see `MintLayer`.

    Args:
        shape: (C, H, W), H and W divisible by 2^scales.
        levels: Number of grey values.
        scales: Number of squeezes.
        steps: Pairs of layers at each resolution.
        hidden: Hidden units for each number of the image: a channel of it has so many in each network (45 in the
            paper's model of MNIST).
        kernel: Width of the kernels, odd.
        context_dim: Width of a context, or None.
        context_shape: In its place, the shape of one context: (K,), or (K, H', W') for images.
        preprocess: What the flow sees of a pixel: "scale", "centre", "logit" or the logit's alpha
            (`flowlib.images.preprocess`).

    Raises:
        ValueError: A height or width that cannot be halved so often, or an even kernel.

    Example:
        >>> import torch; from flowlib import MintNet
        >>> MintNet((1, 8, 8), levels=17, steps=1, hidden=4).log_prob(torch.zeros(5, 1, 8, 8, dtype=torch.uint8)).shape
        torch.Size([5])
    """

    def __init__(self, shape: tuple[int, int, int], *, levels: int = 256, scales: int = 1, steps: int = 2,
                 hidden: int = 8, kernel: int = 3, context_dim: int | None = None,
                 context_shape: tuple[int, ...] | None = None, preprocess: str | float = "logit"):
        context_shape = declared_context(context_dim, context_shape)

        def pair(shape):  # in the generative direction
            return (*(MintLayer(shape, units=hidden, kernel=kernel, reverse=reverse, context_shape=context_shape)
                      for reverse in (True, False)), ActNorm(shape))

        parts: list[Bijection] = []
        for k in range(scales + 1):
            if k:
                squeeze = Squeeze(shape)
                parts, shape = [squeeze, *parts], squeeze.latent_shape
            parts = [*(f for _ in range(steps) for f in pair(shape)), *parts]
        dims = math.prod(shape)
        super().__init__(StandardNormal(dims), Compose(
            Compose(Reshape((dims,), tuple(shape)), *parts), *preprocessing(preprocess), Dequantize(levels)))
        self.levels = levels


RECIPES = (
    Recipe("mintnet", MintNet, over="images",
           small=Settings(dict(scales=1, steps=2, hidden=8), dict(steps=3000, batch_size=32, lr=3e-3)),
           # MNIST, by the authors' published configuration: 20 pairs at three resolutions
           paper=Settings(dict(scales=2, steps=7, hidden=45), dict(epochs=600, batch_size=32, lr=1e-3))),
)
