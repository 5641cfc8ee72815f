"""A conditioner for graphs: reorder the nodes, and the outputs are reordered alike."""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["GraphNet"]


class GraphNet(nn.Module):
    r"""One output for each node of a graph, read from the node, its neighbours by kind of edge, and all nodes:

    $$h_i \leftarrow h_i + \operatorname{ReLU}\Big(A h_i + \sum_{r=1}^{R} \sum_{j: e_{ij} = r} W_r h_j
    + B \sum_j h_j + b\Big)$$

    in each of several rounds, between a linear layer at either end, of which the last starts at zero (Schlichtkrull et
    al. 2018, arXiv:1703.06103). Cost: quadratic in the number of nodes.

    Args:
        inputs: Numbers of each node.
        outputs: Width of each node's result.
        edge_types: R.
        hidden: Width of h.
        rounds: Number of rounds, how far a node sees along edges.

    Example:
        >>> import torch
        >>> edges, mask = torch.zeros(10, 3, 3, dtype=torch.int64), torch.ones(10, 3, dtype=torch.bool)
        >>> GraphNet(2, 5, 1)(torch.ones(10, 3, 2), edges, mask).shape
        torch.Size([10, 3, 5])
    """

    def __init__(self, inputs: int, outputs: int, edge_types: int, hidden: int = 64, rounds: int = 2):
        super().__init__()
        self.edge_types = edge_types
        self.first = nn.Linear(inputs, hidden)
        self.own = nn.ModuleList(nn.Linear(hidden, hidden) for _ in range(rounds))
        self.kinds = nn.ModuleList(nn.Linear(hidden, edge_types * hidden, bias=False) for _ in range(rounds))
        self.all = nn.ModuleList(nn.Linear(hidden, hidden, bias=False) for _ in range(rounds))
        self.last = nn.Linear(hidden, outputs)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, x: Tensor, edges: Tensor, mask: Tensor) -> Tensor:
        """Nodes (B, N, inputs), edges int64 (B, N, N) and mask (B, N) to (B, N, outputs). What stands in the padding
        changes no output of a node."""
        h = F.relu(self.first(x))
        kinds = F.one_hot(edges, self.edge_types + 1)[..., 1:].to(h.dtype)
        for own, each, pooled in zip(self.own, self.kinds, self.all):
            h = h.masked_fill(~mask[..., None], 0.0)
            messages = each(h).unflatten(-1, (self.edge_types, -1))
            near = torch.einsum("bijr,bjrh->bih", kinds, messages)
            h = h + F.relu(own(h) + near + pooled(h.sum(1, keepdim=True)))
        return self.last(h)
