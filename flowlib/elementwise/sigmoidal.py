"""Sums of sigmoids as elementwise maps: one hidden layer (DSF) or several (DDSF), both onto R, both in log space.

A sigmoid of a sigmoid saturates: everything here is carried as ln F and ln (1 - F), so that far in a tail no digit is lost.
"""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..numerics import solve_monotone, tame
from .base import ElementwiseMap

__all__ = ["DeepSigmoid", "DenseDeepSigmoid"]


def bounded(raw: Tensor, bound: float) -> Tensor:
    """A number in (-bound, bound) with slope 1 at 0."""
    return bound * torch.tanh(raw / bound)


def logit_of_mean(log_weights: Tensor, before: Tensor, log_slope: Tensor) -> tuple[Tensor, Tensor]:
    r"""$\operatorname{logit} \sum_j w_j\,\sigma(u_j)$ and the logarithm of its derivative.

    Args:
        log_weights: ln w, normalised over the last axis, (..., K).
        before: u, (..., K).
        log_slope: ln du/dx, (..., K).

    Returns:
        Two of (...).
    """
    log_f, log_g = F.logsigmoid(before), F.logsigmoid(-before)
    log_rise = torch.logsumexp(log_weights + log_f + log_g + log_slope, -1)
    log_f, log_g = (torch.logsumexp(log_weights + term, -1) for term in (log_f, log_g))
    return log_f - log_g, log_rise - log_f - log_g


class _Sigmoidal(ElementwiseMap):
    """A map whose inverse (to the latent) has a formula, and whose forward is a root search in an exact bracket."""

    def _latent(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        """z and ln dz/dx."""
        raise TypeError(f"{type(self).__name__} does not define _latent")

    def _bracket(self, z: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        """Numbers below and above the x of this z."""
        raise TypeError(f"{type(self).__name__} does not define _bracket")

    def inverse(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        """z and ln dz/dx, elementwise."""
        return self._latent(tame(x), params)

    def forward(self, z: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        """x and ln dx/dz, elementwise."""
        z = tame(z)
        low, high = (end.detach() for end in self._bracket(z, params))
        slack = 1e-3 * (1 + low.abs() + high.abs())  # for rounding
        n = self.n_params

        def value_and_slope(x, *columns):
            value, log_slope = self._latent(x, torch.stack(columns, -1) if n > 1 else columns[0][..., None])
            return value, log_slope.exp()

        x = solve_monotone(value_and_slope, z, low - slack, high + slack, *params.unbind(-1), check=False)
        return x, -self._latent(x, params)[1]


class DeepSigmoid(_Sigmoidal):
    r"""The deep sigmoidal flow of NAF (Huang et al. 2018, arXiv:1804.00779, equation 8): to the latent,
    $z = \operatorname{logit}\big(\sum_k w_k\, \sigma(a_k x + b_k)\big)$ with $w_k > 0$, $\sum w_k = 1$, $a_k > 0$.

    It is onto R, since each $\sigma$ runs from 0 to 1, and with enough units comes near any increasing function. $\ln a$ is bounded by
    2, so that deep flows stay finite. Cost: O(K) in `inverse` (density); in `forward` (sampling) a root search, some 40 times as
    much, between the smallest and the largest of $(z - b_k)/a_k$, where $\sigma(a_k x + b_k) = \sigma(z)$.

    Args:
        units: K. The map takes 3K parameters: log-weights, ln a, b. The b are offset by K places from -2 to 2, or units that
            start alike would stay alike.

    Raises:
        ValueError: No units.

    Example:
        >>> f, params = DeepSigmoid(4), torch.zeros(1, 12)
        >>> z, _ = f.inverse(torch.tensor([7.0]), params); round(f.forward(z, params)[0].item(), 4)
        7.0
    """

    def __init__(self, units: int = 8):
        if units < 1:
            raise ValueError(f"a sum of sigmoids needs at least one unit, got {units}")
        self.units = units
        self.n_params = 3 * units

    def _unpack(self, params):
        k = self.units
        log_weights, log_a, b = params.split(k, -1)
        offset = torch.linspace(-2, 2, k, dtype=params.dtype, device=params.device) if k > 1 else 0.0
        return log_weights.log_softmax(-1), bounded(log_a, 2.0), b + offset

    def _latent(self, x, params):
        log_weights, log_a, b = self._unpack(params)
        return logit_of_mean(log_weights, x[..., None] * log_a.exp() + b, log_a)

    def _bracket(self, z, params):
        _, log_a, b = self._unpack(params)
        ends = (z[..., None] - b) * (-log_a).exp()
        return ends.amin(-1), ends.amax(-1)


class DenseDeepSigmoid(_Sigmoidal):
    r"""The dense deep sigmoidal flow of NAF (Huang et al. 2018, arXiv:1804.00779, equation 9): layers

    $$h^{(l)} = \operatorname{logit}\!\big(W^{(l)}\, \sigma(a^{(l)} \odot U^{(l)} h^{(l-1)} + b^{(l)})\big), \qquad h^{(0)} = x,\ h^{(L)} = z$$

    with rows of W and U that are positive and sum to one, and a > 0. Each layer is an average of increasing functions onto R, of
    increasing functions onto R, so the whole is one. Cost: O(L K^2) in `inverse` (density); `forward` (sampling) is a root search.

    Args:
        units: K, the width of every layer but the first and the last, which have one.
        layers: L, at least 2; `DeepSigmoid` has one.

    Raises:
        ValueError: No units, or fewer than two layers.

    Example:
        >>> f = DenseDeepSigmoid(3); params = torch.zeros(1, f.n_params)
        >>> z, _ = f.inverse(torch.tensor([-4.0]), params); round(f.forward(z, params)[0].item(), 4)
        -4.0
    """

    def __init__(self, units: int = 4, layers: int = 2):
        if units < 1 or layers < 2:
            raise ValueError(f"a dense sum of sigmoids needs units and at least two layers, got units={units}, layers={layers}")
        self.units, self.layers = units, layers
        widths = [1] + [units] * (layers - 1) + [1]
        self.shapes = [(a, units, b) for a, b in zip(widths, widths[1:])]  # inputs, sigmoids, outputs of each layer
        self.n_params = sum(k * a + 2 * k + b * k for a, k, b in self.shapes)

    def _unpack(self, params):
        """ln U (..., K, inputs), ln a (..., K), b (..., K), ln W (..., outputs, K) of each layer."""
        found, start = [], 0
        for a, k, b in self.shapes:
            u, log_a, shift, w = params[..., start : (start := start + k * a + 2 * k + b * k)].split([k * a, k, k, b * k], -1)
            offset = torch.linspace(-2, 2, k, dtype=params.dtype, device=params.device) if k > 1 else 0.0
            found.append((u.unflatten(-1, (k, a)).log_softmax(-1), bounded(log_a, 2.0), shift + offset,
                          w.unflatten(-1, (b, k)).log_softmax(-1)))
        return found

    def _latent(self, x, params):
        h, log_slope = x[..., None], torch.zeros_like(x)[..., None]  # (..., inputs)
        for log_u, log_a, b, log_w in self._unpack(params):
            before = (log_u.exp() * h[..., None, :]).sum(-1) * log_a.exp() + b  # (..., K)
            log_rise = torch.logsumexp(log_u + log_slope[..., None, :], -1) + log_a
            h, log_slope = logit_of_mean(log_w, before[..., None, :], log_rise[..., None, :])  # (..., outputs)
        return h[..., 0], log_slope[..., 0]

    def _bracket(self, z, params):
        """Where the arguments of all sigmoids of a layer are above a number, so is its output: backwards from z, layer by layer."""
        low = high = z
        for _, log_a, b, _ in reversed(self._unpack(params)):
            low, high = (pick((end[..., None] - b) * (-log_a).exp(), -1)
                         for pick, end in ((torch.amin, low), (torch.amax, high)))
        return low, high
