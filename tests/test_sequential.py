"""Autoregressive flows across time, held to the Kalman filter, which is one of them."""
import math

import pytest
import torch

import flowlib as fl
from flowlib.autoregressive.state_space import LinearStateSpace, SequentialVAE
from flowlib.train import fit

D = torch.float64


def ar1_with_noise(phi=0.9, noise=1.0, observation=0.5):
    one = torch.eye(1, dtype=D)
    return LinearStateSpace(phi * one, noise * one, one, observation * one)


def many():
    """Three states, frames of two numbers."""
    torch.manual_seed(0)
    square = lambda k: (lambda m: m @ m.T + 0.1 * torch.eye(k, dtype=D))(torch.randn(k, k, dtype=D))  # noqa: E731
    transition = torch.randn(3, 3, dtype=D)
    return LinearStateSpace(0.9 * transition / torch.linalg.eigvals(transition).abs().max(), square(3),
                            torch.randn(2, 3, dtype=D), square(2))


@pytest.mark.parametrize("model", [ar1_with_noise(), many()], ids=["one number", "many"])
def test_the_filter_has_the_likelihood_of_the_whole_gaussian(model):
    x = model.sample(4, 15)
    whole = torch.distributions.MultivariateNormal(torch.zeros(x[0].numel(), dtype=D), model.covariance(15))
    torch.testing.assert_close(model.log_prob(x), whole.log_prob(x.flatten(1)), rtol=0, atol=1e-9)


def test_the_filters_log_det_is_its_jacobians():
    model = many()
    x = model.sample(1, 5)
    jacobian = fl.checks.jacobian(lambda v: model.whiten(v)[0], x, 2)
    torch.testing.assert_close(model.whiten(x)[1], torch.linalg.slogdet(jacobian)[1])
    ahead = torch.ones(10, 10, dtype=torch.bool).triu(1) & (torch.arange(10)[:, None] // 2 != torch.arange(10) // 2)
    assert not jacobian[0][ahead].any()  # no frame is foreseen from what comes after it


def test_draws_have_the_covariance_that_the_model_says():
    model = many()
    x = model.sample(40_000, 4).flatten(1)
    found, right = x.T @ x / len(x), model.covariance(4)
    scale = right.diagonal().sqrt()
    assert ((found - right) / (scale[:, None] * scale)).abs().max() < 0.03  # six standard errors


def test_without_a_stationary_law_a_start_is_asked_for():
    one = torch.eye(1)
    with pytest.raises(ValueError, match="give a start"):
        LinearStateSpace(one, one, one, one)
    assert LinearStateSpace(one, one, one, one, start=one).log_prob(torch.zeros(3, 1)).isfinite()


def test_an_autoregressive_flow_comes_as_near_to_the_filter_as_one_likes():
    """The best prediction from L frames leaves a variance that falls to the filter's."""
    model = ar1_with_noise()
    at_rest = torch.stack([model.whiten(torch.zeros(n, 1, dtype=D))[1] for n in (100, 101)]).diff().mul(-2).exp()
    gaps = []
    for lags in (1, 3, 10):
        covariance = model.covariance(lags + 1)
        weights = torch.linalg.solve(covariance[:-1, :-1], covariance[:-1, -1])
        left = covariance[-1, -1] - weights @ covariance[:-1, -1]
        gaps.append(0.5 * (left / at_rest).log().item())
    assert gaps[0] > gaps[1] > gaps[2] > -1e-12 and gaps[0] > 0.01 and gaps[2] < 1e-6
    flow = fl.TemporalAffine(1, lags=10, hidden=()).double()
    with torch.no_grad():
        net = flow.net.layers[0]
        net.weight[1, ::2] = weights
        net.bias[0] = 2 * torch.atanh(0.5 * left.log() / 2)
        x = model.sample(20, 100)
        z, e = flow.inverse(x)[0], model.whiten(x)[0]
    torch.testing.assert_close(z[:, 20:], e[:, 20:], rtol=0, atol=1e-3)  # later than what either knows of the start


def test_the_flow_learns_to_whiten():
    """Within 0.05 nats a step of the exact likelihood, and what it leaves has no memory."""
    model = ar1_with_noise()
    torch.manual_seed(1)
    train, test = model.sample(300, 50), model.sample(300, 50)
    flow = fl.Flow(fl.StandardNormal(50, 1), fl.TemporalAffine(1, lags=5, hidden=())).double()
    before = flow.log_prob(test).mean().item()
    fit(flow, train, steps=150, batch_size=100, lr=0.1, ema=0.9, cpu=True)
    with torch.no_grad():
        gap = (model.log_prob(test) - flow.log_prob(test)).mean().item() / 50
        z = flow.encode(test)[..., 0]
    assert -0.01 < gap < 0.05 < (model.log_prob(test).mean().item() - before) / 50
    x = test[..., 0]
    for sequence, white in ((x, False), (z, True)):
        rho = (sequence[:, 1:] * sequence[:, :-1]).mean() / sequence.square().mean()
        assert (rho.abs() < 4 / math.sqrt(sequence.numel())) == white


def test_sequences_of_any_length():
    torch.manual_seed(0)
    flow = fl.TemporalAffine(2, lags=3, hidden=(8,)).double()
    for p in flow.parameters():
        torch.nn.init.normal_(p, std=0.5)
    for length in (0, 1, 2, 7):
        z = torch.randn(4, length, 2, dtype=D)
        x, log_det = flow(z)
        again, inverse_log_det = flow.inverse(x)
        assert x.shape == z.shape and log_det.shape == (4,)
        torch.testing.assert_close(again, z), torch.testing.assert_close(log_det, -inverse_log_det)
    shorter = flow.inverse(x[:, :4])[0]
    torch.testing.assert_close(flow.inverse(x)[0][:, :4], shorter)  # what comes later changes nothing
    with pytest.raises(ValueError, match=r"\(..., T, 2\), got \(4, 7, 3\)"):
        flow.inverse(torch.zeros(4, 7, 3, dtype=D))
    for wrong in (dict(dim=0), dict(dim=1, lags=0)):
        with pytest.raises(ValueError, match="dim >= 1 and lags >= 1"):
            fl.TemporalAffine(**wrong)


def test_the_density_of_two_steps_integrates_to_one():
    torch.manual_seed(0)
    time = fl.TemporalAffine(1, lags=2, hidden=(8,)).double()
    for p in time.parameters():
        torch.nn.init.normal_(p, std=0.7)
    flow = fl.Flow(fl.StandardNormal(2).double(), fl.Compose(
        fl.Reshape((2,), (2, 1)), time, fl.Reshape((2, 1), (2,))))
    x = flow.sample(10_000)
    assert abs(fl.checks.total_probability(flow, x.amin(0) - 2, x.amax(0) + 2, 801) - 1) < 1e-3


def test_the_bound_of_a_sequential_model_lies_below_the_likelihood():
    """Emission and prior set to those of a linear model, whose likelihood is known; then a flow that only scales: the
    bound changes by its log-det alone."""
    model = ar1_with_noise(phi=0.0)
    torch.manual_seed(0)
    vae = SequentialVAE(1, latent=1, hidden=4).double()
    with torch.no_grad():
        for net, scale, weight in ((vae.prior, 1.0, 0.0), (vae.emission, model.observation.sqrt().item(), 1.0)):
            first, last = net.layers[0], net.layers[-1]
            first.weight.zero_(), first.bias.zero_(), last.weight.zero_(), last.bias.zero_()
            first.weight[:2, 0] = torch.tensor([1.0, -1.0])  # relu(z) - relu(-z) = z
            last.weight[0, :2] = weight * torch.tensor([1.0, -1.0])
            last.bias[1] = 5 * math.atanh(math.log(scale) / 5)
    x = model.sample(200, 10)
    bound = torch.stack([vae.elbo(x) for _ in range(20)]).mean(0)
    assert (bound.mean() < model.log_prob(x).mean()) and (vae(x).shape == (200,))
    vae.flow = fl.AffineMap(torch.tensor(2.0, dtype=D), torch.tensor(0.0, dtype=D), ndim=2)
    torch.manual_seed(1)
    scaled = vae.elbo(2 * x)
    vae.flow = None
    torch.manual_seed(1)
    torch.testing.assert_close(scaled, vae.elbo(x) - 10 * math.log(2))


def test_every_part_of_a_sequential_model_learns():
    torch.manual_seed(0)
    vae = SequentialVAE(2, flow=fl.TemporalAffine(2, lags=2))
    vae(torch.randn(3, 6, 2)).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in vae.parameters())
    assert all(any(p.grad.any() for p in part.parameters()) for part in vae.children())
