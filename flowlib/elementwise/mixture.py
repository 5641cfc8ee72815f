"""Mixture CDFs as elementwise maps: the most flexible map of one number that still has an exact density."""
from __future__ import annotations

import torch
from torch import Tensor

from ..numerics import log_mixture_cdf, solve_monotone, tame
from .base import ElementwiseMap

__all__ = ["LogisticMixtureCDF"]


def _bounded(raw: Tensor, bound: float) -> Tensor:
    return bound * torch.tanh(raw / bound)


class LogisticMixtureCDF(ElementwiseMap):
    r"""To the latent, $z = e^{a} \operatorname{logit}(F(x)) + b$ with $F(x) = \sum_k \pi_k\, \sigma((x-\mu_k)/s_k)$,
    the map of Flow++ (Ho et al. 2019, arXiv:1902.00275, section 3.2). With a = b = 0 and a logistic base, x has exactly
    the mixture's density.

    $\operatorname{logit} F = \ln F - \ln(1-F)$ is computed from the two logarithms, so that it neither saturates nor
    cancels in a tail. Log-scales are bounded by 2 and a by 1/2, so that deep flows stay finite both ways. Cost: O(K) in
    `inverse` (density); a root search, some 40 times as much, in `forward` (sampling), whose bracket is exact: $\min_k$
    and $\max_k$ of $\mu_k + s_k y$ hold the root of $\operatorname{logit} F(x) = y$.

    Args:
        components: K. The map takes 3K + 2 parameters: log-weights, means, log-scales, a and b. Means are offset by K
            places from -2 to 2, or components that start alike would stay alike.

    Raises:
        ValueError: No components.

    Example:
        >>> f, params = LogisticMixtureCDF(4), torch.zeros(1, 14)
        >>> z, _ = f.inverse(torch.tensor([7.0]), params); round(f.forward(z, params)[0].item(), 4)
        7.0
    """

    def __init__(self, components: int = 8):
        if components < 1:
            raise ValueError(f"a mixture needs at least one component, got {components}")
        self.components = components
        self.n_params = 3 * components + 2

    def _unpack(self, params):
        k = self.components
        log_weights, means, log_scales, ab = params.split([k, k, k, 2], -1)
        if k > 1:
            means = means + torch.linspace(-2, 2, k, dtype=params.dtype, device=params.device)
        a, b = ab.unbind(-1)
        return log_weights, means, _bounded(log_scales, 2.0), _bounded(a, 0.5), b

    @staticmethod
    def _logit_cdf(x, log_weights, means, log_scales):
        """ln F - ln (1 - F) and its slope."""
        log_f, log_g, log_density = log_mixture_cdf(x, log_weights, means, log_scales)
        return log_f - log_g, (log_density - log_f - log_g).exp()

    def forward(self, z: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        """x and ln dx/dz, elementwise."""
        log_weights, means, log_scales, a, b = self._unpack(params)
        y = (tame(z) - b) * (-a).exp()
        ends = means + log_scales.exp() * y[..., None]
        low, high = ends.amin(-1), ends.amax(-1)
        slack = 1e-3 * (1 + low.abs() + high.abs())  # for rounding
        x = solve_monotone(self._logit_cdf, y, low - slack, high + slack, log_weights, means, log_scales,
                           check=False)
        return x, -self.inverse(x, params)[1]

    def inverse(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        """z and ln dz/dx, elementwise."""
        log_weights, means, log_scales, a, b = self._unpack(params)
        log_f, log_g, log_density = log_mixture_cdf(tame(x), log_weights, means, log_scales)
        return (log_f - log_g) * a.exp() + b, log_density - log_f - log_g + a
