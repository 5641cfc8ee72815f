"""Time flowlib against zuko, nflows and normflows, and write book/results/bench.json.

    make bench

Four parts: couplings in all four, finite flows, Glow and autoregressive flows in those that have them. All take turns
in one process, each round in another order, so that what else the machine does falls on all alike. Times are the
processor's, of one thread: on an idle machine the clock's. A time is the median of a run's rounds, and of three such
runs; a ratio is flowlib's time over that of the fastest other. Of autoregressive flows, where one call may take a
quarter of a minute, a time is the least of a few rounds.
"""
import argparse
import datetime
import itertools
import json
import math
import statistics
import sys
import time
import warnings
from functools import partial
from importlib.metadata import version
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "book" / "tools")]
warnings.filterwarnings("ignore", message="Inputs to the softmax are not scaled down")  # nflows' at each call

import autoregressive  # noqa: E402
import finite  # noqa: E402
import images  # noqa: E402
from models import BINS, BUILDERS, HIDDEN, LAYERS  # noqa: E402
from results import RESULTS, machine  # noqa: E402

DIMS, BATCH, RUNS = (2, 16, 64), 1024, 3


def calls(build, model, dim, batch=BATCH):
    """The three calls that are timed, on a model of its own that a few training steps have warmed."""
    torch.manual_seed(0)
    module, log_prob, sample = build(model, dim)
    x = torch.randn(batch, dim)
    timed = {"training step": training(module, lambda: -log_prob(x).mean()),
             "log_prob": torch.no_grad()(lambda: log_prob(x)), "sample": torch.no_grad()(lambda: sample(batch))}
    return timed, size(module)


def finite_calls(build):
    """The same for a stack of finite flows, trained by reverse KL to a Gaussian of half the base's width."""
    torch.manual_seed(0)
    module, z = build(), torch.randn(BATCH, finite.DIM)

    def loss():
        x, log_det = module(z)
        return (2 * (x * x).sum(-1) - log_det).mean()

    return {"training step": training(module, loss), "forward": torch.no_grad()(lambda: module(z))}, size(module)


def image_calls(build):
    """Training, density and sampling of an image model; the first call starts its activation normalisation."""
    module, log_prob, sample = build()
    timed = {"training step": training(module, lambda: -log_prob().mean()), "log_prob": torch.no_grad()(log_prob),
             "sample": torch.no_grad()(sample)}
    return timed, size(module)


def size(module):
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def training(module, loss):
    """A training step, after five of them."""
    optimiser = torch.optim.Adam(module.parameters(), lr=1e-3)

    def step():
        optimiser.zero_grad()
        loss().backward()
        optimiser.step()

    for _ in range(5):
        step()
    return step


def medians(timed: dict, rounds: int) -> dict[str, float]:
    """name -> median milliseconds of one call, the names taking turns."""
    orders = list(itertools.permutations(timed))
    times = {name: [] for name in timed}
    for call in timed.values():
        call()
    for k in range(rounds):
        for name in orders[(7 * k) % len(orders)]:  # 7 and 24 have no common factor: each order comes up
            start = time.process_time()
            timed[name]()
            times[name].append(1e3 * (time.process_time() - start))
    return {name: statistics.median(t) for name, t in times.items()}


def compare(timed: dict[str, dict], rounds: int):
    """For each call: the times of all, and flowlib's over that of the fastest other."""
    others = [name for name in timed if name != "flowlib"]
    for operation in timed["flowlib"]:
        runs = [medians({name: calls[operation] for name, calls in timed.items()}, rounds) for _ in range(RUNS)]
        times = {name: statistics.median(run[name] for run in runs) for name in timed}
        ratios = [run["flowlib"] / min(run[name] for name in others) for run in runs]
        yield {"operation": operation, "milliseconds": {name: round(t, 3) for name, t in times.items()},
               "ratio": round(times["flowlib"] / min(times[name] for name in others), 3),
               "ratio_of_each_run": [round(r, 3) for r in ratios]}


def coupling_rows(models, dims, rounds):
    for model in models:
        for dim in dims:
            built = {name: calls(build, model, dim) for name, build in BUILDERS.items()}
            (parameters,) = {count for _, count in built.values()}  # equal in all four, or the comparison is void
            for row in compare({name: timed for name, (timed, _) in built.items()}, rounds):
                yield {"model": model, "dim": dim, "parameters": parameters} | row


def finite_rows(rounds):
    for model, builders in finite.FINITE.items():
        built = {name: finite_calls(build) for name, build in builders.items()}
        counts = {name: count for name, (_, count) in built.items()}
        assert len(set(counts.values())) == 1 or "planar maps" in builders, counts
        for row in compare({name: timed for name, (timed, _) in built.items()}, rounds):
            yield {"model": model, "dim": finite.DIM, "parameters": counts["flowlib"]} | row


def image_rows(rounds):
    built = {name: image_calls(build) for name, build in images.BUILDERS.items()}
    (parameters,) = {count for _, count in built.values()}
    for row in compare({name: timed for name, (timed, _) in built.items()}, rounds):
        yield {"model": "Glow", "dim": math.prod(images.SHAPE), "parameters": parameters} | row


def autoregressive_rows(rounds):
    for (model, dim), (layers, hidden, batch) in autoregressive.SIZES.items():
        built = {name: calls(partial(build, layers=layers, hidden=hidden), model, dim, batch)
                 for name, build in autoregressive.BUILDERS.items()}
        (parameters,) = {count for _, count in built.values()}
        for operation in ("training step", "log_prob", "sample"):
            slow = operation == "sample" and dim > 64  # for the others
            turns = [{name: milliseconds(timed[operation]) for name, (timed, _) in built.items()}
                     for _ in range(1 if slow else rounds)]
            times = {name: min(turn[name] for turn in turns) for name in built}
            ratio = round(times["flowlib"] / min(t for name, t in times.items() if name != "flowlib"), 4)
            yield {"model": model, "dim": dim, "layers": layers, "hidden": hidden, "batch": batch,
                   "parameters": parameters, "operation": operation, "ratio": ratio, "ratio_of_each_run": [ratio],
                   "milliseconds": {name: round(t, 3) for name, t in times.items()}}


def milliseconds(call):
    """One call, in the processor's time."""
    start = time.thread_time()
    call()
    return 1e3 * (time.thread_time() - start)


def measured(rows):
    """Print rows as they come; give them with where and when they were measured."""
    start, done = time.perf_counter(), []
    for row in rows:
        done.append(row)
        times = "  ".join(f"{name} {t:8.3f}" for name, t in row["milliseconds"].items())
        print(f"{row['model']:24} D={row['dim']:<3} {row['operation']:14} {times} ms   ratio {row['ratio']:.2f} "
              f"(runs {row['ratio_of_each_run']})", flush=True)
    return {"rows": done, "batch": BATCH, "runs": RUNS, "device": machine(), "threads": torch.get_num_threads(),
            "date": datetime.date.today().isoformat(), "minutes": round((time.perf_counter() - start) / 60, 1),
            "versions": {name: version(name) for name in ("torch", "zuko", "nflows", "normflows")},
            "command": "make bench"}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=("couplings", "finite", "images", "autoregressive"),
                        help="measure only this part, and keep the others")
    parser.add_argument("--model", choices=LAYERS, help="only this coupling model, and write nothing")
    parser.add_argument("--dim", type=int, help="only this dimension of couplings, and write nothing")
    parser.add_argument("--rounds", type=int, default=72, help="calls in one run")
    args = parser.parse_args()
    torch.set_num_threads(1)  # small models: more threads measure the thread pool
    file, only = RESULTS / "bench.json", args.model or args.dim
    result = json.loads(file.read_text()) if file.exists() else {}
    if args.part in (None, "couplings"):
        rows = coupling_rows([args.model] if args.model else LAYERS, [args.dim] if args.dim else DIMS, args.rounds)
        result |= measured(rows) | {"hidden": HIDDEN, "bins": BINS, "layers": LAYERS, "rounds": args.rounds}
    if args.part in (None, "finite") and not only:
        result["finite"] = measured(finite_rows(args.rounds)) | {"layers": finite.LAYERS, "rounds": args.rounds}
    if args.part in (None, "images") and not only:
        rounds = args.rounds // 3
        result["images"] = measured(image_rows(rounds)) | {"batch": images.BATCH, "rounds": rounds}
    if args.part in (None, "autoregressive") and not only:
        rounds = max(args.rounds // 12, 1)
        result["autoregressive"] = measured(autoregressive_rows(rounds)) | {"rounds": rounds}
    if not only:
        file.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
