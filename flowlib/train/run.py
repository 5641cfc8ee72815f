"""A training under way: its state, and each thing that `fit` does with it, in the order in which `fit` does it."""
from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .. import saving
from ..arguments import device_of
from ..bases import Base
from ..core import Bijection
from ..seeds import START, STEP, VALIDATION, seed_all
from .batches import Batches, digest
from .checkpoint import load_run, save_run, writing
from .config import Config, History, TrainingError
from .processes import joint_sum, on_all_processes

WINDOW = 10  # steps between two looks at the losses: between them nothing waits for the device


class Run:
    """What changes from step to step: weights, their average, the optimizer's moments, the best weights, history.

    Nothing is touched at construction. From `begin` on the objective belongs to the run, until `leave` gives it back.

    Args:
        flow: The flow to train.
        objective: The module around it.
        config: The settings.
        train: The training data, or None.
        val: The validation data, or None.
        here: Device and processes, from `processes`.
        out: The folder to write to, or None.
        precision: "bf16" or None.
    """

    def __init__(self, flow: nn.Module, objective: nn.Module, config: Config, train: tuple[Tensor, ...] | None,
                 val: tuple[Tensor, ...] | None, here: Any, out: Path | None, precision: str | None):
        self.flow: Any = flow  # what it can do beyond a module depends on the objective
        self.objective, self.config, self.train, self.val = objective, config, train, val
        self.here, self.device, self.first = here, here.device, here.is_main_process
        self.out, self.precision = out, precision
        self.steps, self.every = config.plan(None if train is None else len(train[0]))
        self.batches = Batches(train, config, here.process_index, here.num_processes, here.device)
        self.home = device_of(flow)
        self.history = History(device=_describe(here))
        self.best = _copy(objective.state_dict())  # until there is something better: what was given
        self.losses: list[Tensor] = []  # (loss, norm of the gradient) of each step since the last look, on the device
        self.tried: tuple | None = None  # the gradient of the first batch, until its step is made
        self.saved_at: int | None = None
        self.written = False
        self.began, self.worked = time.perf_counter(), time.process_time()

    # Beginning

    def begin(self, make_optimizer: Callable | None, compile: bool, checkpoint: Path | None) -> None:
        """Everything to the device; then the data-dependent start, or the state from the checkpoint."""
        _move(self.objective, self.device, torch.channels_last).train()  # up to 1.5 times faster convolutions
        if checkpoint is None and (initialize := getattr(self.objective, "initialize", None)):
            seed_all(self.config.seed, START, rank=self.here.process_index, device=self.device)
            initialize(*self.batches(0))
        self.params: list[Tensor] = [p for p in self.objective.parameters() if p.requires_grad]
        if not self.params:
            raise ValueError("there is nothing to train: no parameter of the objective requires a gradient")
        self.optimizer = self._optimizer(make_optimizer)
        self.shared = on_all_processes(self.objective, self.here)
        self.model = torch.compile(self.shared) if compile else self.shared
        self.average = [p.detach().clone() for p in self.params]
        self.facts: dict[str, Any] = {} if self.out is None else {
            "model": saving.structure(self.flow), "config": asdict(self.config),
            "data": self.train and [list(t.shape) for t in self.train],
            "data content": {"training": digest(self.train), "validation": digest(self.val)},
            "precision": self.precision,
            "optimizer": {"name": type(self.optimizer).__name__,
                          **({} if make_optimizer is None else _plain(self.optimizer.defaults))}}
        if checkpoint is None:
            self._try_first_batch()
        else:
            self.best, self.history = load_run(checkpoint, self.facts, self.objective, self.optimizer, self.average)
            self.began, self.worked = self.began - self.history.seconds, self.worked - self.history.processor_seconds
            self.saved_at, self.written = len(self.history.loss), True
        self.here.wait_for_everyone()  # all have looked into the folder before the first of them writes there

    def _optimizer(self, make: Callable | None) -> torch.optim.Optimizer:
        """Weight decay is for the matrices of networks: see `Config`."""
        maps = [m for m in self.objective.modules() if isinstance(m, (Bijection, Base))]
        kept = {p for m in maps for p in m.parameters(recurse=False)}
        matrices = [p for p in self.params if p.ndim >= 2 and p not in kept]
        others = [p for p in self.params if p.ndim < 2 or p in kept]
        groups = [{"params": part, "weight_decay": decay}
                  for part, decay in ((matrices, self.config.weight_decay), (others, 0.0)) if part]
        if make is None:
            return torch.optim.AdamW(groups, lr=self.config.lr, betas=self.config.betas, fused=True)
        optimizer = make(groups)
        if not isinstance(optimizer, torch.optim.Optimizer):
            raise ValueError(f"optimizer must make a torch.optim.Optimizer of groups of parameters, got {optimizer!r}")
        return optimizer

    def _try_first_batch(self) -> None:
        """Compute the gradient of step 0 before anything is written: what fails at once leaves nothing behind. `update`
        takes it from here, with what the pass has left in buffers."""
        before = [b.clone() for b in self.objective.buffers()]
        row = self._gradient(0)
        self._check(self._joint([row]))
        self.tried = row, [p.grad for p in self.params], [b.clone() for b in self.objective.buffers()]
        self.objective.zero_grad()
        self._set_buffers(before)

    # Between the steps

    def look(self) -> None:
        """Losses since the last look, the same in every process, into the history.

        Raises:
            TrainingError: A loss or gradient that is not finite, or a loss that only grows.
        """
        if self.losses:
            rows = self._joint(self.losses)
            self._check(rows)
            self.history.loss += [loss for loss, _ in rows]
            self.losses.clear()
            self._show(len(rows))

    def _joint(self, rows: list[Tensor]) -> list[list[float]]:
        return (joint_sum(torch.stack(rows), self.here) / self.here.num_processes).tolist()

    def _check(self, rows: list[list[float]]) -> None:
        trouble = _trouble(self.history.loss, rows)
        if trouble:
            step, reason = trouble
            holders = f"The flow and {self.out} keep" if self.written and self.out else "The flow keeps"
            raise TrainingError(f"{reason}. {holders} the weights of step {self.history.best_step}; "
                                f"try a learning rate below {self.config.lr:g}", step)

    @contextmanager
    def progress(self, shown: bool | None) -> Iterator[None]:
        """A bar for as long as the block lasts."""
        from tqdm import tqdm

        hide = True if not self.first else None if shown is None else not shown
        with tqdm(total=self.steps, initial=len(self.history.loss), disable=hide, unit="step") as self.bar:
            yield

    def _show(self, count: int) -> None:
        """The loss, in bits per dimension for images, which have levels, else in nats per sample; and the speed."""
        images = hasattr(self.flow, "levels")
        scale = math.prod(self.flow.event_shape) * math.log(2) if images else 1.0
        self.bar.update(count)
        rate = (self.bar.format_dict["rate"] or 0) * self.config.batch_size
        self.bar.set_postfix({"bits/dim" if images else "nats": f"{self.history.loss[-1] / scale:.3f}",
                              "images/s" if images else "samples/s": f"{rate:,.0f}"}, refresh=False)

    def evaluate(self, step: int, watch: Callable[[int], None] | None) -> None:
        """Validate the averaged weights, keep the best, show them to `watch`, and see whether to stop."""
        history = self.history
        with self._averaged():
            if self.val is not None:
                loss = self._validate(self.val)
                history.val_step, history.val_loss = [*history.val_step, step], [*history.val_loss, loss]
            if self.val is None or _better(history.val_loss):
                self.best, history.best_step = _copy(self.objective.state_dict()), step
                if self.out and self.first:
                    with writing(self.out, step):
                        saving.save(self.flow, self.out)
            if watch and self.first:
                watch(step)
        waited = step - history.best_step
        history.stopped = ("finished" if step == self.steps else
                           "early" if self.config.patience and waited >= self.config.patience * self.every else "")

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """The averaged weights in eval mode, for as long as the block lasts."""
        live = [p.detach().clone() for p in self.params]
        with torch.no_grad():
            try:
                _set(self.params, self.average)
                self.objective.eval()
                yield
            finally:
                self.objective.train()
                _set(self.params, live)

    def _validate(self, val: tuple[Tensor, ...]) -> float:
        """Mean loss over the validation data, whose rows the processes share; the noise is the same every time."""
        rank, world = self.here.process_index, self.here.num_processes
        self._tell(self.steps)
        seed_all(self.config.seed, VALIDATION, rank=rank, device=self.device)
        total = torch.zeros((), device=self.device)
        for batch in zip(*(t[rank::world].split(self.config.batch_size) for t in val)):
            total += self.objective(*(t.to(self.device) for t in batch)).sum()
        return float(joint_sum(total, self.here)) / len(val[0])

    def save(self, step: int) -> None:
        """Write the checkpoint of this step."""
        self._clock()
        if self.out and self.first:
            with writing(self.out, step):
                save_run(self.out, self.facts, self.objective, self.optimizer, self.average, self.best, self.history)
        self.saved_at, self.written = step, True

    # A step

    def update(self, step: int) -> None:
        """One step of the optimizer and of the average."""
        if self.tried is None:
            row = self._gradient(step)
        else:
            row, gradients, buffers = self.tried
            self.tried = None
            for p, gradient in zip(self.params, gradients):
                p.grad = gradient
            self._set_buffers(buffers)
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.lr_at(step, self.steps)
        self.optimizer.step()
        decay = min(self.config.ema, (1 + step) / (10 + step))
        torch.optim.swa_utils.get_ema_multi_avg_fn(decay)(self.average, self.params, None)
        self.losses.append(row)

    def _gradient(self, step: int) -> Tensor:
        """The clipped gradient of the joint batch, into the parameters; (loss, norm of the gradient). Its random
        numbers depend on (seed, step, process) alone."""
        self._tell(step)
        seed_all(self.config.seed, STEP, step, self.here.process_index, self.device)
        self.objective.zero_grad()
        losses, parts = [], self.batches.parts(step)
        several = self.shared if isinstance(self.shared, nn.parallel.DistributedDataParallel) else None
        for k, part in enumerate(parts, 1):  # the processes meet at the last part only
            with several.no_sync() if several and k < len(parts) else nullcontext():
                with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
                    loss = self.model(*part).mean()
                (loss / len(parts)).backward()
            losses.append(loss.detach().float())
        norm = nn.utils.clip_grad_norm_(self.params, self.config.clip or math.inf)
        return torch.stack([torch.stack(losses).mean(), norm.detach().float()])

    def _tell(self, step: int) -> None:
        """Tell the objective how far the run is. What is validated and left behind is the objective of the end."""
        if set_step := getattr(self.objective, "set_step", None):
            set_step(step, self.steps)

    def _set_buffers(self, values: list[Tensor]) -> None:
        _set(list(self.objective.buffers()), values)

    # The end

    def leave(self) -> None:
        """The flow with its best weights, in eval mode, on the device where it was."""
        self.objective.load_state_dict(self.best)
        _move(self.objective, self.home, torch.contiguous_format).eval()
        self._tell(self.steps)

    def interrupted(self, error: BaseException) -> None:
        """Give the history to the exception that ends the run."""
        self._clock()
        self.history.stopped = "interrupted"
        with suppress(AttributeError):  # of an exception that takes none
            error.history = self.history  # pyright: ignore[reportAttributeAccessIssue]  # a new one

    def _clock(self) -> None:
        self.history.seconds = time.perf_counter() - self.began
        self.history.processor_seconds = time.process_time() - self.worked


def _move(module: nn.Module, device: torch.device, memory_format: torch.memory_format) -> nn.Module:
    return module.to(device, memory_format=memory_format)  # pyright: ignore[reportCallIssue]  # torch documents it


def _describe(here: Any) -> str:
    name = (torch.cuda.get_device_name(here.device) if here.device.type == "cuda" else
            f"{here.device.type}, threads: {torch.get_num_threads()}")
    return f"{name}, processes: {here.num_processes}" if here.num_processes > 1 else name


def _plain(settings: dict) -> dict:
    """What JSON can hold of an optimizer's settings, but for the learning rate, which is the schedule's."""
    return {name: value for name, value in settings.items()
            if name != "lr" and isinstance(value, bool | int | float | str | tuple | None)}


def _copy(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in state.items()}


def _set(tensors: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    with torch.no_grad():
        for tensor, value in zip(tensors, values, strict=True):
            tensor.copy_(value)


def _better(losses: list[float]) -> bool:
    """Whether the last loss is lower than all before; as long as none is finite, the newest weights are the best."""
    finite = [loss for loss in losses[:-1] if math.isfinite(loss)]
    return not finite or -math.inf < losses[-1] < min(finite)


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
