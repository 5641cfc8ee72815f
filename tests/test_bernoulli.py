"""MADE of bits: a probability for each order, of which samples are drawn; several orders in one set of weights."""
import itertools
import math
import tempfile

import pytest
import torch

import flowlib as fl
from flowlib import BernoulliMADE, OrderAgnostic
from flowlib.train import fit


def drawn(dim, orders=3, **options):
    torch.manual_seed(dim)
    model = BernoulliMADE(dim, orders=orders, hidden=(7, 9), **options).double()
    with torch.no_grad():
        for p in model.parameters():
            p.normal_()
    return model


def all_bits(dim):
    return torch.tensor([*itertools.product([0.0, 1.0], repeat=dim)], dtype=torch.float64)


@pytest.mark.parametrize("direct", [False, True])
@pytest.mark.parametrize("dim", [1, 2, 5])
def test_probabilities_of_all_bits_sum_to_one_in_each_order_and_in_the_mean(dim, direct):
    model, x = drawn(dim, direct=direct), all_bits(dim)
    each = torch.stack([model.log_prob(x, order).exp() for order in range(3)])
    torch.testing.assert_close(each.sum(1), torch.ones(3, dtype=torch.float64))
    torch.testing.assert_close(model.log_prob(x).exp(), each.mean(0))
    assert dim == 1 or (each[0] - each[1:]).abs().amax(1).max() > 1e-3  # the orders are several models


@pytest.mark.parametrize("direct", [False, True])
def test_a_logit_depends_on_the_bits_before_it_and_on_no_other(direct):
    model = drawn(5, direct=direct)
    for order, rank in enumerate(model.rank):
        jacobian = fl.checks.jacobian(lambda x, k=order: model.logits(x, k), torch.rand(20, 5, dtype=torch.float64))
        found, before = (jacobian != 0).any(0), rank[None, :] < rank[:, None]
        assert not (found & ~before).any() and found.sum() >= 5


@pytest.mark.parametrize("direct", [False, True])
@pytest.mark.parametrize("dim", [1, 3])
def test_samples_have_their_probabilities(dim, direct):
    model, n = drawn(dim, direct=direct), 20_000
    place = 2.0 ** torch.arange(dim - 1, -1, -1, dtype=torch.float64)
    for order in range(3):
        torch.manual_seed(order)
        found = torch.bincount((model.sample(n, order) @ place).long(), minlength=2**dim) / n
        p = model.log_prob(all_bits(dim), order).exp()
        assert bool(((found - p).abs() < 5 * (p / n).sqrt() + 1e-3).all())
    assert model.sample(0).shape == (0, dim)


def test_what_is_no_bit_has_probability_zero_and_no_nan():
    model = drawn(2)
    x = torch.tensor([[0.0, 1.0], [0.5, 1.0], [torch.nan, 0.0], [torch.inf, 0.0]], dtype=torch.float64)
    log_p = model.log_prob(x)
    assert log_p[0].isfinite() and bool((log_p[1:] == -torch.inf).all())
    log_p[0].backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_bad_arguments_are_refused():
    model = drawn(2)
    for call, words in ((lambda: BernoulliMADE(2, orders=0), "at least one order"),
                        (lambda: BernoulliMADE(0), "dim >= 1"),
                        (lambda: model.log_prob(torch.zeros(3, 3, dtype=torch.float64)), r"\(..., 2\), got \(3, 3\)"),
                        (lambda: model.log_prob(torch.zeros(3, 2, dtype=torch.uint8)), "floating-point"),
                        (lambda: model.log_prob(torch.zeros(2, dtype=torch.float64), 3), "orders 0 to 2, got 3"),
                        (lambda: model.sample(1, -1), "orders 0 to 2, got -1"),
                        (lambda: model.sample(-1), "number of draws")):
        with pytest.raises(ValueError, match=words):
            call()


def test_each_step_trains_the_next_order_and_the_mean_is_tested():
    model, x = drawn(3), all_bits(3)
    objective = OrderAgnostic(model).train()
    for step in (0, 1, 5):
        objective.set_step(step, 10)
        torch.testing.assert_close(objective(x), -model.log_prob(x, step % 3))
    torch.testing.assert_close(objective.eval()(x), -model.log_prob(x))


@pytest.mark.parametrize("orders", [1, 2])
def test_it_learns_that_a_bit_is_the_exclusive_or_of_two_others(orders):
    torch.manual_seed(0)
    bits = (torch.rand(512, 2) < 0.5).float()
    x = torch.cat([bits, bits.sum(1, keepdim=True) % 2], 1)
    model = BernoulliMADE(3, hidden=(32,), orders=orders)
    fit(model, x, objective=OrderAgnostic(model), steps=150 * orders, batch_size=128, lr=0.05, ema=0.9, cpu=True)
    assert -model.log_prob(x).mean().item() < 2 * math.log(2) + 0.05  # its entropy; without dependence 3 ln 2


def test_it_is_saved_and_loaded_in_half_precision_too():
    model, x = drawn(5, direct=True), all_bits(5)
    for dtype in (torch.float64, torch.float16):
        with tempfile.TemporaryDirectory() as folder:
            fl.save(model.to(dtype), folder)
            again = fl.load(folder)
        assert torch.equal(model.log_prob(x.to(dtype)), again.log_prob(x.to(dtype)))
        assert torch.equal(model.rank, again.rank)
