"""Categorical normalizing flow: categories get learned places among the real numbers, and a flow of continuous numbers
models how they go together."""
from __future__ import annotations

from ..bases import StandardLogistic
from ..core import Compose, Flow
from ..coupling.sets import SetCoupling
from ..elementwise.mixture import LogisticMixtureCDF
from .encodings import FactorisedEncoding, VariationalEncoding

__all__ = ["CategoricalFlow"]

ENCODINGS = {
    "mixture": lambda length, categories, dim: FactorisedEncoding(length, categories, dim),
    "linear": lambda length, categories, dim: FactorisedEncoding(length, categories, dim, layers=4),
    "variational": VariationalEncoding,
}


class CategoricalFlow(Flow):
    r"""Sets of N categories 0..K-1, int64 (..., N): a logistic base on $R^{N \times d}$, mixture couplings that read
    sums over the elements, and at the data end an encoding (Lippe and Gavves 2021, arXiv:2006.09790).

    $$\ln P(x) \ge E_{q(z|x)}\Big[\ln \frac{p(z) \prod_i p(x_i|z_i)}{q(z|x)}\Big]$$

    `log_prob` is one sample of the right side; `importance.log_prob` comes nearer to the left. P does not change when
    the elements of x are reordered. `sample` draws from P. Cost: `layers` network passes and N K densities for
    `log_prob`; a root search in each layer for `sample`.

    Args:
        length: N.
        categories: K.
        encoding: "mixture" (a logistic cloud for each category), "linear" (clouds bent by affine couplings) or
            "variational" (all points at once, with a decoder of its own).
        dim: d, at least 2: a coupling keeps half of each element's numbers.
        layers: Number of couplings; every second one has the other half.
        hidden: Width of each network.
        components: Logistics in each coupling's mixtures.
        context_dim: Width of a context that the couplings read, or None.

    Raises:
        ValueError: Another encoding, no element, fewer than two categories, or d = 1 without a context.

    Example:
        >>> from flowlib import CategoricalFlow
        >>> flow = CategoricalFlow(4, 4); x = flow.sample(3); x.dtype, flow.log_prob(x).shape
        (torch.int64, torch.Size([3]))
    """

    def __init__(self, length: int, categories: int, *, encoding: str = "mixture", dim: int = 2, layers: int = 6,
                 hidden: int = 64, components: int = 8, context_dim: int | None = None):
        if encoding not in ENCODINGS:
            raise ValueError(f"an encoding is one of {', '.join(ENCODINGS)}, got {encoding!r}")
        mixture = LogisticMixtureCDF(components)
        super().__init__(StandardLogistic(length, dim), Compose(
            *(SetCoupling((length, dim), mixture, hidden=hidden, swap=k % 2 == 1, context_dim=context_dim)
              for k in range(layers)),
            ENCODINGS[encoding](length, categories, dim)))
