r"""Ordinary differential equations $dy/dt = f(t, y)$ by explicit Runge-Kutta methods of fixed step, in the open; with
plain gradients, or with those of the adjoint equation, whose memory does not grow with the number of steps."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["integrate", "integrate_adjoint"]

State = tuple[Tensor, ...]
Field = Callable[[float, State], State]

# Stage k starts from the slope of stage k - 1, so far ahead; the step takes the weighted mean of all slopes.
METHODS = {
    "euler": ((0.0,), (1.0,)),
    "midpoint": ((0.0, 0.5), (0.0, 1.0)),
    "rk4": ((0.0, 0.5, 0.5, 1.0), (1 / 6, 1 / 3, 1 / 3, 1 / 6)),
}


def step(f: Field, t: float, h: float, state: State, method: str = "rk4") -> State:
    """One step from t to t + h; arguments and errors are those of `integrate`."""
    if method not in METHODS:
        raise ValueError(f"method is one of {', '.join(map(repr, METHODS))}, got {method!r}")
    nodes, weights = METHODS[method]
    slope, mean = state, tuple(torch.zeros_like(y) for y in state)
    for node, weight in zip(nodes, weights):
        slope = f(t + node * h, tuple(y + node * h * s for y, s in zip(state, slope)) if node else state)
        mean = tuple(m + weight * s for m, s in zip(mean, slope))
    return tuple(y + h * m for y, m in zip(state, mean))


def integrate(f: Field, state: State, start: float, end: float, steps: int, method: str = "rk4") -> State:
    r"""The solution at `end` of $dy/dt = f(t, y)$ that is `state` at `start`. Backwards in time where end < start.

    Gradients go through every operation, so they are those of what was computed; their memory grows with the number
    of steps. The error falls like $h^p$ in the step h: p = 1 for "euler", 2 for "midpoint", 4 for "rk4" (the classical
    method of Kutta 1901), at p evaluations of f a step.

    Args:
        f: (t, state) -> the slopes, of the state's shapes; t is a number.
        state: Tensors of any shapes.
        start, end: Times.
        steps: How many, of equal length.
        method: "euler", "midpoint" or "rk4".

    Raises:
        ValueError: No step, or an unknown method.

    Example:
        >>> y, = integrate(lambda t, y: (-y[0],), (torch.ones(1),), 0.0, 1.0, steps=10)
        >>> print(f"{y.item():.5f}")  # 1/e
        0.36788
    """
    if steps < 1:
        raise ValueError(f"a solver makes at least one step, got {steps}")
    h = (end - start) / steps
    for k in range(steps):
        state = step(f, start + k * h, h, state, method)
    return state


def integrate_adjoint(f: Field, state: State, start: float, end: float, steps: int, parameters: Sequence[Tensor],
                      method: str = "rk4") -> State:
    r"""The same value as `integrate`, with gradients by the adjoint equation: from the end, back to the start,

    $$\frac{dy}{dt} = f, \qquad \frac{da}{dt} = -a^\top \frac{\partial f}{\partial y}, \qquad
    \frac{dg}{dt} = -a^\top \frac{\partial f}{\partial \theta},$$

    where a is the gradient of the loss by y(t), and g that by the parameters (Chen et al. 2018, arXiv:1806.07366,
    algorithm 1).

    The states on the way are solved for again and not kept: memory is that of one step, for as much time again as the
    plain gradient takes. Gradients agree with the plain ones up to the solver's error. Differentiable once.

    Args:
        f, state, start, end, steps, method: As for `integrate`.
        parameters: All tensors, beside the state, that f depends on and that want a gradient; others that it reads get
            none.

    Raises:
        ValueError: As `integrate`.

    Example:
        >>> rate = torch.tensor(1.0, requires_grad=True)
        >>> y, = integrate_adjoint(lambda t, y: (-rate * y[0],), (torch.ones(1),), 0.0, 1.0, 10, [rate])
        >>> y.sum().backward(); print(f"{rate.grad:.4f}")  # -1/e
        -0.3679
    """
    return _Adjoint.apply(f, (start, end, steps, method), len(state), *state, *parameters)


class _Adjoint(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, f, span, n, *tensors):
        ctx.f, ctx.span, ctx.n = f, span, n
        state = tuple(y.detach() for y in tensors[:n])
        start, end, steps, method = span
        out = integrate(f, state, start, end, steps, method)
        ctx.save_for_backward(*out, *tensors[n:])
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads):
        n, (start, end, steps, method) = ctx.n, ctx.span
        out, parameters = ctx.saved_tensors[:n], ctx.saved_tensors[n:]

        def augmented(t, state):
            with torch.enable_grad():
                y = tuple(v.detach().requires_grad_() for v in state[:n])
                slopes = ctx.f(t, y)
                slope_grads = torch.autograd.grad(slopes, (*y, *parameters), tuple(-a for a in state[n : 2 * n]),
                                                  allow_unused=True, materialize_grads=True)
            return (*(s.detach() for s in slopes), *slope_grads)

        whole = (*out, *grads, *(torch.zeros_like(p) for p in parameters))
        back = integrate(augmented, whole, end, start, steps, method)
        return None, None, None, *back[n:]
