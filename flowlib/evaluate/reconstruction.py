"""The round trip: encode data, decode the latents, and compare."""
from __future__ import annotations

import copy
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..arguments import device_of
from ..core import Compose, Flow

__all__ = ["RoundTrip", "round_trip"]


class RoundTrip(NamedTuple):
    """What came back.

    Attributes:
        error: Largest absolute error, of integer data that of the dequantized values on the unit interval. NaN if any
            value is.
        wrong: Of integer data, the number of values that came back as another integer; else None.
        values: Number of all values.
    """

    error: float
    wrong: int | None
    values: int


@torch.no_grad()
def round_trip(flow: Flow, x: Tensor, dtype: torch.dtype, batch_size: int = 250,
               context: Tensor | None = None) -> RoundTrip:
    """Encode and decode in one precision, on the flow's device, or on the CPU where that has no such precision.

    Of integer data, the same draw of the noise goes there and back; a value is wrong where its noise lay nearer than
    the error to the edge of its cell. Cost: one `inverse` and one `forward`, and a copy of the flow.

    Args:
        flow: A flow, which is left as it is.
        x: Events (N, *event): integers where the flow's last bijection dequantizes, else floating-point numbers.
        dtype: The precision.
        batch_size: Rows at a time.
        context: A context (N, ...) for each, or None.

    Raises:
        ValueError: No rows, or integers for a flow that does not dequantize.

    Example:
        >>> from flowlib import AffineMap, Flow, StandardNormal
        >>> round_trip(Flow(StandardNormal(1), AffineMap(2.0, 1.0)), torch.ones(3, 1), torch.float64)
        RoundTrip(error=0.0, wrong=None, values=3)
    """
    if not len(x):
        raise ValueError("a round trip needs rows")
    home = device_of(flow)
    if dtype == torch.float64 and home.type == "mps":  # which has none
        home = torch.device("cpu")
    bijection = copy.deepcopy(flow).to(home).to(dtype).bijection
    layers: list[Any] = list(bijection.bijections) if isinstance(bijection, Compose) else [bijection]
    noise = None
    if not x.is_floating_point():
        noise = layers.pop()
        if noise.likelihood != "bound":
            raise ValueError(f"the data are integers, and {type(noise).__name__}, next to them, does not dequantize")
    errors, wrong = [], 0
    for start in range(0, len(x), batch_size):
        rows = slice(start, start + batch_size)
        part, c = x[rows].to(home), None if context is None else context[rows].to(home, dtype)
        v = value = part.to(dtype) if noise is None else noise.inverse(part, c)[0]
        for f in reversed(layers):
            value = f.inverse(value, c)[0]
        for f in layers:
            value = f(value, c)[0]
        errors.append((value - v).abs().max().cpu())
        if noise is not None:
            wrong += int((noise(value, c)[0] != part).sum())
    return RoundTrip(torch.stack(errors).max().item(), None if noise is None else wrong, x.numel())
