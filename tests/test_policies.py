"""Policies and the Boltzmann law against closed forms; soft actor-critic where the best policy is known."""
import math

import pytest
import torch
from torch.distributions import Normal, TransformedDistribution
from torch.distributions.transforms import TanhTransform

import flowlib as fl
from flowlib.actor_critic import Critic, Pendulum, soft_actor_critic
from flowlib.policies import Boltzmann, FlowPolicy, GaussianPolicy, MaximumEntropy, two_goals

D = torch.float64
NO_STATE = torch.zeros(1, 1, dtype=D)


def gaussian(mean, scale, dim=1):
    """A squashed Gaussian with this mean and scale of every coordinate before the tanh, in every state."""
    policy = GaussianPolicy(dim, 1, hidden=(4,)).double().requires_grad_(False)
    policy.bijection[0].params.copy_(torch.tensor([5 * math.atanh(math.log(scale) / 5), mean]))
    return policy


def test_tanh_is_torchs_and_accurate_at_both_ends():
    z = torch.linspace(-8, 8, 33, dtype=D)[:, None]
    x, log_det = fl.Tanh()(z)
    assert torch.allclose(x, z.tanh()) and torch.allclose(log_det, TanhTransform().log_abs_det_jacobian(z, x)[:, 0])
    gap = torch.tensor([2.0**-20, 2.0**-24, 2.0**-50], dtype=D)[:, None]
    z, log_det = fl.Tanh().inverse(1 - gap)
    assert torch.allclose(log_det, -(gap * (2 - gap)).log()[:, 0], rtol=1e-13)
    assert torch.allclose(z, 0.5 * ((2 - gap) / gap).log(), rtol=1e-13)


@pytest.mark.parametrize("dtype", [torch.float32, D])
def test_tanh_is_finite_at_the_edge_and_zero_beyond_it(dtype):
    edge = torch.tensor([[1.0], [-1.0], [1 - torch.finfo(dtype).eps]], dtype=dtype)
    z, log_det = fl.Tanh().inverse(edge)
    assert z.isfinite().all() and log_det.isfinite().all() and z[0] == -z[1] > z[2]
    assert fl.Tanh().inverse(torch.tensor([1.5, 0.0], dtype=dtype))[1] == -torch.inf
    far = torch.tensor([[1e3], [-1e30], [torch.finfo(dtype).max]], dtype=dtype)
    x, log_det = fl.Tanh()(far)
    assert (x.abs() == 1).all() and log_det.isfinite().all()
    assert log_det[0].item() == pytest.approx(2 * math.log(2) - 2000)
    z = torch.linspace(-6, 6, 25, dtype=dtype)[:, None]
    assert torch.allclose(fl.Tanh().inverse(z.tanh())[0], z, atol=torch.finfo(dtype).eps * math.exp(12))
    assert fl.Flow(fl.StandardNormal(1), fl.Tanh()).to(dtype).log_prob(x).isfinite().all()


def test_a_gaussian_policy_is_torchs_squashed_normal():
    torch.manual_seed(0)
    policy = GaussianPolicy(2, 3, hidden=(8,)).double()
    torch.nn.init.normal_(policy.bijection[0].shift.layers[-1].weight, std=0.3)
    states, actions = torch.randn(5, 3, dtype=D), 2 * torch.rand(7, 5, 2, dtype=D) - 1
    raw, mean = policy.bijection[0].shift(states).unflatten(-1, (2, 2)).unbind(-1)
    law = TransformedDistribution(Normal(mean, (5 * torch.tanh(raw / 5)).exp()), TanhTransform())
    assert torch.allclose(policy.log_prob(actions, states), law.log_prob(actions).sum(-1))
    assert mean.std(0).min() > 0.01 and raw.std(0).min() > 0.01  # every state has its own


def test_a_flow_policy_starts_as_the_gaussian_one_and_is_saved(tmp_path):
    torch.manual_seed(0)
    policy = FlowPolicy(2, 3, layers=2, hidden=(8,))
    states, actions = torch.randn(5, 3), 2 * torch.rand(5, 2) - 1
    assert torch.allclose(policy.log_prob(actions, states), GaussianPolicy(2, 3).log_prob(actions, states), atol=1e-5)
    for p in policy.parameters():
        torch.nn.init.normal_(p, std=0.3)
    fl.save(policy, tmp_path / "policy")
    again = fl.load(tmp_path / "policy")
    assert isinstance(again, FlowPolicy)
    torch.testing.assert_close(again.log_prob(actions, states), policy.log_prob(actions, states))
    drawn, log_pi = policy.rsample_and_log_prob(4, states)
    torch.testing.assert_close(log_pi, policy.log_prob(drawn, states), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("dim", [1, 2])
def test_the_normaliser_of_a_linear_q(dim):
    """The integral of exp(k a) over (-1, 1) is 2 sinh(k)/k."""
    slope = torch.tensor([1.5, -0.5], dtype=D)[:dim]
    law = Boltzmann(lambda s, a: a @ slope, dim, alpha=0.5)
    exact = sum(math.log(math.sinh(2 * k) / k) for k in slope.tolist())
    assert law.log_normalizer(NO_STATE).item() == pytest.approx(exact, abs=1e-6)
    a = torch.rand(3, 1, dim, dtype=D)
    assert torch.allclose(law.log_prob(a, NO_STATE), 2 * a @ slope - exact, atol=1e-6)


@pytest.mark.parametrize("dim", [1, 2])
def test_the_divergence_of_two_squashed_gaussians_is_that_of_the_gaussians(dim):
    p, q = gaussian(-0.4, 0.5, dim), gaussian(0.3, 0.8, dim)
    law = Boltzmann(lambda s, a: 0.3 * p.log_prob(a, s), dim, alpha=0.3)
    exact = dim * torch.distributions.kl_divergence(Normal(0.3, 0.8), Normal(-0.4, 0.5)).item()
    assert law.kl(q, NO_STATE).item() == pytest.approx(exact, abs=1e-5)


def test_one_of_two_equal_far_modes_costs_ln_2():
    modes = gaussian(-1.0, 0.1), gaussian(1.0, 0.1)
    law = Boltzmann(lambda s, a: torch.logaddexp(*(m.log_prob(a, s) for m in modes)), 1, points=801)
    assert law.kl(modes[0], NO_STATE).item() == pytest.approx(math.log(2), abs=1e-6)


def test_the_objective_is_the_divergence_without_its_constant():
    torch.manual_seed(0)
    policy, law = gaussian(0.2, 0.7, 2), Boltzmann(two_goals, 2, alpha=2.0)
    states = torch.tensor([[0.3, -0.2]], dtype=D)
    policy = fl.Flow(policy.base, fl.Compose(fl.Elementwise(2, fl.Affine(), context_dim=2).double(),
                                             policy.bijection[1]))
    loss = MaximumEntropy(policy, two_goals, alpha=2.0)(states.expand(40_000, 2)).detach()
    exact = (law.kl(policy, states) - law.log_normalizer(states)).item()
    assert loss.mean().item() == pytest.approx(exact, abs=4 * loss.std().item() / 200)


def test_annealing_starts_from_a_smaller_q():
    policy = gaussian(0.0, 0.5)
    objective = MaximumEntropy(policy, lambda s, a: a[..., 0] + 10, anneal=lambda share: share,
                               generator=torch.Generator().manual_seed(0))
    found = []
    for step in (0, 5, 10):
        objective.generator.manual_seed(0)
        objective.set_step(step, 10)
        found.append(objective(NO_STATE).item())
    assert found[0] - found[2] == pytest.approx(2 * (found[0] - found[1])) and found[0] - found[2] > 9


@pytest.mark.parametrize("broken, said", [
    (lambda: MaximumEntropy(GaussianPolicy(1, 1), two_goals, alpha=0.0), "positive"),
    (lambda: Boltzmann(two_goals, 2, alpha=math.nan), "positive"),
    (lambda: Boltzmann(two_goals, 3), "one or two"),
    (lambda: soft_actor_critic(GaussianPolicy(1, 3), Pendulum(1), episodes=1, alpha=-1.0), "positive"),
    (lambda: FlowPolicy(1), "context"),
])
def test_what_makes_no_sense_is_refused(broken, said):
    with pytest.raises(ValueError, match=said):
        broken()


def test_two_goals_are_a_mixture():
    """At a temperature of 1 the normaliser is that of two Gaussians, weighted by the distances."""
    s = torch.tensor([[0.2, 0.1]], dtype=D)
    weights = [math.exp(-((x - 0.2) ** 2 + 0.1**2) / 2) for x in (-1, 1)]
    exact = math.log(sum(weights) * 2 * math.pi * 0.15**2)
    assert Boltzmann(two_goals, 2).log_normalizer(s).item() == pytest.approx(exact, abs=1e-2)
    best = torch.tensor([0.8, -0.1], dtype=D) * 0.6 / math.hypot(0.8, 0.1)
    grid = best + 0.05 * torch.randn(100, 2, dtype=D)
    assert (two_goals(s, grid) <= two_goals(s, best) + 1e-6).all()


def test_a_pendulum_at_rest_and_in_motion():
    env = Pendulum(2)
    env.angle, env.speed = torch.tensor([math.pi, 0.5]), torch.tensor([0.0, -1.0])
    states, rewards = env.step(torch.tensor([[0.0], [0.25]]))
    assert rewards.tolist() == pytest.approx([-math.pi**2, -(0.25 + 0.1 + 0.001 * 0.25)], rel=1e-5)
    speed = -1 + (15 * math.sin(0.5) + 3 * 0.5) / 20
    assert states[0].tolist() == pytest.approx([-1, 0, 0], abs=1e-5)
    assert states[1].tolist() == pytest.approx([math.cos(0.5 + speed / 20), math.sin(0.5 + speed / 20), speed])


def test_the_pendulum_is_gymnasiums():
    gymnasium = pytest.importorskip("gymnasium")
    other, env = gymnasium.make("Pendulum-v1").unwrapped, Pendulum(1)
    env.angle, env.speed = torch.tensor([1.0]), torch.tensor([0.5])
    other.reset(seed=0)
    other.state = [1.0, 0.5]
    actions = torch.linspace(-1.5, 1.5, 40)  # some beyond the largest torque
    for action in actions:
        states, rewards = env.step(action.reshape(1, 1))
        after, reward, *_ = other.step([2 * action.item()])
        assert rewards.item() == pytest.approx(reward, abs=1e-3)
        assert states[0].tolist() == pytest.approx(after.tolist(), abs=1e-3)


class Steps:
    """One number as the state, kept; the reward is -(a - 0.4)^2."""

    n, state_dim, action_dim, horizon = 4, 1, 1, 25

    def reset(self):
        return torch.zeros(self.n, 1)

    def step(self, actions):
        return self.reset(), -(actions[:, 0] - 0.4).square()


def test_soft_actor_critic_finds_the_boltzmann_policy_and_the_soft_value():
    """The state never changes, so the best policy is the Boltzmann law of the reward, and every action is worth its
    reward and g/(1 - g) times alpha ln Z."""
    alpha, discount = 0.5, 0.8
    law = Boltzmann(lambda s, a: -(a[..., 0] - 0.4).square(), 1, alpha=alpha)

    def trained(episodes):
        torch.manual_seed(0)
        policy, state = GaussianPolicy(1, 1, hidden=(8,)), torch.get_rng_state()
        critic, returns = soft_actor_critic(policy, Steps(), episodes=episodes, alpha=alpha, discount=discount, lr=1e-2,
                                            batch_size=64, tau=0.1, hidden=(32,), seed=1)
        assert torch.equal(state, torch.get_rng_state())
        return policy, critic, returns

    policy, critic, returns = trained(12)
    none = torch.zeros(1, 1)
    assert law.kl(policy, none).item() < 0.1 and returns[-4:].mean() > returns[0].mean()
    actions = torch.tensor([[-0.3], [0.4], [0.8]])
    exact = -(actions[:, 0] - 0.4).square() + discount / (1 - discount) * alpha * law.log_normalizer(none)
    assert (critic(none, actions) - exact).abs().max() < 0.4
    torch.testing.assert_close(*(trained(2)[2] for _ in range(2)))


def test_a_critic_takes_the_smaller_value():
    torch.manual_seed(0)
    critic = Critic(3, 2)
    for p in critic.parameters():
        torch.nn.init.normal_(p, std=0.3)
    states, actions = torch.randn(5, 3), torch.randn(7, 5, 2)
    both = critic.both(states, actions)
    assert both.shape == (2, 7, 5) and torch.equal(critic(states, actions), both.min(0).values)
    assert 0 < (both[0] < both[1]).sum() < 35
