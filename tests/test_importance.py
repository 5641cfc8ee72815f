"""Importance weights: effective sample size in closed form, the tail index of laws that have one."""
import math

import pytest
import torch

import flowlib as fl
from flowlib.evaluate.importance import effective_sample_size, log_prob, pareto_k

D = torch.float64


def test_effective_sample_size_of_a_shifted_gaussian():
    """p = N(m, 1), q = N(0, 1): E[w]^2 / E[w^2] = exp(-m^2)."""
    torch.manual_seed(0)
    z, m = torch.randn(400_000, dtype=D), 0.7
    share = effective_sample_size(m * z - 0.5 * m * m) / len(z)
    assert share.item() == pytest.approx(math.exp(-m * m), rel=0.01)


def test_effective_sample_size_does_not_overflow_and_ignores_a_constant():
    log_w = 500 * torch.ones(10, 3)
    assert torch.allclose(effective_sample_size(log_w), torch.full((3,), 10.0))
    assert torch.allclose(effective_sample_size(log_w - 2000), torch.full((3,), 10.0))


@pytest.mark.parametrize("k", [-0.5, 0.0, 0.3, 0.7, 1.5])
def test_the_shape_of_generalised_pareto_weights(k):
    """w = (u^-k - 1) / k is generalised Pareto of shape k, and so is its tail; log-weights that overflow do not
    matter."""
    torch.manual_seed(1)
    u = torch.rand(200_000, dtype=D)
    log_w = -(u.log()) if k == 0 else torch.expm1(-k * u.log()) / k
    log_w = (log_w + 1).log() + 800
    assert pareto_k(log_w) == pytest.approx(k, abs=0.12)


def test_gaussian_weights_of_a_narrow_proposal_have_the_tail_of_theory():
    """p = N(0, 1), q = N(0, s^2): the weights have infinite variance for s^2 < 1/2, k = 1 - s^2."""
    torch.manual_seed(2)
    s = 0.5
    z = s * torch.randn(400_000, dtype=D)
    assert pareto_k(0.5 * z * z * (1 / s**2 - 1)) == pytest.approx(1 - s**2, abs=0.15)
    wide = 1.5 * torch.randn(400_000, dtype=D)
    assert pareto_k(0.5 * wide * wide * (1 / 1.5**2 - 1)) < 0


def test_the_prior_outweighs_five_draws_and_yields_to_many():
    """Evenly spaced weights have the tail of a uniform law, k = -1; the prior is worth ten draws at 1/2."""
    few, many = (pareto_k(torch.linspace(1, 2, n, dtype=D).log()) for n in (25, 100_000))
    assert many < 0 < few < 0.5


def test_weights_without_a_tail():
    assert pareto_k(torch.zeros(1000)) == -math.inf
    with pytest.raises(ValueError):
        pareto_k(torch.zeros(24))
    with pytest.raises(ValueError):
        pareto_k(torch.zeros(100, 2))


def four_levels():
    """A flow over one pixel of four levels whose noise is uniform: p(v) is a logistic density, so that P(x) is
    known."""
    flow = fl.Flow(fl.StandardLogistic(1), fl.AffineMap(0.1, 0.4))
    x = torch.arange(4, dtype=torch.uint8).reshape(4, 1, 1, 1)
    edges = torch.sigmoid((torch.arange(5, dtype=D) / 4 - 0.4) / 0.1)
    return fl.Pixels(flow, (1, 1, 1), levels=4).double(), x, edges.diff().log()


def test_importance_weighting_tightens_the_bound_towards_the_probability():
    flow, x, exact = four_levels()
    bounds = {}
    for n in (1, 2, 8, 64):
        draws = log_prob(flow, x.expand(100_000 // n, 4, 1, 1, 1), n)
        bounds[n] = draws.mean(0)
        assert (bounds[n] <= exact + 4 * draws.std(0) / len(draws) ** 0.5).all()
    for few, more in ((1, 2), (2, 8), (8, 64)):
        assert (bounds[few] < bounds[more]).all()
    assert (exact - bounds[1]).max() > 0.1 and (exact - bounds[64]).abs().max() < 0.02


def test_many_draws_reach_the_probability():
    flow, x, exact = four_levels()
    torch.testing.assert_close(log_prob(flow, x, 20_000), exact, rtol=0, atol=0.03)


def test_an_exact_likelihood_stays_as_it_is_and_an_estimate_is_refused():
    flow, z = fl.RealNVP(3), torch.randn(5, 3)
    torch.testing.assert_close(log_prob(flow, z, 7), flow.log_prob(z))
    flow.bijection.likelihood = "estimate"
    with pytest.raises(TypeError, match="estimate"):
        log_prob(flow, z, 7)
