"""Fit a flow to eight Gaussians and print how far it is from them: `python book/results/rows/eight_gaussians.py NSF --seed 0`.

The density of the data is known, so KL(data || flow) = E[log p(x) - log q(x)] needs new points only, and no estimate of p.
"""
import argparse

import torch

import flowlib as fl
from flowlib.train import fit

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("model", choices=["RealNVP", "NSF"])
parser.add_argument("--seed", type=int, default=0)
args = parser.parse_args()

torch.set_num_threads(1)
torch.manual_seed(args.seed)
angle = torch.arange(8) * torch.pi / 4
data = fl.GaussianMixture(4 * torch.stack([angle.cos(), angle.sin()], -1), 0.5)
flow = getattr(fl, args.model)(2)
fit(flow, data.sample((3000 * 256,)), epochs=1, batch_size=256, lr=2e-3, seed=args.seed, cpu=True)
x = data.sample((200_000,))
with torch.no_grad():
    print((data.log_prob(x) - flow.log_prob(x)).mean().item())
