r"""$\ln\det(I + J)$ of a contraction J that can only be applied to vectors: a power series, its unbiased form, and its
gradient in constant memory.

$$\ln\det(I + J) = \operatorname{tr}\ln(I + J) = \sum_{k\ge1} \frac{(-1)^{k+1}}{k} \operatorname{tr} J^k, \qquad
\operatorname{tr} A = E[v^\top A v] \text{ for independent signs } v.$$
"""
from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Estimate", "estimate_log_det", "truncation_bound"]


class Estimate(NamedTuple):
    """A mean over draws, and its standard error (NaN for one draw)."""

    value: Tensor
    error: Tensor

    @classmethod
    def of(cls, draws: Tensor) -> Estimate:
        """From independent draws (S, ...)."""
        n = len(draws)
        error = draws.detach().std(0) / math.sqrt(n) if n > 1 else torch.full_like(draws[0], torch.nan)
        return cls(draws.mean(0), error)


def truncation_bound(dim: int, lipschitz: float, terms: int) -> float:
    r"""How far the first n terms of the series can be from $\ln\det(I + J)$ for $\|J\|_2 \le L < 1$:
    $D\,(-\ln(1 - L) - \sum_{k\le n} L^k/k)$, which falls like $L^n$ (Behrmann et al. 2019, arXiv:1811.00995, theorem
    4).

    Args:
        dim: D.
        lipschitz: L.
        terms: n.

    Returns:
        Nats.

    Raises:
        ValueError: An L that is not in [0, 1).

    Example:
        >>> round(truncation_bound(1, 0.9, 10), 5)
        0.18384
    """
    if not 0 <= lipschitz < 1:
        raise ValueError(f"the series converges for a Lipschitz constant in [0, 1), got {lipschitz}")
    return dim * (-math.log1p(-lipschitz) - sum(lipschitz**k / k for k in range(1, terms + 1)))


def signs(like: Tensor, draws: int, generator: torch.Generator | None = None) -> Tensor:
    """Independent signs (draws, *like.shape): of all v with E[v v^T] = I those of least variance."""
    bits = torch.randint(2, (draws, *like.shape), device=like.device, generator=generator)
    return 2 * bits.to(like.dtype) - 1


def coefficients(terms: int, more: float | None, generator: torch.Generator | None = None) -> list[float]:
    r"""The factors of $\operatorname{tr} J^k$, k = 1, 2, ...: $(-1)^{k+1}/k$ for the first `terms`; then each further
    one is taken with probability `more` given the one before it, and divided by the probability that it was reached.

    So every term is there on average (Russian roulette: Chen et al. 2019, arXiv:1906.02735, equation 6).
    """
    found, reached = [(-1) ** (k + 1) / k for k in range(1, terms + 1)], 1.0
    if more is None:
        return found
    where = None if generator is None else generator.device
    while torch.rand((), generator=generator, device=where).item() < more:
        reached *= more
        k = len(found) + 1
        found.append((-1) ** (k + 1) / (k * reached))
    return found


@torch.compiler.disable  # a series of random length is no graph
def estimate_log_det(multiply: Callable[[Tensor], Tensor], like: Tensor, *, terms: int, more: float | None = None,
                     ndim: int = 1, draws: int = 1, generator: torch.Generator | None = None,
                     gradient: Callable[[Tensor], Tensor] | None = None) -> Estimate:
    r"""An estimate of $\ln\det(I + J)$ from products with J.

    With `more=None` the series ends after `terms`, off by at most `truncation_bound`. With a number q it goes on at
    random, and is unbiased. Its variance is finite if $\rho^2 < q$ for the spectral radius $\rho$ of J: the terms
    shrink like $\rho^k$, their weights grow like $q^{-k}$. The random length is the same for the whole batch, the signs
    v are not.

    Args:
        multiply: v -> J v or $J^\top v$, for v (draws, *like.shape). Gradients go through all products, which keeps
            all of them in memory.
        like: A tensor of the batch's shape (..., *event), dtype and device.
        terms: n, how many terms are always taken.
        more: q, or None.
        ndim: Number of axes of an event.
        draws: How many independent estimates are averaged.
        generator: Of the random numbers; torch's own otherwise, which `train.fit` seeds by step and process.
        gradient: v -> J v, differentiable; `multiply` is then $v \mapsto J^\top v$ of constants. The value is the same,
            its gradient comes by one more product: from $\partial \operatorname{tr} J^k = k \operatorname{tr}(J^{k-1}
            \partial J)$ it is that of $w^\top J v$ with $w = \sum_{k \ge 0} c_{k+1} (k+1)\,(J^\top)^k v$ held constant,
            $c_k$ the factor of $\operatorname{tr} J^k$ (Neumann series: theorem 2 of the same paper). One number an
            event, so right for any weights of the events in a loss; differentiable once.

    Returns:
        Mean and standard error over the draws, each (...). Cost: terms + q/(1 - q) products on average.

    Raises:
        ValueError: No terms or draws, or a probability that is not in (0, 1).

    Example:
        >>> _ = torch.manual_seed(0); J = torch.tensor([[0.3, 0.2], [0.0, -0.4]])
        >>> value, error = estimate_log_det(lambda v: v @ J.T, torch.zeros(2), terms=2, more=0.5, draws=2000)
        >>> bool((value - torch.logdet(torch.eye(2) + J)).abs() < 4 * error)
        True
    """
    if terms < 1 or draws < 1 or (more is not None and not 0 < more < 1):
        raise ValueError(f"an estimate needs terms >= 1, draws >= 1 and more in (0, 1) or None, got {terms}, {draws} "
                         f"and {more}")
    v = signs(like, draws, generator)
    axes = tuple(range(-ndim, 0))
    found = []
    for one in v:  # each with a length of its own
        total, w, power, alive = 0.0, 0.0, one, coefficients(terms, more, generator)
        for k, c in enumerate(alive, 1):
            w = w + c * k * power
            power = multiply(power)
            total = total + c * (power * one).sum(axes)
        if gradient is not None:
            product = (w * gradient(one)).sum(axes)
            total = total + (product - product.detach())
        found.append(total)
    return Estimate.of(torch.stack(found))
