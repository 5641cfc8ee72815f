"""Which weights are the best, and what an exception or Ctrl-C leaves."""
import math

import pytest
import torch
from training import Fails, blob, fit, small, weights

from flowlib import ActNorm, Affine, Compose, Flow, ImageCoupling, StandardNormal, load
from flowlib.train import NLL, TrainingError

pytestmark = pytest.mark.usefixtures("one_thread")


class Validated(NLL):
    """Gives these losses at its validations, one after the other; one batch each."""

    def __init__(self, flow, *losses):
        super().__init__(flow)
        self.losses = list(losses)

    def forward(self, x, context=None):
        loss = super().forward(x, context)
        return loss if self.training else 0 * loss + self.losses.pop(0)


@pytest.mark.parametrize("losses, best", [
    ((5.0, 3.0, 4.0, 3.5), 3), ((5.0, 3.0, 3.0, 3.0), 3),
    ((math.nan, 5.0, 4.0, 4.5), 6), ((math.nan, 5.0, math.nan, math.nan), 3),
    ((3.0, math.nan, 5.0, 2.0), 9), ((math.inf, math.inf, math.inf, math.inf), 9), ((math.nan,) * 4, 9),
    ((5.0, -math.inf, 4.0, 6.0), 6),
])
def test_the_first_of_the_lowest_finite_validations_is_the_best(losses, best):
    x, seen, flow = blob()[0], {}, small()
    history = fit(flow, x, x[:9], objective=Validated(flow, *losses), steps=9, eval_every=3,
                  watch=lambda step: seen.update({step: weights(flow)}))
    assert history.best_step == best and torch.equal(weights(flow), seen[best])
    assert history.stopped == "finished"
    assert [math.isnan(loss) for loss in history.val_loss] == [math.isnan(loss) for loss in losses]


@pytest.mark.parametrize("patience, end", [(1, 6), (2, 9), (None, 12)])
def test_patience_counts_validations_without_a_better_one(patience, end):
    flow = small()
    objective = Validated(flow, 5.0, 3.0, 3.0, 3.0, 3.0)
    history = fit(flow, blob()[0], blob(9)[0], objective=objective, steps=12, eval_every=3, patience=patience)
    assert len(history.loss) == end and history.best_step == 3
    assert history.stopped == ("early" if patience else "finished")


# An exception or Ctrl-C at any place


class At(NLL):
    """Raises in the start from data, in a step, or in a validation."""

    def __init__(self, flow, place, error):
        super().__init__(flow)
        self.place, self.error, self.calls = place, error, 0

    def initialize(self, x, context=None):
        super().initialize(x, context)
        if self.place == "start":
            raise self.error

    def forward(self, x, context=None):
        if self.training == (self.place == "step"):
            self.calls += 1
            if self.calls == {"step": 8, "validation": 3}.get(self.place):
                raise self.error
        return super().forward(x, context)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("out of memory")], ids=["Ctrl-C", "exception"])
@pytest.mark.parametrize("place, steps_done, best", [
    ("start", 0, 0), ("step", 6, 6), ("validation", 6, 3), ("watch", 6, 6)])
def test_what_stops_training_leaves_the_best_weights(tmp_path, place, steps_done, best, error):
    torch.manual_seed(3)
    x, seen = torch.randn(60, 4, 4, 4, generator=torch.Generator().manual_seed(0)), {}
    flow = Flow(StandardNormal(4, 4, 4), Compose(ActNorm((4, 4, 4)), ImageCoupling((4, 4, 4), Affine(), hidden=8)))
    before = weights(flow)

    def watch(step):
        seen[step] = weights(flow)
        if place == "watch" and step == 6:
            raise error

    with pytest.raises(type(error)) as raised:
        fit(flow, x, x[:9], objective=At(flow, place, error), steps=20, eval_every=3, out=tmp_path / "run", watch=watch)
    assert torch.equal(weights(flow), seen.get(best, before)) and not flow.training
    assert all(p.is_contiguous() and p.device.type == "cpu" for p in flow.parameters())
    history = raised.value.history
    assert history.stopped == "interrupted" and history.best_step == best and history.seconds > 0
    assert len(history.loss) == steps_done and len(history.val_step) == len(history.val_loss)
    if place == "start":
        assert not (tmp_path / "run").exists() and not flow.bijection.bijections[0].initialized
    else:
        assert torch.equal(load(tmp_path / "run").log_prob(x), flow.log_prob(x))
        assert len(fit(flow, x, x[:9], steps=20, eval_every=3, out=tmp_path / "run", resume=True).loss) == 20


def test_a_run_that_fails_at_its_first_batch_leaves_no_folder(tmp_path):
    x, out = blob()[0], tmp_path / "deep" / "run"
    out.parent.mkdir()
    flow = small()
    with pytest.raises(ValueError, match=r"expected shape|over events of shape"):
        fit(flow, torch.zeros(50, 3), x, steps=2, out=out)
    with pytest.raises(TrainingError, match="The flow keeps the weights of step 0"):
        fit(flow, x, objective=Fails(flow, 0, False), steps=2, out=out)
    with pytest.raises(ValueError, match="over events of shape"):
        fit(flow, x, torch.zeros(50, 3), steps=2, out=out)
    assert not out.exists()
    fit(flow, x, x, steps=2, out=out)
