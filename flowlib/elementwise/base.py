"""Elementwise maps: increasing functions of one number whose parameters something else computes; and the simplest
container."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..core import Bijection
from ..describe import call_text, recorded
from ..nets.mlp import MLP
from ..saving import Recorded

__all__ = ["Elementwise", "ElementwiseMap"]


class ElementwiseMap(metaclass=Recorded):
    r"""An increasing function $x_i = g(z_i; \theta_i)$ of one number, to be put into a container that computes $\theta$
    and sums the log-derivatives over the event: `Elementwise`, `Coupling`, `ImageCoupling`.

    It holds no parameters and is no `Bijection` itself. A subclass sets `n_params` and writes `forward` and `inverse`,
    for z of any shape (...) and params (..., n_params). With params of zero it should be the identity: layers start
    there.

    Attributes:
        n_params: Numbers that one element's function needs.

    Example:
        >>> import flowlib
        >>> class Stretch(flowlib.ElementwiseMap):
        ...     n_params = 1
        ...     def forward(self, z, params): return z * params[..., 0].exp(), params[..., 0].expand(z.shape)
        ...     def inverse(self, x, params): return x * (-params[..., 0]).exp(), -params[..., 0].expand(x.shape)
        >>> flowlib.Coupling(4, Stretch())
        Coupling(4, Stretch())
    """

    n_params: int

    def forward(self, z: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        """x and ln dx/dz, elementwise: each (...)."""
        raise TypeError(f"{type(self).__name__} does not define forward")

    def inverse(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        """z and ln dz/dx, elementwise: each (...)."""
        raise TypeError(f"{type(self).__name__} does not define inverse")

    def __repr__(self) -> str:
        return call_text(type(self).__name__, *recorded(self))


def readable(value: Tensor) -> Tensor:
    """What a network reads of an event: its numbers, held to at most 1e9 (half the largest in float16). This changes no
    density of ordinary data, and both directions read the same; but no input, however large, then makes infinity minus
    infinity of a network's sums: far out, a deep flow gives -inf and never NaN."""
    largest = min(1e9, torch.finfo(value.dtype).max / 2)
    return value.clamp(-largest, largest)


def arrange(output: Tensor, n_params: int, axis: int) -> Tensor:
    """A network's output as the params of an elementwise map, for M elements or channels.

    Args:
        output: (..., n_params M) of vectors: the first parameter of all M, then the second of all M, ...; or
            (..., M n_params, H, W) of images: all parameters of the first channel, then all of the second, ...
        n_params: Numbers that one element's function needs.
        axis: -1 for vectors, -3 for images.

    Returns:
        (..., M, n_params), or (..., M, H, W, n_params); a view: in memory the output stays as it is.
    """
    if axis == -1:
        return output.unflatten(-1, (n_params, -1)).mT
    return output.unflatten(-3, (-1, n_params)).movedim(-3, -1)


def check_map(elementwise: object, who: str) -> None:
    """ValueError where a container is given anything but an elementwise map."""
    if isinstance(elementwise, (Bijection, type)) or not hasattr(elementwise, "n_params"):
        raise ValueError(f"{who} needs an elementwise map, such as Affine(), got {elementwise!r}")


class Elementwise(Bijection):
    r"""An elementwise map on every coordinate of a vector, with parameters of its own, or read from a context by one
    linear map or a network. $\log|\det| = \sum_i \ln f_i'(z_i)$. It moves each axis by itself: dependence must come
    from other layers.

    Cost: that of the map, both ways.

    Args:
        dim: D.
        elementwise: The map, such as `RationalQuadraticSpline()`.
        context_dim: Width of a context, or None.
        hidden: Widths of the hidden layers of a network that reads the context; none for the linear map.

    Raises:
        ValueError: No dimension, or what is no elementwise map.

    Example:
        >>> from flowlib import Affine, Elementwise
        >>> Elementwise(3, Affine())(torch.ones(3))[1]  # the identity at the start
        tensor(0., grad_fn=<SumBackward1>)
    """

    shift: Any  # where there is a context: the linear map or the network

    def __init__(self, dim: int, elementwise: ElementwiseMap, *, context_dim: int | None = None,
                 hidden: Sequence[int] = ()):
        super().__init__()
        check_map(elementwise, "Elementwise")
        if dim < 1:
            raise ValueError(f"dim must be positive, got {dim}")
        self.event_shape = self.latent_shape = (dim,)
        self.elementwise, self.context_dim = elementwise, context_dim
        self.params = nn.Parameter(torch.zeros(dim, elementwise.n_params))
        if context_dim is not None and hidden:
            self.shift = MLP(context_dim, dim * elementwise.n_params, hidden)
        elif context_dim is not None:
            self.shift = nn.Linear(context_dim, dim * elementwise.n_params, bias=False)
            nn.init.zeros_(self.shift.weight)

    def _broadcast(self, value, context):
        params = self.params
        if self.context_shape is not None:
            params = params + self.shift(context).unflatten(-1, params.shape).to(value.dtype)
        shape = torch.broadcast_shapes(value.shape, params.shape[:-1])
        return value.expand(shape), params.expand(*shape, -1)

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        x, log_slope = self.elementwise.forward(*self._broadcast(z, context))
        return x, log_slope.sum(-1)

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        z, log_slope = self.elementwise.inverse(*self._broadcast(x, context))
        return z, log_slope.sum(-1)
