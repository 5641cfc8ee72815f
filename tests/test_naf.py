"""Averages of sigmoids: the paper's formulas, far tails, and a density that integrates to one; NAF both ways round."""
import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

import flowlib as fl
from flowlib import NAF, DeepSigmoid, DenseDeepSigmoid

D = torch.float64
MAPS = pytest.mark.parametrize(
    "sigmoids", [DeepSigmoid(1), DeepSigmoid(6), DenseDeepSigmoid(3), DenseDeepSigmoid(2, 3)], ids=repr)


def drawn(sigmoids, n=40, dtype=D):
    torch.manual_seed(0)
    return 3 * torch.randn(n, dtype=dtype), 2 * torch.randn(n, sigmoids.n_params, dtype=dtype)


def scale(raw):
    return (2 * torch.tanh(raw / 2)).exp()


def test_one_layer_is_the_papers():
    x, params = drawn(DeepSigmoid(6))
    raw, b, w = params.split(6, -1)
    mean = (w.softmax(-1) * torch.sigmoid(scale(raw) * x[:, None] + b + torch.linspace(-2, 2, 6))).sum(-1)
    torch.testing.assert_close(DeepSigmoid(6).inverse(x, params)[0], mean.logit(), rtol=1e-6, atol=1e-6)


def test_two_layers_are_the_papers():
    x, params = drawn(DenseDeepSigmoid(3))
    raw, b, w, u2, raw2, b2, w2 = params.split([3, 3, 9, 9, 3, 3, 3], -1)
    offset = torch.linspace(-2, 2, 3, dtype=D)
    first = torch.sigmoid(scale(raw) * x[:, None] + b + offset)
    h = (w.unflatten(-1, (3, 3)).softmax(-1) @ first[..., None]).logit()
    second = torch.sigmoid(scale(raw2) * (u2.unflatten(-1, (3, 3)).softmax(-1) @ h).squeeze(-1) + b2 + offset)
    expected = (w2.softmax(-1) * second).sum(-1).logit()
    torch.testing.assert_close(DenseDeepSigmoid(3).inverse(x, params)[0], expected, rtol=1e-6, atol=1e-6)


def test_over_a_logistic_base_it_is_a_mixture_of_logistics():
    x, params = drawn(DeepSigmoid(6))
    z, log_slope = DeepSigmoid(6).inverse(x, params)
    raw, b, w = params.split(6, -1)
    u = scale(raw) * x[:, None] + b + torch.linspace(-2, 2, 6, dtype=D)
    density = (w.softmax(-1) * scale(raw) * torch.sigmoid(u) * torch.sigmoid(-u)).sum(-1)
    base = fl.StandardLogistic(1).double().log_prob(z[:, None])
    torch.testing.assert_close(base + log_slope, density.log(), rtol=1e-9, atol=1e-9)


@MAPS
def test_both_ways(sigmoids):
    x, params = drawn(sigmoids)
    z, log_slope = sigmoids.inverse(x, params)
    again, back = sigmoids.forward(z, params)
    torch.testing.assert_close(again, x, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(back, -log_slope, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("sigmoids", [DeepSigmoid(3), DenseDeepSigmoid(2)], ids=repr)
def test_two_derivatives(sigmoids):
    few = [t.requires_grad_() for t in drawn(sigmoids, 1)]
    for method in (sigmoids.forward, sigmoids.inverse):
        assert gradcheck(method, few, fast_mode=True) and gradgradcheck(method, few, fast_mode=True)


@MAPS
def test_it_is_onto_the_reals_and_its_slope_is_right_far_out(sigmoids):
    """Clipped probabilities, as elsewhere, would stop z at about ±14.5, and the density short of one."""
    _, params = drawn(sigmoids, 8)
    far = torch.tensor([1e3, 1e6, 1e20, 1e25])
    x = torch.stack([far, -far], -1).flatten()
    (z, log_slope), (exact, right) = sigmoids.inverse(x, params.float()), sigmoids.inverse(x.double(), params)
    torch.testing.assert_close(z.double(), exact, rtol=1e-5, atol=0)
    torch.testing.assert_close(log_slope.double(), right, rtol=0, atol=1e-4)
    assert bool((z * x.sign() > 15).all())
    torch.testing.assert_close(sigmoids.forward(z, params.float())[0], x, rtol=1e-4, atol=0)


@pytest.mark.parametrize("dense", [False, True])
def test_a_density_on_the_line_integrates_to_one(dense):
    torch.manual_seed(0)
    flow = NAF(1, units=4, hidden=(8,), dense=dense).double()
    with torch.no_grad():
        for p in flow.parameters():
            p.normal_(std=0.5)
    assert abs(fl.checks.total_probability(flow, -200.0, 200.0, 40_001) - 1) < 1e-3


def test_turned_round_a_sample_takes_one_pass():
    """A posterior: its draws have their density, and a gradient."""
    torch.manual_seed(0)
    posterior = fl.Flow(fl.StandardNormal(3), fl.Inverse(NAF(3, layers=1, hidden=(8,), context_dim=2).bijection))
    torch.nn.init.normal_(posterior.bijection.bijection[0].net.last.weight)
    posterior.double()
    context = torch.randn(5, 2, dtype=D)
    with fl.checks.passes(posterior) as count:
        x, log_q = posterior.rsample_and_log_prob(7, context)
    assert count.calls == 1 and x.shape == (7, 5, 3)
    torch.testing.assert_close(posterior.log_prob(x.detach(), context), log_q, rtol=1e-8, atol=1e-8)
    log_q.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in posterior.parameters())


def test_bad_sizes_are_refused():
    for wrong in (dict(units=0), dict(layers=0)):
        with pytest.raises(ValueError, match="at least one unit and one layer"):
            DenseDeepSigmoid(**wrong)
    assert NAF(2, dense=True, units=3).bijection[0].elementwise.n_params == DenseDeepSigmoid(3).n_params
