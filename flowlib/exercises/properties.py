"""The laws that the open checks test on a student's functions, on random inputs.

A check prints one line and never raises. It names the property that is violated, and never the answer. What a student
wrote is called only through `attempt`, so that a stub reads "not attempted yet".
"""
from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..checks import jacobian

TOLERANCE = 1e-6  # for functions in double precision with values of size one


class NotAttempted(Exception):
    """The function is still the stub, or returns nothing."""


class Violated(Exception):
    """The property named by the message does not hold."""


def open_check(title: str) -> Callable[[Callable], Callable[..., None]]:
    """Make a check of a function that calls `holds` for one property after another."""
    def decorate(test):
        @functools.wraps(test)
        def check(*functions):
            with torch.random.fork_rng(devices=[]):
                torch.seed()  # other inputs at every call, and the notebook's own random numbers stay as they were
                try:
                    test(*functions)
                except NotAttempted:
                    print(f"{title}: not attempted yet")
                except Violated as error:
                    print(f"{title}: violated: {error}")
                except (Exception, SystemExit) as error:  # the student's own
                    print(f"{title}: your code stopped with {type(error).__name__}: {error}")
                else:
                    print(f"{title}: all properties hold")
        return check
    return decorate


def holds(condition: bool | Tensor, sentence: str) -> None:
    """Raise Violated unless the condition is true."""
    if not bool(condition):
        raise Violated(sentence)


def attempt(function: Callable, *arguments) -> Any:
    """Call a student's function; NotAttempted if it is a stub."""
    try:
        value = function(*arguments)
    except NotImplementedError:
        raise NotAttempted from None
    if value is None or value is Ellipsis:
        raise NotAttempted
    return value


def near(a: Tensor, b: Tensor, tolerance: float = TOLERANCE) -> bool:
    """Whether two tensors of one shape are finite and equal up to rounding."""
    return a.shape == b.shape and bool(a.isfinite().all()) and bool(((a - b).abs() <= tolerance * (1 + b.abs())).all())


def random(low: float, high: float, *shape: int) -> Tensor:
    """Uniform numbers in double precision."""
    return low + (high - low) * torch.rand(shape, dtype=torch.float64)


def map_properties(function: Callable, points: Tensor, parameters: tuple, name: str) -> tuple[Tensor, Tensor]:
    """One direction of a bijection: `function(points, *parameters)` gives the values and one log-det for each row.

    Tests shapes, finiteness, the log-det against the autograd Jacobian, the independence of the rows, and the gradients
    of both outputs with respect to the parameters against central differences.

    Returns:
        The two outputs.
    """
    result = attempt(function, points.clone(), *parameters)
    holds(isinstance(result, tuple) and len(result) == 2 and all(isinstance(part, Tensor) for part in result),
          f"{name} returns two tensors")
    value, log_det = result
    ndim, rows = points.ndim - 1, len(points)
    holds(value.shape == points.shape, f"{name} keeps the shape of its input, {tuple(points.shape)}")
    holds(log_det.shape == (rows,), f"{name} gives one log-det for each of the {rows} rows")
    holds(value.isfinite().all() and log_det.isfinite().all(), f"{name} gives finite numbers")
    try:
        slopes = jacobian(lambda p: attempt(function, p, *parameters)[0], points, ndim)
    except RuntimeError:
        raise Violated(f"autograd can follow {name} from its value back to its input") from None
    agrees = near(log_det, torch.linalg.slogdet(slopes)[1])
    holds(agrees, f"the log-det of {name} agrees with its Jacobian from autograd")
    first = attempt(function, points[:1].clone(), *parameters)
    alone = near(first[0], value[:1]) and near(first[1], log_det[:1])
    holds(alone, f"the first row of {name} does not depend on the others")
    weights = random(-1, 1, *value.shape), random(-1, 1, rows)

    def weighted(*parameters):
        out = attempt(function, points.clone(), *parameters)
        return sum((w * part).sum() for w, part in zip(weights, out))

    gradient_property(weighted, parameters, f"gradients flow through {name} to its parameters")
    return value, log_det


def gradient_property(scalar: Callable, parameters: tuple, sentence: str) -> None:
    """The gradient of a scalar function by autograd agrees with central differences along a random direction."""
    leaves = [p.detach().clone().requires_grad_() for p in parameters]
    total = scalar(*leaves)
    holds(total.requires_grad, sentence)
    gradients = torch.autograd.grad(total, leaves, allow_unused=True)
    direction = [random(-1, 1, *p.shape) for p in parameters]
    step = 1e-5
    with torch.no_grad():
        up, down = (scalar(*(p + s * step * d for p, d in zip(parameters, direction))) for s in (1, -1))
    slope = sum((g * d).sum() for g, d in zip(gradients, direction) if g is not None)
    holds(near(torch.as_tensor(slope, dtype=total.dtype), (up - down) / (2 * step), 1e-4), sentence)


def bijection_properties(forward: Callable, inverse: Callable, z: Tensor, parameters: tuple) -> None:
    """Both directions, and that they belong together: round trip, and log-dets that cancel."""
    x, there = map_properties(forward, z, parameters, forward.__name__)
    x, there = x.detach(), there.detach()
    back, home = map_properties(inverse, x, parameters, inverse.__name__)
    holds(near(back, z), "the round trip: the inverse of the image of z is z")
    holds(near(there, -home), "the log-dets of the two directions cancel")


def show_table(title: str, experiment: Callable, width: int, columns: tuple[str, ...],
               rows: str = "model") -> None:
    """Run an experiment and print its table: for each (name, scores, ...) the name, and mean ± s.d. of every list."""
    try:
        lines = [f"{rows:{width}}" + "".join(f"{column:18}" for column in columns).rstrip()]
        for model, *scores in attempt(experiment):
            mean_sd = [f"{score.mean():6.2f} ± {score.std():.2f}" for score in map(torch.as_tensor, scores)]
            lines.append(f"{model:{width}}" + "     ".join(mean_sd))
        print(*lines, sep="\n")
    except NotAttempted:
        print(f"{title}: not attempted yet")
    except (Exception, SystemExit) as error:  # the student's own
        print(f"{title}: your code stopped with {type(error).__name__}: {error}")
