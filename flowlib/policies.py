"""Policies: conditional densities of bounded actions given a state, and the law that the best of them approaches."""
from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from .bases import StandardNormal
from .core import Compose, Flow
from .coupling.vector import Coupling
from .elementwise.affine import Affine
from .elementwise.base import Elementwise, ElementwiseMap
from .elementwise.spline import RationalQuadraticSpline
from .maps import Tanh

__all__ = ["Boltzmann", "FlowPolicy", "GaussianPolicy", "MaximumEntropy", "two_goals"]

Q = Callable[[Tensor, Tensor], Tensor]  # of states (..., S) and actions (..., D), which broadcast, to (...)


class GaussianPolicy(Flow):
    r"""$a = \tanh(\mu(s) + \sigma(s) \odot \varepsilon)$, the squashed Gaussian of soft actor-critic (Haarnoja et al.
    2018, arXiv:1801.01290, appendix C), as a flow with the state as its context.

    $\log \pi(a|s) = \log N(u; \mu(s), \sigma(s)^2) - \sum_i \ln(1 - a_i^2)$ with $u = \tanh^{-1} a$. $\ln\sigma$ lies
    within $\pm 5$. Cost: one pass of the network, both ways.

    Args:
        dim: D, the number of actions' coordinates; each lies in (-1, 1).
        context_dim: Width S of a state, or None for a policy without.
        hidden: Widths of the network's hidden layers.

    Example:
        >>> from flowlib.policies import GaussianPolicy
        >>> policy = GaussianPolicy(1, 3); policy.sample(5, torch.zeros(7, 3)).shape  # five actions in each of 7 states
        torch.Size([5, 7, 1])
    """

    def __init__(self, dim: int, context_dim: int | None = None, *, hidden: Sequence[int] = (64, 64)):
        super().__init__(StandardNormal(dim), Compose(place(dim, context_dim, hidden), Tanh()))


class FlowPolicy(Flow):
    r"""The squashed Gaussian with couplings before its affine map, which all read the state: a density of actions that
    may have several modes, and an exact $\log \pi(a|s)$ (Mazoure et al. 2019, arXiv:1905.06893; Ward et al. 2019,
    arXiv:1906.02771).

    It starts as the Gaussian policy does. Affine couplings (RealNVP) leave an action of one coordinate Gaussian;
    splines bend it. Cost: `layers` + 1 network passes, both ways.

    Args:
        dim: D, the number of actions' coordinates; each lies in (-1, 1).
        context_dim: Width S of a state, or None for a policy without.
        layers: Number of couplings; every second one has the other half.
        hidden: Widths of each network's hidden layers.
        elementwise: The couplings' map; None: splines of 8 pieces on [-4, 4], which holds the latents.

    Raises:
        ValueError: A single coordinate without a state.

    Example:
        >>> from flowlib.policies import FlowPolicy
        >>> policy = FlowPolicy(2, 3); policy.log_prob(torch.zeros(7, 2), torch.zeros(7, 3)).shape
        torch.Size([7])
    """

    def __init__(self, dim: int, context_dim: int | None = None, *, layers: int = 4, hidden: Sequence[int] = (64, 64),
                 elementwise: ElementwiseMap | None = None):
        elementwise = RationalQuadraticSpline(8, 4.0) if elementwise is None else elementwise
        super().__init__(StandardNormal(dim), Compose(
            *(Coupling(dim, elementwise, hidden=hidden, swap=k % 2 == 1, context_dim=context_dim)
              for k in range(layers)), place(dim, context_dim, hidden), Tanh()))


def place(dim: int, context_dim: int | None, hidden: Sequence[int]) -> Elementwise:
    """The affine map to the state's mean and scale."""
    return Elementwise(dim, Affine(5.0), context_dim=context_dim, hidden=hidden)


class MaximumEntropy(nn.Module):
    r"""What a policy of maximum entropy minimises in each state: $\mathbb E_{a \sim \pi}[\ln \pi(a|s) - Q(s,a)/\alpha]$
    in nats, by one action each. It is $\mathrm{KL}(\pi \,\|\, e^{Q/\alpha}/Z) - \ln Z(s)$: the reverse KL divergence to
    a Boltzmann law (Haarnoja et al. 2018, arXiv:1801.01290, equations 10 to 12).

    An objective for `train.fit(policy, states, objective=...)`. Cost: one `forward` and one Q.

    Args:
        policy: The policy, with the state as its context; its likelihood must be exact.
        q: $Q(s, a)$, from states (..., S) and actions (..., D), which broadcast, to (...); differentiable. A module's
            parameters are trained too.
        alpha: The temperature, in the units of Q.
        anneal: The factor $\beta$ of Q in training, from the share of the steps that are done, in [0, 1], to a number;
            1 at the end. It starts small, so that the policy finds all modes before it has to choose. None: always 1.
        generator: Where the actions are drawn from; torch's own where None.

    Raises:
        ValueError: A temperature that is not positive.

    Example:
        >>> from flowlib.policies import GaussianPolicy, MaximumEntropy, two_goals
        >>> MaximumEntropy(GaussianPolicy(2, 2), two_goals)(torch.zeros(7, 2)).shape
        torch.Size([7])
    """

    beta: Tensor

    def __init__(self, policy: Flow, q: Q, alpha: float = 1.0, anneal: Callable[[float], float] | None = None,
                 generator: torch.Generator | None = None):
        super().__init__()
        self.policy, self.q, self.alpha, self.anneal = policy, q, positive(alpha), anneal
        self.generator = generator
        self.register_buffer("beta", torch.ones(()), persistent=False)  # a number would be compiled in, step by step

    def set_step(self, step: int, steps: int) -> None:
        """Take the factor of Q after so many of so many steps."""
        if self.anneal is not None:
            self.beta.fill_(self.anneal(step / steps))

    def forward(self, states: Tensor) -> Tensor:
        """$\\ln \\pi(a|s) - \\beta\\, Q(s,a)/\\alpha$ of a fresh action in each state, (B,)."""
        actions, log_pi = self.policy.rsample_and_log_prob(1, states, generator=self.generator)
        return log_pi[0] - self.beta * self.q(states, actions[0]) / self.alpha


class Boltzmann:
    r"""$p(a|s) = e^{Q(s,a)/\alpha} / Z(s)$ on the cube $(-1, 1)^D$: of all laws of the actions, the one of the largest
    $\mathbb E[Q(s,a)] - \alpha\,\mathbb E[\ln p(a|s)]$, which is $\alpha \ln Z(s)$.

    Integrals are sums over a grid of $u = \tanh^{-1} a$ on $[-8, 8]^D$ with the weights $\prod_i (1 - a_i^2)$, which
    end smoothly on both sides (2e-7 of each axis lies beyond). Features should be wider than a step, 16/(points - 1) in
    u. Cost: `points`^D values of Q a state, for up to two coordinates.

    Args:
        q: $Q(s, a)$, as `MaximumEntropy` takes it.
        dim: D.
        alpha: The temperature, in the units of Q.
        points: Of the grid, along each axis.

    Raises:
        ValueError: A temperature that is not positive, or more than two coordinates.

    Example:
        >>> from flowlib.policies import Boltzmann, two_goals
        >>> Boltzmann(lambda s, a: 0 * a[..., 0], dim=1).log_normalizer(torch.zeros(1, 1))  # ln 2, the cube's volume
        tensor([0.6931])
    """

    def __init__(self, q: Q, dim: int, alpha: float = 1.0, points: int = 161):
        if dim not in (1, 2):
            raise ValueError(f"quadrature is for one or two coordinates, got {dim}")
        self.q, self.dim, self.alpha, self.points = q, dim, positive(alpha), points

    def grid(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """The actions (points^D, D) and the logarithms of their weights (points^D,), in the dtype of a tensor."""
        u = torch.linspace(-8.0, 8.0, self.points, dtype=like.dtype, device=like.device)
        a, log_slope = Tanh()(u[:, None])
        log_weight = log_slope + math.log(16.0 / (self.points - 1))
        if self.dim == 1:
            return a, log_weight
        return torch.cartesian_prod(a[:, 0], a[:, 0]), (log_weight[:, None] + log_weight).flatten()

    def log_normalizer(self, states: Tensor) -> Tensor:
        r"""$\ln Z(s)$ of states (B, S), (B,) nats."""
        actions, log_weights = self.grid(states)
        return torch.stack([(self.q(s, actions) / self.alpha + log_weights).logsumexp(0) for s in states])

    def log_prob(self, actions: Tensor, states: Tensor) -> Tensor:
        r"""$\ln p(a|s)$ of actions (..., B, D) in states (B, S), (..., B) nats."""
        return self.q(states, actions) / self.alpha - self.log_normalizer(states)

    @torch.no_grad()
    def kl(self, policy: Flow, states: Tensor) -> Tensor:
        r"""$\mathrm{KL}(\pi \,\|\, p)$ in states (B, S), (B,) nats: how far a policy is from the best one."""
        actions, log_weights = self.grid(states)
        found = []
        for s in states:
            log_p = (self.q(s, actions) / self.alpha + log_weights).log_softmax(0)
            log_pi = policy.log_prob(actions, s) + log_weights
            found.append((log_pi.exp() * (log_pi - log_p).nan_to_num(0.0)).sum())
        return torch.stack(found)


def positive(alpha: float) -> float:
    """A temperature, or ValueError."""
    if not alpha > 0:
        raise ValueError(f"a temperature must be positive, got {alpha}")
    return alpha


def two_goals(states: Tensor, actions: Tensor) -> Tensor:
    r"""Q of a point at s in the plane that walks with the velocity a to one of two goals, $g_\pm = (\pm 1, 0)$:

    $$Q(s, a) = \ln \sum_{g} \exp\Big(-\frac{\lVert a - 0.6\,(g - s)/\lVert g - s \rVert \rVert^2}{2 \cdot 0.15^2}
    - \frac{\lVert s - g \rVert^2}{2}\Big).$$

    An even pace towards a goal is good, towards the nearer one better. At a temperature of 1 the best policy is a
    mixture of two narrow Gaussians (cut off at the edge of the square, where nothing is left of them).

    Args:
        states: s, (..., 2).
        actions: a, (..., 2), which broadcast against the states.

    Returns:
        Q, (...).

    Example:
        >>> from flowlib.policies import two_goals
        >>> two_goals(torch.zeros(2), torch.tensor([[0.6, 0.0], [-0.6, 0.0], [0.0, 0.6]]))  # towards both, and astray
        tensor([ -0.5000,  -0.5000, -15.8069])
    """
    terms = []
    for x in (-1.0, 1.0):
        way = states.new_tensor([x, 0.0]) - states
        distance = way.square().sum(-1, keepdim=True)
        miss = actions - 0.6 * way / distance.clamp(min=1e-6).sqrt()
        terms.append(-miss.square().sum(-1) / (2 * 0.15**2) - distance[..., 0] / 2)
    return torch.logaddexp(*terms)
