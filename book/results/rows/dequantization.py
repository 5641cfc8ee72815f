"""Uniform against learned noise: `python book/results/rows/dequantization.py pmf variational --seed 0` prints bits/dim.

`pmf`: one pixel with the four levels' probabilities .1, .2, .3, .4, of entropy 1.846439 bits. A smooth density p(v),
here a mixture of four Gaussians, has to hold that much in each quarter of the unit interval; uniform noise asks it to
be a staircase too. With `gaussian`, p is one Gaussian. `digits`: a small Flow++ on 8x8 digits, the same but for the
noise.
"""
import argparse

import torch

import flowlib as fl
from flowlib.train import fit

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("data", choices=["pmf", "digits"])
parser.add_argument("noise", choices=["gaussian", "uniform", "variational"])
parser.add_argument("--seed", type=int, default=0)
args = parser.parse_args()

torch.set_num_threads(1)
torch.manual_seed(args.seed)
variational = args.noise == "variational"
if args.data == "pmf":
    shape, levels, repeats = (1, 1, 1), 4, 400
    train = torch.arange(4, dtype=torch.uint8).repeat_interleave(torch.tensor([100, 200, 300, 400])).reshape(-1, *shape)
    test = train
    noise = fl.VariationalDequantize(shape, levels, hidden=16) if variational else fl.Dequantize(levels)
    k = 1 if args.noise == "gaussian" else 4
    base = fl.GaussianMixture((torch.arange(k)[:, None] + 0.5) / k, 0.05, trainable=True)
    flow = fl.Flow(base, fl.Compose(fl.Reshape((1,), shape), noise))
    fit(flow, train, steps=2000, batch_size=500, lr=1e-2, seed=args.seed, cpu=True)
else:
    shape, levels, repeats = (1, 8, 8), 17, 20
    train, test = (fl.data.load("digits", split).x for split in ("train", "test"))
    flow = fl.FlowPlusPlus(shape, levels=levels, scales=1, steps=2, hidden=16, components=4, variational=variational,
                           blocks=1)
    fit(flow, train, steps=800, batch_size=128, lr=3e-3, seed=args.seed, cpu=True)
with torch.no_grad():
    bits = fl.bits_per_dim(torch.stack([flow.log_prob(test).mean() for _ in range(repeats)]), test[0].numel())
print(bits.mean().item())
