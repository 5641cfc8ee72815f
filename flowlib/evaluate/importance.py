"""Importance weights w = p/q: what their mean estimates, their effective sample size, and how heavy their tail is."""
from __future__ import annotations

import math

import torch
from torch import Tensor

from ..core import Flow

__all__ = ["effective_sample_size", "log_prob", "pareto_k"]


def log_prob(flow: Flow, x: Tensor, n: int = 16, context: Tensor | None = None) -> Tensor:
    r"""$\ln \tfrac1n \sum_{i=1}^n p(v_i)/q(v_i|x)$ with fresh dequantizations $v_i \sim q(v|x)$: a lower bound of $\ln
    P(x)$ in the mean, like one `flow.log_prob`, but one that rises with n, towards $\ln P(x)$ (Burda et al. 2016,
    arXiv:1509.00519, theorem 1; Ho et al. 2019, arXiv:1902.00275). `bits_per_dim` of it is the importance-weighted
    bits/dim. Cost: n times `flow.log_prob`.

    Args:
        flow: A flow whose likelihood is a "bound" (or exact: then all draws are equal).
        x: Integer images (..., C, H, W).
        n: Number of draws.
        context: As for `flow.log_prob`.

    Returns:
        Nats, of the shape of `flow.log_prob(x, context)`.

    Raises:
        TypeError: A likelihood that is an "estimate": its noise would pass for probability.

    Example:
        >>> from flowlib import Pixels, RealNVP, importance
        >>> flow = Pixels(RealNVP(4), (1, 2, 2), levels=16)
        >>> importance.log_prob(flow, torch.zeros(3, 1, 2, 2, dtype=torch.uint8), n=8).shape
        torch.Size([3])
    """
    if flow.likelihood == "estimate":
        raise TypeError("importance weights need the density itself, and log_prob of this flow is an estimate")
    return torch.stack([flow.log_prob(x, context) for _ in range(n)]).logsumexp(0) - math.log(n)


def effective_sample_size(log_weights: Tensor) -> Tensor:
    r"""$(\sum_i w_i)^2 / \sum_i w_i^2$: how many draws from p n weighted draws from q are worth, between 1 and n.

    Args:
        log_weights: $\ln w$ up to a constant, (n, ...).

    Returns:
        The size, of shape `log_weights.shape[1:]`.

    Example:
        >>> effective_sample_size(torch.tensor([0.0, 0.0, -100.0]))
        tensor(2.)
    """
    weights = (log_weights - log_weights.amax(0)).exp()
    return weights.sum(0).square() / weights.square().sum(0)


def pareto_k(log_weights: Tensor) -> float:
    r"""The shape $\hat k$ of a generalised Pareto law fitted to the $3\sqrt n$ largest weights, at most a fifth of all.

    Above 0.7 an estimate from these weights is not to be trusted, however good its effective sample size looks: the
    weights that matter most have not been drawn yet (Vehtari et al. 2024, arXiv:1507.02646). The fit is the
    quasi-Bayesian one of Zhang and Stephens (2009): the likelihood of $b = k/\sigma$ is averaged over a grid, since k
    has a closed form given b; a prior that is worth ten observations at 1/2 steadies it.

    Args:
        log_weights: $\ln w$ up to a constant, (n,).

    Returns:
        k; $-\infty$ where the largest weights are equal.

    Raises:
        ValueError: Fewer than 25 weights, so that there is no tail to fit.

    Example:
        >>> torch.manual_seed(0).initial_seed()
        0
        >>> u = torch.rand(100_000, dtype=torch.float64)
        >>> round(pareto_k(-0.5 * u.log()), 1)  # w = u^(-1/2) is Pareto with k = 1/2
        0.5
    """
    n = len(log_weights)
    if log_weights.ndim != 1 or n < 25:
        raise ValueError(f"pareto_k needs a shape (n,) with n >= 25, got {tuple(log_weights.shape)}")
    size = min(n // 5, math.ceil(3 * math.sqrt(n)))
    top = log_weights.detach().cpu().double().topk(size + 1).values.flip(0)  # the first is the threshold
    tail = torch.expm1(top[1:] - top[0]) * (top[0] - top[-1]).exp()  # exceedances, over the largest weight
    if tail[-1] <= 0:
        return -math.inf
    steps = 30 + int(math.sqrt(size))
    grid = 1 - (steps / (torch.arange(steps, dtype=tail.dtype) + 0.5)).sqrt()
    b = 1 / tail[-1] + grid / (3 * tail[(size + 2) // 4 - 1].clamp(min=torch.finfo(tail.dtype).tiny))
    shape = torch.log1p(-b[:, None] * tail).mean(1)  # k for each b, (steps,)
    log_likelihood = size * ((-b / shape).log() - shape - 1)
    b = (b * log_likelihood.softmax(0)).sum()
    k = torch.log1p(-b * tail).mean().item()
    return (size * k + 10 * 0.5) / (size + 10)
