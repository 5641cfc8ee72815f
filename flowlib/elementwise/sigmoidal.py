"""Averages of sigmoids as elementwise maps: one hidden layer (DSF) or several (DDSF), both onto all of R.

A sigmoid saturates, and the logit of what has saturated is infinite: clipped, as it often is, the map is no longer onto
R and its density no longer integrates to one. So nothing is ever held as a probability F here, only as ln F and
ln (1 - F).
"""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..numerics import solve_monotone, tame
from .base import ElementwiseMap

__all__ = ["DeepSigmoid", "DenseDeepSigmoid"]

BOUND = 2.0  # of ln a


def logit_of_mean(log_w: Tensor, u: Tensor, log_rise: Tensor) -> tuple[Tensor, Tensor]:
    r"""$h = \operatorname{logit} F$ with $F = \sum_k w_k\,\sigma(u_k)$, and the logarithm of its derivative.

    $h' = F'/F + F'/(1-F)$, two sums of positive terms: nothing cancels, however far in a tail.

    Args:
        log_w: ln w, normalised over the last axis, (..., K).
        u: (..., K).
        log_rise: ln du/dx, (..., K).

    Returns:
        h and ln dh/dx, each (...).
    """
    log_f, log_g = F.logsigmoid(u), F.logsigmoid(-u)
    left, right = log_w + log_f, log_w + log_g  # of each term, in F and in 1 - F
    total_left, total_right = left.logsumexp(-1), right.logsumexp(-1)
    terms = torch.cat([left - total_left[..., None] + log_g + log_rise,
                       right - total_right[..., None] + log_f + log_rise], -1)
    return total_left - total_right, terms.logsumexp(-1)


class DenseDeepSigmoid(ElementwiseMap):
    r"""The dense deep sigmoidal flow (DDSF) of NAF (Huang et al. 2018, arXiv:1804.00779): L layers, to the latent

    $$h^{(l)} = \operatorname{logit}\!\big(W^{(l)}\, \sigma(a^{(l)} \odot U^{(l)} h^{(l-1)} + b^{(l)})\big), \qquad
    h^{(0)} = x,\ h^{(L)} = z$$

    with rows of U and W that are positive and sum to one, and a > 0. Each layer averages increasing functions onto R of
    increasing functions onto R, and so the whole is one. $\ln a$ is bounded by 2, so that deep flows stay finite.

    Cost: $O(L K^2)$ in `inverse` (density); in `forward` (sampling) a root search, some 40 times as much. Its bracket
    is exact: where all inputs of a layer lie above $\max_k (h - b_k)/a_k$, all outputs lie above h.

    Args:
        units: K, the sigmoids of each layer, and the outputs of all but the last.
        layers: L; with one layer it is `DeepSigmoid`.

    Raises:
        ValueError: No units, or no layers.

    Example:
        >>> f = DenseDeepSigmoid(3); params = torch.zeros(1, f.n_params)
        >>> z, _ = f.inverse(torch.tensor([-4.0]), params); round(f.forward(z, params)[0].item(), 4)
        -4.0
    """

    def __init__(self, units: int = 4, layers: int = 2):
        if units < 1 or layers < 1:
            raise ValueError("an average of sigmoids needs at least one unit and one layer, "
                             f"got units={units}, layers={layers}")
        self.units, self.layers = units, layers
        widths = [1] + [units] * (layers - 1) + [1]
        self._sizes = [(units * a if a > 1 else 0, units, units, b * units)  # of U, ln a, b and W; one input needs no U
                       for a, b in zip(widths, widths[1:])]
        self.n_params = sum(map(sum, self._sizes))

    def _unpack(self, params):
        """ln U (..., K, inputs), ln a (..., K), b (..., K) and ln W (..., outputs, K) of each layer, one after the
        other. The b are offset from -2 to 2, or units that start alike would stay alike."""
        k = self.units
        offset = torch.linspace(-2, 2, k, dtype=params.dtype, device=params.device) if k > 1 else 0.0
        found = []
        for layer in params.split([sum(sizes) for sizes in self._sizes], -1):
            u, log_a, b, w = layer.split(self._sizes[len(found) // 4], -1)
            u = u.unflatten(-1, (k, -1)).log_softmax(-1) if u.shape[-1] else u.new_zeros(k, 1)
            found += [u, BOUND * torch.tanh(log_a / BOUND), b + offset, w.unflatten(-1, (-1, k)).log_softmax(-1)]
        return found

    @staticmethod
    def _latent(x, *unpacked):
        """z and ln dz/dx."""
        h, log_slope = x[..., None], torch.zeros_like(x)[..., None]  # (..., inputs)
        for log_u, log_a, b, log_w in zip(*[iter(unpacked)] * 4):
            u = (log_u.exp() * h[..., None, :]).sum(-1) * log_a.exp() + b  # (..., K)
            log_rise = torch.logsumexp(log_u + log_slope[..., None, :], -1) + log_a
            h, log_slope = logit_of_mean(log_w, u[..., None, :], log_rise[..., None, :])  # (..., outputs)
        return h.squeeze(-1), log_slope.squeeze(-1)

    def inverse(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        """z and ln dz/dx, elementwise."""
        return self._latent(tame(x), *self._unpack(params))

    def forward(self, z: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        """x and ln dx/dz, elementwise."""
        z, unpacked = tame(z), self._unpack(params)
        low = high = z
        for log_a, b in reversed([*zip(unpacked[1::4], unpacked[2::4])]):
            inputs = lambda h, a=log_a, b=b: (h[..., None] - b) * (-a).exp()  # noqa: E731
            low, high = inputs(low).amin(-1), inputs(high).amax(-1)
        slack = 1e-3 * (1 + low.abs() + high.abs())  # for rounding

        def value_and_slope(x, *unpacked):
            value, log_slope = self._latent(x, *unpacked)
            return value, log_slope.exp()

        x = solve_monotone(value_and_slope, z, low - slack, high + slack, *unpacked, check=False)
        return x, -self._latent(x, *unpacked)[1]


class DeepSigmoid(DenseDeepSigmoid):
    r"""The deep sigmoidal flow of NAF (Huang et al. 2018, arXiv:1804.00779, equation 8): to the latent,

    $$z = \operatorname{logit}\Big(\sum_k w_k\, \sigma(a_k x + b_k)\Big), \qquad w_k > 0,\ \sum_k w_k = 1,\ a_k > 0.$$

    It is onto R, since each $\sigma$ runs from 0 to 1, and with enough units comes near any increasing function that is
    (proposition 2). With a logistic base and one layer, x has exactly the density of a mixture of logistics, with
    scales $1/a_k$ and means $-b_k/a_k$. Cost: O(K) in `inverse` (density), a root search in `forward` (sampling).

    Args:
        units: K. The map takes 3K parameters: ln a, b and log-weights; see `DenseDeepSigmoid`.

    Raises:
        ValueError: No units.

    Example:
        >>> f, params = DeepSigmoid(4), torch.zeros(1, 12)
        >>> z, _ = f.inverse(torch.tensor([7.0]), params); round(f.forward(z, params)[0].item(), 4)
        7.0
    """

    def __init__(self, units: int = 8):
        super().__init__(units, layers=1)
