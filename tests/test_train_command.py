"""`python -m flowlib.train`: its files, its numbers, its baselines and what it says to wrong arguments."""
import json
import math

import pytest
import torch
from PIL import Image

from flowlib import AffineMap, Flow, Pixels, Uniform, data, load
from flowlib.train import report
from flowlib.train.__main__ import MODELS, main

SMALL = ["--steps", "8", "--layers", "2", "--hidden", "8"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "digits"
    arguments = ["--model", "realnvp-flat", "--data", "digits", "--out", str(out), *SMALL, "--seed", "3"]
    main(arguments)
    return out, arguments


def test_metrics(run):
    out, arguments = run
    metrics = json.loads((out / "metrics.json").read_text())
    kinds = {"model": str, "data": str, "val_bits_per_dim": float, "test_bits_per_dim": float,
             "baseline_histogram": float, "baseline_gaussian": float, "likelihood": str, "seconds": float,
             "steps": int, "best_step": int, "parameters": int, "seed": int, "device": str, "command": str}
    assert {key: type(value) for key, value in metrics.items()} == kinds
    assert metrics["command"] == " ".join(["python -m flowlib.train", *arguments])
    assert (metrics["seed"], metrics["steps"], metrics["likelihood"]) == (3, 8, "bound")
    assert abs(metrics["baseline_histogram"] - 2.44) < 0.02 and abs(metrics["baseline_gaussian"] - 2.98) < 0.04
    assert 2 < metrics["test_bits_per_dim"] < math.log2(17) + 2


def test_the_saved_model_is_the_one_that_was_measured(run):
    out, _ = run
    flow, test = load(out), data.load("digits", "test").x
    assert isinstance(flow, Pixels) and flow.bijection.event_shape == (1, 8, 8)
    metrics = json.loads((out / "metrics.json").read_text())
    assert abs(report.flow_bits(flow, test) - metrics["test_bits_per_dim"]) < 0.005  # other draws of the noise
    assert sum(p.numel() for p in flow.parameters()) == metrics["parameters"]


def test_pictures(run):
    out, _ = run
    for name, least in (("samples.png", 60_000), ("loss.png", 60_000)):
        image = Image.open(out / name)
        assert image.mode == "P" and image.width * image.height > least and (out / name).stat().st_size < 40_000
        assert image.text["Description"] == json.loads((out / "metrics.json").read_text())["command"]
        assert len(set(image.convert("L").tobytes())) > 10  # something is drawn


def test_every_model_trains(tmp_path, capsys):
    for model in MODELS:
        name = "cifar10-small" if model == "nice-flat" else "digits"
        main(["--model", model, "--data", name, "--out", str(tmp_path / model), "--steps", "1", "--layers", "1",
              "--hidden", "4", "--batch-size", "8"])
        printed = capsys.readouterr().out
        assert "validation" in printed and "full-covariance Gaussian" in printed and f"{model} on {name}" in printed
        assert "<= " in next(line for line in printed.splitlines()[2:] if line.startswith(model))


@pytest.mark.parametrize("change, message", [
    (["--model", "resnet"], "invalid choice: 'resnet' (choose from"),
    (["--data", "imagenet"], "invalid choice: 'imagenet'"),
    (["--steps", "3", "--epochs", "2"], "not allowed with argument --steps"),
    (["--precision", "fp16"], "invalid choice: 'fp16'"),
])
def test_wrong_arguments(tmp_path, capsys, change, message):
    with pytest.raises(SystemExit) as stopped:
        main(["--model", "nice-flat", "--data", "digits", "--out", str(tmp_path / "run"), *change])
    assert stopped.value.code == 2 and message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_errors_are_one_line(run, tmp_path):
    out, arguments = run
    with pytest.raises(SystemExit, match=r"error: .*digits is not empty: choose another folder, or go on .*resume"):
        main(arguments)
    with pytest.raises(SystemExit, match="error: lr must be positive"):
        main([*arguments[:4], "--out", str(tmp_path / "new"), "--lr", "-1"])
    with pytest.raises(SystemExit, match="error: the gradient is not finite|error: the loss"):
        main([*arguments[:4], "--out", str(tmp_path / "diverges"), "--lr", "1e9", *SMALL])
    assert load(tmp_path / "diverges")  # the weights of the start


# Baselines


def test_flow_bits_of_uniform_pixels():
    flow = Pixels(Flow(Uniform(torch.zeros(4), torch.ones(4)), AffineMap(1.0, 0.0)), (1, 2, 2), levels=16)
    x = torch.randint(0, 16, (5, 1, 2, 2), dtype=torch.uint8)
    assert abs(report.flow_bits(flow, x, batch_size=2) - 4) < 1e-6


def test_histogram_bits():
    train = torch.tensor([[0, 1], [0, 1], [0, 2]], dtype=torch.uint8).reshape(3, 1, 1, 2)
    x = torch.tensor([[0, 2]], dtype=torch.uint8).reshape(1, 1, 1, 2)
    assert abs(report.histogram_bits(train, x, levels=3) - (-math.log2(4 / 6) - math.log2(2 / 6)) / 2) < 1e-12
    constant = torch.full((1000, 1, 1, 2), 255, dtype=torch.uint8)
    assert abs(report.histogram_bits(constant, constant, levels=256) + math.log2(1001 / 1256)) < 1e-12


def test_gaussian_bits_are_the_mean_over_the_noise():
    train = torch.randint(0, 9, (200, 1, 2, 2), dtype=torch.uint8)
    train[:, 0, 0, 1] = train[:, 0, 0, 0] // 2 + 3  # strong dependence
    train[:, 0, 1, 1] = 7  # no variance but that of the noise
    x = train[:50]
    noisy = (train.double() + torch.rand(4000, *train.shape, dtype=torch.float64)).reshape(-1, 4)
    normal = torch.distributions.MultivariateNormal(noisy.mean(0), torch.cov(noisy.T))
    log_p = normal.log_prob((x.double() + torch.rand(4000, *x.shape, dtype=torch.float64)).reshape(-1, 4)).mean()
    assert abs(report.gaussian_bits(train, x) + log_p.item() / (4 * math.log(2))) < 0.003
