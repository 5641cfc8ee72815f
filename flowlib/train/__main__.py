"""`python -m flowlib.train --model realnvp --data mnist --out runs/mnist`: train a flow on images and report.

Into the folder go the model (`flowlib.load` reads it), `metrics.json`, `samples.png`, `loss.png`, and `progress/`:
samples and reconstructions at every validation. `python -m flowlib.evaluate runs/mnist` measures more closely. Under
`accelerate launch -m flowlib.train ...` or `torchrun -m flowlib.train ...` the same runs in several processes.
"""
from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from .. import data, evaluate
from ..command import Parser, fail, number, one_line, threads, whole, write_json
from ..core import Flow
from ..images.preprocess import DEFAULTS, FOLDER, preprocessing
from ..recipes import recipes
from ..seeds import REPORT, START, seed_all
from . import pictures
from .build import build
from .config import Config, History, TrainingError
from .loop import fit

WATCHED = 500  # images of the validation set that are looked at on the way; all of them at the end
ROWS = 10_000  # rows over which the dequantization noise is averaged: more draws of few images, one of many


def parse(arguments: list[str] | None) -> argparse.Namespace:
    models = recipes()
    flat = ", ".join(name for name, recipe in models.items() if recipe.over == "vectors")
    parser = Parser(
        prog="python -m flowlib.train",
        description="Train a flow on images and report bits per dimension beside two baselines.",
        epilog="What is not given is as the config says: RECIPES in each model's file, as flowlib/coupling/glow.py.")
    add = parser.add_argument
    add("--model", required=True, choices=models,
        help=f"over all pixels as one vector: {flat}; the others are made for images")
    add("--data", required=True, metavar="{" + ",".join(data.READERS) + ",PATH}",
        help="a data set, or any folder of images")
    add("--out", required=True, type=folder, help="a new folder for the model, metrics.json and pictures")
    add("--config", choices=("small", "paper"), default="small",
        help="for two CPU cores (small, the default), or as in the model's paper, which "
        f"{', '.join(name for name, recipe in models.items() if recipe.paper)} have")
    add("--levels", type=whole(2, 2**16), help="quantise the pixels to so many levels: 32 for 5-bit images")
    add("--size", type=whole(1), help="height and width of the images of a folder (32)")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--steps", type=whole(1), help="number of updates")
    length.add_argument("--epochs", type=number(high=1e6), help="passes over the training images")
    add("--batch-size", type=whole(1), help="images per update, over all processes")
    add("--accumulate", type=whole(1), help="compute each batch in so many parts, in that much less memory (1)")
    add("--lr", type=number(), help="peak learning rate")
    add("--weight-decay", type=number(ends=True))
    add("--patience", type=whole(1), help="validations (40 in a run) without a better one before it stops")
    add("--seed", type=whole(0), default=0)
    add("--hidden", type=whole(1, 2**16), nargs="+",
        help="widths of each network's hidden layers; for images one number of channels")
    add("--layers", type=whole(1, 1000), help="number of flow layers; for images, of steps at each scale")
    add("--resume", action="store_true", help="go on with the run in --out, if there is one")
    add("--precision", choices=["bf16"], help="run the networks in bfloat16")
    add("--compile", action="store_true", help="compile with torch.compile")
    add("--threads", type=threads, default=1,
        help="CPU threads (1); small networks gain little from more, and results may differ in the last bits")
    add("--preprocess", type=preprocess, metavar="{scale,centre,logit,ALPHA}",
        help="what the flow sees of pixels in [0, 1] (the logit: alpha = 1e-5 for MNIST and Fashion-MNIST, else 0.05)")
    args = parser.parse_args(arguments)
    if args.data not in data.READERS and not (args.data and Path(args.data).is_dir()):
        parser.error(f"argument --data: {args.data!r} is no folder, and no data set: {', '.join(data.READERS)}")
    if args.preprocess is None:
        args.preprocess = DEFAULTS.get(args.data, FOLDER)
    args.command = f"python -m flowlib.train {shlex.join(sys.argv[1:] if arguments is None else arguments)}"
    return args


def folder(text: str) -> Path:
    if not text or (Path(text).exists() and not Path(text).is_dir()):
        raise argparse.ArgumentTypeError(f"must name a new folder, got {text!r}")
    return Path(text)


def preprocess(text: str) -> str | float:
    """A name or an alpha, as `preprocessing` takes it."""
    try:
        value = text if text.isalpha() else float(text)
        preprocessing(value)
    except ValueError:
        message = f"must be scale, centre, logit or an alpha in (0, 1/2), got {text!r}"
        raise argparse.ArgumentTypeError(message) from None
    return value


def chosen(args: argparse.Namespace) -> tuple[dict, dict]:
    """The flow's size and the run's settings: the config's, with what the command line says instead."""
    size, run = recipes()[args.model].settings(args.config)
    if args.steps or args.epochs:
        run = {name: value for name, value in run.items() if name not in ("steps", "epochs")}
    names = ("steps", "epochs", "batch_size", "accumulate", "lr", "weight_decay", "patience", "seed")
    run |= {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    if args.layers is not None:
        size["steps" if "steps" in size else "layers"] = args.layers
    if args.hidden is not None:
        if "hidden" not in size:
            raise ValueError(f"{args.model} has no networks whose width --hidden could set")
        if isinstance(size["hidden"], int) and len(args.hidden) > 1:
            raise ValueError(f"the networks of {args.model} have one width, got {args.hidden}")
        size["hidden"] = args.hidden[0] if isinstance(size["hidden"], int) else tuple(args.hidden)
    return size, run


def main(arguments: list[str] | None = None) -> None:
    args = parse(arguments)
    with one_line(TrainingError):
        size, run = chosen(args)
        Config(**run)
        torch.set_num_threads(args.threads)
        train, val, test = (data.load(args.data, split, levels=args.levels, size=args.size) for split in data.SPLITS)
        assert train.levels is not None  # of images
        seed_all(args.seed, START)
        _, channels, height, width = train.x.shape
        flow = build(recipes()[args.model], (channels, height, width), train.levels, size, args.preprocess)
        history = fit(flow, train, val.x[:WATCHED], out=args.out, resume=args.resume, precision=args.precision,
                      compile=args.compile, watch=watcher(args, flow, val), **run)
        from accelerate import PartialState

        state = PartialState()
        if state.is_main_process:
            finish(args, flow.to(state.device), history, run, train, val, test)
        state.wait_for_everyone()
        state.destroy_process_group()


def watcher(args: argparse.Namespace, flow: Flow, val: data.Data) -> Callable[[int], None]:
    """What `fit` calls on the way: one sheet a validation, always from the same noise: only the flow changes."""

    assert val.levels is not None  # of images
    levels = val.levels

    def watch(step: int) -> None:
        seed_all(args.seed, REPORT)
        path = args.out / "progress" / f"{step:07d}.png"
        try:
            pictures.draw_step(path, flow, val.x[:10], levels, step, {"Description": args.command})
        except OSError as error:  # a picture less is no reason to stop
            print(f"{path} could not be written ({error.strerror or error}); training goes on", file=sys.stderr)

    return watch


def finish(args: argparse.Namespace, flow: Flow, history: History, run: dict, train: data.Data, val: data.Data,
           test: data.Data) -> None:
    """Metrics, table and pictures. The model is on the disk: what cannot be made is named, and `--resume` makes it."""
    missing: dict[str, Exception] = {}

    @contextmanager
    def part(name: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            missing[name] = error

    assert train.levels is not None  # of images
    seed_all(args.seed, REPORT)
    splits = {"val": val.x, "test": test.x}
    bits = gaussian = histogram = None
    parameters = sum(p.numel() for p in flow.parameters())
    images = len(history.loss) * run["batch_size"] / history.seconds
    with part("metrics.json"):
        bits = {name: evaluate.bits(flow, x, repeats=min(20, max(1, ROWS // len(x))))[0] for name, x in splits.items()}
        gaussian = {name: evaluate.gaussian_bits(train.x, x) for name, x in splits.items()}
        histogram = {name: evaluate.histogram_bits(train.x, x, train.levels) for name, x in splits.items()}
        write_json(args.out / "metrics.json", {
            "model": args.model, "config": args.config, "data": args.data, "levels": train.levels, "size": args.size,
            "preprocess": args.preprocess,
            "val_bits_per_dim": bits["val"], "test_bits_per_dim": bits["test"], "likelihood": flow.likelihood,
            "baseline_histogram": histogram["test"], "baseline_gaussian": gaussian["test"],
            "seconds": history.seconds, "processor_seconds": history.processor_seconds, "images_per_second": images,
            "steps": len(history.loss), "best_step": history.best_step, "parameters": parameters, "seed": args.seed,
            "device": history.device, "command": args.command,
        })
    made = {"Description": args.command}
    sign = "" if flow.exact else "<= "
    if histogram:  # what the pictures say beside their curves, and the table
        with part("loss.png"):
            pictures.draw_losses(args.out / "loss.png", history, train.x[0].numel(), {
                f"independent histograms, test ({histogram['test']:.2f})": histogram["test"],
                f"Gaussian, test (≤ {gaussian['test']:.2f})": gaussian["test"]}, made)
        with part("samples.png"):
            title = f"{args.model}: samples ({sign.replace('<=', '≤')}{bits['test']:.2f} bits/dim)"
            pictures.draw_samples(args.out / "samples.png", test.x[:100], flow.sample(100).cpu(), train.levels,
                                  (f"{args.data}: test images", title), made)
        ended = "stopped early" if history.stopped == "early" else history.stopped
        print(f"{args.model} on {args.data}: {parameters:,} parameters, "
              f"{len(history.loss)} steps in {history.seconds:.0f} s, {images:,.0f} images/s "
              f"({history.device}), {ended}, best at step {history.best_step}")
        print(f"{'bits/dim':28}{'validation':>12}{'test':>12}")
        for name, row, bound in ((args.model, bits, sign), ("full-covariance Gaussian", gaussian, "<= "),
                                 ("independent histograms", histogram, "")):
            print(f"{name:28}{bound + format(row['val'], '.3f'):>12}{bound + format(row['test'], '.3f'):>12}")
    else:
        missing |= dict.fromkeys(("loss.png", "samples.png"), missing["metrics.json"])
    if missing:
        why = "; ".join(f"{name} ({type(error).__name__}: {' '.join(str(error).split())})"
                        for name, error in missing.items())
        fail(f"training is done and the model is in {args.out}, but these could not be made: {why}. "
             "The same command with --resume makes them", 1)
    print(f"in {args.out}: model.safetensors, model.json, metrics.json, samples.png, loss.png, progress/")


if __name__ == "__main__":
    main()
