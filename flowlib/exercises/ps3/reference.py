"""Problem set 3, coupling flows on images: inputs of random sizes and the right functions."""
import math

import numpy as np
import torch
import torch.nn.functional as F

from ..judge import FORWARD, GRADIENT, INVERSE, LOG_DET, ProblemSet, Question


def coupling_terms(kept, mask, w1, b1, w2, b2):
    r, t = (torch.tanh((mask * kept) @ w1 + b1) @ w2 + b2).chunk(2, 1)
    return (1 - mask) * torch.tanh(r), (1 - mask) * t


def coupling_forward(z, mask, *weights):
    s, t = coupling_terms(z, mask, *weights)
    return z * s.exp() + t, s.sum(1)


def coupling_inverse(x, mask, *weights):
    s, t = coupling_terms(x, mask, *weights)
    return (x - t) * (-s).exp(), -s.sum(1)


def coupling_cases(r):
    for dim in map(int, r.choice(np.arange(3, 9), 3, replace=False)):
        hidden = int(r.integers(2, 7))
        mask = r.permutation((np.arange(dim) < r.integers(1, dim)).astype(float))
        weights = [r.normal(size=shape) for shape in ((dim, hidden), hidden, (hidden, 2 * dim), 2 * dim)]
        yield [2 * r.normal(size=(dim + int(r.integers(1, 4)), dim)), mask, *weights]


def mixing_matrix(p, lower, upper, signs, s):
    return p @ (lower.tril(-1) + torch.eye(len(s))) @ (upper.triu(1) + (signs * s.exp()).diag())


def mixing_inverse(x, p, lower, upper, signs, s):
    z = (mixing_matrix(p, lower, upper, signs, s) @ x.flatten(2)).reshape(x.shape)
    return z, (x[0, 0].numel() * s.sum()).expand(len(x))


def mixing_forward(z, p, lower, upper, signs, s):
    half = torch.linalg.solve_triangular(lower.tril(-1) + torch.eye(len(s)), p.T @ z.flatten(2), upper=False)
    x = torch.linalg.solve_triangular(upper.triu(1) + (signs * s.exp()).diag(), half, upper=True)
    return x.reshape(z.shape), (-z[0, 0].numel() * s.sum()).expand(len(z))


def factors(r, channels, size=0.0):
    """p, lower, upper, signs, s, with all of U + diag of size e^size."""
    order = r.permutation(channels)
    p = np.roll(np.eye(channels), 1, 0)[order][:, order]  # one cycle: no channel stays in its place
    lower, upper = r.normal(size=(2, channels, channels)) / channels
    signs = r.permutation(np.append(r.choice([-1.0, 1.0], channels - 1), -1.0))
    return [p, lower, math.exp(size) * upper, signs, size + 0.5 * r.normal(size=channels)]


def sizes(r, channels):
    """Height and width; they differ, also from the number of channels."""
    return r.choice(np.setdiff1d(np.arange(1, 6), channels), 2, replace=False)


def matrix_cases(r):
    for channels in r.choice(np.arange(3, 9), 3, replace=False):
        yield factors(r, int(channels))


def mixing_cases(r):
    for channels, size in ((1, 0.5), (int(r.integers(3, 7)), 0.0), (40, -25.0)):  # the last determinant is e^-1000
        image = r.normal(size=(int(r.integers(2, 5)), channels, *sizes(r, channels)))
        yield [image, *factors(r, channels, size)]


def step_terms(kept, weight, bias):
    r, t = F.conv2d(kept, weight[:, :, None, None], bias).chunk(2, 1)
    return torch.tanh(r), t


def step_inverse(x, shift, log_scale, weight, bias):
    y = (x - shift[:, None, None]) * (-log_scale[:, None, None]).exp()
    kept, moved = y.chunk(2, 1)
    s, t = step_terms(kept, weight, bias)
    return torch.cat([kept, (moved - t) * (-s).exp()], 1), -x[0, 0].numel() * log_scale.sum() - s.sum((1, 2, 3))


def step_forward(z, shift, log_scale, weight, bias):
    kept, moved = z.chunk(2, 1)
    s, t = step_terms(kept, weight, bias)
    x = torch.cat([kept, moved * s.exp() + t], 1) * log_scale[:, None, None].exp() + shift[:, None, None]
    return x, z[0, 0].numel() * log_scale.sum() + s.sum((1, 2, 3))


def step_cases(r):
    for channels in (2, 2 * int(r.integers(2, 4))):
        shift, log_scale, bias = r.normal(size=(3, channels))
        image = r.normal(size=(int(r.integers(2, 5)), channels, *sizes(r, channels)))
        yield [image, shift, 0.5 * log_scale, r.normal(size=(channels, channels // 2)), bias]


def mixture_inverse(x, logits, means, log_scales):
    u = (x[:, None] - means) / log_scales.exp()
    low, high, log_pi = F.logsigmoid(u), F.logsigmoid(-u), logits.log_softmax(0)
    log_cdf, log_rest, log_pdf = ((log_pi + part).logsumexp(1) for part in (low, high, low + high - log_scales))
    return log_cdf - log_rest, log_pdf - log_cdf - log_rest


def mixture_forward(z, logits, means, log_scales):
    with torch.no_grad():
        places = means + log_scales.exp() * z[:, None]
        low, high = places.amin(1), places.amax(1)
        for _ in range(80):
            x = (low + high) / 2
            below = mixture_inverse(x, logits, means, log_scales)[0] < z
            low, high = torch.where(below, x, low), torch.where(below, high, x)
    found, log_slope = mixture_inverse(x, logits, means, log_scales)
    x = x - (found - z) * (-log_slope).exp()
    return x, -mixture_inverse(x, logits, means, log_scales)[1]


def mixture_cases(*spreads):
    def cases(r):
        for spread in spreads:
            k = int(r.integers(2, 7))
            points = spread * r.uniform(-1, 1, k + int(r.integers(1, 6)))
            points[:2] = spread, -spread
            yield [points, r.normal(size=k), r.uniform(-2, 2, k), r.uniform(-0.9, 0.2, k)]
    return cases


def to_reals(x, u, levels, alpha):
    q = alpha + (1 - 2 * alpha) * (x + u) / levels
    log_slope = math.log(1 - 2 * alpha) - math.log(levels) - q.log() - (-q).log1p()
    return q.log() - (-q).log1p(), log_slope.sum(1)


def to_integers(y, levels, alpha):
    return (levels * (y.sigmoid() - alpha) / (1 - 2 * alpha)).floor().clamp(0, levels - 1)


def pixels(r, levels):
    """Integers with each end among them, and noise that rounding cannot push out of its cell."""
    shape = int(r.integers(3, 7)), int(r.integers(2, 8))
    x = r.integers(levels, size=shape)
    x[0, :2] = 0, levels - 1
    return x, r.uniform(0.01, 0.99, shape)


def reals_cases(r):
    for levels in (17, 32, 256):
        yield [*pixels(r, levels), levels, float(r.uniform(0.01, 0.1))]


def integers_cases(r):
    for x, u, levels, alpha in reals_cases(r):
        y = to_reals(torch.from_numpy(x), torch.from_numpy(u), levels, alpha)[0].numpy()
        y[1, :2] = -9.0, 9.0  # beyond the last levels
        yield [y, levels, alpha]


def two_bounds(log_p, dims):
    bits = dims * math.log(2)
    return -log_p.mean(0) / bits, (math.log(len(log_p)) - log_p.logsumexp(0)) / bits


def bounds_cases(r):
    for offset in (0.0, -3000.0, 3000.0):
        yield [offset + 2 * r.normal(size=(int(r.integers(2, 20)), int(r.integers(2, 6)))), int(r.integers(20, 200))]


SET = ProblemSet(
    name="ps3",
    questions=(
        Question("coupling_forward", coupling_cases, coupling_forward, FORWARD,
                 {"q1_x": (1, ("x",)), "q1_log_det": (1, ("log_det", "gradient"))}, wrt=(2, 3, 4, 5)),
        Question("coupling_inverse", coupling_cases, coupling_inverse, INVERSE,
                 {"q1_inverse": (2, ("z", "log_det", "gradient"))}, wrt=(2, 3, 4, 5)),
        Question("mixing_matrix", matrix_cases, mixing_matrix,
                 {"w": "W is not the product of its factors", "gradient": GRADIENT},
                 {"q2_matrix": (1, ("w", "gradient"))}, wrt=(1, 2, 4)),
        Question("mixing_inverse", mixing_cases, mixing_inverse,
                 {"z": "z is not W times x at every pixel", "log_det": LOG_DET, "gradient": GRADIENT},
                 {"q2_z": (1, ("z",)), "q2_log_det": (1, ("log_det", "gradient"))}, wrt=(2, 3, 5)),
        Question("mixing_forward", mixing_cases, mixing_forward, FORWARD,
                 {"q2_forward": (2, ("x", "log_det", "gradient"))}, wrt=(2, 3, 5)),
        Question("step_inverse", step_cases, step_inverse, INVERSE,
                 {"q3_inverse": (2, ("z", "log_det", "gradient"))}, wrt=(1, 2, 3, 4)),
        Question("step_forward", step_cases, step_forward, FORWARD,
                 {"q3_forward": (2, ("x", "log_det", "gradient"))}, wrt=(1, 2, 3, 4)),
        Question("mixture_inverse", mixture_cases(4, 60), mixture_inverse,
                 {"z": "z is not the logit of the mixture's distribution function, or not so far from zero",
                  "log_slope": "the log-slope is wrong, or not finite far from zero", "gradient": GRADIENT},
                 {"q5_z": (1, ("z",)), "q5_log_slope": (1, ("log_slope", "gradient"))}, wrt=(1, 2, 3)),
        Question("mixture_forward", mixture_cases(4, 60, 1e4), mixture_forward,
                 {"x": "x is not the point that z came from", "log_slope": LOG_DET, "gradient": GRADIENT},
                 {"q5_x": (1, ("x",)), "q5_gradient": (2, ("x", "log_slope", "gradient"))}, wrt=(0, 1, 2, 3)),
        Question("to_reals", reals_cases, to_reals,
                 {"y": "y is not the logit of the pixel with its noise", "log_det": LOG_DET},
                 {"q6_reals": (1, ("y",)), "q6_log_det": (1, ("log_det",))}),
        Question("to_integers", integers_cases, to_integers, {"x": "x is not the level of y, or the nearest one"},
                 {"q6_integers": (1, ("x",))}),
        Question("two_bounds", bounds_cases, two_bounds,
                 {"first": "the first bound is not the mean over the draws, in bits per dimension",
                  "second": "the second bound is not the logarithm of the mean density, in bits per dimension"},
                 {"q6_plain": (1, ("first",)), "q6_weighted": (1, ("second",))}),
    ),
    manual={"q4_paper": 4, "q6_experiment": 2, "q6_answer": 3},
)
