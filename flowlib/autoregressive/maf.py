"""The masked autoregressive flow: layers that read all parameters from the data at once, in alternating orders."""
from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..bases import GaussianMixture, StandardNormal
from ..core import Bijection, Compose, Flow
from ..elementwise.affine import Affine
from ..images.norms import BatchNorm
from ..recipes import FLAT, Recipe, Settings
from .layer import MaskedAutoregressive, turned

__all__ = ["MAF"]


class MAF(Flow):
    r"""Masked autoregressive flow (Papamakarios et al. 2017, arXiv:1705.07057): $x_i = z_i\, e^{s_i(x_{<i})} +
    t_i(x_{<i})$ in each layer, as equation 3 has it.

    Cost: density one network pass a layer; sampling D steps a layer, which together do the work of one pass. It is
    trained by maximum likelihood; where samples must be cheap, `IAF` is the same the other way round.

    Args:
        dim: D.
        layers: Number of layers, whose orders are natural and reversed in turn.
        hidden: Widths of each network's hidden layers.
        context_dim: Width of a context, or None.
        batch_norm: Whether batch normalisation stands between the layers, as in the paper (section 3.3). In evaluation
            it uses running moments; `use_moments_of(x)` gives it those of the training set, as the paper does.
        components: Number of components of a mixture of Gaussians that is trained as the base ("MAF MoG"); None for
            N(0, I).
        sampling: How the layers sample: see `MaskedAutoregressive`.

    Example:
        >>> from flowlib import MAF
        >>> round(MAF(2).log_prob(torch.zeros(2)).item(), 4)  # the identity at the start: -ln 2 pi
        -1.8379
    """

    def __init__(self, dim: int, *, layers: int = 5, hidden: Sequence[int] = (64, 64), context_dim: int | None = None,
                 batch_norm: bool = False, components: int | None = None, sampling: str = "units"):
        parts: list[Bijection] = []
        for k in range(layers):
            if batch_norm and k:
                parts.append(BatchNorm(dim))
            parts.append(MaskedAutoregressive(dim, Affine(), hidden=hidden, order=turned(k), context_dim=context_dim,
                                              sampling=sampling))
        # modes drawn from N(0, I), which training moves
        base = StandardNormal(dim) if components is None else GaussianMixture(torch.randn(components, dim),
                                                                              trainable=True)
        super().__init__(base, Compose(*parts))

    @torch.no_grad()
    def use_moments_of(self, x: Tensor, context: Tensor | None = None) -> None:
        """Give the batch normalisations the moments of all of x (N, D), such as the training set: what their latents
        have in one pass as in training, whose batch is x."""
        norms = [part for part in self.modules() if isinstance(part, BatchNorm)]
        before = [(norm.momentum, norm.training) for norm in norms]
        try:
            for norm in norms:
                norm.momentum, norm.training = 1.0, True
            self.log_prob(x, context)
        finally:
            for norm, (momentum, training) in zip(norms, before, strict=True):
                norm.momentum, norm.training = momentum, training


RECIPES = (Recipe("maf", MAF, over="vectors", small=Settings(dict(layers=5, hidden=(256, 256)), FLAT)),)
