"""`python -m flowlib.train`: its files, its numbers, its baselines and what it says to wrong arguments."""
import json
import math
import shlex
from pathlib import Path

import pytest
import torch
from PIL import Image

from flowlib import AffineMap, Flow, Pixels, Uniform, data, evaluate, load
from flowlib.recipes import recipes
from flowlib.train import Config, pictures
from flowlib.train import __main__ as command
from flowlib.train.__main__ import chosen, main, parse
from flowlib.train.build import build
from flowlib.train.checkpoint import claimed

FLAT = ["--model", "nice-flat", "--data", "digits", "--out"]
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
    measured = evaluate.bits(flow, test, repeats=20)[0]
    assert abs(measured - metrics["test_bits_per_dim"]) < 0.005  # other draws of the noise
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
    flow = build(recipes()["glow"], (3, 8, 8), 32, {"scales": 2, "steps": 1, "hidden": 4})
    x = torch.randint(32, (10, 3, 8, 8), dtype=torch.uint8)
    flow.initialize(x)
    pictures.draw_step(tmp_path / "progress" / "0.png", flow, x, 32, 0, {})
    page = Image.open(tmp_path / "progress" / "0.png")
    assert page.height == 6 * (28 + 8 + 8 + 8) + 4 * 24
    shown = page.crop((4, 24 + 6 * 28 + 20, 4 + 48, 24 + 6 * 28 + 20 + 48)).resize((8, 8), Image.Resampling.NEAREST)
    assert shown.tobytes() == (255 / 31 * x[0].permute(1, 2, 0).double()).round().byte().numpy().tobytes()


def test_every_model_trains(tmp_path, capsys):
    for model, recipe in recipes().items():
        name = "cifar10-small" if model in ("nice", "nice-flat") else "digits"
        narrow = ["--hidden", "4"] if "hidden" in recipe.small.size else []
        main(["--model", model, "--data", name, "--out", str(tmp_path / model), "--steps", "1", "--layers", "1",
              "--batch-size", "8", *narrow])
        printed = capsys.readouterr().out
        assert "validation" in printed and "full-covariance Gaussian" in printed and f"{model} on {name}" in printed
        assert "<= " in next(line for line in printed.splitlines()[2:] if line.startswith(model))


def refused(arguments, capsys, status=2):
    """The one line with which the command ends."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    said = capsys.readouterr().err
    assert stopped.value.code == status and said.count("\n") == 1 and said.endswith("\n"), said
    return said


@pytest.mark.parametrize("change, message", [
    ("--model resnet", "invalid choice: 'resnet' (choose from"),
    ("--data imagenet", "'imagenet' is no folder, and no data set: digits, mnist-small"),
    ("--data ''", "'' is no folder"),
    ("--out ''", "argument --out: must name a new folder"),
    ("--config huge", "invalid choice: 'huge'"),
    ("--steps 3 --epochs 2", "not allowed with argument --steps"),
    ("--precision fp16", "invalid choice: 'fp16'"),
    ("--levels 1", "argument --levels: must be a whole number from 2"),
    ("--size 0", "argument --size: must be a whole number from 1"),
    ("--steps 0", "argument --steps: must be a whole number from 1 to 1,000,000,000, got '0'"),
    ("--steps 1e3", "argument --steps: must be a whole number"),
    ("--epochs inf", "argument --epochs: must be a finite number above 0 and at most 1e+06, got 'inf'"),
    ("--epochs nan", "argument --epochs: must be a finite number"),
    ("--epochs -1", "argument --epochs: must be a finite number"),
    ("--batch-size 0", "argument --batch-size: must be a whole number"),
    ("--batch-size 1000000000000", "argument --batch-size: must be a whole number"),
    ("--accumulate 0", "argument --accumulate: must be a whole number"),
    ("--lr inf", "argument --lr: must be a finite number above 0, got 'inf'"),
    ("--lr 0", "argument --lr: must be a finite number above 0"),
    ("--lr -1", "argument --lr: must be a finite number above 0"),
    ("--weight-decay -1", "argument --weight-decay: must be a finite number of at least 0"),
    ("--weight-decay inf", "argument --weight-decay: must be a finite number"),
    ("--patience 0", "argument --patience: must be a whole number"),
    ("--seed -1", "argument --seed: must be a whole number from 0"),
    ("--hidden -4", "argument --hidden: must be a whole number from 1 to 65,536, got '-4'"),
    ("--hidden 8 0", "argument --hidden: must be a whole number"),
    ("--hidden 1000000000", "argument --hidden: must be a whole number"),
    ("--layers -2", "argument --layers: must be a whole number from 1 to 1,000, got '-2'"),
    ("--layers 1000000000", "argument --layers: must be a whole number"),
    ("--threads 0", "argument --threads: must be a whole number from 1"),
    ("--threads 100000", "argument --threads: must be a whole number from 1"),
    ("--preprocess tanh", "argument --preprocess: must be scale, centre, logit or an alpha in (0, 1/2), got 'tanh'"),
    ("--preprocess 0.5", "argument --preprocess: must be scale"),
    ("--preprocess 1e-5x", "argument --preprocess: must be scale"),
    ("--no-such-flag", "unrecognized arguments: --no-such-flag"),
])
def test_wrong_arguments(tmp_path, capsys, change, message):
    out = tmp_path / "run"
    assert message in refused([*FLAT, str(out), *shlex.split(change)], capsys)
    assert not out.exists()


@pytest.mark.parametrize("change, message", [
    ("--config paper",
     "nice-flat has no config 'paper'; it stands for flowpp, glow, mintnet, nice, realnvp, residual-flow"),
    ("--levels 32", "'digits' has 17 levels, which can become 2 to 17, not 32"),
    ("--size 32", "only the images of a folder are resized"),
    ("--model glow --hidden 8 8", "the networks of glow have one width, got [8, 8]"),
    ("--model gaussianization --hidden 8", "gaussianization has no networks whose width --hidden could set"),
    ("--batch-size 900000000", "batch_size"),
    ("--batch-size 10 --accumulate 3", "batch_size of 10 cannot be shared equally"),
])
def test_arguments_that_do_not_fit_each_other(tmp_path, capsys, change, message):
    out = tmp_path / "new"
    assert message in refused([*FLAT, str(out), *shlex.split(change)], capsys)
    assert not out.exists() or not list(out.iterdir())


def test_a_file_in_place_of_a_folder(tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    assert "argument --out: must name a new folder" in refused([*FLAT, str(tmp_path / "file")], capsys)
    assert (tmp_path / "file").read_text() == "mine"


def test_what_fails_on_the_way_is_one_line(run, tmp_path, capsys):
    out, arguments = run
    assert "digits is not empty: choose another folder, or go on" in refused(arguments, capsys)
    said = refused([*arguments[:4], "--out", str(tmp_path / "diverges"), "--lr", "1e9", *SMALL], capsys, status=1)
    assert "the gradient is not finite" in said or "the loss" in said
    assert load(tmp_path / "diverges")  # the weights of the start


@pytest.mark.parametrize("error, status, message", [
    (MemoryError(), 1, "there is not enough memory"),
    (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 4 bytes.\nBuy more"), 1, "not enough"),
    (KeyboardInterrupt(), 130, "interrupted"),
])
def test_no_memory_and_ctrl_c_are_one_line(tmp_path, capsys, monkeypatch, error, status, message):
    def build(*args):
        raise error

    monkeypatch.setattr(command, "build", build)
    assert message in refused([*FLAT, str(tmp_path / "run")], capsys, status)


def test_two_runs_in_one_folder_are_refused_in_one_line(tmp_path, capsys):
    arguments = [*FLAT, str(tmp_path / "run"), *SMALL]
    with claimed(tmp_path / "run", None):
        assert refused(arguments, capsys, 1) == f"error: another run is at work in {tmp_path / 'run'}\n"


# After training


def test_what_fails_after_training_is_named_and_made_later(tmp_path, capsys, monkeypatch):
    arguments = [*FLAT, str(tmp_path / "run"), *SMALL, "--resume"]

    def no_room(*args):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(pictures, "draw_samples", no_room)
        said = refused(arguments, capsys, status=1)
    assert "the model is in" in said and "--resume" in said
    assert "samples.png (OSError: [Errno 28] No space left on device)" in said
    left = {path.name for path in (tmp_path / "run").iterdir()}
    assert left == {"model.json", "model.safetensors", "training.safetensors", "metrics.json", "loss.png", "progress"}
    before = load(tmp_path / "run").state_dict()
    with monkeypatch.context() as full:
        full.setattr(command, "write_json", no_room)
        assert "metrics.json (OSError" in refused(arguments, capsys, status=1)
    main(arguments)
    assert (tmp_path / "run" / "samples.png").exists()
    after = load(tmp_path / "run").state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_numbers_that_cannot_be_computed_take_the_pictures_with_them(tmp_path, capsys, monkeypatch):
    def broken(*args):
        raise RuntimeError("not positive definite")

    monkeypatch.setattr(evaluate, "gaussian_bits", broken)
    said = refused([*FLAT, str(tmp_path / "run"), *SMALL], capsys, status=1)
    for name in ("metrics.json", "loss.png", "samples.png"):
        assert f"{name} (RuntimeError: not positive definite)" in said
    load(tmp_path / "run")


def test_a_sheet_that_cannot_be_written_stops_nothing(tmp_path, capsys, monkeypatch):
    def no_room(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pictures, "draw_step", no_room)
    main([*FLAT, str(tmp_path / "run"), *SMALL])
    assert "0000008.png could not be written (No space left on device); training goes on" in capsys.readouterr().err
    assert (tmp_path / "run" / "metrics.json").exists()


# Named configs


SHIPPED = Path(__file__).parents[1] / "flowlib" / "checkpoints"
CONFIGS = [(config, name) for config in ("small", "paper") for name, one in recipes().items() if getattr(one, config)]


@pytest.mark.parametrize("config, model", CONFIGS)
def test_configs_fit_their_models(config, model):
    """Every setting is a keyword that exists."""
    size, run = recipes()[model].settings(config)
    Config(**run)
    if config == "paper":  # fewer and narrower layers of the same kinds
        size = size | {name: small for name, small in (("steps", 1), ("layers", 2), ("blocks", 1)) if name in size}
        size["hidden"] = (8,) * len(size["hidden"]) if isinstance(size["hidden"], tuple) else 8
    flow = build(recipes()[model], (1, 28, 28), 256, size)
    assert flow.event_shape == (1, 28, 28)
    if any(SHIPPED.glob(f"*-{model}")):  # at most 5 MB each
        assert config == "paper" or 4 * sum(t.numel() for t in flow.state_dict().values()) < 5e6


def test_every_model_of_the_package_that_the_command_knows_has_one_name():
    assert list(recipes()) == sorted(recipes()) and {"flowpp", "glow", "nice", "realnvp", "nsf-flat"} <= set(recipes())
    assert {recipe.over for recipe in recipes().values()} == {"images", "vectors"}
    recipes()["glow"].settings("small").size["hidden"] = 1  # a copy
    assert recipes()["glow"].small.size["hidden"] > 1


def test_help_names_the_models_of_each_kind(capsys):
    with pytest.raises(SystemExit) as stopped:
        parse(["--help"])
    said = "".join(capsys.readouterr().out.split())
    assert stopped.value.code == 0
    assert "asonevector:gaussianization,iresnet-flat,maf,naf,nice,nice-flat,nsf-ar,nsf-flat,realnvp-flat," in said
    assert "paper,whichflowpp,glow,mintnet,nice,realnvp,residual-flowhave" in said


def test_scales_are_at_most_as_many_as_the_image_can_be_halved():
    shapes = [(1, 28, 28), (3, 32, 32)]
    flows = [build(recipes()["glow"], shape, 256, {"scales": 3, "steps": 1, "hidden": 4}) for shape in shapes]
    assert [len(flow.bijection.bijections[0].latents) for flow in flows] == [2, 3]
    with pytest.raises(ValueError, match="divisible by 2"):
        build(recipes()["glow"], (1, 9, 9), 256, {"scales": 3, "steps": 1, "hidden": 4})


@pytest.mark.parametrize("model", ["nice", "glow", "realnvp-flat"])
def test_preprocessing_is_that_of_the_data_set_whatever_the_model(tmp_path, model):
    words = ["--model", model, "--out", str(tmp_path / "run"), "--data"]
    found = [parse([*words, name]).preprocess for name in ("mnist-small", "fashion-mnist", "cifar10", "digits",
                                                           str(tmp_path))]
    assert found == [1e-5, 1e-5, 0.05, 0.05, 0.05]
    assert [parse([*words, "mnist", "--preprocess", text]).preprocess
            for text in ("centre", "1e-6")] == ["centre", 1e-6]


def test_the_command_line_goes_before_the_config(tmp_path):
    words = ["--model", "glow", "--data", "digits", "--out", str(tmp_path / "run")]
    size, run = chosen(parse(words))
    assert (size, run) == (recipes()["glow"].small.size, recipes()["glow"].small.run | {"seed": 0})
    size, run = chosen(parse([*words, *"--config paper --steps 7 --layers 2 --hidden 9 --accumulate 4".split()]))
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
    assert abs(evaluate.bits(flow, x, batch_size=2)[0] - 4) < 1e-6


def test_histogram_bits():
    train = torch.tensor([[0, 1], [0, 1], [0, 2]], dtype=torch.uint8).reshape(3, 1, 1, 2)
    x = torch.tensor([[0, 2]], dtype=torch.uint8).reshape(1, 1, 1, 2)
    assert abs(evaluate.histogram_bits(train, x, levels=3) - (-math.log2(4 / 6) - math.log2(2 / 6)) / 2) < 1e-12
    constant = torch.full((1000, 1, 1, 2), 255, dtype=torch.uint8)
    assert abs(evaluate.histogram_bits(constant, constant, levels=256) + math.log2(1001 / 1256)) < 1e-12


def test_gaussian_bits_are_the_mean_over_the_noise():
    train = torch.randint(0, 9, (200, 1, 2, 2), dtype=torch.uint8)
    train[:, 0, 0, 1] = train[:, 0, 0, 0] // 2 + 3  # strong dependence
    train[:, 0, 1, 1] = 7  # no variance but that of the noise
    x = train[:50]
    noisy = (train.double() + torch.rand(4000, *train.shape, dtype=torch.float64)).reshape(-1, 4)
    normal = torch.distributions.MultivariateNormal(noisy.mean(0), torch.cov(noisy.T))
    log_p = normal.log_prob((x.double() + torch.rand(4000, *x.shape, dtype=torch.float64)).reshape(-1, 4)).mean()
    assert abs(evaluate.gaussian_bits(train, x) + log_p.item() / (4 * math.log(2))) < 0.003
