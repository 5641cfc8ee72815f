"""What the couplings for vectors, sets and images share: which part of an event is kept, and how the rest is moved."""
from __future__ import annotations

import torch
from torch import Tensor

from ..arguments import holds
from ..core import Bijection
from ..elementwise.base import ElementwiseMap, arrange, check_map, readable

__all__ = ["Halves"]


class Halves(Bijection):
    """Keep one part of each event and move the other by an elementwise map whose parameters a network reads from what
    is kept.

    A subclass sets the shape, calls `_divide`, and gives `_read(kept, context)`: the network's output.
    """

    event_shape: tuple[int, ...]
    kept: Tensor  # where there is a mask
    axis: int  # of the coordinates (-1) or channels (-3)

    def _divide(self, elementwise: ElementwiseMap, mask: Tensor | None, swap: bool) -> tuple[int, int]:
        """Remember the split, and return how many coordinates (or channels) the network reads and how many it moves.

        Without a mask the first half is kept, which costs no more than the half; a mask is True where kept, and the
        network reads the whole event with zeros where it is False.
        """
        check_map(elementwise, type(self).__name__)
        self.elementwise, self.swap = elementwise, swap
        size = self.event_shape[self.axis]
        if mask is None:
            self.cut = size // 2
            moved = self.cut if swap else size - self.cut
            return size - moved, moved
        self.cut = None
        shape = torch.broadcast_shapes(mask.shape, self.event_shape)
        if mask.dtype != torch.bool or shape != self.event_shape or not holds(mask.any()) or (
                size > 1 and not holds(~mask.all())):
            raise ValueError(f"a mask is a boolean tensor that broadcasts to {self.event_shape}, True where an event "
                             "is kept and False where it is moved, both somewhere; "
                             f"got {mask.dtype} of shape {tuple(mask.shape)}")
        self.register_buffer("kept", mask.clone() ^ swap)
        return size, size

    def _read(self, kept: Tensor, context: Tensor | None) -> Tensor:
        raise TypeError(f"{type(self).__name__} does not define _read")

    def _params(self, kept, context):
        """(..., moved, n_params), or (..., moved channels, H, W, n_params). Under autocast the network is bfloat16, the
        map and its log-det are not."""
        output = self._read(readable(kept), context)
        return arrange(output, self.elementwise.n_params, self.axis).to(kept.dtype)

    def _move(self, value, context, g):
        axes = tuple(range(-self.event_ndim, 0))
        if self.cut is None:
            kept = torch.where(self.kept, value, 0)
            params = self._params(kept, context)
            moved, log_slope = g(value.expand(params.shape[:-1]), params)
            return torch.where(self.kept, value, moved), torch.where(self.kept, 0, log_slope).sum(axes)
        first, last = value.split_with_sizes([self.cut, self.event_shape[self.axis] - self.cut], self.axis)
        kept, moved = (last, first) if self.swap else (first, last)
        params = self._params(kept, context)
        if self.context_shape is not None:  # which may have brought batch axes
            batch = params.shape[: params.ndim - 1 - self.event_ndim]
            kept, moved = (part.expand(*batch, *part.shape[-self.event_ndim :]) for part in (kept, moved))
        moved, log_slope = g(moved, params)
        return torch.cat([moved, kept] if self.swap else [kept, moved], self.axis), log_slope.sum(axes)

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._move(z, context, self.elementwise.forward)

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._move(x, context, self.elementwise.inverse)
