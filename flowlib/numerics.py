"""Scalar numerics that flows stand on: a root finder that always converges, and tails that neither overflow nor cancel.

Everything here is elementwise, exact to a few units in the last place far into the tails, and twice differentiable.
"""
from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["log_mixture_cdf", "log_ndtr", "log_ndtri", "log_softplus", "solve_monotone"]

HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


# --- roots ------------------------------------------------------------------------------------------------------------


class _Root(torch.autograd.Function):
    """The solution x of f(x, *params) = y as a function of y and params.

    Implicit function theorem: dx = (dy - sum_k df/dparam_k dparam_k) / f'(x). `backward` is itself written with
    differentiable operations on the saved x, which autograd knows as this function's output; so it differentiates again.
    """

    @staticmethod
    def forward(ctx, f, y, low, high, steps, *params):
        x = _bracketed_newton(f, y, low, high, steps, params)
        ctx.f = f
        ctx.save_for_backward(x, y, *params)
        return x

    @staticmethod
    def backward(ctx, grad):
        x, y, *params = ctx.saved_tensors
        needed = [i for i, p in enumerate(params) if ctx.needs_input_grad[5 + i]]
        with torch.enable_grad():
            # Fresh aliases: the gradient with respect to a parameter must stop there, and not run on through x.
            aliases = [p.view_as(p) for p in params] if needed else params
            aliases = [a if a.requires_grad else a.detach() for a in aliases]
            value, slope = ctx.f(x, *aliases)
            grad_y = grad / slope
            grads = torch.autograd.grad(value, [aliases[i] for i in needed], -grad_y,
                                        create_graph=torch.is_grad_enabled(), allow_unused=True) if needed else []
        out = [None] * len(params)
        for i, g in zip(needed, grads):
            out[i] = g
        return (None, grad_y.sum_to_size(y.shape), None, None, None, *out)


def _bracketed_newton(f, y, low, high, steps, params):
    """Newton's method inside a bracket that shrinks at every step; where Newton leaves it or is slow, bisection."""
    low, high = (torch.as_tensor(b, dtype=y.dtype, device=y.device).expand(y.shape) for b in (low, high))
    x = 0.5 * (low + high)
    last = high - low  # length of the step before
    for _ in range(steps):
        value, slope = f(x, *params)
        residual = value - y
        low, high = torch.where(residual <= 0, x, low), torch.where(residual >= 0, x, high)
        newton = x - residual / slope
        # Steps must halve, or the bracket must: whichever way, the length left falls geometrically.
        good = (newton >= low) & (newton <= high) & ((newton - x).abs() <= 0.5 * last)
        following = torch.where(good, newton, 0.5 * (low + high))
        last = torch.where(residual == 0, last, (following - x).abs())
        x = torch.where(residual == 0, x, following)
    return x.masked_fill(~y.isfinite(), torch.nan)


def solve_monotone(f: Callable, y: Tensor, low: Tensor | float, high: Tensor | float, *params: Tensor,
                   steps: int | None = None) -> Tensor:
    r"""The root x of $f(x; \theta) = y$ for a strictly increasing f, elementwise.

    Bracketed Newton with a fixed number of steps: no branch on data, and convergence whatever the shape of f, since a step
    that is not at most half of the one before it is replaced by a bisection. The result is differentiable twice in y and
    $\theta$ by the implicit function theorem, at the cost of one evaluation of f, however many steps the search took.

    Args:
        f: `f(x, *params) -> (value, derivative)`, elementwise, both of x's shape and differentiable by autograd.
        y: What f is to reach; any shape, floating point.
        low, high: Ends of a bracket, `f(low) <= y <= f(high)`; they broadcast to y.
        params: Tensors that f depends on. Gradients reach these and y alone, so pass all that need them.
        steps: Evaluations of f; by default 64 for float64 and 40 for float32.

    Returns:
        x, of y's shape; NaN where y is not finite.

    Example:
        >>> solve_monotone(lambda x: (x + x**3, 1 + 3 * x**2), torch.tensor([2.0, 10.0]), -10.0, 10.0)
        tensor([1., 2.])
    """
    steps = steps or (64 if y.dtype == torch.float64 else 40)
    return _Root.apply(f, y, low, high, steps, *params)


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


class _Hazard(torch.autograd.Function):
    """h(z) = phi(z) / Phi(z), the slope of ln Phi; h' = -h (z + h), as many times as asked."""

    @staticmethod
    def forward(ctx, z):
        h = math.sqrt(2 / math.pi) / torch.special.erfcx(z * -math.sqrt(0.5))
        ctx.save_for_backward(z, h)
        return h

    @staticmethod
    def backward(ctx, grad):
        z, h = ctx.saved_tensors
        return -grad * h * (z + h)


class _LogNdtr(torch.autograd.Function):
    """torch's own second derivative of log_ndtr is NaN in the right tail (0 times infinity); this one is not."""

    @staticmethod
    def forward(ctx, z):
        ctx.save_for_backward(z)
        return torch.special.log_ndtr(z)

    @staticmethod
    def backward(ctx, grad):
        return grad * _Hazard.apply(*ctx.saved_tensors)


def log_ndtr(z: Tensor) -> Tensor:
    r"""$\ln\Phi(z)$, the log of the standard normal CDF, with two derivatives that are right in both tails.

    $\ln(1 - \Phi(z))$ is `log_ndtr(-z)`.

    Example:
        >>> log_ndtr(torch.tensor([-30.0, 0.0], dtype=torch.float64))
        tensor([-454.3212,   -0.6931], dtype=torch.float64)
    """
    return _LogNdtr.apply(z)


class _LogNdtri(torch.autograd.Function):
    """z <= 0 with ln Phi(z) = l, for l <= ln(1/2): Newton on ln Phi, from the tail's asymptote. dz/dl = 1/h(z)."""

    @staticmethod
    def forward(ctx, log_p):
        twice = (-2 * log_p).clamp(min=1.3)
        z = -(twice - twice.log() - 2 * HALF_LOG_2PI).clamp(min=0.0).sqrt()
        for _ in range(8):
            value = torch.special.log_ndtr(z)
            z = z - (value - log_p) * (value + 0.5 * z * z + HALF_LOG_2PI).exp()
        ctx.save_for_backward(z)
        return z

    @staticmethod
    def backward(ctx, grad):
        return grad / _Hazard.apply(*ctx.saved_tensors)


def log_ndtri(log_p: Tensor, log_q: Tensor) -> Tensor:
    r"""$z = \Phi^{-1}(p)$ from both $\ln p$ and $\ln(1-p)$: the smaller of the two carries z without cancellation.

    Args:
        log_p: $\ln p$, any shape.
        log_q: $\ln(1-p)$, the same shape; the caller has it without cancellation (see `log_mixture_cdf`).

    Returns:
        z with $\ln\Phi(z) = \ln p$, right to |z| = 60 in float64 and beyond.

    Example:
        >>> log_ndtri(torch.tensor([-454.3212]), torch.tensor([0.0]))
        tensor([-30.])
    """
    left = log_p <= log_q
    tail = _LogNdtri.apply(torch.where(left, log_p, log_q))
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
    return tuple(torch.logsumexp(log_weights + term, -1) for term in (log_f, log_g, log_density))
