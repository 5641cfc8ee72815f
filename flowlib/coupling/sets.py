"""The coupling layer for sets: each element keeps some of its numbers, and the others are moved by what a network reads
of all elements' kept ones. No order of the elements is better than another."""
from __future__ import annotations

from typing import cast

from torch import Tensor

from ..arguments import one_context
from ..elementwise.base import ElementwiseMap
from ..nets.sets import SetNet
from .halves import Halves

__all__ = ["SetCoupling"]


class SetCoupling(Halves):
    r"""$x_a = z_a,\quad x_b = g(z_b; \theta(z_a, c))$ as in `Coupling`, for events (N, d) of N elements, where a and b
    are halves of each element's d numbers and $\theta$ is a `SetNet`. $\log|\det| = \sum_{i \in b} \ln g'(z_i)$.

    Reordering the elements of z reorders those of x and leaves the log-det as it is: so a flow of such layers over a
    base that is the same for all elements gives every order of a set one density. Cost: one pass of the network, both
    ways, linear in N.

    Args:
        shape: (N, d). The first d // 2 numbers of each element are kept, the others moved.
        elementwise: The map g, such as `Affine()`.
        hidden: Width of the network.
        rounds: Sums over all elements that it takes, one after the other.
        swap: Keep the others instead.
        context_dim: Width of a context (..., C) that the network also reads, the same for every element, or None.
        context_shape: (C,), or (N, C) for a context of each element; in place of context_dim.

    Raises:
        ValueError: d = 1 without a context: there is nothing to read from; both forms of a context, or one of another
            shape; what is no elementwise map.

    Example:
        >>> import torch; from flowlib import Affine, SetCoupling
        >>> SetCoupling((5, 2), Affine())(torch.zeros(7, 5, 2))[1].shape
        torch.Size([7])
    """

    latent_ndim = event_ndim = 2
    axis = -1

    def __init__(self, shape: tuple[int, int], elementwise: ElementwiseMap, *, hidden: int = 64, rounds: int = 2,
                 swap: bool = False, context_dim: int | None = None, context_shape: tuple[int, ...] | None = None):
        super().__init__()
        size, dim = self.latent_shape = self.event_shape = tuple(shape)
        self.context_shape = one_context(context_dim, context_shape)
        if self.context_shape is not None and self.context_shape[:-1] not in ((), (size,)):
            raise ValueError(f"the context of sets of {size} has shape (C,) or ({size}, C), got {self.context_shape}")
        if size < 1 or dim < 1 or (dim == 1 and self.context_shape is None):
            raise ValueError("a set coupling needs an element, and two numbers of each, or a context for one; "
                             f"got shape {tuple(shape)}, context_shape={self.context_shape}")
        inputs, moved = self._divide(elementwise, None, swap and dim > 1)
        self.net = SetNet(inputs, moved * elementwise.n_params, hidden, rounds,
                          None if self.context_shape is None else self.context_shape[-1])

    def _read(self, kept, context):
        if self.context_shape is None:
            return self.net(kept)
        one = cast("Tensor", context)
        return self.net(kept, one[..., None, :] if len(self.context_shape) == 1 else one)  # one for all elements
