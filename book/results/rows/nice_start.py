"""What the start of NICE's scale is worth: `python book/results/rows/nice_start.py data --seed 0` prints bits/dim on
MNIST.

Two runs that differ in one thing: `zero` starts the scale at s = 0, `data` from a batch (`Flow.initialize`). Four
couplings of two layers of 400 units, 13 epochs of batches of 200, Adam at 1e-3 throughout: s then moves by at most
0.001 in each of 3,900 steps, and a pixel that is always black needs -7.4. Nats are those of pixels scaled to [0, 1].
"""
import argparse
import math

import torch

import flowlib as fl

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("start", choices=["zero", "data"])
parser.add_argument("--seed", type=int, default=0)
args = parser.parse_args()

torch.set_num_threads(1)
torch.manual_seed(args.seed)
train, test = (fl.data.load("mnist", split).x for split in ("train", "test"))
flow = fl.Pixels(fl.NICE(784, hidden=(400, 400), alternate=True), (1, 28, 28))
if args.start == "data":
    flow.initialize(train[:2000])
optimiser = torch.optim.Adam(flow.parameters(), lr=1e-3)
for _ in range(13):
    for batch in train[torch.randperm(len(train))].split(200):
        loss = fl.bits_per_dim(flow.log_prob(batch).mean(), 784)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
with torch.no_grad():
    bits = fl.bits_per_dim(torch.cat([flow.log_prob(part) for part in test.split(1000)]).mean(), 784).item()
print("nats", 784 * (math.log(256) - bits * math.log(2)))
print(bits)
