"""What is minimised: annealing, the start from draws, and what the objective is told."""
import pytest
import torch
from training import blob, fit, small

from flowlib import ActNorm, Affine, AffineMap, BatchNorm, Compose, Coupling, Flow, ImageCoupling, StandardNormal
from flowlib.train import NLL, ReverseKL

pytestmark = pytest.mark.usefixtures("one_thread")


class Told(NLL):
    """Notes what it is told and asked."""

    def __init__(self, flow):
        super().__init__(flow)
        self.seen = []

    def set_step(self, step, steps):
        self.seen.append((step, steps))

    def forward(self, x, context=None):
        self.seen.append(len(x))
        return super().forward(x, context)


def test_the_objective_is_told_the_step():
    """Once for all parts of a batch; what is validated, and left behind, is the objective of the end."""
    flow = small()
    told = Told(flow)
    fit(flow, blob()[0], blob(7)[0], objective=told, steps=2, batch_size=8, accumulate=2, eval_every=2)
    assert told.seen == [(0, 2), 4, 4, (2, 2), 7, (1, 2), 4, 4, (2, 2), 7, (2, 2)]


def test_annealing_scales_the_energy():
    flow = small()
    objective = ReverseKL(flow, lambda x: x.square().sum(-1), anneal=lambda done: 0.5 + done / 2)
    plain = ReverseKL(flow, lambda x: x.square().sum(-1))
    values = []
    for step in (0, 2, 4):
        objective.set_step(step, 4)
        torch.manual_seed(1)
        values.append(objective(50))
    torch.manual_seed(1)
    full = plain(50)
    torch.manual_seed(1)
    x, log_q = flow.rsample_and_log_prob(50)
    torch.testing.assert_close(values[0], log_q + 0.5 * x.square().sum(-1))
    torch.testing.assert_close(values[1] - values[0], 0.25 * x.square().sum(-1))
    torch.testing.assert_close(values[2], full)
    assert "beta" not in objective.state_dict()
    fit(flow, None, objective=objective, steps=3, batch_size=8)
    assert objective.beta == 1


def test_annealing_keeps_its_pace_in_parts():
    flow, seen = small(), []
    objective = ReverseKL(flow, lambda x: x.square().sum(-1), anneal=lambda done: seen.append(done) or done)
    fit(flow, None, objective=objective, steps=4, batch_size=8, accumulate=2)
    assert seen == [0, 0.25, 0.5, 0.75, 1]


def test_reverse_kl_starts_from_draws():
    """The layers are set so that draws of the base leave each one with mean 0 and variance 1."""
    torch.manual_seed(0)
    flow = Flow(StandardNormal(2), Compose(AffineMap(5.0, 3.0), ActNorm(2)))
    ReverseKL(flow, lambda x: x.square().sum(-1)).initialize(4000)
    assert flow.bijection.bijections[1].initialized
    x = flow.sample(4000)
    assert x.mean(0).abs().max() < 0.1 and (x.std(0) - 1).abs().max() < 0.1


def test_reverse_kl_starts_from_draws_given_images():
    shape = (2, 4, 4)
    coupling = ImageCoupling(shape, Affine(), hidden=8, context_shape=(3, 4, 4))
    flow = Flow(StandardNormal(*shape), Compose(coupling, ActNorm(shape)))
    ReverseKL(flow, lambda x: x.square().sum((-1, -2, -3))).initialize(50, torch.randn(5, 3, 4, 4))
    x = flow.sample(50, torch.randn(5, 3, 4, 4))
    assert flow.bijection.bijections[1].initialized and x.mean((0, 1, 3, 4)).abs().max() < 0.2


def test_running_moments_see_every_batch_once():
    """Batch normalisation changes its buffers in every training pass; the first batch, too, is seen once."""
    x = blob(64)[0]
    flow, by_hand = (Flow(StandardNormal(2), Compose(BatchNorm(2), Coupling(2, Affine(), hidden=(4,))))
                     for _ in range(2))
    fit(flow, x, steps=1, batch_size=64)
    by_hand.log_prob(x)
    torch.testing.assert_close(flow.bijection.bijections[0].mean, by_hand.bijection.bijections[0].mean)
    torch.testing.assert_close(flow.bijection.bijections[0].var, by_hand.bijection.bijections[0].var)
