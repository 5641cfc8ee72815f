"""The laws: what every bijection of the package obeys, each a plain function that raises AssertionError where it is broken.

`test_laws.py` runs them over the registry; `test_laws_can_fail.py` shows, with broken maps, that each can fail.
"""
from __future__ import annotations

import io
import tempfile

import torch

import flowlib as fl
from registry import parameters

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}


def close(a, b, tolerance, what):
    scale = max(1.0, b.abs().max().item()) if b.numel() else 1.0
    gap = (a - b).abs().max().item() if a.numel() else 0.0
    assert gap <= tolerance * scale, f"{what}: off by {gap:.3g} (allowed {tolerance * scale:.3g})"


def steepness(f, z, context=None):
    """The largest stretch of f at z, and of f^-1 at f(z), but at least 1: rounding the one side moves the other by that."""
    x = f(z, context)[0].detach()
    there = fl.checks.jacobian(lambda v: f(v, context)[0], z, f.latent_ndim)
    back = fl.checks.jacobian(lambda v: f.inverse(v, context)[0], x, f.event_ndim)
    return tuple(max(1.0, torch.linalg.matrix_norm(j, 2).max().item()) for j in (there, back))


def round_trip(f, z, context=None):
    there, back_stretch = steepness(f, z, context)
    x, _ = f(z, context)
    back, _ = f.inverse(x, context)
    again, _ = f(back, context)
    tolerance = TOLERANCE[z.dtype] / 10
    close(back, z, tolerance * back_stretch, "f^-1(f(z)) against z")
    close(again, x, tolerance * there, "f(f^-1(x)) against x")


def log_det_is_the_jacobians(f, z, context=None, volume_preserving=False):
    tolerance = {torch.float64: 1e-8, torch.float32: 1e-4}[z.dtype] * max(steepness(f, z, context))
    x, log_det = f(z, context)
    assert log_det.shape == z.shape[: z.ndim - f.latent_ndim], "log-det: one number per event"
    inverse_log_det = f.inverse(x.detach(), context)[1]
    there = torch.linalg.slogdet(fl.checks.jacobian(lambda v: f(v, context)[0], z, f.latent_ndim))[1]
    back = torch.linalg.slogdet(fl.checks.jacobian(lambda v: f.inverse(v, context)[0], x, f.event_ndim))[1]
    close(log_det, there, tolerance, "forward log-det against autograd")
    close(inverse_log_det, back, tolerance, "inverse log-det against autograd")
    assert volume_preserving or log_det.abs().max() > 1e-3, "the log-det is zero here: this case tests nothing"


def log_dets_cancel(f, z, context=None):
    x, log_det = f(z, context)
    tolerance = {torch.float64: 1e-8, torch.float32: 1e-4}[z.dtype] * max(steepness(f, z, context))
    close(log_det + f.inverse(x, context)[1], torch.zeros_like(log_det), tolerance, "forward log-det + inverse log-det")


def rows_are_independent(f, z, context=None):
    x, log_det = f(z, context)
    other = z.clone()
    other[0] = other[0].flip(-1) * 0.5
    moved_x, moved_log_det = f(other, context)
    close(moved_x[1:], x[1:], TOLERANCE[z.dtype], "the other rows of x")
    close(moved_log_det[1:], log_det[1:], TOLERANCE[z.dtype], "the other rows' log-det")


def any_leading_shape(f, z, context=None):
    x, log_det = f(z, context)
    tolerance = TOLERANCE[z.dtype] * max(steepness(f, z, context))
    n = len(z)
    folded = z.reshape(2, 1, n // 2, *z.shape[1:])
    folded_context = None if context is None else context.reshape(2, 1, n // 2, *context.shape[1:])
    for method, value, expected in ((f.forward, folded, x), (f.inverse, x.reshape(2, 1, n // 2, *x.shape[1:]), z)):
        out, out_log_det = method(value, folded_context)
        assert out.shape == (2, 1, n // 2, *expected.shape[1:]) and out_log_det.shape == (2, 1, n // 2)
        close(out.reshape(expected.shape), expected, tolerance, f"{method.__name__} of a folded batch")
    single, single_log_det = f(z[0], None if context is None else context[0])
    assert single_log_det.shape == ()
    close(single, x[0], tolerance, "one event without a batch")
    if context is not None:  # one context for all rows
        shared, _ = f(z, context[0])
        close(shared[0], x[0], tolerance, "a context that broadcasts")


def parameters_get_gradients(f, z, context=None):
    if not parameters(f):
        return
    x, log_det = f(z, context)
    ((x * torch.randn_like(x)).sum() + log_det.sum()).backward()
    for name, p in f.named_parameters():
        if p.numel():
            assert p.grad is not None and p.grad.isfinite().all(), f"{name} has no finite gradient"
            assert p.grad.abs().max() > 0, f"{name} has gradient zero"


def eval_equals_train(f, z, context=None):
    x, log_det = f.train()(z, context)
    evaluated, evaluated_log_det = f.eval()(z, context)
    assert torch.equal(x, evaluated) and torch.equal(log_det, evaluated_log_det), "eval differs from train"


def state_is_complete(f, make, z, context=None):
    """state_dict -> file -> a new object: the same values to the last bit."""
    file = io.BytesIO()
    torch.save(f.state_dict(), file)
    file.seek(0)
    torch.manual_seed(12345)  # a new object draws other random numbers
    again = make()
    again.load_state_dict(torch.load(file, weights_only=True))
    again.train(f.training)
    x = f(z, context)[0]
    for method, value in (("forward", z), ("inverse", x)):
        a, b = getattr(f, method)(value, context), getattr(again, method)(value, context)
        assert torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]), f"{method} differs after load_state_dict"


def save_and_load(flow, x, context=None):
    with tempfile.TemporaryDirectory() as folder:
        fl.save(flow, folder)
        torch.manual_seed(12345)
        again = fl.load(folder)
    assert type(again) is type(flow)
    flow.eval(), again.eval()
    assert torch.equal(flow.log_prob(x, context), again.log_prob(x, context)), "another density after save and load"


def integrates_to_one(flow, context=None, n=401):
    """Over a box that holds all but 1e-4 of the samples."""
    samples = flow.sample(100_000, context).double()
    low, high = samples.quantile(1e-5, dim=0), samples.quantile(1 - 1e-5, dim=0)
    room = 0.15 * (high - low)
    if bool((low > 0).all()):  # a positive codomain
        low = low - torch.minimum(room, 0.9 * low)
    else:
        low = low - room
    total = fl.checks.total_probability(flow, low, high + room, n, context)
    assert abs(total - 1) < 1e-3, f"the density integrates to {total:.5f}"


def stays_finite(f, z, context=None):
    x, log_det = f(z, context)
    assert x.isfinite().all() and log_det.isfinite().all(), "forward is not finite"
    z, log_det = f.inverse(z, context)
    assert z.isfinite().all() and log_det.isfinite().all(), "inverse is not finite"


def dtype_is_kept(f, z, context=None):
    for out in (*f(z, context), *f.inverse(f(z, context)[0], context)):
        assert out.dtype == z.dtype and out.device == z.device
    wrong = torch.float32 if z.dtype == torch.float64 else torch.float64
    if parameters(f):
        for method in (f.forward, f.inverse):
            raises_value_error(method, z.to(wrong), context)
        if context is not None:
            raises_value_error(f.forward, z, context.to(wrong))


def log_dets_survive_autocast(f, z, context=None):
    """Values and log-dets stay float32. (The networks run in bfloat16, so an input that moves by one float32 rounding may
    move their output by a bfloat16 one: a round trip through several layers is not exact there.)"""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        x, log_det = f(z, context)
        back, inverse_log_det = f.inverse(x, context)
    assert {t.dtype for t in (x, log_det, back, inverse_log_det)} == {torch.float32}, "autocast reached a value or log-det"
    close(log_det, f(z, context)[1], 0.1, "log-det under autocast")


def bad_input_is_refused(f, z, context=None):
    if f.latent_shape is not None:
        for method in (f.forward, f.inverse):
            raises_value_error(method, torch.cat([z, z], -1), context)
    raises_value_error(f.forward, z[0].flatten()[0], context)
    if f.context_dim is not None:
        raises_value_error(f.forward, z, None)
        raises_value_error(f.forward, z, torch.cat([context, context], -1))
        raises_value_error(f.forward, z, context[:5])  # does not broadcast against the batch


def raises_value_error(method, *args):
    try:
        method(*args)
    except ValueError:
        return
    raise AssertionError(f"{method} took a bad input without a ValueError")


def initialize_maps(f, z, context=None):
    x = f(z, context)[0]
    close(f.initialize(z, context, inverse=False), x, TOLERANCE[z.dtype], "initialize from the latent side")
    close(f.initialize(x, context), f.inverse(x, context)[0], TOLERANCE[z.dtype], "initialize from the data side")
