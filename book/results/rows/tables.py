"""Densities of real tables: `python book/results/rows/tables.py power-small maf --seed 0`, or without a model for all.

Each flow is trained until the likelihood of the validation rows stops rising, for no longer than the steps below; its
columns are standardised inside, and the volume counts. Printed are, in nats: what the test rows gain over a
simpler model, on average, with the standard error of that paired difference; the standard error of what follows; and
last the mean log-likelihood of the test rows. Runs are kept in runs/tables/ and go on where they were interrupted.
"""
import argparse
import time
from pathlib import Path

import torch

import flowlib as fl
from flowlib.train import fit

RUNS = Path("runs") / "tables"
MODELS = {  # of the dimension and the width of the networks, from the plainest on
    "gaussian": None,
    "made": lambda dim, width: fl.MAF(dim, layers=1, hidden=(width, width)),
    "realnvp": lambda dim, width: fl.RealNVP(dim, layers=10, hidden=(width, width)),
    "maf": lambda dim, width: fl.MAF(dim, layers=5, hidden=(width, width)),
    "maf-mixture": lambda dim, width: fl.MAF(dim, layers=5, hidden=(width, width), components=10),
    "naf": lambda dim, width: fl.NAF(dim, layers=2, hidden=(width, width)),
    "nsf": lambda dim, width: fl.NSF(dim, layers=3, hidden=(width, width), autoregressive=True),
    "rbig": lambda dim, width: fl.RBIG(dim, layers=10, components=10),
    "gaussianization": lambda dim, width: fl.GaussianizationFlow(dim, layers=4, components=10, rotation="pca"),
}
BEFORE = {"made": "gaussian", "realnvp": "made", "maf": "made", "maf-mixture": "maf", "naf": "maf",
          "nsf": "maf", "rbig": "gaussian", "gaussianization": "rbig"}  # compared with
TABLES = {  # width, and how long at most
    "bsds300-small": (256, dict(steps=1_000, batch_size=256, lr=2e-3)),
    "power-small": (128, dict(steps=3_000, batch_size=512, lr=2e-3)),
    "protein": (128, dict(steps=4_000, batch_size=256, lr=2e-3, weight_decay=0.01)),
    "keggundirected": (128, dict(steps=4_000, batch_size=256, lr=1e-3, weight_decay=0.1)),
    "parkinsons": (64, dict(steps=1_000, batch_size=256, lr=2e-3, weight_decay=0.1)),
    "higgs-small": (64, dict(steps=2_000, batch_size=256, lr=2e-3, weight_decay=0.3)),
    "wine": (32, dict(steps=1_000, batch_size=128, lr=2e-3, weight_decay=0.3)),
}


def log_likelihoods(table: str, model: str, seed: int, steps: int | None) -> tuple[torch.Tensor, float]:
    """Of the test rows, float64 (N,) in nats, and the minutes of processor time that training took."""
    x = {split: fl.data.load(table, split).x for split in fl.data.SPLITS}
    scale, mean = torch.std_mean(x["train"], 0)
    build, (width, config) = MODELS[model], TABLES[table]
    if build is None:
        train = x["train"].double()
        gaussian = torch.distributions.MultivariateNormal(train.mean(0), torch.cov(train.T, correction=0))
        return gaussian.log_prob(x["test"].double()), 0.0
    torch.manual_seed(seed)
    flow = build(len(mean), width)
    flow = fl.Flow(flow.base, fl.Compose(*flow.bijection, fl.AffineMap(scale, mean)))
    if model == "rbig":  # no training: as many layers, from the data's side, as the validation rows like best
        start = time.process_time()
        flow.initialize(x["train"])
        flows = [fl.Flow(flow.base, flow.bijection[k:]) for k in range(0, len(flow.bijection) - 2, 2)]
        with torch.no_grad():
            flow = max(flows, key=lambda flow: flow.log_prob(x["val"]).mean())
            return flow.log_prob(x["test"]).double(), (time.process_time() - start) / 60
    flow.initialize(x["train"])  # Gaussianization starts from all rows
    history = fit(flow, x["train"], x["val"], **config | ({"steps": steps} if steps else {}), patience=8, seed=seed,
                  cpu=True, out=RUNS / f"{table}-{model}-{seed}", resume=True)
    with torch.no_grad():
        found = torch.cat([flow.log_prob(rows) for rows in x["test"].split(1000)])
    return found.double(), history.processor_seconds / 60


def mean(values: torch.Tensor) -> tuple[float, float]:
    """Their mean and its standard error."""
    return values.mean().item(), values.std().item() / len(values) ** 0.5


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("table", choices=TABLES)
parser.add_argument("model", choices=MODELS, nargs="?")
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--steps", type=int, help="at most, in place of the table's own number")
args = parser.parse_args()

torch.set_num_threads(1)
names = list(MODELS) if args.model is None else [BEFORE.get(args.model, args.model), args.model]
rows = {name: log_likelihoods(args.table, name, args.seed, args.steps) for name in names}
if args.model is None:
    print("| model | test log-likelihood, nats | gain over | | processor minutes |\n|---|---|---|---|---|")
for name in names if args.model is None else [args.model]:
    values, minutes = rows[name]
    before = BEFORE.get(name)
    gain = mean(values - rows[before][0]) if before else None
    if args.model is None:
        told = ("", "") if gain is None else (before, "{:.3f} ± {:.3f}".format(*gain))
        print("| {} | {:.3f} ± {:.3f} | {} | {} | {:.1f} |".format(name, *mean(values), *told, minutes))
        continue
    if gain:
        print(f"gain over {before} {gain[0]}\nits standard error {gain[1]}\nprocessor minutes {minutes}")
    print("standard error", mean(values)[1])
    print(mean(values)[0])
