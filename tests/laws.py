"""The laws: what every bijection of the package obeys, each a plain function of a `Case` that raises AssertionError where it
is broken.

`test_laws.py` runs them over the registry; `test_laws_can_fail.py` shows, with broken maps, that each can fail.
"""
from __future__ import annotations

import copy
import functools
import io
import tempfile
from dataclasses import dataclass

import torch
from torch import Tensor

import flowlib as fl
from registry import parameters

# What rounding may cost: a little for the arithmetic inside a map, and EPS of it for each unit by which the map stretches.
BASE = {torch.float64: 1e-9, torch.float32: 1e-4}
EPS = {torch.float64: 1e-12, torch.float32: 3e-5}


def jacobian(f, z, ndim):
    """(n, D', D) by one backward pass: the batch once for each output, each copy giving the gradient of its own output."""
    flat = z.reshape(len(z), -1)
    with torch.no_grad():
        outputs = f(z)[0].numel() // len(z)
    many = z.detach().expand(outputs, *z.shape).clone().requires_grad_()
    with torch.enable_grad():
        x = f(many)[0].reshape(outputs, len(z), outputs)
        grad, = torch.autograd.grad(x.diagonal(dim1=0, dim2=2).sum(), many)
    return grad.reshape(outputs, *flat.shape).movedim(0, 1)


@dataclass
class Case:
    """A bijection at some latents z (n, ...), with a context (n, C) or None. What several laws need is computed once."""

    f: fl.Bijection
    z: Tensor
    context: Tensor | None = None
    volume_preserving: bool = False

    @functools.cached_property
    def forward(self):
        return tuple(t.detach() for t in self.f(self.z, self.context))

    @functools.cached_property
    def inverse(self):
        return tuple(t.detach() for t in self.f.inverse(self.forward[0], self.context))

    @functools.cached_property
    def jacobians(self):
        """Of f at z and of f^-1 at f(z), (n, D', D) and (n, D, D')."""
        return (jacobian(lambda v: self.f(v, self.context), self.z, self.f.latent_ndim),
                jacobian(lambda v: self.f.inverse(v, self.context), self.forward[0], self.f.event_ndim))

    @functools.cached_property
    def stretch(self):
        """How far f stretches at each row of z, and f^-1 at each row of x, but at least 1: rounding the one side moves the
        other by that. Row by row: one steep place must not excuse the others."""
        return tuple(torch.linalg.matrix_norm(j, 2).clamp(min=1.0) for j in self.jacobians)

    @property
    def both(self):
        return torch.maximum(*self.stretch)


def close(a, b, what, stretch: Tensor | float = 1.0, base=None):
    """Row by row, |a - b| <= (base + EPS stretch) max(1, |b|), with the largest |b| of the row."""
    assert a.shape == b.shape, f"{what}: shape {tuple(a.shape)}, expected {tuple(b.shape)}"
    if not a.numel():
        return
    base = BASE[b.dtype] if base is None else base
    rows = (lambda t: t.abs().flatten(1).amax(1)) if a.ndim > 1 else torch.abs
    gap, allowed = rows(a - b), (base + EPS[b.dtype] * stretch) * rows(b).clamp(min=1.0)
    assert (gap <= allowed).all(), f"{what}: off by {gap.max():.3g} (allowed there: {allowed.expand_as(gap)[gap.argmax()]:.3g})"


def round_trip(case):
    there, back = case.stretch
    again = case.f(case.inverse[0], case.context)[0]
    close(case.inverse[0], case.z, "f^-1(f(z)) against z", back)
    close(again, case.forward[0], "f(f^-1(x)) against x", there)


def log_det_is_the_jacobians(case):
    log_det, inverse_log_det = case.forward[1], case.inverse[1]
    assert log_det.shape == case.z.shape[: case.z.ndim - case.f.latent_ndim], "log-det: one number per event"
    there, back = (torch.linalg.slogdet(j)[1] for j in case.jacobians)
    close(log_det, there, "forward log-det against autograd", case.both)
    close(inverse_log_det, back, "inverse log-det against autograd", case.both)
    assert case.volume_preserving or log_det.abs().max() > 1e-3, "the log-det is zero here: this case tests nothing"


def log_dets_cancel(case):
    total = case.forward[1] + case.inverse[1]
    close(total, torch.zeros_like(total), "forward log-det + inverse log-det", case.both)


def rows_are_independent(case):
    x, log_det = case.forward
    other = case.z.clone()
    other[0] = other[0].flip(-1) * 0.5
    moved_x, moved_log_det = case.f(other, case.context)
    close(moved_x[1:], x[1:], "the other rows of x")
    close(moved_log_det[1:], log_det[1:], "the other rows' log-det")


def any_leading_shape(case):
    f, z, context, (x, log_det) = case.f, case.z, case.context, case.forward
    n = len(z)
    folded_context = None if context is None else context.reshape(2, 1, n // 2, *context.shape[1:])
    for method, value, expected in ((f.forward, z, x), (f.inverse, x, case.inverse[0])):
        out, out_log_det = method(value.reshape(2, 1, n // 2, *value.shape[1:]), folded_context)
        assert out.shape == (2, 1, n // 2, *expected.shape[1:]) and out_log_det.shape == (2, 1, n // 2)
        close(out.reshape(expected.shape), expected, f"{method.__name__} of a folded batch", case.both)
    single, single_log_det = f(z[0], None if context is None else context[0])
    assert single_log_det.shape == ()
    close(single[None], x[:1], "one event without a batch", case.both[:1])
    if context is not None:  # one context for all rows
        close(f(z, context[0])[0][:1], x[:1], "a context that broadcasts", case.both[:1])


def parameters_get_gradients(case):
    x, log_det = case.f(case.z, case.context)
    named = [(name, p) for name, p in case.f.named_parameters() if p.numel()]
    grads = torch.autograd.grad((x * torch.randn_like(x)).sum() + log_det.sum(), [p for _, p in named], allow_unused=True)
    for (name, _), grad in zip(named, grads, strict=True):
        assert grad is not None and grad.isfinite().all(), f"{name} has no finite gradient"
        assert grad.abs().max() > 0, f"{name} has gradient zero"


def eval_equals_train(case):
    training = case.f.training
    x, log_det = case.f.train()(case.z, case.context)
    evaluated, evaluated_log_det = case.f.eval()(case.z, case.context)
    case.f.train(training)
    assert torch.equal(x, evaluated) and torch.equal(log_det, evaluated_log_det), "eval differs from train"


def same_both_ways(a, b, case, what):
    """Two objects that should be the same map give the same, to the last bit."""
    for method, value in (("forward", case.z), ("inverse", case.forward[0])):
        for one, other in zip(getattr(a, method)(value, case.context), getattr(b, method)(value, case.context), strict=True):
            assert torch.equal(one, other), f"{method} differs {what}"


def state_is_complete(case, make):
    """state_dict -> file -> a new object: the same values to the last bit."""
    file = io.BytesIO()
    torch.save(case.f.state_dict(), file)
    file.seek(0)
    torch.manual_seed(12345)  # a new object draws other random numbers
    again = make()
    again.load_state_dict(torch.load(file, weights_only=True))
    again.train(case.f.training)
    same_both_ways(case.f, again, case, "after load_state_dict")


@torch.no_grad()
def copies_agree(case):
    """A deepcopy is the same map and shares nothing; a call with parameters from outside uses these and no others."""
    f, z, context = case.f, case.z, case.context
    copied, before = copy.deepcopy(f), f(z, context)
    state = {**dict(f.named_parameters()), **dict(f.named_buffers())}
    kept = {name: t.clone() for name, t in state.items()}
    moved = {name: t + 0.01 if t.is_floating_point() else t for name, t in kept.items()}
    outside = torch.func.functional_call(f, moved, (z, context))
    try:
        for name, t in state.items():
            t.copy_(moved[name])
        inside, untouched = f(z, context), copied(z, context)
    finally:
        for name, t in state.items():
            t.copy_(kept[name])
    for one, two in zip(before, untouched, strict=True):
        assert torch.equal(one, two), "a deepcopy differs, or shares parameters"
    for one, two in zip(outside, inside, strict=True):
        assert torch.equal(one, two), "functional_call differs from a module with these parameters"


def vmap_equals_the_batch(case):
    """torch.func: rows one by one, vectorised, in both directions; and the gradient of a row's log-det."""
    f, x, context = case.f, case.forward[0], case.context
    axes = (0, None if context is None else 0)
    for method, value, expected in ((f.forward, case.z, case.forward), (f.inverse, x, case.inverse)):
        found = torch.func.vmap(method, axes)(value, context)
        close(found[0], expected[0], f"vmap of {method.__name__}", case.both)
        close(found[1], expected[1], f"vmap of {method.__name__}, its log-det", case.both)

    def score(value, row):
        z, log_det = f.inverse(value, row)
        return log_det - 0.5 * z.square().sum()

    by_row = torch.func.vmap(torch.func.grad(score), axes)(x, context)
    value = x.clone().requires_grad_()
    z, log_det = f.inverse(value, context)
    together, = torch.autograd.grad((log_det - 0.5 * z.square().flatten(1).sum(1)).sum(), value)
    close(by_row, together, "the scores of rows one by one", case.both)


def runs_on_meta(case):
    """Every tensor that a layer makes is made where its parameters are: on the device without storage, nothing else works."""
    f, z = copy.deepcopy(case.f).to("meta"), case.z.to("meta")
    context = None if case.context is None else case.context.to("meta")
    x, log_det = f(z, context)
    back, inverse_log_det = f.inverse(x, context)
    assert {t.device.type for t in (x, log_det, back, inverse_log_det)} == {"meta"}
    assert x.shape == case.forward[0].shape and back.shape == z.shape and log_det.shape == case.forward[1].shape


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


def stays_finite(case):
    for method in (case.f.forward, case.f.inverse):
        out, log_det = method(case.z, case.context)
        assert out.isfinite().all() and log_det.isfinite().all(), f"{method.__name__} is not finite"


def has_a_density(flow, x, context=None):
    """Rows of numbers have a log-density: a number or -inf, never NaN and never +inf."""
    log_p = flow.log_prob(x, context)
    assert not log_p.isnan().any(), f"log_prob is NaN at a finite x of size {x[log_p.isnan()][0].abs().max():.3g}"
    assert (log_p < torch.inf).all(), "log_prob is +inf at a finite x"


def finite_inputs_have_a_density(flow, context=None):
    """So have fill values, however large."""
    sizes = torch.tensor([1e3, 1e10, 1e20, torch.finfo(torch.float32).max], dtype=torch.float64)
    shape = flow.event_shape
    signs = torch.tensor([1.0, -1.0]).repeat(torch.Size(shape).numel())[: torch.Size(shape).numel()].reshape(shape)
    for pattern in (torch.ones(shape), -torch.ones(shape), signs, torch.zeros(shape).index_fill(-1, torch.tensor(0), 1.0)):
        has_a_density(flow, (sizes.reshape(-1, *[1] * len(shape)) * pattern).to(dtype_of(flow)), context)


def dtype_of(module):
    return next((t.dtype for t in (*module.parameters(), *module.buffers()) if t.is_floating_point()), torch.float64)


def half_precision_is_refused_or_right(case, dtype):
    """`.half()` and `.bfloat16()`: one ValueError, or the values of the same map in double precision, as far as its
    parameters and inputs are rounded."""
    low = copy.deepcopy(case.f).to(dtype)
    high = copy.deepcopy(low).double()
    z = case.z.to(dtype)
    context = None if case.context is None else case.context.to(dtype)
    try:
        x, log_det = low(z, context)
    except ValueError:
        return
    right, right_log_det = high(z.double(), None if context is None else context.double())
    unit = 32 * torch.finfo(dtype).eps
    assert x.dtype == dtype and x.isfinite().all(), "half precision: not finite, or of another dtype"
    close(x.double(), right, "half precision", (unit / EPS[torch.float64]) * case.stretch[0].double(), base=unit)
    size = case.z[0].numel()
    close(log_det.double(), right_log_det, "log-det in half precision", base=unit * size)


def dtype_is_kept(case):
    f, z, context = case.f, case.z, case.context
    for out in (*case.forward, *case.inverse):
        assert out.dtype == z.dtype and out.device == z.device
    wrong = torch.float32 if z.dtype == torch.float64 else torch.float64
    if parameters(f):
        for method in (f.forward, f.inverse):
            raises_value_error(method, z.to(wrong), context)
        if context is not None:
            raises_value_error(f.forward, z, context.to(wrong))


def log_dets_survive_autocast(case):
    """Values and log-dets stay float32. (The networks run in bfloat16, so an input that moves by one float32 rounding may
    move their output by a bfloat16 one: a round trip through several layers is not exact there.)"""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        x, log_det = case.f(case.z, case.context)
        back, inverse_log_det = case.f.inverse(x, case.context)
    assert {t.dtype for t in (x, log_det, back, inverse_log_det)} == {torch.float32}, "autocast reached a value or log-det"
    close(log_det, case.forward[1], "log-det under autocast", base=0.1 * case.forward[1].abs().max().clamp(min=1.0).item())


def bad_input_is_refused(case):
    f, z, context = case.f, case.z, case.context
    if f.latent_shape is not None:
        for method in (f.forward, f.inverse):
            raises_value_error(method, torch.cat([z, z], -1), context)
    raises_value_error(f.forward, z[0].flatten()[0], context)
    raises_value_error(f.forward, z.numpy(), context)
    raises_value_error(f.forward, z.long(), context)
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


def initialize_maps(case):
    x, context = case.forward[0], case.context
    close(case.f.initialize(case.z, context, inverse=False), x, "initialize from the latent side", case.both)
    close(case.f.initialize(x, context), case.inverse[0], "initialize from the data side", case.both)
