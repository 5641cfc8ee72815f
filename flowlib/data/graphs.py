"""Molecules as graphs, inside the package: `nodes` are types + 1 (0 for padding), `edges` the kinds 0..3 of the pairs
(1, 0), (2, 0), (2, 1), (3, 0), ..., four to a byte. `flowlib.discrete.molecules` says what types and kinds are."""
from __future__ import annotations

import numpy as np
import torch

from ..discrete.graphs import Graphs
from . import small

SETS = ("qm9", "zinc-small")
PLACE = {"test": 0, "val": 10}  # of every 20 rows; the others are for training


def pack(graphs: Graphs) -> dict[str, np.ndarray]:
    """The two arrays of a file."""
    size = graphs.nodes.shape[1]
    i, j = np.tril_indices(size, -1)
    kinds = graphs.edges.numpy().astype(np.uint8)[:, i, j]
    bits = np.stack([kinds >> 1, kinds & 1], -1).reshape(len(kinds), -1)
    return {"nodes": torch.where(graphs.mask, graphs.nodes + 1, 0).numpy().astype(np.uint8),
            "edges": np.packbits(bits, axis=1)}


def unpack(arrays: dict[str, np.ndarray]) -> Graphs:
    """The graphs of a file."""
    nodes = torch.from_numpy(arrays["nodes"].astype(np.int64))
    size = nodes.shape[1]
    i, j = np.tril_indices(size, -1)
    bits = np.unpackbits(arrays["edges"], axis=1, count=2 * len(i)).reshape(len(nodes), -1, 2)
    edges = np.zeros((len(nodes), size, size), np.int64)
    edges[:, i, j] = edges[:, j, i] = 2 * bits[..., 0] + bits[..., 1]
    return Graphs((nodes - 1).clamp(min=0), torch.from_numpy(edges), nodes > 0)


def read(name: str, split: str) -> Graphs:
    arrays = small.arrays(name)
    rows = np.arange(len(arrays["nodes"])) % 20
    chosen = ~np.isin(rows, list(PLACE.values())) if split == "train" else rows == PLACE[split]
    return unpack({key: array[chosen] for key, array in arrays.items()})
