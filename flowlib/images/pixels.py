"""An image model of a vector flow: integer pixels, dequantized, preprocessed and flattened."""
from __future__ import annotations

import math

from ..core import Compose, Flow
from .dequantize import Dequantize
from .preprocess import preprocessing
from .reshape import Reshape

__all__ = ["Pixels"]


class Pixels(Flow):
    r"""An image model over integer pixels 0..L-1, made of a flow over vectors of all C H W sub-pixels.

    Data to latent: dequantize to v in [0, 1], flatten, preprocess, and on through the vector flow. All log-dets are
    inside, so `bits_per_dim(log_prob, C H W)` has nothing to add. `log_prob` is a lower bound (uniform dequantization)
    and random. Cost: that of the vector flow.

    Args:
        flow: A flow over vectors of C H W numbers.
        shape: (C, H, W).
        levels: L.
        preprocess: What the flow sees of a pixel: "scale", "centre", "logit" or the logit's alpha
            (`flowlib.images.preprocess`).

    Raises:
        ValueError: A flow of another size, or an unknown preprocessing.

    Example:
        >>> from flowlib import Pixels, RealNVP
        >>> Pixels(RealNVP(64), (1, 8, 8), levels=17, preprocess="logit").sample(3).dtype
        torch.uint8
    """

    def __init__(self, flow: Flow, shape: tuple[int, int, int], *, levels: int = 256,
                 preprocess: str | float = "scale"):
        if flow.event_shape != (math.prod(shape),):
            raise ValueError(f"images of shape {tuple(shape)} need a flow over ({math.prod(shape)},), "
                             f"got {flow.event_shape}")
        super().__init__(flow.base, Compose(flow.bijection, *preprocessing(preprocess, ndim=1),
                                            Reshape(flow.event_shape, shape), Dequantize(levels)))
        self.levels = levels
