"""Roots and tails: against mpmath-grade values, far out, and through two derivatives."""
import math

import pytest
import torch
from scipy import special, stats
from torch.autograd import gradcheck, gradgradcheck

import flowlib as fl
from flowlib.numerics import (
    log_mixture_cdf,
    log_ndtr,
    log_ndtri,
    log_softplus,
    mills,
    solve_monotone,
    sqrt_softplus,
    tame,
)

DTYPES = pytest.mark.parametrize("dtype, reach", [(torch.float64, 60.0), (torch.float32, 30.0)],
                                 ids=["float64", "float32"])


# --- solve_monotone


def bend(x, a, b):
    """x + a tanh(x + b), increasing for a > -1, and its slope."""
    t = torch.tanh(x + b)
    return x + a * t, 1 + a * (1 - t * t)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_root_of_every_shape_of_function(dtype):
    eps = torch.finfo(dtype).eps
    y = torch.linspace(-50, 50, 1001, dtype=dtype)
    shapes = {
        "line": lambda x: (2 * x, torch.full_like(x, 2.0)),
        "cube": lambda x: (x**3, 3 * x * x),  # slope 0 at the root of y = 0
        "steep": lambda x: (x + 119 * torch.tanh(x), 1 + 119 / torch.cosh(x).square()),
        "flat": lambda x: (x - (1 - 1e-6) * torch.tanh(x), 1 - (1 - 1e-6) / torch.cosh(x).square()),
        "stairs": lambda x: (x + 0.999 * torch.sin(x), 1 + 0.999 * torch.cos(x)),
        "exponential": lambda x: (torch.sinh(x), torch.cosh(x)),
        "zero slope reported": lambda x: (x.clone(), torch.zeros_like(x)),  # Newton can do nothing: bisection must
    }
    for name, f in shapes.items():
        x = solve_monotone(f, y, -400.0 if name != "exponential" else -80.0, 400.0 if name != "exponential" else 80.0)
        value, slope = f(x)
        # as near as the rounding of x and of f(x) lets it come
        allowed = 8 * eps * (slope.abs() * x.abs().clamp(min=1) + y.abs().clamp(min=1) + 119)
        if name == "zero slope reported":
            allowed = 1e-6 * torch.ones_like(y)
        assert bool(((value - y).abs() <= allowed).all()), name


def test_root_differentiates_twice():
    y = torch.tensor([-3.0, 0.1, 2.5], dtype=torch.float64, requires_grad=True)
    a = torch.tensor([2.0, -0.9, 5.0], dtype=torch.float64, requires_grad=True)
    b = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)  # broadcasts: its gradient is a sum

    def solve(y, a, b):
        return solve_monotone(bend, y, -20.0, 20.0, a, b.expand_as(y))

    assert gradcheck(solve, (y, a, b)) and gradgradcheck(solve, (y, a, b))


def test_root_differentiates_three_times():
    third = torch.func.grad(torch.func.grad(torch.func.grad(
        lambda y: solve_monotone(lambda x: (torch.sinh(x), torch.cosh(x)), y, -9.0, 9.0))))
    y = torch.tensor(1.5, dtype=torch.float64)
    assert third(y).item() == pytest.approx(((2 * y * y - 1) / (1 + y * y) ** 2.5).item())  # of arsinh


def test_root_of_parameters_that_need_no_gradient():
    y = torch.tensor([1.0], dtype=torch.float64, requires_grad=True)
    one, zero = torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    x = solve_monotone(bend, y, -9.0, 9.0, one, zero)
    (slope,) = torch.autograd.grad(x.sum(), y)
    assert slope.item() == pytest.approx(1 / bend(x, one, zero)[1].item())


def test_not_a_number_stays_visible():
    y = torch.tensor([float("nan"), 1.0])
    x = solve_monotone(lambda x: (2 * x, torch.full_like(x, 2.0)), y, -9.0, 9.0)
    assert x[0].isnan() and abs(x[1] - 0.5) < 1e-6


# --- tails


def test_log_softplus():
    t = torch.tensor([-700.0, -120.0, -16.5, -15.5, 0.0, 3.0, 800.0], dtype=torch.float64)
    exact = [float(special.log1p(math.exp(min(v, 700)))) for v in t.tolist()]
    expected = torch.tensor([-700.0, -120.0, *map(math.log, exact[2:-1]), math.log(800.0)], dtype=torch.float64)
    assert torch.allclose(log_softplus(t), expected, rtol=1e-13, atol=1e-13)
    assert torch.allclose(log_softplus(t.float()), expected.float(), rtol=1e-6)
    t = torch.tensor([-200.0, -17.0, -1.0, 4.0], dtype=torch.float64, requires_grad=True)
    assert gradcheck(log_softplus, (t,)) and gradgradcheck(log_softplus, (t,))


@DTYPES
def test_log_ndtr_in_the_tails(dtype, reach):
    z = torch.linspace(-reach, reach, 401, dtype=dtype)
    exact = torch.from_numpy(special.log_ndtr(z.double().numpy()))
    assert torch.allclose(log_ndtr(z).double(), exact, rtol=1e-12 if dtype == torch.float64 else 1e-5,
                          atol=1e-300 if dtype == torch.float64 else 1e-37)


@DTYPES
def test_log_ndtr_has_two_finite_derivatives(dtype, reach):
    z = torch.linspace(-reach, reach, 401, dtype=dtype, requires_grad=True)
    (first,) = torch.autograd.grad(log_ndtr(z).sum(), z, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), z)
    v = z.detach().double().numpy()
    hazard = torch.from_numpy(stats.norm.pdf(v) * (1 / stats.norm.cdf(v)) if reach < 38 else
                              math.sqrt(2 / math.pi) / special.erfcx(-v / math.sqrt(2)))
    wide = dtype == torch.float64
    assert torch.allclose(first.double(), hazard, rtol=1e-11 if wide else 1e-5, atol=1e-300 if wide else 1e-37)
    # ln Phi is concave and its curvature tends to -1 on the left
    assert second.isfinite().all() and bool((second <= 0).all()) and bool((second >= -1.001).all())
    assert torch.allclose(second.double(), -hazard * (z.detach().double() + hazard), rtol=1e-6, atol=1e-3)
    inner = torch.linspace(-8, 8, 33, dtype=torch.float64, requires_grad=True)
    assert gradgradcheck(log_ndtr, (inner,), atol=1e-6)
    far = torch.linspace(-1e5, -1e2, 101, dtype=dtype, requires_grad=True)  # where the curvature is a difference
    (first,) = torch.autograd.grad(log_ndtr(far).sum(), far, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), far)
    assert bool((second <= 0).all()) and bool((second >= -1).all())


@pytest.mark.parametrize("dtype, error", [(torch.float64, 5e-13), (torch.float32, 5e-6)])
def test_mills_ratio(dtype, error):
    z = torch.cat([torch.linspace(-60, 0, 601, dtype=dtype), -torch.logspace(2, 14, 25, dtype=dtype)])
    exact = math.sqrt(math.pi / 2) * special.erfcx(-z.double().numpy() / math.sqrt(2))
    assert ((mills(z).double() / torch.from_numpy(exact)) - 1).abs().max() < error
    inner = torch.tensor([-40.0, -30.0, -3.0, -0.1], dtype=torch.float64, requires_grad=True)
    assert gradcheck(mills, (inner,), rtol=1e-6) and gradgradcheck(mills, (inner,), rtol=1e-4)


@DTYPES
def test_log_ndtri_inverts_both_tails(dtype, reach):
    z = torch.linspace(-reach, reach, 601, dtype=dtype)
    back = log_ndtri(log_ndtr(z), log_ndtr(-z))
    assert ((back - z).abs() / z.abs().clamp(min=1)).max() < 40 * torch.finfo(dtype).eps


@DTYPES
def test_log_ndtri_differentiates_twice(dtype, reach):
    z = torch.linspace(-reach, reach, 60, dtype=dtype)
    log_p = log_ndtr(z).detach().requires_grad_()
    log_q = log_ndtr(-z).detach().requires_grad_()
    (first_p, first_q) = torch.autograd.grad(log_ndtri(log_p, log_q).sum(), (log_p, log_q), create_graph=True)
    second = torch.autograd.grad(first_p.sum() + first_q.sum(), (log_p, log_q))
    assert all(g.isfinite().all() for g in (first_p, first_q, *second))
    inner = torch.linspace(-4, -0.7, 9, dtype=torch.float64, requires_grad=True)
    invert = lambda l: log_ndtri(l, torch.log1p(-l.detach().exp()))  # noqa: E731, E741
    assert gradcheck(invert, (inner,)) and gradgradcheck(invert, (inner,))


@pytest.mark.parametrize("kind, cdf, pdf", [("logistic", stats.logistic.cdf, stats.logistic.pdf),
                                           ("normal", stats.norm.cdf, stats.norm.pdf)])
def test_mixture_cdf_in_the_middle(kind, cdf, pdf):
    x = torch.linspace(-6, 6, 101, dtype=torch.float64)
    weights, means, scales = (torch.tensor(v, dtype=torch.float64)
                              for v in ([0.2, 0.5, 0.3], [-2.0, 0.0, 3.0], [0.5, 1.0, 2.0]))
    log_f, log_g, log_density = log_mixture_cdf(x, weights.log(), means, scales.log(), kind)
    u = ((x[:, None] - means) / scales).numpy()
    f = torch.from_numpy((weights.numpy() * cdf(u)).sum(-1))
    assert torch.allclose(log_f.exp(), f, atol=1e-14) and torch.allclose(log_g.exp(), 1 - f, atol=1e-14)
    density = torch.from_numpy((weights.numpy() * pdf(u) / scales.numpy()).sum(-1))
    assert torch.allclose(log_density.exp(), density, atol=1e-14)


@DTYPES
@pytest.mark.parametrize("kind", ["logistic", "normal"])
def test_mixture_tails_carry_x(dtype, reach, kind):
    """Phi^-1(F(x)) of one standard normal component is x itself, and logit(F(x)) of one logistic component too."""
    x = torch.linspace(-reach, reach, 241, dtype=dtype)
    zero = torch.zeros(1, dtype=dtype)
    log_f, log_g, _ = log_mixture_cdf(x, zero, zero, zero, kind)
    z = log_f - log_g if kind == "logistic" else log_ndtri(log_f, log_g)
    assert ((z - x).abs() / x.abs().clamp(min=1)).max() < 40 * torch.finfo(dtype).eps


@pytest.mark.parametrize("kind", ["logistic", "normal"])
def test_mixture_differentiates_twice(kind):
    x = torch.tensor([-9.0, 0.3, 7.0], dtype=torch.float64, requires_grad=True)
    w, m, s = (torch.randn(3, 2, dtype=torch.float64).mul(0.3).requires_grad_() for _ in range(3))
    assert gradcheck(log_mixture_cdf, (x, w, m, s, kind)) and gradgradcheck(log_mixture_cdf, (x, w, m, s, kind))


def test_mixture_of_an_unknown_kind():
    with pytest.raises(ValueError, match="logistic"):
        log_mixture_cdf(torch.zeros(1), *[torch.zeros(1)] * 3, kind="cauchy")


# --- what a search and its checks tell


def double(x):
    return 2 * x, torch.full_like(x, 2.0)


def test_a_bracket_without_a_root_is_told_with_its_residual():
    with pytest.raises(fl.InversionError, match="1 of 2 places: the residual at y = 10 is -8"):
        solve_monotone(double, torch.tensor([1.0, 10.0]), 0.0, 1.0)
    with pytest.raises(fl.InversionError, match="residual at y = -4 is 4"):
        solve_monotone(double, torch.tensor([-4.0]), 0.0, 1.0)
    with pytest.raises(fl.InversionError, match="too few steps"):
        solve_monotone(lambda x: (x**3, 3 * x * x), torch.tensor([1000.0]), -4000.0, 4000.0, steps=5)
    assert solve_monotone(double, torch.tensor([10.0]), 0.0, 1.0, check=False).item() == pytest.approx(1.0)


def test_where_no_number_can_be_looked_at_nothing_is_told():
    solved = torch.func.vmap(lambda y: solve_monotone(double, y, 0.0, 1.0))(torch.tensor([10.0, 1.0]))
    assert solved.tolist() == pytest.approx([1, 0.5])
    assert solve_monotone(double, torch.ones(3, device="meta"), 0.0, 1.0).shape == (3,)


def test_a_bad_row_harms_no_other():
    """y that is not finite stays as it is, and its row gives no gradient to what the rows share."""
    y = torch.tensor([float("nan"), float("inf"), -float("inf"), 1.0], requires_grad=True)
    a = torch.tensor(1.0, requires_grad=True)
    x = solve_monotone(bend, y, -9.0, 9.0, a.expand(4), torch.zeros(4))
    assert x[0].isnan() and x[1:3].tolist() == [float("inf"), -float("inf")]
    x.sum().backward()
    assert a.grad.isfinite() and a.grad != 0 and y.grad[:3].tolist() == [0, 0, 0] and y.grad[3] > 0


def test_tails_at_infinity():
    ends = torch.tensor([-torch.inf, torch.inf], requires_grad=True)
    assert log_ndtr(ends).tolist() == [-torch.inf, 0.0]
    assert torch.autograd.grad(log_ndtr(ends).sum(), ends)[0].tolist() == [0.0, 0.0]


def test_third_derivatives_in_the_tails():
    z = torch.linspace(-8, 8, 17, dtype=torch.float64, requires_grad=True)
    curvature = torch.func.grad(torch.func.grad(lambda v: log_ndtr(v)))
    assert gradcheck(torch.func.vmap(curvature), (z,))
    log_p = torch.linspace(-20, -0.7, 9, dtype=torch.float64, requires_grad=True)
    bend_of = torch.func.grad(torch.func.grad(lambda v: log_ndtri(v, torch.zeros_like(v))))
    assert gradcheck(torch.func.vmap(bend_of), (log_p,))


def test_sqrt_softplus():
    """Far to the left, between torch's default threshold of 20 and ours of 40, and beyond."""
    t = torch.tensor([-1200.0, -120.0, -39.0, 0.0, 21.0, 39.0, 50.0], dtype=torch.float64)
    exact = [-600.0, -60.0, -19.5, *(0.5 * math.log(math.log1p(math.exp(v))) for v in t[3:].tolist())]
    assert torch.allclose(sqrt_softplus(t).log(), torch.tensor(exact, dtype=torch.float64), rtol=1e-14, atol=0)
    assert bool((sqrt_softplus(torch.tensor([-1e4, -200.0])) > 0).all())
    inner = torch.tensor([-50.0, -1.0, 30.0], dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda v: sqrt_softplus(v).log(), (inner,))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_sums_of_tamed_numbers_are_finite(dtype):
    assert tame(torch.full((8,), torch.finfo(dtype).max, dtype=dtype)).sum().isfinite()
