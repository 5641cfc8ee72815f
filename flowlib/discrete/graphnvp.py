"""GraphNVP: couplings for the edges of a graph, then couplings for its nodes given the edges."""
from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..arguments import holds, number_of_draws
from ..describe import call_text, recorded
from ..elementwise.affine import Affine
from ..nets.graph import GraphNet
from ..nets.mlp import MLP
from ..saving import Recorded
from .graphs import Graphs

__all__ = ["GraphNVP"]


class GraphNVP(nn.Module, metaclass=Recorded):
    r"""Graphs of n <= N nodes at once (Madhawa et al. 2019, arXiv:1905.11600): the size, affine
    couplings of the edges, affine couplings of the nodes given the edges. One-hot vectors have noise, y = e_k + 0.9u:

    $$\ln P(G) \ge \ln P(n) + E_u\Big[\ln p(z) + \sum_l \ln |\det J_l| + D \ln 0.9\Big]$$

    with D the number of y's entries. Coupling l changes the edges (the type) of node l mod N, read from all others.
    Each pair is one edge, so that graphs are symmetric. Decoded is the largest entry, so that every latent is a graph.
    `log_prob` is one sample of the right side, in training and evaluation alike; it depends on the order of the nodes.
    Cost: 2 `rounds` N network passes each way.

    Args:
        max_nodes: N.
        node_types: K.
        edge_types: R, the kinds of edges 1..R beside 0, none.
        hidden: Width of the networks.
        rounds: How often each node has its turn.

    Raises:
        ValueError: No node, fewer than one type, or no round.

    Example:
        >>> import torch, flowlib
        >>> flow = flowlib.GraphNVP(5, 2, 1); graphs = flow.sample(3); flow.log_prob(graphs).shape
        torch.Size([3])
        >>> torch.equal(flow.decode(*flow.encode(graphs)).edges, graphs.edges)
        True
    """

    likelihood = "bound"
    noise = 0.9
    pairs: Tensor
    touching: Tensor
    size_probs: Tensor

    def __init__(self, max_nodes: int, node_types: int, edge_types: int, *, hidden: int = 64, rounds: int = 1):
        super().__init__()
        if min(max_nodes, node_types, edge_types, rounds) < 1:
            raise ValueError("GraphNVP needs a node, a type of nodes, a kind of edges and a round, "
                             f"got {max_nodes}, {node_types}, {edge_types} and {rounds}")
        n, k, r = max_nodes, node_types, edge_types + 1
        self.max_nodes, self.node_types, self.edge_types = n, k, edge_types
        i, j = torch.tril_indices(n, n, -1)
        self.register_buffer("pairs", torch.stack([i, j]), persistent=False)
        touching = torch.stack([((i == node) | (j == node)).nonzero()[:, 0] for node in range(n)])
        self.register_buffer("touching", touching, persistent=False)  # the n - 1 pairs of each node
        self.register_buffer("size_probs", torch.full((n,), 1 / n))
        self.edge_nets = nn.ModuleList(MLP(len(i) * r, (n - 1) * r * 2, (hidden, hidden)) for _ in range(rounds * n))
        self.node_nets = nn.ModuleList(GraphNet(k + 1, k * 2, edge_types, hidden) for _ in range(rounds * n))

    def __repr__(self) -> str:
        return call_text(type(self).__name__, *recorded(self))

    @torch.no_grad()
    def initialize(self, graphs: Graphs) -> None:
        """Take P(n) from the sizes of these graphs; before, all sizes 1..N are equally likely.
        ValueError for no graphs; else errors as for `log_prob`."""
        if not len(graphs):
            raise ValueError("sizes are counted on at least one graph")
        counts = self._fit(graphs).sizes.bincount(minlength=self.max_nodes + 1)[1:]
        self.size_probs.copy_(counts / counts.sum())

    def _fit(self, graphs: Graphs) -> Graphs:
        graphs = graphs if graphs.nodes.shape[1] == self.max_nodes else graphs.pad(self.max_nodes)
        if not holds(graphs.nodes < self.node_types) or not holds(graphs.edges <= self.edge_types):
            raise ValueError(f"this flow is over graphs of {self.node_types} node types and {self.edge_types} kinds of "
                             f"edges, got types up to {int(graphs.nodes.max())}, kinds up to {int(graphs.edges.max())}")
        if not holds(graphs.sizes > 0):
            raise ValueError("this flow is over graphs of at least one node")
        return graphs

    def _noisy(self, k: Tensor, categories: int) -> Tensor:
        one_hot = F.one_hot(k, categories).to(self.size_probs.dtype)
        return one_hot + self.noise * torch.rand_like(one_hot)

    def _edge_flow(self, y: Tensor, there: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        """Edges (B, P, R + 1) of the pairs that there are (B, P) to latents and the log-det (B,), or back."""
        log_det, order = y.new_zeros(len(y)), range(len(self.edge_nets))
        y = y.masked_fill(~there[..., None], 0.0)
        for step in order if inverse else reversed(order):
            own = self.touching[step % self.max_nodes]
            others = y.index_fill(1, own, 0.0)
            params = self.edge_nets[step](others.flatten(1)).view(len(y), self.max_nodes - 1, y.shape[-1], 2)
            new, log_slope = (Affine().inverse if inverse else Affine().forward)(y[:, own], params)
            used = there[:, own, None]
            y = y.index_copy(1, own, torch.where(used, new, 0.0))
            log_det = log_det + torch.where(used, log_slope, 0.0).sum((1, 2))
        return y, log_det

    def _node_flow(self, y: Tensor, edges: Tensor, mask: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        """The same for nodes (B, N, K)."""
        log_det, order = y.new_zeros(len(y)), range(len(self.node_nets))
        y = y.masked_fill(~mask[..., None], 0.0)
        for step in order if inverse else reversed(order):
            own = torch.arange(self.max_nodes, device=y.device) == step % self.max_nodes
            turn = own.to(y.dtype).expand(mask.shape)[..., None]
            params = self.node_nets[step](torch.cat([y.masked_fill(own[:, None], 0.0), turn], -1), edges, mask)
            new, log_slope = (Affine().inverse if inverse else Affine().forward)(y, params.unflatten(-1, (-1, 2)))
            used = (own & mask)[..., None]
            y = torch.where(used, new, y)
            log_det = log_det + torch.where(used, log_slope, 0.0).sum((1, 2))
        return y, log_det

    def _latents(self, graphs: Graphs) -> tuple[Tensor, Tensor, Tensor]:
        """Latents (B, D), which of them there are, and the log-det (B,)."""
        i, j = self.pairs
        there = graphs.pairs[:, i, j]
        a, edge_det = self._edge_flow(self._noisy(graphs.edges[:, i, j], self.edge_types + 1), there, True)
        x, node_det = self._node_flow(self._noisy(graphs.nodes, self.node_types), graphs.edges, graphs.mask, True)
        used = [m[..., None].expand(z.shape).flatten(1) for m, z in ((there, a), (graphs.mask, x))]
        return torch.cat([a.flatten(1), x.flatten(1)], 1), torch.cat(used, 1), edge_det + node_det

    def log_prob(self, graphs: Graphs) -> Tensor:
        r"""One sample of the bound of $\ln P$ of the graphs in the order of their nodes, in nats: (B,).

        Raises:
            ValueError: A graph of no or more than N nodes, or a type or kind that is not the flow's.
        """
        graphs = self._fit(graphs)
        z, used, log_det = self._latents(graphs)
        terms = -0.5 * (z ** 2 + math.log(2 * math.pi)) + math.log(self.noise)
        return self.size_probs.log()[graphs.sizes - 1] + log_det + torch.where(used, terms, 0.0).sum(1)

    forward = log_prob

    @torch.no_grad()
    def encode(self, graphs: Graphs) -> tuple[Tensor, Tensor]:
        """Latents (B, D), random within what decodes to the graphs and 0 for what a graph has not, and the sizes (B,).
        Errors as for `log_prob`."""
        graphs = self._fit(graphs)
        return self._latents(graphs)[0], graphs.sizes

    @torch.no_grad()
    def decode(self, z: Tensor, sizes: Tensor) -> Graphs:
        """The graphs of latents (B, D) and sizes (B,), padded to N nodes.

        Raises:
            ValueError: Latents or sizes of another shape, or a size that is not in 1..N.
        """
        n, (i, j) = self.max_nodes, self.pairs
        r = self.edge_types + 1
        split = [len(i) * r, n * self.node_types]
        if z.ndim != 2 or z.shape[1] != sum(split) or sizes.shape != z.shape[:1]:
            raise ValueError(f"this flow has latents of shape (B, {sum(split)}) and sizes (B,), "
                             f"got {tuple(z.shape)} and {tuple(sizes.shape)}")
        if not holds((sizes >= 1) & (sizes <= n)):
            raise ValueError(f"this flow is over graphs of 1 to {n} nodes, got sizes {sizes.tolist()}")
        a, x = z.split(split, 1)
        mask = torch.arange(n, device=z.device) < sizes[:, None]
        there = mask[:, i] & mask[:, j]
        a, _ = self._edge_flow(a.unflatten(1, (len(i), r)), there, False)
        edges = torch.zeros(len(z), n, n, dtype=torch.int64, device=z.device)
        edges[:, i, j] = edges[:, j, i] = a.argmax(-1).masked_fill(~there, 0)
        x, _ = self._node_flow(x.unflatten(1, (n, self.node_types)), edges, mask, False)
        return Graphs(x.argmax(-1).masked_fill(~mask, 0), edges, mask)

    @torch.no_grad()
    def sample(self, n: int) -> Graphs:
        """n graphs, padded to N nodes; ValueError for an n that is no number of draws."""
        n, probs = number_of_draws(n), self.size_probs
        sizes = 1 + torch.multinomial(probs, n, replacement=True) if n else probs.new_zeros(0, dtype=torch.int64)
        d = self.pairs.shape[1] * (self.edge_types + 1) + self.max_nodes * self.node_types
        return self.decode(torch.randn(n, d, device=probs.device, dtype=probs.dtype), sizes)
