"""Glow: at each scale, steps of activation normalisation, a learned mixing of channels, and an affine coupling."""
from __future__ import annotations

import math

from ..arguments import declared_context
from ..bases import StandardNormal
from ..core import Compose, Flow
from ..elementwise.affine import Affine
from ..images.conv1x1 import InvertibleConv1x1
from ..images.dequantize import Dequantize
from ..images.multiscale import MultiScale, scale_shapes
from ..images.norms import ActNorm
from ..images.preprocess import preprocessing
from ..recipes import Recipe, Settings
from ..reversible import Reversible
from .image import ImageCoupling

__all__ = ["Glow"]


class Glow(Flow):
    r"""Glow (Kingma and Dhariwal 2018, arXiv:1807.03039) over integer pixels.

    A step is, to the latent: ActNorm, `InvertibleConv1x1`, affine `ImageCoupling`. `steps` of them make a scale, after
    which half of the channels is factored out and Gaussianised given the other half and the context (`MultiScale`: the
    split prior, which starts as a plain Gaussian). Pixels are uniformly dequantized, so `log_prob` is a lower bound and
    random. Call `initialize(batch)` first (`train.fit` does). Cost: one pass of all networks, both ways.

    Args:
        shape: (C, H, W), H and W divisible by 2^scales.
        levels: Number of grey values: 256, or 32 for the paper's 5-bit images.
        scales: L.
        steps: K.
        hidden: Channels of the networks (512 in the paper).
        context_dim: Width of a context, a one-hot class for a class-conditional model, or None.
        context_shape: In its place, the shape of one context: (K,), or (K, H', W') for images.
        learn_prior: Whether the factored-out half is Gaussianised given the other.
        save_memory: Recompute activations in the backward pass (`Reversible`).
        preprocess: What the flow sees of a pixel: "scale", "centre", "logit" or the logit's alpha
            (`flowlib.images.preprocess`).

    Raises:
        ValueError: A height or width that cannot be halved so often, or an unknown preprocessing.

    Example:
        >>> import torch; from flowlib import Glow
        >>> Glow((3, 8, 8), scales=2, steps=2, hidden=8).log_prob(torch.zeros(5, 3, 8, 8, dtype=torch.uint8)).shape
        torch.Size([5])
    """

    def __init__(self, shape: tuple[int, int, int], *, levels: int = 256, scales: int = 3, steps: int = 8,
                 hidden: int = 64, context_dim: int | None = None, learn_prior: bool = True, save_memory: bool = False,
                 context_shape: tuple[int, ...] | None = None, preprocess: str | float = "centre"):
        context_shape = declared_context(context_dim, context_shape)
        chain = Reversible if save_memory else Compose

        def step(shape):
            coupling = ImageCoupling(shape, Affine(), hidden=hidden, context_shape=context_shape)
            return coupling, InvertibleConv1x1(shape), ActNorm(shape)

        layers = [chain(*(f for _ in range(steps) for f in step(s))) for s in scale_shapes(shape, scales)]
        body = MultiScale(shape, layers, hidden=hidden, learn_prior=learn_prior)
        super().__init__(StandardNormal(math.prod(shape)),
                         Compose(body, *preprocessing(preprocess), Dequantize(levels)))
        self.levels = levels


RECIPES = (
    Recipe("glow", Glow, over="images",
           small=Settings(dict(scales=2, steps=8, hidden=64), dict(steps=9000, batch_size=32, lr=5e-3)),
           # section 5 and appendix A: CIFAR-10, 8 workers of 64 images
           paper=Settings(dict(scales=3, steps=32, hidden=512), dict(epochs=1800, batch_size=512, lr=1e-3))),
)
