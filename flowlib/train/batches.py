"""Data and their order, which is a function of the seed and the step."""
from __future__ import annotations

import functools
import hashlib
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data import Data
from ..seeds import ORDER, derive
from .config import Config

PASSES = 1000  # over the data that one batch may take: beyond, batch_size is a slip


def as_tensors(given: Any, what: str, conditional: bool = False) -> tuple[Tensor, ...] | None:
    """Samples, (samples, context) or a `Data` as a tuple of tensors of equal length.

    Args:
        given: What the user gave, or None.
        what: "training" or "validation", for the errors.
        conditional: Whether a context is expected: labels are then not to be left out.

    Raises:
        ValueError: No tensors, arrays or numbers, rows that are missing or hold NaN, or labels that would be lost.
    """
    if given is None:
        return None
    if isinstance(given, Data):
        if conditional and given.y is not None:
            raise ValueError(f"the {what} data have labels, and this flow takes a context: give a tuple (samples, "
                             "context), for example (data.x, torch.eye(K)[data.y]) for K classes")
        given = given.x
    tensors = tuple(_tensor(part, what) for part in (given if isinstance(given, tuple) else (given,)))
    if not tensors or len({len(t) for t in tensors}) > 1 or not len(tensors[0]):
        raise ValueError(f"the {what} data need rows, and equally many in each part, got {[len(t) for t in tensors]}")
    for tensor in tensors:
        bad = (~tensor.isfinite()).flatten(1).any(1) if tensor.ndim > 1 else ~tensor.isfinite()
        if bad.any():
            raise ValueError(f"the {what} data hold NaN or infinity in {int(bad.sum()):,} of {len(bad):,} rows, the "
                             f"first is row {int(bad.nonzero()[0])}")
    return tensors


def _tensor(part, what: str) -> Tensor:
    if not isinstance(part, (Tensor, np.ndarray)):
        raise ValueError(f"the {what} data must be a tensor or an array, or a tuple (samples, context) of them, got a "
                         f"{type(part).__name__}; torch.as_tensor(rows) makes a tensor of numbers in a list")
    if isinstance(part, np.ndarray):
        try:
            part = torch.as_tensor(part, device="cpu")
        except TypeError:
            raise ValueError(f"the {what} data must be numbers, got an array of dtype {part.dtype}") from None
    if not part.ndim:
        raise ValueError(f"the {what} data need rows, got a single number")
    return part


def digest(tensors: tuple[Tensor, ...] | None) -> str | None:
    """What tells data from other data of the same shape."""
    if tensors is None:
        return None
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return found.hexdigest()


class Batches:
    """`batches(step)`: this process's rows of the joint batch, on the device. One random order after the other makes an
    endless stream, of which step k takes the rows from k * batch_size on; of those, each process every `world`-th."""

    def __init__(self, tensors: tuple[Tensor, ...] | None, config: Config, rank: int, world: int, device: torch.device):
        if config.batch_size % (world * config.accumulate):
            raise ValueError(f"a batch_size of {config.batch_size} cannot be shared equally by {world} processes, each "
                             f"in {config.accumulate} parts")
        if tensors is not None and config.batch_size > PASSES * len(tensors[0]):
            raise ValueError(f"a batch_size of {config.batch_size:,} is more than {PASSES:,} passes over "
                             f"{len(tensors[0]):,} rows")
        self.tensors = tensors and tuple(t.to(device) for t in tensors)
        self.rows = 0 if tensors is None else len(tensors[0])
        self.size, self.seed, self.accumulate = config.batch_size, config.seed, config.accumulate
        self.rank, self.world, self.device = rank, world, device
        self.order = functools.lru_cache(maxsize=2)(self._order)

    def _order(self, epoch: int) -> Tensor:
        generator = torch.Generator("cpu").manual_seed(derive(self.seed, ORDER, epoch))
        return torch.randperm(self.rows, generator=generator, device="cpu").to(self.device)

    def __call__(self, step: int) -> tuple:
        if self.tensors is None:
            return (self.size // self.world,)
        n, start = self.rows, step * self.size
        epochs = range(start // n, (start + self.size - 1) // n + 1)
        joint = torch.cat([self.order(epoch) for epoch in epochs])[start % n :][: self.size]
        return tuple(t[joint[self.rank :: self.world]] for t in self.tensors)

    def parts(self, step: int) -> list[tuple]:
        """The same in `accumulate` equal parts."""
        if self.tensors is None:
            return [(self.size // self.world // self.accumulate,)] * self.accumulate
        return list(zip(*(t.chunk(self.accumulate) for t in self(step))))
