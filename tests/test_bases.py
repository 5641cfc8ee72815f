"""Bases: what they take, what they draw, what of them is trained, and what of them reads a context."""
import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

import flowlib as fl

BASES = [
    lambda: fl.StandardNormal(2), lambda: fl.StandardLogistic(2, 1), lambda: fl.Uniform(torch.zeros(3), torch.ones(3)),
    lambda: fl.GaussianMixture([[0.0, 1.0], [2.0, 3.0]], 0.5, [1.0, 3.0]),
    lambda: fl.GaussianMixture([[0.0, 1.0], [2.0, 3.0]], trainable=True),
]
each = pytest.mark.parametrize("make", BASES, ids=lambda make: type(make()).__name__)


@each
def test_shapes_generators_and_dtypes(make):
    base = make().double()
    for batch, shape in ((0, (0,)), (4, (4,)), ((), ()), ((0, 3), (0, 3)), ((2, 0), (2, 0)), ((2, 3), (2, 3)),
                         (np.int64(2), (2,))):
        z = base.sample(batch)
        assert z.shape == (*shape, *base.event_shape) and z.dtype == torch.float64 and not z.requires_grad
        assert base.log_prob(z).shape == shape
    torch.manual_seed(0)
    kept = torch.get_rng_state()
    a, b = (base.sample(5, generator=torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(a, b) and torch.equal(kept, torch.get_rng_state())
    assert not torch.equal(a, base.sample(5, generator=torch.Generator().manual_seed(4)))
    torch.manual_seed(3)
    assert torch.equal(a, base.sample(5))
    for wrong in (-1, 2.5, (2, -1), "3", None):
        with pytest.raises(ValueError, match="number of draws"):
            base.sample(wrong)


@each
def test_density_of_a_mean_over_draws(make):
    """E[p(z)/q(z)] = 1 for draws of q, a normal wide enough: the density that is claimed integrates to one."""
    base, q = make().double(), torch.distributions.Normal(torch.tensor(1.0, dtype=torch.float64), 3.0)
    z = q.sample((200_000, *base.event_shape))
    ratio = (base.log_prob(z) - q.log_prob(z).flatten(1).sum(1)).exp()
    assert abs(ratio.mean().item() - 1) < 5 * ratio.std().item() / math.sqrt(len(z))


@pytest.mark.parametrize("make, parts", [
    (lambda c: fl.Uniform(c([0, 0]), c([2, 3])), ("low", "high")),
    (lambda c: fl.GaussianMixture(c([[0], [1]])), ("means",)),
    (lambda c: fl.GaussianMixture(c([[0], [1]]), c([1]), c([1, 2])), ("means", "logits")),
    (lambda c: fl.Linear(c([[2, 1], [0, 3]])), ("matrix",)),
    (lambda c: fl.AffineMap(c([2, 3]), c([1, 0])), ("scale", "shift")),
], ids=["Uniform", "GaussianMixture", "weights", "Linear", "AffineMap"])
@pytest.mark.parametrize("convert", [
    torch.tensor, list, np.array, lambda v: np.array(v, np.float64), lambda v: torch.tensor(v).float(),
], ids=["int tensor", "list", "int array", "float64 array", "float tensor"])
def test_constructors_take_numbers_in_any_form(make, parts, convert):
    made, expected = make(convert), make(lambda v: torch.tensor(v, dtype=torch.float32))
    for name in parts:
        assert torch.equal(getattr(made, name), getattr(expected, name)) and getattr(made, name).dtype == torch.float32


def test_floating_tensors_say_the_dtype_of_their_fellows():
    base = fl.Uniform(torch.zeros(2, dtype=torch.float64), 0.1)
    assert base.low.dtype == base.high.dtype == torch.float64 and base.high[0].item() == 0.1
    mixture = fl.GaussianMixture(torch.zeros(2, 1, dtype=torch.float64), torch.ones(1), [1, 2])
    assert {b.dtype for b in mixture.buffers()} == {torch.float64}


def test_distributions_of_integers():
    normal = torch.distributions.Normal(torch.tensor(0), torch.tensor(2), validate_args=False)
    flow = fl.Flow(fl.Uniform(0, 1), fl.InverseCDF(normal))
    assert flow.log_prob(torch.zeros(1)).item() == pytest.approx(-math.log(2 * math.sqrt(2 * math.pi)))


@pytest.mark.parametrize("make", [
    lambda p: fl.Uniform(0.0, p(1)), lambda p: fl.GaussianMixture(p(2, 1)),
    lambda p: fl.GaussianMixture(p(2, 1), trainable=True),
    lambda p: fl.GaussianMixture([[0.0]], 1.0, p(1)), lambda p: fl.AffineMap(p(2)), lambda p: fl.AffineMap(1.0, p(2)),
    lambda p: fl.Linear(p(1, 1)), lambda p: fl.InverseCDF(torch.distributions.Exponential(p(2)))])
def test_what_would_not_be_trained_is_refused(make):
    for change in (nn.Identity(), torch.exp):  # a leaf, and what was computed from one
        with pytest.raises(ValueError, match="detach"):
            make(lambda *shape, change=change: change(nn.Parameter(torch.ones(shape))))
    copy.deepcopy(make(torch.ones))


@pytest.mark.parametrize("make", [
    lambda: fl.Uniform("a", 1.0), lambda: fl.GaussianMixture(None), lambda: fl.Linear([[1.0, 2.0], [3.0]]),
    lambda: fl.AffineMap(1j), lambda: fl.AffineMap("2"), lambda: fl.GaussianMixture(3.0),
    lambda: fl.Linear(torch.eye(2) * 1j), lambda: fl.Permutation([1.0, 0.0])])
def test_what_holds_no_numbers_is_refused(make):
    with pytest.raises(ValueError):
        make()


def test_a_trainable_mixture_learns():
    torch.manual_seed(0)
    # far apart: each component gets its part's moments
    parts = torch.randn(300, 1) * 0.3 - 2, torch.randn(100, 1) * 0.5 + 3
    base = fl.GaussianMixture([[-1.0], [1.0]], trainable=True)
    flow = fl.Flow(base, fl.AffineMap(1.0))
    optimizer = torch.optim.Adam(flow.parameters(), 0.05)
    for _ in range(400):
        loss = -flow.log_prob(torch.cat(parts)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert base.weights.tolist() == pytest.approx([0.75, 0.25], abs=0.01)
    assert base.means.flatten().tolist() == pytest.approx([x.mean().item() for x in parts], abs=0.02)
    assert base.scales.flatten().tolist() == pytest.approx([x.std().item() for x in parts], abs=0.02)
    assert list(fl.GaussianMixture([[-1.0]]).parameters()) == []


# --- a base that reads the context


def conditional(dtype=torch.float64):
    torch.manual_seed(0)
    base = fl.ConditionalNormal(2, 3).to(dtype)
    nn.init.normal_(base.linear.weight, std=0.5)
    return base


def test_conditional_normal_is_a_normal():
    base, context = conditional(), torch.randn(7, 3, dtype=torch.float64)
    raw = context @ base.linear.weight.T
    normal = torch.distributions.Normal(raw[:, :2], (5 * torch.tanh(raw[:, 2:] / 5)).exp())
    law = torch.distributions.Independent(normal, 1)
    z = torch.randn(4, 7, 2, dtype=torch.float64)
    torch.testing.assert_close(base.log_prob(z, context), law.log_prob(z))
    draws = base.sample((20_000, 7), context=context)
    torch.testing.assert_close(draws.mean(0), law.mean, rtol=0, atol=0.1)
    torch.testing.assert_close(draws.std(0) / law.stddev, torch.ones(7, 2, dtype=torch.float64), rtol=0, atol=0.05)
    assert torch.equal(base.sample((2, 7), 0.0, context), law.mean.expand(2, 7, 2))
    start = fl.ConditionalNormal(2, 3).log_prob(torch.ones(2), torch.ones(3))
    torch.testing.assert_close(start, fl.StandardNormal(2).log_prob(torch.ones(2)))


def test_a_flow_hands_its_context_to_its_base(tmp_path):
    context = torch.randn(7, 3, dtype=torch.float64)
    for layer in (fl.Exp(), fl.Coupling(2, fl.Affine(), hidden=(8,), context_dim=3)):
        base = conditional()
        flow = fl.Flow(base, layer.double())
        x = flow.sample(5, context, temperature=0.5)
        assert x.shape == (5, 7, 2)
        z, log_det = flow.bijection.inverse(x, context)
        torch.testing.assert_close(flow.log_prob(x, context), base.log_prob(z, context) + log_det)
        x, log_p = flow.rsample_and_log_prob(4, context)
        torch.testing.assert_close(flow.log_prob(x, context), log_p)
        x.sum().backward()
        assert base.linear.weight.grad.abs().sum() > 0
        for wrong in (None, context[:, :2], context.float()):
            for method, first in ((flow.log_prob, x), (flow.sample, 2)):
                with pytest.raises(ValueError, match="context"):
                    method(first, wrong)
        fl.save(flow, tmp_path)
        assert torch.equal(fl.load(tmp_path).log_prob(x, context), flow.log_prob(x, context))
    with pytest.raises(ValueError, match="3.*4|4.*3"):
        fl.Flow(conditional(), fl.Coupling(2, fl.Affine(), context_dim=4))


def test_a_reverse_kl_starts_from_a_conditional_base():
    pytest.importorskip("accelerate")
    from flowlib.train import ReverseKL

    flow = fl.Flow(conditional().float(), fl.ActNorm(2))
    with torch.no_grad():
        flow.base.linear.bias.copy_(torch.tensor([4.0, -1.0, 0.5, 0.5]))
    objective = ReverseKL(flow, lambda x: 0.5 * x.square().sum(-1))
    objective.initialize(2000, torch.zeros(1, 3))
    assert bool(flow.bijection.initialized)
    x = flow.sample(2000, torch.zeros(1, 3))
    torch.testing.assert_close(x.mean((0, 1)), torch.zeros(2), rtol=0, atol=0.1)
    torch.testing.assert_close(x.std((0, 1)), torch.ones(2), rtol=0, atol=0.1)


def test_flows_draw_from_a_generator():
    for flow in (fl.RealNVP(2), fl.Flow(fl.GaussianMixture([[0.0, 1.0], [2.0, 3.0]]), fl.Planar(2))):
        a, b = (flow.sample(5, generator=torch.Generator().manual_seed(3)) for _ in range(2))
        assert torch.equal(a, b)
        assert flow.sample(0).shape == (0, 2)
        z = flow.sample_latent(5, generator=torch.Generator().manual_seed(3))
        torch.testing.assert_close(flow.decode(z).detach(), a)
    flow = fl.RealNVP(2)
    a, b = (flow.rsample_and_log_prob(5, generator=torch.Generator().manual_seed(3))[0] for _ in range(2))
    assert torch.equal(a, b)


class Old(nn.Module):
    """A base of someone else's, written before bases had contexts and generators."""

    event_shape = (1,)

    def log_prob(self, z):
        return -z.abs().sum(-1)

    def sample(self, batch, temperature=1.0):
        return torch.zeros(*batch, 1)


def test_bases_of_other_people_still_fit():
    flow = fl.Flow(Old(), fl.AffineMap(2.0))
    assert flow.sample(3).shape == (3, 1) and flow.log_prob(torch.ones(1)).item() == pytest.approx(-0.5 - math.log(2))


TARGETS = [fl.targets.EightGaussians(), fl.targets.Checkerboard(), fl.targets.Rings(), fl.targets.Moons(),
           fl.targets.Pinwheel()]


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: type(t).__name__)
def test_targets_draw_from_a_generator(target):
    a, b = (target.sample(50, generator=torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(a, b) and a.shape == (50, 2) and target.sample(0).shape == (0, 2)
    for wrong in (-1, (5,), 2.5):
        with pytest.raises(ValueError, match="number of draws"):
            target.sample(wrong)


def test_a_logistic_draw_is_finite_where_rand_is_zero(monkeypatch):
    monkeypatch.setattr(torch, "rand", lambda shape, **kinds: torch.zeros(shape, dtype=kinds["dtype"]))
    assert fl.StandardLogistic(1).sample(3).isfinite().all()


def test_a_point_that_rounding_moved_off_the_edge_of_a_box_still_counts():
    base = fl.Uniform(1.0, 3.0)
    edge = torch.tensor(3.0).nextafter(torch.tensor(4.0))
    assert base.log_prob(torch.stack([edge, torch.tensor(3.001)])[:, None]).tolist() == [
        pytest.approx(-math.log(2)), -math.inf]


@pytest.mark.parametrize("temperature", [-0.5, math.nan])
@pytest.mark.parametrize("make", [lambda: fl.StandardNormal(2), lambda: fl.StandardLogistic(2)])
def test_a_temperature_is_a_number_that_is_not_negative(make, temperature):
    with pytest.raises(ValueError, match="temperature"):
        make().sample(1, temperature)


def test_a_mixture_has_one_weight_for_each_component():
    with pytest.raises(ValueError, match=r"weights of shape \(2,\)"):
        fl.GaussianMixture([[0.0], [1.0]], weights=[1.0])
