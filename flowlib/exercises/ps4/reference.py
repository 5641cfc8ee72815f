"""Problem set 4, autoregressive flows: inputs of random sizes and the right functions."""
import math

import numpy as np
import torch
import torch.nn.functional as F

from ..judge import FORWARD, GRADIENT, INVERSE, ProblemSet, Question


def made_masks(rank, m1, m2):
    steps = ((m1, rank), (m2, m1), (rank - 1, m2))  # an output may read units of a degree below its place
    return tuple((above[:, None] >= below).to(torch.float64) for above, below in steps)


def made(x, rank, m1, m2, w1, b1, w2, b2, w3, b3):
    first, middle, last = made_masks(rank, m1, m2)
    h = (x @ (first * w1).T + b1).tanh()
    h = (h @ (middle * w2).T + b2).tanh()
    mean, log_scale = w3.chunk(2)
    return h @ (last * mean).T + b3[: len(rank)], h @ (last * log_scale).T + b3[len(rank):]


def maf_inverse(x, *net):
    mean, log_scale = made(x, *net)
    return (x - mean) * (-log_scale).exp(), -log_scale.sum(1)


def maf_forward(z, *net):
    rank, columns = net[0], [torch.zeros_like(z[:, 0])] * z.shape[1]
    for i in rank.argsort().tolist():
        mean, log_scale = made(torch.stack(columns, 1), *net)
        columns = [*columns[:i], z[:, i] * log_scale[:, i].exp() + mean[:, i], *columns[i + 1:]]
    x = torch.stack(columns, 1)
    return x, made(x, *net)[1].sum(1)


def iaf_sample(eps, *net):
    mean, log_scale = made(eps, *net)
    return eps * log_scale.exp() + mean, (-0.5 * (eps.square() + math.log(2 * math.pi)) - log_scale).sum(1)


def network(r, dim):
    """rank, degrees and weights, with each degree there and neither in order."""
    degrees = [r.permutation(np.concatenate([np.arange(1, dim), r.integers(1, dim, int(r.integers(1, 4)))]))
               for _ in range(2)]
    sizes = dim, *map(len, degrees), 2 * dim
    weights = [r.normal(size=shape) for a, b in zip(sizes, sizes[1:]) for shape in ((b, a), b)]
    rank = r.permutation(dim) + 1
    while (rank == np.arange(dim) + 1).all() or (rank[::-1] == np.arange(dim) + 1).all():
        rank = r.permutation(dim) + 1  # an order of its own
    return [rank, *degrees, *weights]


def masks_cases(r):
    for dim in r.choice(np.arange(3, 9), 3, replace=False):
        yield network(r, int(dim))[:3]


def net_cases(r):
    for dim in (3, *map(int, r.choice(np.arange(4, 8), 2, replace=False))):  # in 3, a pass too few is felt
        yield [r.normal(size=(dim + int(r.integers(1, 4)), dim)), *network(r, dim)]


def windows(x, lags):
    """(n, T, L): of each step the L numbers before it, the last one first."""
    return torch.stack([F.pad(x, (k, 0))[:, : x.shape[1]] for k in range(1, lags + 1)], 2)


def time_inverse(x, weight, bias):
    r, m = (windows(x, weight.shape[1]) @ weight.T + bias).unbind(2)
    return (x - m) * (-r.tanh()).exp(), -r.tanh().sum(1)


def time_forward(z, weight, bias):
    x = torch.zeros_like(z)
    for _ in range(z.shape[1]):
        r, m = (windows(x, weight.shape[1]) @ weight.T + bias).unbind(2)
        x = z * r.tanh().exp() + m
    r, _ = (windows(x, weight.shape[1]) @ weight.T + bias).unbind(2)
    return x, r.tanh().sum(1)


def time_cases(r):
    for lags, length in ((1, 5), (3, 7), (4, 2)):
        n = int(r.integers(2, 5))
        yield [r.normal(size=(n, length)), r.normal(size=(2, lags)) / lags, r.normal(size=2)]


def dsf(x, raw_slope, shift, raw_weight):
    u = F.softplus(raw_slope) * x[:, None] + shift
    low, high, log_w = F.logsigmoid(u), F.logsigmoid(-u), raw_weight.log_softmax(1)
    log_f, log_rest = (log_w + low).logsumexp(1), (log_w + high).logsumexp(1)
    log_pdf = (log_w + low + high + F.softplus(raw_slope).log()).logsumexp(1)
    return log_f - log_rest, log_pdf - log_f - log_rest


def naf_log_prob(x, first, w1, b1, w2, b2):
    second = (x[:, :1] * w1 + b1).tanh() @ w2 + b2
    total = torch.zeros(len(x))
    for column, params in zip(x.T, (first.expand(len(x), -1), second)):
        z, log_slope = dsf(column, *params.chunk(3, 1))
        total = total + log_slope - 0.5 * (z.square() + math.log(2 * math.pi))
    return total


def dsf_cases(r):
    for spread in (3, 200):
        k = int(r.integers(2, 7))
        n = k + int(r.integers(1, 4))
        points = spread * r.uniform(-1, 1, n)
        points[:2] = spread, -spread
        yield [points, *(r.normal(size=(n, k)) for _ in range(3))]


def naf_cases(r):
    for _ in range(3):
        k, hidden = map(int, r.choice(np.arange(2, 7), 2, replace=False))
        yield [r.normal(size=(int(r.integers(7, 10)), 2)), r.normal(size=3 * k), r.normal(size=hidden),
               r.normal(size=hidden), r.normal(size=(hidden, 3 * k)), r.normal(size=3 * k)]


def kalman_log_prob(x, a, q, r):
    """The dense Gaussian: another way than the filter."""
    place = torch.arange(x.shape[1])
    covariance = q / (1 - a**2) * a ** (place[:, None] - place).abs() + r * torch.eye(len(place))
    return torch.distributions.MultivariateNormal(torch.zeros(len(place)), covariance).log_prob(x)


def kalman_cases(generator):
    for length in map(int, generator.choice(np.arange(2, 9), 3, replace=False)):
        a, (q, r) = generator.uniform(0.3, 0.95) * generator.choice([-1, 1]), generator.uniform(0.3, 2, 2)
        yield [2 * generator.normal(size=(int(generator.integers(2, 5)), length)), *map(np.array, (a, q, r))]


def ar_log_prob(x, weight, bias):
    z, log_det = time_inverse(x, weight, bias)
    return log_det - 0.5 * (z.square() + math.log(2 * math.pi)).sum(1)


def autocorrelation(x, lag):
    return (x[:, lag:] * x[:, : x.shape[1] - lag]).mean() / x.square().mean()


def autocorrelation_cases(r):
    for lag in (1, 2, 3):
        yield [r.normal(size=(int(r.integers(2, 6)), int(r.integers(6, 10)))) + r.uniform(0.3, 1), lag]


NET = tuple(range(4, 10))
SET = ProblemSet(
    name="ps4",
    questions=(
        Question("made_masks", masks_cases, made_masks,
                 {"first": "the mask from the inputs to the first hidden layer is wrong",
                  "middle": "the mask between the hidden layers is wrong",
                  "last": "the mask of the outputs is wrong"}, {"q1_masks": (2, ("first", "middle", "last"))}),
        Question("made", net_cases, made,
                 {"mean": "the means are not those of the masked network",
                  "log_scale": "the log-scales are not those of the masked network", "gradient": GRADIENT},
                 {"q1_net": (2, ("mean", "log_scale", "gradient"))}, wrt=NET),
        Question("maf_inverse", net_cases, maf_inverse, INVERSE,
                 {"q2_z": (1, ("z",)), "q2_log_det": (1, ("log_det", "gradient"))}, wrt=NET),
        Question("maf_forward", net_cases, maf_forward, FORWARD,
                 {"q2_forward": (2, ("x", "log_det", "gradient"))}, wrt=NET),
        Question("iaf_sample", net_cases, iaf_sample,
                 {"x": "x is not the image of the noise", "log_q": "ln q is not the log-density of x",
                  "gradient": GRADIENT}, {"q2_iaf": (1, ("x", "log_q", "gradient"))}, wrt=NET),
        Question("time_inverse", time_cases, time_inverse, INVERSE,
                 {"q3_inverse": (2, ("z", "log_det", "gradient"))}, wrt=(1, 2)),
        Question("time_forward", time_cases, time_forward, FORWARD,
                 {"q3_forward": (2, ("x", "log_det", "gradient"))}, wrt=(1, 2)),
        Question("dsf", dsf_cases, dsf,
                 {"z": "z is not the logit of the weighted sigmoids, or not so far from zero",
                  "log_slope": "the log-slope is wrong, or not finite far from zero", "gradient": GRADIENT},
                 {"q5_z": (1, ("z",)), "q5_log_slope": (1, ("log_slope", "gradient"))}, wrt=(1, 2, 3)),
        Question("naf_log_prob", naf_cases, naf_log_prob,
                 {"log_prob": "it is not the log-density of the flow", "gradient": GRADIENT},
                 {"q5_log_prob": (3, ("log_prob", "gradient"))}, wrt=(1, 2, 3, 4, 5)),
        Question("kalman_log_prob", kalman_cases, kalman_log_prob,
                 {"log_prob": "it is not the log-density of the sequences", "gradient": GRADIENT},
                 {"q6_kalman": (2, ("log_prob",)), "q6_gradient": (1, ("log_prob", "gradient"))}, wrt=(1, 2, 3)),
        Question("ar_log_prob", time_cases, ar_log_prob,
                 {"log_prob": "it is not the log-density of the sequences", "gradient": GRADIENT},
                 {"q6_flow": (1, ("log_prob", "gradient"))}, wrt=(1, 2)),
        Question("autocorrelation", autocorrelation_cases, autocorrelation,
                 {"rho": "it is not the mean product at this lag over the mean square"},
                 {"q6_autocorrelation": (1, ("rho",))}),
    ),
    manual={"q4_paper": 4, "q6_experiment": 2, "q6_answer": 3},
)
