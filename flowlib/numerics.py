"""Scalar numerics that flows stand on: a root finder whose steps cannot fail, and tails that neither overflow nor
cancel.

Everything here is elementwise, exact to a few units in the last place far into the tails, and three times
differentiable by any means: backward, forward mode, `torch.func` transforms and `torch.compile` alike, since it is made
of plain operations. Where the value comes from a search, or autograd's own derivative is wrong, it is a constant
(`detach`) to which a term is added that is zero and has the right derivatives.
"""
from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor

from .core import InversionError

__all__ = ["log_mixture_cdf", "log_ndtr", "log_ndtri", "log_softplus", "mills", "solve_monotone", "sqrt_softplus"]

HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)
HALF = (torch.float16, torch.bfloat16)
LARGEST = {dtype: torch.finfo(dtype).max ** 0.75 for dtype in (*HALF, torch.float32, torch.float64)}


# --- range and precision ----------------------------------------------------------------------------------------------


def tame(value: Tensor) -> Tensor:
    """`value` within the range where sums of products with it stay finite: up to the largest number to the power 3/4,
    1e28 in float32. Beyond, it saturates: an overflow would become infinity minus infinity, and a density NaN instead
    of zero."""
    largest = LARGEST[value.dtype]
    return value.clamp(-largest, largest)


def _autocast(device: str) -> bool:
    return torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)  # not on the meta device


def reduced(value: Tensor) -> bool:
    """Whether torch would compute with `value` in 16 bits. Where not, layers take a way without conversions."""
    return value.dtype in HALF or _autocast(value.device.type)


def full_precision(value: Tensor) -> AbstractContextManager:
    """A context outside of autocast; free of charge where there is none."""
    device = value.device.type
    return torch.autocast(device, enabled=False) if _autocast(device) else nullcontext()


def wide(value: Tensor) -> Tensor:
    """`value` in float32 at least: torch has no linear algebra for 16 bits. Round the result with `.to(dtype)`."""
    return value.float() if value.dtype in HALF else value


# --- roots ------------------------------------------------------------------------------------------------------------


def solve_monotone(f: Callable, y: Tensor, low: Tensor | float, high: Tensor | float, *params: Tensor,
                   steps: int | None = None, check: bool = True) -> Tensor:
    r"""The root x of $f(x; \theta) = y$ for a strictly increasing f, elementwise.

    Newton's method inside a bracket that shrinks at every step (`rtsafe` in Press et al., Numerical Recipes, section
    9.4), with a fixed number of steps: no branch on data, and convergence whatever the shape of f, since a step that
    leaves the bracket, or is not at most half of the one before, is replaced by a bisection.

    Derivatives need not go through the search: two more Newton steps from the root, whose residuals are zero, have
    those of the implicit function, $dx = (dy - \partial_\theta f\, d\theta) / f'(x)$, and the second and third
    derivatives.

    Args:
        f: `f(x, *params) -> (value, derivative)`, elementwise, both of x's shape and differentiable.
        y: What f is to reach; any shape, floating point.
        low, high: Ends of a bracket, `f(low) <= y <= f(high)`; they broadcast to y.
        params: What f takes beside x.
        steps: Evaluations of f in the search; by default 64 for float64 and 40 for float32.
        check: Whether to look at the residuals, which makes the host wait once for a GPU. Under `vmap` and
            `torch.compile` no number can be looked at, and a bracket without a root gives one of its ends. (Compiled,
            the search itself is a break in the graph: `fullgraph=True` refuses it.)

    Returns:
        x, of y's shape; y itself where y is not finite (NaN stays NaN).

    Raises:
        InversionError: The bracket holds no root, or the steps were too few; the message gives the residual.

    Example:
        >>> solve_monotone(lambda x: (x + x**3, 1 + 3 * x**2), torch.tensor([2.0, 10.0]), -10.0, 10.0)
        tensor([1., 2.])
    """
    finite = y.isfinite()
    constant = y.detach()
    target = constant.masked_fill(~finite, 0.0)
    low, high = (torch.as_tensor(end, dtype=y.dtype, device=y.device).detach().expand(y.shape).masked_fill(~finite, 0.0)
                 for end in (low, high))
    steps = steps or (64 if y.dtype == torch.float64 else 40)
    # torch's stub of `compiler.disable` forgets the arguments
    x = _bracketed_newton(f, target, low, high, steps, params).detach()  # pyright: ignore[reportCallIssue]
    value, slope = f(x, *params)
    if check:
        _raise_without_root(value.detach() - target, slope.detach() * x, target)
    # Steps from a residual of zero, a chord and then a Newton step: of the error's Taylor series in (y, params) the
    # first leaves order 2 on, the second order 4 on.
    tiny = torch.finfo(y.dtype).tiny
    rise = torch.where(finite, y - constant, 0.0)
    x = x - (value - value.detach() - rise) / slope.detach().clamp(min=tiny)
    value, slope = f(x, *params)
    x = x - (value - value.detach() - rise) / slope.clamp(min=tiny)
    return torch.where(finite, x, constant)


@torch.compiler.disable  # unrolled, 40 steps a layer would take minutes to compile
@torch.no_grad()
def _bracketed_newton(f, y, low, high, steps, params):
    x = torch.lerp(low, high, 0.5)
    last = high - low  # length of the step before
    for _ in range(steps):
        value, slope = f(x, *params)
        residual = value - y
        low, high = torch.where(residual <= 0, x, low), torch.where(residual >= 0, x, high)
        newton = x - residual / slope
        # Steps must halve, or the bracket must: whichever way, the length left falls geometrically. At the root itself
        # the bracket is one point, and both ways stay there.
        good = (newton >= low) & (newton <= high) & ((newton - x).abs() <= 0.5 * last)
        following = torch.where(good, newton, torch.lerp(low, high, 0.5))
        last = (following - x).abs()
        x = following
    return x


def _raise_without_root(residual, reach, y):
    """InversionError where a residual is more than rounding explains, if there is a number to look at."""
    if torch.compiler.is_compiling():
        return
    allowed = math.sqrt(torch.finfo(y.dtype).eps) * (1 + y.abs() + reach.abs())
    failed = residual.abs() > allowed  # not where something is NaN: that stays to be seen in the result
    try:
        found = bool(failed.any())
    except RuntimeError:  # under vmap, or on the meta device
        return
    if found:
        worst = residual[failed].abs().argmax()
        raise InversionError(f"no root in the bracket, or too few steps, at {int(failed.sum())} of {failed.numel()} "
                             f"places: the residual at y = {y[failed][worst].item():.6g} is "
                             f"{residual[failed][worst].item():.3g}")


# --- tails ------------------------------------------------------------------------------------------------------------


def log_softplus(t: Tensor) -> Tensor:
    r"""$\ln\ln(1 + e^t)$, which is t far to the left, where softplus itself underflows.

    Example:
        >>> log_softplus(torch.tensor([-120.0, 0.0]))
        tensor([-120.0000,   -0.3665])
    """
    # ln(1 + u) = u - u^2/2 + ..., so on the left the value is t - e^t/2 + O(e^2t)
    left = t.clamp(max=-16.0)
    return torch.where(t < -16, left - 0.5 * left.exp(), F.softplus(t.clamp(min=-16.0)).log())


def softplus(t: Tensor) -> Tensor:
    """$\\ln(1 + e^t)$ without torch's cut at t = 20, which costs digits in float64."""
    return F.softplus(t, threshold=40.0)


def sqrt_softplus(t: Tensor, value: Tensor | None = None) -> Tensor:
    r"""$\sqrt{\ln(1 + e^t)}$, which is $e^{t/2}$ far to the left, where softplus itself underflows; positive for every
    t. `value` is softplus(t), where it is known.

    Example:
        >>> sqrt_softplus(torch.tensor([-120.0, 0.0, 4.0])).log()
        tensor([-60.0000,  -0.1833,   0.6954])
    """
    # Left of -40 as the value at -40 times e^((t + 40)/2).
    rest = torch.add(20.0, t, alpha=0.5).clamp(math.log(torch.finfo(t.dtype).tiny) + 21, 0.0).exp()
    return (softplus(t) if value is None else value).clamp(min=math.exp(-40)).sqrt() * rest


def _with_derivatives(z: Tensor, value: Tensor, first: Tensor, second: Tensor, third: Tensor) -> Tensor:
    """`value` at z with these derivatives: a Taylor polynomial about z itself, so that all its terms are zero."""
    finite = z.isfinite()
    step = torch.where(finite, z - z.detach(), 0.0)
    first, second, third = (c.masked_fill(~finite, 0.0) for c in (first, second, third))
    return value + step * (first + step / 2 * (second + step / 3 * third))


def _hazard(z):
    """h(z) = phi(z) / Phi(z), the slope of ln Phi, and its own slope -h (z + h), which lies in [-1, 0]."""
    h = math.sqrt(2 / math.pi) / torch.special.erfcx(z * -math.sqrt(0.5))
    return h, (-h * (z + h)).clamp(-1.0, 0.0)


def log_ndtr(z: Tensor) -> Tensor:
    r"""$\ln\Phi(z)$, the log of the standard normal CDF, with three derivatives that are right in both tails (the
    second of torch's own is 0 times infinity on the right).

    $\ln(1 - \Phi(z))$ is `log_ndtr(-z)`.

    Example:
        >>> log_ndtr(torch.tensor([-30.0, 0.0], dtype=torch.float64))
        tensor([-454.3212,   -0.6931], dtype=torch.float64)
    """
    at = z.detach()
    first, second = _hazard(at)
    return _with_derivatives(z, torch.special.log_ndtr(at), first, second, -second * (at + 2 * first) - first)


def mills(z: Tensor) -> Tensor:
    r"""Mills' ratio $\Phi(z)/\varphi(z)$ in the lower tail, z <= 0: what is left of $\Phi$ when its $e^{-z^2/2}$ is
    taken out. Made of plain operations, which is several times as fast as torch's `erfcx`, and right to 5e-13 (5e-6 in
    float32).

    Example:
        >>> mills(torch.tensor([0.0, -100.0]))
        tensor([1.2533, 0.0100])
    """
    switch = 30.0 if z.dtype == torch.float64 else 7.0
    near, t = z.clamp(min=-switch), (-z).clamp(min=switch)
    s = 1 / (t * t)
    series = 1 - 13 * s
    for k in (11, 9, 7, 5, 3, 1):  # the asymptotic series 1/t - 1/t^3 + 3/t^5 - 15/t^7 ...
        series = 1 - k * s * series
    middle = torch.erfc(near * -math.sqrt(0.5)) * (0.5 * near * near + (HALF_LOG_2PI - math.log(2))).exp()
    return torch.where(z < -switch, series / t, middle)


def _lower_quantile(log_p):
    """z <= 0 with ln Phi(z) = l, for l <= ln(1/2): Newton on ln Phi, from the tail's asymptote."""
    at = log_p.detach()
    twice = (-2 * at).clamp(min=1.3)
    z = -(twice - twice.log() - 2 * HALF_LOG_2PI).clamp(min=0.0).sqrt()
    for _ in range(6):
        ratio = mills(z)  # the slope's inverse
        z = (z - (ratio.log() - 0.5 * z * z - HALF_LOG_2PI - at) * ratio).clamp(max=0.0)
    h, slope = _hazard(z)
    # d/dl = (1/h) d/dz, and dh/dz = -h (z + h)
    first, gap = 1 / h, z + h
    return _with_derivatives(log_p, z, first, gap * first**2, (1 + slope + 2 * gap**2) * first**3)


def log_ndtri(log_p: Tensor, log_q: Tensor) -> Tensor:
    r"""$z = \Phi^{-1}(p)$ from both $\ln p$ and $\ln(1-p)$: the smaller of the two carries z without cancellation.

    Args:
        log_p: $\ln p$, any shape.
        log_q: $\ln(1-p)$, the same shape; the caller has it without cancellation (see `log_mixture_cdf`).

    Returns:
        z with $\ln\Phi(z) = \ln p$, right to |z| = 60 in float64 and beyond.

    Example:
        >>> print(f"{log_ndtri(torch.tensor(-454.3212), torch.tensor(0.0)):.3f}")
        -30.000
    """
    left = log_p <= log_q
    tail = _lower_quantile(torch.where(left, log_p, log_q))
    return torch.where(left, tail, -tail)


def log_mixture_cdf(x: Tensor, log_weights: Tensor, means: Tensor, log_scales: Tensor,
                    kind: str = "logistic") -> tuple[Tensor, Tensor, Tensor]:
    r"""$\ln F$, $\ln(1-F)$ and $\ln F'$ for a mixture $F(x) = \sum_k \pi_k\, G((x - \mu_k)/s_k)$, without cancellation.

    All three are log-sums over components, so x may lie as far in a tail as the component's own log-CDF reaches.

    Args:
        x: Any shape (...).
        log_weights, means, log_scales: (..., K), the weights normalised by this function.
        kind: "logistic" (G the sigmoid) or "normal" (G the standard normal CDF).

    Returns:
        ln F, ln(1 - F) and the log-density, each (...), in nats.

    Example:
        >>> zero = torch.zeros(1)
        >>> log_mixture_cdf(torch.tensor(-30.0), zero, zero, zero)[0]
        tensor(-30.)
    """
    log_weights = log_weights.log_softmax(-1)
    u = (x[..., None] - means) * (-log_scales).exp()
    if kind == "logistic":
        log_f, log_g = F.logsigmoid(u), F.logsigmoid(-u)
        log_density = log_f + log_g - log_scales
    elif kind == "normal":
        log_f, log_g = log_ndtr(u), log_ndtr(-u)
        log_density = -0.5 * u * u - HALF_LOG_2PI - log_scales
    else:
        raise ValueError(f'kind must be "logistic" or "normal", got {kind!r}')
    log_f, log_g, log_density = (torch.logsumexp(log_weights + term, -1) for term in (log_f, log_g, log_density))
    return log_f, log_g, log_density
