"""Pixels: integers come back exactly, and the bits are those of the closed forms."""
import math

import pytest
import torch

import flowlib as fl
from flowlib import bits_per_dim


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("levels", [2, 17, 255, 256, 1000, 65536])
def test_integers_come_back(levels, dtype):
    f = fl.Dequantize(levels).to(dtype)
    x = torch.arange(levels).repeat(20 if levels < 2000 else 1).reshape(-1, 1, 1, 1)
    x = x.to(torch.uint8) if levels <= 256 else x
    v, log_det = f.inverse(x)
    assert v.dtype == dtype and bool(((v > 0) & (v < 1)).all())
    back, forward_log_det = f(v)
    assert back.dtype == x.dtype and torch.equal(back, x)
    assert torch.allclose(log_det, -forward_log_det)
    assert log_det[0].item() == pytest.approx(-math.log(levels) + math.log1p(-2 * f.edge(dtype)), rel=1e-6)


@pytest.mark.parametrize("dtype, levels", [(torch.float16, 17), (torch.bfloat16, 2), (torch.float32, 2**19),
                                           (torch.float64, 2**24)])
def test_a_coarse_dtype_is_right_or_refused(dtype, levels):
    x = torch.cat([torch.arange(3), torch.arange(levels - 3, levels),
                   torch.randint(levels, (2000,))]).clamp(0, levels - 1)
    x = x.reshape(-1, 1, 1, 1)
    for f in (fl.Dequantize(levels), fl.VariationalDequantize((1, 1, 1), levels, layers=1, hidden=4)):
        f, coarse = f.to(dtype), torch.float32 if dtype == torch.float64 else dtype
        assert torch.equal(f(f.inverse(x)[0])[0].long(), x)
        broken = type(f)(**({"shape": (1, 1, 1)} if isinstance(f, fl.VariationalDequantize) else {}),
                         levels=8 * levels).to(coarse)
        if dtype != torch.bfloat16:
            with pytest.raises(ValueError, match="coarse"):
                broken.inverse(x)
            with pytest.raises(ValueError, match="coarse"):
                broken(torch.full((1, 1, 1, 1), 0.5, dtype=coarse))


class Spiked(torch.nn.Module):
    """A density on [0, 1]: uniform, but for a share that lies in narrow spikes."""

    event_shape = (1, 1, 1)

    def __init__(self, places, width, share):
        super().__init__()
        self.places, self.width, self.share = torch.as_tensor(places), width, share

    def log_prob(self, v):
        inside = ((v.double() - self.places).abs() < self.width / 2).sum(-1) / (len(self.places) * self.width)
        return (1 - self.share + self.share * inside).log().flatten(1).sum(1)


@pytest.mark.parametrize("width", [1e-4, 1e-6, 1e-8])
@pytest.mark.parametrize("learned", [False, True])
def test_no_density_however_spiked_takes_the_bound_below_the_entropy(learned, width):
    """Two equally likely values: one bit. Noise with atoms, as of a clamp, is found by spikes at these atoms."""
    torch.manual_seed(0)
    noise = fl.VariationalDequantize((1, 1, 1), 2, layers=2, hidden=4) if learned else fl.Dequantize(2)
    for name, parameter in noise.named_parameters():
        if name.endswith("body.4.bias"):
            torch.nn.init.constant_(parameter, 5.0)  # wide: much of the noise is near the edges
    x = torch.arange(2).repeat(200_000).reshape(-1, 1, 1, 1)
    edges = [noise.edge(torch.float32), 2.0**-9]
    places = [(k + side) / 2 for k in (0, 1) for edge in edges for side in (edge, 1 - edge)]
    with torch.no_grad():
        bits = -fl.Flow(Spiked(places, width, 0.5 if learned else 2.0**-8), noise).log_prob(x) / math.log(2)
    assert 1 - 3 * bits.std() / len(x) ** 0.5 < bits.mean() < (7 if learned else 1.01)


def test_integers_come_back_under_autocast():
    x = torch.full((4096, 1, 1, 1), 255, dtype=torch.uint8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        v, log_det = fl.Dequantize(256).inverse(x)
        assert v.dtype == log_det.dtype == torch.float32 and torch.equal(fl.Dequantize(256)(v)[0], x)


def test_noise_is_uniform_and_fresh():
    x = torch.zeros(20_000, 1, 1, 1, dtype=torch.uint8)
    f = fl.Dequantize(4).double()
    v = f.inverse(x)[0]
    assert fl.checks.ks_distance(4 * v, lambda u: u.clamp(0, 1)) < 1.95 / math.sqrt(20_000)
    assert not torch.equal(v, f.inverse(x)[0])


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_a_uniform_base_costs_log2_of_the_levels(levels):
    flow = fl.Flow(fl.Uniform(torch.zeros(12), torch.ones(12)), fl.AffineMap(1.0, 0.0))
    model = fl.Pixels(flow, (3, 2, 2), levels=levels).double()
    x = torch.randint(levels, (50, 3, 2, 2)).to(torch.uint8)
    bits = bits_per_dim(model.log_prob(x), 12)
    assert torch.allclose(bits, torch.full_like(bits, math.log2(levels)), atol=1e-12)


def test_logit_preprocessing_of_uniform_pixels():
    """8 - log2(1 - 2 alpha) = 8.152003: the base is exactly that of logit(uniform), but its tails beyond alpha are
    lost."""
    model = fl.Pixels(fl.Flow(fl.StandardLogistic(4), fl.AffineMap(1.0, 0.0)), (1, 2, 2), preprocess="logit").double()
    x = torch.randint(256, (100, 1, 2, 2), dtype=torch.uint8)
    bits = bits_per_dim(model.log_prob(x), 4)
    assert torch.allclose(bits, torch.full_like(bits, 8.152003), atol=1e-6)


@pytest.mark.parametrize("make", [
    lambda **options: fl.Pixels(fl.RealNVP(64, layers=2), (1, 8, 8), levels=17, **options),
    lambda **options: fl.Glow((1, 8, 8), levels=17, scales=2, steps=1, hidden=4, **options),
    lambda **options: fl.RealNVPImage((1, 8, 8), levels=17, scales=2, steps=1, hidden=4, **options),
    lambda **options: fl.FlowPlusPlus((1, 8, 8), levels=17, scales=2,
                                      steps=1, hidden=4, components=2, variational=False, **options),
    lambda **options: fl.TarFlow((1, 8, 8), levels=17, layers=2, hidden=4, **options),
    lambda **options: fl.Jet((1, 8, 8), levels=17, layers=3, hidden=4, **options),
], ids=["Pixels", "Glow", "RealNVPImage", "FlowPlusPlus", "TarFlow", "Jet"])
def test_preprocessing_is_the_same_map_in_every_model_and_is_saved(make, tmp_path):
    x = torch.randint(17, (5, 1, 8, 8)).to(torch.uint8)

    def made(name):
        torch.manual_seed(0)
        return make(preprocess=name)

    def scored(model):
        torch.manual_seed(1)
        return model.log_prob(x)

    *body, noise = made("scale").bijection.bijections
    torch.manual_seed(1)
    v, noise_log_det = noise.inverse(x)
    for name, alpha in (("scale", None), ("centre", None), ("logit", 0.05), (1e-5, 1e-5)):
        s = v if alpha is None else alpha + (1 - 2 * alpha) * v
        y = {"scale": v, "centre": v - 0.5}.get(name, torch.logit(s))
        slope = torch.ones_like(v) if alpha is None else (1 - 2 * alpha) / (s * (1 - s))
        z, log_det = fl.Compose(*body).inverse(y)
        model = made(name)
        expected = model.base.log_prob(z) + log_det + slope.log().flatten(1).sum(1) + noise_log_det
        assert torch.allclose(scored(model), expected, atol=2e-3)
        fl.save(model, tmp_path)
        assert torch.equal(scored(fl.load(tmp_path)), scored(model))


def test_nice_unit_conversion():
    """1980.50 nats on [0, 1] are 4.355539 bits/dim."""
    assert bits_per_dim(1980.50 - 784 * math.log(256), 784) == pytest.approx(4.355539, abs=1e-6)


def test_pixels_is_a_bound_of_integer_images():
    model = fl.Pixels(fl.RealNVP(64, layers=2), (1, 8, 8), levels=17, preprocess="logit")
    assert model.likelihood == "bound" and not model.exact and model.event_shape == (1, 8, 8)
    x = model.sample(5)
    assert x.shape == (5, 1, 8, 8) and x.dtype == torch.uint8 and x.max() < 17
    assert model.log_prob(x).shape == (5,) and model.log_prob(x.reshape(5, 1, 1, 8, 8)).shape == (5, 1)
    assert torch.equal(model.decode(model.encode(x)), x)
    with pytest.raises(TypeError, match="bound"):
        model.rsample_and_log_prob(2)


def test_pixels_out_of_range_have_probability_zero():
    model = fl.Pixels(fl.RealNVP(4, layers=2), (1, 2, 2), levels=4)
    x = torch.tensor([[[[0, 1], [2, 3]]], [[[0, 1], [2, 4]]], [[[0, 1], [2, -1]]]])
    log_p = model.log_prob(x)
    assert log_p.isfinite().tolist() == [True, False, False] and not log_p.isnan().any()


@pytest.mark.parametrize("broken", [
    lambda: fl.Pixels(fl.RealNVP(63), (1, 8, 8)),
    lambda: fl.Pixels(fl.RealNVP(64), (1, 8, 8), preprocess="tanh"),
    lambda: fl.Glow((1, 8, 8), preprocess=0.5),
    lambda: fl.Dequantize(1),
    lambda: fl.Dequantize(256).inverse(torch.zeros(1, 1, 2, 2)),
    lambda: fl.Dequantize(256).inverse(torch.zeros(2, 2, dtype=torch.uint8)),
    lambda: fl.Pixels(fl.RealNVP(64), (1, 8, 8)).log_prob(torch.zeros(3, 8, 8, 1, dtype=torch.uint8)),
    lambda: fl.Reshape((4,), (1, 2, 3)),
    lambda: fl.Reshape((4,), (2, 2))(torch.zeros(5)),
])
def test_what_does_not_fit_is_refused(broken):
    with pytest.raises(ValueError):
        broken()


def test_data_dependent_start_goes_through_pixels():
    model = fl.Pixels(fl.NICE(64), (1, 8, 8), levels=17)
    x = torch.randint(17, (200, 1, 8, 8), dtype=torch.uint8)
    model.initialize(x)
    scale = next(m for m in model.modules() if isinstance(m, fl.DiagonalScale))
    kept = scale.log_scale.clone()
    model.initialize(torch.zeros_like(x))  # once: nothing changes
    assert torch.equal(kept, scale.log_scale)
    latents = model.encode(x)
    assert latents.std(0).mean().item() == pytest.approx(math.pi / math.sqrt(3), rel=0.02)


def test_save_and_load(tmp_path):
    model = fl.Pixels(fl.NICE(4, hidden=(8,)), (1, 2, 2), levels=9)
    model.initialize(torch.randint(9, (30, 1, 2, 2), dtype=torch.uint8))
    fl.save(model, tmp_path)
    x = torch.randint(9, (6, 1, 2, 2), dtype=torch.uint8)
    densities = []
    for m in (model, fl.load(tmp_path)):
        torch.manual_seed(3)  # the dequantization noise
        densities.append(m.log_prob(x))
    assert torch.equal(*densities)


@pytest.mark.parametrize("dim", [6, 7])
def test_nice_in_alternate_order_keeps_the_even_places_in_its_last_coupling(dim):
    flow = fl.NICE(dim, layers=1, hidden=(8,), alternate=True).double()
    torch.nn.init.normal_(flow.bijection.bijections[1].net.layers[-1].weight)
    jacobian = fl.checks.jacobian(lambda z: flow.bijection(z)[0], torch.randn(dim, dtype=torch.float64))
    rows = jacobian.abs().gt(1e-12).sum(1).tolist()  # how many latents each coordinate depends on: one where it is kept
    kept = [i for i, n in enumerate(rows) if n == 1]
    assert kept == list(range(0, 2 * (dim // 2), 2)) and max(rows) == 1 + dim // 2


def test_blocks_are_counted():
    sizes = [sum(p.numel() for p in fl.RealNVPImage((1, 4, 4), scales=1, steps=1, hidden=4, blocks=k).parameters())
             for k in (1, 2, 3)]
    # two networks, two 3x3 convolutions a block
    assert sizes[2] - sizes[1] == sizes[1] - sizes[0] == 2 * 2 * (9 * 4 * 4 + 4)
    attention = [fl.FlowPlusPlus((1, 4, 4), scales=1, steps=1, hidden=4, components=2, variational=False, blocks=k)
                 for k in (1, 3)]
    one, three = (sum(type(m).__name__ == "_Attention" for m in flow.modules()) for flow in attention)
    assert (one, three) == (2, 6)


def test_what_the_edges_of_a_cell_cost():
    edge = fl.Dequantize(256).edge
    assert edge(torch.float32) == pytest.approx(2.0**-10) and -math.log2(1 - 2 * edge(torch.float64)) < 1e-10
