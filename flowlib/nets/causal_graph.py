"""A causal network over a graph that grows node by node: what each step may know, for all steps in one pass."""
from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["CausalGraphNet"]


class _Block(nn.Module):
    """Attention to earlier tokens, with a bias for each kind of edge; messages along edges; two layers at each token.

    The message of a neighbour k is $g_e \\odot W h_k$, with a vector g for each kind of edge e."""

    def __init__(self, hidden: int, heads: int, edge_types: int):
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList(nn.LayerNorm(hidden) for _ in range(2))
        self.qkv, self.out = nn.Linear(hidden, 3 * hidden), nn.Linear(hidden, hidden)
        self.bias = nn.Embedding(edge_types + 1, heads)
        self.message = nn.Linear(hidden, hidden, bias=False)
        self.gate = nn.Parameter(torch.randn(edge_types, hidden))
        self.wide = nn.Sequential(nn.Linear(hidden, 2 * hidden), nn.GELU(), nn.Linear(2 * hidden, hidden))

    def forward(self, h: Tensor, edges: Tensor, joined: Tensor, late: Tensor) -> Tensor:
        """h (B, T, H); edges (B, T, T) to earlier tokens, 0 elsewhere, and `joined` (B, T, T, R), which of them are of
        each kind; `late` (T, T): which tokens are hidden."""
        normed = self.norms[0](h)
        q, k, v = self.qkv(normed).unflatten(-1, (3, self.heads, -1)).movedim(1, 3).unbind(1)  # (B, heads, T, H/heads)
        bias = self.bias(edges).movedim(-1, 1).masked_fill(late, -torch.inf)
        seen = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        messages = (self.message(normed)[:, :, None] * self.gate).flatten(1, 2)  # (B, T R, H)
        h = h + self.out(seen.movedim(1, 2).flatten(2)) + joined.flatten(2) @ messages
        return h + self.wide(self.norms[1](h))


class CausalGraphNet(nn.Module):
    r"""Parameters of all steps in which a graph of at most N nodes is drawn: node 0, node 1, its edge to node 0, node
    2, its edges to nodes 1 and 0, ...

    Token 0 is the beginning and token i + 1 is node i with its edges to earlier nodes; a transformer in which no token
    sees a later one makes of them $h_0, \dots, h_N$, so that $h_i$ knows the first i nodes and all edges between them.
    The next node is read from $h_i$. Its edge to node j, the nearest drawn first, is read from $h_i$, its type, $h_{j +
    1}$, the distance i - j and a sum over the edges of node i that are drawn already, $\sum_{j<k<i} g_{e_{ik}} \odot W
    h_{k+1}$: a cumulative sum, so that all edges are read at once too.

    Args:
        max_nodes: N.
        node_types: K.
        edge_types: R, the kinds of edges 1..R beside 0, none.
        node_outputs, edge_outputs: Parameters of a node's and an edge's step.
        hidden: H.
        layers: Number of transformer blocks.
        heads: Of the attention; they divide H.
        valence: The largest sum of edge kinds at a node of each type, for features that say how much of it is free; or
            None.
    """

    valence: Tensor | None

    def __init__(self, max_nodes: int, node_types: int, edge_types: int, node_outputs: int, edge_outputs: int, *,
                 hidden: int = 64, layers: int = 3, heads: int = 4, valence: Sequence[int] | None = None):
        super().__init__()
        self.edge_types = edge_types
        self.place = nn.Embedding(max_nodes + 1, hidden)  # the beginning, and how manieth a node is
        self.kind = nn.Embedding(node_types, hidden)
        self.edge = nn.Linear(edge_types, hidden, bias=False)
        self.blocks = nn.ModuleList(_Block(hidden, heads, edge_types) for _ in range(layers))
        self.norm = nn.LayerNorm(hidden)
        self.node = nn.Sequential(nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, node_outputs))
        self.before, self.other = nn.Linear(hidden, hidden), nn.Linear(hidden, hidden)
        self.own_type, self.distance = nn.Embedding(node_types, hidden), nn.Embedding(max_nodes, hidden)
        self.message = nn.Linear(hidden, hidden, bias=False)
        self.gate = nn.Parameter(torch.randn(edge_types, hidden))
        self.pair = nn.Sequential(nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, edge_outputs))
        self.register_buffer("valence", None if valence is None else torch.tensor(valence), persistent=False)
        if valence is not None:
            self.largest = max(valence)
            self.token_free, self.own_free, self.other_free = (
                nn.Embedding(self.largest + 1, hidden) for _ in range(3))
            self.fits = nn.Embedding(edge_types + 1, hidden)

    def tokens(self, nodes: Tensor, edges: Tensor) -> Tensor:
        """Nodes (B, n) and edges (B, n, n) to h (B, n + 1, H)."""
        n = nodes.shape[1]
        back = F.pad(edges.tril(-1), (1, 0, 1, 0))
        joined = F.one_hot(back, self.edge_types + 1)[..., 1:].to(self.edge.weight.dtype)
        own = self.kind(nodes) + self.edge(joined[:, 1:].sum(2))
        if self.valence is not None:
            own = own + self.token_free((self.valence[nodes] - back[:, 1:].sum(-1)).clamp(0, self.largest))
        h = F.pad(own, (0, 0, 1, 0)) + self.place.weight[:n + 1]
        late = torch.ones(n + 1, n + 1, dtype=torch.bool, device=nodes.device).triu(1)
        for block in self.blocks:
            h = block(h, back, joined, late)
        return self.norm(h)

    def messages(self, h: Tensor, edges: Tensor) -> Tensor:
        """What is added up of the edges (...) to nodes whose tokens are h (..., H)."""
        return F.embedding(edges, F.pad(self.gate, (0, 0, 1, 0))) * self.message(h)

    def step(self, before: Tensor, other: Tensor, own_type: Tensor, distance: Tensor, drawn: Tensor,
             free: tuple[Tensor, Tensor] | None) -> Tensor:
        """Parameters of edges: from `self.before` of $h_i$, `self.other` of $h_{j+1}$, the type of node i, i - j, the
        sum of messages, and the free valence of both nodes where there is one."""
        hidden = before + other + self.own_type(own_type) + self.distance(distance) + drawn
        if free is not None:
            own, of_other = (each.clamp(0, self.largest) for each in free)
            fits = torch.minimum(own, of_other).clamp(max=self.edge_types)
            hidden = hidden + self.own_free(own) + self.other_free(of_other) + self.fits(fits)
        return self.pair(hidden)

    def edge_parameters(self, h: Tensor, nodes: Tensor, edges: Tensor) -> Tensor:
        """Parameters of all edges (i, j), j < i, row by row: (B, N (N - 1) / 2, edge_outputs)."""
        n = nodes.shape[1]
        i, j = torch.tril_indices(n, n, -1, device=nodes.device)
        back, own = edges.tril(-1), h[:, 1:]
        drawn = _sum_of_later(self.messages(own[:, None], back))
        free = None
        if self.valence is not None:
            valence = self.valence[nodes]
            used = edges.cumsum(1) - edges  # of node j by the nodes before i
            free = valence[:, i] - _sum_of_later(back)[:, i, j], valence[:, j] - used[:, i, j]
        return self.step(self.before(h)[:, i], self.other(own)[:, j], nodes[:, i], i - j, drawn[:, i, j], free)


def _sum_of_later(terms: Tensor) -> Tensor:
    """Of terms (B, N, N, ...) for (i, k), the sum over k > j."""
    return terms.sum(2, keepdim=True) - terms.cumsum(2)
