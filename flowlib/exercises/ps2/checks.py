"""Open checks of problem set 2. Each prints one line: all holds, what is violated, or "not attempted yet"."""
from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ...checks import jacobian
from ..properties import (
    Violated,
    attempt,
    bijection_properties,
    gradient_property,
    holds,
    map_properties,
    near,
    open_check,
    random,
    show_table,
)


def planar_parameters(dim: int, along: float) -> tuple[Tensor, Tensor, Tensor]:
    """u, w (dim,) and b with w.u = along."""
    u, w = random(-1, 1, dim), random(0.5, 1, dim)
    return u + (along - w @ u) * w / (w @ w), w, random(-1, 1)


@open_check("Exercise 1")
def check_planar(admissible: Callable, planar_forward: Callable) -> None:
    """What changes in u, the map along w, log-dets also where w.u < -1, gradients."""
    for along in (-3.0, 0.5, 3.0):
        u, w, b = planar_parameters(3, along)
        new = attempt(admissible, u, w)
        holds(isinstance(new, Tensor) and new.shape == u.shape, "admissible keeps the shape of u")
        holds(w @ new > -1, f"w.u is greater than -1 after the change, where it was {along:.1f}")
        holds(near(w @ new, torch.log1p(w.new_tensor(along).exp()) - 1), "w.u becomes m(w.u)")
        holds(near((new - u) * (w @ w), ((new - u) @ w) * w), "only the part of u along w changes")
        weights = random(-1, 1, 3)
        gradient_property(lambda u, w: (weights * attempt(admissible, u, w)).sum(), (u, w),
                          "gradients flow through admissible to u and w")
        map_properties(planar_forward, random(-2, 2, 5, 3), (u, w, b), planar_forward.__name__)
        still = -b * w / (w @ w)  # w.z + b = 0
        far = torch.stack([still, still + 40 * w / (w @ w), still - 40 * w / (w @ w)])
        moved = attempt(planar_forward, far, u, w, b)[0] - far
        holds(near(moved[0], torch.zeros(3, dtype=moved.dtype)), "a point with w.z + b = 0 stays where it is")
        holds(near(moved[1], new) and near(moved[2], -new),
              "far along w, points move by the admissible u, and by minus it")


@open_check("Exercise 2")
def check_planar_inverse(planar_forward: Callable, planar_inverse: Callable) -> None:
    """Round trip near and far, log-dets, gradients."""
    for along in (-2.0, 0.5, 3.0):
        parameters = planar_parameters(3, along)
        bijection_properties(planar_forward, planar_inverse, random(-2, 2, 5, 3), parameters)
        far = random(-100, 100, 5, 3)
        back = attempt(planar_inverse, attempt(planar_forward, far, *parameters)[0], *parameters)[0]
        holds(near(back, far), "the round trip of points up to 100 away from the origin")


@open_check("Exercise 3")
def check_householder(householder_forward: Callable, householder_inverse: Callable, turned_log_prob: Callable) -> None:
    """Round trip, lengths and angles, the order of the reflections, log-dets, gradients, cost; the turned Gaussian."""
    for count, dim in ((1, 3), (3, 4)):
        z, vectors = random(-1, 1, 5, dim), random(-2, 2, count, dim)
        bijection_properties(householder_forward, householder_inverse, z, (vectors,))
        x = attempt(householder_forward, z, vectors)[0]
        holds(near(x @ x.T, z @ z.T), "lengths and angles stay as they are")
        holds(near(attempt(householder_forward, z, 3 * vectors)[0], x), "the length of a vector does not matter")
        mirrored = attempt(householder_forward, vectors[:1], vectors[:1])[0]
        holds(near(mirrored, -vectors[:1]), "the reflection of v at its own hyperplane is -v")
        step = attempt(householder_forward, attempt(householder_forward, z, vectors[:1])[0], vectors[1:])[0]
        holds(near(step, x), "the first vector of the list reflects first")
    dim = 1_000_000  # a full matrix would have 8 TB
    far, vectors = random(-1, 1, 2, dim), random(-1, 1, 3, dim)
    try:
        with torch.no_grad():
            back = attempt(householder_inverse, attempt(householder_forward, far, vectors)[0], vectors)[0]
    except (RuntimeError, MemoryError):
        raise Violated("no matrix is built: 1,000,000 dimensions are possible") from None
    holds(near(back, far), "the round trip in 1,000,000 dimensions")

    dim = 2
    mean, vectors, log_scale = random(-1, 1, dim), random(-2, 2, 2, dim), random(-0.1, 0.1, dim)
    log_scale[0] -= 0.6
    axis = torch.linspace(-9, 9, 301, dtype=torch.float64)
    grid = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, dim)
    log_p = attempt(turned_log_prob, grid, mean, log_scale, vectors)
    holds(isinstance(log_p, Tensor) and log_p.shape == grid.shape[:1], "there is one log-density for each row")
    mass = log_p.exp() * (axis[1] - axis[0]) ** 2
    holds(abs(mass.sum() - 1) < 1e-3, "the total probability is 1")
    holds(near(mass @ grid, mean, 1e-3), "the mean of the turned Gaussian is `mean`")
    spread = ((grid - mean) * mass[:, None]).T @ (grid - mean)
    turned = attempt(householder_forward, torch.diag(log_scale.exp()), vectors)[0]  # row i: the image of s_i e_i
    holds(near(spread, turned.T @ turned, 1e-3), "the covariance is that of mean + H_T ... H_1 (s * eps)")
    near_mean = mean + random(-1, 1, 3, dim)
    gradient_property(lambda *parameters: attempt(turned_log_prob, near_mean, *parameters).sum(),
                      (mean, log_scale, vectors), "gradients flow to mean, log_scale and vectors")


@open_check("Exercise 4")
def check_radial(radial_forward: Callable, radial_inverse: Callable) -> None:
    """Round trip, log-dets of maps that shrink and that stretch, gradients."""
    for raw_beta in (-1.5, 2.0):
        parameters = random(-1, 1, 3), random(-0.5, 0.5), torch.tensor(raw_beta, dtype=torch.float64)
        bijection_properties(radial_forward, radial_inverse, random(-3, 3, 5, 3), parameters)


@open_check("Exercise 6")
def check_posterior(posterior_draws: Callable, planar_forward: Callable, reweigh: Callable) -> None:
    """Shapes, the Gaussian part, log q against the Jacobian, the order of the layers, gradients; three summaries."""
    dim = 3
    eps, mean, log_scale, lower = random(-2, 2, 5, dim), random(-1, 1, dim), random(-1, 1, dim), random(-1, 1, dim, dim)
    us, ws, bs = random(-1, 1, 2, dim), random(-1, 1, 2, dim), random(-1, 1, 2)

    def draws(k, eps=eps, lower=lower):
        result = attempt(posterior_draws, eps, mean, log_scale, lower, us[:k], ws[:k], bs[:k])
        holds(isinstance(result, tuple) and len(result) == 2 and all(isinstance(part, Tensor) for part in result),
              "posterior_draws returns two tensors")
        holds(result[0].shape == eps.shape and result[1].shape == eps.shape[:1],
              "posterior_draws gives one point and one log q for each row of eps")
        return result

    normal = torch.distributions.Normal(torch.zeros((), dtype=eps.dtype), 1).log_prob(eps).sum(1)
    for k in (0, 1, 2):
        slopes = jacobian(lambda e: draws(k, e)[0], eps)
        log_q = draws(k)[1]
        holds(near(log_q, normal - torch.linalg.slogdet(slopes)[1]),
              f"with {k} layers, log q is the log-density of eps minus the log-det of eps -> z")
        if k == 0:
            holds(near(draws(0, 0 * eps)[0], mean.expand(5, dim)), "without layers, eps = 0 gives the mean")
            spread = slopes[0] / log_scale.exp()
            holds(near(spread.diagonal(), torch.ones_like(mean)) and near(spread.triu(1), torch.zeros_like(spread)),
                  "without layers, z = mean + L (s * eps) with ones on the diagonal of L, zeros above")
            holds(near(spread.tril(-1), lower.tril(-1)), "the entries of L below the diagonal are those of `lower`")
        else:
            z = attempt(planar_forward, draws(k - 1)[0], us[k - 1], ws[k - 1], bs[k - 1])[0]
            holds(near(draws(k)[0], z), "the last planar layer of the list is applied last")
    first = attempt(posterior_draws, eps[:1], mean, log_scale, lower, us, ws, bs)
    holds(near(first[0], draws(2)[0][:1]) and near(first[1], log_q[:1]), "the first draw does not depend on the others")
    weights = random(-1, 1, *eps.shape)

    def weighted(*parameters):
        z, log_q = attempt(posterior_draws, eps, *parameters)
        return (weights * z).sum() + log_q.sum()

    gradient_property(weighted, (mean, log_scale, lower, us, ws, bs),
                      "gradients flow to all parameters of the posterior")

    def summaries(log_w):
        result = [torch.as_tensor(part, dtype=torch.float64) for part in attempt(reweigh, log_w)]
        holds(len(result) == 3 and all(part.shape == () and part.isfinite() for part in result),
              "reweigh returns three finite numbers")
        return result

    log_w = random(-3, 3, 40)
    elbo, log_z, size = summaries(log_w)
    holds(elbo < log_z, "the bound is below ln Z")
    holds(1 / 40 <= size <= 1, "the effective sample size, as a share of n, lies between 1/n and 1")
    squares = summaries(2 * log_w)[1]
    holds(near(size, (2 * log_z - squares).exp()), "the effective sample size is made of the sums of w and of w^2")
    for shift in (-2000.0, 2000.0):
        moved = summaries(log_w + shift)
        holds(near(moved[0], elbo + shift) and near(moved[1], log_z + shift) and near(moved[2], size),
              "a constant added to all log-weights is added to the bound and to ln Z, and changes nothing else")
    doubled = summaries(torch.cat([log_w, log_w]))
    holds(all(map(near, doubled, (elbo, log_z, size))), "the same weights twice change nothing")
    equal = summaries(torch.full((40,), 0.7, dtype=torch.float64))
    holds(all(near(part, torch.tensor(right, dtype=torch.float64)) for part, right in zip(equal, (0.7, 0.7, 1.0))),
          "for equal weights the bound is ln Z, and every draw counts")
    half = summaries(torch.cat([log_w.new_zeros(20), log_w.new_full((20,), -1000.0)]))
    holds(near(half[2], torch.tensor(0.5, dtype=torch.float64)),
          "if half of the weights vanish, half of the draws count")


def show_experiment(experiment: Callable) -> None:
    """Run exercise 6 and print its table: a list of (posterior, gaps in nats, shares of effective draws)."""
    show_table("Exercise 6", experiment, 28, ("gap, nats", "effective share"))
