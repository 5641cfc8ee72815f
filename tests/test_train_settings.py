"""What `fit` is given: data, settings, an optimizer."""
import copy
import dataclasses
import inspect
import math

import numpy as np
import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook
from training import blob, fit, small, weights

from flowlib import (
    ActNorm,
    Affine,
    Compose,
    Coupling,
    Elementwise,
    Flow,
    Householder,
    ImageCoupling,
    InvertibleConv1x1,
    Pixels,
    Planar,
    RationalQuadraticSpline,
    RealNVP,
    Rotation,
    StandardNormal,
    data,
)
from flowlib.train import Config, ReverseKL

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("given, message", [
    ([[0.1, 0.2], [0.3, 0.4]], "must be a tensor or an array.*got a list; torch.as_tensor"),
    (([0.1, 0.2], [0.3, 0.4]), "got a list"),
    (torch.utils.data.DataLoader([1.0]), "got a DataLoader"),
    (np.array([["a", "b"]]), "must be numbers, got an array of dtype <U1"),
    (torch.tensor(1.0), "need rows, got a single number"),
    ((), "need rows"),
    (torch.zeros(5, 2, dtype=torch.float64), r"dtype torch.float32, got an input of dtype torch.float64; convert"),
    (np.zeros((5, 2)), r"dtype torch.float32, got an input of dtype torch.float64; convert"),
    (torch.zeros(5, 2, dtype=torch.int64), r"of floating-point numbers, got torch.int64; convert it with"),
    ((torch.zeros(5, 2), torch.zeros(5, 1), torch.zeros(5, 1)), "got 3 parts"),
    (None, "no epochs and no likelihood"),
])
def test_what_is_no_data_gets_one_sentence(given, message):
    flow = RealNVP(2)
    before = weights(flow)
    with pytest.raises(ValueError, match=message):
        fit(flow, given, steps=1, batch_size=4)
    if given is not None:
        with pytest.raises(ValueError, match=message.replace("training", "validation")):
            fit(flow, torch.zeros(5, 2), given, steps=1, batch_size=4)
    assert torch.equal(weights(flow), before)


def test_labels_are_not_dropped():
    digits = data.load("digits", "val")
    flow = Pixels(RealNVP(64, layers=1, hidden=(4,), context_dim=10), (1, 8, 8), levels=17, preprocess="logit")
    for train, val in ((digits, None), ((digits.x, torch.eye(10)[digits.y]), digits)):
        with pytest.raises(ValueError, match="have labels, and this flow takes a context"):
            fit(flow, train, val, steps=1)
    fit(flow, (digits.x, torch.eye(10)[digits.y]), steps=1)


def test_an_array_is_data():
    x, flows = blob()[0], [small(), small()]
    for flow, given in zip(flows, (x, x.numpy())):
        fit(flow, given, steps=2)
    assert torch.equal(*map(weights, flows))


def test_validation_needs_training_data():
    flow = small()
    with pytest.raises(ValueError, match="nothing to validate"):
        fit(flow, None, blob()[0], objective=ReverseKL(flow, lambda x: x.square().sum(-1)), steps=1)


# Settings


def test_the_signature_names_every_setting():
    names = inspect.signature(fit.func).parameters
    assert {"train", "objective", "optimizer", "resume", *(f.name for f in dataclasses.fields(Config))} <= set(names)
    assert "changes" not in names and names["lr"].default == Config.lr


def test_a_config_is_taken_whole_or_with_changes():
    x, results = blob()[0], []
    for options in ({"config": Config(steps=4, lr=0.1, seed=5)}, {"config": Config(steps=4, lr=0.2, seed=5), "lr": 0.1},
                    {"steps": np.int64(4), "lr": np.float32(0.1).item(), "seed": 5}):
        flow = small()
        fit(flow, x, **options)
        results.append(weights(flow))
    assert torch.equal(results[0], results[1])
    torch.testing.assert_close(results[0], results[2])


@pytest.mark.parametrize("settings, message", [
    ({"steps": 2.5}, "steps must be a whole number, got 2.5"), ({"steps": "3"}, "steps must be a whole number"),
    ({"epochs": math.inf}, "epochs must be positive and finite"),
    ({"steps": 3, "lr": math.inf}, "lr must be positive and finite"), ({"steps": 3, "lr": None}, "lr must be a number"),
    ({"steps": 3, "patience": 1.5}, "patience must be a whole number"),
    ({"steps": 3, "lr_end": 1.0}, "lr_end must not exceed"), ({"steps": 3, "lr_end": -1.0}, "lr_end must be finite"),
    ({"steps": 3, "betas": (0.9, 1.0)}, "each of betas must lie in"),
    ({"steps": 3, "weight_decay": -1.0}, "weight_decay must be"),
    ({"steps": 3, "batch_size": 10**12}, "more than 1,000 passes over 400 rows"),
    ({"steps": 3, "optimizer": lambda groups: groups}, "must make a torch.optim.Optimizer"),
])
def test_more_settings_that_make_no_sense(settings, message):
    with pytest.raises(ValueError, match=message):
        fit(RealNVP(2), blob()[0], **settings)


def test_a_flow_without_parameters_to_train():
    with pytest.raises(ValueError, match="nothing to train"):
        fit(small().requires_grad_(False), blob()[0], steps=1)


def test_the_cosine_ends_where_it_is_told():
    config = Config(steps=100, lr=1.0, lr_end=0.1, warmup=0.1)
    rates = [config.lr_at(step, 100) for step in range(100)]
    assert max(rates) == rates[9] and 0.1 < rates[99] < 0.102 and min(rates[10:]) == rates[99]


def sgd(groups):
    return torch.optim.SGD(groups)


def test_the_gradient_is_clipped():
    """A step of plain gradient descent moves the weights by lr times the norm of the gradient, which `clip` bounds."""
    x, moved = blob()[0], {}
    for clip in (None, 1e3, 0.3, 0.1):
        flow = small()
        before = weights(flow)
        fit(flow, x, steps=1, lr=1e-2, ema=0.0, clip=clip, optimizer=sgd)
        moved[clip] = (weights(flow) - before).norm().item() / 1e-2
    assert moved[None] > 1 and moved[1e3] == pytest.approx(moved[None], rel=1e-4)
    assert moved[0.3] == pytest.approx(0.3, rel=1e-3) and moved[0.1] == pytest.approx(0.1, rel=1e-3)


def test_weight_decay_shrinks_matrices_alone():
    """A step with decay differs from one without by lr * decay * weights, in the matrices of the networks."""
    x, flows = blob()[0], {}
    start = small()
    with torch.no_grad():
        for p in start.parameters():
            p.add_(0.1)
    for decay in (0.0, 0.5):
        flow = flows[decay] = copy.deepcopy(start)
        fit(flow, x, steps=1, lr=0.01, ema=0.0, weight_decay=decay)
    for p, without, decayed in zip(start.parameters(), flows[0.0].parameters(), flows[0.5].parameters()):
        expected = 0.01 * 0.5 * p if p.ndim == 2 else torch.zeros_like(p)
        torch.testing.assert_close(without - decayed, expected, rtol=1e-3, atol=1e-7)


def test_parameters_of_bijections_do_not_decay():
    """Axes do not tell: a scale per channel has three, the rows of a spline's parameters two."""
    decayed = {}

    def keep(groups):
        decayed.update({p: group["weight_decay"] for group in groups for p in group["params"]})
        return torch.optim.SGD(groups)

    shape = (4, 4, 4)
    flow = Flow(StandardNormal(4), Compose(Planar(4), Householder(4, 2), Elementwise(4, RationalQuadraticSpline()),
                                           Rotation(4), Coupling(4, Affine(), hidden=(8,))))
    images = Flow(StandardNormal(*shape), Compose(ActNorm(shape), InvertibleConv1x1(shape),
                                                  ImageCoupling(shape, Affine(), hidden=8)))
    for model, x in ((flow, torch.randn(20, 4)), (images, torch.randn(20, *shape))):
        fit(model, x, steps=1, weight_decay=0.5, optimizer=keep)
        for owner in model.modules():
            for name, p in owner.named_parameters(recurse=False):
                network = isinstance(owner, (torch.nn.Linear, torch.nn.Conv2d)) and name == "weight"
                assert decayed[p] == (0.5 if network else 0.0), (type(owner), name)
    assert any(decayed.values())


def test_a_scale_and_shift_keep_what_the_data_say():
    x = 30 + 10 * torch.randn(4000, 2, generator=torch.Generator().manual_seed(0))
    flow = Flow(StandardNormal(2), ActNorm(2))
    fit(flow, x, steps=200, lr=1e-2, weight_decay=1.0)
    layer = flow.bijection
    assert (layer.shift - 30).abs().max() < 1 and (layer.log_scale.exp() - 10).abs().max() < 1


def test_betas_reach_the_optimizer():
    seen = []
    hook = register_optimizer_step_pre_hook(lambda optimizer, *_: seen.append(optimizer.param_groups[0]["betas"]))
    fit(small(), blob()[0], steps=1, betas=(0.5, 0.75))
    hook.remove()
    assert seen == [(0.5, 0.75)]
