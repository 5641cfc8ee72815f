"""Continuous flows: the solver, its two gradients, log-dets against linear equations, and flow matching."""
import math

import pytest
import torch
from registry import randomise
from torch import nn

import flowlib as fl
from flowlib.continuous.matching import assignment
from flowlib.continuous.ode import METHODS, integrate, integrate_adjoint

D = torch.float64
MATRIX = torch.tensor([[-0.4, 0.8, 0.1], [-0.9, 0.2, 0.3], [0.2, -0.5, -0.3]], dtype=D)


class LinearField(nn.Module):
    def __init__(self, matrix):
        super().__init__()
        self.matrix = nn.Parameter(matrix.clone())

    def forward(self, t, x, context=None):
        return x @ self.matrix.T


def layer(dim=3, seed=0, **options):
    torch.manual_seed(seed)
    made = fl.ContinuousLayer(dim, hidden=(16, 16), **options).to(D)
    randomise(made)
    return made


# --- the solver


@pytest.mark.parametrize("method, order", [("euler", 1), ("midpoint", 2), ("rk4", 4)])
def test_each_method_has_its_order(method, order):
    """On dy/dt = y cos t, y = exp(sin t): half the step, an error 2^order times less."""
    def error(steps):
        y, = integrate(lambda t, y: (y[0] * math.cos(t),), (torch.ones((), dtype=D),), 0.0, 2.0, steps, method)
        return abs(y.item() - math.exp(math.sin(2.0)))

    assert math.log2(error(64) / error(128)) == pytest.approx(order, abs=0.15)
    assert set(METHODS) == {"euler", "midpoint", "rk4"}


@pytest.mark.parametrize("call, words", [
    (lambda f, y: integrate(f, y, 0.0, 1.0, 0), "at least one step"),
    (lambda f, y: integrate(f, y, 0.0, 1.0, 3, "rk5"), "'euler', 'midpoint', 'rk4'"),
    (lambda f, y: fl.ContinuousFlow(2, steps=0), "at least one step"),
    (lambda f, y: fl.ContinuousFlow(2, log_det="series"), "'exact', 'trace', 'hutchinson'"),
    (lambda f, y: fl.ContinuousFlow(2, adjoint=True), "integral"),
    (lambda f, y: fl.FlowMatching(fl.RealNVP(2)), "begins with a ContinuousLayer"),
    (lambda f, y: fl.FlowMatching(fl.ContinuousFlow(2), path="straight"), "'linear', 'variance-preserving'"),
    (lambda f, y: fl.FlowMatching(fl.ContinuousFlow(2), coupling="sinkhorn"), "'independent', 'optimal'"),
    (lambda f, y: fl.FlowMatching(fl.ContinuousFlow(2, context_dim=1), coupling="optimal"), "context"),
])
def test_settings_that_make_no_sense_are_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call(lambda t, y: y, (torch.ones(1),))


@pytest.mark.parametrize("log_det", ["trace", "hutchinson"])
def test_the_adjoint_equation_gives_the_plain_gradients(log_det):
    """Of the input, the context and every parameter, up to the solver's error; the values are the same."""
    def gradients(adjoint):
        f = layer(steps=30, log_det=log_det, adjoint=adjoint, context_dim=2)
        torch.manual_seed(5)
        x, context = torch.randn(6, 3, dtype=D, requires_grad=True), torch.randn(6, 2, dtype=D, requires_grad=True)
        z, change = f.inverse(x, context)
        loss = (change - 0.5 * z.square().sum(-1)).sum()
        return loss.detach(), torch.autograd.grad(loss, [x, context, *f.parameters()])

    (one, plain), (two, adjoint) = gradients(False), gradients(True)
    torch.testing.assert_close(one, two)
    for a, b in zip(plain, adjoint, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5 * a.abs().max().item())


def saved_bytes(steps, adjoint):
    """What the forward pass keeps for the backward pass."""
    f, total = layer(steps=steps, log_det="trace", adjoint=adjoint), []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: total.append(t.nbytes) or t, lambda t: t):
        f.inverse(torch.zeros(4, 3, dtype=D))
    return sum(total)


def test_the_adjoint_equation_keeps_nothing_of_the_way():
    assert saved_bytes(16, True) == saved_bytes(4, True)
    assert saved_bytes(16, False) > 3 * saved_bytes(4, False)


def test_parameters_that_f_does_not_read_get_the_gradient_zero():
    unused = torch.ones(2, requires_grad=True)
    y, = integrate_adjoint(lambda t, y: (-y[0],), (torch.ones(1, requires_grad=True),), 0.0, 1.0, 4, [unused])
    y.sum().backward()
    assert unused.grad is not None and unused.grad.abs().max() == 0


# --- the layer


@pytest.mark.parametrize("log_det", ["exact", "trace"])
def test_a_linear_equation_has_the_trace_as_its_log_det(log_det):
    f = fl.ContinuousLayer(3, steps=32, log_det=log_det, net=LinearField(MATRIX))
    z = torch.randn(5, 3, dtype=D)
    x, change = f(z)
    torch.testing.assert_close(x, z @ torch.linalg.matrix_exp(MATRIX).T, rtol=0, atol=1e-5)
    torch.testing.assert_close(change, MATRIX.trace().expand(5), rtol=0, atol=1e-6)
    torch.testing.assert_close(f.inverse(x)[0], z)


@pytest.mark.parametrize("dim", [3, 12], ids=["Newton", "Anderson"])
def test_one_long_step_is_inverted_exactly(dim):
    """Where solving forward in time misses z by the solver's error."""
    f = layer(dim, steps=1, log_det="exact")
    x = torch.randn(20, dim, dtype=D)
    z, change = f.inverse(x)
    again, back = f(z)
    torch.testing.assert_close(again, x, rtol=0, atol=1e-9)
    torch.testing.assert_close(back, -change, rtol=0, atol=1e-9)
    naive, = integrate(lambda t, y: (f.net(t, y[0]),), (z,), 0.0, 1.0, 1)
    assert (naive - x).abs().max() > 1e-6


def test_steps_too_long_to_be_inverted_are_told():
    class Ripples(LinearField):
        def forward(self, t, x, context=None):
            return 8 * (9 * super().forward(t, x)).sin()

    z = torch.linspace(-2, 2, 200, dtype=D)[:, None]
    with pytest.raises(fl.InversionError, match="more steps"):
        fl.ContinuousLayer(1, steps=1, net=Ripples(torch.eye(1, dtype=D)))(z)


@torch.no_grad()
def test_hutchinson_is_unbiased_for_the_trace_and_says_how_sure_it_is():
    exact, random = layer(steps=4, log_det="trace"), layer(steps=4, log_det="hutchinson")
    x = torch.randn(3, 3, dtype=D)
    generator = torch.Generator().manual_seed(3)
    value, error = random.estimate(x, draws=100, generator=generator)
    assert ((value - exact.inverse(x)[1]).abs() < 5 * error + 1e-9).all() and (error > 0).any()
    again = random.estimate(x, draws=100, generator=generator.manual_seed(3))
    assert torch.equal(again.value, value)
    assert exact.estimate(x).error.abs().max() == 0
    assert random.likelihood == exact.likelihood == "estimate" and layer().likelihood == "exact"
    assert fl.ContinuousFlow(9).bijection.log_det == "hutchinson"


def test_the_trace_comes_near_the_maps_own_log_det_with_the_fourth_order():
    x = torch.randn(8, 3, dtype=D)

    def gap(steps):
        return (layer(steps=steps, log_det="trace").inverse(x)[1] - layer(steps=steps).inverse(x)[1]).abs().max().item()

    assert 3 < math.log2(gap(4) / gap(8)) < 6


def test_half_precision_is_refused():
    with pytest.raises(ValueError, match="float32 or float64"):
        fl.ContinuousFlow(2).half().log_prob(torch.zeros(3, 2, dtype=torch.float16))


def test_a_wide_flow_has_gradients_of_its_samples():
    """`forward` is the inverse's inverse to first order, beyond the dimensions where the search is Newton's."""
    f = layer(10, steps=2, log_det="exact")
    z = torch.randn(10, dtype=D)
    there = torch.autograd.functional.jacobian(lambda z: f(z)[0], z)
    back = torch.autograd.functional.jacobian(lambda x: f.inverse(x)[0], f(z)[0].detach())
    torch.testing.assert_close(there @ back, torch.eye(10, dtype=D))


# --- flow matching


@pytest.mark.parametrize("path", ["linear", "variance-preserving"])
def test_paths_go_from_noise_to_data_at_their_own_velocity(path):
    from flowlib.continuous.matching import PATHS

    t = torch.tensor([0.0, 0.3, 1.0], dtype=D)
    (a, slope_a), (b, slope_b) = (torch.func.jvp(lambda t, i=i: PATHS[path](t)[i], (t,), (torch.ones_like(t),))
                                  for i in (0, 1))
    torch.testing.assert_close(torch.stack([a, b])[:, [0, 2]], torch.tensor([[0.0, 1.0], [1.0, 0.0]], dtype=D))
    torch.testing.assert_close(PATHS[path](t)[2:], (slope_a, slope_b))


@pytest.mark.parametrize("path", ["linear", "variance-preserving"])
def test_the_loss_at_the_best_field_of_gaussian_data_is_the_conditional_variance(path):
    """Data N(0, s^2), noise N(0, 1): v(t, x) = x Cov(dx, x)/Var(x) carries one to the other, and nothing is better."""
    from flowlib.continuous.matching import PATHS

    s = 0.3

    class Best(nn.Module):
        def __init__(self):
            super().__init__()
            self.unused = nn.Parameter(torch.zeros((), dtype=D))

        def forward(self, t, x, context=None):
            a, b, da, db = PATHS[path](torch.as_tensor(t, dtype=D))
            return x * (da * a * s**2 + db * b) / (a**2 * s**2 + b**2)

    torch.manual_seed(0)
    flow = fl.Flow(fl.StandardNormal(1).to(D), fl.ContinuousLayer(1, steps=32, net=Best()))
    x = torch.tensor([[0.0], [0.4], [-0.8]], dtype=D)
    torch.testing.assert_close(flow.log_prob(x), torch.distributions.Normal(0.0, s).log_prob(x[:, 0]).to(D),
                               rtol=0, atol=1e-3)
    data = s * torch.randn(20000, 1, dtype=D)
    loss = fl.FlowMatching(flow, path=path)(data)
    t = (torch.arange(1000, dtype=D) + 0.5) / 1000
    a, b, da, db = PATHS[path](t)
    rest = (da**2 * s**2 + db**2) - (da * a * s**2 + db * b) ** 2 / (a**2 * s**2 + b**2)
    assert abs(loss.mean() - rest.mean()) < 5 * loss.std() / math.sqrt(len(loss))


def test_the_optimal_coupling_pairs_what_is_near():
    x = torch.tensor([[0.0], [5.0], [9.0]])
    order = assignment(torch.tensor([[8.0], [1.0], [4.0]]), x)
    assert order.tolist() == [1, 2, 0]


def test_what_stands_behind_the_layer_maps_the_data_and_is_not_trained():
    image = fl.Pixels(fl.ContinuousFlow(16, hidden=(8,), steps=1), (1, 4, 4), levels=17, preprocess="logit")
    loss = fl.FlowMatching(image, coupling="optimal")(torch.randint(17, (6, 1, 4, 4), dtype=torch.uint8))
    assert loss.shape == (6,) and loss.isfinite().all()
    loss.sum().backward()
    assert all(p.grad is not None for p in image.parameters())


def test_noise_is_drawn_of_the_flows_own_base_with_a_context_too():
    """Data at 5, noise in [5, 5 + 1e-3]: their velocity is zero, as is the field's at the start."""
    base = fl.Uniform(torch.full((1,), 5.0), torch.full((1,), 5.001))
    flow = fl.Flow(base, fl.ContinuousLayer(1, context_dim=2))
    x = torch.full((6, 1), 5.0)
    assert fl.FlowMatching(flow)(x, torch.zeros(6, 2)).max() < 1e-5
    assert fl.FlowMatching(flow)(x, torch.zeros(2)).max() < 1e-5


def test_matching_learns_two_points_of_a_context():
    """Data N(c, 0.1^2) of a context c: the density that is found is at home there."""
    from flowlib.train import fit

    torch.manual_seed(0)
    c = torch.randint(2, (512, 1)).float() * 4 - 2
    x = c + 0.3 * torch.randn(512, 1)
    flow = fl.ContinuousFlow(1, hidden=(32,), steps=8, context_dim=1)
    fit(flow, (x, c), objective=fl.FlowMatching(flow), steps=150, batch_size=128, lr=1e-2, seed=0, progress=False)
    with torch.no_grad():
        right, wrong = flow.log_prob(x, c).mean(), flow.log_prob(x, -c).mean()
    assert right > -1.2 > -4 > wrong
