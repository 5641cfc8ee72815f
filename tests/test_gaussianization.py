"""Gaussianization: mixtures to the last digit, far tails, rotations from data, and what each step takes from the KL."""
import math

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

import flowlib as fl
from flowlib.finite.householder import reflect, reflections

D = torch.float64
NORMAL = torch.distributions.Normal(torch.zeros((), dtype=D), torch.ones((), dtype=D))


def correlated(rho, n=4000):
    """Rows of exactly this correlation, up to the sampling of one Gaussian after the other."""
    torch.manual_seed(0)
    z = torch.randn(n, 2, dtype=D)
    return torch.stack([z[:, 0], rho * z[:, 0] + math.sqrt(1 - rho**2) * z[:, 1]], -1)


def test_over_a_normal_base_it_is_a_mixture_of_gaussians():
    torch.manual_seed(0)
    f, params = fl.GaussianMixtureCDF(5), torch.randn(7, 15, dtype=D)
    x = torch.linspace(-9, 9, 91, dtype=D)[:, None].expand(-1, 7)
    z, log_slope = f.inverse(x, params.expand(91, 7, 15))
    log_weights, means, log_scales = f.mixture(params)
    kernels = torch.distributions.Normal(means, log_scales.exp()).log_prob(x[..., None]).exp()
    density = (log_weights.exp() * kernels).sum(-1)
    torch.testing.assert_close(NORMAL.log_prob(z) + log_slope, density.log(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [D, torch.float32])
def test_it_is_onto_the_reals_and_smooth_to_sixty(dtype):
    """Where F is clipped or a formula switched, z stops at 4.9 or jumps."""
    f, params = fl.GaussianMixtureCDF(1), torch.zeros(3, dtype=dtype)  # F = Phi, so z = x
    x = torch.linspace(-60, 60, 2001, dtype=dtype)
    z, log_slope = f.inverse(x, params.expand(2001, 3))
    eps = torch.finfo(dtype).eps
    assert ((z - x).abs() / x.abs().clamp(min=1)).max() < 40 * eps
    assert log_slope.abs().max() < 1000 * eps
    many = torch.randn(2001, 15, dtype=dtype, generator=torch.Generator().manual_seed(0))[:1].expand(2001, 15)
    z, _ = fl.GaussianMixtureCDF(5).inverse(x, many)
    assert bool((z.diff() > 0).all()) and z.diff().max() < 40 * z.diff().median()
    far = torch.tensor([1e3, -1e3, 1e8, -1e8], dtype=dtype)
    again, _ = fl.GaussianMixtureCDF(5).forward(fl.GaussianMixtureCDF(5).inverse(far, many[:4])[0], many[:4])
    torch.testing.assert_close(again, far, rtol=1e-5, atol=0)


def test_between_two_far_components_the_density_is_small_and_not_zero():
    f = fl.GaussianMixtureCDF(2)
    log_scale = f.mixture(torch.zeros(6, dtype=D))[2][0]
    params = torch.tensor([0.0, 0.0, -50.0, 50.0, 0.0, 0.0], dtype=D)
    z, log_slope = f.inverse(torch.zeros(1, dtype=D), params[None])
    means = f.mixture(params)[1]
    expected = NORMAL.log_prob(means[1] / log_scale.exp()) - log_scale
    torch.testing.assert_close((NORMAL.log_prob(z) + log_slope)[0], expected, rtol=1e-10, atol=0)


@pytest.mark.parametrize("way", ["forward", "inverse"])
def test_two_derivatives(way):
    torch.manual_seed(0)
    f = fl.GaussianMixtureCDF(3)
    few = [torch.randn(3, dtype=D).mul(3).requires_grad_(), torch.randn(3, 9, dtype=D).requires_grad_()]
    assert gradcheck(getattr(f, way), few, fast_mode=True) and gradgradcheck(getattr(f, way), few, fast_mode=True)


@pytest.mark.parametrize("components", [1, 2, 20])
def test_it_starts_near_the_identity(components):
    x = torch.linspace(-2, 2, 41, dtype=D)
    z, _ = fl.GaussianMixtureCDF(components).inverse(x, torch.zeros(41, 3 * components, dtype=D))
    assert (z - x).abs().max() < 0.05


def test_a_fitted_marginal_is_gaussian():
    torch.manual_seed(0)
    x = torch.cat([torch.randn(2000, 2), 0.2 * torch.randn(2000, 2) + 4]) * torch.tensor([1.0, -1.0])
    layer = fl.MarginalGaussianization(2, components=10)
    z = layer.initialize(x)
    for column in z.double().T:
        assert fl.checks.ks_distance(column, NORMAL.cdf) < 0.02
    again = layer.initialize(x + 1)  # once
    assert not torch.allclose(again.mean(0), torch.zeros(2), atol=0.05)


def test_reflections_turn_to_any_axes():
    torch.manual_seed(0)
    for dim in (1, 2, 5):
        axes = torch.linalg.qr(torch.randn(dim, dim, dtype=D))[0]
        x = torch.randn(10, dim, dtype=D)
        vectors = reflections(axes)
        assert vectors.shape == (max(dim - 1, 1), dim)
        torch.testing.assert_close(reflect(x, vectors, backwards=True).abs(), (x @ axes.T).abs())


def test_rotations_find_their_axes():
    x = correlated(0.8)
    layer = fl.DataRotation(2, "pca").double()
    z = layer.initialize(x)
    assert abs(torch.corrcoef(z.T)[0, 1]) < 1e-10 and z[:, 0].var() > z[:, 1].var()
    torch.testing.assert_close(layer(z)[0], x)
    sources = torch.rand(4000, 3, dtype=D) - 0.5
    turn = torch.linalg.qr(torch.randn(3, 3, dtype=D))[0]
    found = fl.DataRotation(3, "ica").double().initialize(sources @ turn.T)
    assert torch.corrcoef(torch.cat([found, sources], 1).T)[:3, 3:].abs().amax(1).min() > 0.99


@pytest.mark.parametrize("rho", [0.5, 0.8, 0.95])
def test_of_a_correlated_gaussian_one_step_leaves_its_information(rho):
    """After the marginals KL(data || N(0, I)) = -1/2 ln(1 - rho^2); a rotation and one more step take it all."""
    x = correlated(rho, 20_000)
    flow = fl.RBIG(2, layers=2, components=1).double().fit(x)
    information = -0.5 * math.log(1 - torch.corrcoef(x.T)[0, 1].item() ** 2)
    found = flow.total_correlation(x)
    assert found[0] == 0 and abs(found[1] - information) < 1e-9
    gaussian = torch.distributions.MultivariateNormal(x.mean(0), torch.cov(x.T, correction=0))
    assert (gaussian.log_prob(x) - flow.log_prob(x)).mean().abs() < 1e-4
    before = fl.Flow(fl.StandardNormal(2).double(), flow.bijection[2:])
    rotated = fl.Flow(fl.StandardNormal(2).double(), flow.bijection[1:])
    torch.testing.assert_close(before.log_prob(x), rotated.log_prob(x), rtol=1e-10, atol=1e-10)


def test_a_copula_knows_of_dependence_what_a_gaussian_has():
    x = correlated(0.8, 20_000)
    flow = fl.GaussianCopula(2, components=30).double().fit(x.exp())  # other marginals, the same copula
    assert abs(flow.correlation[0, 1] - 0.8) < 0.01
    torch.testing.assert_close(flow.correlation.diagonal(), torch.ones(2, dtype=D))
    signs = torch.randint(2, (20_000,)).to(D) * 2 - 1
    y = torch.stack([x[:, 0], signs * x[:, 0]], -1)  # Gaussian marginals, no correlation, and dependent
    assert abs(fl.GaussianCopula(2, components=2).double().fit(y).correlation[0, 1]) < 0.03


def test_fit_starts_anew_and_what_is_fitted_is_saved(tmp_path):
    torch.manual_seed(0)
    x = torch.randn(500, 2)
    for flow in (fl.RBIG(2, layers=2, components=3), fl.GaussianCopula(2, components=3)):
        assert flow.fit(x) is flow
        first = flow.log_prob(x)
        flow.initialize(5 * x)  # has been: nothing happens
        assert torch.equal(flow.log_prob(x), first)
        assert flow.fit(5 * x).log_prob(x).mean() < first.mean() - 1
        fl.save(flow, tmp_path)
        assert torch.equal(fl.load(tmp_path).log_prob(x), flow.log_prob(x))
        with pytest.raises(ValueError, match="at least two"):
            flow.fit(x[:1])
        with pytest.raises(ValueError, match="finite"):
            flow.fit(x / 0)
        flow.initialize(x)  # after what failed it is still as fitted
        assert torch.equal(fl.load(tmp_path).log_prob(x), flow.log_prob(x))


def test_one_component_is_as_wide_as_the_sample():
    """Were a tail thinner than a Gaussian's, each layer would throw an outlier further out than the one before."""
    torch.manual_seed(0)
    x = torch.cat([torch.randn(500, 2) - 3, 0.1 * torch.randn(500, 2) + 3]).double()
    f = fl.GaussianMixtureCDF(8)
    _, means, log_scales = f.mixture(f.fit(x))
    torch.testing.assert_close(means[:, 0], x.mean(0))
    torch.testing.assert_close(log_scales[:, 0].exp(), x.std(0, correction=0))
    assert bool((log_scales[:, 1:] < log_scales[:, :1]).all())


def test_trained_further_it_comes_near_the_density_and_integrates_to_one():
    torch.manual_seed(0)
    target = fl.targets.EightGaussians()
    flow = fl.GaussianizationFlow(2, layers=3, components=8)
    flow.initialize(target.sample(2000))
    x = target.sample(2000)
    before = (target.log_prob(x) - flow.log_prob(x)).mean()
    optimizer = torch.optim.Adam(flow.parameters(), lr=3e-2)
    for rows in target.sample(30 * 200).split(200):
        loss = -flow.log_prob(rows).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        assert (target.log_prob(x) - flow.log_prob(x)).mean() < 0.7 * before
        assert abs(fl.checks.total_probability(flow, -9.0, 9.0, 201) - 1) < 1e-3


def test_bad_sizes_are_refused():
    for wrong, words in ((lambda: fl.GaussianMixtureCDF(0), "at least one component"),
                         (lambda: fl.RBIG(2, layers=0), "at least one layer"),
                         (lambda: fl.DataRotation(2, "turn"), "kind must be one of"),
                         (lambda: fl.Correlation(0), "dim must be positive")):
        with pytest.raises(ValueError, match=words):
            wrong()
    assert fl.GaussianizationFlow(1, layers=2)(torch.zeros(3, 1)).shape == (3,)
