"""Inference: posteriors against formulas, calibration against laws of chance, problems against quadrature."""
import math

import pytest
import torch
from torch.distributions import constraints

import flowlib as fl
from flowlib import importance, inference, vae
from flowlib.train import fit

D = torch.float64


class Exact:
    """A posterior by formula, in the form that the checks take; widened or narrowed by a factor."""

    def __init__(self, model, factor=1.0):
        self.model, self.factor = model, factor

    def law(self, x):
        p = self.model.posterior(x)
        return torch.distributions.MultivariateNormal(p.mean, p.covariance_matrix * self.factor**2)

    def sample(self, n, x):
        return self.law(x).sample((n,))

    def log_prob(self, z, x):
        return self.law(x).log_prob(z)


class Prior:
    """The prior, whatever was observed."""

    def __init__(self, model):
        self.model = model

    def sample(self, n, x):
        return self.model.prior.sample((n, len(x)))


@pytest.fixture
def gaussian():
    torch.manual_seed(0)
    model = vae.LinearGaussian(torch.tensor([[1.0, 0.5], [-0.3, 0.8], [0.2, 0.2]]), 0.5)
    z = model.prior.sample((2000,))
    return model, z, model.simulate(z)


# --- the posterior ----------------------------------------------------------------------------------------------------


def test_the_box_is_a_shifted_logistic_map():
    low, sides = torch.tensor([-1.0, 2.0], dtype=D), torch.tensor([4.0, 0.5], dtype=D)
    box, z = inference.Box(low, low + sides), torch.randn(50, 2, dtype=D)
    x, log_det = box(z)
    p = z.sigmoid()
    assert torch.allclose(x, low + sides * p)
    assert torch.allclose(log_det, (sides * p * (1 - p)).log().sum(-1))


def test_the_box_has_no_mass_outside_and_finite_ends():
    flow = fl.Flow(fl.StandardNormal(2), inference.Box(0.0, torch.tensor([1.0, 0.3])))
    x = torch.tensor([[0.5, 0.2], [1.01, 0.2], [0.5, -1e-3], [1.0, 0.3], [0.0, 0.0]])
    log_p = flow.log_prob(x)
    assert log_p.isfinite().tolist() == [True, False, False, True, True] and not log_p.isnan().any()
    far, _ = flow.bijection(torch.tensor([[1e4, -1e4], [-200.0, 200.0]]))
    assert flow.support.check(far).all() and flow.support.check(flow.sample(1000)).all()
    assert fl.checks.total_probability(flow.double(), [0.0, 0.0], [1.0, 0.3], 401) == pytest.approx(1, abs=1e-3)


def test_the_support_of_a_chain_follows_its_parts_to_another_dtype():
    """As to another device: what was kept from the start would be compared with numbers that are elsewhere."""
    flow = fl.Flow(fl.StandardNormal(2), fl.Compose(fl.AffineMap(2.0), inference.Box(torch.zeros(2), 1.0))).double()
    assert flow.support.base_constraint.lower_bound.dtype == D
    turned = fl.Inverse(flow.bijection).to("meta")
    assert turned.domain.base_constraint.lower_bound.is_meta


@pytest.mark.parametrize("low, high", [(1.0, 1.0), (torch.zeros(2), torch.tensor([1.0, -1.0])), (-math.inf, 0.0)])
def test_a_box_without_a_volume_is_refused(low, high):
    with pytest.raises(ValueError, match="low < high"):
        inference.Box(low, high)


def test_the_context_is_standardised_and_embedded():
    torch.manual_seed(0)
    inner = fl.RealNVP(2, layers=2, context_dim=3).bijection.double()
    with torch.no_grad():
        for p in inner.parameters():
            p.normal_()
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(8, 3)).double()
    mean, std = torch.randn(2, 4, dtype=D), torch.rand(2, 4, dtype=D) + 0.5
    layer = inference.StandardizedContext(inner, mean, std, net)
    z, c = torch.randn(5, 6, 2, dtype=D), torch.randn(6, 2, 4, dtype=D)
    x, log_det = layer(z, c)
    wanted, its_log_det = inner(z, net((c - mean) / std))
    assert torch.allclose(x, wanted) and torch.allclose(log_det, its_log_det) and layer.context_shape == (2, 4)
    back, inverse_log_det = layer.inverse(x, c)
    assert torch.allclose(back, z) and torch.allclose(inverse_log_det, -log_det)


@pytest.mark.parametrize("width, std, said", [
    (None, torch.ones(3), "context of shape"), (2, torch.ones(3), "has 3 numbers"), (3, torch.zeros(3), "positive"),
    (3, torch.ones(1), "one shape")])
def test_contexts_that_do_not_fit_are_refused(width, std, said):
    with pytest.raises(ValueError, match=said):
        inference.StandardizedContext(fl.Planar(2, context_dim=width), torch.zeros(3), std)


@pytest.mark.parametrize("support, box", [
    (None, False), (torch.distributions.Uniform(-torch.ones(2), 1.0).support, True), (constraints.unit_interval, True),
    (constraints.independent(constraints.interval(-2.0, torch.tensor([1.0, 2.0])), 1), True),
    (constraints.greater_than(-1.0), False)])
def test_the_posterior_starts_standardised_on_its_support(support, box):
    """Whatever the units: at the start the flow is a Gaussian with the moments of the parameters, as real numbers."""
    torch.manual_seed(0)
    theta = 0.2 + 0.6 * torch.rand(500, 2)
    x = 1e4 + 1e3 * (theta + 0.1 * torch.randn(500, 2))
    flow = inference.posterior(theta, x, support=support)
    assert isinstance(flow.bijection[-1], inference.Box) == box and flow.context_shape == (2,)
    z = flow.encode(theta, x)
    assert torch.allclose(z.mean(0), torch.zeros(2), atol=1e-4) and torch.allclose(z.std(0), torch.ones(2), atol=1e-3)
    drawn = flow.sample(200, x[:3])
    assert drawn.shape == (200, 3, 2) and (support is None or support.check(drawn).all())
    z = flow.bijection[0].embed(x)
    assert torch.allclose(z.mean(0), torch.zeros(2), atol=1e-4) and torch.allclose(z.std(0), torch.ones(2), atol=1e-3)


def test_constant_columns_and_one_parameter():
    x = torch.ones(20, 3)
    assert inference.posterior(torch.randn(20, 1), x).log_prob(torch.zeros(1), x[0]).isfinite()


@pytest.mark.parametrize("theta, x, support, said", [
    (torch.zeros(5), torch.zeros(5, 2), None, "parameters"), (torch.zeros(5, 2), torch.zeros(4, 2), None, "parameters"),
    (torch.zeros(5, 2), torch.full((5, 2), math.nan), None, "NaN"),
    (torch.full((5, 2), 3.0), torch.zeros(5, 2), constraints.unit_interval, "outside of the support")])
def test_pairs_that_make_no_sense_are_refused(theta, x, support, said):
    with pytest.raises(ValueError, match=said):
        inference.posterior(theta, x, support=support)


def test_a_posterior_is_saved_with_its_moments(tmp_path):
    torch.manual_seed(0)
    theta, x = torch.rand(50, 2), 100 * torch.randn(50, 3)
    flow = inference.posterior(theta, x, model=fl.MAF, layers=2, hidden=(8,), support=constraints.unit_interval)
    fl.save(flow, tmp_path / "flow")
    assert torch.equal(fl.load(tmp_path / "flow").log_prob(theta, x), flow.log_prob(theta, x))


def test_a_posterior_in_float64_and_on_the_meta_device():
    theta, x = torch.rand(50, 2, dtype=D), torch.randn(50, 3, dtype=D)
    flow = inference.posterior(theta, x, support=constraints.unit_interval, layers=2)
    assert flow.log_prob(theta, x).dtype == D
    with torch.device("meta"):
        elsewhere = inference.posterior(torch.rand(50, 2), torch.randn(50, 3), support=constraints.unit_interval)
        assert elsewhere.log_prob(torch.rand(4, 2), torch.randn(4, 3)).is_meta


def test_training_finds_the_exact_posterior(gaussian):
    """An affine flow holds the linear Gaussian posterior: the mean KL over observations falls to the noise of 2,000
    pairs, for an embedding network too."""
    model, z, x = gaussian
    for embedding in (None, torch.nn.Linear(3, 4)):
        torch.manual_seed(1)
        flow = inference.posterior(z, x, model=fl.MAF, layers=1, hidden=(16,), embedding=embedding)
        fit(flow, (z, x), steps=150, batch_size=200, lr=2e-2, seed=0, cpu=True, progress=False, ema=0.9)
        new = model.simulate(model.prior.sample((200,)))
        exact = Exact(model).law(new)
        drawn = exact.sample((50,))
        with torch.no_grad():
            gap = (exact.log_prob(drawn) - flow.log_prob(drawn, new)).mean()
        assert -0.005 < gap < 0.03


# --- calibration ------------------------------------------------------------------------------------------------------


def test_exact_posteriors_are_calibrated(gaussian):
    model, z, x = gaussian
    exact, band = Exact(model), inference.uniform_band(len(z), tests=3)
    found = torch.cat([inference.ranks(exact, z, x, 50), inference.ranks(exact, z, x, 50, exact.log_prob)], -1)
    assert found.shape == (2000, 3) and found.min() == 0 and found.max() == 50
    assert (inference.ecdf_deviation(found, 50) < band).all()
    levels = torch.arange(1, 51) / 51
    held = inference.coverage(found[:, 2:], 50, levels)
    assert (held - levels).abs().max() < band


@pytest.mark.parametrize("factor, sign", [(0.7, -1), (1.5, 1)], ids=["too narrow", "too wide"])
def test_wrong_widths_are_found_and_coverage_says_which_way(gaussian, factor, sign):
    model, z, x = gaussian
    wrong, band = Exact(model, factor), inference.uniform_band(len(z), tests=3)
    assert (inference.ecdf_deviation(inference.ranks(wrong, z, x, 50), 50) > band).all()
    level = torch.tensor([25 / 51])
    held = inference.coverage(inference.ranks(wrong, z, x, 50, wrong.log_prob), 50, level)
    assert sign * (held - level) > band


def test_the_prior_passes_all_but_a_statistic_that_reads_the_observation(gaussian):
    model, z, x = gaussian
    band = inference.uniform_band(len(z), tests=2)
    assert (inference.ecdf_deviation(inference.ranks(Prior(model), z, x, 50), 50) < band).all()
    error = lambda theta, x: (x - theta @ model.weights.T).square().sum(-1)  # noqa: E731
    assert inference.ecdf_deviation(inference.ranks(Prior(model), z, x, 50, error), 50).item() > 5 * band


def test_ties_count_at_random(gaussian):
    model, z, x = gaussian
    tied = inference.ranks(Exact(model), z, x, 9, lambda theta, x: torch.zeros(theta.shape[:-1]))
    assert tied.shape == (2000, 1) and inference.ecdf_deviation(tied, 9) < inference.uniform_band(2000)


def test_the_band_is_kolmogorovs_law():
    """One uniform number u: its distribution function is max(u, 1 - u) away, below d with probability 2d - 1."""
    assert inference.uniform_band(1, 0.9) == pytest.approx(0.95)
    assert inference.uniform_band(100_000) * math.sqrt(100_000) == pytest.approx(1.6276, abs=2e-3)
    assert inference.uniform_band(50, 0.99, tests=4) == pytest.approx(inference.uniform_band(50, 0.9975))
    torch.manual_seed(0)
    u = torch.rand(4000, 20).sort().values
    steps = torch.arange(21) / 20
    far = torch.maximum(steps[1:] - u, u - steps[:-1]).amax(-1)
    assert (far < inference.uniform_band(20, 0.9)).double().mean().item() == pytest.approx(0.9, abs=0.02)


@pytest.mark.parametrize("call", [
    lambda: inference.ranks(Exact(None), torch.zeros(5), torch.zeros(5, 2)),
    lambda: inference.ecdf_deviation(torch.tensor([[3]]), 2), lambda: inference.ecdf_deviation(torch.zeros(3), 2),
    lambda: inference.uniform_band(0), lambda: inference.uniform_band(5, 1.0),
    lambda: inference.coverage(torch.zeros(5, 2), 3, torch.ones(1)),
    lambda: inference.c2st(torch.zeros(5, 2), torch.zeros(4, 2)),
    lambda: inference.TwoMoons().sample_posterior(5, torch.zeros(3)),
    lambda: inference.TwoMoons().sample_posterior(5, torch.tensor([5.0, 5.0])),
    lambda: inference.TwoMoons().sample_posterior(-1, torch.zeros(2))])
def test_what_makes_no_sense_is_refused(call):
    Exact.sample, kept = lambda self, n, x: torch.zeros(n, 5), Exact.sample
    try:
        with pytest.raises(ValueError):
            call()
    finally:
        Exact.sample = kept


def test_a_classifier_tells_samples_apart_as_well_as_the_best_rule():
    """Two Gaussians at distance 2: the best accuracy is Phi(1) = 0.841. The same law: a half."""
    torch.manual_seed(0)
    a, b, shifted = torch.randn(3, 300, 1).unbind()
    assert inference.c2st(10 * a, 10 * b, folds=2) == pytest.approx(0.5, abs=0.08)
    assert inference.c2st(10 * a, 10 * shifted + 20, folds=2) == pytest.approx(0.841, abs=0.05)


# --- problems ---------------------------------------------------------------------------------------------------------


def plane(low, high, n):
    axis = torch.linspace(low, high, n, dtype=D)
    return torch.cartesian_prod(axis, axis), (axis[1] - axis[0]) ** 2


def test_the_likelihood_of_two_moons_is_a_density_and_that_of_its_simulator():
    problem, theta = inference.TwoMoons(), torch.tensor([0.3, -0.5], dtype=D)
    x, cell = plane(-0.8, 0.4, 1201)
    p = problem.log_likelihood(theta, x).exp()
    assert (p.sum() * cell).item() == pytest.approx(1, abs=3e-3)  # the ends of the crescent are jumps
    mean = (p[:, None] * x).sum(0) * cell
    drawn = problem.simulate(theta.expand(40_000, 2), torch.Generator().manual_seed(0))
    assert torch.allclose(drawn.mean(0), mean, atol=3e-3)
    # E x = place + (1/4 + 0.1 * 2 / pi, 0)
    assert torch.allclose(mean, torch.tensor([0.25 + 0.2 / math.pi - 0.2 / 2**0.5, -0.8 / 2**0.5], dtype=D), atol=1e-3)


@pytest.mark.parametrize("x", [(0.34, 0.0), (0.0, 0.0), (-0.9, 0.1), (-0.8, 0.4)])
def test_draws_of_two_moons_are_those_of_its_likelihood_on_the_box(x):
    """Also where the box cuts a crescent, or the sum's sign: moments against quadrature, and all draws inside."""
    problem, x = inference.TwoMoons(), torch.tensor(x, dtype=D)
    theta, _ = plane(-1.0, 1.0, 1001)
    p = problem.log_likelihood(theta, x).softmax(0)
    drawn = problem.sample_posterior(40_000, x, torch.Generator().manual_seed(0))
    assert drawn.shape == (40_000, 2) and problem.prior.support.check(drawn).all()
    assert problem.log_likelihood(drawn, x).min() > -20  # five deviations of the radius
    for f in (lambda t: t, lambda t: t.square(), lambda t: t.prod(-1, keepdim=True)):
        assert torch.allclose(f(drawn).mean(0), (p[:, None] * f(theta)).sum(0), atol=1.5e-2)


def test_the_likelihood_of_slcp_is_that_of_four_gaussian_points():
    problem = inference.SLCP()
    torch.manual_seed(0)
    theta = problem.prior.sample((20,)).double()
    x = problem.simulate(theta)
    s, rho = theta[:, 2:4].square(), theta[:, 4].tanh()
    covariance = torch.diag_embed(s.square())
    covariance[:, 0, 1] = covariance[:, 1, 0] = rho * s.prod(-1)
    law = torch.distributions.MultivariateNormal(theta[:, :2], covariance)
    wanted = law.log_prob(x.unflatten(-1, (4, 2)).transpose(0, 1)).sum(0)
    assert torch.allclose(problem.log_likelihood(theta, x), wanted)
    many = problem.simulate(theta[:1].expand(50_000, 5)).unflatten(-1, (4, 2)).flatten(0, 1)
    assert torch.allclose(many.T.cov(), covariance[0], rtol=0.02, atol=0.02 * covariance[0].max())


@pytest.mark.parametrize("centred", [True, False])
def test_the_eight_schools_energy_is_the_model(centred):
    schools, z = inference.EightSchools(centred), torch.randn(20, 10, dtype=D)
    td = torch.distributions
    mu, tau, effects = z[:, 0], z[:, 1].exp(), z[:, 2:]
    theta = effects if centred else mu[:, None] + tau[:, None] * effects
    wanted = (td.Normal(0.0, 5.0).log_prob(mu) + td.HalfCauchy(5.0).log_prob(tau) + z[:, 1]
              + td.Normal(theta, schools.s.double()).log_prob(schools.y.double()).sum(-1))
    law = td.Normal(mu[:, None], tau[:, None]) if centred else td.Normal(0.0, 1.0)
    assert torch.allclose(-schools.energy(z), wanted + law.log_prob(effects).sum(-1), atol=1e-4)


def test_both_forms_of_the_eight_schools_are_one_model():
    """One evidence, and draws whose energies differ by the volume 8 ln tau; a Gaussian importance sampler of the form
    without a funnel finds the evidence."""
    centred, free = inference.EightSchools(), inference.EightSchools(centred=False)
    z = free.sample(20_000, torch.Generator().manual_seed(0)).double()
    back = torch.cat([z[:, :2], z[:, :1] + z[:, 1:2].exp() * z[:, 2:]], -1)
    assert torch.allclose(centred.energy(back), free.energy(z) + 8 * z[:, 1], atol=1e-4)
    direct = centred.sample(20_000, torch.Generator().manual_seed(1)).double()
    assert torch.allclose(direct.mean(0), back.mean(0), atol=0.25)
    assert centred.log_z == free.log_z
    law = torch.distributions.MultivariateNormal(z.mean(0), 1.5 * z.T.cov())
    torch.manual_seed(0)
    drawn = law.sample((20_000,))
    log_w = -free.energy(drawn) - law.log_prob(drawn)
    assert log_w.logsumexp(0).item() - math.log(20_000) == pytest.approx(free.log_z, abs=0.05)
    assert importance.pareto_k(log_w) < 0.7
    assert free.log_prob(z).mean() == pytest.approx(-free.energy(z).mean().item() - free.log_z)
    assert centred.energy(torch.tensor([0.0, 60.0, *[0.0] * 8])).isfinite()
