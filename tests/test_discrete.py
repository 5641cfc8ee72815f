"""Flows over categories, held to sums over all of them."""
import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from registry import randomise

import flowlib as fl
from flowlib.nets.sets import SetNet

ENCODINGS = ("mixture", "linear", "variational")
PAIRS = torch.tensor(list(itertools.product(range(3), repeat=2)))


def scattered(length, categories, dtype=torch.float64, **options):
    """A flow whose networks all do something."""
    torch.manual_seed(0)
    flow = fl.CategoricalFlow(length, categories, hidden=8, components=2, **options).to(dtype)
    for module in flow.modules():
        if isinstance(module, (SetNet, fl.nets.mlp.MLP)):
            randomise(module, 0.5)
    layer = flow.bijection[-1]
    if isinstance(layer, fl.FactorisedEncoding):
        layer.log_prior.data = torch.arange(categories, dtype=dtype) / 2
    place = layer.place if isinstance(layer, fl.VariationalEncoding) else layer.clouds[-1]
    place.params.data[:, 0], place.shift.weight.data = 0.5, place.shift.weight.data / 2  # wide clouds, which overlap
    return flow.requires_grad_(False)


@pytest.fixture(scope="module", params=ENCODINGS)
def of_one_element(request):
    """One element of three categories in two dimensions, and P of each category by quadrature."""
    flow = scattered(1, 3, encoding=request.param, layers=2)
    axis = torch.linspace(-30, 30, 401, dtype=torch.float64)
    z = torch.cartesian_prod(axis, axis)[:, None, :]
    latent, log_det = flow.bijection[:-1].inverse(z)
    density = (flow.base.log_prob(latent) + log_det).exp()
    decoder = flow.bijection[-1].log_decoder(z).exp().squeeze(-2)  # (points, 3)
    return flow, (density @ decoder) * (axis[1] - axis[0]) ** 2


def test_the_probabilities_of_all_categories_add_up_to_one(of_one_element):
    _, exact = of_one_element
    assert exact.sum().item() == pytest.approx(1, abs=1e-3) and exact.min() > 1e-2


def test_the_mean_ratio_is_the_probability_and_the_mean_logarithm_is_below(of_one_element):
    flow, exact = of_one_element
    torch.manual_seed(1)
    log_ratio = flow.log_prob(torch.arange(3)[:, None].expand(20_000, 3, 1))  # (draws, 3)
    error = log_ratio.exp().std(0) / len(log_ratio) ** 0.5
    assert ((log_ratio.exp().mean(0) - exact).abs() < 5 * error).all() and (error < 0.1 * exact).all()
    assert (log_ratio.mean(0) < exact.log() - 1e-3).all()


def test_samples_are_of_the_law_that_is_bounded(of_one_element):
    flow, exact = of_one_element
    torch.manual_seed(2)
    share = F.one_hot(flow.sample(4000).squeeze(-1), 3).double().mean(0)
    assert ((share - exact).abs() < 5 * (exact * (1 - exact) / 4000).sqrt()).all()


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_both_directions_of_an_encoding_agree(encoding):
    """The ratio that a draw comes with is decoder over density, recomputed at its point."""
    layer = scattered(3, 4, encoding=encoding, layers=1).bijection[-1]
    x = torch.tensor([[0, 3, 1], [2, 2, 2]])
    z, log_ratio = layer.inverse(x)
    one_hot = layer.one_hot(x)
    log_p = layer.log_decoder(z)
    assert log_p.exp().sum(-1).sub(1).abs().max() < 1e-12
    again = (log_p * one_hot).sum((-2, -1)) - layer.log_q(z, one_hot)
    assert (again - log_ratio).abs().max() < 1e-9
    drawn, back = layer(z)
    one_hot = layer.one_hot(drawn)
    assert (back + (log_p * one_hot).sum((-2, -1)) - layer.log_q(z, one_hot)).abs().max() < 1e-9


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_the_density_of_a_cloud_is_one(encoding):
    layer = scattered(1, 3, encoding=encoding, layers=1).bijection[-1]
    axis = torch.linspace(-24, 24, 61, dtype=torch.float64)
    z = torch.cartesian_prod(axis, axis)[:, None, :]
    for c in range(3):
        mass = layer.log_q(z, layer.one_hot(torch.full((1, 1), c))).exp().sum() * (axis[1] - axis[0]) ** 2
        assert mass.item() == pytest.approx(1, abs=1e-3)


def test_bayes_rule_by_hand():
    layer = fl.FactorisedEncoding(1, 2, 1).double()
    with torch.no_grad():
        layer.clouds[-1].params.zero_()
        layer.clouds[-1].shift.weight.copy_(torch.tensor([[0.0, 0.0], [-1.0, 2.0]]))  # ln s = 0, places -1 and 2
        layer.log_prior.copy_(torch.tensor([1.0, 3.0], dtype=torch.float64).log())  # 1/4 and 3/4
    density = [torch.sigmoid(t) * torch.sigmoid(-t) for t in torch.tensor([1.5 + 1, 1.5 - 2], dtype=torch.float64)]
    joint = torch.stack([0.25 * density[0], 0.75 * density[1]])
    found = layer.log_decoder(torch.full((1, 1), 1.5, dtype=torch.float64)).exp()
    assert (found - joint / joint.sum()).abs().max() < 1e-12


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_order_of_a_set_has_one_probability(encoding):
    flow = scattered(3, 3, encoding=encoding, layers=2)
    layer, order = flow.bijection[-1], torch.tensor([2, 0, 1])
    z = torch.randn(5, 3, 2, dtype=torch.float64)
    latents, log_dets = zip(*(flow.bijection[:-1].inverse(points) for points in (z, z[:, order])))
    assert (latents[0][:, order] - latents[1]).abs().max() < 1e-9 and (log_dets[0] - log_dets[1]).abs().max() < 1e-9
    x = torch.tensor([0, 2, 1]).expand(5, 3)
    q, reordered = (layer.log_q(points, layer.one_hot(labels)) for points, labels in
                    ((z, x), (z[:, order], x[:, order])))
    assert (q - reordered).abs().max() < 1e-9


def test_places_that_are_masked_change_nothing():
    torch.manual_seed(0)
    net = SetNet(2, 3, hidden=8, context_dim=1)
    randomise(net)
    x, context = torch.randn(3, 5, 2), torch.randn(3, 1, 1)
    mask = torch.arange(5) < torch.tensor([[5], [3], [1]])
    padded = net(x, context, mask)
    for row, size in enumerate((5, 3, 1)):
        assert (padded[row, :size] - net(x[row, :size], context[row])).abs().max() < 1e-6
    other = x.where(mask[..., None], 1e3)
    assert (net(other, context, mask) - padded)[mask].abs().max() < 1e-6


def test_what_is_no_category_has_no_probability():
    flow = fl.CategoricalFlow(2, 3, layers=1)
    assert flow.log_prob(torch.tensor([[0, 3], [-1, 0], [0, 1]])).isfinite().tolist() == [False, False, True]


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_saved_and_loaded_it_is_the_same(encoding, tmp_path):
    flow = scattered(3, 4, torch.float32, encoding=encoding, layers=2)
    fl.save(flow, tmp_path)
    loaded = fl.load(tmp_path)
    x = torch.tensor([[0, 1, 3], [2, 2, 2]])
    densities = []
    for each in (flow, loaded):
        torch.manual_seed(3)
        densities.append(each.log_prob(x))
    assert torch.equal(*densities)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_parameter_gets_a_gradient(encoding):
    flow = scattered(3, 4, encoding=encoding, layers=2).requires_grad_(True)
    flow.log_prob(torch.tensor([[0, 1, 3], [2, 2, 2]])).sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in flow.parameters())


def test_a_context_reaches_the_couplings():
    flow = scattered(3, 4, layers=2, context_dim=2)
    x, context = torch.tensor([[0, 1, 3]]), torch.tensor([[[0.0, 1.0]], [[3.0, -1.0]]], dtype=torch.float64)
    assert flow.log_prob(x, context).shape == (2, 1) and flow.sample(5, context[:, 0]).shape == (5, 2, 3)
    z = torch.randn(3, 2, dtype=torch.float64)
    x, _ = flow.bijection[0](z, context[:, 0])
    assert x.shape == (2, 3, 2) and (x[0] - x[1]).abs().max() > 1e-3


@pytest.mark.parametrize("make, said", [
    (lambda: fl.CategoricalFlow(3, 4, encoding="binary"), "an encoding is one of mixture, linear, variational"),
    (lambda: fl.CategoricalFlow(3, 1), "two categories"),
    (lambda: fl.CategoricalFlow(3, 4, dim=1), "two numbers of each"),
    (lambda: fl.SetCoupling((3, 2), fl.Affine(), context_dim=1, context_shape=(3, 1)), "not both"),
    (lambda: fl.SetCoupling((3, 2), fl.Affine(), context_shape=(2, 1)), r"shape \(C,\) or \(3, C\)"),
    (lambda: SetNet(2, 1, rounds=0), "at least one round"),
    (lambda: fl.CategoricalCDF(0), "needs a category"),
    (lambda: fl.CategoricalMAF(3, 1), "at least two categories"),
    (lambda: fl.CategoricalFlow(3, 4).log_prob(torch.zeros(3)), "categories are integers"),
], ids=range(9))
def test_what_does_not_fit_is_said(make, said):
    with pytest.raises(ValueError, match=said):
        make()


def autoregression():
    torch.manual_seed(0)
    flow = fl.CategoricalMAF(2, 3, hidden=(8,), order="reversed").double()
    randomise(flow.bijection[0])
    return flow.requires_grad_(False)


def test_an_autoregression_of_categories_is_exact():
    """Whatever the noise, P is the same; over all pairs it adds up to one; and it is the product of two softmaxes."""
    flow = autoregression()
    log_p = flow.log_prob(PAIRS.expand(5, -1, -1))
    assert (log_p - log_p[0]).abs().max() < 1e-12
    assert log_p[0].exp().sum().item() == pytest.approx(1, abs=1e-9)
    cells = flow.bijection[0]._params((PAIRS + 0.5).double() / 3, None).log_softmax(-1)  # (9, 2, 3)
    assert (cells.gather(-1, PAIRS[..., None]).sum((-2, -1)) - log_p[0]).abs().max() < 1e-9
    first = log_p[0].exp().reshape(3, 3).sum(0)  # of the second place, which comes first
    assert (first - cells[0, 1].exp()).abs().max() < 1e-9 and (cells[0, 0] - cells[1, 0]).abs().max() > 1e-3


def test_an_autoregression_samples_what_it_says():
    flow = autoregression()
    torch.manual_seed(1)
    share = (flow.sample(4000)[:, None].long() == PAIRS).all(-1).double().mean(0)
    exact = flow.log_prob(PAIRS).exp()
    assert ((share - exact).abs() < 5 * (exact * (1 - exact) / 4000).sqrt()).all()
    x = flow.sample(50)
    assert torch.equal(flow.decode(flow.encode(x)), x)


def test_the_distribution_function_of_a_category():
    logits = torch.tensor([0.1, 0.2, 0.7], dtype=torch.float64).log()
    x = torch.tensor([-0.5, 0.0, 1 / 6, 1 / 3, 0.5, 1.0, 1.5], dtype=torch.float64)
    z, log_slope = fl.CategoricalCDF(3).inverse(x, logits.expand(7, 3))
    assert z.tolist() == pytest.approx([-0.5, 0.0, 0.05, 0.1, 0.2, 1.0, 1.5], abs=1e-9)
    assert log_slope[[2, 4]].exp().tolist() == pytest.approx([0.3, 0.6], rel=1e-9)
    assert log_slope[0] == log_slope[-1] == 0 and math.isclose(log_slope[5].exp(), 2.1, rel_tol=1e-9)
