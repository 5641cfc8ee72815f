"""Soft actor-critic in the open: two networks learn what an action is worth, and a policy, any conditional flow, turns
towards the Boltzmann law of what they say."""
from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import torch
from torch import Generator, Tensor, nn

from .core import Flow
from .nets.mlp import MLP
from .policies import MaximumEntropy, positive

__all__ = ["Critic", "Pendulum", "soft_actor_critic"]


class Pendulum:
    r"""n pendulums at once, to be swung up and held: the physics of the environment Pendulum-v1 of gymnasium, with
    actions in (-1, 1).

    $\dot\omega = 15 \sin\theta + 3 \cdot 2a$ (length and mass 1, gravity 10, a torque of at most 2), by Euler steps of
    1/20 second, $|\omega| \le 8$; $\theta = 0$ is up. The reward of a step is $-(\theta^2 + \omega^2/10 +
    (2a)^2/1000)$ with the angle in $[-\pi, \pi]$, before the step. An episode has 200 of them.

    Args:
        n: Number of pendulums.
        generator: Where starts are drawn from.

    Attributes:
        state_dim: 3: $\cos\theta$, $\sin\theta$, $\omega$.
        action_dim: 1.
        horizon: 200.

    Example:
        >>> env = Pendulum(4); env.reset().shape, env.step(torch.zeros(4, 1))[1].shape
        (torch.Size([4, 3]), torch.Size([4]))
    """

    state_dim, action_dim, horizon = 3, 1, 200

    def __init__(self, n: int, generator: Generator | None = None):
        self.n, self.generator = n, generator
        self.reset()

    def reset(self) -> Tensor:
        """Begin anew at any angle, with a speed in [-1, 1]; states (n, 3)."""
        angle, speed = 2 * torch.rand(2, self.n, generator=self.generator) - 1
        self.angle, self.speed = math.pi * angle, speed
        return self.states()

    def states(self) -> Tensor:
        """The present states, (n, 3)."""
        return torch.stack([self.angle.cos(), self.angle.sin(), self.speed], -1)

    def step(self, actions: Tensor) -> tuple[Tensor, Tensor]:
        """States (n, 3) and rewards (n,) after one step with actions (n, 1)."""
        torque = 2 * actions.squeeze(-1).clamp(-1.0, 1.0)
        angle = torch.remainder(self.angle + math.pi, 2 * math.pi) - math.pi
        rewards = -(angle.square() + 0.1 * self.speed.square() + 0.001 * torque.square())
        self.speed = (self.speed + (15 * self.angle.sin() + 3 * torque) / 20).clamp(-8.0, 8.0)
        self.angle = self.angle + self.speed / 20
        return self.states(), rewards


class Critic(nn.Module):
    """Two networks for $Q(s, a)$, of which the smaller value counts: one alone is too hopeful where it errs (Fujimoto
    et al. 2018, arXiv:1802.09477, section 4.2).

    Args:
        state_dim: S.
        action_dim: D.
        hidden: Widths of each network's hidden layers.

    Example:
        >>> Critic(3, 1)(torch.zeros(7, 3), torch.zeros(5, 7, 1)).shape
        torch.Size([5, 7])
    """

    def __init__(self, state_dim: int, action_dim: int, hidden: Sequence[int] = (64, 64)):
        super().__init__()
        self.nets = nn.ModuleList(MLP(action_dim, 1, hidden, context_dim=state_dim) for _ in range(2))

    def both(self, states: Tensor, actions: Tensor) -> Tensor:
        """Both values of actions (..., D) in states (..., S), which broadcast: (2, ...)."""
        return torch.stack([net(actions, states).squeeze(-1) for net in self.nets])

    def forward(self, states: Tensor, actions: Tensor) -> Tensor:
        """The smaller one, (...)."""
        return self.both(states, actions).amin(0)


def soft_actor_critic(policy: Flow, env: Pendulum, *, episodes: int, alpha: float, discount: float = 0.98,
                      batch_size: int = 256, lr: float = 1e-3, tau: float = 0.01, hidden: Sequence[int] = (64, 64),
                      updates: int = 1, seed: int = 0) -> tuple[Critic, Tensor]:
    r"""Train a policy in an environment by soft actor-critic (Haarnoja et al. 2018, arXiv:1812.05905, algorithm 1, with
    a fixed temperature).

    In turn, over transitions $(s, a, r, s')$ of all episodes so far: the critic fits $r + \gamma\,(\bar Q(s', a') -
    \alpha \ln\pi(a'|s'))$ with a fresh $a' \sim \pi$ and a slow copy $\bar Q$ of itself, and the policy minimises the
    critic's `MaximumEntropy`. The time limit of an episode is no end of the task: its last state is worth what follows.
    Actions are uniform in the first episode. Cost: `episodes` times horizon times `updates` updates, each two draws of
    the policy and four passes of the critic.

    Args:
        policy: Changed in place; a flow over (-1, 1)^D with the state as its context.
        env: What has `n`, `state_dim`, `action_dim`, `horizon`, `reset()` and `step(actions)` as a `Pendulum` has.
        episodes: Number of them; each is n in parallel.
        alpha: The temperature, in the units of a reward.
        discount: $\gamma$.
        batch_size: Transitions an update.
        lr: Learning rate of both.
        tau: How far the slow copy goes towards the critic after each update.
        hidden: Widths of the critic's hidden layers.
        updates: For each step of the environment.
        seed: Of all that is random but the environment's own draws and the policy's weights.

    Returns:
        The critic, and each episode's return (sum of rewards), (episodes, n).

    Raises:
        ValueError: A temperature that is not positive.

    Example:
        >>> from flowlib.policies import GaussianPolicy
        >>> critic, returns = soft_actor_critic(GaussianPolicy(1, 3), Pendulum(4), episodes=1, alpha=0.1)
        >>> returns.shape
        torch.Size([1, 4])
    """
    positive(alpha)
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        critic = Critic(env.state_dim, env.action_dim, hidden)
    slow = copy.deepcopy(critic).requires_grad_(False)
    objective = MaximumEntropy(policy, critic, alpha, generator=generator)
    actor_steps, critic_steps = (torch.optim.Adam(part.parameters(), lr) for part in (policy, critic))

    sizes = (env.state_dim, env.action_dim, 1, env.state_dim)
    memory = torch.empty(episodes * env.horizon, env.n, sum(sizes))  # rows s, a, r, s'
    returns, states = torch.zeros(episodes, env.n), env.reset()
    for t in range(len(memory)):
        episode, step = divmod(t, env.horizon)
        if step == 0 and episode:
            states = env.reset()
        if episode == 0:
            actions = 2 * torch.rand(env.n, env.action_dim, generator=generator) - 1
        else:
            actions = policy.sample(1, states, generator=generator)[0]
        after, rewards = env.step(actions)
        memory[t] = torch.cat([states, actions, rewards[:, None], after], -1)
        states, returns[episode] = after, returns[episode] + rewards
        for _ in range(updates if episode else 0):
            drawn = torch.randint((t + 1) * env.n, (batch_size,), generator=generator)
            s, a, r, then = memory.flatten(0, 1)[drawn].split(sizes, -1)
            with torch.no_grad():
                next_a, log_pi = policy.rsample_and_log_prob(1, then, generator=generator)
                target = r[:, 0] + discount * (slow(then, next_a[0]) - alpha * log_pi[0])
            descend(critic_steps, (critic.both(s, a) - target).square().mean())
            critic.requires_grad_(False)
            descend(actor_steps, objective(s).mean())
            critic.requires_grad_(True)
            for old, new in zip(slow.parameters(), critic.parameters()):
                old.data.lerp_(new.data, tau)
    return critic, returns


def descend(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    """One step down the gradient."""
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
