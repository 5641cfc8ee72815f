"""Mixture CDFs as elementwise maps: the most flexible map of one number that still has an exact density."""
from __future__ import annotations

import math

import torch
from torch import Tensor

from ..numerics import HALF_LOG_2PI, LARGEST, log_mixture_cdf, log_ndtri, mills, solve_monotone, tame, wide
from .base import ElementwiseMap

__all__ = ["GaussianMixtureCDF", "LogisticMixtureCDF"]

PRIOR = 1e-4  # of a sample's mass: what `fit` lets each component have seen of the sample's own mean and variance
FAR = {dtype: largest ** 0.5 for dtype, largest in LARGEST.items()}  # squares of it are finite


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


class GaussianMixtureCDF(ElementwiseMap):
    r"""To the latent, $z = \Phi^{-1}(F(x))$ with $F(x) = \sum_k \pi_k\, \Phi((x-\mu_k)/s_k)$: the layer of
    Gaussianization flows (Meng et al. 2020, arXiv:2003.01941, section 3.1). With a Gaussian base, x has exactly the
    mixture's density.

    Only the smaller of F and 1 - F is ever computed, as a logarithm, and of both tails with the factor $e^{-u^2/2}$
    taken out: z neither saturates nor jumps, however far x lies, and is onto R. (F itself rounds to 1 at x = 5.4 in
    float32; clipped there, a flow stops being onto R and its density integrates to less than one.) The kernels are
    Gaussian, where the paper has logistic ones, so that z grows as x does: under logistic tails $x \approx s z^2/2$,
    layer upon layer.

    Log-scales are bounded by 5 about that of the start. Cost: O(K) in `inverse` (density); a root search, some 40 times
    as much, in `forward` (sampling), whose bracket is exact: $\min_k$ and $\max_k$ of $\mu_k + s_k z$.

    Args:
        components: K. The map takes 3K parameters: log-weights, means and log-scales, as what they are more than those
            of a mixture near N(0, 1), at which the map starts.

    Raises:
        ValueError: No components.

    Example:
        >>> f, params = GaussianMixtureCDF(4), torch.zeros(1, 12)
        >>> z, _ = f.inverse(torch.tensor([50.0]), params); round(f.forward(z, params)[0].item(), 3)
        50.0
    """

    bound = 5.0  # of ln s

    def __init__(self, components: int = 20):
        if components < 1:
            raise ValueError(f"a mixture needs at least one component, got {components}")
        self.components = components
        self.n_params = 3 * components

    def _start(self, like):
        """Means (K,) and the log-scale of the mixture that params of zero stand for: its variance is one."""
        k = self.components
        means = torch.special.ndtri((torch.arange(k, dtype=like.dtype, device=like.device) + 0.5) / k)
        scale = k ** -0.2
        return means * ((1 - scale**2) / means.square().mean().clamp(min=1e-9)).sqrt(), math.log(scale)

    def mixture(self, params: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Log-weights, means and log-scales of the mixture, each (..., K)."""
        log_weights, means, log_scales = params.unflatten(-1, (3, -1)).unbind(-2)
        start, log_scale = self._start(params)
        return log_weights.log_softmax(-1), start + means, log_scale + _bounded(log_scales, self.bound)

    @torch.no_grad()
    def fit(self, values: Tensor, steps: int = 20) -> Tensor:
        """Parameters fitted to samples without gradients: means at their quantiles, scales as wide as these lie apart,
        then expectation maximisation. One component keeps mean and deviation of the sample: no tail gets thinner than a
        Gaussian's. EM sees the sample as the means of 1000 blocks, smaller and smaller towards both ends.

        Args:
            values: (N, D), N samples for each of D functions.
            steps: Of expectation maximisation.

        Returns:
            (D, 3K).
        """
        k, n = self.components, len(values)
        rows = wide(values).sort(0).values if values.device.type == "mps" else values.double().sort(0).values
        edges = (n * torch.special.ndtr(torch.linspace(-4.5, 4.5, 1001, dtype=rows.dtype, device=rows.device))).round()
        edges = torch.cat([edges.new_zeros(1), edges, edges.new_full((1,), n)]).long().unique()
        size = edges.diff()
        sums = torch.cat([torch.zeros_like(rows[:1]), rows.cumsum(0)])[edges].diff(dim=0)
        x, mass_of_x = (sums / size[:, None]).T[..., None], (size / n)[:, None]  # (D, M, 1), (M, 1)
        mean, std = rows.mean(0)[:, None], rows.std(0, correction=0).clamp(min=1e-6)[:, None]  # (D, 1)
        start, log_scale = self._start(rows)

        def at(share):  # the quantiles, (D, len(share))
            return rows[(share * (n - 1)).round().long()].T

        shares = torch.linspace(0, 1, 2 * k - 1, dtype=rows.dtype, device=rows.device)
        means = torch.cat([mean, at(shares[1::2])], 1)  # (D, K)
        scales = torch.cat([std, at(shares[::2]).diff().clamp(min=0.01 * std)], 1)
        weights = torch.full_like(means, 1 / k)
        for _ in range(steps):
            u = (x - means[:, None]) / scales[:, None]
            share = mass_of_x * ((weights / scales).log()[:, None] - 0.5 * u * u).softmax(-1)  # (D, M, K)
            mass = share.sum(1)
            means = ((share * x).sum(1) + PRIOR * mean) / (mass + PRIOR)
            scales = (((share * (x - means[:, None]) ** 2).sum(1) + PRIOR * std**2) / (mass + PRIOR)).sqrt()
            means[:, :1], scales[:, :1] = mean, std
            weights = (mass + PRIOR) / (1 + k * PRIOR)
        raw = ((scales.log() - log_scale) / self.bound).clamp(-0.99, 0.99).atanh() * self.bound
        return torch.cat([weights.log(), means - start, raw], -1).to(values.dtype)

    @staticmethod
    def _tail(x, log_weights, means, log_scales):
        """ln F and ln F'/F at x, where F is at most one half or so.

        F is a sum of pi phi(u) R(u) over the components with u < 0, R = Phi / phi of `mills`, and of pi (1 - phi(u)
        R(-u)) over the others. The largest pi phi(u), or pi, is taken out of F and F' alike.
        """
        u = ((x[..., None] - means) * (-log_scales).exp()).clamp(-FAR[x.dtype], FAR[x.dtype])
        half, low = 0.5 * u * u, u < 0
        share = log_weights - torch.where(low, half, 0.0)
        top = share.detach().amax(-1, keepdim=True)
        share = share - top
        ratio = mills(-u.abs())
        total = (share.exp() * torch.where(low, ratio, math.exp(HALF_LOG_2PI) - (-half).exp() * ratio)).sum(-1).log()
        log_rise = (share - torch.where(low, 0.0, half) - log_scales).logsumexp(-1)
        return top.squeeze(-1) + total - HALF_LOG_2PI, log_rise - total

    def inverse(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        """z and ln dz/dx, elementwise."""
        dtype, x, params = x.dtype, tame(wide(x)), wide(params)
        log_weights, means, log_scales = self.mixture(params)
        with torch.no_grad():
            cdf = (log_weights.exp() * torch.special.ndtr((x[..., None] - means) * (-log_scales).exp())).sum(-1)
            side = torch.where(cdf <= 0.5, 1.0, -1.0).to(x.dtype)
        log_tail, log_rate = self._tail(side * x, log_weights, side[..., None] * means, log_scales)
        z = log_ndtri(log_tail, torch.zeros_like(log_tail))
        return (side * z).to(dtype), (log_rate + mills(z).log()).to(dtype)

    def forward(self, z: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        """x and ln dx/dz, elementwise."""
        dtype, z, params = z.dtype, wide(z), wide(params)
        z = z.clamp(-FAR[z.dtype], FAR[z.dtype])
        log_weights, means, log_scales = self.mixture(params)
        side = torch.where(z <= 0, 1.0, -1.0).to(z.dtype)
        z = side * z  # at most zero
        log_p = mills(z).log() - 0.5 * z * z - HALF_LOG_2PI
        ends = side[..., None] * means + log_scales.exp() * z[..., None]
        low, high = ends.amin(-1), ends.amax(-1)
        slack = 1e-3 * (1 + low.abs() + high.abs())  # for rounding

        def tail_and_slope(x, *mixture):
            log_tail, log_rate = self._tail(x, *mixture)
            return log_tail, log_rate.exp()

        x = side * solve_monotone(tail_and_slope, log_p, low - slack, high + slack, log_weights,
                                  side[..., None] * means, log_scales, check=False)
        return x.to(dtype), -self.inverse(x, params)[1].to(dtype)
