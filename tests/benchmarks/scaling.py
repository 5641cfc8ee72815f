"""How time and memory grow with the dimension and with the batch, beside zuko, nflows and normflows, and what
`torch.compile` gains: book/results/scaling.json.

    .venv-bench/bin/python tests/benchmarks/scaling.py [--part memory|dim|batch|compile]

What the file has is kept, so a run goes on where the last one ended; remove the file to begin anew. The libraries take
turns in one process. Times are the processor's, of one thread, each the least of several calls (of one where a call
takes seconds). Memory is what a process forked for each model needs at most, above what it had after its imports, to
build the model and to train it for two steps.
"""
import argparse
import datetime
import json
import math
import os
import sys
import time
from functools import partial
from pathlib import Path

import torch

os.environ["TORCHINDUCTOR_FORCE_DISABLE_CACHES"] = "1"  # compiling is timed
ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "book" / "tools")]

import autoregressive  # noqa: E402
import models  # noqa: E402
from results import RESULTS, machine  # noqa: E402
from run import milliseconds, training, version  # noqa: E402

import flowlib  # noqa: E402

FILE = RESULTS / "scaling.json"
DIMS, BATCH = (2, 8, 32, 128, 512, 1024), 128
BATCHES, DIM = (1, 8, 64, 512, 4096), 32
COUPLINGS = {"layers": dict(models.LAYERS), "hidden": models.HIDDEN, "bins": models.BINS}
MAF = {"layers": 2, "hidden": (128, 128)}
SECONDS = 0.15  # of calls, for one time of one library
IMAGES, SHAPE = 16, (1, 8, 8)  # a batch of images, for torch.compile


def builders(model):
    """library -> what builds the model of a dimension."""
    if model == "MAF":
        return {name: partial(build, model, **MAF) for name, build in autoregressive.BUILDERS.items()}
    return {name: partial(build, model) for name, build in models.BUILDERS.items()}


def calls(build, dim, batch):
    torch.manual_seed(0)
    module, log_prob, sample = build(dim)
    x = torch.randn(batch, dim)
    return {"training step": training(module, lambda: -log_prob(x).mean()),
            "log_prob": torch.no_grad()(lambda: log_prob(x)), "sample": torch.no_grad()(lambda: sample(batch))}


def least(timed):
    """name -> the least milliseconds of its calls, the names taking turns."""
    times = {name: [] for name in timed}
    while sum(map(sum, times.values())) < 1e3 * SECONDS * len(timed) and len(next(iter(times.values()))) < 40:
        for name, call in timed.items():
            times[name].append(milliseconds(call))
    return {name: round(min(t), 4) for name, t in times.items()}


def times(model, dim, batch):
    built = {name: calls(build, dim, batch) for name, build in builders(model).items()}
    return {operation: least({name: timed[operation] for name, timed in built.items()})
            for operation in built["flowlib"]}


def peak(build, dim, batch):
    """Mebibytes at most, in a process of its own."""
    read, write = os.pipe()
    if (child := os.fork()) == 0:
        calls(build, 2, 1)["training step"]()  # what the first use of a library brings is no model's
        before = resident("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        step = calls(build, dim, batch)["training step"]
        step()
        os.write(write, str(resident("VmHWM") - before).encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(write)
    return round(int(os.read(read, 20)) / 1024, 1)


def resident(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))


def compiled(module, calls):
    """call -> the time of eager code over that of compiled code, both times and the seconds that compiling takes."""
    found = {}
    for name, call in calls.items():
        torch.compiler.reset()
        fast, start = torch.compile(call, fullgraph=True), sum(os.times()[:4])  # its C++ compiler's too
        with torch.set_grad_enabled(name == "training step"):
            def step(call):
                value = call()
                if value.requires_grad:
                    module.zero_grad()
                    value.backward()

            step(fast)
            seconds = sum(os.times()[:4]) - start
            both = least({"eager": partial(step, call), "compiled": partial(step, fast)})
        found[name] = both | {"gain": round(both["eager"] / both["compiled"], 2), "seconds": round(seconds, 1)}
    return found


COMPILED = {  # name -> what builds it, and the events that it is compiled for
    **{name: (partial(getattr(flowlib, name), 16), 512) for name in ("NICE", "RealNVP", "NSF")},
    "MAF": (partial(flowlib.MAF, 16, layers=2), 512),
    "RealNVPImage": (partial(flowlib.RealNVPImage, SHAPE, scales=2, steps=2, hidden=32), IMAGES),
    "Glow": (partial(flowlib.Glow, SHAPE, scales=2, steps=2, hidden=32), IMAGES)}


def gains(model):
    torch.manual_seed(0)
    build, batch = COMPILED[model]
    flow = build()
    x = torch.randn(batch, *flow.event_shape) if flow.event_shape == (16,) else torch.randint(256, (batch, *SHAPE))
    if hasattr(flow, "initialize"):
        flow.initialize(x)
    return compiled(flow, {"log_prob": lambda: flow.log_prob(x), "training step": lambda: -flow.log_prob(x).mean(),
                           "sample": lambda: flow.sample(batch)})


def cells():
    """(part, model, dim, batch) and what measures it. Memory first: what a process has freed, its children reuse."""
    for model in (*models.LAYERS, "MAF"):
        for dim in DIMS:
            yield ("memory", model, dim, BATCH), partial(memory, model, dim, BATCH)
    for part, sizes in (("batch", [(DIM, batch) for batch in BATCHES]), ("dim", [(dim, BATCH) for dim in DIMS])):
        for model in (*models.LAYERS, "MAF"):
            for size in sizes:
                yield (part, model, *size), partial(times, model, *size)
    for model, (build, batch) in COMPILED.items():
        yield ("compile", model, math.prod(build().event_shape), batch), partial(gains, model)


def memory(model, dim, batch):
    return {name: peak(build, dim, batch) for name, build in builders(model).items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=("memory", "dim", "batch", "compile"), help="measure only this part")
    part = parser.parse_args().part
    torch.set_num_threads(1)
    result: dict = json.loads(FILE.read_text()) if FILE.exists() else {"rows": []}
    result |= {"couplings": COUPLINGS, "MAF": MAF, "device": machine(), "command": "make scaling",
               "versions": {name: version(name) for name in ("torch", "zuko", "nflows", "normflows")}}
    done = {(row["part"], row["model"], row["dim"], row["batch"]) for row in result["rows"]}
    for key, measure in cells():
        if key in done or part not in (None, key[0]):
            continue
        start = time.process_time()
        row = dict(zip(("part", "model", "dim", "batch"), key)) | {"found": measure()}
        row |= {"seconds": round(time.process_time() - start, 1), "date": datetime.date.today().isoformat()}
        rows = json.loads(FILE.read_text())["rows"] if FILE.exists() else []  # another part may run beside this
        result["rows"] = [*rows, row]
        FILE.write_text(json.dumps(result, indent=1) + "\n")
        print(row, flush=True)


if __name__ == "__main__":
    main()
