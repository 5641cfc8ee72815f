"""RealNVP for vectors: affine couplings that keep the two halves in turn."""
from __future__ import annotations

from ..bases import StandardNormal
from ..core import Compose, Flow
from ..elementwise import Affine
from .coupling import Coupling

__all__ = ["RealNVP"]


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

    def __init__(self, dim: int, layers: int = 8, hidden: tuple[int, ...] = (64, 64), context_dim: int | None = None):
        couplings = [Coupling(dim, Affine(), hidden, swap=k % 2 == 1, context_dim=context_dim) for k in range(layers)]
        super().__init__(StandardNormal(dim), Compose(*couplings))
