"""What every layer promises to whoever calls it: arguments are checked, layers tell what they are, networks and masks
may be any, and what is large gives a number or -inf."""
import copy
import json

import laws
import numpy as np
import pytest
import torch
from registry import ENTRIES, randomise
from torch import nn

import flowlib as fl

D = torch.float64
BY_ENTRY = pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)


# --- arguments


@pytest.mark.parametrize("call", [
    lambda flow: flow.log_prob(np.zeros((3, 2), np.float32)), lambda flow: flow.log_prob([[0.0, 1.0]]),
    lambda flow: flow.encode([[0.0, 1.0]]),
    lambda flow: flow.bijection([[0.0, 1.0]]), lambda flow: fl.NICE(2).initialize([[0.0, 1.0]]),
])
def test_what_is_no_tensor_is_told_how_to_become_one(call):
    with pytest.raises(ValueError, match=r"torch.as_tensor\(..., dtype=torch.float32\)"):
        call(fl.RealNVP(2))


@pytest.mark.parametrize("n", [(5,), -1, 2.0, True, None])
def test_the_number_of_draws_is_a_number(n):
    flow = fl.RealNVP(2)
    for draw in (flow.sample, flow.rsample_and_log_prob):
        with pytest.raises(ValueError, match="number of draws"):
            draw(n)
    assert flow.sample(np.int64(0)).shape == (0, 2)


@BY_ENTRY
def test_integers_are_never_asked_to_stay_integers(entry):
    f = entry.bijection(entry.dims[-1])
    for method in (f.forward, f.inverse):
        with pytest.raises(ValueError, match=r"floating-point.*\.to\(torch.float") as error:
            method(torch.ones(3, *(f.latent_shape if method == f.forward else f.event_shape) or (2,),
                              dtype=torch.int64))
        assert "to(torch.int" not in str(error.value)


def test_a_layer_of_ones_own_is_checked_without_a_line_of_its_own():
    class Shift(fl.Bijection):
        def __init__(self):
            super().__init__()
            self.latent_shape = self.event_shape = (2,)
            self.context_dim = 3
            self.by = nn.Parameter(torch.ones(2))

        def forward(self, z, context=None):
            return z + self.by, z.new_zeros(z.shape[:-1])

        def inverse(self, x, context=None):
            return x - self.by, x.new_zeros(x.shape[:-1])

    f, z, context = Shift(), torch.zeros(4, 2), torch.zeros(4, 3)
    assert f.context_shape == (3,) and f.dtype == torch.float32 and copy.deepcopy(f).double().dtype == D
    assert f.inverse(x=z, context=context)[0].equal(f.inverse(z, context)[0])
    for value, given, words in ((torch.zeros(4, 3), context, r"\(..., 2\), got \(4, 3\)"),
                                (z.double(), context, "float64"),
                                (z, None, "needs a context"), (z, context[:, :2], r"\(..., 3\), got \(4, 2\)"),
                                (z, context.double(), "a context of dtype"), (z, context[:3], "does not broadcast")):
        for method in (f.forward, f.inverse, f.initialize):
            with pytest.raises(ValueError, match=words):
                method(value, given)


def test_a_start_from_data_checks_them_before_it_sets_anything():
    layer = fl.ActNorm(2)
    with pytest.raises(ValueError, match="float64"):
        layer.initialize(torch.randn(10, 2, dtype=D))
    assert not layer.initialized and not layer.shift.any()


def test_the_scales_of_an_image_share_one_context():
    layers = [fl.ImageCoupling(s, fl.Affine(), context_dim=k + 2) for k, s in enumerate(fl.scale_shapes((1, 8, 8), 2))]
    with pytest.raises(ValueError, match=r"\(2,\), \(3,\)"):
        fl.MultiScale((1, 8, 8), layers)
    with pytest.raises(ValueError, match="not both"):
        fl.Glow((1, 8, 8), scales=1, context_dim=2, context_shape=(2, 8, 8))


@BY_ENTRY
def test_domain_and_codomain_are_true(entry):
    f = entry.bijection(entry.dims[-1], 3 if entry.context else None)
    assert (f.domain.event_dim, f.codomain.event_dim) == (f.latent_ndim, f.event_ndim)
    z = entry.z(f, entry.dims[-1])
    x, _ = f(z, torch.randn(len(z), 3, dtype=D) if entry.context else None)
    assert f.domain.check(z).all() and f.codomain.check(x).all()
    assert fl.Flow(fl.StandardNormal(*z.shape[1:]), f).support is f.codomain or f.codomain.event_dim == f.event_ndim


# --- what a layer tells


def test_a_compose_is_a_sequence():
    parts = fl.AffineMap(2.0), fl.Exp(), fl.AffineMap(3.0)
    chain = fl.Compose(*parts)
    assert len(chain) == 3 and [*chain] == [*parts] and chain[1] is parts[1] and chain[-1] is parts[2]
    z = torch.tensor([0.5])
    assert isinstance(chain[:2], fl.Compose) and chain[:2](z)[0] == parts[1](parts[0](z)[0])[0]
    with pytest.raises(ValueError, match="at least one"):
        chain[3:]


@pytest.mark.parametrize("text", [
    "Coupling(4, Affine(bound=1.0), swap=True)", "Compose(AffineMap(2.0, 1.0), Exp())", "RealNVP(2, layers=4)",
    "Flow(Uniform(0.0, 1.0), Inverse(Logit(alpha=0.05)))", "Permutation((2, 0, 1))", "StandardNormal(1, 2, 2)",
    "Glow((1, 8, 8), scales=2, steps=1, hidden=8)", "Elementwise(3, RationalQuadraticSpline(bins=4))",
    "AffineMap(tensor([2.0, 3.0]))",
])
def test_a_layer_tells_the_call_that_made_it(text):
    made = eval(text.replace("tensor", "torch.tensor"), {**vars(fl), "torch": torch})
    assert repr(made) == text


def test_a_long_chain_is_told_line_by_line():
    chain = fl.Compose(*[fl.Coupling(4, fl.Affine(), hidden=(32, 32), swap=k % 2 == 1) for k in range(3)])
    assert repr(chain).splitlines() == ["Compose(", "  Coupling(4, Affine(), hidden=(32, 32)),",
                                        "  Coupling(4, Affine(), hidden=(32, 32), swap=True),",
                                        "  Coupling(4, Affine(), hidden=(32, 32))", ")"]


@pytest.mark.parametrize("make", [lambda f: fl.Compose(f), lambda f: fl.Inverse(f),
                                  lambda f: fl.Flow(fl.StandardNormal(2), f)])
def test_an_elementwise_map_needs_a_container(make):
    with pytest.raises(ValueError, match=r"Affine\(\) is an elementwise map.*Elementwise\(dim, Affine\(\)\)"):
        make(fl.Affine())
    with pytest.raises(ValueError, match="expected a bijection, got Linear"):
        make(nn.Linear(2, 2))


@pytest.mark.parametrize("wrong", [fl.Affine, fl.Exp(), 3])
def test_a_container_needs_an_elementwise_map(wrong):
    for make in (lambda: fl.Coupling(2, wrong), lambda: fl.Elementwise(2, wrong),
                 lambda: fl.ImageCoupling((2, 4, 4), wrong)):
        with pytest.raises(ValueError, match="needs an elementwise map"):
            make()


@BY_ENTRY
def test_a_summary_counts_every_parameter(entry):
    f = entry.bijection(entry.dims[-1])
    text = fl.summary(fl.Flow(fl.StandardNormal(*f.latent_shape or (2,)), f))
    row = next(line for line in text.splitlines() if line.startswith(type(f).__name__)
               and "(" in line.split(None, 1)[1][:40]
               or line.startswith(type(f).__name__ + " "))
    assert row.split()[-1] == f"{sum(p.numel() for p in f.parameters()):,}"


@pytest.mark.parametrize("make", [lambda: fl.Glow((1, 8, 8), scales=2, steps=1, hidden=8), lambda: fl.RealNVP(3),
                                  lambda: fl.NICE(2)])
def test_a_summary_says_what_both_directions_cost(make):
    text = fl.summary(make())
    assert "Coupling: one pass of the network, both ways." in text and text.splitlines()[0].endswith(")")


def test_a_call_from_before_keywords_still_loads(tmp_path):
    flow = fl.Pixels(fl.NICE(4, layers=2, hidden=(8,)), (1, 2, 2), levels=5, preprocess="logit")
    fl.save(flow, tmp_path)
    structure = json.loads((tmp_path / "model.json").read_text())
    structure["flow"] = {"class": "Pixels", "kwargs": {}, "args": [
        {"class": "NICE", "args": [4, 2, {"tuple": [8]}], "kwargs": {}}, {"tuple": [1, 2, 2]}, 5, "logit"]}
    (tmp_path / "model.json").write_text(json.dumps(structure))
    again, x = fl.load(tmp_path), torch.randint(0, 5, (3, 1, 2, 2), dtype=torch.uint8)
    torch.manual_seed(0)
    log_p = flow.log_prob(x)
    torch.manual_seed(0)
    assert torch.equal(log_p, again.log_prob(x)) and again.levels == 5


@pytest.mark.parametrize("call",
                         [lambda: fl.RealNVP(2, 4), lambda: fl.Planar(2, 3), lambda: fl.Coupling(2, fl.Affine(), (8,)),
                          lambda: fl.Glow((1, 8, 8), 256), lambda: fl.Sylvester(3, 2, "orthogonal", 4)])
def test_what_follows_the_shape_has_a_name(call):
    with pytest.raises(TypeError, match="positional"):
        call()


# --- any network, any mask


def tanh_net(inputs, outputs, context_dim):
    return nn.Sequential(nn.Linear(inputs, 8), nn.Tanh(), nn.Linear(8, outputs))


class Bilinear(nn.Module):
    def __init__(self, inputs, outputs, context_dim):
        super().__init__()
        self.layer = nn.Bilinear(inputs, context_dim, outputs)

    def forward(self, x, context):
        return self.layer(x, context.expand(*x.shape[:-1], -1))


class Convolution(nn.Module):
    def __init__(self, inputs, outputs, context_dim):
        super().__init__()
        assert len(inputs) == 3
        self.layer = nn.Conv2d(inputs[0] + (context_dim or 0), outputs, 3, padding=1)

    def forward(self, x, context=None):
        x = x if context is None else torch.cat([x, context.expand(*x.shape[:-3], *context.shape[-3:])], -3)
        return torch.tanh(self.layer(x.flatten(0, -4))).reshape(*x.shape[:-3], -1, *x.shape[-2:])


@pytest.mark.parametrize("f, shape, width", [
    (lambda: fl.Coupling(5, fl.Affine(), net=tanh_net), (5,), None),
    (lambda: fl.Coupling(5, fl.RationalQuadraticSpline(4), net=tanh_net,
                         mask=torch.tensor([True, False, True, True, False])), (5,), None),
    (lambda: fl.Coupling(4, fl.Affine(), net=Bilinear, context_dim=3), (4,), 3),
    (lambda: fl.ImageCoupling((2, 4, 4), fl.Affine(), net=Convolution), (2, 4, 4), None),
    (lambda: fl.ImageCoupling((2, 4, 4), fl.Affine(), net=Convolution, mask="checkerboard", context_dim=3), (2, 4, 4),
     3),
], ids=["vector", "masked", "context", "image", "checkerboard"])
def test_a_coupling_takes_any_network(f, shape, width):
    f = f().double()
    randomise(f, 2.0)
    z, context = torch.randn(6, *shape, dtype=D), torch.randn(6, width, dtype=D) if width else None
    case = laws.Case(f, z, context)
    laws.round_trip(case)
    laws.log_det_is_the_jacobians(case)


@pytest.mark.parametrize("swap", [False, True])
def test_a_mask_keeps_what_it_says(swap):
    mask = torch.tensor([True, False, False, True])
    f = fl.Coupling(4, fl.Affine(), mask=mask, swap=swap)
    randomise(f, 3.0)
    z = torch.randn(50, 4)
    changed = (f(z)[0] != z).any(0)
    assert torch.equal(changed, mask if swap else ~mask)


@pytest.mark.parametrize("mask", [torch.ones(4, dtype=bool), torch.zeros(4, dtype=bool), torch.ones(3, dtype=bool),
                                  torch.tensor([0, 1, 0, 1])])
def test_what_is_no_mask_is_refused(mask):
    with pytest.raises((ValueError, RuntimeError), match="mask|broadcast|match"):
        fl.Coupling(4, fl.Affine(), mask=mask)


class Adapter(nn.Module):
    def __init__(self, layer, low):
        super().__init__()
        self.layer, self.low = layer, low

    def forward(self, x):
        return self.layer(x) + self.low(x)


def test_the_inside_of_a_network_may_be_replaced():
    flow, image = fl.RealNVP(2, layers=2), fl.ImageCoupling((2, 4, 4), fl.Affine(), hidden=8)
    for f in flow.bijection:
        f.net.layers[0] = Adapter(f.net.layers[0], nn.Linear(1, 64))
    image.net.body[0] = Adapter(image.net.body[0], nn.Conv2d(1, 8, 3, padding=1))
    assert flow.log_prob(torch.zeros(1, 2)).isfinite().all() and image(torch.zeros(1, 2, 4, 4))[1].isfinite().all()
    assert flow.double().log_prob(torch.zeros(1, 2, dtype=D)).dtype == D


@pytest.mark.parametrize("flow",
                         [lambda: fl.RealNVP(2, layers=2), lambda: fl.Glow((1, 8, 8), scales=2, steps=1, hidden=8),
                          lambda: fl.RealNVPImage((1, 8, 8), scales=1, steps=1, hidden=8),
                          lambda: fl.FlowPlusPlus((1, 8, 8), scales=1, steps=1, hidden=8, components=2)])
def test_backward_hooks_on_every_module(flow):
    flow, seen = flow(), []
    for m in flow.modules():
        m.register_full_backward_hook(lambda m, i, o: seen.append(m))
    x = flow.sample(3)
    flow.log_prob(x).sum().backward()
    assert len({type(m) for m in seen}) >= 2


def test_vmap_over_the_rows_of_an_image_layer():
    for net in ("conv", "residual"):
        f = fl.ImageCoupling((4, 4, 4), fl.Affine(), hidden=8, net=net)
        randomise(f)
        z = torch.randn(3, 4, 4, 4)
        torch.testing.assert_close(torch.func.vmap(lambda z, f=f: f(z)[1])(z), f(z)[1])
        slopes = torch.func.vmap(torch.func.grad(lambda z, f=f: f(z)[1]))(z)
        assert slopes.shape == z.shape and slopes.isfinite().all()


def test_second_derivatives_through_attention():
    f = fl.ImageCoupling((2, 4, 4), fl.Affine(), hidden=4, net="attention", blocks=1)
    randomise(f)
    x = torch.randn(2, 2, 4, 4, requires_grad=True)
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        (slope,) = torch.autograd.grad(f.inverse(x)[1].sum(), x, create_graph=True)
        slope.square().sum().backward()
    assert x.grad.isfinite().all() and x.grad.abs().max() > 0


# --- large numbers


@pytest.mark.parametrize("layers", [32, 48, 64])
@pytest.mark.parametrize("make", [fl.RealNVP, fl.NSF, fl.NICE])
def test_no_finite_point_of_a_deep_flow_is_nan(make, layers):
    torch.manual_seed(0)
    flow = make(8, layers=layers, hidden=(16, 16))
    randomise(flow, 3.0)
    with torch.no_grad():
        for size in (1.0, 1e10, 1e20, 3e38):
            log_p = flow.log_prob(torch.randn(16, 8).clamp(-1, 1) * size)
            assert not log_p.isnan().any() and (log_p < torch.inf).all()


@pytest.mark.parametrize("make", [fl.RealNVP, fl.NSF, fl.NICE])
def test_a_parameter_that_is_nan_is_seen(make):
    flow = make(2)
    with torch.no_grad():
        next(flow.bijection[-1].parameters())[:] = torch.nan
    assert flow.log_prob(torch.randn(5, 2)).isnan().all()


@pytest.mark.parametrize("swap, reads", [(False, 1), (True, 2)])
def test_of_an_odd_event_the_first_half_is_the_smaller(swap, reads):
    assert fl.Coupling(3, fl.Affine(), swap=swap).net.layers[0].in_features == reads
