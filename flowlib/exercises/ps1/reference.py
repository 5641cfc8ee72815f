"""Problem set 1, change of variables: inputs of random sizes and the right functions."""
import math

import numpy as np
import torch

from ..judge import FORWARD, GRADIENT, INVERSE, LOG_DET, ProblemSet, Question

TOO_LARGE = "with D = 100,000 it is too slow, too large or wrong"


def weibull_forward(z, scale, shape):
    x = scale * (-z.log()) ** (1 / shape)
    return x, scale.log() - shape.log() + (1 / shape - 1) * (-z.log()).log() - z.log()


def weibull_inverse(x, scale, shape):
    power = (x / scale) ** shape
    return torch.exp(-power), shape.log() - scale.log() + (shape - 1) * (x / scale).log() - power


def weibull_cases(inverse):
    def cases(r):
        for n in (1, int(r.integers(3, 9))):
            points = r.uniform(0.5, 2.0, n) if inverse else r.uniform(0.05, 0.95, n)
            yield [points, r.uniform(0.5, 2.0, ()), r.uniform(0.6, 3.0, ())]
    return cases


def low_rank_forward(z, d, u, v):
    log_det = d.abs().log().sum() + (1 + (u * v / d).sum()).abs().log()
    return d * z + (z @ v)[:, None] * u, log_det.expand(len(z))


def low_rank_inverse(x, d, u, v):
    y, gain = x / d, 1 + (u * v / d).sum()
    log_det = d.abs().log().sum() + gain.abs().log()
    return y - (y @ v)[:, None] * (u / d) / gain, -log_det.expand(len(x))


def low_rank_cases(*sizes):
    def cases(r):
        for gain, dim in zip((1.7, -0.6, 0.4), sizes or r.choice(np.arange(2, 8), 3, replace=False)):
            d = r.uniform(0.5, 2.0, dim) * r.choice([-1.0, 1.0], dim)
            u, v = r.normal(size=(2, dim))
            u = u * (gain - 1) / (u * v / d).sum()  # then 1 + v.u/d is the gain: of both signs, never near zero
            yield [r.normal(size=(int(r.integers(2, 6)), dim)), d, u, v]
    return cases


def banana_forward(z, a, b, c):
    x1 = a * z[:, 0]
    x2 = torch.exp(c * z[:, 0]) * z[:, 1] + b * x1**2
    return torch.stack([x1, x2], 1), a.abs().log() + c * z[:, 0]


def banana_inverse(x, a, b, c):
    z1 = x[:, 0] / a
    z2 = (x[:, 1] - b * x[:, 0] ** 2) * torch.exp(-c * z1)
    return torch.stack([z1, z2], 1), -a.abs().log() - c * z1


def banana_cases(r):
    for sign in (1.0, -1.0):
        a, b, c = sign * r.uniform(0.5, 2.0, ()), r.normal(size=()), r.uniform(0.3, 1.0, ())
        yield [r.normal(size=(int(r.integers(3, 9)), 2)), a, b, c]


def chain_log_prob(x, matrices, shifts, power):
    log_det = x.new_zeros(len(x))
    for a, b in zip(matrices.flip(0), shifts.flip(0)):
        t = torch.linalg.solve(a, (x - b).T).T
        s = torch.asinh(t) / power
        x = torch.sinh(s)
        log_det = log_det - torch.linalg.slogdet(a)[1]
        log_det = log_det + (torch.cosh(s).log() - 0.5 * torch.log1p(t**2) - math.log(power)).sum(1)
    return -0.5 * (x**2 + math.log(2 * math.pi)).sum(1) + log_det


def chain_cases(r):
    for layers in (1, 3):
        dim = int(r.integers(2, 6))
        matrices = np.eye(dim)[r.permutation(dim)] * 1.5 + 0.2 * r.normal(size=(layers, dim, dim))
        x, shifts = r.normal(size=(int(r.integers(3, 9)), dim)), r.normal(size=(layers, dim))
        yield [x, matrices, shifts, float(r.uniform(1.1, 1.8))]


SET = ProblemSet(
    name="ps1",
    questions=(
        Question("weibull_forward", weibull_cases(False), weibull_forward, FORWARD,
                 {"q1_x": (1, ("x",)), "q1_forward_log_slope": (1, ("log_det", "gradient"))}, wrt=(1, 2)),
        Question("weibull_inverse", weibull_cases(True), weibull_inverse, INVERSE,
                 {"q1_z": (1, ("z",)), "q1_inverse_log_slope": (1, ("log_det", "gradient"))}, wrt=(1, 2)),
        Question("low_rank_forward", low_rank_cases(), low_rank_forward, FORWARD,
                 {"q3_forward": (2, ("x", "log_det", "gradient"))}, wrt=(1, 2, 3)),
        Question("low_rank_inverse", low_rank_cases(), low_rank_inverse, INVERSE,
                 {"q3_z": (1, ("z",)), "q3_inverse_log_det": (1, ("log_det", "gradient"))}, wrt=(1, 2, 3)),
        Question("low_rank_inverse", low_rank_cases(100_000), low_rank_inverse,
                 {"z": TOO_LARGE, "log_det": LOG_DET}, {"q3_cost": (1, ("z", "log_det"))}),
        Question("banana_forward", banana_cases, banana_forward, FORWARD,
                 {"q4_forward": (2, ("x", "log_det", "gradient"))}, wrt=(1, 2, 3)),
        Question("banana_inverse", banana_cases, banana_inverse, INVERSE,
                 {"q4_inverse": (2, ("z", "log_det", "gradient"))}, wrt=(1, 2, 3)),
        Question("chain_log_prob", chain_cases, chain_log_prob,
                 {"log_p": "the log-density is not that of the composition", "gradient": GRADIENT},
                 {"q5_log_prob": (3, ("log_p",)), "q5_gradient": (2, ("log_p", "gradient"))}, wrt=(1, 2)),
    ),
    manual={"q2_paper": 4, "q6_experiment": 2, "q6_answer": 3},
)
