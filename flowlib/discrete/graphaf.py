"""GraphAF: a graph drawn node by node and edge by edge, as an autoregressive flow."""
from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from ..arguments import holds
from ..bases import Base, StandardNormal, Uniform
from ..describe import call_text, recorded
from ..elementwise.affine import Affine
from ..elementwise.categorical import CategoricalCDF
from ..nets.causal_graph import CausalGraphNet
from ..saving import Recorded
from .graphs import Graphs

__all__ = ["GraphAF"]


class ExactHead:
    """A category as one uniform latent, by the distribution function of its dequantized label. Categories after `last`
    have probability zero."""

    likelihood, params = "exact", 1  # of each category
    margin = 1e-3  # a latent's distance from the ends of its cell, as a share of it, against rounding

    def base(self, size: int) -> Base:
        return Uniform(torch.zeros(size), torch.ones(size))

    def latents(self, categories: int) -> int:
        return 1

    def _inverse(self, k, u, params, last):
        n = params.shape[-1]
        z, log_slope = CategoricalCDF(n).inverse((k + u) / n, params.masked_fill(beyond(last, n), -torch.inf))
        return z, log_slope - torch.as_tensor(n, dtype=z.dtype).log()

    def log_prob(self, k: Tensor, params: Tensor, last: Tensor) -> Tensor:
        u = torch.full_like(params[..., 0], 0.5)  # it is the same in all of the cell
        return self._inverse(k, u, params, last)[1]

    def encode(self, k: Tensor, params: Tensor, last: Tensor) -> Tensor:
        u = self.margin + (1 - 2 * self.margin) * torch.rand_like(params[..., 0])
        return self._inverse(k, u, params, last)[0][..., None]

    def decode(self, z: Tensor, params: Tensor, last: Tensor) -> Tensor:
        n = params.shape[-1]
        _, start = CategoricalCDF(n)._cells(params.masked_fill(beyond(last, n), -torch.inf))
        return torch.minimum((z >= start[..., 1:]).sum(-1), last)


class AffineHead:
    """A category as one normal latent for each of all categories: an affine map of its one-hot vector with noise,
    $y = e_k + 0.9u$. Decoded is the largest of the first `last` + 1."""

    likelihood, params = "bound", 2
    noise = 0.9

    def base(self, size: int) -> Base:
        return StandardNormal(size)

    def latents(self, categories: int) -> int:
        return categories

    def _inverse(self, k, params):
        """z (..., K), and the logarithm of its density times the volume of the noise."""
        params = params.unflatten(-1, (-1, 2))
        one_hot = F.one_hot(k, params.shape[-2]).to(params.dtype)
        z, log_slope = Affine().inverse(one_hot + self.noise * torch.rand_like(one_hot), params)
        return z, log_slope + torch.as_tensor(self.noise, dtype=z.dtype).log()

    def log_prob(self, k: Tensor, params: Tensor, last: Tensor) -> Tensor:
        z, log_slope = self._inverse(k, params)
        log_p = StandardNormal(z.shape[-1]).to(z.device, z.dtype).log_prob(z) + log_slope.sum(-1)
        return log_p.masked_fill(k > last, -torch.inf)

    def encode(self, k: Tensor, params: Tensor, last: Tensor) -> Tensor:
        return self._inverse(k, params)[0]

    def decode(self, z: Tensor, params: Tensor, last: Tensor) -> Tensor:
        y, _ = Affine().forward(z, params.unflatten(-1, (-1, 2)))
        return y.masked_fill(beyond(last, y.shape[-1]), -torch.inf).argmax(-1)


HEADS = {"exact": ExactHead, "affine": AffineHead}


def beyond(last: Tensor, categories: int) -> Tensor:
    """Which categories (..., K) come after the last one that is allowed, (...)."""
    return torch.arange(categories, device=last.device) > last[..., None]


class GraphAF(nn.Module, metaclass=Recorded):
    r"""Graphs of 1..N nodes, drawn node by node (Shi et al. 2020, arXiv:2001.09382): the type of node i, or that there
    is none, and then its edges to the nodes $i - 1, \dots, 0$ before it, the nearest first:

    $$P(G) = P(\text{stop} | G_n) \prod_{i<n} p(x_i | G_i) \prod_{j=i-1}^{0} p(e_{ij} | G_i, x_i, e_{i,j+1}, \dots,
    e_{i,i-1})$$

    where $G_i$ are the first i nodes with their edges; a graph of N nodes needs no stop. It is the probability of the
    graph with its nodes in this order: train and compare on one order for each graph. Every conditional is a step of a
    flow, with one of two heads:

    - "exact": the step's label, dequantized, through the distribution function of its softmax
      ([CategoricalCDF](#flowlib.CategoricalCDF)) to a uniform latent. $P(G)$ is exact. It is an autoregressive model of
      categories, written as a flow.
    - "affine": the paper's. The label's one-hot vector plus uniform noise up to 0.9 through an affine map to normal
      latents; decoded is the largest entry. `log_prob` is one sample of a lower bound of $\ln P(G)$: the density times
      the noise's volume.

    All conditionals come from one pass of a causal network; drawing takes N passes, and N (N - 1) / 2 small steps.

    Args:
        max_nodes: N.
        node_types: K.
        edge_types: R, the kinds of edges 1..R beside 0, none.
        head: "exact" or "affine".
        hidden: Width of the network, a multiple of `heads`.
        layers: Number of transformer blocks.
        heads: Of the attention.
        valence: For each node type the largest sum of its edges' kinds, as for atoms and the orders of their bonds, or
            None. The network then reads how much is free, and samples can be held to it.

    Raises:
        ValueError: Another head, no node, fewer than one type, or a valence that does not fit.

    Attributes:
        likelihood: What `log_prob` is: "exact" or "bound".

    Example:
        >>> import torch, flowlib
        >>> flow = flowlib.GraphAF(5, 2, 1); graphs = flow.sample(3); flow.log_prob(graphs).shape
        torch.Size([3])
        >>> torch.equal(flow.decode(flow.encode(graphs)).edges, graphs.edges)
        True
    """

    def __init__(self, max_nodes: int, node_types: int, edge_types: int, *, head: str = "exact", hidden: int = 64,
                 layers: int = 3, heads: int = 4, valence: Sequence[int] | None = None):
        super().__init__()
        if head not in HEADS:
            raise ValueError(f"a head is one of {', '.join(HEADS)}, got {head!r}")
        if max_nodes < 1 or node_types < 1 or edge_types < 1:
            raise ValueError("GraphAF needs a node, a type of nodes and a kind of edges, "
                             f"got {max_nodes}, {node_types} and {edge_types}")
        if hidden < 1 or heads < 1 or hidden % heads:
            raise ValueError(f"hidden must be a multiple of heads, got {hidden} and {heads}")
        if valence is not None and (len(valence) != node_types or min(valence) < 0):
            raise ValueError(f"valence is a number that is not negative for each of the {node_types} node types, "
                             f"got {valence}")
        self.max_nodes, self.node_types, self.edge_types = max_nodes, node_types, edge_types
        self.head = HEADS[head]()
        self.node_latents, self.edge_latents = (self.head.latents(n + 1) for n in (node_types, edge_types))
        self.net = CausalGraphNet(max_nodes, node_types, edge_types, self.head.params * (node_types + 1),
                                  self.head.params * (edge_types + 1), hidden=hidden, layers=layers, heads=heads,
                                  valence=valence)
        self.base = self.head.base(max_nodes * self.node_latents + max_nodes * (max_nodes - 1) // 2 * self.edge_latents)

    def __repr__(self) -> str:
        return call_text(type(self).__name__, *recorded(self))

    @property
    def likelihood(self) -> str:
        return self.head.likelihood

    def _steps(self, graphs: Graphs) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """Of the nodes' steps (B, N) and the edges' (B, N (N - 1) / 2): the category that was drawn, the parameters,
        the last category that was possible, and whether there is such a step in the graph."""
        n = self.max_nodes
        graphs = graphs if graphs.nodes.shape[1] == n else graphs.pad(n)
        nodes, edges, mask = graphs.nodes, graphs.edges, graphs.mask
        if not holds(nodes < self.node_types) or not holds(edges <= self.edge_types):
            raise ValueError(f"this flow is over graphs of {self.node_types} node types and {self.edge_types} kinds of "
                             f"edges, got types up to {int(nodes.max())} and kinds up to {int(edges.max())}")
        h = self.net.tokens(nodes, edges)
        i, j = torch.tril_indices(n, n, -1, device=nodes.device)
        last = torch.full((n,), self.node_types, device=nodes.device)
        last[0] -= 1  # a graph has a node
        return [(torch.where(mask, nodes, self.node_types), self.net.node(h[:, :n]), last.expand(mask.shape),
                 F.pad(mask[:, :-1], (1, 0), value=True)),
                (edges[:, i, j], self.net.edge_parameters(h, nodes, edges),
                 torch.full_like(edges[:, i, j], self.edge_types), mask[:, i])]

    def log_prob(self, graphs: Graphs) -> Tensor:
        r"""$\ln P$ of the graphs in the order of their nodes, or one sample of its bound, in nats: (B,).

        Raises:
            ValueError: A graph of more than N nodes, or a type or kind that is not the flow's.
        """
        terms = [self.head.log_prob(k, params, last).masked_fill(~there, 0.0).sum(-1)
                 for k, params, last, there in self._steps(graphs)]
        return terms[0] + terms[1]

    forward = log_prob

    @torch.no_grad()
    def encode(self, graphs: Graphs) -> Tensor:
        """Latents (B, D), random within what decodes to the graphs; those of steps that a graph does not have are drawn
        from the base. Errors as for `log_prob`."""
        used = []
        for k, params, last, there in self._steps(graphs):
            z = self.head.encode(k, params, last)
            used.append((z.flatten(1), there[..., None].expand(z.shape).flatten(1)))
        z, there = (torch.cat(parts, 1) for parts in zip(*used))
        return torch.where(there, z, self.base.sample(len(z)))

    @torch.no_grad()
    def decode(self, z: Tensor, *, check: bool = False) -> Graphs:
        """The graphs of latents (B, D), padded to N nodes.

        Args:
            z: Latents.
            check: Whether no edge may exceed what is free of the valence of its ends: each is decoded among the kinds
                that fit. This is another distribution than `log_prob`'s.

        Raises:
            ValueError: Latents of another shape, or a check by a flow without `valence`.
        """
        size, = self.base.event_shape
        if z.ndim != 2 or z.shape[1] != size:
            raise ValueError(f"this flow has latents of shape (B, {size}), got {tuple(z.shape)}")
        valence, net = self.net.valence, self.net
        if check and valence is None:
            raise ValueError("a check needs the valence of each node type: GraphAF(..., valence=...)")
        n, device = self.max_nodes, z.device
        z_nodes, z_edges = z.split([n * self.node_latents, size - n * self.node_latents], 1)
        z_nodes = z_nodes.unflatten(1, (n, self.node_latents))
        z_edges = z_edges.unflatten(1, (n * (n - 1) // 2, self.edge_latents))
        nodes = torch.zeros(len(z), n, dtype=torch.int64, device=device)
        edges, mask = nodes.new_zeros(len(z), n, n), torch.zeros_like(nodes, dtype=torch.bool)
        grows = torch.arange(len(z), device=device)  # the graphs that have not stopped
        for i in range(n):
            h = net.tokens(nodes[grows, :i], edges[grows, :i, :i])
            last = torch.full_like(grows, self.node_types - (i == 0))
            kind = self.head.decode(z_nodes[grows, i], net.node(h[:, i]), last)
            goes_on = kind < self.node_types
            grows, h, kind = grows[goes_on], h[goes_on], kind[goes_on]
            if not len(grows):
                break
            nodes[grows, i], mask[grows, i] = kind, True
            own, drawn = net.own(h[:, i], kind), torch.zeros_like(h[:, i])
            free = None if valence is None else valence[nodes[grows]] - edges[grows].sum(-1)
            for j in reversed(range(i)):
                distance = torch.full_like(kind, i - j)
                pair = None if free is None else (free[:, i], free[:, j])
                params = net.step(own, net.other(h[:, j + 1]), distance, drawn, pair)
                last = torch.full_like(kind, self.edge_types)
                if check and free is not None:
                    last = torch.minimum(last, torch.minimum(free[:, i], free[:, j]).clamp(min=0))
                edge = self.head.decode(z_edges[grows, i * (i - 1) // 2 + j], params, last)
                edges[grows, i, j] = edges[grows, j, i] = edge
                drawn = drawn + (net.joined(edge) @ net.gate) * net.message(h[:, j + 1])
                if free is not None:
                    free[:, i] -= edge
                    free[:, j] -= edge
        return Graphs(nodes, edges, mask)

    def sample(self, n: int, *, temperature: float = 1.0, check: bool = False,
               generator: Generator | None = None) -> Graphs:
        """n graphs, padded to N nodes.

        Args:
            n: How many.
            temperature: Factor of the latents' deviation, for the affine head alone: the uniform latents of the exact
                one have no centre.
            check: As for `decode`.
            generator: Where the random numbers come from, on the base's device; torch's own where None.

        Raises:
            ValueError: A number that is no integer or is negative, a temperature that does not fit, or a check by a
                flow without `valence`.
        """
        return self.decode(self.base.sample(n, temperature, generator=generator), check=check)
