"""The Gaussianization flow: marginal Gaussianization and rotations in turn, all of them trained together."""
from __future__ import annotations

from ..bases import StandardNormal
from ..core import Flow
from ..recipes import FLAT, Recipe, Settings
from .layer import layers_of

__all__ = ["GaussianizationFlow"]


class GaussianizationFlow(Flow):
    r"""Gaussianization flow (Meng et al. 2020, arXiv:2003.01941): to the latent, L times a Gaussian mixture's CDF and
    the normal quantile on every coordinate, $z_i = \Phi^{-1}(F_i(x_i))$, with trainable rotations between.

    No network: each layer moves the axes by themselves, and the next looks at them from another side. `initialize`
    (which `train.fit` calls with its first batch; better give it more rows yourself) fits it layer by layer as `RBIG`
    is fitted, and training goes on from there.

    Cost: O(D^2 + D K) a layer and row in density; in sampling a root search, some 40 times as much.

    Args:
        dim: D.
        layers: L.
        components: K, of each mixture.
        rotation: Where the rotations start: "pca", "ica" or "random"; see `DataRotation`.
        context_dim: Width of a context, or None: the mixtures' parameters are linear in it.

    Raises:
        ValueError: No dimension, no layers, no components, or an unknown rotation.

    Example:
        >>> import torch; from flowlib import GaussianizationFlow
        >>> GaussianizationFlow(2).log_prob(torch.zeros(5, 2)).shape
        torch.Size([5])
    """

    def __init__(self, dim: int, *, layers: int = 6, components: int = 20, rotation: str = "random",
                 context_dim: int | None = None):
        super().__init__(StandardNormal(dim), layers_of(dim, layers, components, rotation, context_dim))


RECIPES = (Recipe("gaussianization", GaussianizationFlow, over="vectors",
                  small=Settings(dict(layers=4, components=10), FLAT)),)
