"""Flow++: couplings whose map is the CDF of a mixture, networks with attention, and noise that is learned."""
from __future__ import annotations

import math

from ..arguments import declared_context
from ..bases import StandardNormal
from ..core import Compose, Flow
from ..elementwise.mixture import LogisticMixtureCDF
from ..images.conv1x1 import InvertibleConv1x1
from ..images.dequantize import Dequantize
from ..images.multiscale import MultiScale, scale_shapes
from ..images.norms import ActNorm
from ..images.preprocess import preprocessing
from ..images.variational import VariationalDequantize
from ..recipes import Recipe, Settings
from .image import ImageCoupling

__all__ = ["FlowPlusPlus"]


class FlowPlusPlus(Flow):
    r"""Flow++ (Ho et al. 2019, arXiv:1902.00275) over integer pixels: mixture-of-logistics CDF couplings, gated
    convolutions with self-attention, variational dequantization; checkerboard couplings at full resolution, then scales
    with channel couplings. `log_prob` is a lower bound and random. Call `initialize(batch)` first (`train.fit` does).

    Cost: one pass of all networks, both ways; sampling also a root search in every coupling. Second derivatives need
    the unfused attention: `with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH)`.

    Args:
        shape: (C, H, W), H and W divisible by 2^scales.
        levels: Number of grey values.
        scales: Number of scales.
        steps: Couplings at each resolution.
        hidden: Channels of the networks.
        components: Of each mixture.
        context_dim: Width of a context, or None.
        context_shape: In its place, the shape of one context: (K,), or (K, H', W') for images.
        variational: Whether the noise is learned; uniform if not.
        blocks: Of each network: gated convolutions and attention (10 in the paper).
        preprocess: What the flow sees of a pixel: "scale", "centre", "logit" or the logit's alpha
            (`flowlib.images.preprocess`).

    Raises:
        ValueError: A height or width that cannot be halved so often.

    Example:
        >>> import torch; from flowlib import FlowPlusPlus
        >>> model = FlowPlusPlus((1, 8, 8), levels=17, scales=1, steps=2, hidden=8, components=4)
        >>> model.log_prob(torch.zeros(2, 1, 8, 8, dtype=torch.uint8)).shape
        torch.Size([2])
    """

    def __init__(self, shape: tuple[int, int, int], *, levels: int = 256, scales: int = 2, steps: int = 4,
                 hidden: int = 32, components: int = 8, context_dim: int | None = None, variational: bool = True,
                 blocks: int = 2, context_shape: tuple[int, ...] | None = None, preprocess: str | float = "logit"):
        context_shape = declared_context(context_dim, context_shape)

        def chain(shape, mask):
            return Compose(*(f for k in range(steps) for f in (
                ImageCoupling(shape, LogisticMixtureCDF(components), hidden=hidden, mask=mask, swap=k % 2 == 1,
                              net="attention", blocks=blocks, context_shape=context_shape),
                *([InvertibleConv1x1(shape)] if shape[0] > 1 else []), ActNorm(shape))))

        body = MultiScale(shape, [chain(s, "channel") for s in scale_shapes(shape, scales)], hidden=hidden)
        noise = VariationalDequantize(shape, levels, hidden=hidden) if variational else Dequantize(levels)
        super().__init__(StandardNormal(math.prod(shape)),
                         Compose(body, chain(tuple(shape), "checkerboard"), *preprocessing(preprocess), noise))
        self.levels = levels


RECIPES = (
    Recipe("flowpp", FlowPlusPlus, over="images",
           small=Settings(dict(scales=2, steps=2, hidden=32, components=8), dict(steps=2000, batch_size=32, lr=1e-3)),
           # section 4: CIFAR-10; the paper gives no length: 300 epochs
           paper=Settings(dict(scales=1, steps=4, hidden=96, components=32, blocks=10),
                          dict(epochs=300, batch_size=64, lr=3e-4, clip=1.0))),
)
