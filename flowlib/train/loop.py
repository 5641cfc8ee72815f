"""The training loop: `fit` says what happens and when; `run.py` says how, in the same order.

Everything random is a function of (seed, step, process), and so are the order of the data and the learning rate: a run
that was killed goes on from its last checkpoint to the same weights, bit for bit.
"""
from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from .. import saving
from ..data import Data
from ..seeds import kept_random_state
from .batches import as_tensors
from .checkpoint import claimed, find, writing
from .config import Config, History
from .objectives import NLL
from .processes import launched_precision, processes
from .run import WINDOW, Run

__all__ = ["fit"]

Samples = Tensor | np.ndarray | tuple[Tensor | np.ndarray, ...] | Data | None


def fit(flow: nn.Module, train: Samples, val: Samples = None, *, config: Config | None = None,
        out: str | Path | None = None, objective: nn.Module | None = None,
        optimizer: Callable[[list[dict]], torch.optim.Optimizer] | None = None, resume: bool = False,
        precision: str | None = None, compile: bool = False, cpu: bool = False, progress: bool | None = None,
        watch: Callable[[int], None] | None = None, **changes) -> History:
    r"""Train a flow: AdamW on the mean of the objective, warm-up and cosine, clipped gradients, averaged weights.

    The flow gets the averaged weights of the best validation, or of the last step where there is none to compare; it
    comes back in eval mode, on the device where it was, whatever ends the training: an exception, or Ctrl-C, carries
    the `History` so far as its attribute `history`. The same call works on a CPU, on a GPU, and in several processes
    started by `accelerate launch` or `torchrun`; `batch_size` means the same everywhere. Nothing else changes: random
    states, threads and accelerate are left as they were.

    Args:
        flow: The flow, which is changed in place.
        train: Samples (N, *event) as a tensor or an array, a tuple (samples, context), a `data.load(...)`, of which a
            flow without context takes the images alone, or None where the objective draws its own. Kept on the device
            as they are (images as bytes).
        val: The same, held out for validation, or None.
        config: Settings, all or those that differ from the ones given by name.
        out: A new or empty folder. `model.safetensors` and `model.json` (for `flowlib.load`) hold the best weights so
            far, `training.safetensors` the state to resume from; all are there from step 0 on, as soon as the first
            batch has gone through, and written all or nothing.
        objective: A module around the flow whose forward takes a batch (or the number of draws, where train is None)
            and returns each sample's loss in nats. If it has an `initialize` of the same arguments, that is called
            once; if it has a `set_step(step, steps)`, before each step (and with step = steps before a validation, and
            at the end), so that what changes on the way is a function of the step. None: `NLL(flow)`.
        optimizer: Makes the optimizer of a list of parameter groups, each with its `weight_decay`, as in
            `lambda groups: torch.optim.SGD(groups, momentum=0.9)`; its learning rate is the schedule's. None: AdamW.
        resume: Go on with the run in `out`, if there is one. With the same model, data and settings the result is that
            of a run never interrupted, bit for bit on the CPU.
        precision: "bf16" runs the networks in bfloat16 (log-determinants stay float32); None does what the launcher
            says.
        compile: Compile the objective with `torch.compile`.
        cpu: Use the CPU even where there is a GPU.
        progress: Show a progress bar; None: where the output is a terminal.
        watch: Called with the number of steps after each validation, in the first process, while the flow holds the
            averaged weights and is in eval mode: for samples on the way. What it draws at random changes nothing.
        **changes: The fields of `Config`, by name: steps or epochs, batch_size, lr, lr_end, seed, betas, weight_decay,
            warmup, clip, ema, patience, eval_every, accumulate.

    Returns:
        The losses, in nats, and how training ended.

    Raises:
        ValueError: Data that are no tensors, hold NaN or infinity, do not fit the flow, or have labels that it needs as
            a context; settings that make no sense or are not those of the run to resume; a damaged checkpoint.
        FileExistsError: `out` holds something and `resume` is False.
        OSError: A checkpoint could not be written; the one before it is kept. Or another run is at work in `out`.
        TrainingError: A loss or gradient that is not finite (named by its step), or a loss that has grown far beyond
            its start. The flow and `out` keep the last good weights.

    Example:
        >>> from flowlib import RealNVP
        >>> history = fit(RealNVP(2), torch.randn(100, 2), steps=3); len(history.loss), history.stopped
        (3, 'finished')
    """
    config = Config(**changes) if config is None else replace(config, **changes)
    objective = NLL(flow) if objective is None else objective
    samples, held_out = _checked(flow, objective, train, val)
    if precision not in (None, "bf16"):
        raise ValueError(f'precision must be None or "bf16", whose range log-densities need; got {precision!r}')
    precision, out = precision or launched_precision(), None if out is None else Path(out)
    checkpoint = find(out, resume)
    if out is not None:
        saving.check_saveable(flow)  # now, not after hours

    with (processes(cpu) as here, kept_random_state(here.device),
          claimed(out if here.is_main_process else None, checkpoint)):
        run = Run(flow, objective, config, samples, held_out, here, out, precision)
        try:
            run.begin(optimizer, compile, checkpoint)
            with run.progress(progress):
                for step in range(len(run.history.loss), run.steps + 1):
                    milestone = step % run.every == 0 or step == run.steps
                    if milestone or len(run.losses) == WINDOW:
                        run.look()
                    if milestone and step != run.saved_at:
                        run.evaluate(step, watch)
                        run.save(step)
                    if run.history.stopped:
                        break
                    run.update(step)
        except BaseException as error:
            run.interrupted(error)
            raise
        finally:
            run.leave()
        if out is not None and checkpoint is not None and here.is_main_process:  # whatever became of the files
            with writing(out, run.history.best_step):
                saving.save(flow, out)
    return run.history


def _checked(flow: nn.Module, objective: nn.Module, train: Samples, val: Samples) -> tuple:
    """The data as tuples of tensors, or a ValueError that says what does not fit the flow."""
    if all(module is not flow for module in objective.modules()):
        raise ValueError("the objective must hold the flow as a submodule, or there is nothing to train")
    likelihood = isinstance(objective, NLL)
    conditional = isinstance(objective, NLL) and objective.flow.bijection.context_shape is not None
    train, val = as_tensors(train, "training", conditional), as_tensors(val, "validation", conditional)
    if train is None and (likelihood or val is not None):
        raise ValueError("without training data " + (
            "there is nothing to validate: give both" if val is not None else
            "there are no epochs and no likelihood: give steps, and an objective that draws its own (ReverseKL)"))
    for what, given in (("training", train), ("validation", val)):
        if likelihood and given and len(given) > 2:
            raise ValueError(f"the {what} data are samples or a tuple (samples, context), got {len(given)} parts")
    return train, val


_own = [p for p in inspect.signature(fit).parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
_config = [inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, default=f.default, annotation=f.type)
           for f in fields(Config)]
fit.__signature__ = inspect.signature(fit).replace(parameters=_own + _config)  # what help(fit) and an editor show
