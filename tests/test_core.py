"""What Flow, Compose and the bases promise beyond the laws."""
import json
import math
import os

import pytest
import torch

import flowlib as fl

D = torch.float64


def test_the_first_flow_of_the_book():
    flow = fl.Flow(fl.Uniform(0.0, 1.0), fl.AffineMap(2.0, 1.0))
    x = torch.tensor([[0.999], [1.0], [2.0], [3.0], [3.001]])
    assert flow.log_prob(x).exp().tolist() == [0, 0.5, 0.5, 0.5, 0]
    assert flow(x).equal(flow.log_prob(x)) and flow.event_shape == (1,) and flow.exact
    assert flow.sample(7).shape == (7, 1)


@pytest.mark.parametrize("flow", [
    lambda: fl.Flow(fl.Uniform(0.0, 2.0), fl.Exp()),
    lambda: fl.Flow(fl.StandardNormal(1), fl.Compose(fl.Exp(), fl.AffineMap(3.0, -1.0))),
    lambda: fl.Flow(fl.StandardNormal(1), fl.Compose(fl.AffineMap(-1.0), fl.Exp(), fl.Exp())),
    lambda: fl.Flow(fl.Uniform(0.0, 1.0), fl.InverseCDF(torch.distributions.Exponential(torch.tensor(1.0)))),
    lambda: fl.Flow(fl.StandardLogistic(1), fl.Inverse(fl.Logit())),
    lambda: fl.Flow(fl.StandardNormal(1),
                    fl.Inverse(fl.InverseCDF(torch.distributions.Normal(torch.tensor(0.0), torch.tensor(1.0))))),
], ids=["exp", "exp, then affine", "exp twice", "exponential law", "sigmoid", "normal cdf"])
def test_outside_the_support_the_density_is_zero(flow):
    """-inf, never NaN, wherever in a chain the support ends; and a gradient that is not NaN."""
    flow = flow().double()
    x = torch.tensor([[-1e30], [-5.0], [-1.0], [0.0], [0.5], [1.5], [9.0], [1e30], [torch.inf], [-torch.inf]], dtype=D,
                     requires_grad=True)
    log_p = flow.log_prob(x)
    assert not log_p.isnan().any() and bool((log_p < torch.inf).all())
    assert bool((log_p == -torch.inf).any()) and bool(log_p.isfinite().any())
    log_p[log_p.isfinite()].sum().backward()
    assert not x.grad.isnan().any()


def test_infinity_is_no_point_of_any_flow():
    for flow in (fl.RealNVP(3), fl.NSF(3), fl.NICE(3)):
        x = torch.zeros(3, 3)
        x[0, 1], x[1, 2] = torch.inf, -torch.inf
        log_p = flow.log_prob(x)
        assert log_p[:2].tolist() == [-torch.inf, -torch.inf] and log_p[2].isfinite()


def test_compose_adds_and_orders():
    """x = exp(2 z + 1): left to right in the generative direction."""
    f = fl.Compose(fl.AffineMap(2.0, 1.0), fl.Exp())
    z = torch.tensor([0.25], dtype=D)
    x, log_det = f(z)
    assert x.item() == pytest.approx(math.exp(1.5)) and log_det.item() == pytest.approx(math.log(2) + 1.5)
    back, log_det = f.inverse(x)  # ln and then the line: the last part first
    assert back.item() == pytest.approx(0.25) and log_det.item() == pytest.approx(-math.log(2) - 1.5)


def test_inverse_swaps():
    f = fl.Inverse(fl.Exp())
    assert f.domain is fl.Exp.codomain and f.codomain is fl.Exp.domain
    pixels = fl.Inverse(fl.Reshape((4,), (1, 2, 2)))
    assert (pixels.latent_ndim, pixels.event_ndim) == (3, 1) and pixels.latent_shape == (1, 2, 2)


def test_the_weakest_part_decides():
    chain = fl.Compose(fl.Reshape((4,), (1, 2, 2)), fl.Dequantize(4))
    assert chain.likelihood == "bound" and fl.Inverse(chain).likelihood == "bound"
    assert fl.Compose(fl.Exp()).likelihood == "exact"


@pytest.mark.parametrize("broken, words", [
    (lambda: fl.Compose(), "at least one"),
    (lambda: fl.Compose(fl.Planar(2), fl.Planar(3)), r"\(2,\).*\(3,\)"),
    (lambda: fl.Compose(fl.Planar(4), fl.Dequantize(4)), "axes"),
    (lambda: fl.Compose(fl.Planar(2, context_dim=3), fl.Planar(2, context_dim=4)), "shapes"),
    (lambda: fl.Flow(fl.StandardNormal(3), fl.Planar(2)), r"\(3,\)"),
    (lambda: fl.Flow(fl.StandardNormal(2, 2), fl.Exp()), "axes"),
    (lambda: fl.RealNVP(2).log_prob(torch.zeros(5, 3)), r"\(2,\).*\(5, 3\)"),
    (lambda: fl.RealNVP(2).log_prob(torch.zeros(5, 2), torch.zeros(3)), "context"),
    (lambda: fl.RealNVP(2, context_dim=3).log_prob(torch.zeros(5, 2)), "context"),
    (lambda: fl.RealNVP(2).log_prob(torch.zeros(5, 2, dtype=D)), "float64"),
    (lambda: fl.RealNVP(1), "dim"),
    (lambda: fl.Coupling(0, fl.Affine()), "dim"),
    (lambda: fl.RealNVP(2).sample(3, temperature=-1.0), "temperature"),
    (lambda: fl.Flow(fl.Uniform(0.0, 1.0), fl.AffineMap(2.0)).sample(3, temperature=0.5), "temperature"),
    (lambda: fl.Flow(fl.GaussianMixture(torch.zeros(2, 1)), fl.AffineMap(2.0)).sample(3, temperature=0.5),
     "temperature"),
    (lambda: fl.Uniform(1.0, 1.0), "low < high"),
    (lambda: fl.StandardNormal(), "shape"),
    (lambda: fl.GaussianMixture(torch.zeros(2)), r"\(K, D\)"),
    (lambda: fl.GaussianMixture(torch.zeros(2, 1), scales=0.0), "positive"),
    (lambda: fl.Affine(bound=0.0), "bound"),
    (lambda: fl.RationalQuadraticSpline(bins=0), "bin"),
])
def test_what_does_not_fit_is_a_value_error(broken, words):
    with pytest.raises(ValueError, match=words):
        broken()


# --- sampling


def test_samples_of_many_contexts_in_one_call():
    flow = fl.RealNVP(2, context_dim=3, layers=2)
    context = torch.randn(5, 3)
    assert flow.sample(7, context).shape == (7, 5, 2)
    assert flow.sample(7, context[0]).shape == (7, 2)
    x, log_p = flow.rsample_and_log_prob(7, context)
    assert x.shape == (7, 5, 2) and torch.allclose(log_p, flow.log_prob(x, context), atol=1e-5)


def test_samples_have_no_gradient_and_rsamples_have():
    flow = fl.Flow(fl.StandardNormal(2), fl.Planar(2))
    assert not flow.sample(3).requires_grad
    x, log_p = flow.rsample_and_log_prob(3)
    (x.sum() + log_p.sum()).backward()
    assert flow.bijection.params.grad.abs().max() > 0


def test_a_mixture_has_no_reparameterised_samples():
    with pytest.raises(TypeError):
        fl.Flow(fl.GaussianMixture(torch.zeros(2, 1)), fl.AffineMap(2.0)).rsample_and_log_prob(3)


def test_temperature_scales_the_deviation():
    """The latents' covariance is T^2 times the base's."""
    for base in (fl.StandardNormal(2), fl.StandardLogistic(2)):
        torch.manual_seed(0)
        warm = base.sample((50_000,))
        torch.manual_seed(0)
        cool = base.sample((50_000,), temperature=0.7)
        assert torch.allclose(cool, 0.7 * warm)
    assert fl.StandardNormal(2).sample((4,), temperature=0.0).abs().max() == 0


@pytest.mark.parametrize("base, cdf", [
    (lambda: fl.StandardNormal(1), torch.special.ndtr),
    (lambda: fl.StandardLogistic(1), torch.sigmoid),
    (lambda: fl.Uniform(-1.0, 3.0), lambda x: ((x + 1) / 4).clamp(0, 1)),
    (lambda: fl.GaussianMixture(torch.tensor([[-2.0], [1.0]]), torch.tensor([[0.5], [1.0]]), torch.tensor([1.0, 3.0])),
     lambda x: 0.25 * torch.special.ndtr((x + 2) / 0.5) + 0.75 * torch.special.ndtr(x - 1)),
], ids=["normal", "logistic", "uniform", "mixture"])
def test_bases_draw_what_they_say(base, cdf):
    base, n = base().double(), 40_000
    x = base.sample((n,))
    assert x.dtype == D and fl.checks.ks_distance(x, cdf) < 1.95 / math.sqrt(n)  # exceeded once in 1000 seeds
    flow = fl.Flow(base, fl.AffineMap(1.0))
    # the uniform law's two edges cost up to half a grid cell each
    assert fl.checks.total_probability(flow, -16.0, 16.0, 3201) == pytest.approx(1, abs=3e-3)


def test_to_double_moves_sampling_too():
    flow = fl.NICE(3).double()
    assert flow.sample(4).dtype == D and flow.log_prob(flow.sample(4)).dtype == D


# --- data-dependent start


def test_initialize_is_once_and_through_inverse():
    scale = fl.DiagonalScale(2)
    flow = fl.Flow(fl.StandardNormal(2), fl.Compose(fl.AffineMap(torch.tensor([1.0, 2.0])), fl.Inverse(scale)))
    x = torch.randn(1000, 2) * torch.tensor([3.0, 0.5])
    flow.initialize(x)
    assert bool(scale.initialized)
    assert torch.allclose(flow.encode(x).std(0) * torch.tensor([1.0, 2.0]), torch.ones(2), atol=1e-4)
    kept = scale.log_scale.clone()
    flow.initialize(10 * x)
    assert torch.equal(kept, scale.log_scale)
    flow.train().eval().log_prob(10 * x)
    assert torch.equal(kept, scale.log_scale)


def test_initialize_survives_save_and_load(tmp_path):
    flow = fl.NICE(2)
    flow.initialize(5 * torch.randn(100, 2))
    fl.save(flow, tmp_path)
    again = fl.load(tmp_path)
    again.initialize(torch.randn(100, 2))
    assert torch.equal(flow.bijection.bijections[0].log_scale, again.bijection.bijections[0].log_scale)


# --- files


def test_nested_flows_are_saved_by_their_calls(tmp_path):
    normal = torch.distributions.Normal(torch.tensor([0.5, -1.0]), torch.tensor([1.0, 2.0]))
    flow = fl.Flow(fl.Uniform(torch.zeros(2), torch.ones(2)), fl.Compose(
        fl.InverseCDF(normal), fl.Inverse(fl.Planar(2)), fl.Permutation([1, 0]),
        fl.Linear(torch.tensor([[2.0, 1.0], [0.0, 1.0]])),
        fl.Elementwise(2, fl.RationalQuadraticSpline(bins=4, box=3.0))))
    fl.save(flow, tmp_path)
    again = fl.load(tmp_path)
    x = flow.sample(20)
    assert torch.equal(flow.log_prob(x), again.log_prob(x))
    assert sorted(os.listdir(tmp_path)) == ["model.json", "model.safetensors"]


def test_damaged_files_are_refused_by_name(tmp_path):
    fl.save(fl.RealNVP(2), tmp_path)
    weights = tmp_path / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=str(tmp_path)):
        fl.load(tmp_path)
    weights.write_bytes(whole)
    structure = json.loads((tmp_path / "model.json").read_text())
    for flow, words in (({"class": "os.system", "args": ["true"], "kwargs": {}}, "not known"),
                        ({"class": "RealNVP", "args": [3], "kwargs": {}}, "do not fit")):
        (tmp_path / "model.json").write_text(json.dumps(structure | {"flow": flow}))
        with pytest.raises(ValueError, match=words):
            fl.load(tmp_path)
    (tmp_path / "model.json").write_text("{")
    with pytest.raises(ValueError, match="damaged"):
        fl.load(tmp_path)
    with pytest.raises(FileNotFoundError):
        fl.load(tmp_path / "nowhere")


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    flow = fl.RealNVP(2)
    fl.save(flow, tmp_path)
    before = (tmp_path / "model.safetensors").read_bytes()

    def full_disk(fd):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="space"):
        fl.save(fl.RealNVP(2), tmp_path)
    assert (tmp_path / "model.safetensors").read_bytes() == before and len(os.listdir(tmp_path)) == 2


def test_what_json_cannot_hold_is_refused(tmp_path):
    class Odd(fl.Exp):
        def __init__(self, f):
            super().__init__()

    with pytest.raises(TypeError, match="function"):
        fl.save(fl.Flow(fl.StandardNormal(1), Odd(lambda: 0)), tmp_path)


def test_import_needs_torch_and_numpy_alone():
    import subprocess
    import sys

    code = ("import sys, flowlib; heavy = {'scipy', 'matplotlib', 'sklearn', 'accelerate', 'pooch', 'ipywidgets', "
            "'safetensors'} & set(sys.modules); sys.exit(str(heavy) if heavy else 0)")
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_second_start_returns_at_once_whatever_it_is_given():
    flow = fl.Flow(fl.StandardNormal(2), fl.ActNorm(2))
    flow.initialize(torch.randn(10, 2))
    flow.initialize(torch.zeros(1, 99))
    with pytest.raises(ValueError, match="events of shape"):
        fl.Flow(fl.StandardNormal(2), fl.ActNorm(2)).initialize(torch.zeros(1, 99))
