"""MADE on binarised MNIST: `python book/results/rows/binary_made.py --orders 8 --steps 10000 --seed 0` prints nats.

Pixels are Bernoulli variables whose probability is the grey level. Those of the training images are drawn anew at every
step, those of the test images once, with seed 0. So this is not Larochelle's file, which is one fixed draw of the
training images too; the test numbers are of the same kind.

With several orders each step trains one of them, and the test takes the mean of the probabilities. A run in a folder
(`--out`) goes on where it was interrupted. `--checkpoint` writes the trained model there in half precision.
"""
import argparse
import json
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
parser.add_argument("--steps", type=int, default=3000)
parser.add_argument("--units", type=int, default=500)
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--out", type=Path)
parser.add_argument("--checkpoint", type=Path)
args = parser.parse_args()

torch.set_num_threads(1)
torch.manual_seed(0)
train, test = (fl.data.load("mnist", split).x.flatten(1) for split in ("train", "test"))
test = torch.bernoulli(test / 255)

torch.manual_seed(args.seed)
model = fl.BernoulliMADE(784, hidden=(args.units,), orders=args.orders, direct=True)
history = fit(model, train, objective=Binarised(model), steps=args.steps, batch_size=128, lr=5e-3, seed=args.seed,
              eval_every=500, out=args.out, resume=args.out is not None, cpu=True)
with torch.no_grad():
    one, nats = (-torch.cat([model.log_prob(x, order) for x in test.split(1000)]) for order in (0, None))
found = {"processor seconds": history.processor_seconds, "the natural order alone": one.mean().item(),
         "standard error": nats.std().item() / math.sqrt(len(nats)), "nats": nats.mean().item()}
if args.checkpoint:
    fl.save(model.half(), args.checkpoint)
    (args.checkpoint / "metrics.json").write_text(json.dumps(
        {"what": "MADE on MNIST, binarised at random: test nats", "units": args.units, "orders": args.orders,
         "steps": args.steps, "seed": args.seed, **found}, indent=1) + "\n")
for name, value in found.items():
    print(name, value)
