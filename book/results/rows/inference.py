"""Learn a posterior from simulations, or fit a guide, and print how far it is from the exact one: `python
book/results/rows/inference.py moons --seed 0`.

`gaussian`: KL(p || q) of a linear Gaussian model, the mean over observations, in nats. `moons`: the classifier
two-sample test against exact draws, the mean over four observations. `slcp`: the largest distance of a rank's
distribution function, over the 99 % band for all statistics together (below 1: within). Printed before it for all
three: that distance for the parameters and for the density. `schools`: KL(q || p) = ln Z - ELBO of a flow guide on the
eight schools, centred (`schools-diagonal`: of independent Gaussians), and the guide's k-hat. `--checkpoint` writes the
model.
"""
import argparse
import json
from pathlib import Path

import torch

import flowlib as fl
from flowlib import importance, inference
from flowlib.train import ReverseKL, fit

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("task", choices=("gaussian", "moons", "slcp", "schools", "schools-diagonal"))
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--checkpoint", type=Path)
args = parser.parse_args()

torch.set_num_threads(1)
torch.manual_seed(args.seed)


def learned(problem, simulations, support, steps, lr=5e-3, **settings):
    """The flow and its history; a twentieth of the simulations says when to stop."""
    theta = problem.prior.sample((simulations,))
    x = problem.simulate(theta)
    flow = inference.posterior(theta, x, support=support, **settings)
    held_out = simulations // 20
    history = fit(flow, (theta[held_out:], x[held_out:]), (theta[:held_out], x[:held_out]), steps=steps, lr=lr,
                  batch_size=256, seed=args.seed, cpu=True)
    return flow.requires_grad_(False), history


def calibration(flow, problem, pairs=1000, draws=100):
    """The largest distance for the parameters, and that of the density, over the band."""
    theta = problem.prior.sample((pairs,))
    x = problem.simulate(theta)
    found = torch.cat([inference.ranks(flow, theta, x, draws),
                       inference.ranks(flow, theta, x, draws, statistic=flow.log_prob)], -1)
    *parameters, density = inference.ecdf_deviation(found, draws).tolist()
    band = inference.uniform_band(pairs, 0.99, tests=found.shape[1])
    return {"parameters over the band": max(parameters) / band, "density over the band": density / band}


if args.task.startswith("schools"):
    problem = inference.EightSchools()
    flow = (fl.RealNVP(10, layers=6, hidden=(32,)) if args.task == "schools" else
            fl.Flow(fl.StandardNormal(10), fl.Elementwise(10, fl.Affine(5.0))))
    history = fit(flow, objective=ReverseKL(flow, problem.energy), train=None, steps=800, batch_size=128, ema=0.99,
                  lr=0.01 if args.task == "schools" else 0.05, seed=args.seed, cpu=True)
    with torch.no_grad():
        z, log_q = flow.rsample_and_log_prob(20_000)
    log_w = -problem.energy(z) - log_q
    found = {"k-hat": importance.pareto_k(log_w),
             "effective share": importance.effective_sample_size(log_w).item() / len(log_w),
             "value": problem.log_z - log_w.mean().item()}
elif args.task == "gaussian":
    weights = torch.tensor([[-0.5, -0.6], [-0.6, 0.7], [-0.2, 1.9]])
    problem = fl.vae.LinearGaussian(weights, 0.5)
    flow, history = learned(problem, 10_000, None, 600, model=fl.MAF, layers=3)
    x = problem.simulate(problem.prior.sample((1000,)))
    exact = problem.posterior(x)
    theta = exact.sample((100,))
    found = calibration(flow, problem) | {"value": (exact.log_prob(theta) - flow.log_prob(theta, x)).mean().item()}
elif args.task == "moons":
    problem = inference.TwoMoons()
    flow, history = learned(problem, 10_000, problem.prior.support, 3000, layers=6)
    observed = torch.cat([torch.zeros(1, 2), problem.simulate(problem.prior.sample((3,)))])
    tests = [inference.c2st(problem.sample_posterior(2000, x), flow.sample(2000, x)) for x in observed]
    found = calibration(flow, problem) | {"largest C2ST": max(tests), "value": sum(tests) / len(tests)}
else:
    problem = inference.SLCP()
    flow, history = learned(problem, 50_000, problem.prior.support, 3000, layers=6)
    found = calibration(flow, problem)
    found |= {"value": max(found.values())}

found = {"processor seconds": history.processor_seconds, **found}
if args.checkpoint:
    fl.save(flow, args.checkpoint)
    (args.checkpoint / "metrics.json").write_text(json.dumps({"what": f"posterior of {args.task}", "seed": args.seed,
                                                              **found}, indent=1) + "\n")
for name, value in list(found.items())[:-1]:
    print(name, value)
print(found["value"])
