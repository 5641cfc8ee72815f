"""A VAE on binarised MNIST with a flow as its posterior: `python book/results/rows/vae.py planar --seed 0`.

Encoder and decoder have one hidden layer of 300 units, the latent has 16 dimensions, and every flow is amortised by the
encoder's 100 outputs. Pixels are drawn anew as Bernoulli variables at every step, those of the test images, every fifth
of the test set, once: they are the same for all posteriors and seeds. From 100 draws of z for each of them come, in
nats: the bound of training, -ELBO; the standard error over the images of what follows; and last the importance-weighted
bound on
-ln p(x).
"""
import argparse
import math

import torch
from torch import nn

import flowlib as fl
from flowlib.train import fit
from flowlib.vae import VAE, mlp, posterior

D, C = 16, 100
FLOWS = {
    "diagonal": lambda: [],
    "planar": lambda: [fl.Planar(D, context_dim=C) for _ in range(8)],
    "radial": lambda: [fl.Radial(D, context_dim=C) for _ in range(8)],
    "sylvester": lambda: [fl.Sylvester(D, 8, context_dim=C) for _ in range(4)],
    "householder": lambda: [fl.Householder(D, 8, context_dim=C)],
    "liaf": lambda: [fl.LinearIAF(D, context_dim=C)],
    "ccliaf": lambda: [fl.ConvexLinearIAF(D, 5, context_dim=C)],
    "iaf": lambda: [*fl.IAF(D, layers=2, hidden=(128,), context_dim=C, gated=True).bijection],
    "naf": lambda: [fl.Inverse(fl.NAF(D, layers=2, hidden=(128,), units=8, context_dim=C).bijection)],
}


class Binarised(nn.Module):
    """-ELBO of images (B, 784) of grey levels in [0, 1], each pixel drawn as black or white."""

    def __init__(self, vae):
        super().__init__()
        self.vae = vae

    def forward(self, x):
        return self.vae(torch.bernoulli(x))


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("flow", choices=FLOWS)
parser.add_argument("--steps", type=int, default=2000)
parser.add_argument("--lr", type=float, default=4e-3)
parser.add_argument("--seed", type=int, default=0)
args = parser.parse_args()

torch.set_num_threads(1)
torch.manual_seed(0)
train, test = (fl.data.load("mnist", split).x.flatten(1) / 255 for split in ("train", "test"))
test = torch.bernoulli(test[::5])

torch.manual_seed(args.seed)
vae = VAE(mlp(784, 300, C), posterior(D, C, *FLOWS[args.flow]()), mlp(D, 300, 784))
fit(vae.flow, train, objective=Binarised(vae), steps=args.steps, batch_size=128, lr=args.lr, seed=args.seed, ema=0.999,
    cpu=True)
elbo, bound = [], []
with torch.no_grad():
    for x in test.split(50):
        log_x, log_z, log_q = vae.terms(x, 100)
        log_w = log_x + log_z - log_q  # (100, 50): both bounds from the same draws
        elbo.append(-log_w.mean(0))
        bound.append(math.log(len(log_w)) - log_w.logsumexp(0))
elbo, bound = torch.cat(elbo), torch.cat(bound)
print("-ELBO", elbo.mean().item())
print("standard error", bound.std().item() / math.sqrt(len(bound)))
print(bound.mean().item())
