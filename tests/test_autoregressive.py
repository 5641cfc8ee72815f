"""Masked networks and autoregressive layers: what they may see, the ways to sample, what each costs, and the flows."""
import math

import pytest
import torch

import flowlib as fl
from flowlib.nets.made import MADE, MaskedLinear

D = torch.float64
ORDERS = {"natural": "natural", "reversed": "reversed", "random": "random", "given": [2, 0, 4, 1, 3]}
WAYS = ("units", "sweeps", "passes")
SPLINE = fl.RationalQuadraticSpline(bins=4, box=3.0)


def drawn(module, seed=0):
    """In double precision, with no layer left at zero."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for p in module.double().parameters():
            p.copy_(torch.randn_like(p) / max(p[0].numel(), 4) ** 0.5)
    return module


def layer(dim=5, elementwise=None, **options):
    return drawn(fl.MaskedAutoregressive(dim, elementwise or fl.Affine(), hidden=(24, 24), **options))


def seen(net, context=None):
    """(D, D): whether output i moves with input j, at any of many places."""
    x = torch.randn(200, net.dim, dtype=D)
    moved = fl.checks.jacobian(lambda v: net(v, context), x).abs().amax(0)  # (D n_params, D)
    return moved.unflatten(0, (net.dim, -1)).amax(1) > 0


@pytest.mark.parametrize("residual", [False, True], ids=["plain", "residual"])
@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
def test_an_output_sees_all_inputs_before_it_and_no_other(order, residual):
    net = drawn(MADE(5, 3, hidden=(40, 40), order=order, residual=residual))
    assert torch.equal(seen(net), net.rank[:, None] > net.rank)
    if order == ORDERS["given"]:
        assert net.rank.argsort().tolist() == order


def test_masks_that_are_not_strict_are_found():
    """A control of the test above: an output that sees its own input."""
    net = drawn(MADE(5, 2, hidden=(40,)))
    degrees = torch.tensor(net.degrees(40))
    net.last = MaskedLinear((net.rank[:, None] >= degrees).repeat(2, 1)).double()
    assert seen(net).diagonal().any() and not seen(net).triu(1).any()


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
@pytest.mark.parametrize("elementwise", [fl.Affine(), SPLINE], ids=["affine", "spline"])
def test_the_jacobian_is_triangular_in_the_order(order, elementwise):
    f = layer(5, elementwise, order=order)
    z = torch.randn(4, 5, dtype=D)
    x, log_det = f(z)
    for g, at, given in ((f, z, log_det), (f.inverse, x, -log_det)):
        jacobian = fl.checks.jacobian(lambda v, g=g: g(v)[0], at)
        ordered = jacobian[:, f.net.rank.argsort()][:, :, f.net.rank.argsort()]
        diagonal = ordered.diagonal(dim1=-2, dim2=-1)
        assert not ordered.triu(1).any() and (diagonal > 0).all()
        assert torch.allclose(diagonal.log().sum(-1), given, atol=1e-9, rtol=0)


def test_every_output_sees_the_context_and_the_first_sees_nothing_else():
    context = torch.randn(3, dtype=D)
    for dim in (1, 5):
        net = drawn(MADE(dim, 2, hidden=(40, 40), context_dim=3))
        moved = fl.checks.jacobian(lambda c, net=net, dim=dim: net(torch.zeros(dim, dtype=D), c), context)
        assert (moved != 0).any(-1).all()
        assert torch.equal(seen(net, context), torch.ones(dim, dim).tril(-1).bool())


def test_one_coordinate_has_a_constant_network():
    net = drawn(MADE(1, 2, hidden=(4,)))
    assert net(torch.randn(7, 1, dtype=D)).unique(dim=0).shape == (1, 1, 2)


def test_degrees_leave_out_nothing_and_ascend():
    for dim, width, context in ((2, 3, None), (9, 8, None), (9, 60, None), (9, 9, 2), (1, 4, None)):
        degrees = MADE(dim, hidden=(width,), context_dim=context).degrees(width)
        lowest = 0 if dim > 1 and context is None else -1
        assert degrees == sorted(degrees) and set(degrees) == set(range(lowest, max(dim - 1, lowest + 1)))


@pytest.mark.parametrize("options, said", [
    (dict(dim=0), "dim >= 1"), (dict(dim=3, hidden=()), "hidden"), (dict(dim=3, hidden=(4, 0)), "hidden"),
    (dict(dim=3, order="backwards"), "natural, reversed, random"), (dict(dim=3, order=[0, 1]), "once"),
    (dict(dim=3, order=[0, 1, 1]), "once"), (dict(dim=3, residual=True, hidden=(4, 5)), "one width"),
    (dict(dim=3, n_params=0), "n_params"),
], ids=str)
def test_what_is_no_masked_network_is_refused(options, said):
    with pytest.raises(ValueError, match=said):
        MADE(**options)


def test_what_is_no_autoregressive_layer_is_refused():
    with pytest.raises(ValueError, match="units, sweeps, passes"):
        fl.MaskedAutoregressive(3, fl.Affine(), sampling="jacobi")
    with pytest.raises(ValueError, match="elementwise map"):
        fl.MaskedAutoregressive(3, fl.Exp())


CASES = {
    "one coordinate": dict(dim=1), "one coordinate of a context": dict(dim=1, context_dim=3),
    "two blocks": dict(dim=21, order="random"), "a context": dict(dim=40, context_dim=3, order="random"),
    "residual": dict(dim=17, residual=True), "few units": dict(dim=40, order="reversed"),
    "spline": dict(dim=5, elementwise=SPLINE, order="random", context_dim=3),
    "mixture": dict(dim=3, elementwise=fl.LogisticMixtureCDF(2), order="random"),
}


@pytest.mark.filterwarnings("ignore:There is a performance drop")  # vmap writes in place row by row
def test_units_are_written_in_place_under_vmap_too():
    f = layer(dim=20, context_dim=2)
    z, context = torch.randn(20, dtype=D), torch.randn(3, 2, dtype=D)
    with torch.no_grad():
        assert torch.allclose(torch.func.vmap(lambda c: f(z, c)[0])(context), f(z, context)[0], atol=1e-12)
        tangent = torch.func.jvp(lambda v: f(v, context[0])[0], (z,), (torch.ones_like(z),))[1]
    expected = torch.autograd.functional.jacobian(lambda v: f(v, context[0])[0], z).sum(-1)
    assert torch.allclose(tangent, expected, atol=1e-12)


@pytest.mark.parametrize("options", CASES.values(), ids=CASES)
def test_all_ways_to_sample_agree_in_value_and_gradient(options):
    f, found = layer(**options), {}
    z = torch.randn(2, 4, f.event_shape[0], dtype=D, requires_grad=True)
    context = torch.randn(4, 3, dtype=D) if f.context_dim else None
    weight = torch.randn_like(z)
    for f.sampling in WAYS:
        x, log_det = f(z, context)
        with torch.no_grad():  # where sweeps may stop early
            again = f(z, context)
        parameters = [p for p in f.parameters() if p.numel()]
        gradients = torch.autograd.grad((weight * x).sum() + log_det.sum(), [z, *parameters])
        found[f.sampling] = [x, log_det, *again, *gradients]
    for way in ("units", "sweeps"):
        for value, expected in zip(found[way], found["passes"], strict=True):
            assert torch.allclose(value, expected, atol=1e-9, rtol=1e-9)


def test_ways_to_sample_agree_in_single_precision():
    f = layer(64, order="random").float()
    z, found = torch.randn(50, 64), []
    for f.sampling in WAYS:
        with torch.no_grad():
            found.append(f(z)[0])
    assert max((x - found[-1]).abs().max() for x in found) < 1e-5


def count(model, call):
    with fl.checks.passes(model) as passes, torch.no_grad():
        call()
    return passes


def test_costs_in_passes():
    """Density: 1 pass. Sampling: D passes, or at most D sweeps, or no pass at all but the multiplications of one."""
    dim, z = 32, torch.randn(4, 32, dtype=D)
    f = layer(dim)
    one = count(f, lambda: f.inverse(z))
    assert one.calls == 1 and one.multiplications == 4 * 24 * (32 + 24 + 2 * 32)
    f.sampling = "passes"
    found = count(f, lambda: f(z))
    assert found.calls == dim and found.multiplications == dim * one.multiplications
    f.sampling = "sweeps"
    assert 1 < count(f, lambda: f(z)).calls < dim
    f.sampling = "units"
    found = count(f, lambda: f(z))
    assert found.calls == 0 and found.multiplications <= one.multiplications


def test_passes_count_networks_of_any_flow():
    flow = fl.RealNVP(4, layers=3)
    assert count(flow, lambda: flow.sample(2)).calls == count(flow, lambda: flow.log_prob(torch.zeros(2, 4))).calls == 3
    net = flow.bijection[0].net
    assert count(net, lambda: net(torch.zeros(2, 2))).calls == 1
    assert not net._forward_hooks


def pair(context_dim=None):
    """A MAF, and an IAF with its parameters, layer for layer the other way round."""
    options = dict(layers=3, hidden=(16, 16), context_dim=context_dim)
    maf, iaf = drawn(fl.MAF(5, **options)), fl.IAF(5, **options).double()
    for ours, theirs in zip(iaf.bijection, reversed(list(maf.bijection)), strict=True):
        ours.bijection.load_state_dict(theirs.state_dict())
    return maf, iaf


@pytest.mark.parametrize("width", [None, 3], ids=["plain", "context"])
def test_iaf_is_maf_the_other_way_round(width):
    maf, iaf = pair(width)
    value = torch.randn(50, 5, dtype=D)
    context = torch.randn(50, width, dtype=D) if width else None
    for one, other in ((maf.bijection.inverse, iaf.bijection), (maf.bijection, iaf.bijection.inverse)):
        for a, b in zip(one(value, context), other(value, context), strict=True):
            assert (a - b).abs().max() < 1e-10


def test_iaf_of_the_papers_parameters():
    """A MAF with (mu, alpha) is, read from x to z, an IAF step with mu' = -mu e^-alpha and alpha' = -alpha."""
    f = layer(5)
    x = torch.randn(50, 5, dtype=D)
    alpha = 2 * torch.tanh(f.net(x)[..., 0] / 2)
    mu = f.net(x)[..., 1]
    z, log_det = f.inverse(x)
    assert torch.allclose(z, x * (-alpha).exp() - mu * (-alpha).exp(), atol=1e-10, rtol=0)
    assert torch.allclose(log_det, -alpha.sum(-1), atol=1e-10, rtol=0)


def ar1(dim, phi=0.9):
    """x_i = phi x_{i-1} + noise, from its stationary law."""
    place = torch.arange(dim, dtype=D)
    covariance = phi ** (place[:, None] - place).abs() / (1 - phi**2)
    return torch.distributions.MultivariateNormal(torch.zeros(dim, dtype=D), covariance)


def test_maximum_likelihood_is_variational_inference_in_the_latent_space():
    """KL(data || MAF) = KL(data pulled back || base), on the same points."""
    maf, data = pair()[0], ar1(5)
    x = data.sample((200,))
    z, log_det = maf.bijection.inverse(x)
    pulled_back = data.log_prob(maf.decode(z)) + maf.bijection(z)[1]
    there, here = data.log_prob(x) - maf.log_prob(x), pulled_back - maf.base.log_prob(z)
    assert (there - here).abs().max() < 1e-10


def test_a_maf_learns_an_autoregression():
    """The divergence from AR(1), of which a single layer can have the closed form; d = 8 is a row of the results."""
    torch.manual_seed(0)
    data, flow = ar1(3), fl.MAF(3, layers=1, hidden=(16,)).double()
    assert abs(ar1(8).entropy().item() - 12.181874) < 1e-6
    optimiser = torch.optim.Adam(flow.parameters(), lr=2e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 200)
    for _ in range(200):
        optimiser.zero_grad()
        (-flow.log_prob(data.sample((256,))).mean()).backward()
        optimiser.step()
        schedule.step()
    x = data.sample((20_000,))
    with torch.no_grad():
        assert (data.log_prob(x) - flow.log_prob(x)).mean() < 0.01
        params = flow.bijection[0].net(x)
    scales, shifts = (2 * torch.tanh(params[..., 0] / 2)).exp(), params[..., 1]
    assert (scales[:, 1:] - 1).abs().mean() < 0.05 and (scales[:, 0] - 0.19**-0.5).abs().mean() < 0.2
    assert (shifts[:, 1:] - 0.9 * x[:, :-1]).abs().mean() < 0.1


def test_an_iaf_remembers_the_density_of_its_own_samples():
    iaf = pair(2)[1]
    context = torch.randn(7, 2, dtype=D)
    x = iaf.sample(3, context)
    log_p = fl.Flow(iaf.base, iaf.bijection).log_prob(x, context)  # a flow that remembers nothing
    found = []
    own = count(iaf, lambda: found.append(iaf.log_prob(x, context)))
    assert own.calls == own.multiplications == 0 and (found[0] - log_p).abs().max() < 1e-10
    y, log_q = iaf.rsample_and_log_prob(3, context)
    with torch.no_grad():
        assert torch.equal(iaf(y, context), log_q)
    assert count(iaf, lambda: iaf.sample(3, context)).calls == 3  # one a layer
    foreign = x.clone()
    assert count(iaf, lambda: iaf.log_prob(foreign, context)).multiplications > 0


def add(tensor):
    with torch.no_grad():
        tensor.add_(0.1)


@pytest.mark.parametrize("change", [
    lambda flow, x, c: add(flow.bijection[1].bijection.net.last.bias),
    lambda flow, x, c: flow.bijection[1].bijection.net.last.bias.data.add_(0.1),  # raises no version
    lambda flow, x, c: add(x), lambda flow, x, c: add(c),
], ids=["a parameter", "a parameter's data", "the sample", "the context"])
def test_an_iaf_forgets_what_is_no_longer_true(change):
    iaf = pair(2)[1]
    context = torch.randn(7, 2, dtype=D)
    x = iaf.sample(3, context)
    before = iaf.log_prob(x, context).detach()
    change(iaf, x, context)
    with torch.no_grad():
        now = iaf.log_prob(x, context)
        assert (now - before).abs().max() > 1e-3
        assert torch.equal(now, fl.Flow(iaf.base, iaf.bijection).log_prob(x, context))


def test_an_iaf_gives_gradients_and_other_contexts_their_own_density():
    iaf = pair(2)[1]
    context, other = torch.randn(2, 7, 2, dtype=D)
    x = iaf.sample(3, context)
    assert iaf.log_prob(x, context).requires_grad
    with torch.no_grad():
        assert not torch.allclose(iaf.log_prob(x, other), iaf.log_prob(x, context))


def test_a_gated_step_opens_and_closes():
    gate = fl.GatedAffine()
    z = torch.tensor([3.0, 3.0, 3.0], dtype=D)
    params = torch.tensor([[0.0, 1.0], [100.0, 1.0], [-100.0, 1.0]], dtype=D)
    moved, log_slope = gate.inverse(z, params)
    sigma = torch.sigmoid(torch.tensor([2.0, 6.0, -2.0], dtype=D))
    assert torch.allclose(moved, sigma * 3 + (1 - sigma)) and torch.allclose(log_slope, sigma.log())
    iaf = drawn(fl.IAF(4, gated=True, hidden=(8,)))
    assert (iaf.bijection(torch.randn(9, 4, dtype=D))[1] < 0).all()  # it contracts


def test_a_maf_tests_with_the_moments_of_the_training_set():
    flow = drawn(fl.MAF(3, layers=3, hidden=(8,), batch_norm=True))
    x = ar1(3).sample((500,))
    flow.eval()
    flow.use_moments_of(x)
    norms = [part for part in flow.modules() if isinstance(part, fl.BatchNorm)]
    assert len(norms) == 2 and all(norm.momentum == 0.1 and not norm.training for norm in norms)
    evaluated = flow.log_prob(x)
    assert torch.allclose(evaluated, flow.train().log_prob(x), atol=1e-9)  # where the batch is the training set
    z = flow.eval().bijection[4].inverse(x)[0]
    normalised = flow.bijection[3].inverse(z)[0]
    assert normalised.mean(0).abs().max() < 1e-9 and (normalised.var(0, correction=0) - 1).abs().max() < 1e-3


def test_a_mixture_as_the_base():
    torch.manual_seed(0)
    flow = fl.MAF(2, layers=2, components=4)
    x = flow.sample(6)
    flow.log_prob(x).sum().backward()
    assert x.shape == (6, 2) and flow.base.means.grad.abs().max() > 0


def test_a_maf_compiles_whole():
    flow = fl.MAF(3, layers=2, hidden=(8,), context_dim=2)
    x, context = torch.randn(5, 3), torch.randn(5, 2)
    compiled = torch.compile(flow.log_prob, fullgraph=True, backend="eager")
    assert torch.allclose(compiled(x, context), flow.log_prob(x, context))


def test_a_flow_with_iaf_layers_is_a_posterior():
    q = fl.vae.posterior(2, 3, *fl.IAF(2, layers=2, context_dim=3).bijection)
    z, log_q = q.rsample_and_log_prob(4, torch.randn(5, 3))
    assert z.shape == (4, 5, 2) and math.isfinite(log_q.sum().item())


def test_sweeps_are_all_made_where_a_gradient_is_wanted():
    f, z = fl.MaskedAutoregressive(6, fl.Affine(), sampling="sweeps"), torch.randn(3, 6)  # at once settled
    with fl.checks.passes(f) as asked:
        f(z)
    with torch.no_grad(), fl.checks.passes(f) as free:
        f(z)
    assert (asked.calls, free.calls) == (6, 1)
