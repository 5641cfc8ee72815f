"""Open checks of problem set 1. Each prints one line: all holds, what is violated, or "not attempted yet"."""
from __future__ import annotations

import math
from collections.abc import Callable

import torch

from ..properties import (
    Violated,
    attempt,
    bijection_properties,
    gradient_property,
    holds,
    near,
    open_check,
    random,
    show_table,
)


@open_check("Exercise 1")
def check_weibull(forward: Callable, inverse: Callable) -> None:
    """Round trip, log-slopes and their signs, gradients, two points of the curve, total probability."""
    parameters = random(0.5, 2.0), random(0.8, 3.0)
    bijection_properties(forward, inverse, random(0.05, 0.95, 5), parameters)
    scale, two = random(1.5, 2.0), torch.tensor(2.0, dtype=torch.float64)
    places = torch.tensor([-1.0, -4.0], dtype=torch.float64).exp()
    holds(near(attempt(forward, places, scale, two)[0], torch.stack([scale, 2 * scale])),
          "with the shape 2, z = 1/e goes to the scale and z = 1/e^4 to twice the scale")
    x = parameters[0] * torch.linspace(-16.0, 3.0, 20001, dtype=torch.float64).exp() ** (1 / parameters[1])
    density = attempt(inverse, x, *parameters)[1].exp()  # of a uniform base
    holds(abs(torch.trapezoid(density, x) - 1) < 1e-3, "the total probability is 1")


@open_check("Exercise 3")
def check_low_rank(forward: Callable, inverse: Callable) -> None:
    """Round trip, log-dets for determinants of both signs, gradients, which vector is which, many dimensions."""
    for gain, dim in ((1.5, 3), (-0.5, 4)):
        d, u, v = random(0.5, 2.0, dim) * torch.sign(random(-1, 1, dim)), random(0.2, 1.0, dim), random(0.2, 1.0, dim)
        v = v * torch.sign(d)
        u = u * (gain - 1) / (u * v / d).sum()
        z = random(-1, 1, 3, dim)
        bijection_properties(forward, inverse, z, (d, u, v))
        z = z - (z @ v)[:, None] * v / (v @ v)
        holds(near(attempt(forward, z, d, u, v)[0], d * z), "where v.z = 0, nothing is added to d z")
    dim = 1_000_000  # a full matrix would have 8 TB
    d, u, v = random(0.5, 2.0, dim), random(-1, 1, dim) / dim, random(-1, 1, dim)
    try:
        with torch.no_grad():
            x, there = attempt(forward, random(-1, 1, 2, dim), d, u, v)
            z, back = attempt(inverse, x, d, u, v)
            again = attempt(forward, z, d, u, v)[0]
    except (RuntimeError, MemoryError):
        raise Violated("no matrix is built: 1,000,000 dimensions are possible") from None
    holds(near(again, x), "the round trip in 1,000,000 dimensions")
    holds(near(there, -back), "the log-dets in 1,000,000 dimensions are finite and cancel")


@open_check("Exercise 4")
def check_banana(forward: Callable, inverse: Callable) -> None:
    """Round trip, log-dets also for negative a, gradients, each of the three terms by itself."""
    for sign in (1, -1):
        parameters = sign * random(0.5, 2.0), random(-1, 1), random(0.3, 1.0)
        z, (a, b, c) = random(-2, 2, 6, 2), parameters
        bijection_properties(forward, inverse, z, parameters)
        upright = z * torch.tensor([0.0, 1.0], dtype=torch.float64)
        holds(near(attempt(forward, upright, a, b, c)[0], upright), "where z1 = 0, nothing moves")
        x1, x2 = attempt(forward, z - upright, a, b, c)[0].T
        holds(near(x2, b * x1**2), "where z2 = 0, x2 is b x1^2")
        unbent = attempt(forward, z.new_ones(1, 2), a, 0 * b, c)[0]
        holds(near(unbent[0, 1], c.exp()), "where z1 = z2 = 1 and b = 0, x2 is e^c, whatever a is")


@open_check("Exercise 5")
def check_chain(log_prob: Callable) -> None:
    """Shape, independent rows, total probability of one and of two layers, the order of the layers, what one layer
    does, gradients."""
    def chain(layers, dim):
        scales = torch.eye(dim, dtype=torch.float64) * random(0.8, 1.2, layers, 1, 1)
        return scales + random(-0.2, 0.2, layers, dim, dim), random(-0.5, 0.5, layers, dim), random(1.1, 1.4).item()

    x, (matrices, shifts, power) = random(-2, 2, 5, 3), chain(2, 3)
    log_p = attempt(log_prob, x, matrices, shifts, power)
    holds(isinstance(log_p, torch.Tensor) and log_p.shape == (5,), "there is one log-density for each of the 5 rows")
    alone = attempt(log_prob, x[:1], matrices, shifts, power)
    holds(near(alone, log_p[:1]), "the first row does not depend on the others")
    axis = torch.sinh(torch.linspace(-5.5, 5.5, 401, dtype=torch.float64))  # up to 122, and dense near zero
    grid = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), -1)
    for layers in (1, 2):
        density = attempt(log_prob, grid.reshape(-1, 2), *chain(layers, 2)).exp().reshape(grid.shape[:2])
        total = torch.trapezoid(torch.trapezoid(density, axis), axis)
        holds(abs(total - 1) < 0.01, f"the total probability with {layers} layer{'s' if layers > 1 else ''} is 1")
    # z = 0 shifted by 3, then doubled, is 6; doubled, then shifted, it would be 3
    identity, steps = torch.eye(2, dtype=torch.float64), torch.tensor([[3.0, 3.0], [0.0, 0.0]], dtype=torch.float64)
    ends = torch.tensor([[3.0, 3.0], [6.0, 6.0]], dtype=torch.float64)
    three, six = attempt(log_prob, ends, torch.stack([identity, 2 * identity]), steps, 1.0)
    holds(six > three, "the first layer of the list is the first one after z")
    shift, at_zero, power_of = random(-1, 1, 1, 2), -math.log(2 * math.pi), random(1.2, 1.8).item()
    straight, bent = (attempt(log_prob, shift, identity[None], shift, p) for p in (1.0, power_of))
    holds(near(straight, torch.full_like(straight, at_zero)) and near(bent, straight - 2 * math.log(power_of)),
          "with A = I, the log-density at b falls by D ln p when the power goes from 1 to p")
    shear = torch.tensor([[[1.0, 1.0], [0.0, 1.0]]], dtype=torch.float64)
    log_p = attempt(log_prob, identity[:1], shear, 0 * shift, 1.0)
    holds(near(log_p, torch.full_like(log_p, at_zero - 0.5)), "A acts on columns: (1 1; 0 1) leaves (1, 0) where it is")
    curve = power_of * math.asinh(1.0)  # of a layer that first bends, then multiplies by 2, then adds b
    log_p = attempt(log_prob, shift + 2 * math.sinh(curve), 2 * identity[None], shift, power_of)
    slope = 2 * power_of * math.cosh(curve) / math.sqrt(2)
    holds(near(log_p, torch.full_like(log_p, at_zero - 1 - 2 * math.log(slope))),
          "a layer bends first, then applies A, then adds b")
    gradient_property(lambda a, b: attempt(log_prob, x, a, b, power).sum(), (matrices, shifts),
                      "gradients flow to matrices and shifts")


def show_experiment(experiment: Callable) -> None:
    """Run exercise 6 and print its table: a list of (model, train, held out), the last two lists of nats."""
    show_table("Exercise 6", experiment, 20, ("nats, train", "nats, held out"))
