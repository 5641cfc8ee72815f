"""What an autoregressive flow across time is worth: `python book/results/rows/sequences.py power --seed 0`.

- `filter`: sequences of 50 steps of a first-order autoregression with noise (phi = 0.9, variances 1 and 0.5), whose
  likelihood the Kalman filter gives exactly. Printed are the autocorrelation, at a lag of one step, of new sequences,
  of what the filter leaves of them and of what a `TemporalAffine` of five lags leaves, four standard errors of it, and
  how many nats a step the flow's likelihood falls short. The flow learns from ten times as many sequences, so that
  their chance correlations, which it learns, too, are small beside this error.
- `power`: a household's active power and voltage, minute by minute, in windows of 30; uniform noise as wide as the
  meter's steps, then standardised. The last fifth is for testing. A sequential VAE without and with a flow before it is
  trained in the same way. Printed are both bounds in nats a step, the standard error of their difference over days, and
  the difference.
"""
import argparse
import math

import torch

import flowlib as fl
from flowlib.train import fit


def autocorrelation(x):
    """Of neighbouring steps, for sequences (N, T)."""
    return ((x[:, 1:] * x[:, :-1]).mean() / x.square().mean()).item()


def filtered(seed):
    one = torch.eye(1)
    model = fl.LinearStateSpace(0.9 * one, one, one, 0.5 * one)
    train, test = model.sample(20_000, 50), model.sample(2000, 50)
    flow = fl.Flow(fl.StandardNormal(50, 1), fl.TemporalAffine(1, lags=5, hidden=()))
    fit(flow, train, steps=400, batch_size=1000, lr=0.05, ema=0.95, seed=seed, cpu=True)
    with torch.no_grad():
        print("autocorrelation", autocorrelation(test[..., 0]))
        print("of what the filter leaves", autocorrelation(model.whiten(test)[0][..., 0]))
        print("of what is left", autocorrelation(flow.encode(test)[..., 0]))
        print("four standard errors", 4 / math.sqrt(test.numel()))
        print((model.log_prob(test) - flow.log_prob(test)).mean().item() / 50)


def power(seed):
    from flowlib.data.tables import raw

    length, day = 30, 48
    rows = torch.from_numpy(raw("power-small")[0][:, [0, 2]])
    x = (rows + torch.rand(rows.shape) * torch.tensor([0.002, 0.01])).float()
    x = x[: len(x) // length * length].unflatten(0, (-1, length))
    split = len(x) * 4 // 5
    mean, deviation = x[:split].mean((0, 1)), x[:split].std((0, 1))
    x = (x - mean) / deviation
    bounds = []
    for flow in (None, fl.TemporalAffine(2, lags=3, hidden=(32,))):
        torch.manual_seed(seed)
        vae = fl.SequentialVAE(2, flow=flow)
        fit(vae, x[:split], objective=vae, steps=600, batch_size=64, lr=5e-3, seed=seed, cpu=True)
        with torch.no_grad():
            bounds.append(torch.stack([vae.elbo(x[split:]) for _ in range(10)]).mean(0) / length)
    without, with_flow = bounds
    gain = with_flow - without
    days = torch.stack([part.mean() for part in gain.split(day)])
    print("without", without.mean().item())
    print("with", with_flow.mean().item())
    print("standard error", days.std().item() / math.sqrt(len(days)))
    print(gain.mean().item())


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("case", choices=["filter", "power"])
parser.add_argument("--seed", type=int, default=0)
args = parser.parse_args()
torch.set_num_threads(1)
torch.manual_seed(args.seed)
{"filter": filtered, "power": power}[args.case](args.seed)
