"""Time flowlib against zuko, nflows and normflows, and write book/results/bench.json.

    make bench

All four take turns in one process, each round in another order, so that what else the machine does falls on all alike.
Times are the processor's, of one thread: on an idle machine the clock's. A time is the median of a run's rounds, and of
three such runs; a ratio is flowlib's time over that of the fastest other.
"""
import argparse
import datetime
import itertools
import json
import statistics
import sys
import time
import warnings
from importlib.metadata import version
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "book" / "tools")]
warnings.filterwarnings("ignore", message="Inputs to the softmax are not scaled down")  # nflows' at each call

from models import BINS, BUILDERS, HIDDEN, LAYERS  # noqa: E402
from results import RESULTS, machine  # noqa: E402

DIMS, BATCH, RUNS = (2, 16, 64), 1024, 3


def calls(build, model, dim):
    """The three calls that are timed, on a model of its own that a few training steps have warmed."""
    torch.manual_seed(0)
    module, log_prob, sample = build(model, dim)
    x = torch.randn(BATCH, dim)
    optimiser = torch.optim.Adam(module.parameters(), lr=1e-3)

    def training_step():
        optimiser.zero_grad()
        (-log_prob(x).mean()).backward()
        optimiser.step()

    for _ in range(5):
        training_step()
    timed = {"training step": training_step, "log_prob": torch.no_grad()(lambda: log_prob(x)),
             "sample": torch.no_grad()(lambda: sample(BATCH))}
    return timed, sum(p.numel() for p in module.parameters() if p.requires_grad)


def medians(timed: dict, rounds: int) -> dict[str, float]:
    """name -> median milliseconds of one call, the names taking turns."""
    orders = list(itertools.permutations(timed))
    times = {name: [] for name in timed}
    for name, call in timed.items():
        call()
    for k in range(rounds):
        for name in orders[(7 * k) % len(orders)]:  # 7 and 24 have no common factor: each order comes up
            start = time.process_time()
            timed[name]()
            times[name].append(1e3 * (time.process_time() - start))
    return {name: statistics.median(t) for name, t in times.items()}


def cell(model, dim, rounds):
    """The three operations of one model in one dimension: rows of the table."""
    built = {name: calls(build, model, dim) for name, build in BUILDERS.items()}
    (parameters,) = {count for _, count in built.values()}  # equal in all four, or the comparison is void
    for operation in ("training step", "log_prob", "sample"):
        runs = [medians({name: timed[operation] for name, (timed, _) in built.items()}, rounds) for _ in range(RUNS)]
        times = {name: statistics.median(run[name] for run in runs) for name in BUILDERS}
        others = [name for name in BUILDERS if name != "flowlib"]
        ratios = [run["flowlib"] / min(run[name] for name in others) for run in runs]
        yield {"model": model, "dim": dim, "operation": operation, "parameters": parameters,
               "milliseconds": {name: round(t, 3) for name, t in times.items()},
               "ratio": round(times["flowlib"] / min(times[name] for name in others), 3),
               "ratio_of_each_run": [round(r, 3) for r in ratios]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=LAYERS, help="only this model, and write nothing")
    parser.add_argument("--dim", type=int, help="only this dimension, and write nothing")
    parser.add_argument("--rounds", type=int, default=72, help="calls in one run")
    args = parser.parse_args()
    torch.set_num_threads(1)  # small models: more threads measure the thread pool
    start, rows = time.perf_counter(), []
    for model in [args.model] if args.model else LAYERS:
        for dim in [args.dim] if args.dim else DIMS:
            for row in cell(model, dim, args.rounds):
                rows.append(row)
                times = "  ".join(f"{name} {t:8.3f}" for name, t in row["milliseconds"].items())
                print(f"{model:8} D={dim:<3} {row['operation']:14} {times} ms   ratio {row['ratio']:.2f} "
                      f"(runs {row['ratio_of_each_run']})", flush=True)
    if args.model or args.dim:
        return
    result = {
        "rows": rows, "batch": BATCH, "hidden": HIDDEN, "bins": BINS, "layers": LAYERS, "rounds": args.rounds,
        "runs": RUNS,
        "device": machine(), "threads": torch.get_num_threads(), "command": "make bench",
        "versions": {name: version(name) for name in ("torch", "zuko", "nflows", "normflows")},
        "date": datetime.date.today().isoformat(), "minutes": round((time.perf_counter() - start) / 60, 1),
    }
    (RESULTS / "bench.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
