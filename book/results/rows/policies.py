"""A squashed Gaussian and a flow as policies: `python book/results/rows/policies.py goals flow --seed 0`.

- `goals`: a point in the plane that may walk to either of two goals (`flowlib.policies.two_goals`, temperature 1).
  Printed is the KL divergence of the policy to the Boltzmann law in nats, by quadrature, as a mean over 50 states.
- `pendulum`: soft actor-critic on eight pendulums at once. Printed are the mean returns of the first and the last
  episode of training, and the mean return of 200 new pendulums whose actions are drawn from the policy.
"""
import argparse
import time

import torch

from flowlib.actor_critic import Pendulum, soft_actor_critic
from flowlib.policies import Boltzmann, FlowPolicy, GaussianPolicy, MaximumEntropy, two_goals
from flowlib.train import fit


def goals(kind, seed):
    policy = GaussianPolicy(2, 2) if kind == "gaussian" else FlowPolicy(2, 2, layers=6)
    steps, lr = 2000, 1e-2 if kind == "gaussian" else 3e-3
    objective = MaximumEntropy(policy, two_goals, anneal=lambda share: min(1.0, 0.05 + share / 0.6))
    fit(policy, torch.rand(steps * 128, 2) - 0.5, objective=objective, epochs=1, batch_size=128, lr=lr, seed=seed,
        cpu=True)
    states = torch.rand(50, 2, generator=torch.Generator().manual_seed(0)) - 0.5
    return Boltzmann(two_goals, 2).kl(policy, states).mean().item()


def pendulum(kind, seed):
    policy = GaussianPolicy(1, 3) if kind == "gaussian" else FlowPolicy(1, 3, layers=1)
    env = Pendulum(8, torch.Generator().manual_seed(seed))
    _, returns = soft_actor_critic(policy, env, episodes=15, alpha=0.1, lr=2e-3, batch_size=128, seed=seed)
    print("first episode", returns[0].mean().item())
    print("last episode", returns[-1].mean().item())
    test, total = Pendulum(200, torch.Generator().manual_seed(1000 + seed)), torch.zeros(200)
    for _ in range(test.horizon):
        total += test.step(policy.sample(1, test.states())[0])[1]
    return total.mean().item()


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("case", choices=["goals", "pendulum"])
parser.add_argument("policy", choices=["gaussian", "flow"])
parser.add_argument("--seed", type=int, default=0)
args = parser.parse_args()
torch.set_num_threads(1)
torch.manual_seed(args.seed)
found = {"goals": goals, "pendulum": pendulum}[args.case](args.policy, args.seed)
print("processor seconds", time.process_time())
print(found)
