"""A conditioner for sets: reorder the elements, and the outputs are reordered alike."""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["SetNet"]


class SetNet(nn.Module):
    r"""One output for each element of a set, read from the element itself and from the sum over all elements:

    $$h_i \leftarrow h_i + \operatorname{ReLU}\Big(A h_i + B \sum_j h_j + b\Big)$$

    in each of R rounds, between a linear layer at either end, of which the last starts at zero (Zaheer et al. 2017,
    arXiv:1703.06114). Cost: linear in the number of elements.

    Args:
        inputs: Numbers of each element.
        outputs: Width of each element's result.
        hidden: Width of h.
        rounds: R. After two, an element can count what the others are.
        context_dim: Width of a context that is appended to each element, or None.

    Raises:
        ValueError: No round.

    Example:
        >>> import torch
        >>> SetNet(2, 5)(torch.ones(10, 3, 2)).shape
        torch.Size([10, 3, 5])
    """

    def __init__(self, inputs: int, outputs: int, hidden: int = 64, rounds: int = 2, context_dim: int | None = None):
        super().__init__()
        if rounds < 1:
            raise ValueError(f"SetNet needs at least one round, got {rounds}")
        self.first = nn.Linear(inputs + (context_dim or 0), hidden)
        self.own = nn.ModuleList(nn.Linear(hidden, hidden) for _ in range(rounds))
        self.all = nn.ModuleList(nn.Linear(hidden, hidden, bias=False) for _ in range(rounds))
        self.last = nn.Linear(hidden, outputs)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, x: Tensor, context: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """Elements (..., N, inputs), and where there is one a context that broadcasts against them, to (..., N,
        outputs). Of sets of different sizes in one tensor, `mask` (..., N) says which elements there are; what stands
        in the places of the others changes no output of theirs."""
        if context is not None:
            batch = torch.broadcast_shapes(x.shape[:-1], context.shape[:-1])
            x = torch.cat([x.expand(*batch, -1), context.expand(*batch, -1)], -1)
        h = F.relu(self.first(x))
        for own, pooled in zip(self.own, self.all):
            there = h if mask is None else h.masked_fill(~mask[..., None], 0.0)
            h = h + F.relu(own(h) + pooled(there.sum(-2, keepdim=True)))
        return self.last(h)
