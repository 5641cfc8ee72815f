"""`python -m flowlib.train`: its files, its numbers, its baselines and what it says to wrong arguments."""
import json
import math

import pytest
import torch
from PIL import Image

from flowlib import AffineMap, Flow, Pixels, Uniform, data, load
from flowlib.evaluate import report
from flowlib.train import Config, pictures
from flowlib.train.__main__ import chosen, main, parse
from flowlib.train.models import CONFIGS, MODELS, build

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
    kinds = {"model": str, "config": str, "data": str, "levels": int, "size": type(None),
             "preprocess": float, "val_bits_per_dim": float,
             "test_bits_per_dim": float, "likelihood": str, "baseline_histogram": float, "baseline_gaussian": float,
             "seconds": float, "processor_seconds": float, "images_per_second": float, "steps": int, "best_step": int,
             "parameters": int, "seed": int, "device": str, "command": str}
    assert {key: type(value) for key, value in metrics.items()} == kinds
    assert metrics["preprocess"] == 0.05  # what photographs and digits get, whatever the model
    assert metrics["command"] == " ".join(["python -m flowlib.train", *arguments])
    assert (metrics["seed"], metrics["steps"], metrics["likelihood"]) == (3, 8, "bound")
    assert metrics["images_per_second"] == pytest.approx(8 * 64 / metrics["seconds"])
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


def test_a_sheet_at_every_validation(run):
    out, arguments = run
    sheets = sorted((out / "progress").iterdir())
    assert [sheet.name for sheet in sheets] == [f"{step:07d}.png" for step in range(9)]
    pages = [Image.open(sheet) for sheet in sheets]
    # three rows of samples, one of images, one of reconstructions: (8 + 2) x 10 - 2 pixels wide, enlarged 6 times
    assert {page.size for page in pages} == {(6 * 98 + 8, 6 * (28 + 8 + 8) + 3 * 24)}
    assert pages[0].text["Description"] == " ".join(["python -m flowlib.train", *arguments])
    top, bottom = 20 + 6 * 28, 20 + 6 * 28 + 24 + 20
    first, last = (page.crop((0, 20, 596, top)).tobytes() for page in (pages[0], pages[-1]))
    assert first != last  # the samples changed with the flow,
    first, last = (page.crop((0, bottom, 596, bottom + 48)).tobytes() for page in (pages[0], pages[-1]))
    assert first == last  # the images did not,
    assert pages[-1].crop((0, bottom + 68, 596, bottom + 120)).getcolors(2) is None  # and something is decoded


def test_a_flow_with_scales_also_shows_what_the_coarse_latents_know(tmp_path):
    flow = build("glow", (3, 8, 8), 32, {"scales": 2, "steps": 1, "hidden": 4})
    x = torch.randint(32, (10, 3, 8, 8), dtype=torch.uint8)
    flow.initialize(x)
    pictures.draw_step(tmp_path / "progress" / "0.png", flow, x, 32, 0, {})
    page = Image.open(tmp_path / "progress" / "0.png")
    assert page.height == 6 * (28 + 8 + 8 + 8) + 4 * 24
    shown = page.crop((4, 24 + 6 * 28 + 20, 4 + 48, 24 + 6 * 28 + 20 + 48)).resize((8, 8), Image.Resampling.NEAREST)
    assert shown.tobytes() == (255 / 31 * x[0].permute(1, 2, 0).double()).round().byte().numpy().tobytes()


def test_every_model_trains(tmp_path, capsys):
    for model in MODELS:
        name = "cifar10-small" if model in ("nice", "nice-flat") else "digits"
        main(["--model", model, "--data", name, "--out", str(tmp_path / model), "--steps", "1", "--layers", "1",
              "--hidden", "4", "--batch-size", "8"])
        printed = capsys.readouterr().out
        assert "validation" in printed and "full-covariance Gaussian" in printed and f"{model} on {name}" in printed
        assert "<= " in next(line for line in printed.splitlines()[2:] if line.startswith(model))


@pytest.mark.parametrize("change, message", [
    (["--model", "resnet"], "invalid choice: 'resnet' (choose from"),
    (["--data", "imagenet"], "'imagenet' is no folder, and no data set: digits, mnist-small"),
    (["--config", "huge"], "invalid choice: 'huge'"),
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
    with pytest.raises(SystemExit, match="error: realnvp-flat has no config 'paper'; it stands for nice, realnvp, glow, flowpp"):
        main([*arguments[:4], "--out", str(tmp_path / "new"), "--config", "paper"])
    with pytest.raises(SystemExit, match="error: 'digits' has 17 levels, which can become 2 to 17, not 32"):
        main([*arguments[:4], "--out", str(tmp_path / "new"), "--levels", "32"])
    with pytest.raises(SystemExit, match="error: .*only those of a folder are resized"):
        main([*arguments[:4], "--out", str(tmp_path / "new"), "--size", "32"])
    with pytest.raises(SystemExit, match=r"error: the networks of glow have one width, got \[8, 8\]"):
        main(["--model", "glow", *arguments[2:4], "--out", str(tmp_path / "new"), "--hidden", "8", "8"])
    assert not (tmp_path / "new").exists()
    with pytest.raises(SystemExit, match="error: the gradient is not finite|error: the loss"):
        main([*arguments[:4], "--out", str(tmp_path / "diverges"), "--lr", "1e9", *SMALL])
    assert load(tmp_path / "diverges")  # the weights of the start


# Named configs


@pytest.mark.parametrize("config, model", [(c, m) for c in CONFIGS for m in CONFIGS[c]])
def test_configs_fit_their_models(config, model):
    """Every setting is a keyword that exists."""
    size, run = CONFIGS[config][model]
    Config(**run)
    if config == "paper":  # fewer and narrower layers of the same kinds
        size = size | {name: small for name, small in (("steps", 1), ("layers", 2), ("blocks", 1)) if name in size}
        size["hidden"] = (8,) * len(size["hidden"]) if isinstance(size["hidden"], tuple) else 8
    flow = build(model, (1, 28, 28), 256, size)
    assert flow.event_shape == (1, 28, 28)
    if not model.endswith("-flat"):  # checkpoints of the small models are shipped: at most 5 MB
        assert config == "paper" or 4 * sum(t.numel() for t in flow.state_dict().values()) < 5e6


def test_scales_are_at_most_as_many_as_the_image_can_be_halved():
    shapes = [(1, 28, 28), (3, 32, 32)]
    latents = [build("glow", s, 256, {"scales": 3, "steps": 1, "hidden": 4}).bijection.bijections[0].latents for s in shapes]
    assert [len(shapes) for shapes in latents] == [2, 3]
    with pytest.raises(ValueError, match="divisible by 2"):
        build("glow", (1, 9, 9), 256, {"scales": 3, "steps": 1, "hidden": 4})


def test_the_command_line_goes_before_the_config(tmp_path):
    words = ["--model", "glow", "--data", "digits", "--out", str(tmp_path / "run")]
    size, run = chosen(parse(words))
    assert (size, run) == (CONFIGS["small"]["glow"][0], CONFIGS["small"]["glow"][1] | {"seed": 0})
    size, run = chosen(parse([*words, "--config", "paper", "--steps", "7", "--layers", "2", "--hidden", "9", "--accumulate", "4"]))
    assert size == {"scales": 3, "steps": 2, "hidden": 9} and "epochs" not in run
    assert (run["steps"], run["batch_size"], run["accumulate"], run["lr"]) == (7, 512, 4, 1e-3)
    size, _ = chosen(parse(["--model", "nice", *words[2:], "--hidden", "8", "9", "--layers", "3"]))
    assert size == {"layers": 3, "hidden": (8, 9), "alternate": True}


def test_fewer_levels(tmp_path):
    out = tmp_path / "run"
    main(["--model", "realnvp-flat", "--data", "digits", "--levels", "4", "--out", str(out), *SMALL])
    metrics, flow = json.loads((out / "metrics.json").read_text()), load(out)
    assert metrics["levels"] == flow.levels == 4 and flow.sample(20).max() <= 3
    assert metrics["baseline_histogram"] < 2  # at most log2 4


# Baselines


def test_flow_bits_of_uniform_pixels():
    flow = Pixels(Flow(Uniform(torch.zeros(4), torch.ones(4)), AffineMap(1.0, 0.0)), (1, 2, 2), levels=16).double()
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
