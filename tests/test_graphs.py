"""Graphs in padded batches: what they refuse, and what leaves a graph the same graph."""
import pytest
import torch

from flowlib import Graphs


def path(sizes=(3, 1, 4), room=5):
    """Paths of these sizes, with types of nodes and edges that tell them apart."""
    nodes = torch.zeros(len(sizes), room, dtype=torch.int64)
    edges = torch.zeros(len(sizes), room, room, dtype=torch.int64)
    mask = torch.arange(room) < torch.tensor(sizes)[:, None]
    for b, size in enumerate(sizes):
        nodes[b, :size] = torch.arange(size)
        for i in range(size - 1):
            edges[b, i, i + 1] = edges[b, i + 1, i] = 1 + i % 2
    return Graphs(nodes, edges, mask)


def same(a, b):
    return all(torch.equal(getattr(a, name), getattr(b, name)) for name in ("nodes", "edges", "mask"))


def test_sizes_and_pairs():
    graphs = path()
    assert graphs.sizes.tolist() == [3, 1, 4] and graphs.pairs.sum((1, 2)).tolist() == [6, 0, 12]
    assert repr(graphs) == "Graphs(3 graphs of at most 5 nodes)"


def test_indexing_and_cat_are_each_others_inverse():
    graphs = path()
    assert same(Graphs.cat([graphs[0], graphs[1:]]), graphs) and same(graphs[-1], graphs[2])
    assert same(Graphs.cat([graphs[:2].pad(3), graphs[2:]]), graphs)


def test_padding_back_and_forth():
    graphs = path()
    assert same(graphs.pad(9).pad(5), graphs)
    with pytest.raises(ValueError, match="4 nodes, which is more than 3"):
        graphs.pad(3)


def test_an_order_and_its_inverse():
    graphs = path()
    order = torch.tensor([[2, 0, 1, 3, 4], [0, 1, 2, 3, 4], [3, 1, 0, 2, 4]])
    moved = graphs.permute(order)
    assert moved.nodes[0].tolist() == [2, 0, 1, 0, 0] and moved.edges[0, 0, 2] == graphs.edges[0, 2, 1] == 2
    assert same(moved.permute(order.argsort(-1)), graphs)


def test_shuffling_keeps_each_graph():
    graphs = path((6,) * 50, 8)
    shuffled = graphs.shuffle(torch.Generator().manual_seed(0))
    assert not same(shuffled, graphs)
    assert torch.equal(shuffled.mask, graphs.mask)
    assert same(shuffled.permute(torch.where(shuffled.mask, shuffled.nodes, 9).argsort(-1)), graphs)


@pytest.mark.parametrize("change, message", [
    (lambda n, e, m: (n.int(), e, m), "int64 nodes"),
    (lambda n, e, m: (n, e[:, :4], m), r"got \(3, 5\), \(3, 4, 5\), \(3, 5\)"),
    (lambda n, e, m: (n, e.triu(), m), "symmetric"),
    (lambda n, e, m: (n, e + torch.eye(5, dtype=torch.int64), m), "two different nodes"),
    (lambda n, e, m: (n.flip(1), e.flip(1, 2), m.flip(1)), "padding stands last"),
    (lambda n, e, m: (n + 1, e, m), "padding is 0"),
    (lambda n, e, m: (n - 1, e, m), "not negative"),
    (lambda n, e, m: (n, (e > 0) | ~torch.eye(5, dtype=torch.bool), m), "int64"),
    (lambda n, e, m: (n, e + 1 - torch.eye(5, dtype=torch.int64), m), "padding is 0"),
])
def test_what_is_no_graph(change, message):
    graphs = path()
    with pytest.raises(ValueError, match=message):
        Graphs(*change(graphs.nodes, graphs.edges, graphs.mask))
