"""Fit a finite flow to an energy by reverse KL and print KL(flow || target): `... reverse_kl.py U1 --flow planar
--layers 8 --seed 0`.

ln Z of the targets is exact, so KL = E[ln q(x) + U(x)] + ln Z needs samples of the flow alone (100,000 here). A flow
that misses a mode may still have a small KL: so the effective sample size of the importance weights, as a share, and
the shape of their tail come first. The energy is annealed over the first half of the run, from 1/100 of itself: at full
strength from the start a flow settles on one mode.
"""
import argparse

import torch

import flowlib as fl
from flowlib.train import ReverseKL, fit

LAYERS = {"planar": lambda: fl.Planar(2), "radial": lambda: fl.Radial(2), "sylvester": lambda: fl.Sylvester(2, 2)}

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("target", choices=["U1", "U2", "U3", "U4"])
parser.add_argument("--flow", choices=LAYERS, default="planar")
parser.add_argument("--layers", type=int, default=32)
parser.add_argument("--steps", type=int, default=4000)
parser.add_argument("--lr", type=float, default=2e-2)
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--out", help="also save the flow in this folder")
args = parser.parse_args()

torch.set_num_threads(1)
torch.manual_seed(args.seed)
target = getattr(fl.targets, args.target)()
flow = fl.Flow(fl.StandardNormal(2), fl.Compose(*(LAYERS[args.flow]() for _ in range(args.layers))))
objective = ReverseKL(flow, target.energy, anneal=lambda done: min(1.0, 0.01 + 2 * (done + 1 / args.steps)))
fit(flow, None, objective=objective, steps=args.steps, batch_size=256, lr=args.lr, seed=args.seed, ema=0.99, cpu=True)
if args.out:
    fl.save(flow, args.out)
with torch.no_grad():
    x, log_q = flow.rsample_and_log_prob(100_000)
    log_w = target.log_prob(x) - log_q
print("sample size", (fl.importance.effective_sample_size(log_w) / len(log_w)).item())
print("k-hat", fl.importance.pareto_k(log_w))
print(-log_w.mean().item())
