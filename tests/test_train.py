"""The training loop: what it learns, what it repeats exactly, and what stops it."""
import copy
import dataclasses
import functools
import inspect
import math

import numpy as np
import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

from flowlib import (NICE, NSF, ActNorm, Affine, AffineMap, BatchNorm, Compose, Coupling, Elementwise, Flow, Householder,
                     ImageCoupling, InvertibleConv1x1, Pixels, Planar, RationalQuadraticSpline, RealNVP, Rotation, StandardNormal,
                     data, load)
from flowlib.seeds import STEP, derive, kept_random_state, seed_all
from flowlib.train import NLL, Config, ReverseKL, TrainingError, fit
from flowlib.train.batches import Batches
from flowlib.train.processes import launched_precision, processes

fit = functools.partial(fit, cpu=True, progress=False)


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def blob(n=400, seed=0):
    """A correlated Gaussian, and its entropy in nats."""
    factor = torch.tensor([[2.0, 0.0], [1.5, 0.5]])
    x = torch.randn(n, 2, generator=torch.Generator().manual_seed(seed)) @ factor.T + torch.tensor([3.0, -1.0])
    return x, 1 + math.log(2 * math.pi) + factor.diagonal().log().sum().item()


def small(model=RealNVP, **options):
    torch.manual_seed(3)
    return model(2, layers=2, hidden=(16,), **options)


def weights(flow):
    return torch.cat([p.detach().flatten() for p in flow.parameters()])


# What it learns


def test_maximum_likelihood_reaches_the_entropy():
    x, entropy = blob(4000)
    flow = small()
    history = fit(flow, x, blob(2000, 1)[0], steps=400, lr=5e-3)
    assert history.stopped == "finished" and len(history.loss) == 400
    assert abs(-flow.log_prob(blob(4000, 2)[0]).mean().item() - entropy) < 0.06


def test_reverse_kl_reaches_the_normalising_constant():
    """At the optimum the loss is -ln Z, here ln(2 pi / 4)."""
    flow = small().double()
    objective = ReverseKL(flow, lambda x: 2 * (x - torch.tensor([1.0, -2.0])).square().sum(-1))
    fit(flow, None, objective=objective, steps=300, lr=1e-2)
    with torch.no_grad():
        assert abs(objective(4000).mean().item() + math.log(2 * math.pi / 4)) < 0.02
    assert (flow.sample(4000).mean(0) - torch.tensor([1.0, -2.0])).abs().max() < 0.05


def test_a_context_is_used():
    y = torch.arange(400).remainder(2).float()[:, None]
    x = torch.randn(400, 2) * 0.3 + 4 * y
    flow = small(context_dim=1)
    fit(flow, (x, y), (x, y), steps=400, lr=3e-2)
    means = flow.sample(500, torch.tensor([[0.0], [1.0]])).mean((0, 2))
    assert (means - torch.tensor([0.0, 4.0])).abs().max() < 0.2


def test_the_start_comes_from_the_data():
    x = 5 * blob()[0]
    flow = NICE(2, layers=1, hidden=(4,))
    fit(flow, x, steps=1, lr=1e-9)
    scale = flow.bijection.bijections[0].log_scale.exp().detach()
    assert flow.bijection.bijections[0].initialized
    torch.testing.assert_close(scale, x.std(0) * math.sqrt(3) / math.pi, rtol=0.15, atol=0)


def test_images_as_bytes():
    train, val = data.load("digits", "train"), data.load("digits", "val")
    flow = Pixels(RealNVP(64, layers=2, hidden=(16,)), (1, 8, 8), levels=train.levels, preprocess="logit")
    history = fit(flow, train, val, steps=40, batch_size=64, lr=1e-2)
    assert history.val_loss[-1] < history.val_loss[0] - 50


# What is returned


def test_the_best_validation_is_returned():
    x, held_out = blob(16)[0], blob(200, 1)[0]
    flow = RealNVP(2, layers=4, hidden=(64, 64))
    history = fit(flow, x, held_out, steps=600, batch_size=16, lr=1e-2, patience=3, eval_every=10)
    assert history.stopped == "early" and len(history.loss) < 600
    best = min(history.val_loss)
    assert history.val_step[history.val_loss.index(best)] == history.best_step == len(history.loss) - 30
    assert abs(-flow.log_prob(held_out).mean().item() - best) < 1e-5
    assert not flow.training


def test_average_of_the_weights():
    """Without averaging the flow has the last weights; with it, their running average."""
    x, seen = blob()[0], []

    class Watch(NLL):
        def forward(self, x, context=None):
            seen.append(weights(self.flow))
            return super().forward(x, context)

    last, averaged = small(), small()
    fit(last, x, objective=Watch(last), steps=6, ema=0.0, eval_every=6)
    trail, final = seen, weights(last)
    assert not torch.equal(final, trail[-1])  # the sixth update came after the sixth loss
    fit(averaged, x, steps=6, ema=0.999, eval_every=6)
    expected = trail[0]
    for t, w in enumerate([*trail[1:], final]):
        decay = (1 + t) / (10 + t)
        expected = decay * expected + (1 - decay) * w
    torch.testing.assert_close(weights(averaged), expected)


def test_schedule():
    config = Config(steps=100, lr=1.0, warmup=0.1)
    rates = [config.lr_at(step, 100) for step in range(100)]
    assert max(rates) == rates[9] and rates[0] < 0.11 and rates[99] < 1e-3
    assert abs(rates[50] - 0.5) < 1e-12


# What is repeated exactly


def test_seeds_decide_and_nothing_else_changes():
    x, results = blob()[0], []
    for seed, before in ((0, 1), (0, 2), (1, 1)):
        flow = small()
        torch.manual_seed(before)
        state = torch.get_rng_state()
        history = fit(flow, x, steps=12, batch_size=32, seed=seed)
        assert torch.equal(state, torch.get_rng_state())
        results.append((weights(flow), history.loss))
    assert torch.equal(results[0][0], results[1][0]) and results[0][1] == results[1][1]
    assert not torch.equal(results[0][0], results[2][0])


def test_order_of_the_data():
    rows = torch.arange(10)
    whole = Batches((rows, 2 * rows), Config(steps=1, batch_size=4), 0, 1, torch.device("cpu"))
    stream = torch.cat([whole(step)[0] for step in range(10)])
    for epoch in stream.split(10):
        assert torch.equal(epoch.sort().values, rows)  # each row once an epoch, though batches straddle epochs
    assert not torch.equal(stream[:10], stream[10:20])
    assert torch.equal(whole(7)[0], stream[28:32]) and torch.equal(whole(7)[1], 2 * stream[28:32])
    shared = [Batches((rows,), Config(steps=1, batch_size=4), rank, 2, torch.device("cpu")) for rank in (0, 1)]
    for step in range(10):
        assert torch.equal(torch.stack([b(step)[0] for b in shared], 1).flatten(), whole(step)[0])


def test_parts_have_the_gradient_of_the_whole():
    """Equal up to rounding, with steps that need all parts: clipping by the norm of the whole gradient."""
    x, flows, histories = blob()[0].double(), [], []
    for accumulate in (1, 4):
        flow = small().double()
        histories.append(fit(flow, x, x[:50], steps=9, batch_size=32, accumulate=accumulate, clip=0.1, lr=1e-2, eval_every=3))
        flows.append(flow)
    torch.testing.assert_close(weights(flows[0]), weights(flows[1]), rtol=0, atol=1e-12)
    torch.testing.assert_close(histories[0].loss, histories[1].loss, rtol=1e-5, atol=0)
    assert not torch.equal(weights(flows[0]), weights(flows[1]))  # it was another computation


def test_parts_of_draws():
    """Without data the objective is asked for so many draws at a time."""
    seen = []

    class Watch(ReverseKL):
        def forward(self, n, context=None):
            seen.append(n)
            return super().forward(n, context)

    flow = small()
    fit(flow, None, objective=Watch(flow, lambda x: x.square().sum(-1)), steps=3, batch_size=24, accumulate=3)
    assert seen == [8] * 9


def test_old_gradients_do_not_matter():
    x, results = blob()[0], []
    for stale in (False, True):
        flow = small()
        if stale:
            flow.log_prob(100 * x).sum().backward()
        fit(flow, x, steps=3)
        results.append(weights(flow))
    assert torch.equal(*results)


def test_watching_changes_nothing():
    x, seen, results = blob()[0], [], []

    def watch(step):
        seen.append((step, flow.training, torch.is_grad_enabled(), weights(flow)))
        flow.sample(7)  # draws random numbers

    for option in ({}, {"watch": watch}):
        flow = small()
        history = fit(flow, x, x[:50], steps=12, eval_every=4, **option)
        results.append((weights(flow), history.loss, history.val_loss))
    assert torch.equal(results[0][0], results[1][0]) and results[0][1:] == results[1][1:]
    assert [step for step, *_ in seen] == [0, 4, 8, 12] == history.val_step
    assert not any(training or grad for _, training, grad, _ in seen)
    assert torch.equal(seen[-1][3], weights(flow))  # the averaged weights, not those of the optimizer


# Precision and compilation


def test_bf16_keeps_log_determinants_in_float32(monkeypatch):
    x, dtypes, flow = blob()[0], set(), small()
    inverse = flow.bijection.inverse

    def watched(*args):
        z, log_det = inverse(*args)
        dtypes.add((z.dtype, log_det.dtype))
        return z, log_det

    monkeypatch.setattr(flow.bijection, "inverse", watched)
    inner = set()
    flow.bijection.bijections[0].net.register_forward_hook(lambda module, args, out: inner.add(out.dtype))
    history = fit(flow, x, steps=5, precision="bf16")
    assert dtypes == {(torch.float32, torch.float32)}
    assert inner == {torch.bfloat16}  # autocast did reach the networks
    assert weights(flow).dtype == torch.float32 and all(map(math.isfinite, history.loss))


@pytest.mark.parametrize("model", [RealNVP, NSF])
def test_log_prob_compiles_in_one_graph(model):
    flow, x = small(model), blob(32)[0]
    compiled = torch.compile(flow.log_prob, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), flow.log_prob(x))
    compiled(x).mean().backward()
    assert all(p.grad is not None for p in flow.parameters())


def test_a_compiled_objective_trains_the_same(monkeypatch):
    x, calls = blob()[0], []
    real = torch.compile
    monkeypatch.setattr(torch, "compile", lambda model: calls.append(model) or real(model, backend="aot_eager"))
    plain, compiled = small(), small()
    fit(plain, x, steps=5)
    fit(compiled, x, steps=5, compile=True)
    assert len(calls) == 1
    torch.testing.assert_close(weights(compiled), weights(plain))


def test_progress(capsys):
    for progress in (False, None, True):  # None: shown on a terminal, which this is not
        fit(small(), blob()[0], steps=12, progress=progress)
        shown = capsys.readouterr().err
        assert ("12/12" in shown and "nats=" in shown and "samples/s=" in shown) if progress else not shown


# What stops it


def test_nan_in_the_data_is_refused_by_row():
    x = blob()[0]
    x[17, 1] = math.nan
    x[30, 0] = math.inf
    with pytest.raises(ValueError, match="training data hold NaN or infinity in 2 of 400 rows, the first is row 17"):
        fit(small(), x, steps=5)
    with pytest.raises(ValueError, match="validation data hold NaN"):
        fit(small(), blob()[0], x, steps=5)


@pytest.mark.parametrize("lr, message", [(10.0, "the loss has grown from .* by step"), (1e3, "not finite|inf|nan")])
def test_a_diverging_learning_rate_keeps_the_last_good_weights(tmp_path, lr, message):
    flow, x = RealNVP(2, layers=4, hidden=(32, 32)), blob()[0]
    with pytest.raises(TrainingError, match=message) as stopped:
        fit(flow, x, steps=400, lr=lr, clip=None, out=tmp_path / "run", eval_every=10)
    assert f"try a learning rate below {lr:g}" in str(stopped.value)
    assert 0 < stopped.value.step < 400
    kept = load(tmp_path / "run")
    assert flow.log_prob(x).isfinite().all() and torch.equal(kept.log_prob(x), flow.log_prob(x))
    with pytest.raises(TrainingError) as repeated:  # the folder still resumes: to the same end
        fit(RealNVP(2, layers=4, hidden=(32, 32)), x, steps=400, lr=lr, clip=None, out=tmp_path / "run", eval_every=10,
            resume=True)
    assert repeated.value.step == stopped.value.step


class Fails(NLL):
    """Loss or gradient becomes NaN at one step."""

    def __init__(self, flow, step, gradient):
        super().__init__(flow)
        self.step, self.gradient, self.calls = step, gradient, 0

    def forward(self, x, context=None):
        loss = super().forward(x, context)
        if self.training:
            self.calls += 1
            if self.calls == self.step + 1:
                return loss + (0 * loss).sqrt() if self.gradient else loss * math.nan
        return loss


@pytest.mark.parametrize("gradient", [False, True])
def test_a_loss_that_is_not_finite_names_its_step(gradient):
    x, flow, twin = blob()[0], small(), small()
    message = "gradient is not finite at step 13" if gradient else "loss is nan at step 13"
    with pytest.raises(TrainingError, match=message) as e:
        fit(flow, x, objective=Fails(flow, 13, gradient), steps=40, eval_every=5)
    assert e.value.step == 13 and "weights of step 10;" in str(e.value)
    fit(twin, x, objective=Fails(twin, 10**9, gradient), steps=40, eval_every=5)
    assert weights(flow).isfinite().all() and not torch.equal(weights(flow), weights(twin))


def test_data_outside_the_support():
    flow = Pixels(RealNVP(4), (1, 2, 2), levels=16)
    with pytest.raises(TrainingError, match="inf at step 0: some training data have density zero"):
        fit(flow, torch.full((10, 1, 2, 2), 200, dtype=torch.uint8), steps=3)


@pytest.mark.parametrize("settings, message", [
    ({}, "either steps or epochs"), ({"steps": 1, "epochs": 1}, "either steps or epochs"),
    ({"steps": 0}, "steps must be positive"),
    ({"steps": 3, "lr": -1.0}, "lr must be positive"), ({"steps": 3, "lr": math.nan}, "lr must be positive"),
    ({"steps": 3, "ema": 1.0}, "ema must lie in"), ({"steps": 3, "seed": -1}, "seed"),
    ({"steps": 3, "precision": "fp16"}, "bf16"), ({"steps": 3, "accumulate": 0}, "accumulate must be positive"),
    ({"steps": 3, "batch_size": 10, "accumulate": 3}, "10 cannot be shared equally by 1 processes, each in 3 parts"), ({"steps": 3, "objective": NLL(RealNVP(2))}, "hold the flow"),
])
def test_settings_that_make_no_sense(settings, message):
    with pytest.raises(ValueError, match=message):
        fit(RealNVP(2), blob()[0], **settings)


def test_inputs_that_make_no_sense():
    with pytest.raises(TypeError, match="stepz"):
        fit(RealNVP(2), blob()[0], stepz=3)
    with pytest.raises(ValueError, match="no epochs"):
        fit(RealNVP(2), None, epochs=3)
    with pytest.raises(ValueError, match="equally many"):
        fit(RealNVP(2), (torch.zeros(3, 2), torch.zeros(4, 1)), steps=1)


@pytest.mark.parametrize("given, message", [
    ([[0.1, 0.2], [0.3, 0.4]], "must be a tensor or an array.*got a list; torch.as_tensor"),
    (([0.1, 0.2], [0.3, 0.4]), "got a list"),
    (torch.utils.data.DataLoader([1.0]), "got a DataLoader"),
    (np.array([["a", "b"]]), "must be numbers, got an array of dtype <U1"),
    (torch.tensor(1.0), "need rows, got a single number"),
    ((), "need rows"),
    (torch.zeros(5, 2, dtype=torch.float64), "float64 and the flow is torch.float32: give them as torch.float32"),
    (np.zeros((5, 2)), r"torch.as_tensor\(x, dtype=torch.float32\)"),
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
    assert torch.equal(weights(flow), before) and flow.training  # nothing was touched


def test_labels_are_not_dropped():
    digits = data.load("digits", "val")
    flow = Pixels(RealNVP(64, layers=1, hidden=(4,), context_dim=10), (1, 8, 8), levels=digits.levels, preprocess="logit")
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
    ({"epochs": math.inf}, "epochs must be positive and finite"), ({"steps": 3, "lr": math.inf}, "lr must be positive and finite"),
    ({"steps": 3, "lr": None}, "lr must be a number"), ({"steps": 3, "patience": 1.5}, "patience must be a whole number"),
    ({"steps": 3, "lr_end": 1.0}, "lr_end must not exceed"), ({"steps": 3, "lr_end": -1.0}, "lr_end must be finite and not"),
    ({"steps": 3, "betas": (0.9, 1.0)}, "each of betas must lie in"), ({"steps": 3, "weight_decay": -1.0}, "weight_decay must be"),
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
    """One step of plain gradient descent moves the weights by lr times the norm of the gradient, which `clip` bounds."""
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
        torch.testing.assert_close(without - decayed, 0.01 * 0.5 * p if p.ndim == 2 else torch.zeros_like(p), rtol=1e-3, atol=1e-7)


def test_parameters_of_bijections_do_not_decay():
    """Axes do not tell: a scale per channel has three, the rows of a spline's parameters two."""
    decayed = {}

    def keep(groups):
        decayed.update({p: group["weight_decay"] for group in groups for p in group["params"]})
        return torch.optim.SGD(groups)

    shape = (4, 4, 4)
    flow = Flow(StandardNormal(4), Compose(Planar(4), Householder(4, 2), Elementwise(4, RationalQuadraticSpline()), Rotation(4),
                                           Coupling(4, Affine(), hidden=(8,))))
    images = Flow(StandardNormal(*shape), Compose(ActNorm(shape), InvertibleConv1x1(shape), ImageCoupling(shape, Affine(), hidden=8)))
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
    hook = register_optimizer_step_pre_hook(lambda optimizer, args, kwargs: seen.append(optimizer.param_groups[0]["betas"]))
    fit(small(), blob()[0], steps=1, betas=(0.5, 0.75))
    hook.remove()
    assert seen == [(0.5, 0.75)]


# The objective and the step


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
    flow = Flow(StandardNormal(*shape), Compose(ImageCoupling(shape, Affine(), hidden=8, context_dim=3), ActNorm(shape)))
    ReverseKL(flow, lambda x: x.square().sum((-1, -2, -3))).initialize(50, torch.randn(5, 3, 4, 4))
    x = flow.sample(50, torch.randn(5, 3, 4, 4))
    assert flow.bijection.bijections[1].initialized and x.mean((0, 1, 3, 4)).abs().max() < 0.2


def test_running_moments_see_every_batch_once():
    """Batch normalisation changes its buffers in every training pass; the first batch, too, is seen once."""
    x = blob(64)[0]
    flow, by_hand = (Flow(StandardNormal(2), Compose(BatchNorm(2), Coupling(2, Affine(), hidden=(4,)))) for _ in range(2))
    fit(flow, x, steps=1, batch_size=64)
    by_hand.log_prob(x)
    torch.testing.assert_close(flow.bijection.bijections[0].mean, by_hand.bijection.bijections[0].mean)
    torch.testing.assert_close(flow.bijection.bijections[0].var, by_hand.bijection.bijections[0].var)


# Which weights are the best


class Validated(NLL):
    """Gives these losses at its validations, one after the other; one batch each."""

    def __init__(self, flow, *losses):
        super().__init__(flow)
        self.losses = list(losses)

    def forward(self, x, context=None):
        loss = super().forward(x, context)
        return loss if self.training else 0 * loss + self.losses.pop(0)


@pytest.mark.parametrize("losses, best", [
    ((5.0, 3.0, 4.0, 3.5), 3), ((5.0, 3.0, 3.0, 3.0), 3), ((math.nan, 5.0, 4.0, 4.5), 6), ((math.nan, 5.0, math.nan, math.nan), 3),
    ((3.0, math.nan, 5.0, 2.0), 9), ((math.inf, math.inf, math.inf, math.inf), 9), ((math.nan,) * 4, 9),
    ((5.0, -math.inf, 4.0, 6.0), 6),
])
def test_the_first_of_the_lowest_finite_validations_is_the_best(losses, best):
    x, seen, flow = blob()[0], {}, small()
    history = fit(flow, x, x[:9], objective=Validated(flow, *losses), steps=9, eval_every=3,
                  watch=lambda step: seen.update({step: weights(flow)}))
    assert history.best_step == best and torch.equal(weights(flow), seen[best])
    assert history.stopped == "finished" and torch.equal(torch.tensor(history.val_loss).isnan(), torch.tensor(losses).isnan())


@pytest.mark.parametrize("patience, end", [(1, 6), (2, 9), (None, 12)])
def test_patience_counts_validations_without_a_better_one(patience, end):
    flow = small()
    history = fit(flow, blob()[0], blob(9)[0], objective=Validated(flow, 5.0, 3.0, 3.0, 3.0, 3.0), steps=12, eval_every=3,
                  patience=patience)
    assert len(history.loss) == end and history.best_step == 3 and history.stopped == ("early" if patience else "finished")


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
@pytest.mark.parametrize("place, steps_done, best", [("start", 0, 0), ("step", 6, 6), ("validation", 6, 3), ("watch", 6, 6)])
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


# What is left behind: nothing


def test_each_fit_chooses_its_device_anew(monkeypatch):
    """accelerate takes its device once per program; here its answer without `cpu=True` stands for a GPU."""
    from accelerate import PartialState

    gpu = torch.device("cuda")
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(PartialState, "default_device", property(lambda state: gpu))
    for cpu, expected in ((False, "cuda"), (True, "cpu"), (False, "cuda")):
        with processes(cpu) as here:
            assert here.device.type == expected and here.num_processes == 1
        assert not PartialState._shared_state
    flow = small()
    history = fit(flow, blob()[0], steps=2)  # on the CPU, by its argument
    assert history.device.startswith("cpu")


def test_an_accelerator_before_and_after_keeps_its_choice():
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState, PartialState

    for state in (AcceleratorState, PartialState):
        state._shared_state.clear()
    fit(small(), blob()[0], steps=1)
    own = Accelerator(mixed_precision="bf16")
    try:
        before = dict(PartialState._shared_state), dict(AcceleratorState._shared_state)
        fit(small(), blob()[0], steps=1)
        assert (dict(PartialState._shared_state), dict(AcceleratorState._shared_state)) == before
        assert own.mixed_precision == "bf16" and own.device.type == PartialState().device.type
    finally:
        for state in (AcceleratorState, PartialState):
            state._shared_state.clear()


def test_threads_and_other_generators_stay(monkeypatch):
    flow = small()
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda seed: pytest.fail("the generators of a GPU that is not used"))
    fit(flow, blob()[0], blob(9)[0], steps=2)
    with pytest.raises(KeyError), processes(True):
        torch.set_num_threads(2)
        raise KeyError
    assert torch.get_num_threads() == 1


def test_seeds_of_a_device(monkeypatch):
    """The CPU's and the device's own generator are set and put back, no other."""
    calls = []

    class Module:
        manual_seed = staticmethod(lambda seed: calls.append(("seed", seed)))
        get_rng_state = staticmethod(lambda: "state")
        set_rng_state = staticmethod(lambda state: calls.append(("put back", state)))

    monkeypatch.setattr(torch, "get_device_module", lambda device: Module)
    device, before = torch.device("cuda"), torch.get_rng_state()
    with kept_random_state(device):
        seed_all(3, STEP, 7, device=device)
        drawn = torch.rand(3)
    assert calls == [("seed", derive(3, STEP, 7, 0)), ("put back", "state")] and torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(derive(3, STEP, 7, 0))
    assert torch.equal(torch.rand(3), drawn)
    torch.set_rng_state(before)


@pytest.mark.parametrize("model", [small, functools.partial(small, NICE)])
def test_a_default_device_changes_nothing(tmp_path, model):
    """`meta` stands for a GPU as torch's default device: a tensor made without a device would have no values."""
    x, results = blob()[0], []
    for device in ("cpu", "meta"):
        flow = model()
        torch.set_default_device(device)
        try:
            history = fit(flow, x.numpy(), x[:50].numpy(), steps=4, batch_size=32, out=tmp_path / device)
            again = fit(flow, x.numpy(), x[:50].numpy(), steps=4, batch_size=32, out=tmp_path / device, resume=True)
        finally:
            torch.set_default_device(None)
        results.append((weights(flow), history.loss, history.val_loss, again.loss))
    assert torch.equal(results[0][0], results[1][0]) and results[0][1:] == results[1][1:]


def test_the_launcher_may_ask_for_bf16(monkeypatch):
    assert launched_precision() is None
    flow, inner = small(), set()
    flow.bijection.bijections[0].net.register_forward_hook(lambda module, args, out: inner.add(out.dtype))
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    fit(flow, blob()[0], steps=1)
    assert inner == {torch.bfloat16}
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp16")
    with pytest.raises(ValueError, match="the launcher asks for fp16"):
        fit(flow, blob()[0], steps=1)


def test_nothing_is_written_before_all_have_looked(monkeypatch, tmp_path):
    """Or a slower process would find the folder of its own run not empty."""
    from accelerate import PartialState

    from flowlib.train import loop, run

    order = []
    for place, name in ((loop, "find"), (run, "save_run"), (run.saving, "save"), (PartialState, "wait_for_everyone")):
        real = getattr(place, name)
        monkeypatch.setattr(place, name, lambda *args, real=real, name=name: order.append(name) or real(*args))
    fit(small(), blob()[0], steps=1, out=tmp_path / "run")
    assert order[:3] == ["find", "wait_for_everyone", "save"]


def test_gradients_taken_while_watching_change_nothing():
    x, results = blob()[0], []

    def watch(step):
        with torch.enable_grad():
            (100 * flow.log_prob(x)).sum().backward()

    for option in ({}, {"watch": watch}):
        flow = small()
        history = fit(flow, x, steps=6, eval_every=3, **option)
        results.append((weights(flow), history.loss))
    assert torch.equal(results[0][0], results[1][0]) and results[0][1] == results[1][1]
