"""Gaussianize a density on the plane and print how far it is from the data's: `python
book/results/rows/gaussianization.py moons flow --seed 0`.

`rbig` is fitted layer by layer without gradients; `flow` starts as that and all its layers are trained together. The
data's own density is known (of the moons, by quadrature along the two arcs), so KL(data || flow) = E[log p(x) - log
q(x)] needs new points only. Printed before it: the integral of the flow's density over the plane.
"""
import argparse
import math

import torch

import flowlib as fl
from flowlib.train import fit


def moons_log_prob(x: torch.Tensor, points: int = 400) -> torch.Tensor:
    """Two half circles, uniform in the angle, with noise: the mean of Gaussians along them."""
    moons = fl.targets.Moons()
    angle = math.pi * (torch.arange(points) + 0.5) / points
    upper = torch.stack([angle.cos(), angle.sin()], -1)
    arcs = torch.cat([upper, torch.tensor([1.0, 0.5]) - upper])
    found = [-torch.cdist(rows, arcs).square() / (2 * moons.noise**2) for rows in x.split(5000)]
    return torch.cat([f.logsumexp(-1) for f in found]) - math.log(2 * points * 2 * math.pi * moons.noise**2)


TARGETS = {"eight": fl.targets.EightGaussians(), "moons": fl.targets.Moons(), "rings": fl.targets.Rings()}

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("target", choices=TARGETS)
parser.add_argument("model", choices=("rbig", "flow"))
parser.add_argument("--seed", type=int, default=0)
args = parser.parse_args()

torch.set_num_threads(1)
torch.manual_seed(args.seed)
target = TARGETS[args.target]
log_prob = moons_log_prob if args.target == "moons" else target.log_prob
if args.model == "rbig":
    flow = fl.RBIG(2, layers=100, components=20, rotation="random").fit(target.sample(100_000))
else:
    flow = fl.GaussianizationFlow(2, layers=6, components=20)
    flow.initialize(target.sample(20_000))
    fit(flow, target.sample(800 * 256), epochs=1, batch_size=256, lr=5e-3, seed=args.seed, cpu=True)
x = target.sample(20_000)
with torch.no_grad():
    gap = torch.cat([log_prob(rows) - flow.log_prob(rows) for rows in x.split(5000)]).mean().item()
    low, high = (x.min(0).values - 2, x.max(0).values + 2)
    print("integral", fl.checks.total_probability(flow, low, high, 251))
print(gap)
