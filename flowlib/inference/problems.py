"""Problems of Bayesian inference whose posterior is known: two simulators of the benchmark of Lueckmann et al. (2021),
and a hierarchical model. (The linear Gaussian one is `vae.LinearGaussian`.)"""
from __future__ import annotations

import math

import torch
from torch import Generator, Tensor
from torch.distributions import Distribution, HalfCauchy, Independent, MultivariateNormal, Normal, Uniform

from ..arguments import number_of_draws

__all__ = ["SLCP", "EightSchools", "TwoMoons"]

HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


def _uniform(low: float, high: float, dim: int) -> Distribution:
    return Independent(Uniform(torch.full((dim,), low), torch.full((dim,), high)), 1)


class TwoMoons:
    r"""$\theta \sim U(-1, 1)^2$; x is a point of a crescent, put at a place that two parameters share:

    $$ x = \begin{pmatrix} r \cos\alpha + \tfrac14 \\ r \sin\alpha \end{pmatrix} + \frac{1}{\sqrt2} \begin{pmatrix}
    -|\theta_1 + \theta_2| \\ \theta_2 - \theta_1 \end{pmatrix}, \qquad \alpha \sim U(-\tfrac\pi2, \tfrac\pi2),\quad r
    \sim N(0.1, 0.01^2) $$

    (Greenberg et al. 2019, arXiv:1905.07488, appendix A). The posterior is two crescents that face each other, cut off
    at the box. It is exact here, draws and density: for each sign of $\theta_1 + \theta_2$ the place is a rotation of
    $\theta$, whose volume is 1, so that the posterior is the law of the crescent, turned, where it leads into the box.

    Example:
        >>> problem = TwoMoons()
        >>> problem.sample_posterior(5, torch.zeros(2)).shape
        torch.Size([5, 2])
    """

    prior = _uniform(-1.0, 1.0, 2)

    @staticmethod
    def _place(theta: Tensor) -> Tensor:
        """The crescent's place, which is not known to x alone."""
        total, gap = theta[..., 0] + theta[..., 1], theta[..., 1] - theta[..., 0]
        return torch.stack([-total.abs(), gap], -1) / math.sqrt(2)

    @staticmethod
    def _crescent(n: int, like: Tensor, generator: Generator | None) -> Tensor:
        """n points of the crescent, (n, 2)."""
        draw = {"generator": generator, "dtype": like.dtype, "device": like.device}
        angle = math.pi * (torch.rand(n, **draw) - 0.5)
        r = 0.1 + 0.01 * torch.randn(n, **draw)
        return torch.stack([r * angle.cos() + 0.25, r * angle.sin()], -1)

    def simulate(self, theta: Tensor, generator: Generator | None = None) -> Tensor:
        """x for each row of theta, (..., 2)."""
        place = self._place(theta)
        return self._crescent(place[..., 0].numel(), theta, generator).view(place.shape) + place

    def log_likelihood(self, theta: Tensor, x: Tensor) -> Tensor:
        r"""$\ln p(x|\theta)$ in nats: $\ln N(r; 0.1, 0.01^2) - \ln(\pi r)$ on the right side of the crescent's centre.
        (A negative radius, ten deviations away, is left out.)"""
        u = x - self._place(theta) - torch.tensor([0.25, 0.0], dtype=x.dtype, device=x.device)
        r = torch.linalg.vector_norm(u, dim=-1).clamp(min=torch.finfo(x.dtype).tiny)
        log_p = -0.5 * ((r - 0.1) / 0.01) ** 2 - HALF_LOG_2PI - math.log(0.01) - (math.pi * r).log()
        return log_p.masked_fill(u[..., 0] <= 0, -torch.inf)

    def _proposals(self, n: int, x: Tensor, generator: Generator | None) -> tuple[Tensor, Tensor]:
        """n parameters that fit a crescent's point, with either sign, and whether they are possible at all."""
        place = x - self._crescent(n, x, generator)
        sign = 2.0 * torch.randint(2, (n,), generator=generator, device=x.device) - 1
        total, gap = -sign * place[..., 0], place[..., 1]
        theta = torch.stack([total - gap, total + gap], -1) / math.sqrt(2)
        return theta, (place[..., 0] <= 0) & (theta.abs() <= 1).all(-1)

    def sample_posterior(self, n: int, x: Tensor, generator: Generator | None = None) -> Tensor:
        """n exact draws of p(theta|x) for one observation (2,), by rejection, (n, 2).

        Raises:
            ValueError: An observation of another shape, or one that no parameter leads to (none of 10,000 tries).
        """
        n = number_of_draws(n)
        if x.shape != (2,):
            raise ValueError(f"one observation (2,) is needed, got {tuple(x.shape)}")
        kept, found = [x.new_empty(0, 2)], 0
        while found < n:
            theta, possible = self._proposals(max(2 * n, 10_000), x, generator)
            if not possible.any():
                raise ValueError(f"no parameter leads to the observation {x.tolist()}")
            kept.append(theta[possible])
            found += len(kept[-1])
        return torch.cat(kept)[:n]


class SLCP:
    r"""Simple likelihood, complex posterior: $\theta \sim U(-3, 3)^5$; x are four points of the plane from one
    Gaussian, (8,), with mean $(\theta_1, \theta_2)$, deviations $\theta_3^2, \theta_4^2$ and correlation
    $\tanh\theta_5$ (Papamakarios et al. 2019, arXiv:1805.07226, section 5.1). The signs of $\theta_3$ and $\theta_4$
    cannot be known: four modes.

    Example:
        >>> problem = SLCP()
        >>> problem.simulate(problem.prior.sample((3,))).shape
        torch.Size([3, 8])
    """

    prior = _uniform(-3.0, 3.0, 5)

    @staticmethod
    def _parts(theta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The mean (..., 2), the deviations (..., 2), and the correlation's hyperbolic angle (...)."""
        return theta[..., :2], theta[..., 2:4].square(), theta[..., 4]

    def simulate(self, theta: Tensor, generator: Generator | None = None) -> Tensor:
        """x for each row of theta, (..., 8): the points one after the other."""
        mean, scale, angle = self._parts(theta)
        noise = torch.randn(*theta.shape[:-1], 4, 2, generator=generator, dtype=theta.dtype, device=theta.device)
        first, own = noise.unbind(-1)
        second = angle.tanh()[..., None] * first + own / angle.cosh()[..., None]  # 1 - tanh^2 = 1 / cosh^2
        return (mean[..., None, :] + scale[..., None, :] * torch.stack([first, second], -1)).flatten(-2)

    def log_likelihood(self, theta: Tensor, x: Tensor) -> Tensor:
        r"""$\ln p(x|\theta)$ in nats."""
        mean, scale, angle = self._parts(theta)
        scale = scale.clamp(min=torch.finfo(theta.dtype).tiny ** 0.5)
        first, second = ((x.unflatten(-1, (4, 2)) - mean[..., None, :]) / scale[..., None, :]).unbind(-1)
        own = (second - angle.tanh()[..., None] * first) * angle.cosh()[..., None]
        squares = (first.square() + own.square()).sum(-1)
        return -0.5 * squares - 8 * HALF_LOG_2PI + 4 * (angle.cosh().log() - scale.log().sum(-1))


class EightSchools:
    r"""A hierarchical model: eight schools measure the effect of a training, $y_j \sim N(\theta_j, s_j^2)$ with known
    $s_j$; the effects come from one law, $\theta_j \sim N(\mu, \tau^2)$, with $\mu \sim N(0, 5^2)$ and $\tau \sim
    \text{HalfCauchy}(5)$ (Rubin 1981, doi:10.3102/10769986006004377).

    As an energy over $z = (\mu, \ln\tau, \theta_1, \dots, \theta_8)$, a density on $R^{10}$: where $\tau$ is small, all
    $\theta_j$ must be near $\mu$, which makes a funnel. Not centred, z has $\eta_j = (\theta_j - \mu)/\tau$ in place of
    $\theta_j$. Given $\tau$ everything is Gaussian, so $\ln Z$ is one integral over a line, and draws are exact.

    Args:
        centred: Which of the two.

    Example:
        >>> round(EightSchools().log_z, 4), EightSchools().sample(5).shape
        (-31.3113, torch.Size([5, 10]))
    """

    event_shape = (10,)
    y = torch.tensor([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
    s = torch.tensor([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])

    def __init__(self, centred: bool = True):
        self.centred = centred

    def energy(self, z: Tensor) -> Tensor:
        r"""$-\ln p(y, z)$ in nats, of shape `z.shape[:-1]`: the likelihood, both priors, and the Jacobian $\tau$ of
        $\ln\tau$."""
        mu, log_tau, effects = z[..., :1], z[..., 1:2], z[..., 2:]
        eta = (effects - mu) * (-log_tau).exp() if self.centred else effects
        theta = effects if self.centred else mu + log_tau.exp() * effects
        log_hyper = self._log_hyper(mu, log_tau)[..., 0]
        log_effects = (-0.5 * eta.square() - HALF_LOG_2PI - (log_tau if self.centred else 0.0)).sum(-1)
        return -(log_hyper + log_effects + Normal(theta, self.s.to(z)).log_prob(self.y.to(z)).sum(-1))

    @staticmethod
    def _log_hyper(mu, log_tau):
        """ln p(mu, ln tau): of the half Cauchy law by softplus, which never overflows."""
        log_cauchy = math.log(2 / (5 * math.pi)) - torch.nn.functional.softplus(2 * (log_tau - math.log(5.0)))
        return Normal(0.0, 5.0).log_prob(mu) + log_cauchy + log_tau

    def _over_tau(self) -> tuple[Tensor, Tensor]:
        r"""A fine grid of $\ln\tau$ and $\ln p(y, \ln\tau)$ on it, float64: $y \sim N(0, 5^2 \mathbf 1 \mathbf 1^\top +
        \operatorname{diag}(s_j^2 + \tau^2))$."""
        log_tau = torch.linspace(-25.0, 12.0, 7401, dtype=torch.float64)
        variances = self.s.double().square() + (2 * log_tau).exp()[:, None]
        law = MultivariateNormal(torch.zeros(8, dtype=torch.float64), torch.diag_embed(variances) + 25.0)
        prior = HalfCauchy(torch.tensor(5.0, dtype=torch.float64)).log_prob(log_tau.exp()) + log_tau
        return log_tau, prior + law.log_prob(self.y.double())

    @property
    def log_z(self) -> float:
        r"""The evidence $\ln p(y)$."""
        log_tau, log_p = self._over_tau()
        return (log_p.logsumexp(0) + (log_tau[1] - log_tau[0]).log()).item()

    def log_prob(self, z: Tensor) -> Tensor:
        """The log-density of the posterior in nats, of shape `z.shape[:-1]`."""
        return -self.energy(z) - self.log_z

    def sample(self, n: int, generator: Generator | None = None) -> Tensor:
        """n exact draws of the posterior, (n, 10): tau from its grid, then the Gaussians."""
        n = number_of_draws(n)
        grid, log_p = self._over_tau()
        draw = {"generator": generator, "dtype": torch.float64}
        cell = torch.searchsorted(log_p.softmax(0).cumsum(0), torch.rand(n, **draw)).clamp(max=len(grid) - 1)
        log_tau = grid[cell] + (grid[1] - grid[0]) * (torch.rand(n, **draw) - 0.5)
        y, s2, tau2 = self.y.double(), self.s.double().square(), (2 * log_tau).exp()[:, None]
        precision = 1 / (s2 + tau2)
        of_mu = 1 / 25 + precision.sum(-1)
        mu = (precision * y).sum(-1) / of_mu + torch.randn(n, **draw) / of_mu.sqrt()
        # of eta = (theta - mu) / tau, whose precision 1 + tau^2 / s^2 cannot overflow
        eta_variance = s2 / (s2 + tau2)
        eta = eta_variance * tau2.sqrt() * (y - mu[:, None]) / s2 + torch.randn(n, 8, **draw) * eta_variance.sqrt()
        effects = mu[:, None] + tau2.sqrt() * eta if self.centred else eta
        return torch.cat([mu[:, None], log_tau[:, None], effects], -1).to(torch.get_default_dtype())
