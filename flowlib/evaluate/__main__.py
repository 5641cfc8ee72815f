"""`python -m flowlib.evaluate runs/mnist`: load the model of a run and measure it on the test data.

Of images, bits per dimension twice, both upper bounds: with one draw of the dequantization noise an image, as in
training, and importance-weighted over several, which is tighter. Of vectors, nats a row. Then the round trip: encode,
decode, compare.
"""
from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .. import data
from ..command import Parser, one_line, threads, whole, write_json
from ..core import Flow
from ..images.dequantize import bits_per_dim
from ..saving import load
from ..seeds import REPORT, seed_all
from .likelihood import log_likelihood, mean
from .reconstruction import round_trip

__all__ = ["evaluate", "main"]


def evaluate(flow: Flow, x: Tensor, context: Tensor | None = None, *, draws: int = 16, images: int = 1000) -> dict:
    """What the command prints: the likelihood of all rows x from one draw each; of the first ones from one draw and
    importance-weighted, where `log_prob` is a bound; and how these come back in two precisions.

    Args:
        flow: A flow over images, vectors or other events.
        x: Events (N, *event).
        context: A context (N, ...) for each, or None.
        draws: Draws of the noise that are weighted.
        images: The number of rows that are weighted and make the round trip.
    """
    few = (x[:images], None if context is None else context[:images])

    def row(x: Tensor, context: Tensor | None, draws: int) -> dict:
        log_p = log_likelihood(flow, x, context, draws=draws)
        value, error = mean(bits_per_dim(log_p, x[0].numel()))
        return {"bits_per_dim": value, "standard_error": error, "nats": log_p.mean().item(), "images": len(x),
                "draws": draws}

    found = {"all": row(x, context, 1)}
    if flow.likelihood == "bound":
        found |= {"few": row(*few, 1), "weighted": row(*few, draws)}
    for name in ("float32", "float64"):
        trip = round_trip(flow, few[0], getattr(torch, name), context=few[1])
        found[name] = {"error": trip.error, "wrong_pixels": trip.wrong, "pixels": trip.values}
    return found


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = Parser(prog="python -m flowlib.evaluate", description="Load the model of a run and print its bits per "
                    "dimension, importance-weighted too, and the error of encoding and decoding.")
    add = parser.add_argument
    add("folder", type=Path, help="the --out of a run, a shipped checkpoint, or what flowlib.save has written")
    add("--data", help="another data set or folder with images of the same shape and levels (that of the run), or a "
        "file X.npy with one vector a row")
    add("--split", choices=data.SPLITS, default="test", help="which images (test)")
    add("--draws", type=whole(1, 10**6), default=16, help="draws of the noise for each importance-weighted image (16)")
    add("--images", type=whole(1), default=1000,
        help="images that are importance-weighted, and make the round trip (1000)")
    add("--seed", type=whole(0), default=0)
    add("--device", type=device, default="cpu", help="where the flow runs: cpu (the default), cuda, cuda:1, mps, ...")
    add("--threads", type=threads, default=1, help="CPU threads (1)")
    add("--json", type=Path, help="write the numbers into this file, too")
    args = parser.parse_args(arguments)
    if not args.folder.is_dir():
        parser.error(f"argument folder: {args.folder} is no folder")
    return args


def device(text: str) -> torch.device:
    try:
        found = torch.device(text)
        torch.zeros(1, device=found).item()
    except Exception as error:  # of many kinds: an unknown name, no such device here, torch built without it
        reason = " ".join(str(error).split())[:80]
        raise argparse.ArgumentTypeError(f"{text!r} cannot be used here ({reason})") from error
    return found


def read_flow(folder: Path) -> Flow:
    """The model of a run, if it is one that can be measured."""
    flow = load(folder).eval()
    if not isinstance(flow, Flow):
        raise ValueError(f"the model in {folder} is a {type(flow).__name__}, not a flow")
    state = flow.state_dict()
    broken = [name for name, t in state.items() if t.is_floating_point() and not t.isfinite().all()]
    if broken:
        raise ValueError(f"the weights in {folder} hold NaN or infinity, in {len(broken)} of {len(state)} tensors "
                         f"({broken[0]}): there is nothing to measure")
    return flow


def read_metrics(folder: Path) -> dict:
    """What a run has left beside its model; empty for a model that no run has made."""
    path = folder / "metrics.json"
    try:
        found = json.loads(path.read_text())
        if not isinstance(found, dict) or not isinstance(found.get("data", ""), str):
            raise ValueError("it holds no metrics of a run")
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    return found


def read_data(name: str, split: str, flow: Flow) -> Tensor:
    """Images of the flow's levels, of a folder also of its size; or the rows of an array, in the flow's dtype."""
    if not name.endswith(".npy"):
        size = None if name in data.READERS else flow.event_shape[-1]
        return data.load(name, split, levels=getattr(flow, "levels", None), size=size).x
    try:
        rows = torch.from_numpy(np.load(name, allow_pickle=False))
    except (ValueError, TypeError, EOFError) as error:
        raise ValueError(f"{name} is no array of numbers: {error}") from error
    like = next((t for t in (*flow.parameters(), *flow.buffers()) if t.is_floating_point()), torch.empty(0))
    rows = rows.to(like.dtype) if rows.ndim == 2 else rows
    if not rows.isfinite().all():
        raise ValueError(f"{name} holds NaN or infinity")
    return rows


def main(arguments: list[str] | None = None) -> None:
    args = parse(arguments)
    with one_line():
        torch.set_num_threads(args.threads)
        flow, run = read_flow(args.folder), read_metrics(args.folder)
        name = args.data if args.data is not None else run.get("data")
        if name is None:
            raise ValueError(f"no metrics.json in {args.folder} says what data the model is for: give --data")
        x = read_data(name, args.split, flow)
        seed_all(args.seed, REPORT)
        found = evaluate(flow.to(args.device), x, draws=args.draws, images=args.images)
        title = f"{run.get('model', 'the model')} of {args.folder} on {name}, {args.split}"
        print("\n".join([title, *table(found, flow, args.draws)]))
        if args.json:
            write_json(args.json, found)


def table(found: dict, flow: Flow, draws: int) -> list[str]:
    """The numbers in lines: of images in bits per dimension, upper bounds; of other events in nats."""
    images = hasattr(flow, "levels")
    unit, rows = ("bits/dim", "images") if images else ("log-likelihood, nats", "rows")
    printed = [f"{unit:32}{'':10}{'± s.e.':>10}{rows:>10}"]
    for what, part in (("one draw of the noise" if "few" in found else "all", "all"), ("one draw, fewer images", "few"),
                       (f"the same, weighted, {draws} draws", "weighted")):
        if part in found:
            row = found[part]
            value, error = row["bits_per_dim"], row["standard_error"]
            if not images:
                value, error = row["nats"], error * math.prod(flow.event_shape) * math.log(2)
            sign = {"exact": "", "bound": "<= " if images else ">= ", "estimate": "± "}[flow.likelihood]
            printed.append(f"{what:32}{sign + format(value, '.4f'):>10}{error:>10.4f}{row['images']:>10,}")
    for name in ("float32", "float64"):
        row = found[name]
        trip = f"round trip, {name}: largest error {row['error']:.1e}"
        if row["wrong_pixels"] is not None:
            some = f"all but {row['wrong_pixels']:,} of" if row["wrong_pixels"] else "all"
            trip += f" on the unit interval; {some} {row['pixels']:,} pixels come back exactly"
        printed.append(trip)
    return printed


if __name__ == "__main__":
    main()
