"""Open checks of problem set 3. Each prints one line: all holds, what is violated, or "not attempted yet"."""
from __future__ import annotations

import functools
import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ...checks import jacobian
from ..properties import attempt, bijection_properties, gradient_property, holds, near, open_check, random, show_table


def with_fixed(function: Callable, arguments: Callable) -> Callable:
    """`function(*arguments(...))` as a function of points and parameters: `arguments` puts in what is not trained."""
    @functools.wraps(function)
    def call(*given):
        return attempt(function, *arguments(*given))
    return call


@open_check("Exercise 1")
def check_coupling(coupling_forward: Callable, coupling_inverse: Callable) -> None:
    """Round trip, log-dets, gradients; what is kept; what the network is, and what its two halves do."""
    dim, hidden = 5, 4
    for kept in (1, 3):
        mask = (torch.randperm(dim) < kept).to(torch.float64)
        weights = tuple(random(-1, 1, *shape) for shape in ((dim, hidden), (hidden,), (hidden, 2 * dim), (2 * dim,)))
        z = random(-2, 2, 6, dim)
        forward, inverse = (with_fixed(function, lambda points, *w: (points, mask, *w))
                            for function in (coupling_forward, coupling_inverse))
        bijection_properties(forward, inverse, z, weights)
        x, log_det = forward(z, *weights)
        holds(torch.equal(x * mask, z * mask), "the kept numbers stay as they are")
        moved = mask == 0
        holds((log_det.abs() < moved.sum()).all(), "no number is stretched by more than e, or shrunk by more than 1/e")
        w1, b1, w2, b2 = weights
        silent = w1, b1, torch.zeros_like(w2), torch.cat([b2[:dim], torch.zeros_like(b2[dim:])])
        x = forward(z, *silent)[0] / z
        holds(near(x[1:], x[:1].expand(5, dim)), "the second half of the network's output alone shifts")
        three = torch.cat([torch.full_like(b2[:dim], 3.0), b2[dim:]])
        log_det = forward(z, w1, b1, torch.zeros_like(w2), three)[1]
        holds(near(log_det, (moved.sum() * math.tanh(3.0)).expand(6)),
              "where r is 3, the log-scale of a moved number is tanh 3")
        silent = w1, b1, torch.zeros_like(w2), torch.cat([torch.zeros_like(b2[:dim]), b2[dim:]])
        x, log_det = forward(z, *silent)
        holds(near(log_det, torch.zeros_like(log_det)), "the first half of the network's output alone stretches")
        holds(near((x - z)[:, moved], b2[dim:][moved].expand(6, -1)), "a network that always gives (0, t) adds t")
        loud = [forward(z, factor * w1, factor * b1, w2, b2)[0] for factor in (1e8, 1e9)]
        holds(near(*loud), "hidden units saturate: with huge W1 and b1, ten times larger ones change nothing")
        loud = [forward(z, w1, b1, w2, b2 + size * (torch.arange(2 * dim) < dim))[0] for size in (50, 60)]
        holds(near(*loud), "scales saturate: where r is huge, a larger r changes nothing")


@open_check("Exercise 2")
def check_mixing(mixing_matrix: Callable, mixing_inverse: Callable, mixing_forward: Callable) -> None:
    """The factors of W, the same map at every pixel, log-dets also of tiny determinants, gradients."""
    for channels, height, width in ((2, 2, 3), (3, 3, 1)):
        eye = torch.eye(channels, dtype=torch.float64)
        p, signs = eye.roll(1, 0), torch.sign(random(-1, 1, channels))
        signs[0] = -1
        lower, upper = random(-1, 1, 2, channels, channels)
        s = random(-0.5, 0.5, channels)
        w = attempt(mixing_matrix, p, lower, upper, signs, s)
        holds(isinstance(w, Tensor) and w.shape == p.shape, "W is a C x C matrix")
        holds(near(torch.linalg.slogdet(w)[1], s.sum()), "ln|det W| is the sum of s")
        bare = attempt(mixing_matrix, eye, lower, upper, signs, s)
        holds(near(p @ bare, w), "P permutes the rows of the rest")
        none = torch.zeros_like(lower)
        left = attempt(mixing_matrix, eye, lower, none, torch.ones_like(signs), torch.zeros_like(s))
        holds(near(left, lower.tril(-1) + eye),
              "L has ones on its diagonal and the entries of `lower` below it, and no others")
        right = attempt(mixing_matrix, eye, none, upper, signs, s)
        holds(near(right, upper.triu(1) + (signs * s.exp()).diag()),
              "without L, the diagonal has the signs and the scales, and above it are the entries of `upper`")
        holds(near(left @ right, bare), "L stands to the left of U + diag")
        weights = random(-1, 1, channels, channels)
        trained = with_fixed(mixing_matrix, lambda a, b, c: (p, a, b, signs, c))
        gradient_property(lambda *parameters: (weights * trained(*parameters)).sum(), (lower, upper, s),
                          "gradients flow through mixing_matrix to lower, upper and s")

        inverse, forward = (with_fixed(function, lambda points, a, b, c: (points, p, a, b, signs, c))
                            for function in (mixing_inverse, mixing_forward))
        x = random(-1, 1, 4, channels, height, width)
        bijection_properties(inverse, forward, x, (lower, upper, s))
        z = inverse(x, lower, upper, s)[0]
        holds(near(z[0, :, 0, 0], w @ x[0, :, 0, 0]), "W acts on the way to the latent, on the channels of a pixel")
        moved = inverse(x.roll(1, 2), lower, upper, s)[0]
        holds(near(moved, z.roll(1, 2)), "all pixels are treated alike: shifted images give shifted latents")
    channels = 40
    p, small = torch.eye(channels, dtype=torch.float64), torch.full((channels,), -25.0, dtype=torch.float64)
    lower, upper = random(-0.1, 0.1, 2, channels, channels)
    tiny = p, lower, upper * small.exp(), torch.ones_like(small), small
    for function, sign in ((mixing_inverse, 1), (mixing_forward, -1)):
        log_det = attempt(function, x.new_ones(1, channels, 2, 3), *tiny)[1]
        holds(near(log_det, sign * 6 * small.sum(0, keepdim=True)),
              f"the log-det of {function.__name__} is right where the determinant is too small for the computer")


@open_check("Exercise 3")
def check_step(step_inverse: Callable, step_forward: Callable) -> None:
    """Images that do not see each other, sums over pixels, where the channels are, round trip, log-dets, gradients."""
    for channels, height, width in ((2, 3, 2), (4, 1, 2)):
        half = channels // 2
        shift, log_scale, bias = random(-1, 1, 3, channels)
        weight = random(-1, 1, channels, half)
        x = random(-2, 2, 4, channels, height, width)
        parameters, still = (shift, log_scale, weight, bias), (0 * shift, 0 * log_scale, weight, bias)

        def alone_and_stacked(function, images):
            value, log_det = attempt(function, images, *parameters)
            first = attempt(function, images[:1], *parameters)
            holds(near(first[0], value[:1]), f"the first image of {function.__name__} does not depend on the others")
            holds(near(first[1], log_det[:1]),
                  f"the first log-det of {function.__name__} does not depend on the other images")
            twice = attempt(function, torch.cat([images, images], 2), *parameters)[1]
            holds(near(twice, 2 * log_det), f"an image stacked on itself has twice the log-det of {function.__name__}")
            kept = attempt(function, images, *still)[0][:, :half]
            holds(near(kept, images[:, :half]),
                  f"with an actnorm that does nothing, {function.__name__} keeps the first half of the channels")
            return value

        z = alone_and_stacked(step_inverse, x)
        y = (x - shift[:, None, None]) / log_scale.exp()[:, None, None]
        holds(near(attempt(step_inverse, y, *still)[0], z),
              "towards the latent, x minus the shift is divided by the scale, and the coupling follows")
        only_t = torch.cat([0 * bias[:half], bias[:half]])
        plain = attempt(step_inverse, y, *still[:2], 0 * weight, only_t)
        holds(near(y - plain[0], only_t[:, None, None].expand_as(y)) and near(plain[1], 0 * plain[1]),
              "where the convolution gives (0, t), t is subtracted, and nothing else happens")
        only_r = torch.cat([bias[:half], 0 * bias[:half]])
        plain = attempt(step_inverse, y, *still[:2], 0 * weight, only_r)[0]
        stretch = torch.tanh(bias[:half])[:, None, None].exp()
        holds(near(plain[:, half:] * stretch, y[:, half:]),
              "where the convolution gives (r, 0), the moved channels are divided by e^(tanh r) towards the latent")
        alone_and_stacked(step_forward, z)
        holds(near(attempt(step_forward, z, *parameters)[0], x),
              "step_forward leads back from the latents to the images")
        bijection_properties(step_inverse, step_forward, x, parameters)


@open_check("Exercise 5")
def check_mixture(mixture_forward: Callable, mixture_inverse: Callable) -> None:
    """Round trip near and far, slopes, the density under a logistic base, one component, gradients."""
    for components in (1, 3):
        parameters = random(-1, 1, components), random(-2, 2, components), random(-0.7, 0.3, components)
        logits, means, log_scales = parameters
        bijection_properties(mixture_forward, mixture_inverse, random(-4, 4, 6), parameters)
        x = torch.tensor([*torch.linspace(-8, 8, 801), -60.0, 60.0], dtype=torch.float64)
        z, log_slope = attempt(mixture_inverse, x, *parameters)
        holds(z.isfinite().all() and log_slope.isfinite().all(), "z and its log-slope are finite at x = 60 and x = -60")
        holds((z[:801].diff() > 0).all(), "the curve increases")
        u = (x[:, None] - means) / log_scales.exp()
        log_f = (logits.log_softmax(0) + F.logsigmoid(u) + F.logsigmoid(-u) - log_scales).logsumexp(1)
        holds(near(F.logsigmoid(z) + F.logsigmoid(-z) + log_slope, log_f, 1e-9),
              "with a logistic base, the density of x is that of the mixture")
        holds(near(attempt(mixture_inverse, x, logits + 3, means, log_scales)[0], z),
              "a constant added to all logits changes nothing")
        if components == 1:
            holds(near(z, u[:, 0]), "one component gives a straight line")
        far = torch.tensor([-60.0, -9.0, 9.0, 60.0], dtype=torch.float64)
        back, log_slope = attempt(mixture_forward, far, *parameters)
        holds(near(attempt(mixture_inverse, back, *parameters)[0], far), "the round trip of z = 60 and z = -60")
        gradient_property(lambda z: attempt(mixture_forward, z, *parameters)[0].sum(), (far,),
                          "gradients flow through mixture_forward to z")


@open_check("Exercise 6")
def check_dequantization(to_reals: Callable, to_integers: Callable, two_bounds: Callable) -> None:
    """Integers come back, log-dets, the logistic base; order, limit, unit and range of the two bounds."""
    for levels, alpha in ((17, 0.05), (256, 0.01)):
        x, u = torch.randint(levels, (5, 4)), random(0.001, 0.999, 5, 4)
        x[0, :2] = torch.tensor([0, levels - 1])
        result = attempt(to_reals, x, u, levels, alpha)
        holds(isinstance(result, tuple) and len(result) == 2 and all(isinstance(part, Tensor) for part in result),
              "to_reals returns two tensors")
        y, log_det = result
        holds(y.shape == x.shape and log_det.shape == (5,),
              "to_reals gives one number for each pixel and one log-det for each row")
        holds(y.isfinite().all() and log_det.isfinite().all(), "to_reals gives finite numbers")
        slopes = jacobian(lambda u: attempt(to_reals, x, u, levels, alpha)[0], u)
        holds(near(log_det, torch.linalg.slogdet(slopes)[1]),
              "the log-det of to_reals agrees with its Jacobian from autograd")
        cost = log_det + (F.logsigmoid(y) + F.logsigmoid(-y)).sum(1)
        holds(near(cost, cost[:1].expand(5)), "with a logistic base, every image is equally likely")
        holds(near(y, -attempt(to_reals, levels - 1 - x, 1 - u, levels, alpha)[0]),
              "the negative of an image has the negative y")
        last = attempt(to_reals, x[:1] * 0 + levels - 1, 0 * u[:1] + 1, levels, alpha)[0]
        holds(near(torch.sigmoid(last), torch.full_like(last, 1 - alpha)),
              "the brightest edge of the brightest level has q = 1 - alpha")
        back = attempt(to_integers, y, levels, alpha)
        holds(isinstance(back, Tensor) and back.shape == x.shape, "to_integers gives one number for each pixel")
        holds((back == x).all(), "integers come back exactly, whatever the noise was")
        far = attempt(to_integers, torch.tensor([[-30.0, 30.0]], dtype=torch.float64), levels, alpha)
        holds((far == torch.tensor([[0, levels - 1]])).all(), "what lies beyond the last level gets the last level")

    def bounds(log_p, dims=3):
        result = attempt(two_bounds, log_p, dims)
        holds(isinstance(result, tuple) and len(result) == 2 and all(isinstance(part, Tensor) for part in result),
              "two_bounds returns two tensors")
        holds(all(part.shape == log_p.shape[1:] for part in result), "two_bounds gives two numbers for each image")
        holds(all(part.isfinite().all() for part in result), "the bounds are finite, also for logarithms of -3000")
        return result

    # a Gaussian and its cell [1, 2): 2,000 draws, evenly spread
    normal = torch.distributions.Normal(torch.zeros((), dtype=torch.float64), 0.7)
    cell = 1 + (torch.arange(2000, dtype=torch.float64) + 0.5) / 2000
    first, second = bounds(normal.log_prob(cell)[:, None], 1)
    truth = -(normal.cdf(torch.tensor([1.0, 2.0], dtype=torch.float64)).diff()).log2()
    holds(near(second, truth, 1e-5),
          "in the limit of many draws the second bound is -log2 of the probability of the cell")
    holds(first > truth, "the first bound costs more than the truth")
    log_p = random(-3, 3, 8, 4)
    first, second = bounds(log_p)
    pairs = torch.stack([bounds(pair)[1] for pair in log_p.split(2)]).mean(0)
    holds((second < pairs).all() and (pairs < first).all(),
          "more draws make the second bound tighter: 1, then 2, then 8")
    singles = torch.stack([torch.stack(bounds(one[None])) for one in log_p])  # (8, 2, 4)
    holds(near(singles[:, 0], singles[:, 1]), "with one draw, both bounds are the same")
    holds(near(singles.mean(0)[0], first), "the first bound is the mean over the draws")
    for shift in (-3000.0, 3000.0):
        moved = bounds(log_p + shift)
        per_dim = -shift / 3 / math.log(2)
        holds(near(moved[0], first + per_dim) and near(moved[1], second + per_dim),
              "a constant added to all logarithms is added to both bounds, in bits per dimension")
    doubled = bounds(torch.cat([log_p, log_p]))
    holds(near(doubled[0], first) and near(doubled[1], second), "the same draws twice change nothing")
    coin = bounds(torch.full((2, 1), -5 * math.log(256), dtype=torch.float64), 5)
    holds(all(near(part, torch.full_like(part, 8.0)) for part in coin),
          "a fair choice of 256 levels costs 8 bits per dimension")


def show_experiment(experiment: Callable) -> None:
    """Run exercise 6 and print its table: a list of (images, first bounds, second bounds, shares of alarms)."""
    show_table("Exercise 6", experiment, 22, ("bits/dim, first", "bits/dim, second", "alarms"), "images")
