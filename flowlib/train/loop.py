"""The training loop. `fit` reads from top to bottom: settings, processes, state, and then one step after the other.

Everything random is a function of (seed, step, process), and so are the order of the data and the learning rate: a run
that was killed goes on from its last checkpoint to the same weights, bit for bit.
"""
from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor, nn

from .. import saving
from ..core import device_of
from ..seeds import START, STEP, VALIDATION, seed_all
from .batches import Batches, as_tensors
from .checkpoint import find, load_run, save_run, writing
from .config import Config, History, TrainingError
from .objectives import NLL

__all__ = ["fit"]

WINDOW = 10  # steps between two looks at the losses: between them nothing waits for the device


def fit(flow: nn.Module, train, val=None, *, out: str | Path | None = None, objective: nn.Module | None = None,
        resume: bool = False, precision: str | None = None, compile: bool = False, cpu: bool = False,
        progress: bool | None = None, watch: Callable[[int], None] | None = None, **config) -> History:
    r"""Train a flow: AdamW on the mean of the objective, warm-up and cosine, clipped gradients, averaged weights.

    The flow gets the averaged weights of the best validation, or of the last step where there is none to compare; it
    comes back in eval mode, on the device where it was. The same call works on a CPU, on a GPU, and in several
    processes started by `accelerate launch` or `torchrun`; `batch_size` means the same everywhere. torch's random state
    is left as it was.

    Args:
        flow: The flow, which is changed in place.
        train: Samples (N, *event), a tuple (samples, context), a `data.load(...)`, or None where the objective draws
            its own. Kept on the device as they are (images as bytes).
        val: The same, held out for validation, or None.
        out: A new or empty folder. `model.safetensors` and `model.json` (for `flowlib.load`) hold the best weights so
            far, `training.safetensors` the state to resume from; all are there from step 0 on, and written all or
            nothing.
        objective: A module around the flow whose forward takes a batch (or the number of draws, where train is None)
            and returns each sample's loss in nats; if it has an `initialize` of the same arguments, that is called
            once. None: `NLL(flow)`.
        resume: Go on with the run in `out`, if there is one. With the same model, data and settings the result is that
            of a run never interrupted, bit for bit on the CPU.
        precision: "bf16" runs the networks in bfloat16 (log-determinants stay float32); None does what the launcher
            says.
        compile: Compile the objective with `torch.compile`.
        cpu: Use the CPU even where there is a GPU.
        progress: Show a progress bar; None: where the output is a terminal.
        watch: Called with the number of steps after each validation, in the first process, while the flow holds the averaged
            weights and is in eval mode: for samples on the way. What it draws at random changes nothing.
        **config: The fields of `Config`: steps or epochs, batch_size, lr, seed, weight_decay, warmup, clip, ema,
            patience, eval_every, accumulate.

    Returns:
        The losses, in nats, and how training ended.

    Raises:
        ValueError: Data with NaN or infinity, settings that make no sense or are not those of the run to resume, a
            damaged checkpoint.
        FileExistsError: `out` holds something and `resume` is False.
        OSError: A checkpoint could not be written; the one before it is kept.
        TrainingError: A loss or gradient that is not finite (named by its step), or a loss that has grown far beyond
            its start. The flow and `out` keep the last good weights.

    Example:
        >>> from flowlib import RealNVP
        >>> history = fit(RealNVP(2), torch.randn(100, 2), steps=3); len(history.loss), history.stopped
        (3, 'finished')
    """
    # Settings and data
    from tqdm import tqdm

    config = Config(**config)
    if precision not in (None, "bf16"):
        raise ValueError(f'precision must be None or "bf16", whose range log-densities need; got {precision!r}')
    train, val = as_tensors(train, "training"), as_tensors(val, "validation")
    steps, every = config.plan(None if train is None else len(train[0]))
    facts = {"config": asdict(config), "data": train and [list(t.shape) for t in train]}
    out = None if out is None else Path(out)
    checkpoint = find(out, resume)
    if out is not None:
        saving.check_saveable(flow)  # now, not after hours

    # Processes and devices. What is wrapped is the objective, not the flow: see objectives.py.
    accelerator = _accelerator(cpu, config.accumulate)
    device, rank, home = accelerator.device, accelerator.process_index, device_of(flow)
    bare = NLL(flow) if objective is None else objective
    if all(module is not flow for module in bare.modules()):
        raise ValueError("the objective must hold the flow as a submodule, or there is nothing to train")
    bare.to(device, memory_format=torch.channels_last).train()  # convolutions run up to 1.5 times as fast that way
    batches = Batches(train, config, rank, accelerator.num_processes, device)

    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        # State: the weights, their running average, the optimizer's moments, the best weights, the history
        if checkpoint is None and hasattr(bare, "initialize"):
            seed_all(config.seed, START, rank=rank)
            bare.initialize(*batches(0))
        params = [p for p in bare.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(params, lr=config.lr, weight_decay=config.weight_decay, fused=True)
        model, optimizer = accelerator.prepare(bare, optimizer)  # in several processes, rank 0's weights for all
        average, best, history = [p.detach().clone() for p in params], {}, History(device=_describe(accelerator))
        if checkpoint is not None:
            best, history = load_run(checkpoint, facts, bare, optimizer, average)
        accelerator.wait_for_everyone()  # all have looked into the folder before rank 0 writes there
        model = torch.compile(model) if compile else model
        began, worked = time.perf_counter() - history.seconds, time.process_time() - history.processor_seconds
        saved_at = len(history.loss) if checkpoint else None
        unit, scale, speed = _unit(flow)
        hide = True if rank > 0 else None if progress is None else not progress
        recent: list[Tensor] = []  # (loss, norm of the gradient) of each step since the last look, on the device

        with tqdm(total=steps, initial=len(history.loss), disable=hide, unit="step") as bar:
            for step in range(len(history.loss), steps + 1):
                milestone = step % every == 0 or step == steps

                # Look at the losses since the last time.
                if recent and (milestone or len(recent) == WINDOW):
                    rows = accelerator.reduce(torch.stack(recent), "mean").tolist()  # the same in every process
                    trouble = _trouble(history.loss, rows)
                    if trouble:
                        bare.load_state_dict(best)
                        bare.to(home, memory_format=torch.contiguous_format).eval()
                        holders = f"The flow and {out} keep" if out else "The flow keeps"
                        raise TrainingError(f"{trouble[1]}. {holders} the weights of step {history.best_step}; "
                                            f"try a learning rate below {config.lr:g}", trouble[0])
                    history.loss += [loss for loss, _ in rows]
                    bar.update(len(rows))
                    rate = (bar.format_dict["rate"] or 0) * config.batch_size
                    bar.set_postfix({unit: f"{scale * history.loss[-1]:.3f}", speed: f"{rate:,.0f}"}, refresh=False)
                    recent.clear()

                # Validate the averaged weights, keep the best ones, write a checkpoint.
                if milestone and step != saved_at:
                    with _averaged(bare, params, average):
                        if val is not None:
                            history.val_step.append(step)
                            history.val_loss.append(_validate(bare, val, config, accelerator))
                        if val is None or history.val_loss[-1] <= min(history.val_loss) or not best:
                            best, history.best_step = {k: t.clone() for k, t in bare.state_dict().items()}, step
                            if out and rank == 0:
                                with writing(out, step):
                                    saving.save(flow, out)
                        if watch and rank == 0:
                            watch(step)
                    waited = step - history.best_step
                    history.stopped = ("finished" if step == steps else
                                       "early" if config.patience and waited >= config.patience * every else "")
                    history.seconds, history.processor_seconds = time.perf_counter() - began, time.process_time() - worked
                    if out and rank == 0:
                        with writing(out, step):
                            save_run(out, facts, bare, optimizer, average, best, history)
                if history.stopped:
                    break

                # One update. Its random numbers depend on (seed, step, process) alone.
                seed_all(config.seed, STEP, step, rank)
                for group in optimizer.param_groups:
                    group["lr"] = config.lr_at(step, steps)
                bare.zero_grad()
                losses = []
                for part in batches.parts(step):  # the optimizer moves, and the processes meet, at the last one only
                    with accelerator.accumulate(model):
                        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
                            loss = model(*part).mean()
                        accelerator.backward(loss)
                        losses.append(loss.detach().float())
                        if accelerator.sync_gradients:
                            norm = accelerator.clip_grad_norm_(params, config.clip or math.inf)
                        optimizer.step()
                decay = min(config.ema, (1 + step) / (10 + step))
                torch.optim.swa_utils.get_ema_multi_avg_fn(decay)(average, params, None)
                recent.append(torch.stack([sum(losses) / len(losses), norm.detach().float()]))

    bare.load_state_dict(best)
    bare.to(home, memory_format=torch.contiguous_format).eval()
    return history


def _accelerator(cpu: bool, accumulate: int):
    try:
        from accelerate import Accelerator
    except ImportError as error:
        raise ImportError("training needs three more packages: pip install accelerate safetensors tqdm") from error
    # Without a GPU, torchrun's processes have to be told that they belong together, or each would train alone.
    accelerator = Accelerator(cpu=cpu or not torch.accelerator.is_available(), gradient_accumulation_steps=accumulate)
    if accelerator.mixed_precision not in ("no", "bf16"):
        raise ValueError(f"the launcher asks for {accelerator.mixed_precision}: log-densities need the range of bf16")
    return accelerator


def _describe(accelerator) -> str:
    device, world, threads = accelerator.device, accelerator.num_processes, torch.get_num_threads()
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type}, threads: {threads}"
    return f"{name}, processes: {world}" if world > 1 else name


def _unit(flow) -> tuple[str, float, str]:
    """What the progress bar shows: bits per dimension for images, which have levels, else nats per sample; and the speed."""
    if not hasattr(flow, "levels"):
        return "nats", 1.0, "samples/s"
    return "bits/dim", 1 / (math.prod(flow.event_shape) * math.log(2)), "images/s"


def _trouble(losses: list[float], rows: list[list[float]]) -> tuple[int, str] | None:
    """The step at which training went wrong and why, or None; `rows` are the (loss, gradient norm) of new steps."""
    for step, (loss, norm) in enumerate(rows, len(losses)):
        if not math.isfinite(loss):
            hint = ": some training data have density zero under the model" if step == 0 and loss == math.inf else ""
            return step, f"the loss is {loss} at step {step}{hint}"
        if not math.isfinite(norm):
            return step, f"the gradient is not finite at step {step}"
    losses = losses + [loss for loss, _ in rows]
    start, lowest = losses[0], min(losses[-WINDOW:])  # every loss of a window: a single bad batch is no divergence
    if len(losses) >= WINDOW and lowest > start + 10 * (1 + abs(start)):
        return len(losses) - 1, f"the loss has grown from {start:.4g} to {lowest:.4g} nats by step {len(losses) - 1}"
    return None


@contextmanager
def _averaged(objective: nn.Module, params: list[Tensor], average: list[Tensor]):
    """The objective with the averaged weights, ready to be evaluated, for as long as the block lasts."""
    live = [p.detach().clone() for p in params]
    with torch.no_grad():
        for p, a in zip(params, average):
            p.copy_(a)
        objective.eval()
        yield
        objective.train()
        for p, a in zip(params, live):
            p.copy_(a)


def _validate(objective: nn.Module, val: tuple[Tensor, ...], config: Config, accelerator) -> float:
    """Mean loss over the validation data, whose rows the processes share; the noise is the same every time."""
    rank, world, device = accelerator.process_index, accelerator.num_processes, accelerator.device
    seed_all(config.seed, VALIDATION, rank=rank)
    total = torch.zeros((), device=device)
    for batch in zip(*(t[rank::world].split(config.batch_size) for t in val)):
        total += objective(*(t.to(device) for t in batch)).sum()
    return float(accelerator.reduce(total)) / len(val[0])
