"""Open checks of problem set 4. Each prints one line: all holds, what is violated, or "not attempted yet"."""
from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from ...checks import jacobian
from ..properties import attempt, bijection_properties, gradient_property, holds, near, open_check, random, show_table


def network(dim: int, degrees: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
    """Weights and biases of the network with these degrees and 2 * dim outputs."""
    sizes = dim, *map(len, degrees), 2 * dim
    return tuple(random(-1.5, 1.5, *shape) for a, b in zip(sizes, sizes[1:]) for shape in ((b, a), (b,)))


def tensors(result: Any, count: int, name: str) -> tuple[Tensor, ...]:
    """What a student's function returned, if it is so many tensors."""
    holds(isinstance(result, tuple) and len(result) == count and all(isinstance(part, Tensor) for part in result),
          f"{name} returns {['one tensor', 'two tensors', 'three tensors'][count - 1]}")
    return result


def one(result: Any, shape: tuple[int, ...], name: str) -> Tensor:
    """What a student's function returned, if it is a finite tensor of that shape."""
    (result,) = tensors((result,), 1, name)
    holds(result.shape == shape, f"{name} returns a tensor of shape {shape}")
    holds(result.isfinite().all(), f"{name} gives finite numbers")
    return result


def with_fixed(function: Callable, *fixed: Tensor) -> Callable:
    """`function(points, *fixed, *parameters)` as a function of points and parameters."""
    @functools.wraps(function)
    def call(points, *parameters):
        return attempt(function, points, *fixed, *parameters)
    return call


@open_check("Exercise 1")
def check_made(made_masks: Callable, made: Callable) -> None:
    """A pinned case; what an output sees in another order, and that it sees all of it; the network; gradients."""
    first, middle, last = (mask.to(torch.float64) for mask in tensors(attempt(
        made_masks, torch.tensor([2, 3, 1]), torch.tensor([2, 1]), torch.tensor([1, 2])), 3, "made_masks"))
    holds(near(first, torch.tensor([[1.0, 0, 1], [0, 0, 1]])), "a unit of degree m sees the inputs up to place m")
    holds(near(middle, torch.tensor([[0.0, 1], [1, 1]])), "a unit of degree m sees the units of degree up to m")
    holds(near(last, torch.tensor([[1.0, 0], [1, 1], [0, 0]])), "an output sees the units of a degree below its place")
    for dim in (4, 6):
        rank = torch.randperm(dim) + 1
        degrees = torch.randperm(dim - 1) + 1, torch.cat([torch.arange(1, dim), torch.ones(2).long()])
        paths = torch.eye(dim, dtype=torch.float64)
        for mask in tensors(attempt(made_masks, rank, *degrees), 3, "made_masks"):
            holds(mask.shape[1:] == paths.shape[:1], "a mask has one row for each unit that reads, and a column for "
                                                     "each that is read")
            paths = mask.to(torch.float64) @ paths
        holds(paths.shape == (dim, dim), "the last mask has a row for each output")
        before = rank[:, None] > rank
        holds(not paths[~before].any(), "no output sees its own input or a later one, in the given order")
        holds((paths[before] > 0).all(), "every output sees all inputs before it")
        weights, x = network(dim, degrees), random(-2, 2, 5, dim)
        mean, log_scale = tensors(attempt(made, x, rank, *degrees, *weights), 2, "made")
        holds(mean.shape == log_scale.shape == x.shape, "made gives a mean and a log-scale for every number")
        for part in range(2):
            slopes = jacobian(lambda x: attempt(made, x, rank, *degrees, *weights)[part], x)
            holds(not slopes[:, ~before].any(), "the outputs of made do not depend on their own or later inputs")
            holds(slopes[:, before].any(), "the outputs of made depend on the inputs before them")
        silent = *weights[:4], 0 * weights[4], weights[5]
        mean, log_scale = attempt(made, x, rank, *degrees, *silent)
        both = torch.cat([mean, log_scale], 1)
        holds(near(both, weights[5].expand_as(both)),
              "without the last weights the first half of the last biases are the means, the second the log-scales")
        silent = *weights[:2], 0 * weights[2], weights[3], *weights[4:]
        last = attempt(made_masks, rank, *degrees)[2].to(torch.float64)
        constant = torch.cat([last * half for half in weights[4].chunk(2)]) @ weights[3].tanh() + weights[5]
        both = torch.cat(attempt(made, x, rank, *degrees, *silent), 1)
        holds(near(both, constant.expand_as(both)), "the units are tanh, and the last layer is linear and masked")
        loud = [torch.cat(attempt(made, x, rank, *degrees, size * weights[0], size * weights[1], *weights[2:]), 1)
                for size in (1e8, 1e9)]
        holds(near(loud[0], loud[1]),
              "hidden units saturate: with huge W1 and b1, ten times larger ones change nothing")
        mix = random(-1, 1, 2, 5, dim)
        gradient_property(lambda *w: (mix * torch.stack(attempt(made, x, rank, *degrees, *w))).sum(), weights,
                          "gradients flow through made to its weights and biases")


@open_check("Exercise 2")
def check_maf(maf_inverse: Callable, maf_forward: Callable, iaf_sample: Callable) -> None:
    """Round trip, log-dets, triangular Jacobians, gradients; IAF; what a density costs."""
    for dim in (3, 5):
        rank, degrees = torch.randperm(dim) + 1, (torch.randperm(dim - 1) + 1, torch.randperm(dim - 1) + 1)
        weights, z = network(dim, degrees), random(-2, 2, 7, dim)
        forward, inverse, sample = (with_fixed(f, rank, *degrees) for f in (maf_forward, maf_inverse, iaf_sample))
        bijection_properties(forward, inverse, z, weights)
        later = rank[:, None] < rank
        silent = *weights[:4], 0 * weights[4], weights[5]  # means and log-scales are the last biases
        mean, log_scale = weights[5].chunk(2)
        holds(near(forward(z, *silent)[0], z * log_scale.exp() + mean),
              "where the network gives constants, x is z times the scale, plus the mean")
        for function in (forward, inverse):
            slopes = jacobian(lambda points: function(points, *weights)[0], z)
            holds(not slopes[:, later].any(), f"the Jacobian of {function.__name__} is triangular in the given order")
        x, log_q = tensors(sample(z, *weights), 2, "iaf_sample")
        holds(x.shape == z.shape and log_q.shape == (7,), "iaf_sample gives points and one log-density for each")
        _, log_det = jacobian(lambda eps: sample(eps, *weights)[0], z).slogdet()
        base = -0.5 * (z.square() + math.log(2 * math.pi)).sum(1)
        holds(near(log_q, base - log_det), "ln q(x) is the log-density of the noise minus the log-det, from autograd")
        holds(near(sample(z, *silent)[0], z * log_scale.exp() + mean),
              "where the network gives constants, the IAF and the MAF are the same")
        half = torch.arange(2 * dim) < dim  # the rows of the means
        shifts = *weights[:4], half[:, None] * weights[4], half * weights[5]
        against = *weights[:4], -shifts[4], -shifts[5]
        holds(near(sample(z, *against)[0], inverse(z, *shifts)[0]),
              "an IAF that subtracts what a MAF without scales adds is its inverse: its network reads the noise")
        mix = random(-1, 1, 7, dim)
        gradient_property(lambda *w: (mix * sample(z, *w)[0]).sum() + sample(z, *w)[1].sum(), weights,
                          "gradients flow through iaf_sample to the weights")
        one_pass = 2 * len(z) * sum(w.numel() for w in weights[::2])  # multiplications and additions
        for function in (inverse, sample):
            with FlopCounterMode(display=False) as counter:
                function(z, *weights)
            holds(counter.get_total_flops() < 2 * one_pass, f"{function.__name__} takes one pass of the network")


@open_check("Exercise 3")
def check_time(time_inverse: Callable, time_forward: Callable) -> None:
    """Rows that do not see each other, nothing that comes later, order of the weights, the start, round trip,
    gradients."""
    for lags, length in ((1, 4), (3, 6), (3, 2)):
        weight, bias = random(-1, 1, 2, lags) / lags, random(-1, 1, 2)
        x, earlier = random(-2, 2, 4, length), torch.ones(length, length).triu(1).bool()
        for function in (time_inverse, time_forward):
            name = function.__name__
            value, log_det = tensors(attempt(function, x, weight, bias), 2, name)
            holds(value.shape == x.shape and log_det.shape == (4,), f"{name} gives (n, T) numbers and n log-dets")
            first = attempt(function, x[:1], weight, bias)
            holds(near(first[0], value[:1]) and near(first[1], log_det[:1]),
                  f"the first sequence of {name} does not depend on the others")
            slopes = jacobian(lambda x: attempt(function, x, weight, bias)[0], x)
            holds(not slopes[:, earlier].any(), f"no step of {name} depends on a later one")
            start = attempt(function, x[:, :1], weight, bias)
            holds(near(start[0], value[:, :1]), f"{name} treats the first step alike in sequences of any length")
            constant = attempt(function, x, 0 * weight, bias)[1]
            sign = 1 if function is time_forward else -1
            holds(near(constant, (sign * length * bias[0].tanh()).expand(4)),
                  f"without weights, every step of {name} adds {'' if sign == 1 else '-'}tanh of the first bias to the "
                  "log-det")
        only, still = torch.zeros(2, lags, dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
        for k in range(min(lags, length - 1)):
            shift = only.clone()
            shift[1, k] = 0.5
            past = torch.cat([x.new_zeros(4, k + 1), x[:, : -k - 1]], 1)
            holds(near(attempt(time_inverse, x, shift, still)[0], x - 0.5 * past),
                  "the weights of m stand in the second row; the first of them belongs to the step just before")
        z = attempt(time_inverse, x, weight, bias)[0]
        holds(near(attempt(time_forward, z, weight, bias)[0], x), "time_forward leads back to the sequences")
        bijection_properties(time_inverse, time_forward, x, (weight, bias))


@open_check("Exercise 5")
def check_naf(dsf: Callable, naf_log_prob: Callable) -> None:
    """Slopes, signs and weights of the sigmoids, far points; what the density integrates to and what its base is."""
    parameters = random(-1, 1, 3, 6, 4)
    x = torch.tensor([-200.0, -3.0, -0.5, 0.5, 3.0, 200.0], dtype=torch.float64)
    z, log_slope = tensors(attempt(dsf, x, *parameters), 2, "dsf")
    holds(z.shape == log_slope.shape == x.shape, "dsf gives one number and one log-slope for each")
    holds(z.isfinite().all() and log_slope.isfinite().all(), "z and its log-slope are finite at x = 200 and x = -200")
    slopes = jacobian(lambda x: attempt(dsf, x, *parameters)[0], x, 0)
    holds(near(log_slope, slopes.flatten().log()), "the log-slope of dsf agrees with autograd")
    line = torch.linspace(-8, 8, 401, dtype=torch.float64)
    shared = parameters[:, :1].expand(3, 401, 4)
    holds((attempt(dsf, line, *shared)[0].diff() > 0).all(), "the curve increases, whatever the raw numbers are")
    slope, shift, weight = shared[:, :1]
    target = (weight.softmax(1) * (F.softplus(slope) * line[:, None] + shift).sigmoid()).sum(1)
    holds(near(attempt(dsf, line, *shared)[0].sigmoid(), target), "the sigmoid of z is the weighted sum of sigmoids")
    alone = attempt(dsf, x[1:2], *(part[1:2] for part in parameters))
    holds(near(alone[0], z[1:2]) and near(alone[1], log_slope[1:2]), "the first row of dsf does not depend on others")
    mix = random(-1, 1, 2, 6)
    near_points = x.clamp(-3, 3)

    def weighted(*parameters):
        value, log_slope = attempt(dsf, near_points, *parameters)
        return (mix[0] * value + mix[1] * log_slope).sum()

    gradient_property(weighted, tuple(parameters), "gradients flow through dsf to its three parameters")

    units, hidden = 2, 3
    net = random(-1, 1, hidden), random(-1, 1, hidden), random(-1, 1, hidden, 3 * units), random(-1, 1, 3 * units)
    first, x = random(-1, 1, 3 * units), random(-2, 2, 5, 2)
    log_prob = one(attempt(naf_log_prob, x, first, *net), (5,), "naf_log_prob")
    bare = torch.zeros(3 * units, dtype=torch.float64)
    bare[:units] = math.log(math.e - 1)  # equal units of slope 1: z = x
    silent = *net[:2], 0 * net[2], bare
    normal = -0.5 * (x.square() + math.log(2 * math.pi)).sum(1)
    holds(near(attempt(naf_log_prob, x, bare, *silent), normal), "where z = x, the density is the standard normal one")
    second = (x[:, :1] * net[0] + net[1]).tanh() @ net[2] + net[3]
    z, log_slope = attempt(dsf, x.T.flatten(), *torch.cat([first.expand(5, -1), second]).chunk(3, 1))
    log_p = (log_slope - 0.5 * (z.square() + math.log(2 * math.pi))).unflatten(0, (2, 5))
    rest = -0.5 * (x[:, 1].square() + math.log(2 * math.pi))
    holds(near(attempt(naf_log_prob, x, first, *silent), log_p[0] + rest),
          "the first number has the parameters `first`")
    holds(near(log_prob, log_p.sum(0)),
          "the parameters of the second number are those that the network makes of the first, x_1")
    axis = torch.linspace(-20, 20, 321, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    steep = torch.cat([first[:units] + 1, first[units:]])
    biases = torch.cat([net[3][:units] + 2.5, net[3][units:]])
    total = attempt(naf_log_prob, grid, steep, net[0], net[1], net[2], biases).exp().sum() * (axis[1] - axis[0]) ** 2
    holds(abs(total - 1) < 1e-2, "the density integrates to one over the plane")
    again = attempt(naf_log_prob, x[:1], first, *net)
    holds(near(again, log_prob[:1]), "the first log-density does not depend on the others")
    coefficients = random(-1, 1, 5)
    gradient_property(lambda *p: (coefficients * attempt(naf_log_prob, x, *p)).sum(), (first, *net),
                      "gradients flow through naf_log_prob to all parameters")


@open_check("Exercise 6")
def check_foresight(kalman_log_prob: Callable, ar_log_prob: Callable, autocorrelation: Callable) -> None:
    """The filter: one step, two steps by hand, total probability, no noise; the flow's density; the autocorrelation."""
    for a, q, r in ((0.9, 1.0, 0.5), (-0.5, 0.3, 2.0)):
        numbers = tuple(torch.tensor(value, dtype=torch.float64) for value in (a, q, r))
        x, variance = random(-2, 2, 4, 3), q / (1 - a**2)

        def gaussian(value, mean, variance):
            return -0.5 * ((value - mean) ** 2 / variance + math.log(2 * math.pi * variance))

        log_prob = one(attempt(kalman_log_prob, x, *numbers), (4,), "kalman_log_prob")
        single = attempt(kalman_log_prob, x[:, :1], *numbers)
        holds(near(single, gaussian(x[:, 0], 0.0, variance + r)),
              "one step is Gaussian with the stationary variance and that of the noise")
        mean, left = a * variance / (variance + r) * x[:, 0], variance - (a * variance) ** 2 / (variance + r)
        two = attempt(kalman_log_prob, x[:, :2], *numbers)
        holds(near(two - single, gaussian(x[:, 1], mean, left + r)), "the second step, given the first")
        holds(near(attempt(kalman_log_prob, x.flip(1), *numbers), log_prob),
              "a stationary sequence of Gaussians is as likely backwards")
        exact = attempt(kalman_log_prob, x, *numbers[:2], torch.tensor(1e-12, dtype=torch.float64))
        chain = gaussian(x[:, 0], 0.0, variance) + gaussian(x[:, 1:], a * x[:, :-1], q).sum(1)
        holds(near(exact, chain, 1e-4), "without noise each step is Gaussian around a times the one before")
        mix = random(-1, 1, 4)
        gradient_property(lambda *p: (mix * attempt(kalman_log_prob, x, *p)).sum(), numbers,
                          "gradients flow through kalman_log_prob to a, q and r")
    x, still = random(-2, 2, 4, 6), torch.zeros(2, 2, dtype=torch.float64)
    plain = one(attempt(ar_log_prob, x, still, still[0]), (4,), "ar_log_prob")
    holds(near(plain, -0.5 * (x.square() + math.log(2 * math.pi)).sum(1)),
          "where z = x, the density is the standard normal one")
    shift = torch.tensor([[0.0, 0.0], [0.9, 0.0]], dtype=torch.float64)
    chain = -0.5 * ((x - 0.9 * torch.cat([x.new_zeros(4, 1), x[:, :-1]], 1)).square() + math.log(2 * math.pi)).sum(1)
    holds(near(attempt(ar_log_prob, x, shift, still[0]), chain), "0.9 as the first weight of m gives an autoregression")
    wide = attempt(ar_log_prob, x, still, torch.tensor([0.7, 0.0], dtype=torch.float64))
    scale = math.exp(math.tanh(0.7))
    holds(near(wide, (-0.5 * ((x / scale).square() + math.log(2 * math.pi)) - math.log(scale)).sum(1)),
          "a constant scale is that of a wider Gaussian")
    weight, bias, mix = random(-1, 1, 2, 2), random(-1, 1, 2), random(-1, 1, 4)
    gradient_property(lambda *p: (mix * attempt(ar_log_prob, x, *p)).sum(), (weight, bias),
                      "gradients flow through ar_log_prob to weight and bias")
    turns = torch.tensor([[1.0, -1.0] * 4, [2.0, -2.0] * 4], dtype=torch.float64)
    for lag, truth in ((1, -1.0), (2, 1.0), (3, -1.0)):
        found = torch.as_tensor(attempt(autocorrelation, turns, lag), dtype=torch.float64)
        holds(near(found, found.new_tensor(truth)), "a sequence that only changes its sign has -1, 1, -1, ...")
    steps = torch.tensor([[1.0, 2.0, 0.0, 0.0], [3.0, 0.0, 0.0, 1.0]], dtype=torch.float64)
    found = torch.as_tensor(attempt(autocorrelation, steps, 1), dtype=torch.float64)
    holds(near(found, found.new_tensor((2 / 6) / (15 / 8))),
          "it is the mean product of all pairs at this lag over the mean square of all numbers")


def show_experiment(experiment: Callable) -> None:
    """Run exercise 6 and print its table: a list of (model, gaps, autocorrelations)."""
    show_table("Exercise 6", experiment, 22, ("gap, nats", "autocorrelation"))
