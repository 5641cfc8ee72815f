"""A causal network over a graph that grows node by node: what each step may know, for all steps in one pass."""
from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["CausalGraphNet"]


def each_kind(message: Tensor, gate: Tensor) -> Tensor:
    """Messages (B, T, H) along edges of each kind, (B, T R, H), whose vectors are `gate` (R, H)."""
    return (message[:, :, None] * gate).flatten(1, 2)


def zero(inputs: int, outputs: int) -> nn.Linear:
    """A last layer: every step starts from the same parameters, zero."""
    layer = nn.Linear(inputs, outputs)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


class _Block(nn.Module):
    """Attention to earlier tokens, with a bias for each kind of edge; messages along edges; two layers at each token.

    The message of a neighbour k is $g_e \\odot W h_k$, with a vector g for each kind of edge e."""

    def __init__(self, hidden: int, heads: int, edge_types: int):
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList(nn.LayerNorm(hidden) for _ in range(2))
        self.qkv, self.out = nn.Linear(hidden, 3 * hidden), nn.Linear(hidden, hidden)
        self.bias = nn.Linear(edge_types, heads, bias=False)
        self.message = nn.Linear(hidden, hidden, bias=False)
        self.gate = nn.Parameter(torch.randn(edge_types, hidden))
        self.wide = nn.Sequential(nn.Linear(hidden, 2 * hidden), nn.GELU(), nn.Linear(2 * hidden, hidden))

    def forward(self, h: Tensor, joined: Tensor, late: Tensor) -> Tensor:
        """h (B, T, H); `joined` (B, T, T, R), which earlier tokens are joined by which kind; `late` (T, T), which
        tokens are hidden."""
        normed = self.norms[0](h)
        q, k, v = self.qkv(normed).unflatten(-1, (3, self.heads, -1)).movedim(1, 3).unbind(1)  # (B, heads, T, H/heads)
        bias = self.bias(joined).movedim(-1, 1).masked_fill(late, -torch.inf)
        seen = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        messages = each_kind(self.message(normed), self.gate)
        h = h + self.out(seen.movedim(1, 2).flatten(2)) + joined.flatten(2) @ messages
        return h + self.wide(self.norms[1](h))


class CausalGraphNet(nn.Module):
    r"""Parameters of all steps in which a graph of at most N nodes is drawn: node 0, node 1, its edge to node 0, node
    2, its edges to nodes 1 and 0, ...

    Token 0 is the beginning and token i + 1 is node i with its edges to earlier nodes; a transformer in which no token
    sees a later one makes of them $h_0, \dots, h_N$, so that $h_i$ knows the first i nodes and all edges between them.
    The next node is read from $h_i$. Its edge to node j, the nearest drawn first, is read from $h_i$, its type,
    $h_{j+1}$, the distance i - j and a sum over the edges of node i that are drawn already, $\sum_{j<k<i} g_{e_{ik}}
    \odot W h_{k+1}$, so that all edges are read at once too.

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
        self.node = nn.Sequential(nn.Linear(hidden, hidden), nn.ReLU(), zero(hidden, node_outputs))
        self.before, self.other = nn.Linear(hidden, hidden), nn.Linear(hidden, hidden)
        self.own_type, self.distance = nn.Embedding(node_types, hidden), nn.Embedding(max_nodes, hidden)
        self.message = nn.Linear(hidden, hidden, bias=False)
        self.gate = nn.Parameter(torch.randn(edge_types, hidden))
        self.pair = nn.Sequential(nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), zero(hidden, edge_outputs))
        self.register_buffer("valence", None if valence is None else torch.tensor(valence), persistent=False)
        if valence is not None:
            self.largest = max(valence)
            self.token_free = nn.Embedding(self.largest + 1, hidden)
            self.free = nn.Linear(2 * (self.largest + 1) + edge_types + 1, hidden, bias=False)

    def tokens(self, nodes: Tensor, edges: Tensor) -> Tensor:
        """Nodes (B, n) and edges (B, n, n) to h (B, n + 1, H)."""
        n = nodes.shape[1]
        back = F.pad(edges.tril(-1), (1, 0, 1, 0))
        joined = self.joined(back)
        own = self.kind(nodes) + self.edge(joined[:, 1:].sum(2))
        if self.valence is not None:
            own = own + self.token_free((self.valence[nodes] - back[:, 1:].sum(-1)).clamp(0, self.largest))
        h = F.pad(own, (0, 0, 1, 0)) + self.place.weight[:n + 1]
        late = torch.ones(n + 1, n + 1, dtype=torch.bool, device=nodes.device).triu(1)
        for block in self.blocks:
            h = block(h, joined, late)
        return self.norm(h)

    def joined(self, edges: Tensor) -> Tensor:
        """Edges (...) as one-hot vectors of their kinds, (..., R); zeros for none."""
        return F.one_hot(edges, self.edge_types + 1)[..., 1:].to(self.gate.dtype)

    def own(self, h: Tensor, types: Tensor) -> Tensor:
        """What the edges of nodes of these types, which come after $h_i$, read of them."""
        return self.before(h) + self.own_type(types)

    def step(self, own: Tensor, other: Tensor, distance: Tensor, drawn: Tensor,
             free: tuple[Tensor, Tensor] | None) -> Tensor:
        """Parameters of edges (i, j) from `self.own` of node i, `self.other` of $h_{j+1}$, i - j, the sum of messages,
        and the free valence of both where there is one."""
        hidden = own + other + self.distance(distance) + drawn
        if free is not None:
            a, b = (each.clamp(0, self.largest) for each in free)
            fits = torch.minimum(a, b).clamp(max=self.edge_types)
            features = torch.cat([F.one_hot(a, self.largest + 1), F.one_hot(b, self.largest + 1),
                                  F.one_hot(fits, self.edge_types + 1)], -1)
            hidden = hidden + self.free(features.to(hidden.dtype))
        return self.pair(hidden)

    def edge_parameters(self, h: Tensor, nodes: Tensor, edges: Tensor) -> Tensor:
        """Parameters of all edges (i, j), j < i, row by row: (B, N (N - 1) / 2, edge_outputs)."""
        n = nodes.shape[1]
        i, j = torch.tril_indices(n, n, -1, device=nodes.device)
        between = torch.arange(n, device=nodes.device) > j[:, None]  # (pairs, N): the nodes k > j
        back = edges.tril(-1)[:, i] * between  # of node i to those of them that are before it
        drawn = self.joined(back).flatten(2) @ each_kind(self.message(h[:, 1:]), self.gate)
        free = None
        if self.valence is not None:
            valence = self.valence[nodes]
            used = edges.cumsum(1) - edges  # of node j by the nodes before i
            free = valence[:, i] - back.sum(-1), valence[:, j] - used[:, i, j]
        return self.step(self.own(h[:, :n], nodes)[:, i], self.other(h[:, 1:])[:, j], i - j, drawn, free)
