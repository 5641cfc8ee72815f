"""Residual flows: bounds that hold, log-determinants with the right mean and gradient, inverses that are solved."""
import math

import laws
import pytest
import torch
from registry import randomise
from torch import nn

import flowlib as fl
from flowlib.nets.lipschitz import ACTIVATIONS, LipschitzNet, _Conv
from flowlib.residual.log_det import coefficients, signs
from flowlib.residual.solve import solve_contraction
from flowlib.seeds import STEP, seed_all

D = torch.float64
LOG_DETS = ("exact", "series", "roulette", "neumann")


def block(dim=5, **options):
    """A block that contracts as little as it may."""
    options = {"hidden": (16, 16), "coefficient": 0.8} | options
    f = fl.ResidualBlock(dim, **options).double()
    randomise(f, 3.0)
    return f


# --- the Lipschitz constant


@pytest.mark.parametrize("shape", [(64, 64), (3, 9), (9, 3), (1, 5), (4, 30, 20)])
@pytest.mark.parametrize("complex", [False, True])
def test_the_bound_of_a_matrix_is_above_and_near_its_norm(shape, complex):
    a = torch.randn(*shape, dtype=torch.complex128 if complex else D)
    ratio = fl.spectral_bound(a) / torch.linalg.matrix_norm(a, 2)
    assert bool((ratio >= 1 - 1e-12).all()) and bool((ratio < 1.001).all())
    equal = torch.linalg.qr(torch.randn(64, 64, dtype=D))[0]
    assert fl.spectral_bound(equal).item() == pytest.approx(64 ** (1 / 514))  # the worst there is: all alike


def test_the_bound_has_its_gradient():
    a = torch.randn(4, 6, dtype=D, requires_grad=True)
    assert torch.autograd.gradcheck(lambda a: fl.spectral_bound(a, squarings=2), a)
    u, s, v = torch.linalg.svd(a.detach())
    assert torch.allclose(torch.autograd.grad(fl.spectral_bound(a, 20), a)[0], u[:, :1] * v[:1])
    zero = torch.zeros(3, 3, requires_grad=True)
    bound = fl.spectral_bound(zero)
    assert bound < 1e-15 and torch.autograd.grad(bound, zero)[0].isfinite().all()


@pytest.mark.parametrize("inputs, outputs, size, looseness", [
    (1, 4, (8, 8), 1e-3), (4, 1, (4, 4), 1e-3), (3, 3, (1, 1), 1e-3), (8, 4, (7, 7), 0.1), (4, 16, (14, 9), 0.05)])
def test_the_bound_of_a_convolution_is_that_with_its_padding(inputs, outputs, size, looseness):
    layer = _Conv(inputs, outputs, 3, size).double()
    images = torch.eye(inputs * math.prod(size), dtype=D).reshape(-1, inputs, *size)
    matrix = layer.apply_to(images, layer.weight).flatten(1)
    norm = torch.linalg.matrix_norm(matrix, 2).item()
    assert norm - 1e-12 <= fl.spectral_bound(layer.matrices(layer.weight)).max().item() <= (1 + looseness) * norm
    rows = torch.randn(3, outputs, *size, dtype=D)
    assert torch.allclose(layer.apply_transposed(rows, layer.weight).flatten(1), rows.flatten(1) @ matrix.T)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_have_slopes_of_at_most_one(name):
    phi = ACTIVATIONS[name]().double()
    x = torch.cat([torch.linspace(-30, 30, 20_001, dtype=D), torch.zeros(1, dtype=D)]).requires_grad_()  # 0 exactly
    for scale in (0.1, 1.0, 8.0):
        randomise(phi, 0.0)
        for p in phi.parameters():
            p.data.fill_(math.log(scale))
        value, slope = phi(x)
        assert torch.allclose(torch.autograd.grad(value.sum(), x, retain_graph=True)[0], slope)
        assert slope.abs().max() <= 1 + 1e-12
        assert torch.autograd.grad(slope.sum(), x)[0].abs().max() > 0.04  # or the log-det would have no gradient


@pytest.mark.parametrize("shape", [(5,), (2, 6, 6)])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_network_contracts_by_its_coefficient_whatever_its_weights(shape, activation):
    net = LipschitzNet(shape, (16, 16), coefficient=0.7, activation=activation).double()
    for scale in (1.0, 20.0):
        randomise(net, scale)
        x = 3 * torch.randn(200, *shape, dtype=D)
        y = x + torch.logspace(-4, 1, 200, dtype=D).reshape(-1, *[1] * len(shape)) * torch.randn_like(x)
        assert ((net(x) - net(y)).flatten(1).norm(dim=1) / (x - y).flatten(1).norm(dim=1)).max() <= 0.7
        jacobian = net.jacobian(net.linearise(x[:20], net.weights()))
        assert torch.linalg.matrix_norm(jacobian, 2).max() <= 0.7
        for weight, _ in net.weights() if len(shape) == 1 else ():
            norm = torch.linalg.matrix_norm(weight, 2)
            assert norm <= 0.7 ** (1 / 3) + 1e-12 and (scale == 1 or norm > 0.99 * 0.7 ** (1 / 3))


def test_the_bound_holds_for_weights_that_were_just_loaded_and_under_autocast(tmp_path):
    flow = fl.ResidualFlow(4, layers=1, hidden=(32, 32))
    state = {name: 30 * torch.randn_like(t) if "weight" in name else t for name, t in flow.state_dict().items()}
    flow.load_state_dict(state)
    fl.save(flow, tmp_path)
    again = fl.load(tmp_path)
    f = again.bijection[0]
    x = torch.randn(64, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        z, _ = f.inverse(x)
        back, _ = f(z)
        jacobian = f.net.jacobian(f.net.linearise(x, f.net.weights()))
    assert torch.linalg.matrix_norm(jacobian.float(), 2).max() <= 0.9
    assert torch.equal(z, flow.bijection[0].inverse(x)[0]) and torch.allclose(back, x, atol=1e-5)


def test_what_makes_no_contraction_is_refused():
    for options, said in ((dict(coefficient=1.0), "coefficient in"), (dict(activation="relu"), "activation is one of"),
                          (dict(hidden=()), "hidden layers"), (dict(log_det="guess"), "log_det is one of"),
                          (dict(terms=0), "terms >= 1"), (dict(more=1.0), "more in")):
        with pytest.raises(ValueError, match=said):
            fl.ResidualBlock(3, **options)
    with pytest.raises(ValueError, match="matrices"):
        fl.spectral_bound(torch.ones(3))
    with pytest.raises(ValueError, match="Lipschitz constant in"):
        fl.truncation_bound(3, 1.0, 5)


# --- the log-determinant


@pytest.fixture(scope="module")
def contraction():
    torch.manual_seed(0)
    a = torch.randn(5, 5, dtype=D)
    return 0.6 * a / torch.linalg.matrix_norm(a, 2)


def test_the_series_and_its_bounds(contraction):
    """Truth T3.10: a 5 x 5 matrix of norm 0.6."""
    true = torch.linalg.slogdet(torch.eye(5, dtype=D) + contraction)[1].item()
    assert 5 * math.log(0.4) <= true <= 5 * math.log(1.6)
    # all 32 vectors of signs: E[v v^T] = I to the last digit
    v = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=D)] * 5)
    for terms in (1, 2, 5, 10, 40):
        series, power = 0.0, v
        for c in coefficients(terms, None):
            power = power @ contraction.T
            series += c * (power * v).sum(-1).mean().item()
        traces = [torch.linalg.matrix_power(contraction, k).trace().item() for k in range(1, terms + 1)]
        assert series == pytest.approx(sum((-1) ** (k + 1) * t / k for k, t in enumerate(traces, 1)), abs=1e-12)
        assert abs(series - true) <= fl.truncation_bound(5, 0.6, terms)
    assert series == pytest.approx(true, abs=1e-9)
    assert fl.truncation_bound(3, 0.9, 10) == pytest.approx(3 * 0.18384, abs=1e-4)


def test_the_variance_of_the_trace_is_that_of_signs(contraction):
    """2 (|S|_F^2 - sum s_ii^2) for the symmetric part S, the least of all with E[v v^T] = I."""
    v = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=D)] * 5)
    s = (contraction + contraction.T) / 2
    variance = 2 * (s.square().sum() - s.diagonal().square().sum())
    assert torch.allclose(((v @ contraction) * v).sum(-1).var(correction=0), variance)
    assert set(signs(torch.zeros(100), 3).unique().tolist()) == {-1.0, 1.0}


@pytest.mark.parametrize("more", [0.5, 0.8])
def test_roulette_is_unbiased(contraction, more):
    true = torch.linalg.slogdet(torch.eye(5, dtype=D) + contraction)[1]
    batch = torch.zeros(200, 5, dtype=D)  # many v for one random length
    value, error = fl.estimate_log_det(lambda v: v @ contraction.T, batch, terms=1, more=more, draws=400)
    draws_of_length = value.mean()
    assert abs(draws_of_length - true) < 4 * error.pow(2).mean().sqrt()
    reached = torch.tensor([len(coefficients(1, more)) for _ in range(4000)], dtype=D)
    for k in (2, 3, 5):  # the factor of a term, times how often it is there
        c = next(found for found in iter(lambda: coefficients(1, more), None) if len(found) >= k)[k - 1]
        there = (reached >= k).double().mean().item()
        assert c * there == pytest.approx((-1) ** (k + 1) / k, rel=5 / math.sqrt(4000 * more ** (k - 1)))


@pytest.mark.parametrize("shape", [5, (1, 2, 3)])
@pytest.mark.parametrize("log_det", ["roulette", "neumann"])
def test_estimates_agree_with_the_jacobian(shape, log_det):
    torch.manual_seed(1)
    f = block(shape, log_det=log_det, terms=2)
    x = torch.randn(4, *f.event_shape, dtype=D)
    value, error = f.estimate(x, draws=500)
    matrix = f._matrix(f.net.linearise(x, f.net.weights()))
    assert torch.allclose(matrix, laws.jacobian(f.inverse, x, f.event_ndim))
    true = torch.linalg.slogdet(matrix)[1]
    assert bool(((value - true).abs() < 4.5 * error).all()) and 0 < error.max() < 0.1
    assert f.likelihood == "estimate" and f.estimate(x).error.isnan().all()


def gradients(f, x, weights):
    x = x.clone().requires_grad_()
    loss = (weights * f.inverse(x)[1]).sum()
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, [x, *f.parameters()], allow_unused=True)
                      if g is not None])


@pytest.mark.parametrize("log_det", ["roulette", "neumann"])
def test_gradients_are_unbiased_for_any_weights_of_the_rows(log_det):
    """Against autograd through the exact log-det, in each coordinate, by the t-statistics of 100 random lengths with
    100 draws of v each. (Weights that differ from row to row are what a published implementation has wrong.)"""
    torch.manual_seed(2)
    exact = block(3, hidden=(6,), log_det="exact")
    f = block(3, hidden=(6,), log_det=log_det, terms=1, more=0.7)
    f.load_state_dict(exact.state_dict())
    x, weights = torch.randn(4, 3, dtype=D), torch.arange(1.0, 5.0, dtype=D)
    true = gradients(exact, x, weights)
    rows = x.repeat(100, 1)
    draws = torch.stack([gradients(f, rows, weights.repeat(100) / 100) for _ in range(100)])
    draws = torch.cat([draws[:, :1200].reshape(100, 100, 12).sum(1), draws[:, 1200:]], 1)
    t = (draws.mean(0) - true) / (draws.std(0) / math.sqrt(len(draws)) + 1e-12)
    assert t.abs().max() < 4.5  # of some 60 numbers
    equal = gradients(exact, x, torch.full((4,), 2.5, dtype=D))
    assert ((draws.mean(0) - equal) / (draws.std(0) / math.sqrt(len(draws)) + 1e-12)).abs().max() > 20


def test_the_neumann_form_has_the_value_of_roulette_and_one_product_in_memory():
    f = block(6, log_det="neumann", terms=30)
    other = block(6, log_det="roulette", terms=30)
    other.load_state_dict(f.state_dict())
    x = torch.randn(7, 6, dtype=D)
    saved = {}
    for one in (f, other):
        one.more = 1e-9
        torch.manual_seed(3)
        kept = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, kept=kept: kept.append(t) or t, lambda t: t):
            value = one.inverse(x)[1]
        saved[one] = value, sum({t.data_ptr(): t.numel() for t in kept}.values())
    assert torch.allclose(saved[other][0], saved[f][0])
    assert saved[f][1] < 0.3 * saved[other][1]


def test_draws_can_be_repeated_and_differ_between_processes():
    f = block(5, log_det="neumann").float()
    x = torch.randn(3, 5)
    values = []
    for rank in (0, 1, 0):
        seed_all(7, STEP, 11, rank)
        values.append(f.inverse(x)[1])
    assert torch.equal(values[0], values[2]) and not torch.isclose(values[0], values[1]).any()
    one, two = (f.estimate(x, draws=3, generator=torch.Generator().manual_seed(5)).value for _ in range(2))
    assert torch.equal(one, two)


# --- the inverse


def test_where_newton_leaps_away_the_plain_step_goes_on():
    """Where 1 + g' is 0.03, Newton's step is 33 times too long: alone it never comes to two of these roots."""
    def g(x):
        return 0.97 / 3 * torch.sin(3 * x), (0.97 * torch.cos(3 * x))[..., None]

    for z in torch.linspace(-20, 20, 41, dtype=D):
        found = solve_contraction(g, z[None], 0.97)
        assert abs(found.x + g(found.x)[0] - z) < 1e-12


@pytest.mark.parametrize("dim", [2, 8, 9, 40])
def test_inverses_at_097_are_solved_to_rounding_in_float32(dim):
    """Newton up to D = 8, Anderson above; where the plain fixed point would take hundreds of steps."""
    torch.manual_seed(dim)
    f = block(dim, hidden=(64, 64), coefficient=0.97).float()
    for parameter in f.net.parameters():
        parameter.data.mul_(3)
    z = 3 * torch.randn(500, dim)
    found = f.solve(z)
    assert found.residual.max() < 1e-5 and found.steps <= 25
    assert (f.inverse(found.x)[0] - z).abs().max() < 1e-5


def test_a_search_that_overshoots_goes_back():
    """A contraction whose slope changes so suddenly that Newton's method alone goes round in circles."""
    def g(x):
        return -0.95 * (4 * x).tanh() / 4, (-0.95 / (4 * x).cosh() ** 2)[..., None]

    z = torch.linspace(-20, 20, 101, dtype=D)[:, None] ** 3 / 400
    x = 5 * z
    for _ in range(60):  # by itself
        value, slope = g(x)
        x = x - (x + value - z) / (1 + slope[..., 0])
    found = solve_contraction(g, z, 0.95)
    assert found.residual.max() < 1e-12
    assert (found.x + g(found.x)[0] - z).abs().max() < 1e-12


@pytest.mark.parametrize("dim", [2, 12])
def test_a_map_that_does_not_contract_is_no_silent_error(dim):
    f = block(dim, log_det="exact")

    class Expanding(nn.Module):
        event_ndim, coefficient = 1, 0.8

        def weights(self, context=None):
            return f.net.weights(context)

        def linearise(self, x, weights):
            at = f.net.linearise(x, weights)
            return at._replace(value=x.square() + 1)

        def jacobian(self, at):
            return 0 * f.net.jacobian(at)

    f.net, broken = f.net, Expanding()
    with pytest.raises(fl.InversionError, match="largest residual is"):
        g = broken.linearise
        weights = broken.weights()
        solve_contraction(lambda x: (g(x, weights).value, None), torch.zeros(3, dim, dtype=D), 0.8)
    with pytest.raises(fl.InversionError, match="1 of 3 places"):
        f(torch.tensor([0.0, torch.nan, 0.0], dtype=D)[:, None].expand(3, dim))


@pytest.mark.parametrize("shape", [2, 12, (1, 4, 4)])
def test_sampling_has_the_gradient_of_the_implicit_function(shape):
    """Newton's last steps up to D = 8, a search for the transposed system above."""
    f = block(shape, hidden=(8, 8), log_det="exact", context_dim=2)
    z = torch.randn(3, *f.event_shape, dtype=D)
    context = torch.randn(3, 2, dtype=D)
    inputs = [z, context, f.net.layers[1].weight]
    probe = torch.randn_like(z)

    def loss(moved):
        f.net.layers[1].weight.data.copy_(moved[2])
        x, log_det = f(moved[0], moved[1])
        return (probe * x).sum() + log_det.sum()

    tracked = [z.clone().requires_grad_(), context.clone().requires_grad_()]
    x, log_det = f(*tracked)
    found = torch.autograd.grad((probe * x).sum() + log_det.sum(), [*tracked, f.net.layers[1].weight])
    start = [t.detach().clone() for t in inputs]
    for k, grad in enumerate(found):
        step = torch.randn_like(start[k])
        ends = [loss([t + s * 1e-5 * step if j == k else t for j, t in enumerate(start)]).item() for s in (1, -1)]
        assert (ends[0] - ends[1]) / 2e-5 == pytest.approx((grad * step).sum().item(), rel=1e-5, abs=1e-8)


# --- models


def test_models_choose_their_log_det():
    assert [fl.IResNet(d).bijection[0].log_det for d in (8, 9)] == ["exact", "series"]
    assert [fl.ResidualFlow(d).bijection[0].log_det for d in (8, 9)] == ["exact", "neumann"]
    assert fl.ResidualFlow(2).exact and fl.ResidualFlowImage((1, 4, 4), scales=1, steps=1).likelihood == "estimate"
    with pytest.raises(TypeError, match="estimate"):
        fl.ResidualFlow(9, layers=1).rsample_and_log_prob(2)


def test_a_trained_flow_fits_inverts_and_integrates_to_one():
    torch.manual_seed(0)
    flow = fl.ResidualFlow(2, layers=3, hidden=(32,))
    data = fl.targets.Moons()
    flow.initialize(data.sample(500))
    optimizer = torch.optim.Adam(flow.parameters(), 1e-2)
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        loss = -flow.log_prob(data.sample(128)).mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) / 5 < losses[0] - 0.2
    x = flow.sample(500)
    assert (flow.decode(flow.encode(x)) - x).abs().max() < 1e-4
    assert abs(fl.checks.total_probability(flow, [-6, -6], [6, 6], 301) - 1) < 1e-3


def test_an_image_model_gives_its_integers_back():
    torch.manual_seed(0)
    flow = fl.ResidualFlowImage((1, 4, 4), levels=17, scales=2, steps=1, hidden=8, context_dim=2)
    randomise(flow)
    x, context = torch.randint(17, (6, 1, 4, 4)).to(torch.uint8), torch.randn(6, 2)
    with torch.no_grad():
        assert torch.equal(flow.decode(flow.encode(x, context), context), x)
    flow.log_prob(x, context).mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in flow.parameters())
