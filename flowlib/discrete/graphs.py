"""Graphs of different sizes in one batch: types of nodes, types of edges, a mask that says which nodes there are."""
from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..arguments import holds

__all__ = ["Graphs"]


@dataclass(frozen=True, eq=False)
class Graphs:
    r"""B undirected graphs, each padded to N nodes.

    The nodes of a graph come first, padding stands last. What is padding is 0 in every tensor, so that two batches of
    the same graphs are equal numbers.

    Args:
        nodes: Types of the nodes, int64 (B, N), 0..K-1.
        edges: Types of the edges, int64 (B, N, N), symmetric: 0 is no edge, 1..R are the kinds; 0 on the diagonal.
        mask: Which nodes there are, bool (B, N).

    Raises:
        ValueError: Shapes or dtypes that do not fit, an edge that is not symmetric, an edge from a node to itself, or
            something that is not 0 in the padding or that stands before it.

    Example:
        >>> path = Graphs(torch.tensor([[2, 0, 1]]), torch.tensor([[[0, 1, 0], [1, 0, 1], [0, 1, 0]]]))
        >>> len(path), path.sizes, path.pad(5).nodes
        (1, tensor([3]), tensor([[2, 0, 1, 0, 0]]))
    """

    nodes: Tensor
    edges: Tensor
    mask: Tensor = None  # type: ignore[assignment]  # all nodes, where none is given

    def __post_init__(self):
        if self.mask is None:
            object.__setattr__(self, "mask", torch.ones_like(self.nodes, dtype=torch.bool))
        nodes, edges, mask = self.nodes, self.edges, self.mask
        if nodes.dtype != torch.int64 or edges.dtype != torch.int64 or mask.dtype != torch.bool:
            raise ValueError("Graphs are int64 nodes, int64 edges and a bool mask, "
                             f"got {nodes.dtype}, {edges.dtype}, {mask.dtype}")
        if nodes.ndim != 2 or edges.shape != (*nodes.shape, nodes.shape[1]) or mask.shape != nodes.shape:
            raise ValueError("Graphs are nodes (B, N), edges (B, N, N) and a mask (B, N), "
                             f"got {tuple(nodes.shape)}, {tuple(edges.shape)}, {tuple(mask.shape)}")
        if not holds(edges == edges.mT):
            raise ValueError("edges of an undirected graph are symmetric: edges[b, i, j] == edges[b, j, i]")
        if not holds(edges.diagonal(dim1=1, dim2=2) == 0):
            raise ValueError("an edge joins two different nodes: the diagonal of edges is 0")
        if not holds(mask[:, 1:] <= mask[:, :-1]):
            raise ValueError("the nodes of a graph come first, padding stands last: mask never goes from False to True")
        if not holds((nodes >= 0) & (mask | (nodes == 0))) or not holds((edges >= 0) & (self.pairs | (edges == 0))):
            raise ValueError("types are not negative, and padding is 0 in nodes and edges")

    def __len__(self) -> int:
        return len(self.nodes)

    def __getitem__(self, index: int | slice | Tensor) -> Graphs:
        """Some of the graphs, padded as they were; one integer gives a batch of one."""
        if isinstance(index, int):
            index = slice(index, index + 1) if index != -1 else slice(index, None)
        return Graphs(self.nodes[index], self.edges[index], self.mask[index])

    def __repr__(self) -> str:
        return f"Graphs({len(self)} graphs of at most {self.nodes.shape[1]} nodes)"

    @property
    def sizes(self) -> Tensor:
        """The number of nodes of each graph, int64 (B,)."""
        return self.mask.sum(-1)

    @property
    def pairs(self) -> Tensor:
        """Which pairs of nodes there are, bool (B, N, N): both are nodes and they differ."""
        pairs = self.mask[:, :, None] & self.mask[:, None, :]
        return pairs & ~torch.eye(self.mask.shape[1], dtype=torch.bool, device=pairs.device)

    def to(self, device: torch.device | str) -> Graphs:
        """The same graphs on another device."""
        return Graphs(self.nodes.to(device), self.edges.to(device), self.mask.to(device))

    def pad(self, nodes: int) -> Graphs:
        """The same graphs in room for another number of nodes; ValueError where a graph has more."""
        if len(self) and int(self.sizes.max()) > nodes:
            raise ValueError(f"a graph has {int(self.sizes.max())} nodes, which is more than {nodes}")
        more = nodes - self.nodes.shape[1]
        return Graphs(F.pad(self.nodes, (0, more)), F.pad(self.edges, (0, more, 0, more)), F.pad(self.mask, (0, more)))

    def permute(self, order: Tensor) -> Graphs:
        """Node i of the result is node order[b, i], int64 (B, N); padding has to stay last."""
        edges = self.edges.gather(1, order[:, :, None].expand_as(self.edges))
        return Graphs(self.nodes.gather(1, order), edges.gather(2, order[:, None, :].expand_as(edges)),
                      self.mask.gather(1, order))

    def shuffle(self, generator: torch.Generator | None = None) -> Graphs:
        """The same graphs with the nodes of each in random order."""
        key = torch.rand(self.mask.shape, generator=generator).to(self.mask.device)
        return self.permute(torch.where(self.mask, key, 2.0).argsort(-1))

    @staticmethod
    def cat(batches: Iterable[Graphs]) -> Graphs:
        """Several batches as one, padded to the largest."""
        batches = list(batches)
        size = max(batch.nodes.shape[1] for batch in batches)
        padded = [batch.pad(size) for batch in batches]
        return Graphs(*(torch.cat([getattr(batch, name) for batch in padded]) for name in ("nodes", "edges", "mask")))
