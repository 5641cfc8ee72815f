"""Whether posteriors may be believed: ranks of true parameters among posterior draws, how often credible regions hold
the truth, and whether a classifier tells draws from those of a reference."""
from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from ..arguments import number_of_draws

__all__ = ["c2st", "coverage", "ecdf_deviation", "ranks", "uniform_band"]


class Sampler(Protocol):
    """What is checked: a flow, or anything else that draws from a posterior."""

    def sample(self, n: int, context: Tensor, /) -> Tensor:
        """n draws for each of B observations, (n, B, D)."""
        ...


@torch.no_grad()
def ranks(posterior: Sampler, theta: Tensor, x: Tensor, draws: int = 100,
          statistic: Callable[[Tensor, Tensor], Tensor] | None = None) -> Tensor:
    r"""Simulation-based calibration: for pairs of the joint law, $\theta \sim p(\theta)$, $x \sim p(x|\theta)$, the
    number of L posterior draws given x whose statistic is below that of $\theta$. Where the posterior is the exact one,
    it is uniform on 0, ..., L (Talts et al. 2018, arXiv:1804.06788, theorem 1).

    The statistics are the coordinates of $\theta$ by default. Some wrong posteriors pass all of these, above all the
    prior itself; a statistic that reads x, such as the density $q(\theta|x)$ (`statistic=flow.log_prob`), does not let
    them pass (Modrak et al. 2023, arXiv:2211.02383). Cost: L draws for each pair.

    Args:
        posterior: Draws given observations: a flow, or an object with `sample(n, x)`.
        theta: Parameters (B, D), draws of the prior.
        x: Simulations (B, ...), one for each.
        draws: L.
        statistic: From draws (L, B, D) and x to numbers (L, B) or (L, B, K).

    Returns:
        int64, (B, K), K = D by default and 1 for a statistic of one number. Ties count at random.

    Raises:
        ValueError: Draws or statistics of another shape, or NaN.

    Example:
        >>> from flowlib import RealNVP
        >>> ranks(RealNVP(2, context_dim=3), torch.zeros(5, 2), torch.zeros(5, 3), draws=10).shape
        torch.Size([5, 2])
    """
    draws = number_of_draws(draws)
    drawn = posterior.sample(draws, x)
    if drawn.shape != (draws, *theta.shape) or theta.ndim != 2:
        raise ValueError(f"parameters (B, D) and draws (L, B, D) are needed, got {tuple(theta.shape)} and "
                         f"{tuple(drawn.shape)}")
    every = torch.cat([theta[None], drawn])  # the truth first
    values = every if statistic is None else statistic(every, x)
    if values.shape[:2] != every.shape[:2] or values.ndim > 3 or bool(values.isnan().any()):
        raise ValueError(f"the statistic must give numbers (L + 1, B) or (L + 1, B, K), got {tuple(values.shape)}, "
                         f"{int(values.isnan().sum())} of them NaN")
    values = values.reshape(draws + 1, len(theta), -1)
    equal = (values[1:] == values[0]).sum(0)
    return (values[1:] < values[0]).sum(0) + (torch.rand(equal.shape, device=equal.device) * (equal + 1)).long()


def ecdf_deviation(ranks: Tensor, draws: int) -> Tensor:
    r"""$\max_k |\hat F(k) - (k+1)/(L+1)|$: how far the share $\hat F(k)$ of ranks up to k is from its value for a
    calibrated posterior. `uniform_band` says how far chance leads.

    Args:
        ranks: Of `ranks`, (B, K).
        draws: L, with which they were made.

    Returns:
        The largest distance, of shape (K,).

    Example:
        >>> ecdf_deviation(torch.tensor([[0, 0], [0, 1]]), draws=1)
        tensor([0.5000, 0.0000])
    """
    if ranks.ndim != 2 or bool((ranks < 0).any()) or bool((ranks > draws).any()):
        raise ValueError(f"ranks (B, K) between 0 and {draws} are needed, got shape {tuple(ranks.shape)}")
    steps = torch.arange(draws + 1, device=ranks.device)
    share = torch.stack([(ranks <= k).to(torch.get_default_dtype()).mean(0) for k in steps])
    return (share - ((steps + 1) / (draws + 1))[:, None]).abs().amax(0)


def uniform_band(n: int, level: float = 0.99, tests: int = 1) -> float:
    r"""The half width of the band around the diagonal in which the empirical distribution function of n uniform numbers
    stays altogether with this probability: a quantile of Kolmogorov's law for n numbers, not of its limit. Ranks are
    rounded uniform numbers, so for them the probability is a little larger.

    Args:
        n: Number of ranks.
        level: The probability.
        tests: Number of functions that stay within their bands together; each then has the level $1 - (1 -
            \text{level}) / \text{tests}$.

    Example:
        >>> round(uniform_band(1000), 4)  # about 1.63 / sqrt(n)
        0.0513
    """
    from scipy.stats import kstwo

    if n < 1 or tests < 1 or not 0 < level < 1:
        raise ValueError(f"a band needs n >= 1, tests >= 1 and a level between 0 and 1; got {n}, {tests} and {level}")
    return float(kstwo.ppf(1 - (1 - level) / tests, n))


def coverage(ranks: Tensor, draws: int, levels: Tensor) -> Tensor:
    r"""How often the region of highest density that holds a share $\alpha$ of the posterior holds the truth: for an
    exact posterior, $\alpha$ (Hermans et al. 2022, arXiv:2110.06581). Less is overconfidence.

    Args:
        ranks: Of the density, `ranks(flow, theta, x, draws, statistic=flow.log_prob)`, (B, 1): the truth lies in the
            region where fewer than $\alpha (L + 1)$ draws have a higher density.
        draws: L, with which they were made; multiples of 1 / (L + 1) are exact levels.
        levels: $\alpha$, (K,), in [0, 1].

    Returns:
        Shares, (K,).

    Example:
        >>> coverage(torch.tensor([[0], [1], [2], [3]]), 3, torch.tensor([0.25, 0.5, 1.0]))
        tensor([0.2500, 0.5000, 1.0000])
    """
    if ranks.ndim != 2 or ranks.shape[1] != 1:
        raise ValueError(f"coverage takes the ranks of one statistic, the density, (B, 1); got {tuple(ranks.shape)}")
    higher = draws - ranks  # (B, 1)
    return (higher + 0.5 < levels * (draws + 1)).to(levels.dtype).mean(0)  # half: rounding must not decide


def c2st(a: Tensor, b: Tensor, *, folds: int = 5, seed: int = 0) -> float:
    r"""The classifier two-sample test: how often a neural network, trained to tell rows of a from rows of b, is right
    on rows that it has not seen. 0.5 where nothing tells them apart, 1 where everything does (Lopez-Paz and Oquab 2017,
    arXiv:1610.06545). The network is that of the benchmark of Lueckmann et al. (2021, arXiv:2101.04653): two hidden
    layers of 10 D units, on rows standardised by a. Cost: `folds` trainings by scikit-learn, seconds for thousands of
    rows.

    Args:
        a, b: Draws (N, D), equally many.
        folds: Number of parts, each of which is tested once.
        seed: Of the parts and of the networks.

    Returns:
        The accuracy, the mean over the parts.

    Raises:
        ValueError: Unequal shapes, or fewer rows than parts.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.model_selection import KFold, cross_val_score
    from sklearn.neural_network import MLPClassifier

    if a.ndim != 2 or a.shape != b.shape or not 2 <= folds <= len(a):
        raise ValueError(f"c2st takes two samples (N, D) of one shape with N >= folds >= 2, got {tuple(a.shape)}, "
                         f"{tuple(b.shape)} and {folds} folds")
    rows = ((torch.cat([a, b]) - a.mean(0)) / a.std(0)).detach().cpu().numpy()
    labels = torch.arange(2).repeat_interleave(len(a)).numpy()
    width = 10 * a.shape[1]
    network = MLPClassifier((width, width), max_iter=1000, random_state=seed)
    parts = KFold(folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the benchmark's networks stop there too
        return float(cross_val_score(network, rows, labels, cv=parts).mean())
