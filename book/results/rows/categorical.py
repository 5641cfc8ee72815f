"""Categorical flows on sets: `python book/results/rows/categorical.py shuffle-4 mixture --steps 3000 --seed 0` prints
bits a variable.

`shuffle-N`: a set of N elements that bear the numbers 0..N-1 in any order, all orders alike; the optimum is log2(N!)/N
(Lippe and Gavves 2021, arXiv:2006.09790). Models: the three encodings of a `CategoricalFlow`; mixture
couplings over one number an element, dequantized by uniform or learned noise; an exact autoregressive model.

What is printed last is the bound; before it the importance-weighted bound of 64 draws, and the share of samples that
hold every number once. A run in a folder (`--out`) goes on where it was interrupted; `--checkpoint` writes the model.
"""
import argparse
import itertools
import json
import math
from pathlib import Path

import torch

import flowlib as fl
from flowlib.images.preprocess import preprocessing
from flowlib.train import fit

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("task", choices=["shuffle-4", "shuffle-6", "shuffle-16"])
parser.add_argument("model", choices=["mixture", "linear", "variational", "uniform", "noise", "autoregressive"])
parser.add_argument("--steps", type=int, default=3000)
parser.add_argument("--dim", type=int, default=2, help="numbers an element, for the three encodings")
parser.add_argument("--layers", type=int, default=6)
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--out", type=Path)
parser.add_argument("--checkpoint", type=Path)
args = parser.parse_args()

torch.set_num_threads(1)
torch.manual_seed(args.seed)
n = int(args.task.split("-")[1])
if n < 8:
    sets = torch.tensor(list(itertools.permutations(range(n))))
    sets = sets.repeat(math.ceil(1000 / len(sets)), 1)
else:
    sets = torch.stack([torch.randperm(n) for _ in range(100_000)])
shape = (1, 1, n)
if args.model in ("uniform", "noise"):  # of one number an element; a coupling keeps half of the elements
    couplings = [fl.Coupling(n, fl.LogisticMixtureCDF(8), hidden=(128, 128), mask=torch.randperm(n) < n // 2)
                 for _ in range(args.layers)]
    noise = fl.Dequantize(n) if args.model == "uniform" else fl.VariationalDequantize(shape, n, layers=2)
    flow = fl.Flow(fl.StandardLogistic(n), fl.Compose(*couplings, *preprocessing("logit", ndim=1),
                                                      fl.Reshape((n,), shape), noise))
    sets = sets.reshape(-1, *shape)
elif args.model == "autoregressive":
    flow = fl.CategoricalMAF(n, n)
else:
    flow = fl.CategoricalFlow(n, n, encoding=args.model, dim=args.dim, layers=args.layers)
history = fit(flow, sets, steps=args.steps, batch_size=256, lr=3e-3, seed=args.seed, out=args.out,
              resume=args.out is not None, cpu=True)
flow.eval()
with torch.no_grad():
    torch.manual_seed(0)
    x = sets[torch.randint(len(sets), (10_000,))]
    bits = fl.bits_per_dim(flow.log_prob(x), n)
    tight = torch.cat([fl.bits_per_dim(fl.importance.log_prob(flow, part, 64), n) for part in x[:2000].split(500)])
    drawn = flow.sample(2000).reshape(-1, n).sort(-1).values
found = {"processor seconds": history.processor_seconds, "weighted, 64 draws": tight.mean().item(),
         "its standard error": tight.std().item() / math.sqrt(len(tight)),
         "each number once": (drawn == torch.arange(n)).all(-1).float().mean().item(),
         "standard error": bits.std().item() / math.sqrt(len(bits)), "bound": bits.mean().item()}
if args.checkpoint:
    fl.save(flow, args.checkpoint)
    (args.checkpoint / "metrics.json").write_text(json.dumps(
        {"what": f"{args.model} on {args.task}: bits a variable", "steps": args.steps, "seed": args.seed, **found},
        indent=1) + "\n")
for name, value in found.items():
    print(name, value)
