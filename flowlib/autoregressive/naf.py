"""Neural autoregressive flow: the layers of a MAF with a small monotone network in place of the affine map."""
from __future__ import annotations

from collections.abc import Sequence

from ..bases import StandardNormal
from ..core import Compose, Flow
from ..elementwise.sigmoidal import DeepSigmoid, DenseDeepSigmoid
from ..recipes import FLAT, Recipe, Settings
from .layer import MaskedAutoregressive, turned

__all__ = ["NAF"]


class NAF(Flow):
    r"""Neural autoregressive flow (Huang et al. 2018, arXiv:1804.00779): to the latent, each coordinate goes through an
    average of sigmoids whose weights a `MADE` reads from the coordinates before it. With enough units, one layer comes
    near any positive density (section 4).

    Cost: density one network pass a layer; sampling D steps a layer, each with a root search. As a posterior, where
    samples must be cheap, take the layers the other way round: `Inverse(NAF(dim, context_dim=C).bijection)`.

    Args:
        dim: D.
        layers: Number of layers, whose orders are natural and reversed in turn.
        hidden: Widths of each network's hidden layers.
        units: K, of each average of sigmoids.
        dense: `DenseDeepSigmoid` (the paper's DDSF) in place of `DeepSigmoid` (DSF).
        context_dim: Width of a context, or None.

    Example:
        >>> import torch; from flowlib import NAF
        >>> NAF(2).log_prob(torch.zeros(5, 2)).shape
        torch.Size([5])
    """

    def __init__(self, dim: int, *, layers: int = 2, hidden: Sequence[int] = (64, 64), units: int = 8,
                 dense: bool = False, context_dim: int | None = None):
        sigmoids = DenseDeepSigmoid(units) if dense else DeepSigmoid(units)
        super().__init__(StandardNormal(dim), Compose(*(
            MaskedAutoregressive(dim, sigmoids, hidden=hidden, order=turned(k), context_dim=context_dim)
            for k in range(layers))))


RECIPES = (Recipe("naf", NAF, over="vectors", small=Settings(dict(layers=2, hidden=(256, 256)), FLAT)),)
