"""`python -m flowlib.evaluate`: bits/dim that are known, the tighter bound, and a round trip that can go wrong."""
import json
import math
import shlex
import shutil

import numpy as np
import pytest
import safetensors.torch
import torch

import flowlib as fl
from flowlib.evaluate import bits, log_likelihood, reconstruction, round_trip
from flowlib.evaluate.__main__ import evaluate, main
from flowlib.evaluate.likelihood import mean
from flowlib.train import __main__ as train


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "digits"
    train.main(["--model", "glow", "--data", "digits", "--levels", "8", "--out", str(out), "--steps", "4", "--hidden",
                "8", "--layers", "1", "--batch-size", "32"])
    return out


def test_the_command_prints_what_it_measures(out, tmp_path, capsys):
    capsys.readouterr()
    main([str(out), "--draws", "3", "--images", "50", "--json", str(tmp_path / "e.json")])
    printed, found = capsys.readouterr().out.splitlines(), json.loads((tmp_path / "e.json").read_text())
    assert printed[0] == f"glow of {out} on digits, test"
    for line, part, images in zip(printed[2:5], ("all", "few", "weighted"), (300, 50, 50)):
        row = found[part]
        value, error, count = line.split("<=")[1].split()
        expected = (f"{row['bits_per_dim']:.4f}", f"{row['standard_error']:.4f}", str(images))
        assert (value, error, count) == expected
    assert "weighted, 3 draws" in printed[4] and found["weighted"]["draws"] == 3
    assert found["weighted"]["bits_per_dim"] < found["few"]["bits_per_dim"]
    metrics = json.loads((out / "metrics.json").read_text())
    assert found["all"]["bits_per_dim"] == pytest.approx(metrics["test_bits_per_dim"], abs=0.02)
    for line, name in zip(printed[5:], ("float32", "float64")):
        assert line == (f"round trip, {name}: largest error {found[name]['error']:.1e} on the unit interval; "
                        "all 3,200 pixels come back exactly")
    assert found["float32"]["error"] < 1e-5 and found["float64"]["error"] < 1e-13


def test_the_same_seed_gives_the_same_numbers(out, tmp_path):
    for name in ("a", "b"):
        main([str(out), "--images", "20", "--draws", "2", "--json", str(tmp_path / name)])
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_bits_of_a_uniform_flow():
    """4 bits for 16 levels, and the room around integers, from every draw: nothing to tighten."""
    flow = fl.Pixels(fl.Flow(fl.Uniform(torch.zeros(4), torch.ones(4)), fl.AffineMap(1.0, 0.0)), (1, 2, 2), levels=16)
    found = evaluate(flow, torch.randint(0, 16, (30, 1, 2, 2), dtype=torch.uint8), draws=4, images=20)
    for part, images, draws in (("all", 30, 1), ("few", 20, 1), ("weighted", 20, 4)):
        assert found[part]["bits_per_dim"] == pytest.approx(4, abs=1e-3) and found[part]["standard_error"] < 1e-6
        assert (found[part]["images"], found[part]["draws"]) == (images, draws)


def test_the_standard_error_is_that_of_the_mean():
    assert mean(torch.tensor([0.0, 2.0])) == pytest.approx((1.0, 1.0))
    assert mean(torch.tensor([0.0, 2.0, 4.0, 6.0])) == pytest.approx((3.0, math.sqrt(20 / 3 / 4)))


class Rough(fl.Bijection):
    """Decoding misses by a third of a level."""

    latent_ndim = event_ndim = 3
    miss = 1 / 48

    def forward(self, z, context=None):
        return z + self.miss, z.new_zeros(z.shape[:-3])

    def inverse(self, x, context=None):
        return x, x.new_zeros(x.shape[:-3])


def test_a_round_trip_that_misses_is_seen():
    flow = fl.Flow(fl.StandardNormal(1, 10, 10), fl.Compose(Rough(), fl.Dequantize(16)))
    x = torch.randint(0, 15, (400, 1, 10, 10), dtype=torch.uint8)
    error, wrong, pixels = round_trip(flow, x, torch.float64)
    assert error == pytest.approx(Rough.miss) and pixels == 40_000
    # noise in the upper third of the cell crosses its edge
    assert abs(wrong / pixels - 1 / 3) < 4 * math.sqrt(2 / 9 / pixels)
    assert next(flow.buffers()).dtype == torch.float32  # the flow itself is left as it was


def test_other_data_and_errors(out, tmp_path, capsys):
    main([str(out), "--data", "digits", "--split", "val", "--images", "10", "--draws", "1"])
    assert "on digits, val" in capsys.readouterr().out
    assert "this flow is over events of shape (1, 8, 8)" in refused([str(out), "--data", "mnist-small"], capsys)
    assert "unknown data set 'elsewhere'" in refused([str(out), "--data", "elsewhere"], capsys)
    assert "there is no file" in refused([str(tmp_path)], capsys, status=1)


def refused(arguments, capsys, status=2):
    """The one line with which the command ends."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    said = capsys.readouterr().err
    assert stopped.value.code == status and said.count("\n") == 1 and said.endswith("\n"), said
    return said


@pytest.mark.parametrize("change, message", [
    ("--draws 0", "argument --draws: must be a whole number from 1"), ("--images 0", "argument --images: must be"),
    ("--images -3", "argument --images: must be"), ("--seed -1", "argument --seed: must be"),
    ("--threads 0", "argument --threads: must be"), ("--threads 100000", "argument --threads: must be"),
    ("--device nowhere", "argument --device: 'nowhere' cannot be used here"), ("--split all", "invalid choice: 'all'"),
    ("--device meta", "argument --device: 'meta' cannot be used here"), ("--data ''", "unknown data set ''"),
])
def test_wrong_arguments(out, capsys, change, message):
    assert message in refused([str(out), *shlex.split(change)], capsys)


def cut(folder, name):
    (folder / name).write_bytes((folder / name).read_bytes()[:60])


def with_weights(change):
    def damage(folder):
        path = folder / "model.safetensors"
        tensors = safetensors.torch.load_file(path)
        name = next(name for name, t in tensors.items() if t.is_floating_point() and t.numel() > 3)
        tensors[name].view(-1)[3] = change
        safetensors.torch.save_file(tensors, path)

    return damage


@pytest.mark.parametrize("damage, message, status", [
    (lambda folder: shutil.rmtree(folder), "is no folder", 2),
    (lambda folder: (folder / "model.json").unlink(), "there is no file", 1),
    (lambda folder: (folder / "model.safetensors").unlink(), "there is no file", 1),
    (lambda folder: cut(folder, "model.json"), "is damaged", 2),
    (lambda folder: cut(folder, "model.safetensors"), "is damaged", 2),
    (lambda folder: cut(folder, "metrics.json"), "metrics.json is damaged", 2),
    (lambda folder: (folder / "metrics.json").write_text("[1]"), "it holds no metrics of a run", 2),
    (lambda folder: (folder / "metrics.json").write_text('{"data": 3}'), "it holds no metrics of a run", 2),
    (lambda folder: (folder / "metrics.json").unlink(), "says what data the model is for: give --data", 2),
    (with_weights(math.nan), "NaN", 2),
    (with_weights(math.inf), "", 2),
    (lambda folder: fl.save(fl.Exp(), folder), "is a Exp, not a flow", 2),
], ids=["no folder", "no structure", "no weights", "structure cut", "weights cut", "metrics cut", "other metrics",
        "metrics without data", "no metrics", "NaN", "infinity", "no flow"])
def test_a_broken_folder_is_one_line(out, tmp_path, capsys, damage, message, status):
    folder = shutil.copytree(out, tmp_path / "run")
    damage(folder)
    assert message in refused([str(folder)], capsys, status)


def test_numbers_that_cannot_be_written_are_still_printed(out, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([str(out), "--images", "10", "--draws", "1", "--json", str(tmp_path / "nowhere" / "e.json")])
    printed = capsys.readouterr()
    assert stopped.value.code == 1 and "No such file" in printed.err and "round trip, float64" in printed.out


# Vectors, contexts, NaN


def test_a_flow_over_vectors(tmp_path, capsys):
    """p = N(1, 2^2) in each of three coordinates: mean log-likelihood and its error by formula."""
    flow = fl.Flow(fl.StandardNormal(3), fl.AffineMap(2.0 * torch.ones(3), torch.ones(3)))
    x = 1 + 2 * torch.randn(500, 3)
    log_p = torch.distributions.Normal(1.0, 2.0).log_prob(x.double()).sum(1)
    torch.testing.assert_close(log_likelihood(flow, x, batch_size=120), log_p, rtol=0, atol=1e-4)
    value, error = bits(flow, x)
    assert value == pytest.approx(-log_p.mean().item() / (3 * math.log(2)), abs=1e-5)
    assert error == pytest.approx(log_p.std().item() / math.sqrt(500) / (3 * math.log(2)), abs=1e-5)
    found = evaluate(flow, x, images=100)
    assert set(found) == {"all", "float32", "float64"} and found["float64"]["wrong_pixels"] is None
    assert found["all"]["nats"] == pytest.approx(log_p.mean().item(), abs=1e-4) and found["float64"]["error"] < 1e-12
    fl.save(flow, tmp_path)
    np.save(tmp_path / "x.npy", x.numpy())
    main([str(tmp_path), "--data", str(tmp_path / "x.npy")])
    printed = capsys.readouterr().out.splitlines()
    assert printed[1].split() == ["log-likelihood,", "nats", "±", "s.e.", "rows"] and len(printed) == 5
    assert printed[2].split() == ["all", f"{log_p.mean():.4f}", f"{log_p.std() / math.sqrt(500):.4f}", "500"]
    for name, rows, message in (
            ("pickle", np.array([{}]), "is no array of numbers"), ("nan", np.full((2, 3), np.nan), "NaN"),
            ("wide", np.zeros((2, 4), np.float32), "shape (3,)"), ("none", np.zeros((0, 3)), "needs rows")):
        np.save(tmp_path / f"{name}.npy", rows)
        assert message in refused([str(tmp_path), "--data", str(tmp_path / f"{name}.npy")], capsys)


def test_contexts_go_with_their_rows():
    flow = fl.RealNVP(2, layers=2, hidden=(8,), context_dim=3)
    with torch.no_grad():
        for p in flow.parameters():
            p.normal_(0, 0.5)
    x, c = torch.randn(70, 2), torch.randn(70, 3)
    found = log_likelihood(flow, x, c, batch_size=30)
    torch.testing.assert_close(found, flow.log_prob(x, c).double(), rtol=0, atol=1e-5)
    assert round_trip(flow, x, torch.float64, batch_size=30, context=c).error < 1e-9
    pixels = fl.Glow((1, 4, 4), levels=8, scales=1, steps=1, hidden=4, context_dim=3)
    images = torch.randint(8, (70, 1, 4, 4), dtype=torch.uint8)
    pixels.initialize(images, c)
    assert round_trip(pixels, images, torch.float64, context=c).wrong == 0
    assert evaluate(pixels, images, c, draws=2, images=40)["weighted"]["images"] == 40
    with pytest.raises(ValueError, match="70 rows and 3 contexts"):
        log_likelihood(flow, x, c[:3])


def test_a_round_trip_to_nowhere_is_not_exact():
    flow = fl.Glow((1, 4, 4), levels=8, scales=1, steps=1, hidden=4)
    x = torch.randint(8, (5, 1, 4, 4), dtype=torch.uint8)
    flow.initialize(x)
    with torch.no_grad():
        next(flow.parameters()).fill_(math.nan)
    trip = round_trip(flow, x, torch.float32, batch_size=2)
    assert math.isnan(trip.error) and trip.wrong > 0
    assert math.isnan(bits(flow, x)[0])
    with pytest.raises(ValueError, match="does not dequantize"):
        round_trip(fl.RealNVP(4), x.flatten(1), torch.float32)
    with pytest.raises(ValueError, match="needs rows"):
        round_trip(flow, x[:0], torch.float32)


class NoDouble(torch.overrides.TorchFunctionMode):
    """Stands for a device without float64: a tensor has to be fetched by `.cpu()` first."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        wants = func is torch.Tensor.double or torch.float64 in (*args, *kwargs.values())
        if wants and func in (torch.Tensor.double, torch.Tensor.to) and args[0].dtype != torch.float64:
            if not getattr(args[0], "fetched", False):
                raise TypeError("Cannot convert a MPS Tensor to float64 dtype as MPS doesn't support float64.")
        found = func(*args, **kwargs)
        if func is torch.Tensor.cpu:
            found = found.view_as(found)
            found.fetched = True
        return found


@pytest.mark.parametrize("work", [
    lambda flow: fl.checks.total_probability(flow, -5.0, 5.0, n=21),
    lambda flow: fl.checks.ks_distance(torch.rand(50), lambda x: x.clamp(0, 1)),
    lambda flow: fl.importance.pareto_k(torch.rand(100)),
    lambda flow: bits(flow, torch.randn(20, 2))[0],
    lambda flow: fl.evaluate.gaussian_bits(torch.randint(4, (20, 1, 2, 2)), torch.randint(4, (20, 1, 2, 2))),
], ids=["total_probability", "ks_distance", "pareto_k", "bits", "gaussian_bits"])
def test_float64_is_not_asked_of_a_device(work):
    flow = fl.RealNVP(2, layers=2, hidden=(4,))
    torch.manual_seed(1)
    expected = work(flow)
    torch.manual_seed(1)
    with NoDouble():
        assert work(flow) == pytest.approx(expected)


def test_the_round_trip_in_float64_leaves_a_device_without_it(monkeypatch):
    """The flow says that it is on such a device: it is copied to the CPU before it becomes float64, and data follow."""
    moved = []
    monkeypatch.setattr(reconstruction, "device_of", lambda flow: torch.device("mps"))
    monkeypatch.setattr(fl.RealNVP, "to", lambda self, *args: moved.append(args[0]) or torch.nn.Module.to(self, *args))
    assert round_trip(fl.RealNVP(2, layers=2, hidden=(4,)), torch.randn(9, 2), torch.float64).error < 1e-9
    assert moved == [torch.device("cpu"), torch.float64]


def test_a_folder_of_images_from_training_to_evaluation(tmp_path, capsys):
    from PIL import Image

    (tmp_path / "photos").mkdir()
    for i in range(60):
        pixels = torch.randint(256, (20, 24, 3), dtype=torch.uint8).numpy()
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{i}.png")
    train.main(["--model", "realnvp", "--data", str(tmp_path / "photos"), "--size", "8", "--levels", "32", "--out",
                str(tmp_path / "run"), "--steps", "2", "--hidden", "4", "--layers", "1", "--batch-size", "8"])
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert (metrics["size"], metrics["levels"]) == (8, 32) and fl.load(tmp_path / "run").event_shape == (3, 8, 8)
    capsys.readouterr()
    main([str(tmp_path / "run")])
    assert f"on {tmp_path / 'photos'}, test" in capsys.readouterr().out
