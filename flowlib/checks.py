"""Checks of the laws that every flow obeys. Lessons, tests and students use the same functions.

Each returns one number, the largest absolute error, so that a check reads `assert round_trip_error(f, z) < 1e-9`.
`passes` counts what a call costs, which no clock can say so well.
"""
from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from .bases import Base
from .core import Bijection, Flow

__all__ = ["Passes", "jacobian", "ks_distance", "log_det_error", "passes", "round_trip_error", "total_probability"]


def jacobian(f: Callable[[Tensor], Tensor], z: Tensor, ndim: int = 1) -> Tensor:
    r"""The Jacobian $J_{ij} = \partial f_i / \partial z_j$ of a batched map, by autograd: one backward pass per output.

    Args:
        f: Maps (..., *event) to (..., *event'), each row by itself.
        z: Where, (..., *event) with `ndim` event axes.
        ndim: Number of axes of one event.

    Returns:
        (..., D', D), events flattened.

    Example:
        >>> jacobian(lambda z: z**2, torch.tensor([1.0, 3.0]))
        tensor([[2., 0.],
                [0., 6.]])
    """
    batch = z.shape[: z.ndim - ndim]
    with torch.enable_grad():
        z = z.detach().requires_grad_()
        x = f(z).reshape(*batch, -1)
        rows = [torch.autograd.grad(x[..., i].sum(), z, retain_graph=True, allow_unused=True)[0]
                for i in range(x.shape[-1])]
    rows = [torch.zeros_like(z) if row is None else row for row in rows]
    return torch.stack([row.reshape(*batch, -1) for row in rows], -2)


def round_trip_error(bijection: Bijection, z: Tensor, context: Tensor | None = None) -> float:
    r"""The largest of $|f^{-1}(f(z)) - z|$ and $|f(f^{-1}(x)) - x|$ with $x = f(z)$.

    Example:
        >>> from flowlib import Exp
        >>> round_trip_error(Exp(), torch.zeros(3)) == 0.0
        True
    """
    with torch.no_grad():
        x = bijection(z, context)[0]
        back = bijection.inverse(x, context)[0]
        again = bijection(back, context)[0]
    return max((back - z).abs().max().item(), (again - x).abs().max().item())


def log_det_error(bijection: Bijection, z: Tensor, context: Tensor | None = None) -> float:
    r"""The largest difference between a returned log-det and `slogdet` of the autograd Jacobian, in both directions
    (nats).

    Example:
        >>> from flowlib import Exp
        >>> log_det_error(Exp(), torch.tensor([0.5, -1.0])) < 1e-6
        True
    """
    with torch.no_grad():
        x, forward_log_det = bijection(z, context)
        inverse_log_det = bijection.inverse(x, context)[1]
    forward_jacobian = jacobian(lambda z: bijection(z, context)[0], z, bijection.latent_ndim)
    inverse_jacobian = jacobian(lambda x: bijection.inverse(x, context)[0], x, bijection.event_ndim)
    return max((forward_log_det - torch.linalg.slogdet(forward_jacobian)[1]).abs().max().item(),
               (inverse_log_det - torch.linalg.slogdet(inverse_jacobian)[1]).abs().max().item())


@torch.no_grad()
def total_probability(flow: Flow, low: float | Tensor, high: float | Tensor, n: int = 801,
                      context: Tensor | None = None) -> float:
    r"""$\int p(x)\,dx$ over a box by the trapezoidal rule with n points an axis, for events of one or two dimensions.

    One for a density whose mass lies in the box. A density with a jump (a uniform base) costs an error of one cell.

    Args:
        flow: Anything with `log_prob` and `event_shape`.
        low, high: Corners of the box, numbers or one per axis.
        n: Points along each axis.
        context: One context (C,), the same for all points.

    Returns:
        The integral. `abs(total_probability(flow, ...) - 1)` is the error.

    Example:
        >>> from flowlib import Exp, Flow, StandardNormal
        >>> round(total_probability(Flow(StandardNormal(1), Exp()), 1e-6, 60.0, n=20001), 3)
        1.0
    """
    (dim,) = flow.event_shape
    if dim > 2:
        raise ValueError(f"quadrature is for one or two dimensions, this flow has {dim}")
    tensors = [t for t in (*flow.parameters(), *flow.buffers()) if t.is_floating_point()]
    like = {"dtype": tensors[0].dtype, "device": tensors[0].device} if tensors else {}
    low, high = (torch.as_tensor(end, **like).expand(dim) for end in (low, high))
    axes = [torch.linspace(a.item(), b.item(), n, **like) for a, b in zip(low, high)]
    grid = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1)
    density = torch.cat([flow.log_prob(part, context).exp() for part in grid.reshape(-1, dim).split(65536)])
    density = density.cpu().double().reshape([n] * dim)  # float64 on the CPU: not every device has it
    for axis in reversed(axes):
        density = torch.trapezoid(density, axis.cpu().double(), dim=-1)
    return density.item()


def ks_distance(samples: Tensor, cdf: Callable[[Tensor], Tensor]) -> float:
    r"""The Kolmogorov-Smirnov distance $\sup_x |F_n(x) - F(x)|$ of one-dimensional samples to a CDF.

    n samples of F itself stay below $1.63/\sqrt{n}$ in 99 of 100 cases.

    Args:
        samples: Any shape, all entries are one sample.
        cdf: F, elementwise; it gets the samples in float64 and on the CPU.

    Example:
        >>> ks_distance(torch.tensor([0.25, 0.75]), lambda x: x.clamp(0, 1))
        0.25
    """
    x = samples.detach().flatten().cpu().double().sort().values  # float64 on the CPU: not every device has it
    n = len(x)
    f = cdf(x)
    steps = torch.arange(n + 1, dtype=x.dtype) / n
    return max((f - steps[:-1]).abs().max().item(), (steps[1:] - f).abs().max().item())


@dataclass
class Passes:
    """What the networks inside a model did.

    Attributes:
        calls: How often one of them was called: its passes, over batches of any size.
        multiplications: Of numbers, in the products of matrices and convolutions of all that ran, in a network or not.
    """

    calls: int = 0
    multiplications: int = 0


@contextmanager
def passes(model: nn.Module) -> Iterator[Passes]:
    """Count, while the context is open, how often the networks inside a flow, a layer or a base are called; or `model`
    itself, where it is a network.

    Example:
        >>> from flowlib import MAF
        >>> flow = MAF(8, layers=1, sampling="passes")
        >>> with passes(flow) as density: log_p = flow.log_prob(torch.zeros(4, 8))
        >>> with passes(flow) as draw: x = flow.sample(4)
        >>> density.calls, draw.calls, draw.multiplications // density.multiplications
        (1, 8, 8)
    """
    count = Passes()

    def called(*_):
        count.calls += 1

    handles = [net.register_forward_hook(called) for net in networks(model)]
    try:
        with FlopCounterMode(display=False) as flops:
            yield count
    finally:
        for handle in handles:
            handle.remove()
        count.multiplications = flops.get_total_flops() // 2  # a product and a sum each


def networks(model: nn.Module) -> Iterator[nn.Module]:
    """The outermost modules inside that are no part of a flow."""
    if isinstance(model, (Flow, Bijection, Base, nn.ModuleList)):
        for part in model.children():
            yield from networks(part)
    else:
        yield model
