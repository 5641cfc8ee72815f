"""How much probability a flow gives to data: log-likelihoods, and bits per dimension with their standard error."""
from __future__ import annotations

import math

import torch
from torch import Tensor

from ..arguments import device_of
from ..core import Flow
from ..images.dequantize import bits_per_dim
from . import importance

__all__ = ["bits", "log_likelihood"]


@torch.no_grad()
def log_likelihood(flow: Flow, x: Tensor, context: Tensor | None = None, *, draws: int = 1, repeats: int = 1,
                   batch_size: int = 250) -> Tensor:
    r"""$\ln p(x_i; c_i)$ of each row, batch by batch on the flow's device. Where `log_prob` is a lower bound, this is
    the mean of several bounds, each from one draw of the noise or, tighter, importance-weighted over several.

    Cost: draws times repeats `flow.log_prob`.

    Args:
        flow: A flow over vectors, images or anything else.
        x: Events (N, *event).
        context: A context (N, ...) for each, or None.
        draws: Draws of the noise that are weighted into one bound (`importance.log_prob`).
        repeats: Bounds that are averaged.
        batch_size: Rows at a time.

    Returns:
        Nats, (N,), float64, on the CPU.

    Raises:
        ValueError: No rows, or contexts of another number.

    Example:
        >>> from flowlib import Flow, StandardNormal, Exp
        >>> log_likelihood(Flow(StandardNormal(1), Exp()), torch.ones(2, 1))
        tensor([-0.9189, -0.9189], dtype=torch.float64)
    """
    if not len(x) or (context is not None and len(context) != len(x)):
        raise ValueError(f"evaluation needs rows, and a context for each, got {len(x)} rows"
                         + ("" if context is None else f" and {len(context)} contexts"))
    device, found = device_of(flow), []
    for start in range(0, len(x), batch_size):
        rows = slice(start, start + batch_size)
        part, c = x[rows].to(device), None if context is None else context[rows].to(device)
        bounds = torch.stack([flow.log_prob(part, c) if draws == 1 else importance.log_prob(flow, part, draws, c)
                              for _ in range(repeats)])
        found.append(bounds.cpu().double().mean(0))  # float64 on the CPU: not every device has it
    return torch.cat(found)


def bits(flow: Flow, x: Tensor, context: Tensor | None = None, *, draws: int = 1, repeats: int = 1,
         batch_size: int = 250) -> tuple[float, float]:
    r"""Mean of $-\ln p(x_i; c_i) / (D \ln 2)$ and its standard error over the rows: bits per dimension of integer data,
    and an upper bound where `log_prob` is a lower one. Arguments and errors are those of `log_likelihood`.

    Returns:
        The mean, and its standard error (NaN for one row).

    Example:
        >>> from flowlib import AffineMap, Flow, Pixels, Uniform
        >>> flow = Pixels(Flow(Uniform(torch.zeros(4), torch.ones(4)), AffineMap(1.0, 0.0)), (1, 2, 2), levels=16)
        >>> round(bits(flow, torch.zeros(3, 1, 2, 2, dtype=torch.uint8))[0], 2)  # and the room around integers
        4.0
    """
    log_p = log_likelihood(flow, x, context, draws=draws, repeats=repeats, batch_size=batch_size)
    return mean(bits_per_dim(log_p, x[0].numel()))


def mean(values: Tensor) -> tuple[float, float]:
    """Mean of (N,) numbers and its standard error."""
    n = len(values)
    return values.mean().item(), values.std().item() / math.sqrt(n) if n > 1 else math.nan
