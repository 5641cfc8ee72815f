"""RealNVP: affine couplings that keep the two halves in turn; for vectors, and with masks and scales for images."""
from __future__ import annotations

import math
from collections.abc import Sequence

from ..arguments import declared_context
from ..bases import StandardNormal
from ..core import Compose, Flow
from ..elementwise.affine import Affine
from ..images.dequantize import Dequantize
from ..images.multiscale import MultiScale, scale_shapes, unsqueezed_shapes
from ..images.norms import ActNorm, BatchNorm
from ..images.preprocess import preprocessing
from ..recipes import FLAT, Recipe, Settings
from ..reversible import Reversible
from .image import ImageCoupling
from .vector import Coupling

__all__ = ["RealNVP", "RealNVPImage"]


class RealNVP(Flow):
    r"""Affine couplings over a Gaussian base (Dinh et al. 2017, arXiv:1605.08803).

    $x_b = z_b \odot e^{s(z_a)} + t(z_a)$ in each layer. Cost: `layers` network passes, both ways.

    Args:
        dim: D.
        layers: Number of couplings.
        hidden: Widths of each network's hidden layers.
        context_dim: Width of a context, or None.

    Example:
        >>> import torch; from flowlib import RealNVP
        >>> round(RealNVP(2).log_prob(torch.zeros(2)).item(), 4)  # the identity at the start: -ln 2 pi
        -1.8379
    """

    def __init__(self, dim: int, *, layers: int = 8, hidden: Sequence[int] = (64, 64), context_dim: int | None = None):
        couplings = [Coupling(dim, Affine(), hidden=hidden, swap=k % 2 == 1, context_dim=context_dim)
                     for k in range(layers)]
        super().__init__(StandardNormal(dim), Compose(*couplings))


class RealNVPImage(Flow):
    r"""RealNVP for images (Dinh et al. 2017, arXiv:1605.08803, section 3): at each scale affine couplings with
    checkerboard masks, a squeeze, affine couplings with channel masks, and half of the channels factored out. An
    activation normalisation takes the place of the paper's batch normalisation (`norm="batch"` for that one), so that
    training and evaluation agree; and the half that is factored out is Gaussianised given the other, which is Glow's
    (`learn_prior=False`: as in the paper).

    Integer pixels in and out: uniform dequantization and the preprocessing are inside, so `log_prob` is a lower bound.
    Cost: one pass of all networks, both ways.

    Args:
        shape: (C, H, W), H and W divisible by 2^scales.
        levels: Number of grey values.
        scales: Number of scales.
        steps: Couplings of each kind at each scale.
        hidden: Channels of the networks.
        context_dim: Width of a context, or None.
        context_shape: In its place, the shape of one context: (K,), or (K, H', W') for images.
        norm: "act" or "batch".
        save_memory: Recompute activations in the backward pass (`Reversible`; not with batch normalisation).
        blocks: Residual blocks of each network (8 in the paper's CIFAR-10 model).
        preprocess: What the flow sees of a pixel: "scale", "centre", "logit" or the logit's alpha
            (`flowlib.images.preprocess`).
        learn_prior: Whether the factored-out half is Gaussianised given the other.

    Raises:
        ValueError: A height or width that cannot be halved so often.

    Example:
        >>> from flowlib import RealNVPImage
        >>> RealNVPImage((1, 8, 8), levels=17, scales=2, steps=2, hidden=8).sample(3).shape
        torch.Size([3, 1, 8, 8])
    """

    def __init__(self, shape: tuple[int, int, int], *, levels: int = 256, scales: int = 2, steps: int = 3,
                 hidden: int = 32, context_dim: int | None = None, norm: str = "act", save_memory: bool = False,
                 blocks: int = 2, context_shape: tuple[int, ...] | None = None, preprocess: str | float = "logit",
                 learn_prior: bool = True):
        if norm not in ("act", "batch") or (norm == "batch" and save_memory):
            raise ValueError(f'norm must be "act" or "batch", and "batch" cannot save memory; got {norm!r}')
        normalise = ActNorm if norm == "act" else BatchNorm
        context_shape = declared_context(context_dim, context_shape)
        chain = Reversible if save_memory else Compose

        def couplings(shape, mask):
            return chain(*(f for k in range(steps) for f in (
                ImageCoupling(shape, Affine(), hidden=hidden, mask=mask, swap=k % 2 == 1, net="residual", blocks=blocks,
                              context_shape=context_shape), normalise(shape))))

        body = MultiScale(shape, [couplings(s, "channel") for s in scale_shapes(shape, scales)],
                          [couplings(s, "checkerboard") for s in unsqueezed_shapes(shape, scales)],
                          hidden=hidden, learn_prior=learn_prior)
        super().__init__(StandardNormal(math.prod(shape)),
                         Compose(body, *preprocessing(preprocess), Dequantize(levels)))
        self.levels = levels


RECIPES = (
    Recipe("realnvp", RealNVPImage, over="images",
           small=Settings(dict(scales=2, steps=3, hidden=24, blocks=1), dict(steps=3000, batch_size=32, lr=5e-3)),
           # section 4.1: CIFAR-10; where a paper gives no length, 300 epochs
           paper=Settings(dict(scales=2, steps=3, hidden=64, blocks=8, learn_prior=False),
                          dict(epochs=300, batch_size=64, lr=1e-3, weight_decay=5e-5))),
    Recipe("realnvp-flat", RealNVP, over="vectors", small=Settings(dict(layers=8, hidden=(256, 256)), FLAT)),
)
