"""Saving refuses what a file cannot hold, loading refuses what is damaged, and between the two nothing changes."""
import copy
import json
import os
import types

import pytest
import torch
from registry import ENTRIES
from torch import nn

import flowlib as fl


def small():
    torch.manual_seed(0)
    flow = fl.RealNVP(2, layers=2, hidden=(8,))
    with torch.no_grad():
        for p in flow.parameters():
            p.add_(0.3 * torch.randn_like(p))
    return flow


# --- what was changed after its constructor's call


def activation(flow):
    flow.bijection.bijections[0].net.layers[1] = nn.Tanh()


def attribute(flow):
    flow.bijection.bijections[1].elementwise.bound = 0.5


def layer_without_parameters(flow):
    flow.bijection.bijections.append(fl.AffineMap(2.0))


def layer_with_parameters(flow):
    flow.bijection.bijections.append(fl.Planar(2))


def weight_norm(flow):
    nn.utils.parametrizations.weight_norm(flow.bijection.bijections[0].net.layers[0])


def wider(flow):
    flow.bijection.bijections[0].net.layers[0].weight = nn.Parameter(torch.zeros(9, 1))


def method(flow):
    flow.bijection.bijections[0].forward = types.MethodType(lambda self, z, context=None: (2 * z, 0), flow)


def further_buffer(flow):
    flow.register_buffer("note", torch.ones(1))


def half_double(flow):
    flow.bijection.bijections[0].double()


def without_values(flow):
    flow.to("meta")


def order(flow):
    layers = flow.bijection.bijections[0].net.layers
    first = layers._modules.pop("0")
    layers._modules["0"] = first


def tied_weights(flow):
    a, b = (f.net.layers[0] for f in flow.bijection.bijections)
    a.weight = b.weight


@pytest.mark.parametrize("change, where", [
    (activation, "bijections.0.net.layers.1 is of type Tanh"), (attribute, "bijections.1.elementwise.bound is 0.5"),
    (layer_without_parameters, "bijections.2"), (layer_with_parameters, "bijections.2"), (weight_norm, "layers.0"),
    (wider, r"bijections.0.net.layers.0.weight"),
    (half_double, "this one mixes"), (without_values, "meta device has no weights"),
    (method, "bijections.0.forward"), (further_buffer, "note"),
    (order, "bijections.0.net.layers are in another order"), (tied_weights, "layers.0.weight"),
], ids=lambda v: getattr(v, "__name__", ""))
def test_a_changed_flow_is_not_saved(tmp_path, change, where):
    flow = small()
    fl.check_saveable(flow)
    change(flow)
    with pytest.raises(TypeError, match=where):
        fl.check_saveable(flow)
    with pytest.raises(TypeError, match=where):
        fl.save(flow, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_buffer_of_another_integer_type_is_not_saved():
    flow = fl.Flow(fl.StandardNormal(2), fl.Permutation([1, 0]))
    fl.check_saveable(flow)
    flow.bijection.order = flow.bijection.order.int()
    with pytest.raises(TypeError, match="is torch.int32 of shape"):
        fl.check_saveable(flow)


def test_a_changed_flow_is_not_trained_into_a_folder(tmp_path):
    pytest.importorskip("accelerate")
    from flowlib.train import fit

    flow = small()
    activation(flow)
    with pytest.raises(TypeError, match="Tanh"):
        fit(flow, torch.randn(40, 2), steps=1, batch_size=8, cpu=True, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    fit(flow, torch.randn(40, 2), steps=1, batch_size=8, cpu=True)  # without a folder there is nothing to refuse


def test_an_argument_changed_after_the_call_is_seen(tmp_path):
    scale = torch.ones(2)
    flow = fl.Flow(fl.StandardNormal(2), fl.AffineMap(scale))
    scale.mul_(3)  # the layer holds a copy
    fl.save(flow, tmp_path)
    assert torch.equal(fl.load(tmp_path).bijection.scale, torch.ones(2))
    scale.zero_()
    with pytest.raises(TypeError, match="non-zero"):
        fl.save(flow, tmp_path)


def test_a_constant_outside_the_state_is_compared_by_its_values(tmp_path):
    class Random(fl.Exp):
        def __init__(self):
            super().__init__()
            self.shift = torch.randn(3)

    class Fixed(fl.Exp):
        def __init__(self):
            super().__init__()
            self.shift = torch.arange(3.0)

    fl.save(fl.Flow(fl.StandardNormal(3), Fixed()), tmp_path)
    with pytest.raises(TypeError, match="bijection.shift holds other numbers"):
        fl.save(fl.Flow(fl.StandardNormal(3), Random()), tmp_path)
    finer = fl.Flow(fl.StandardNormal(3), Fixed())
    finer.bijection.shift = finer.bijection.shift.double()  # the same numbers
    with pytest.raises(TypeError, match="bijection.shift is torch.float64"):
        fl.save(finer, tmp_path)


@pytest.mark.parametrize("entry", [e for e in ENTRIES if "save" not in e.exempt], ids=lambda e: e.name)
def test_every_flow_is_built_on_the_meta_device_and_saveable(entry, monkeypatch):
    dim, width = entry.dims[-1], 3 if entry.context else None
    flow = entry.flow(dim, width)
    before = torch.get_rng_state()
    fl.check_saveable(flow)
    fl.check_saveable(copy.deepcopy(flow))
    assert torch.equal(before, torch.get_rng_state())
    monkeypatch.setattr(torch.distributions.Distribution, "_validate_args", False)  # its checks read values
    with torch.device("meta"):
        shapes = {k: v.shape for k, v in entry.make(dim, width).state_dict().items()}
    assert shapes == {k: v.shape for k, v in entry.make(dim, width).state_dict().items()}


def test_training_of_what_is_not_the_flow_does_not_matter(tmp_path):
    flow = small().double().eval()
    for p in flow.parameters():
        p.requires_grad_(False)
    flow.register_forward_hook(lambda *_: None)
    flow.bijection.bijections[0].compile(backend="eager")
    fl.save(flow, tmp_path)
    x = torch.randn(5, 2, dtype=torch.float64)
    assert torch.equal(fl.load(tmp_path).log_prob(x), flow.log_prob(x))


def test_tied_layers_stay_tied(tmp_path):
    layer = fl.Planar(2)
    flow = fl.Flow(fl.StandardNormal(2), fl.Compose(layer, fl.Permutation([1, 0]), layer, fl.Inverse(layer)))
    fl.save(flow, tmp_path)
    again = fl.load(tmp_path)
    first, _, third, back = again.bijection.bijections
    assert first is third is back.bijection and len(list(again.parameters())) == 1
    assert torch.equal(again.log_prob(torch.ones(2)), flow.log_prob(torch.ones(2)))


CELL = """
class Shift(fl.Bijection):
    def __init__(self, dim):
        super().__init__()
        self.event_shape = self.latent_shape = (dim,)
        self.b = torch.nn.Parameter(torch.ones(dim))
    def forward(self, z, context=None): return z + self.b, z.new_zeros(z.shape[:-1])
    def inverse(self, x, context=None): return x - self.b, x.new_zeros(x.shape[:-1])
"""


def test_a_class_cell_that_runs_again(tmp_path):
    names = {"fl": fl, "torch": torch, "__name__": "notebook"}
    exec(CELL, names)
    flow = fl.Flow(fl.StandardNormal(2), names["Shift"](2))
    exec("\n\n" + CELL, names)
    fl.save(flow, tmp_path)
    again = fl.load(tmp_path)
    assert type(again.bijection) is names["Shift"]
    assert torch.equal(again.log_prob(torch.ones(2)), flow.log_prob(torch.ones(2)))
    exec(CELL.replace("z + self.b", "z - self.b"), names)
    with pytest.raises(TypeError, match="Shift that has been defined anew"):
        fl.save(flow, tmp_path)


def test_arrays_and_lists_among_the_arguments(tmp_path):
    import numpy as np

    flow = fl.Flow(fl.Uniform([0, 0], np.array([2.0, np.float32(3.0)])), fl.Compose(
        fl.Linear(np.eye(2) * 2), fl.AffineMap(np.float32(0.5), [1, 2]), fl.Permutation(np.array([1, 0]))))
    fl.save(flow, tmp_path)
    x = flow.sample(5)
    assert torch.equal(fl.load(tmp_path).log_prob(x), flow.log_prob(x)) and bool(flow.log_prob(x).isfinite().all())


# --- loading


def test_load_gives_eval_mode(tmp_path):
    flow = fl.Flow(fl.StandardNormal(2), fl.BatchNorm(2))
    flow.log_prob(torch.randn(100, 2) + 3)
    assert flow.training
    fl.save(flow, tmp_path)
    again = fl.load(tmp_path)
    assert not any(m.training for m in again.modules())
    assert torch.equal(again.log_prob(torch.zeros(1, 2)), flow.eval().log_prob(torch.zeros(1, 2)))


def test_load_is_on_the_cpu_and_draws_nothing(tmp_path):
    flow = fl.Flow(fl.Uniform(0.0, 1.0), fl.Compose(fl.Inverse(fl.Logit()), fl.AffineMap([2.0]), fl.Planar(1)))
    fl.save(flow, tmp_path)
    before = torch.get_rng_state()
    try:
        torch.set_default_device("meta")  # stands for a GPU
        again = fl.load(tmp_path)
    finally:
        torch.set_default_device(None)
    assert {t.device.type for t in (*again.parameters(), *again.buffers())} == {"cpu"}
    assert torch.equal(before, torch.get_rng_state())


def deep(n):
    return json.loads("[" * n + "]" * n)


def flow_with(**changes):
    return lambda s: {**s, "flow": {**s["flow"], **changes}}


@pytest.mark.parametrize("damage", [
    lambda s: [], lambda s: 3, lambda s: None, lambda s: {}, lambda s: {**s, "format": 2},
    lambda s: {**s, "dtype": "nn"}, lambda s: {**s, "dtype": "nothing"}, lambda s: {**s, "dtype": "int64"},
    lambda s: {**s, "dtype": "float16"}, lambda s: {**s, "dtype": 3},
    lambda s: {**s, "flow": 3}, lambda s: {**s, "flow": {}}, lambda s: {**s, "flow": {"class": "RealNVP"}},
    flow_with(args=3), flow_with(args=[]), flow_with(args=["2"]), flow_with(args=[{"tuple": 3}]),
    flow_with(args=[{"again": 0}]), flow_with(args=[{"tensor": "x"}]), flow_with(args=[10**9]),
    flow_with(args=[10**4000]),
    flow_with(**{"class": ["RealNVP"]}), flow_with(**{"class": "Affine"}), flow_with(kwargs=[]),
    flow_with(kwargs={"layers": 10**9}), flow_with(kwargs={"layers": -1}), flow_with(kwargs={"colour": 1}),
    flow_with(kwargs={"hidden": {"tuple": [10**9]}}), lambda s: {**s, "flow": {"tuple": deep(900)}},
    lambda s: {**s, "flow": {"distribution": "Cauchy", "kwargs": {}}},
    lambda s: {**s, "flow": {"class": "Rotation", "args": [10**6], "kwargs": {}}},
    lambda s: {**s, "flow": {"class": "Householder", "args": [2], "kwargs": {"reflections": 10**9, "context_dim": 2}}},
])
def test_a_damaged_structure_is_one_error(tmp_path, damage):
    fl.save(small(), tmp_path)
    file = tmp_path / "model.json"
    file.write_text(json.dumps(damage(json.loads(file.read_text()))))
    with pytest.raises(ValueError, match="is damaged"):
        fl.load(tmp_path)


@pytest.mark.parametrize("text", ["", "[" * 200_000, '{"format": 1', "\xff", "1" * 5000, '{"format": NaN}'])
def test_what_is_no_json_is_the_same_error(tmp_path, text):
    fl.save(small(), tmp_path)
    (tmp_path / "model.json").write_text(text, encoding="latin-1")
    with pytest.raises(ValueError, match="is damaged"):
        fl.load(tmp_path)


@pytest.mark.parametrize("damage", [
    lambda t: t.fill_(torch.nan), torch.Tensor.double, torch.Tensor.half, lambda t: t.flatten()[:1].clone(),
    lambda t: t[None].clone()])
def test_damaged_weights_are_the_same_error(tmp_path, damage):
    from safetensors.torch import load_file, save_file

    flow = small()
    fl.save(flow, tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    key = "state.bijection.bijections.0.net.layers.0.weight"
    assert key in tensors
    save_file({**tensors, key: damage(tensors[key])}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="is damaged"):
        fl.load(tmp_path)
    save_file({k: v for k, v in tensors.items() if k != key}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="missing"):
        fl.load(tmp_path)
    with torch.no_grad():
        next(flow.parameters()).fill_(torch.nan)
    with pytest.raises(ValueError, match="NaN"):  # nor is it written
        fl.save(flow, tmp_path)


def test_a_constructor_that_reads_values_is_saved_too(tmp_path):
    class Counts(fl.Exp):
        def __init__(self, n):
            super().__init__()
            self.register_buffer("squares", torch.arange(n) ** 2)
            self.total = self.squares.sum().item()  # not on the meta device

    fl.save(fl.Flow(fl.StandardNormal(1), Counts(4)), tmp_path)
    assert fl.load(tmp_path).bijection.total == 14


def test_a_pipe_is_no_model(tmp_path):
    fl.save(small(), tmp_path)
    (tmp_path / "model.json").unlink()
    with pytest.raises(FileNotFoundError):
        fl.load(tmp_path)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "model.json")
        with pytest.raises(FileNotFoundError):
            fl.load(tmp_path)
