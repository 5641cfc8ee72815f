"""Rotation-based iterative Gaussianization: a flow fitted layer by layer, without a gradient."""
from __future__ import annotations

import math
from typing import Self

import torch
from torch import Tensor

from ..bases import StandardNormal
from ..core import Compose, Flow
from .layer import MarginalGaussianization, layers_of, refit

__all__ = ["RBIG"]


class RBIG(Flow):
    r"""Rotation-based iterative Gaussianization (Laparra et al. 2011, arXiv:1602.00229): Gaussianize every
    coordinate, rotate, and again, L times. Each layer is fitted once to what the layers before made of the data, and
    left: no gradient, no loss.

    It converges for any rotations: a marginal step takes from KL(data || N(0, I)) the sum of the marginals' own, and a
    rotation changes it not at all. What the steps after the first take away is the data's total correlation.

    It is a `Flow` like any other afterwards, of the layers of a `GaussianizationFlow`, which training can improve.

    Cost: that of `GaussianizationFlow`; `fit` takes O(N D K) and one eigen-decomposition a layer.

    Args:
        dim: D.
        layers: L.
        components: K, of each mixture.
        rotation: "pca", "ica" or "random"; see `DataRotation`.

    Raises:
        ValueError: No dimension, no layers, no components, or an unknown rotation.

    Example:
        >>> import torch; from flowlib import RBIG
        >>> x = torch.randn(2000, 2) @ torch.tensor([[1.0, 0.8], [0.0, 0.6]])
        >>> flow = RBIG(2, layers=2).fit(x)
        >>> round(flow.total_correlation(x)[-1].item(), 1)  # -1/2 ln(1 - 0.8^2)
        0.5
    """

    bijection: Compose

    def __init__(self, dim: int, *, layers: int = 20, components: int = 20, rotation: str = "pca"):
        super().__init__(StandardNormal(dim), layers_of(dim, layers, components, rotation))

    def fit(self, x: Tensor) -> Self:
        """Fit all layers to x (N, D), whether they have been or not; returns the flow.

        Raises:
            ValueError: Rows of another width or dtype, fewer than two, or rows that are not finite.
        """
        refit(self, x)
        return self

    @torch.no_grad()
    def total_correlation(self, x: Tensor) -> Tensor:
        r"""The total correlation (multi-information) $\sum_i H(x_i) - H(x)$ as the layers find it: entry l is
        $\mathbb{E}[\ln q_l(x) - \ln q_1(x)]$ for the flow $q_l$ of the first l layers, in nats. It starts at 0 and
        rises to the estimate; what is left of it after layer l is the last entry minus entry l.

        Args:
            x: (N, D), rows that the flow was not fitted to: over those that it was, it is too large.

        Returns:
            (L,).
        """
        total, found = torch.zeros_like(x[:, 0]), []
        for part in reversed(list(self.bijection)):
            x, log_det = part.inverse(x)
            total = total + log_det
            if isinstance(part, MarginalGaussianization):
                found.append((total - 0.5 * (x.square() + math.log(2 * math.pi)).sum(-1)).mean())
        return torch.stack(found) - found[0]
