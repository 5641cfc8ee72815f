"""GraphNVP: its log-det by autograd, reconstruction, padding, a total probability of one, files."""
import pytest
import torch

import flowlib
from flowlib import GraphNVP, Graphs
from flowlib.nets.graph import GraphNet


def perturbed(*args, **kwargs):
    torch.manual_seed(0)
    flow = GraphNVP(*args, hidden=16, **kwargs).double()
    with torch.no_grad():
        for p in flow.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return flow


def test_log_det_is_autograds_on_four_nodes():
    flow = perturbed(4, 3, 2)
    graphs = flow.decode(torch.randn(1, 30, dtype=torch.double), torch.tensor([4]))
    y, x = torch.randn(1, 6, 3).double(), torch.randn(1, 4, 3).double()
    there = torch.ones(1, 6, dtype=torch.bool)
    for run, v in ((lambda v: flow._edge_flow(v, there, True), y),
                   (lambda v: flow._node_flow(v, graphs.edges, graphs.mask, True), x)):
        jacobian = torch.autograd.functional.jacobian(lambda y, run=run: run(y)[0], v).reshape(v.numel(), v.numel())
        truth = torch.linalg.slogdet(jacobian)[1]
        assert truth.abs() > 0.01
        torch.testing.assert_close(run(v)[1][0], truth)


def test_graphs_come_back():
    flow = perturbed(6, 3, 2, rounds=2)
    graphs = flow.sample(200)
    back = flow.decode(*flow.encode(graphs))
    assert len(graphs.sizes.unique()) == 6 and graphs.edges.max() == 2
    assert all(torch.equal(getattr(back, name), getattr(graphs, name)) for name in ("nodes", "edges", "mask"))


def test_padding_does_not_change_the_density():
    flow = perturbed(6, 3, 2)
    graphs = flow.sample(20)
    small = graphs[graphs.sizes <= 4]
    small = Graphs(small.nodes[:, :4], small.edges[:, :4, :4], small.mask[:, :4])
    torch.manual_seed(1)
    narrow = flow.log_prob(small)
    torch.manual_seed(1)
    torch.testing.assert_close(narrow, flow.log_prob(small.pad(6)))
    flow.initialize(small)
    assert set((1 + flow.size_probs.nonzero()[:, 0]).tolist()) == set(small.sizes.tolist())


def test_the_density_times_the_volume_is_the_mass_of_the_noises_cube():
    flow = perturbed(2, 1, 1)
    n = 50000
    there, mask = torch.ones(n, 1, dtype=torch.bool), torch.ones(n, 2, dtype=torch.bool)
    edges = torch.zeros(n, 2, 2, dtype=torch.int64)
    with torch.no_grad():
        a, _ = flow._edge_flow(torch.randn(n, 1, 2).double(), there, False)
        x, _ = flow._node_flow(torch.randn(n, 2, 1).double(), edges, mask, False)
        inside = flow.log_prob(Graphs(edges[:, 0], edges)).exp().mean()

    def cube(y, one_hot):
        return ((y >= one_hot) & (y <= one_hot + 0.9)).flatten(1).all(1).double().mean()

    truth = 0.5 * cube(a, torch.tensor([1.0, 0.0])) * cube(x, torch.ones(2, 1))
    torch.testing.assert_close(inside, truth, rtol=0.15, atol=0.0)


def test_network_is_equivariant_and_blind_to_padding():
    torch.manual_seed(0)
    net = GraphNet(3, 5, 2, 8).double()
    torch.nn.init.normal_(net.last.weight)
    graphs = perturbed(5, 3, 2).sample(10)
    order = torch.where(graphs.mask, torch.rand(10, 5), 2.0).argsort(-1)
    x = torch.randn(10, 5, 3).double()
    moved, out = graphs.permute(order), net(x, graphs.edges, graphs.mask)
    again = net(x.gather(1, order[..., None].expand(x.shape)), moved.edges, moved.mask)
    there = moved.mask[..., None]
    torch.testing.assert_close(again * there, out.gather(1, order[..., None].expand(out.shape)) * there)
    other = net(x.masked_fill(~graphs.mask[..., None], 7.0), graphs.edges, graphs.mask)
    torch.testing.assert_close(other[graphs.mask], out[graphs.mask])


def test_saved_and_loaded(tmp_path):
    flow = GraphNVP(3, 2, 1, hidden=8)
    graphs = flow.sample(5)
    flow.initialize(graphs)
    flowlib.save(flow, tmp_path / "flow")
    loaded = flowlib.load(tmp_path / "flow")
    torch.manual_seed(0)
    expected = flow.log_prob(graphs)
    torch.manual_seed(0)
    torch.testing.assert_close(loaded.log_prob(graphs), expected)


def test_refuses():
    flow = GraphNVP(3, 2, 1, hidden=8)
    assert len(flow.sample(0)) == 0
    with pytest.raises(ValueError, match="needs a node"):
        GraphNVP(0, 2, 1)
    with pytest.raises(ValueError, match="2 node types and 1 kinds"):
        flow.log_prob(Graphs(torch.tensor([[2]]), torch.zeros(1, 1, 1, dtype=torch.int64)))
    with pytest.raises(ValueError, match="1 to 3 nodes"):
        flow.decode(torch.zeros(1, 12), torch.tensor([4]))
    with pytest.raises(ValueError, match="at least one graph"):
        flow.initialize(flow.sample(0))


def test_on_the_meta_device():
    flow = GraphNVP(3, 2, 1, hidden=8).to("meta")
    graphs = flow.sample(4)
    assert graphs.nodes.is_meta and flow.log_prob(graphs).shape == (4,)
