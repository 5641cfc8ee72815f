"""MADE on binarised MNIST: `python book/results/rows/binary_made.py --orders 8 --minutes 20 --seed 0` prints nats.

Pixels are Bernoulli variables whose probability is the grey level. Those of the training images are drawn anew at every
step; those of the test images once, from seed 0. So this is not Larochelle's file, which is one fixed draw of the
training images too, but its test numbers are of the same kind.

A run is as long as so many minutes of one thread on the machine of the results page: the number of its steps is fixed.
With several orders each step trains one of them, and the test takes the mean of the probabilities. A run that is kept
in a folder (`--out`) goes on where it was interrupted.
"""
import argparse
import math
from pathlib import Path

import torch

import flowlib as fl
from flowlib.train import fit


class Binarised(fl.OrderAgnostic):
    """The loss of images (B, 784) of grey levels 0..255, each pixel drawn as black or white."""

    def forward(self, x):
        return super().forward(torch.bernoulli(x / 255))


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--orders", type=int, default=1)
parser.add_argument("--steps", type=int, default=5000)
parser.add_argument("--units", type=int, default=500)
parser.add_argument("--lr", type=float, default=2e-3)
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--out", type=Path, help="folder of the run and of the trained model")
args = parser.parse_args()

torch.set_num_threads(1)
torch.manual_seed(0)
train, test = (fl.data.load("mnist", split).x.flatten(1) for split in ("train", "test"))
test = torch.bernoulli(test / 255)

torch.manual_seed(args.seed)
model = fl.BernoulliMADE(784, hidden=(args.units,), orders=args.orders)
history = fit(model, train, objective=Binarised(model), steps=args.steps, batch_size=128, lr=args.lr, seed=args.seed,
              eval_every=1000, out=args.out, resume=args.out is not None, cpu=True)
with torch.no_grad():
    nats = -torch.cat([model.log_prob(x) for x in test.split(1000)])
    one = -torch.cat([model.log_prob(x, 0) for x in test.split(1000)])
print("seconds", history.processor_seconds)
print("standard error", (nats.std() / math.sqrt(len(nats))).item())
print("one order", one.mean().item())
print(nats.mean().item())
