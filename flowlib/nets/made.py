"""MADE: a multilayer perceptron with so many weights masked that output i sees only the inputs before i."""
from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["MADE", "MaskedLinear"]


def places(dim: int, order: str | Iterable[int]) -> Tensor:
    """The place of each input in the order, (D,): "natural", "reversed", "random", or the inputs' numbers as they come.

    Raises:
        ValueError: Another word, or numbers that are no permutation of 0..D-1.
    """
    words = {"natural": torch.arange, "reversed": lambda d: torch.arange(d).flip(0), "random": torch.randperm}
    if isinstance(order, str):
        if order not in words:
            raise ValueError(f"an order is one of {', '.join(words)}, or a sequence of all inputs, got {order!r}")
        return words[order](dim)
    sequence = [int(i) for i in order]
    if sorted(sequence) != list(range(dim)):
        raise ValueError(f"an order names each of the inputs 0..{dim - 1} once, got {sequence}")
    return torch.tensor(sequence).argsort()


class MaskedLinear(nn.Module):
    """x -> (M * W) x + b. Weights under the mask have no effect and no gradient.

    W and b start from the law of `nn.Linear` with the number of inputs that a unit sees: U(-1, 1) over its root.

    Args:
        mask: M, boolean (outputs, inputs): True is kept.
    """

    mask: Tensor

    def __init__(self, mask: Tensor):
        super().__init__()
        self.register_buffer("mask", mask)
        bound = mask.sum(1, keepdim=True).clamp(min=1).rsqrt()
        self.weight = nn.Parameter((2 * torch.rand(mask.shape) - 1) * bound)
        self.bias = nn.Parameter((2 * torch.rand(len(mask)) - 1) * bound[:, 0])

    @property
    def masked(self) -> Tensor:
        """M * W."""
        # the same bytes read as integers: torch converts those, and multiplies, several times as fast as truth values
        return self.weight * self.mask.view(torch.uint8).to(self.weight.dtype)

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) to (..., outputs)."""
        return F.linear(x, self.masked, self.bias)


class MADE(nn.Module):
    r"""A masked autoencoder for distribution estimation (Germain et al. 2015, arXiv:1502.03509): x (..., D) to
    (..., D, n_params), where row i depends on the inputs before i in the order, and on nothing else.

    Unit k of a layer has a degree $m_k$ and sees the inputs of rank (place in the order) up to $m_k$. A weight from k'
    to k stays where $m_k \ge m_{k'}$ (equation 12), a weight to output i where its rank exceeds $m_k$ (equation 13).
    The product of the masks is strictly triangular in the order, and so is the Jacobian. Degrees are spread evenly over
    what any output may see, and ascend, so that the units of the lowest degrees are the first rows of each layer.

    Cost: one pass of a dense network of these widths. The last layer starts at zero.

    Args:
        dim: D.
        n_params: Numbers for each coordinate.
        hidden: Widths of the hidden layers.
        order: "natural", "reversed", "random", or a sequence of the inputs 0..D-1 as they come.
        context_dim: Width of a context that every output may depend on, or None.
        residual: Whether each hidden layer after the first adds to the one before it; their widths are then equal.

    Raises:
        ValueError: No dimension, no hidden layer, an order that is none, or widths that cannot be added.

    Example:
        >>> from flowlib import MADE
        >>> MADE(3, n_params=2)(torch.zeros(5, 3)).shape
        torch.Size([5, 3, 2])
    """

    rank: Tensor

    def __init__(self, dim: int, n_params: int = 2, *, hidden: Sequence[int] = (64, 64),
                 order: str | Iterable[int] = "natural", context_dim: int | None = None, residual: bool = False):
        super().__init__()
        if dim < 1 or n_params < 1 or not hidden or min(hidden) < 1:
            raise ValueError("MADE needs dim >= 1, n_params >= 1 and hidden layers of at least one unit, "
                             f"got dim={dim}, n_params={n_params}, hidden={tuple(hidden)}")
        if residual and len(set(hidden)) > 1:
            raise ValueError(f"hidden layers that are added have one width, got {tuple(hidden)}")
        self.dim, self.n_params, self.residual = dim, n_params, residual
        self.reads = dim if dim > 1 else 0  # of one coordinate none comes before
        self.lowest = -1 if context_dim is not None or dim == 1 else 0  # units of degree -1 see the context alone
        self.register_buffer("rank", places(dim, order))
        degrees = [self.rank[: self.reads], *(torch.tensor(self.degrees(width)) for width in hidden)]
        self.layers = cast("Sequence[MaskedLinear]", nn.ModuleList(
            MaskedLinear(b[:, None] >= a) for a, b in zip(degrees, degrees[1:])))
        # the first parameter of all coordinates, then the second of all, ...: each lies together in memory
        self.last = MaskedLinear((self.rank[:, None] > degrees[-1]).repeat(n_params, 1))
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)
        self.context = None if context_dim is None else nn.Linear(context_dim, hidden[0], bias=False)

    def degrees(self, width: int) -> list[int]:
        """The degrees of a hidden layer of this width, ascending from the lowest to at most D - 2: nothing may see the
        last input."""
        levels = self.dim - 1 - self.lowest
        return [self.lowest + k * levels // width for k in range(width)]

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """(..., D) and, where the net was built with `context_dim`, a context that broadcasts against its batch:
        (..., D, n_params)."""
        first, *others = self.layers
        h = first(x[..., : self.reads])
        if self.context is not None:
            h = h + self.context(context)
        h = h.relu()
        for layer in others:
            h = h + layer(h).relu() if self.residual else layer(h).relu()
        return self.last(h).unflatten(-1, (self.n_params, self.dim)).mT
