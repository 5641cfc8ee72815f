"""Fit one masked autoregressive layer to AR(1) and print its test loss: `python book/results/rows/autoregression.py
--seed 0`.

x_i = 0.9 x_{i-1} + noise of variance 1, from its stationary law, in 8 dimensions. No model has a smaller loss than the
entropy, 4 ln(2 pi e) - ln(0.19) / 2 = 12.181874 nats. By how much the test points, being few, shift it is taken off:
what is printed is the entropy plus the mean of log p - log q. Lines before it: how far, root mean square, the learned
means are from 0.9 x_{i-1}, and the learned deviations from 1.
"""
import argparse

import torch

import flowlib as fl
from flowlib.train import fit

DIM, PHI = 8, 0.9

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--seed", type=int, default=0)
args = parser.parse_args()

torch.set_num_threads(1)
torch.manual_seed(args.seed)
place = torch.arange(DIM)
covariance = PHI ** (place[:, None] - place).abs() / (1 - PHI**2)
data = torch.distributions.MultivariateNormal(torch.zeros(DIM), covariance)
flow = fl.MAF(DIM, layers=1, hidden=(64,))
fit(flow, data.sample((1500 * 256,)), epochs=1, batch_size=256, lr=1e-2, seed=args.seed, cpu=True)
x = data.sample((200_000,))
with torch.no_grad():
    excess = (data.log_prob(x) - flow.log_prob(x)).mean().item()
    log_scale, mean = flow.bijection[0].net(x).unbind(-1)
deviation = (flow.bijection[0].elementwise.bound * torch.tanh(log_scale / flow.bijection[0].elementwise.bound)).exp()
print("mean", (mean[:, 1:] - PHI * x[:, :-1]).square().mean().sqrt().item())
print("deviation", (deviation[:, 1:] - 1).square().mean().sqrt().item())
print(data.entropy().item() + excess)
