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
    for dim, lags in ((0, 1), (1, 0)):
        with pytest.raises(ValueError, match="dim >= 1 and lags >= 1"):
            fl.TemporalAffine(dim, lags=lags)


def test_the_density_of_two_steps_integrates_to_one():
    torch.manual_seed(0)
    time = fl.TemporalAffine(1, lags=2, hidden=(8,)).double()
    for p in time.parameters():
        torch.nn.init.normal_(p, std=0.7)
    flow = fl.Flow(fl.StandardNormal(2).double(), fl.Compose(
        fl.Reshape((2,), (2, 1)), time, fl.Reshape((2, 1), (2,))))
    x = flow.sample(10_000)
    assert abs(fl.checks.total_probability(flow, x.amin(0) - 2, x.amax(0) + 2, 801) - 1) < 1e-3


def test_the_bound_of_a_sequential_model_against_its_formula():
    """Prior N(0, 1), x = z + noise of variance 0.5, q = N(0.3, 0.64) whatever x. Then a flow that only scales: the
    bound changes by its log-det."""
    model = ar1_with_noise(phi=0.0)
    torch.manual_seed(0)
    vae = SequentialVAE(1, latent=1, hidden=4).double()
    raw = lambda deviation: 5 * math.atanh(math.log(deviation) / 5)  # noqa: E731
    with torch.no_grad():
        for net, mean, deviation in ((vae.prior, 0.0, 1.0), (vae.posterior, 0.3, 0.8), (vae.emission, 0.0, 0.5**0.5)):
            for p in net.parameters():
                p.zero_()
            net.layers[-1].bias.copy_(torch.tensor([mean, raw(deviation)]))
        vae.emission.layers[0].weight[:2, 0] = vae.emission.layers[-1].weight[0, :2] = torch.tensor([1.0, -1.0])
        x = model.sample(200, 10)
        bounds = torch.stack([vae.elbo(x) for _ in range(50)]).mean(0)
    kl = 0.5 * (0.3**2 + 0.64 - 1) - math.log(0.8)
    expected = (-0.5 * math.log(math.pi) - (x - 0.3).square() - 0.64 - kl).sum((1, 2))
    gap = bounds - expected
    assert gap.mean().abs() < 5 * gap.std() / 200**0.5 and bool((expected < model.log_prob(x)).all())
    vae.flow = fl.AffineMap(2.0, 0.0, ndim=2)
    torch.manual_seed(1)
    scaled = vae.elbo(2 * x)
    vae.flow = None
    torch.manual_seed(1)
    torch.testing.assert_close(scaled, vae.elbo(x) - 10 * math.log(2))


def test_what_does_not_fit_is_refused():
    one = torch.eye(1)
    with pytest.raises(ValueError, match=r"expected a matrix of shape \(1, 1\), got \(2, 2\)"):
        LinearStateSpace(0.5 * one, torch.eye(2), one, one)
    for call in (LinearStateSpace(0.5 * one, one, one, one).log_prob, SequentialVAE(1).elbo):
        for x in (torch.zeros(3, 4, 2), torch.zeros(3, 0, 1)):
            with pytest.raises(ValueError, match=r"expected sequences of at least one frame"):
                call(x)


def test_every_part_of_a_sequential_model_learns():
    torch.manual_seed(0)
    vae = SequentialVAE(2, flow=fl.TemporalAffine(2, lags=2))
    vae(torch.randn(3, 6, 2)).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in vae.parameters())
    assert all(any(p.grad.any() for p in part.parameters()) for part in vae.children())
