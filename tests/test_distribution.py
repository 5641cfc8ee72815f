"""Flows as laws of torch.distributions, and its laws and transforms as bases and bijections: against torch's own."""
import copy

import pytest
import torch
from registry import randomise
from torch import distributions as td
from torch.distributions import transforms as tt

import flowlib as fl

D = torch.float64


def conditional(dim=2):
    flow = fl.RealNVP(dim, layers=2, hidden=(8,), context_dim=3).double()
    randomise(flow)
    return flow


def test_batch_and_event_shapes():
    flow, context = conditional(), torch.randn(4, 1, 3, dtype=D)
    p = flow.distribution(context)
    assert (p.batch_shape, p.event_shape) == ((4, 1), (2,)) and p.has_rsample
    x, log_p = p.rsample_and_log_prob((6, 5))
    assert x.shape == p.sample((6, 5)).shape == (6, 5, 4, 1, 2) and x.requires_grad
    assert torch.allclose(p.log_prob(x), log_p) and torch.allclose(log_p, flow.log_prob(x, context))
    one = torch.randn(2, dtype=D)  # broadcast against the batch
    assert torch.allclose(p.log_prob(one), flow.log_prob(one.expand(4, 1, 2), context))
    wide = p.expand((2, 4, 3))
    assert wide.sample().shape == (2, 4, 3, 2)
    assert torch.allclose(wide.log_prob(one), p.log_prob(one).expand(2, 4, 3))
    with pytest.raises(RuntimeError):
        p.expand((5, 1))


def test_a_batch_without_a_context_is_independent_draws():
    p = fl.RealNVP(2).distribution().expand((3,))
    x = p.sample((5,))
    assert x.shape == (5, 3, 2) and len(x.unique(dim=1)[0]) == 3 and p.log_prob(x).shape == (5, 3)
    assert torch.distributions.Independent(p, 1).log_prob(x).shape == (5,)
    with pytest.raises(RuntimeError):
        p.expand((2,))


@pytest.mark.parametrize("call, words", [
    (lambda: conditional().distribution(), "needs a context"),
    (lambda: conditional().distribution(torch.zeros(4, 2, dtype=D)), r"\(..., 3\), got \(4, 2\)"),
    (lambda: fl.RealNVP(2).distribution(torch.zeros(4, 3)), "no part of this flow"),
    (lambda: fl.RealNVP(2).distribution().log_prob(torch.zeros(3)), "event_shape"),
    (lambda: conditional().distribution(torch.zeros(4, 3, dtype=D)).log_prob(torch.zeros(5, 2, dtype=D)),
     "not broadcastable"),
    (lambda: fl.Flow(fl.StandardNormal(1), fl.Exp()).distribution().log_prob(torch.tensor([-1.0])), "support"),
    (lambda: fl.FromDistribution(td.Poisson(1.0)), "law of integers"),
    (lambda: fl.FromDistribution(td.Normal(torch.zeros(2, requires_grad=True), 1.0)), "requires a gradient"),
    (lambda: fl.FlowTransform(fl.RealNVP(2)), "expected a bijection, got RealNVP"),
    (lambda: fl.FromTransform(tt.AbsTransform()), "not bijective"),
    (lambda: fl.FromTransform(tt.AffineTransform(torch.zeros(3), 1.0))(torch.zeros(5, 1)), "do not fit"),
])
def test_what_does_not_fit_is_said(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_validation_can_be_turned_off():
    flow = fl.Flow(fl.StandardNormal(1), fl.Exp())
    assert flow.distribution(validate_args=False).log_prob(torch.tensor([-1.0])) == -torch.inf
    assert flow.distribution(validate_args=False).expand((2,)).log_prob(torch.tensor([-1.0])).isneginf().all()


def test_integers_and_mixtures_have_no_reparameterised_draws():
    images = fl.RealNVPImage((1, 4, 4), scales=1, hidden=4).distribution()
    assert images.sample((2,)).dtype == torch.uint8 and not images.has_rsample
    assert images.log_prob(images.sample((2,))).shape == (2,)
    mixture = fl.Flow(fl.GaussianMixture([[-1.0], [1.0]]), fl.AffineMap(2.0)).distribution()
    assert not mixture.has_rsample and mixture.sample((2,)).shape == (2, 1)
    for p in (images, mixture):
        with pytest.raises(TypeError):
            p.rsample()


LAWS = {  # a flow of one number, and the same law by torch
    "falling": (lambda: fl.Flow(fl.StandardNormal(1), fl.AffineMap(-2.0, 1.0)), td.Normal(1.0, 2.0)),
    "log-normal": (lambda: fl.Flow(fl.StandardNormal(1), fl.Exp()), td.LogNormal(0.0, 1.0)),
    "uniform": (lambda: fl.Flow(fl.Uniform(-1.0, 1.0), fl.AffineMap(2.0)), td.Uniform(-2.0, 2.0)),
    "logistic": (lambda: fl.Flow(fl.StandardLogistic(1), fl.Inverse(fl.Logit())), td.Uniform(0.0, 1.0)),
    "exponential": (lambda: fl.Flow(fl.FromDistribution(td.Exponential(2.0)), fl.AffineMap(-1.0)), None),
    "quantiles": (lambda: fl.Flow(fl.Uniform(0.0, 1.0), fl.InverseCDF(td.Laplace(torch.ones(1), torch.ones(1)))),
                  td.Laplace(1.0, 1.0)),
}


@pytest.mark.parametrize("name", LAWS)
def test_distribution_function_and_quantiles(name):
    make, law = LAWS[name]
    law = law or td.TransformedDistribution(td.Exponential(2.0), tt.AffineTransform(0.0, -1.0))
    p, u = make().double().distribution(validate_args=False), torch.linspace(0.01, 0.99, 9, dtype=D)
    state = torch.get_rng_state()
    x = p.icdf(u)
    assert x.shape == (9, 1) and torch.allclose(x[:, 0], law.icdf(u)) and torch.allclose(p.cdf(x), u)
    assert p.cdf(torch.tensor([[-1e9], [1e9], [-torch.inf], [torch.inf]], dtype=D)).tolist() == [0.0, 1.0, 0.0, 1.0]
    assert not p.icdf(torch.tensor([0.0, 1.0], dtype=D)).isnan().any()
    assert torch.get_rng_state().equal(state)


def test_the_distribution_function_is_that_of_the_samples_of_each_context():
    flow = fl.Flow(fl.ConditionalNormal(1, 3), fl.Coupling(1, fl.Affine(), hidden=(8,), context_dim=3)).double()
    randomise(flow, 2.0)
    p = flow.distribution(torch.randn(3, 3, dtype=D))
    x = p.sample((2000,))
    for k in range(3):
        assert fl.checks.ks_distance(x[:, k, 0], lambda v, k=k: p.cdf(v[:, None, None].expand(-1, 3, 1))[:, k]) < 0.0365
    assert torch.allclose(p.cdf(p.icdf(torch.tensor(0.3, dtype=D))), torch.tensor(0.3, dtype=D))
    with pytest.raises(NotImplementedError, match="one number"):
        fl.RealNVP(2).distribution().cdf(torch.zeros(2))
    mixture = fl.Flow(fl.GaussianMixture([[-1.0], [1.0]]), fl.AffineMap(2.0)).distribution()
    assert torch.allclose(mixture.cdf(torch.zeros(1)), torch.tensor(0.5))
    with pytest.raises(NotImplementedError, match="quantiles"):
        mixture.icdf(torch.tensor(0.5))


BASES = {
    "scalar": lambda: td.Normal(0.5, 2.0), "gamma": lambda: td.Gamma(torch.tensor([1.0, 2.0]), torch.ones(2)),
    "beta": lambda: td.Beta(torch.tensor([1.5, 2.0]), torch.tensor([0.5, 3.0])),
    "multivariate": lambda: td.MultivariateNormal(torch.ones(2), precision_matrix=torch.tensor([[2.0, 0.3], [0.3, 1]])),
    "mixture": lambda: td.MixtureSameFamily(td.Categorical(torch.ones(2)), td.Normal(torch.tensor([-2.0, 2.0]), 1.0)),
    "transformed": lambda: td.TransformedDistribution(td.Normal(torch.zeros(2), 1.0), [tt.ExpTransform()]),
    "t": lambda: td.StudentT(torch.tensor([3.0, 4.0])), "dirichlet": lambda: td.Dirichlet(torch.ones(3)),
    "flow": lambda: fl.RealNVP(2, layers=2, hidden=(4,)).distribution(),
}


@pytest.mark.parametrize("name", BASES)
def test_any_law_is_a_base(name):
    law = BASES[name]()
    base = fl.FromDistribution(law)
    assert base.event_shape == ((*law.batch_shape, *law.event_shape) or (1,))
    flow = fl.Flow(base, fl.AffineMap(1.0, ndim=len(base.event_shape)))
    z = flow.sample(4)
    expected = law.log_prob(z.reshape(4, *law.batch_shape, *law.event_shape)).reshape(4, -1).sum(-1)
    assert torch.allclose(flow.log_prob(z), expected, atol=1e-6)
    assert base.has_rsample == law.has_rsample
    if base.has_rsample:
        assert base.rsample((2, 3)).shape == (2, 3, *base.event_shape)
    draws = [base.sample(3, generator=torch.Generator().manual_seed(5)) for _ in range(2)]
    assert draws[0].equal(draws[1]) and not base.sample(3).equal(draws[0])
    double = copy.deepcopy(base).double()
    assert double.sample(2).dtype == D and base.sample(2).dtype == torch.float32
    assert torch.allclose(double.log_prob(z.double()).float(), expected, atol=1e-4)


def test_outside_of_its_support_a_law_has_density_zero_and_no_gradient_breaks():
    base = fl.FromDistribution(td.Gamma(torch.tensor([2.0, 3.0]), torch.ones(2)))
    z = torch.tensor([[1.0, 2.0], [-1.0, 2.0], [1.0, torch.nan]], requires_grad=True)
    log_p = base.log_prob(z)
    assert log_p[0].isfinite() and log_p[1] == -torch.inf and log_p[2].isnan()
    log_p[:2].sum().backward()
    assert z.grad is not None and z.grad[:2].isfinite().all()
    assert fl.Flow(base, fl.AffineMap(2.0)).log_prob(torch.tensor([[-1.0, 1.0]])) == -torch.inf


def test_a_module_in_a_law_or_a_transform_is_trained():
    inner = fl.RealNVP(2, layers=2, hidden=(4,))
    flow = fl.Flow(fl.FromDistribution(inner.distribution()), fl.FromTransform(fl.FlowTransform(fl.Planar(2))))
    assert len([*flow.parameters()]) == len([*inner.parameters()]) + len([*fl.Planar(2).parameters()])
    flow.log_prob(torch.randn(8, 2)).sum().backward()
    assert all(p.grad is not None for p in flow.parameters())


TRANSFORMS = {
    "exp": (lambda: tt.ExpTransform(), (3,)), "tanh": (lambda: tt.TanhTransform(), (3,)),
    "inverse": (lambda: tt.ExpTransform().inv.inv, (3,)),
    "affine": (lambda: tt.AffineTransform(torch.tensor([0.0, 1, 2]), torch.tensor([1.0, -2, 3])), (3,)),
    "chain": (lambda: td.biject_to(td.constraints.interval(-1.0, 3.0)), (3,)),
    "constraint": (lambda: td.constraints.interval(torch.tensor([-1.0, 0, 1]), 3.0), (3,)),
    "box": (lambda: td.Uniform(torch.zeros(3), 2 * torch.ones(3)).support, (3,)),
    "stick-breaking": (lambda: tt.StickBreakingTransform(), (3,)),
    "cholesky": (lambda: tt.CorrCholeskyTransform(), (3,)),
    "lower": (lambda: tt.ReshapeTransform((4,), (2, 2)), (4,)),
    "quantiles": (lambda: tt.CumulativeDistributionTransform(td.Normal(torch.zeros(3), torch.ones(3))), (3,)),
    "module": (lambda: fl.FlowTransform(fl.RealNVP(3).bijection), (3,)),
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_any_transform_is_a_bijection_and_comes_back(name):
    make, shape = TRANSFORMS[name]
    transform = make()
    f, z = fl.FromTransform(transform), torch.randn(5, *shape)
    x, log_det = f(z)
    transform = td.biject_to(transform) if isinstance(transform, td.constraints.Constraint) else transform
    expected = transform.log_abs_det_jacobian(z, transform(z))
    assert torch.allclose(x, transform(z)) and log_det.shape == (5,)
    assert torch.allclose(log_det, expected.reshape(5, -1).sum(-1))
    back, inverse_log_det = f.inverse(x)
    assert torch.allclose(back, z, atol=1e-4) and torch.allclose(inverse_log_det, -log_det, atol=1e-4)
    again = fl.FlowTransform(f)
    assert torch.allclose(again.inv(again(z)), z) and again.forward_shape(z.shape) is not None
    assert f.codomain.check(x).all() and f.domain.check(z).all()


def test_out_of_reach_the_density_is_zero():
    flow = fl.Flow(fl.StandardNormal(2), fl.FromTransform(td.constraints.interval(-1.0, 3.0)))
    x = torch.tensor([[0.0, 1.0], [0.0, 3.5]], requires_grad=True)
    log_p = flow.log_prob(x)
    assert log_p[0].isfinite() and log_p[1] == -torch.inf
    log_p.sum().backward()
    assert x.grad is not None and x.grad.isfinite().all()
    assert fl.FromTransform(tt.ExpTransform().inv)(torch.tensor([-1.0]))[1] == -torch.inf


def test_a_transform_keeps_the_log_determinant_of_its_last_pair():
    calls = []
    f = fl.Planar(2).double()
    f.register_forward_hook(lambda *_: calls.append(1))
    randomise(f)
    transform = fl.FlowTransform(f)
    p = td.TransformedDistribution(td.Independent(td.Normal(torch.zeros(2, dtype=D), 1.0), 1), transform)
    x = p.rsample((4,))
    log_p = p.log_prob(x)
    assert len(calls) == 1 and transform in {transform}
    assert torch.allclose(log_p, fl.Flow(fl.StandardNormal(2), f).double().log_prob(x))
    assert torch.allclose(p.log_prob(x.clone()), log_p)
    twin = copy.deepcopy(transform)  # without the graph of the last call
    assert torch.allclose(twin.log_abs_det_jacobian(x, x), f(x)[1]) and twin.with_cache(0).with_cache(1) is not twin
    context = torch.randn(4, 3, dtype=D)
    conditional_map = conditional().bijection
    y = fl.FlowTransform(conditional_map, context)(x)
    assert torch.allclose(y, conditional_map(x, context)[0])


def test_a_law_of_several_parametrisations_is_saved_by_its_own(tmp_path):
    law = td.MultivariateNormal(torch.ones(2), torch.tensor([[2.0, 0.3], [0.3, 1]]))
    flow = fl.Flow(fl.FromDistribution(law), fl.AffineMap(2.0))
    fl.save(flow, tmp_path)
    x = torch.randn(3, 2)
    assert fl.load(tmp_path).log_prob(x).equal(flow.log_prob(x))
    for unsaved in (fl.Flow(fl.FromDistribution(td.Independent(law.expand((3,)), 1)), fl.AffineMap(2.0, ndim=2)),
                    fl.Flow(fl.StandardNormal(2), fl.FromTransform(tt.ExpTransform()))):
        with pytest.raises(TypeError, match="cannot be saved"):
            fl.save(unsaved, tmp_path)
