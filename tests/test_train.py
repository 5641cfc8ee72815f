"""The training loop: what it learns and what it repeats exactly."""
import math

import pytest
import torch
from training import Fails, blob, fit, small, weights

from flowlib import NICE, NSF, Pixels, RealNVP, data, load, seeds
from flowlib.train import NLL, Config, ReverseKL, TrainingError
from flowlib.train.batches import Batches

pytestmark = pytest.mark.usefixtures("one_thread")


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


class Noise(torch.nn.Module):
    """A loss that is nothing but noise."""

    def __init__(self, flow):
        super().__init__()
        self.flow = flow

    def forward(self, x):
        return torch.rand(len(x)) + 0 * self.flow.log_prob(x)


def test_every_validation_has_the_same_noise():
    flow, x = small(), blob(20)[0]
    losses = fit(flow, x, x, objective=Noise(flow), steps=3, batch_size=4, eval_every=1).val_loss
    assert len(losses) == 4 and max(losses) - min(losses) < 1e-6


def test_the_last_step_is_validated_whatever_its_number():
    x = blob(20)[0]
    history = fit(small(), x, x, steps=5, batch_size=4, eval_every=2)
    assert history.val_step == [0, 2, 4, 5] and len(history.loss) == 5 and history.stopped == "finished"


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


def test_streams_of_random_numbers_differ():
    streams = (seeds.START, seeds.ORDER, seeds.STEP, seeds.VALIDATION, seeds.REPORT)
    numbers = {seeds.derive(seed, stream, step) for seed in range(3) for stream in streams for step in range(3)}
    assert len(numbers) == 3 * 5 * 3


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
        histories.append(fit(flow, x, x[:50], steps=9, batch_size=32, accumulate=accumulate, clip=0.1, lr=1e-2,
                             eval_every=3))
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
    ({"steps": 3, "batch_size": 10, "accumulate": 3}, "10 cannot be shared equally by 1 processes, each in 3 parts"),
    ({"steps": 3, "objective": NLL(RealNVP(2))}, "hold the flow"),
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
