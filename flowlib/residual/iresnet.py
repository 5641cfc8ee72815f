"""Stacks of residual blocks: i-ResNet, and the residual flow that made its likelihood unbiased; for vectors and
images."""
from __future__ import annotations

import math
from collections.abc import Sequence

from ..bases import StandardNormal
from ..core import Compose, Flow
from ..images.dequantize import Dequantize
from ..images.multiscale import MultiScale, scale_shapes, unsqueezed_shapes
from ..images.norms import ActNorm
from ..images.preprocess import preprocessing
from ..recipes import FLAT, Recipe, Settings
from .block import SMALL, ResidualBlock

__all__ = ["IResNet", "ResidualFlow", "ResidualFlowImage"]


def stack(shape: int | tuple[int, ...], layers: int, **options) -> Compose:
    """Residual blocks, each with an activation normalisation at its data side: a block alone can hardly change the
    scale of its data."""
    return Compose(*(f for _ in range(layers) for f in (ResidualBlock(shape, **options), ActNorm(shape))))


class IResNet(Flow):
    r"""Invertible residual network (Behrmann et al. 2019, arXiv:1811.00995): `ResidualBlock` with ELU and a log-det
    that is exact up to D = 8 and above a power series cut off after `terms`: `log_prob` is then random and biased, by
    less than `layers` times `truncation_bound(dim, coefficient, terms)`.

    Cost: density one pass of each network and one more for each dimension or term; sampling a search in each block,
    with a test of its residual. Call `initialize(batch)` first (`train.fit` does).

    Args:
        dim: D.
        layers: Number of blocks.
        hidden: Widths of each network's hidden layers.
        coefficient: Lipschitz constant of each network.
        log_det: "exact", "series", "roulette", "neumann" (`ResidualBlock`), or None for the choice above.
        terms: Of the series.
        context_dim: Width of a context, or None.

    Raises:
        ValueError: As `ResidualBlock`.
        InversionError: As `ResidualBlock`.

    Example:
        >>> import torch; from flowlib import IResNet
        >>> flow = IResNet(2, layers=2); flow.log_prob(flow.sample(5)).shape
        torch.Size([5])
    """

    def __init__(self, dim: int, *, layers: int = 8, hidden: Sequence[int] = (64, 64), coefficient: float = 0.9,
                 log_det: str | None = None, terms: int = 10, context_dim: int | None = None):
        log_det = log_det or ("exact" if dim <= SMALL else "series")
        super().__init__(StandardNormal(dim), stack(dim, layers, hidden=hidden, coefficient=coefficient, terms=terms,
                                                    activation="elu", log_det=log_det, context_dim=context_dim))


class ResidualFlow(Flow):
    r"""Residual flow (Chen et al. 2019, arXiv:1906.02735): `ResidualBlock` with LipSwish and an unbiased log-det, exact
    up to D = 8 and above by Russian roulette, with a gradient in constant memory.

    Cost: density one pass of each network and one more for each dimension or term; sampling a search in each block,
    with a test of its residual. Call `initialize(batch)` first (`train.fit` does).

    Args:
        dim: D.
        layers: Number of blocks.
        hidden: Widths of each network's hidden layers.
        coefficient: Lipschitz constant of each network.
        log_det: "exact", "series", "roulette", "neumann" (`ResidualBlock`), or None for the choice above.
        terms: Those of the series that are always taken.
        context_dim: Width of a context, or None.

    Raises:
        ValueError: As `ResidualBlock`.
        InversionError: As `ResidualBlock`.

    Example:
        >>> import torch; from flowlib import ResidualFlow
        >>> ResidualFlow(16, layers=2).likelihood
        'estimate'
    """

    def __init__(self, dim: int, *, layers: int = 8, hidden: Sequence[int] = (64, 64), coefficient: float = 0.9,
                 log_det: str | None = None, terms: int = 5, context_dim: int | None = None):
        super().__init__(StandardNormal(dim), stack(dim, layers, hidden=hidden, coefficient=coefficient, terms=terms,
                                                    log_det=log_det, context_dim=context_dim))


class ResidualFlowImage(Flow):
    r"""Residual flow over integer pixels (Chen et al. 2019, arXiv:1906.02735, section 5.1): convolutional residual
    blocks at each scale, a squeeze between them, and half of the channels factored out and Gaussianised given the other
    (`MultiScale`, which is Glow's; the paper factors out nothing).

    Uniform dequantization and the preprocessing are inside. The log-det is random, so `log_prob` is an estimate of a
    lower bound. Cost: as `ResidualFlow`.

    Args:
        shape: (C, H, W), H and W divisible by 2^scales.
        levels: Number of grey values.
        scales: Number of scales.
        steps: Blocks before each squeeze, and after the last.
        hidden: Channels of the networks, 3x3, 1x1, 3x3.
        coefficient: Lipschitz constant of each network.
        log_det: "exact", "series", "roulette" or "neumann" (`ResidualBlock`).
        terms: Those of the series that are always taken.
        context_dim: Width of a context, or None.
        preprocess: What the flow sees of a pixel: "scale", "centre", "logit" or the logit's alpha
            (`flowlib.images.preprocess`).
        learn_prior: Whether the factored-out half is Gaussianised given the other.

    Raises:
        ValueError: A height or width that cannot be halved so often, or as `ResidualBlock`.
        InversionError: As `ResidualBlock`.

    Example:
        >>> from flowlib import ResidualFlowImage
        >>> ResidualFlowImage((1, 8, 8), levels=17, scales=1, steps=1, hidden=8).sample(3).shape
        torch.Size([3, 1, 8, 8])
    """

    def __init__(self, shape: tuple[int, int, int], *, levels: int = 256, scales: int = 2, steps: int = 4,
                 hidden: int = 64, coefficient: float = 0.9, log_det: str = "neumann", terms: int = 5,
                 context_dim: int | None = None, preprocess: str | float = "logit", learn_prior: bool = True):
        def blocks(shape):
            return stack(shape, steps, hidden=(hidden, hidden), coefficient=coefficient, log_det=log_det, terms=terms,
                         context_dim=context_dim)

        body = MultiScale(shape, [blocks(s) for s in scale_shapes(shape, scales)],
                          [blocks(s) for s in unsqueezed_shapes(shape, scales)],
                          hidden=min(hidden, 64), learn_prior=learn_prior)
        super().__init__(StandardNormal(math.prod(shape)),
                         Compose(body, *preprocessing(preprocess), Dequantize(levels)))
        self.levels = levels


RECIPES = (
    Recipe("residual-flow", ResidualFlowImage, over="images",
           small=Settings(dict(scales=2, steps=4, hidden=32), dict(steps=3000, batch_size=32, lr=2e-3)),
           # section 5.1 and appendix E: 16 blocks a scale, 512 channels; Adam 1e-3, batches of 64 (MNIST, CIFAR-10)
           paper=Settings(dict(scales=3, steps=16, hidden=512, coefficient=0.98), dict(
               epochs=300, batch_size=64, lr=1e-3))),
    Recipe("residual-flow-flat", ResidualFlow, over="vectors",
           small=Settings(dict(layers=8, hidden=(256, 256)), FLAT)),
    Recipe("iresnet-flat", IResNet, over="vectors", small=Settings(dict(layers=8, hidden=(256, 256)), FLAT)),
)
