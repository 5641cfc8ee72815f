"""`python -m flowlib.evaluate runs/mnist`: load the checkpoint of a run and measure it on the test images.

Bits per dimension twice, both upper bounds: with one draw of the dequantization noise an image, as in training, and
importance-weighted over several, which is tighter. Then the round trip: encode, decode, compare.
"""
from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import torch

from .. import data
from ..images.dequantize import bits_per_dim
from ..saving import load
from ..seeds import REPORT, seed_all
from . import importance
from .report import round_trip, write_metrics

__all__ = ["evaluate", "main"]


@torch.no_grad()
def bits(flow, x: torch.Tensor, draws: int, batch_size: int = 250) -> dict:
    """Bits per dimension of images (N, C, H, W), importance-weighted over so many draws: the mean and its standard error."""
    log_p = torch.cat([importance.log_prob(flow, part, draws).double() for part in x.split(batch_size)])
    each = bits_per_dim(log_p, x[0].numel())
    error = each.std().item() / len(x) ** 0.5
    return {"bits_per_dim": each.mean().item(), "standard_error": error, "images": len(x), "draws": draws}


def evaluate(flow, x: torch.Tensor, draws: int = 16, images: int = 1000) -> dict:
    """What the command prints: bits of all images x from one draw each, then of the first ones from one draw and
    importance-weighted, and how these come back in two precisions."""
    few = x[:images]
    found = {"all": bits(flow, x, 1), "few": bits(flow, few, 1), "weighted": bits(flow, few, draws)}
    for name in ("float32", "float64"):
        found[name] = dict(zip(("error", "wrong_pixels", "pixels"), round_trip(flow, few, getattr(torch, name))))
    return found


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m flowlib.evaluate", description="Load the model of a run "
                                     "and print its bits per dimension, importance-weighted too, and the error of encoding "
                                     "and decoding.")
    add = parser.add_argument
    add("folder", type=Path, help="the --out of a run, or a shipped checkpoint")
    add("--data", help="another data set or folder with images of the same shape and levels (that of the run)")
    add("--split", choices=data.SPLITS, default="test", help="which images (test)")
    add("--draws", type=int, default=16, help="draws of the noise for each importance-weighted image (16)")
    add("--images", type=int, default=1000, help="images that are importance-weighted, and make the round trip (1000)")
    add("--seed", type=int, default=0)
    add("--threads", type=int, default=1, help="CPU threads (1)")
    add("--json", type=Path, help="write the numbers into this file, too")
    args = parser.parse_args(arguments)
    try:
        torch.set_num_threads(args.threads)
        flow = load(args.folder).eval()
        run = json.loads((args.folder / "metrics.json").read_text())
        name = args.data or run["data"]
        x = data.load(name, args.split, levels=run["levels"], size=None if name in data.READERS else run["size"]).x
        seed_all(args.seed, REPORT)
        found = evaluate(flow, x, args.draws, args.images)
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f"error: {error}")
    print(f"{run['model']} of {args.folder} on {name}, {args.split}")
    print(f"{'bits/dim':32}{'':10}{'± s.e.':>10}{'images':>10}")
    for title, part in (("one draw of the noise", "all"), ("one draw, fewer images", "few"),
                        (f"the same, weighted, {args.draws} draws", "weighted")):
        row = found[part]
        value = ("" if flow.exact else "<= ") + format(row["bits_per_dim"], ".4f")
        print(f"{title:32}{value:>10}{row['standard_error']:>10.4f}{row['images']:>10,}")
    for name in ("float32", "float64"):
        row = found[name]
        exact = f"all {row['pixels']:,} pixels" if not row["wrong_pixels"] else (
            f"all but {row['wrong_pixels']:,} of {row['pixels']:,} pixels")
        print(f"round trip, {name}: largest error {row['error']:.1e} on the unit interval; {exact} come back exactly")
    if args.json:
        write_metrics(args.json, found)


if __name__ == "__main__":
    main()
