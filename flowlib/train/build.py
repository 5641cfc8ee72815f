"""From a recipe to a flow over images."""
from __future__ import annotations

import math

from ..core import Flow
from ..images.pixels import Pixels
from ..recipes import Recipe

__all__ = ["build"]


def build(recipe: Recipe, shape: tuple[int, int, int], levels: int, size: dict,
          preprocess: str | float = "logit") -> Flow:
    """A new flow over integer images of this shape. A model of vectors is one over all pixels at once. Scales are at
    most as many as the images can be halved: three become two on 28 x 28."""
    if recipe.over == "vectors":
        return Pixels(recipe.model(math.prod(shape), **size), shape, levels=levels, preprocess=preprocess)
    if "scales" in size:
        halvings = max(k for k in range(8) if not any(n % 2**k for n in shape[1:]))
        size = size | {"scales": min(size["scales"], max(1, halvings))}
    return recipe.model(shape, levels=levels, preprocess=preprocess, **size)
