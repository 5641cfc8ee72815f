"""GraphAF, held to sums over all small graphs and to its own step by step evaluation."""
import itertools

import pytest
import torch

import flowlib as fl
from flowlib import Graphs

NODES, TYPES, KINDS = 3, 2, 2
VALENCE = (2, 3)


def all_graphs():
    """The 2 + 12 + 216 graphs of one to three nodes, of two types, with two kinds of edges."""
    found = []
    for n in range(1, NODES + 1):
        i, j = torch.tril_indices(n, n, -1)
        for types in itertools.product(range(TYPES), repeat=n):
            for kinds in itertools.product(range(KINDS + 1), repeat=len(i)):
                edges = torch.zeros(1, n, n, dtype=torch.int64)
                edges[0, i, j] = edges[0, j, i] = torch.tensor(kinds, dtype=torch.int64)
                found.append(Graphs(torch.tensor([types]), edges))
    return Graphs.cat(found)


GRAPHS = all_graphs()


def scattered(head="exact", valence=VALENCE, nodes=NODES, dtype=torch.float64, scale=0.3):
    """A flow whose network does something with all that it reads."""
    torch.manual_seed(0)
    flow = fl.GraphAF(nodes, TYPES, KINDS, head=head, hidden=8, layers=2, heads=2, valence=valence).to(dtype)
    for p in flow.parameters():
        p.data += scale * torch.randn_like(p)
    return flow.requires_grad_(False)


def same(a, b):
    return all(torch.equal(getattr(a, name), getattr(b, name)) for name in ("nodes", "edges", "mask"))


each_head = pytest.mark.parametrize("head", ["exact", "affine"])


@pytest.mark.parametrize("valence", [None, VALENCE])
def test_the_probabilities_of_all_graphs_add_up_to_one(valence):
    log_p = scattered(valence=valence).log_prob(GRAPHS)
    assert log_p.exp().sum().item() == pytest.approx(1, abs=1e-9) and log_p.std() > 0.5


def test_samples_are_of_the_law_that_log_prob_gives():
    flow = scattered()
    torch.manual_seed(1)
    drawn = flow.sample(4000)
    code = lambda g: torch.cat([g.nodes, g.edges.flatten(1), g.mask.long()], 1)  # noqa: E731
    share = (code(drawn)[:, None] == code(GRAPHS)).all(-1).double().mean(0)
    exact = flow.log_prob(GRAPHS).exp()
    assert share.sum() == 1 and ((share - exact).abs() < 6 * (exact * (1 - exact) / 4000).sqrt() + 1e-3).all()


@each_head
@pytest.mark.parametrize("valence", [None, VALENCE])
def test_step_by_step_and_all_at_once_are_equal(head, valence, monkeypatch):
    """The parameters that sampling meets, one graph at a time, are those that log_prob has from one pass."""
    flow, met = scattered(head, valence, nodes=5, scale=0.2), []
    decode = type(flow.head).decode
    monkeypatch.setattr(type(flow.head), "decode", lambda self, z, params, last: met.append(
        (decode(self, z, params, last), params)) or met[-1][0])
    torch.manual_seed(2)
    lengths = set()
    for _ in range(12):
        met.clear()
        graphs = flow.sample(1)
        order = iter(met)
        (types, node_params, *_), (kinds, edge_params, *_) = flow._steps(graphs)
        size = int(graphs.sizes)
        lengths.add(size)
        for i in range(min(size + 1, 5)):
            label, params = next(order)
            assert label == types[0, i] and (params - node_params[0, i]).abs().max() < 1e-9
            for j in reversed(range(i if i < size else 0)):
                label, params = next(order)
                place = i * (i - 1) // 2 + j
                assert label == kinds[0, place] and (params - edge_params[0, place]).abs().max() < 1e-9
        assert next(order, None) is None
    assert len(lengths) > 2


@each_head
def test_what_is_encoded_comes_back(head):
    for dtype in (torch.float32, torch.float64):
        flow = scattered(head, dtype=dtype)
        z = flow.encode(GRAPHS)
        assert z.shape == (230, *flow.base.event_shape) and z.dtype == dtype and z.isfinite().all()
        assert same(flow.decode(z), GRAPHS)


def test_latents_of_samples_are_uniform():
    flow = scattered()
    torch.manual_seed(3)
    z = flow.encode(flow.sample(4000))
    assert (z.mean(0) - 0.5).abs().max() < 0.03 and (z.std(0) - 12 ** -0.5).abs().max() < 0.02


def test_the_affine_bound_of_one_node_by_hand():
    """At the start every y is standard normal; the mean of exp(log_prob) is the mass of the noise's cell."""
    flow = fl.GraphAF(1, 2, 1, head="affine").double().requires_grad_(False)
    assert flow.likelihood == "bound" and fl.GraphAF(1, 2, 1).likelihood == "exact"
    graphs = Graphs(torch.ones(5000, 1, dtype=torch.int64), torch.zeros(5000, 1, 1, dtype=torch.int64))
    torch.manual_seed(0)
    ratio = flow.log_prob(graphs).exp()
    cdf = lambda x: torch.special.ndtr(torch.tensor(x, dtype=torch.float64))  # noqa: E731
    mass = (cdf(0.9) - cdf(0.0)) ** 2 * (cdf(1.9) - cdf(1.0))
    assert abs(ratio.mean() - mass) < 5 * ratio.std() / 5000 ** 0.5 < 0.05 * mass
    assert flow.sample(4000).nodes.double().mean().item() == pytest.approx(0.5, abs=0.05)


def test_the_affine_bound_is_below_the_share_of_samples():
    flow = scattered("affine")
    torch.manual_seed(4)
    drawn = flow.sample(20_000)
    single = (drawn.sizes == 1) & (drawn.nodes[:, 0] == 0)
    bound = flow.log_prob(GRAPHS[:1].pad(3)[torch.zeros(500, dtype=torch.int64)])
    assert GRAPHS.sizes[0] == 1 and bound.exp().mean() < single.double().mean()


@each_head
def test_room_changes_nothing(head):
    flow = scattered(head, nodes=6)
    torch.manual_seed(0)
    narrow = flow.log_prob(GRAPHS)
    torch.manual_seed(0)
    assert (flow.log_prob(GRAPHS.pad(6)) - narrow).abs().max() < 1e-12


@each_head
def test_a_check_holds_every_node_to_its_valence(head):
    flow = scattered(head, nodes=6)
    checked, free = (torch.tensor(VALENCE)[g.nodes] - g.edges.sum(-1)
                     for g in (flow.sample(300, check=True), flow.sample(300)))
    assert checked.min() >= 0 > free.min()


def test_a_generator_draws_again():
    flow = scattered("affine", dtype=torch.float32)
    draws = [flow.sample(20, generator=torch.Generator().manual_seed(5), temperature=0.8) for _ in range(2)]
    assert same(*draws) and flow.sample(0).nodes.shape == (0, 3)


@each_head
def test_a_graph_has_a_node(head):
    flow = scattered(head)
    none = Graphs(torch.zeros(1, 3, dtype=torch.int64), torch.zeros(1, 3, 3, dtype=torch.int64),
                  torch.zeros(1, 3, dtype=torch.bool))
    assert flow.log_prob(none).item() == -torch.inf and flow.sample(500).sizes.min() == 1


@each_head
@pytest.mark.parametrize("valence", [None, VALENCE])
def test_every_parameter_gets_a_gradient(head, valence):
    flow = scattered(head, valence).requires_grad_(True)
    flow.log_prob(GRAPHS).sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in flow.parameters())


@each_head
def test_saved_and_loaded_it_is_the_same(head, tmp_path):
    flow = scattered(head, dtype=torch.float32)
    fl.save(flow, tmp_path)
    again = fl.load(tmp_path).requires_grad_(False)
    densities = []
    for each in (flow, again):
        torch.manual_seed(3)
        densities.append(each.log_prob(GRAPHS))
    assert torch.equal(*densities) and again.likelihood == flow.likelihood


@each_head
def test_shapes_without_values(head):
    flow = scattered(head, dtype=torch.float32).to("meta")
    assert flow.log_prob(GRAPHS.to("meta")).shape == (230,)


@pytest.mark.parametrize("make, said", [
    (lambda: fl.GraphAF(3, 2, 1, head="softmax"), "a head is one of exact, affine"),
    (lambda: fl.GraphAF(0, 2, 1), "needs a node"),
    (lambda: fl.GraphAF(3, 2, 1, hidden=10), "multiple of heads"),
    (lambda: fl.GraphAF(3, 2, 1, valence=(4,)), "for each of the 2 node types"),
    (lambda: fl.GraphAF(2, 2, 2).log_prob(GRAPHS), "3 nodes, which is more than 2"),
    (lambda: fl.GraphAF(3, 1, 2).log_prob(GRAPHS), "graphs of 1 node types"),
    (lambda: fl.GraphAF(3, 2, 1).log_prob(GRAPHS), "2 node types and 1 kinds"),
    (lambda: fl.GraphAF(3, 2, 2).sample(2, check=True), "needs the valence"),
    (lambda: fl.GraphAF(3, 2, 2).sample(2, temperature=0.5), "temperature must be 1"),
    (lambda: fl.GraphAF(3, 2, 2).decode(torch.zeros(2, 5)), r"latents of shape \(B, 6\)"),
], ids=range(10))
def test_what_does_not_fit_is_said(make, said):
    with pytest.raises(ValueError, match=said):
        make()
