"""Started by tests/test_train_processes.py as `accelerate launch ... two_processes.py OUT`: a few steps of each
objective.

Each process writes the weights before and the gradients of the first step, as the optimizer saw them, the weights after
a few steps, and the losses.
"""
import sys
from pathlib import Path

import torch
from accelerate import PartialState
from safetensors.torch import save_file
from torch.optim.optimizer import register_optimizer_step_pre_hook

from flowlib import NICE, Glow, RealNVP
from flowlib.train import ReverseKL, fit

BATCH, STEPS = 16, 4


def energy(x):
    """Of a normal density at (1, -2) with standard deviation 1/2."""
    return 2 * (x - torch.tensor([1.0, -2.0], dtype=x.dtype)).square().sum(-1)


def data():
    return 0.5 * torch.randn(48, 2, generator=torch.Generator().manual_seed(7), dtype=torch.float64) + 3


def make(model):
    """The same flow in every process, with last layers that are not zero, so that every weight has a gradient."""
    torch.manual_seed(1)
    flow = model(2, layers=2, hidden=(8,)).double()
    for parameter in flow.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return flow


def images():
    return torch.randint(0, 16, (48, 1, 8, 8), generator=torch.Generator().manual_seed(8), dtype=torch.uint8)


def make_glow(seed=1):
    torch.manual_seed(seed)
    return Glow((1, 8, 8), levels=16, scales=2, steps=2, hidden=4).double()


def train(flow, **options):
    """What the docstring of this file says, by name."""
    first = {}
    names = {p: name for name, p in flow.named_parameters()}

    def keep(optimizer, args, kwargs):
        if not first:
            for p in (p for group in optimizer.param_groups for p in group["params"]):
                first.update({f"start/{names[p]}": p.detach().clone().contiguous(),
                              f"gradient/{names[p]}": p.grad.clone().contiguous()})

    hook = register_optimizer_step_pre_hook(keep)
    history = fit(flow, batch_size=BATCH, steps=STEPS, clip=None, cpu=True, progress=False, **options)
    hook.remove()
    losses = {name: torch.tensor(getattr(history, name), dtype=torch.float64) for name in ("loss", "val_loss")}
    return first | {f"weight/{name}": t for name, t in flow.state_dict().items()} | losses


if __name__ == "__main__":
    out = Path(sys.argv[1])
    likelihood = train(make(RealNVP), train=data(), val=data()[:7], out=out / "run")
    if PartialState().process_index == 1:
        torch.manual_seed(99)  # rank 0 decides, whatever the others start from
    flow = NICE(2, layers=1, hidden=(4,)).double()
    started = train(flow, train=data())
    flow = make(RealNVP)
    variational = train(flow, train=None, objective=ReverseKL(flow, energy))
    accumulated = train(make(RealNVP), train=data(), accumulate=2)
    glow = train(make_glow(seed=1 + PartialState().process_index), train=images(), val=images()[:7])
    state = PartialState()
    assert state.num_processes == 2, state
    started_alone = NICE(2, layers=1, hidden=(4,)).double()  # without `fit`, from other rows in each process
    started_alone.initialize((1 + state.process_index) * data())
    for name, tensors in (("likelihood", likelihood), ("started", started), ("variational", variational),
                          ("accumulated", accumulated), ("glow", glow),
                          ("started-alone", {f"weight/{name}": t for name, t in started_alone.state_dict().items()})):
        save_file(tensors, out / f"{name}-{state.process_index}.safetensors")
    state.wait_for_everyone()
    state.destroy_process_group()
