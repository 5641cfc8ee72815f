"""The names that the command knows: models, and what each is trained with, as its paper has it or for two CPU cores.

`CONFIGS` is the whole table. A setting of the flow is a keyword of its class, one of the run a keyword of `Config`; what is
not named keeps the default. Scales are at most as many as the images can be halved: three become two on 28 x 28.
"""
from __future__ import annotations

import math

from ..core import Flow
from ..coupling.flowpp import FlowPlusPlus
from ..coupling.glow import Glow
from ..coupling.nice import NICE
from ..coupling.nsf import NSF
from ..coupling.realnvp import RealNVP, RealNVPImage
from ..images.pixels import Pixels

__all__ = ["CONFIGS", "MODELS", "build", "settings"]


def pixels(make, preprocess: str = "logit"):
    """A vector flow over all pixels at once."""

    def build(shape, levels, **size):
        return Pixels(make(math.prod(shape), **size), shape, levels=levels, preprocess=preprocess)

    return build


MODELS = {
    "nice": pixels(NICE, "scale"), "realnvp": RealNVPImage, "glow": Glow, "flowpp": FlowPlusPlus,
    "nice-flat": pixels(NICE), "realnvp-flat": pixels(RealNVP), "nsf-flat": pixels(NSF),  # all with the logit
}
FLAT = dict(epochs=100, batch_size=64, lr=2e-3, weight_decay=1.0, patience=5)  # small sets: held back, and stopped early

CONFIGS = {
    # For two CPU cores: minutes.
    "small": {
        "nice": (dict(layers=4, hidden=(256, 256), alternate=True), dict(steps=1500, batch_size=200, lr=1e-3)),
        "realnvp": (dict(scales=2, steps=3, hidden=24, blocks=1), dict(steps=3000, batch_size=32, lr=5e-3)),
        "glow": (dict(scales=2, steps=8, hidden=64), dict(steps=9000, batch_size=32, lr=5e-3)),
        "flowpp": (dict(scales=2, steps=2, hidden=32, components=8), dict(steps=2000, batch_size=32, lr=1e-3)),
        "nice-flat": (dict(layers=6, hidden=(256, 256)), FLAT),
        "realnvp-flat": (dict(layers=8, hidden=(256, 256)), FLAT),
        "nsf-flat": (dict(layers=4, hidden=(128, 128)), FLAT),
    },
    # As the papers have it; optimizer, schedule and averaging are this loop's. Where a paper gives no length, 300 epochs.
    "paper": {
        # Dinh et al. (2015), section 5.1: MNIST, 1,500 epochs of batches of 200
        "nice": (dict(layers=4, hidden=(1000,) * 5, alternate=True), dict(epochs=1500, batch_size=200, lr=1e-3)),
        # Dinh et al. (2017), section 4.1: CIFAR-10
        "realnvp": (dict(scales=2, steps=3, hidden=64, blocks=8),
                    dict(epochs=300, batch_size=64, lr=1e-3, weight_decay=5e-5)),
        # Kingma and Dhariwal (2018), section 5 and appendix A: CIFAR-10, 8 workers of 64 images
        "glow": (dict(scales=3, steps=32, hidden=512), dict(epochs=1800, batch_size=512, lr=1e-3)),
        # Ho et al. (2019), section 4: CIFAR-10
        "flowpp": (dict(scales=1, steps=4, hidden=96, components=32, blocks=10),
                   dict(epochs=300, batch_size=64, lr=3e-4, clip=1.0)),
    },
}


def settings(model: str, config: str) -> tuple[dict, dict]:
    """The flow's size and the run's settings under these names; copies, to be changed freely.

    Raises:
        ValueError: A model that has no such config.
    """
    if model not in CONFIGS[config]:
        raise ValueError(f"{model} has no config {config!r}; it stands for {', '.join(CONFIGS[config])}")
    size, run = CONFIGS[config][model]
    return dict(size), dict(run)


def build(model: str, shape: tuple[int, int, int], levels: int, size: dict) -> Flow:
    """A new flow over images of this shape."""
    if "scales" in size:
        halvings = max(k for k in range(8) if not any(n % 2**k for n in shape[1:]))
        size = size | {"scales": min(size["scales"], max(1, halvings))}
    return MODELS[model](shape, levels=levels, **size)
