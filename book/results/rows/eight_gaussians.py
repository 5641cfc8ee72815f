"""Fit a flow to eight Gaussians and print how far it is from them: `python book/results/rows/eight_gaussians.py NSF
--seed 0`.

The density of the data is known, so KL(data || flow) = E[log p(x) - log q(x)] needs new points only, and no estimate of
p.
"""
import argparse

import torch

import flowlib as fl
from flowlib.train import fit


def mixture():
    """Couplings whose map is the CDF of eight logistics, as in Flow++."""
    layers = [fl.Coupling(2, fl.LogisticMixtureCDF(8), hidden=(64, 64), swap=k % 2 == 1) for k in range(4)]
    return fl.Flow(fl.StandardNormal(2), fl.Compose(*layers))


# Model, steps, learning rate. The data reach out to 4 + 3 / 2 and more: so must the box of the splines.
MODELS = {"RealNVP": (lambda: fl.RealNVP(2), 3000, 2e-3), "NSF": (lambda: fl.NSF(2, box=7.0), 1500, 5e-3),
          "mixture": (mixture, 1500, 5e-3), "NAF": (lambda: fl.NAF(2, layers=2, units=16), 1500, 5e-3),
          "ResidualFlow": (lambda: fl.ResidualFlow(2, hidden=(64, 64, 64), coefficient=0.97), 2000, 5e-3)}

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("model", choices=MODELS)
parser.add_argument("--seed", type=int, default=0)
args = parser.parse_args()

torch.set_num_threads(1)
torch.manual_seed(args.seed)
angle = torch.arange(8) * torch.pi / 4
data = fl.GaussianMixture(4 * torch.stack([angle.cos(), angle.sin()], -1), 0.5)
build, steps, lr = MODELS[args.model]
flow = build()
fit(flow, data.sample((steps * 256,)), epochs=1, batch_size=256, lr=lr, seed=args.seed, cpu=True)
x = data.sample((200_000,))
with torch.no_grad():
    print((data.log_prob(x) - flow.log_prob(x)).mean().item())
