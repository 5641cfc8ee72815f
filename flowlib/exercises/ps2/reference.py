"""Problem set 2, finite flows: inputs of random sizes and the right functions."""
import math

import numpy as np
import torch
import torch.nn.functional as F

from ..judge import FORWARD, GRADIENT, INVERSE, LOG_DET, ProblemSet, Question

LOG_Q = "log q is not the log-density of the draws"


def admissible(u, w):
    t = w @ u
    return u + (F.softplus(t) - 1 - t) * w / (w @ w)


def planar_forward(z, u, w, b):
    u = admissible(u, w)
    h = torch.tanh(z @ w + b)
    return z + h[:, None] * u, torch.log(1 + (1 - h**2) * (w @ u))


def planar_inverse(x, u, w, b):
    u = admissible(u, w)
    c, target = w @ u, x @ w
    with torch.no_grad():
        low, high = target - c.abs(), target + c.abs()
        for _ in range(60):
            s = (low + high) / 2
            below = s + c * torch.tanh(s + b) < target
            low, high = torch.where(below, s, low), torch.where(below, high, s)
    h = torch.tanh(s + b)
    s = s - (s + c * h - target) / (1 + c * (1 - h**2))  # Newton's step carries the gradient
    h = torch.tanh(s + b)
    return x - h[:, None] * u, -torch.log(1 + c * (1 - h**2))


def planar_parameters(r, dim, along):
    """u, w, b with w.u = along."""
    u, w = r.normal(size=(2, dim))
    return [u + (along - u @ w) * w / (w @ w), w, r.normal(size=())]


def admissible_cases(r):
    for along in (-4.0, r.uniform(-1, 1), 3.0):
        yield planar_parameters(r, int(r.integers(2, 8)), along)[:2]


def planar_cases(*spreads):
    def cases(r):
        for along, spread in zip((-2.0, r.uniform(0.7, 1.5), 2.5), spreads):  # folds without the constraint, and not
            dim = int(r.integers(2, 8))
            yield [spread * r.normal(size=(int(r.integers(3, 9)), dim)), *planar_parameters(r, dim, along)]
    return cases


def householder_forward(z, vectors):
    for v in vectors:
        z = z - 2 * (z @ v)[:, None] * v / (v @ v)
    return z, z.new_zeros(len(z))


def householder_inverse(x, vectors):
    return householder_forward(x, vectors.flip(0))


def turned_log_prob(x, mean, log_scale, vectors):
    eps = householder_inverse(x - mean, vectors)[0] / log_scale.exp()
    return -0.5 * (eps**2 + math.log(2 * math.pi)).sum(1) - log_scale.sum()


def householder_cases(*dims):
    def cases(r):
        for dim in dims or r.choice(np.arange(2, 8), 3, replace=False):
            vectors = r.normal(size=(int(r.integers(2, 5)), dim)) + r.normal(size=dim)  # orthogonal ones would commute
            yield [r.normal(size=(int(r.integers(2, 6)), dim)), vectors]
    return cases


def turned_cases(r):
    for x, vectors in householder_cases()(r):
        yield [x, *r.normal(size=(2, x.shape[1])), vectors]


def radial_terms(log_alpha, raw_beta):
    alpha = log_alpha.exp()
    return alpha, F.softplus(raw_beta) - alpha


def radial_log_det(r, dim, alpha, beta):
    h = 1 / (alpha + r)
    return (dim - 1) * torch.log(1 + beta * h) + torch.log(1 + beta * h - beta * r * h**2)


def radial_forward(z, center, log_alpha, raw_beta):
    alpha, beta = radial_terms(log_alpha, raw_beta)
    away = z - center
    r = torch.linalg.vector_norm(away, dim=1)
    return z + (beta / (alpha + r))[:, None] * away, radial_log_det(r, z.shape[1], alpha, beta)


def radial_inverse(x, center, log_alpha, raw_beta):
    alpha, beta = radial_terms(log_alpha, raw_beta)
    away = x - center
    big_r = torch.linalg.vector_norm(away, dim=1)
    p = big_r - alpha - beta
    r = (p + torch.sqrt(p**2 + 4 * alpha * big_r)) / 2
    z = center + away / (1 + beta / (alpha + r))[:, None]
    return z, -radial_log_det(r, x.shape[1], alpha, beta)


def radial_cases(r):
    dims = map(int, r.choice(np.arange(2, 7), 3, replace=False))
    for raw_beta, dim in zip((-1.5, 1.0, 2.0), dims):  # shrinks, and stretches
        more = int(r.integers(1, 5))
        yield [2 * r.normal(size=(dim + more, dim)), r.normal(size=dim), r.uniform(-0.5, 0.5, ()), np.array(raw_beta)]


def posterior_draws(eps, mean, log_scale, lower, us, ws, bs):
    matrix = torch.tril(lower, -1) + torch.eye(len(mean))
    z = mean + (eps * log_scale.exp()) @ matrix.T
    log_q = -0.5 * (eps**2 + math.log(2 * math.pi)).sum(1) - log_scale.sum()
    for u, w, b in zip(us, ws, bs):
        z, log_det = planar_forward(z, u, w, b)
        log_q = log_q - log_det
    return z, log_q


def posterior_cases(*layers):
    def cases(r):
        for k in layers:
            n, dim = int(r.integers(3, 9)), int(r.integers(2, 6))
            gaussian = [r.normal(size=(n, dim)), r.normal(size=dim), r.uniform(-1, 0, dim),
                        0.5 * r.normal(size=(dim, dim))]
            us, ws = r.normal(size=(2, k, dim))
            yield [*gaussian, us, ws / dim, r.normal(size=k)]  # w.z of size one: tanh is steep there
    return cases


def reweigh(log_w):
    w = (log_w - log_w.max()).exp()
    log_z = torch.logsumexp(log_w, 0) - math.log(len(log_w))
    return log_w.mean(), log_z, w.sum() ** 2 / (w**2).sum() / len(w)


def reweigh_cases(r):
    for offset in (0.0, -2000.0, 2000.0):
        yield [offset + 2 * r.normal(size=int(r.integers(5, 50)))]


SET = ProblemSet(
    name="ps2",
    questions=(
        Question("admissible", admissible_cases, admissible,
                 {"u": "the new u is not the one of the formula", "gradient": GRADIENT},
                 {"q1_admissible": (1, ("u", "gradient"))}, wrt=(0, 1)),
        Question("planar_forward", planar_cases(1, 1, 1), planar_forward, FORWARD,
                 {"q1_x": (1, ("x",)), "q1_log_det": (2, ("log_det", "gradient"))}, wrt=(1, 2, 3)),
        Question("planar_inverse", planar_cases(1, 30, 1), planar_inverse, INVERSE,
                 {"q2_z": (2, ("z",)), "q2_log_det": (1, ("log_det",)),
                  "q2_gradient": (2, ("z", "log_det", "gradient"))}, wrt=(0, 1, 2, 3)),
        Question("householder_forward", householder_cases(), householder_forward, FORWARD,
                 {"q3_forward": (1, ("x", "log_det", "gradient"))}, wrt=(1,)),
        Question("householder_inverse", householder_cases(), householder_inverse, INVERSE,
                 {"q3_inverse": (1, ("z", "log_det", "gradient"))}, wrt=(1,)),
        Question("householder_inverse", householder_cases(100_000), householder_inverse,
                 {"z": "with D = 100,000 it is too slow, too large or wrong", "log_det": LOG_DET},
                 {"q3_cost": (1, ("z", "log_det"))}),
        Question("turned_log_prob", turned_cases, turned_log_prob,
                 {"log_p": "the log-density is not that of the turned Gaussian", "gradient": GRADIENT},
                 {"q3_log_prob": (2, ("log_p", "gradient"))}, wrt=(1, 2, 3)),
        Question("radial_forward", radial_cases, radial_forward, FORWARD,
                 {"q4_forward": (2, ("x", "log_det", "gradient"))}, wrt=(1, 2, 3)),
        Question("radial_inverse", radial_cases, radial_inverse, INVERSE,
                 {"q4_inverse": (2, ("z", "log_det", "gradient"))}, wrt=(0, 1, 2, 3)),
        Question("posterior_draws", posterior_cases(0, 0), posterior_draws,
                 {"z": "z is not the image of eps", "log_q": LOG_Q}, {"q6_gaussian": (1, ("z", "log_q"))}),
        Question("posterior_draws", posterior_cases(1, 3), posterior_draws,
                 {"z": "z is not the image of eps under all layers", "log_q": LOG_Q, "gradient": GRADIENT},
                 {"q6_flow": (2, ("z", "log_q", "gradient"))}, wrt=(1, 2, 3, 4, 5, 6)),
        Question("reweigh", reweigh_cases, reweigh,
                 {"elbo": "the bound is not the mean of the log-weights",
                  "log_z": "ln Z is not the logarithm of the mean weight",
                  "size": "the effective sample size is wrong, or not a share of n"},
                 {"q6_bound": (1, ("elbo", "log_z")), "q6_size": (1, ("size",))}),
    ),
    manual={"q5_paper": 4, "q6_experiment": 2, "q6_answer": 3},
)
