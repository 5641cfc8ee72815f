"""`python -m flowlib.train --model realnvp-flat --data digits --out runs/digits`: train a flow on images and report.

Into the folder go the model (`flowlib.load` reads it), `metrics.json`, `samples.png` and `loss.png`. Under
`accelerate launch -m flowlib.train ...` or `torchrun -m flowlib.train ...` the same runs in several processes.
"""
from __future__ import annotations

import argparse
import math
import shlex
import sys
from pathlib import Path

import torch

from .. import data
from ..coupling.flowpp import FlowPlusPlus
from ..coupling.glow import Glow
from ..coupling.nice import NICE
from ..coupling.nsf import NSF
from ..coupling.realnvp import RealNVP, RealNVPImage
from ..images.pixels import Pixels
from . import report
from .batches import REPORT, START, seed_all
from .config import Config, TrainingError
from .loop import fit


def flat(make, layers: int, hidden: tuple[int, ...]):
    """A vector flow over all pixels at once, with its default size; logit preprocessing, since pixels are bounded."""

    def build(shape, levels, **size):
        size = {"layers": layers, "hidden": hidden} | {k: v for k, v in size.items() if v is not None}
        return Pixels(make(math.prod(shape), **size), shape, levels=levels, preprocess="logit")

    return build


def image(make, scales: int, steps: int, channels: int):
    """An image model, with its default size. Here `layers` are the steps of each scale, `hidden` the networks' channels."""

    def build(shape, levels, layers=None, hidden=None):
        if hidden and len(hidden) > 1:
            raise ValueError(f"the networks of an image model have one width, got {hidden}")
        return make(shape, levels, scales=scales, steps=layers or steps, hidden=hidden[0] if hidden else channels)

    return build


MODELS = {  # name -> function of (shape, levels, layers=, hidden=)
    "nice-flat": flat(NICE, layers=6, hidden=(256, 256)),
    "realnvp-flat": flat(RealNVP, layers=8, hidden=(256, 256)),
    "nsf-flat": flat(NSF, layers=4, hidden=(128, 128)),
    "realnvp": image(RealNVPImage, scales=2, steps=3, channels=32),
    "glow": image(Glow, scales=2, steps=6, channels=48),
    "flowpp": image(FlowPlusPlus, scales=2, steps=2, channels=32),
}


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m flowlib.train", formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        description="Train a flow on images and report bits per dimension beside two baselines.")
    add = parser.add_argument
    add("--model", required=True, choices=MODELS)
    add("--data", required=True, choices=data.READERS)
    add("--out", required=True, type=Path, help="a new folder for the model, metrics.json and pictures")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--steps", type=int, help="number of updates")
    length.add_argument("--epochs", type=float, default=100, help="passes over the training images")
    add("--batch-size", type=int, default=64)
    add("--lr", type=float, default=2e-3, help="peak learning rate")
    add("--weight-decay", type=float, default=1.0)
    add("--patience", type=int, default=5, help="validations (40 in a run) without a better one before it stops")
    add("--seed", type=int, default=0)
    add("--hidden", type=int, nargs="+", help="widths of each network's hidden layers (the model's own)")
    add("--layers", type=int, help="number of flow layers, at each scale for image models (the model's own)")
    add("--resume", action="store_true", help="go on with the run in --out")
    add("--precision", choices=["bf16"], help="run the networks in bfloat16")
    add("--compile", action="store_true", help="compile with torch.compile")
    add("--threads", type=int, default=1, help="CPU threads; small networks gain little from more, and results may "
        "differ in the last bits")
    args = parser.parse_args(arguments)
    args.epochs = None if args.steps else args.epochs
    args.command = f"python -m flowlib.train {shlex.join(sys.argv[1:] if arguments is None else arguments)}"
    return args


def main(arguments: list[str] | None = None) -> None:
    args = parse(arguments)
    try:
        names = ("steps", "epochs", "batch_size", "lr", "weight_decay", "patience", "seed")
        config = {name: getattr(args, name) for name in names}
        Config(**config)
        torch.set_num_threads(args.threads)
        train, val, test = (data.load(args.data, split) for split in data.SPLITS)
        seed_all(args.seed, START)
        shape = tuple(train.x.shape[1:])
        flow = MODELS[args.model](shape, train.levels, layers=args.layers, hidden=args.hidden and tuple(args.hidden))
        history = fit(flow, train, val, out=args.out, resume=args.resume, precision=args.precision,
                      compile=args.compile, **config)
    except (ValueError, OSError, TrainingError) as error:
        sys.exit(f"error: {error}")
    finish(args, flow, history, train, val, test)


def finish(args, flow, history, train, val, test) -> None:
    """Metrics, table and pictures, in the first process; the others are done."""
    from accelerate import PartialState

    state = PartialState()
    if state.is_main_process:
        seed_all(args.seed, REPORT)
        flow.to(state.device)
        splits = {"val": val.x, "test": test.x}
        bits = {name: report.flow_bits(flow, x) for name, x in splits.items()}
        gaussian = {name: report.gaussian_bits(train.x, x) for name, x in splits.items()}
        histogram = {name: report.histogram_bits(train.x, x, train.levels) for name, x in splits.items()}
        parameters = sum(p.numel() for p in flow.parameters())
        report.write_metrics(args.out / "metrics.json", {
            "model": args.model, "data": args.data, "val_bits_per_dim": bits["val"], "test_bits_per_dim": bits["test"],
            "baseline_histogram": histogram["test"], "baseline_gaussian": gaussian["test"],
            "likelihood": flow.likelihood, "seconds": history.seconds, "steps": len(history.loss),
            "best_step": history.best_step, "parameters": parameters, "seed": args.seed, "device": history.device,
            "command": args.command,
        })
        made = {"Description": args.command}
        dims, seen = train.x[0].numel(), test.x[:100]
        sign = "" if flow.exact else "<= "
        report.draw_losses(args.out / "loss.png", history, dims, {
            f"independent histograms, test ({histogram['test']:.2f})": histogram["test"],
            f"Gaussian, test (≤ {gaussian['test']:.2f})": gaussian["test"]}, made)
        ended = "stopped early" if history.stopped == "early" else history.stopped
        title = f"{args.model}: samples ({sign.replace('<=', '≤')}{bits['test']:.2f} bits/dim)"
        report.draw_samples(args.out / "samples.png", seen, flow.sample(100).cpu(), train.levels,
                            (f"{args.data}: test images", title), made)
        print(f"{args.model} on {args.data}: {parameters:,} parameters, {len(history.loss)} steps in "
              f"{history.seconds:.0f} s ({history.device}), {ended}, best at step {history.best_step}")
        print(f"{'bits/dim':28}{'validation':>12}{'test':>12}")
        for name, row, bound in ((args.model, bits, sign), ("full-covariance Gaussian", gaussian, "<= "),
                                 ("independent histograms", histogram, "")):
            print(f"{name:28}{bound + format(row['val'], '.3f'):>12}{bound + format(row['test'], '.3f'):>12}")
        print(f"in {args.out}: model.safetensors, model.json, metrics.json, samples.png, loss.png")
    state.wait_for_everyone()
    state.destroy_process_group()


if __name__ == "__main__":
    main()
