"""What goes into a run beside model and data, and what comes out of it."""
from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from numbers import Integral, Real
from typing import Any

__all__ = ["Config", "History", "TrainingError"]

MAY_BE_ZERO = ("lr_end", "seed", "weight_decay", "warmup", "ema")


@dataclass(frozen=True)
class Config:
    """What decides the result of a run, beside model and data. Every field is a keyword of `fit`.

    Attributes:
        steps: Number of updates. Give this or `epochs`.
        epochs: Passes over the training data, in place of `steps`.
        batch_size: Samples per update, over all processes together.
        lr: Peak learning rate: a linear rise, then half a cosine down.
        lr_end: Where the cosine ends.
        seed: Of everything random; not negative.
        betas: Of AdamW: decay of the running means of the gradient and of its square.
        weight_decay: Decoupled weight decay of the networks' matrices: parameters of at least two axes that belong to
            no bijection and no base. Biases, scales, shifts, splines and the like are what they are learned to be.
        warmup: Share of the steps in which the learning rate rises.
        clip: Largest norm of the gradient of the mean loss (nats); None does not clip.
        ema: Decay of the running average of the weights, which is what is validated and returned. It starts faster, as
            (1 + t) / (10 + t) at step t. 0 averages nothing.
        patience: Stop after this many validations without a better one; None never stops early.
        eval_every: Steps between two validations, which are also the checkpoints; None: a fortieth of the run.
        accumulate: Compute the gradient of a batch in so many equal parts, one after the other: the same gradient, in
            that much less memory.

    Raises:
        ValueError: Neither or both of steps and epochs, or a number out of its range.

    Example:
        >>> Config(epochs=10, batch_size=100).plan(1000)  # steps, and steps between validations
        (100, 3)
    """

    steps: int | None = None
    epochs: float | None = None
    batch_size: int = 256
    lr: float = 1e-3
    lr_end: float = 0.0
    seed: int = 0
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0
    warmup: float = 0.05
    clip: float | None = 10.0
    ema: float = 0.999
    patience: int | None = None
    eval_every: int | None = None
    accumulate: int = 1

    def __post_init__(self):
        if (self.steps is None) == (self.epochs is None):
            raise ValueError(f"give either steps or epochs, got steps={self.steps} and epochs={self.epochs}")
        for name, annotation in ((f.name, str(f.type)) for f in fields(self) if f.name != "betas"):
            if "None" in annotation and getattr(self, name) is None:
                continue
            value: Any = getattr(self, name)
            whole = annotation.startswith("int")
            if type(value) is bool or not issubclass(type(value), Integral if whole else Real):
                raise ValueError(f"{name} must be a {'whole ' if whole else ''}number, got {value!r}")
            if not 0 <= value < math.inf or value == 0 and name not in MAY_BE_ZERO:
                wanted = "finite and not negative" if name in MAY_BE_ZERO else "positive and finite"
                raise ValueError(f"{name} must be {wanted}, got {value}")
            object.__setattr__(self, name, int(value) if whole else float(value))  # JSON takes no numbers of numpy
        object.__setattr__(self, "betas", tuple(map(float, self.betas)))
        shares = [("ema", self.ema), ("warmup", self.warmup), *(("each of betas", beta) for beta in self.betas)]
        for name, value in shares:
            if not 0 <= value < 1:
                raise ValueError(f"{name} must lie in [0, 1), got {value}")
        if self.lr_end > self.lr:
            raise ValueError(f"lr_end must not exceed lr = {self.lr:g}, got {self.lr_end:g}")

    def plan(self, rows: int | None) -> tuple[int, int]:
        """Number of steps, and steps between two validations, for a training set of so many rows."""
        if self.steps is not None:
            steps = self.steps
        elif self.epochs is not None and rows is not None:
            steps = math.ceil(self.epochs * rows / self.batch_size)
        else:
            raise ValueError("without training data there are no epochs: give steps")
        return steps, self.eval_every or math.ceil(steps / 40)

    def lr_at(self, step: int, steps: int) -> float:
        """The learning rate of one step."""
        rise = (step + 1) / max(1, round(self.warmup * steps))
        return self.lr_end + (self.lr * min(1.0, rise) - self.lr_end) * 0.5 * (1 + math.cos(math.pi * step / steps))


@dataclass
class History:
    """What happened.

    Attributes:
        loss: Mean training loss of each step, in nats per sample.
        val_step: After how many steps each validation took place (the first after none).
        val_loss: Mean validation loss of each, in nats per sample, of the averaged weights.
        best_step: After how many steps the returned weights were taken: those of the best validation, or the last.
        seconds: Time spent, over all resumptions.
        processor_seconds: Processor time of this process in them, over all threads: a busy machine does not change it.
        stopped: "finished", "early" (patience ran out), "interrupted" (by an exception or Ctrl-C, which carries this
            history as its attribute `history`), or "" in the checkpoint of a run under way.
        device: Where it ran.
    """

    loss: list[float] = field(default_factory=list)
    val_step: list[int] = field(default_factory=list)
    val_loss: list[float] = field(default_factory=list)
    best_step: int = 0
    seconds: float = 0.0
    processor_seconds: float = 0.0
    stopped: str = ""
    device: str = ""


class TrainingError(RuntimeError):
    """Training cannot go on: a loss that is not finite, or one that only grows.

    Attributes:
        step: The step at which it was seen, from 0.
    """

    def __init__(self, message: str, step: int):
        super().__init__(message)
        self.step = step
