"""Data and their order, which is a function of the seed and the step."""
from __future__ import annotations

import functools

import torch
from torch import Tensor

from ..data import Data
from ..seeds import ORDER, derive
from .config import Config

def as_tensors(given, what: str) -> tuple[Tensor, ...] | None:
    """Samples, (samples, context) or a `Data` as a tuple of tensors of equal length; ValueError where they hold NaN."""
    if given is None:
        return None
    given = (given.x,) if isinstance(given, Data) else given if isinstance(given, (tuple, list)) else (given,)
    tensors = tuple(torch.as_tensor(t) for t in given)
    if len({len(t) for t in tensors}) > 1 or not len(tensors[0]):
        raise ValueError(f"the {what} data need rows, and equally many in each part, got {[len(t) for t in tensors]}")
    for tensor in tensors:
        bad = (~tensor.isfinite()).flatten(1).any(1) if tensor.ndim > 1 else ~tensor.isfinite()
        if bad.any():
            raise ValueError(f"the {what} data hold NaN or infinity in {int(bad.sum()):,} of {len(bad):,} rows, the "
                             f"first is row {int(bad.nonzero()[0])}")
    return tensors


class Batches:
    """`batches(step)`: this process's rows of the joint batch, on the device. One random order after the other makes an
    endless stream, of which step k takes the rows from k * batch_size on; of those, each process every `world`-th."""

    def __init__(self, tensors: tuple[Tensor, ...] | None, config: Config, rank: int, world: int, device: torch.device):
        if config.batch_size % (world * config.accumulate):
            raise ValueError(f"a batch_size of {config.batch_size} cannot be shared equally by {world} processes, each in "
                             f"{config.accumulate} parts")
        self.tensors = tensors and tuple(t.to(device) for t in tensors)
        self.size, self.seed, self.accumulate = config.batch_size, config.seed, config.accumulate
        self.rank, self.world, self.device = rank, world, device
        self.order = functools.lru_cache(maxsize=2)(self._order)

    def _order(self, epoch: int) -> Tensor:
        generator = torch.Generator().manual_seed(derive(self.seed, ORDER, epoch))
        return torch.randperm(len(self.tensors[0]), generator=generator).to(self.device)

    def __call__(self, step: int) -> tuple:
        if self.tensors is None:
            return (self.size // self.world,)
        n, start = len(self.tensors[0]), step * self.size
        epochs = range(start // n, (start + self.size - 1) // n + 1)
        joint = torch.cat([self.order(epoch) for epoch in epochs])[start % n :][: self.size]
        return tuple(t[joint[self.rank :: self.world]] for t in self.tensors)

    def parts(self, step: int) -> list[tuple]:
        """The same in `accumulate` equal parts."""
        if self.tensors is None:
            return [(self.size // self.world // self.accumulate,)] * self.accumulate
        return list(zip(*(t.chunk(self.accumulate) for t in self(step))))
