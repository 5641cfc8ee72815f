"""The radial flow: stretch or shrink space around a point. Its inverse is a quadratic equation."""
from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .conditioned import Conditioned, check_dim, length

__all__ = ["Radial"]


class Terms(NamedTuple):
    """The parameters of one map, or of one each."""

    center: Tensor  # z_0, (..., D)
    alpha: Tensor  # (...)
    sigma: Tensor  # (...), alpha + beta


class Radial(Conditioned):
    r"""$x = z + \beta\,\frac{z - z_0}{\alpha + r}$ with $r = \lVert z - z_0\rVert$, invertible for every value of its parameters.

    $\alpha = \operatorname{softplus}(\hat\alpha) > 0$ and $\beta = -\alpha + \sigma$ with $\sigma = \operatorname{softplus}(\hat\beta) > 0$,
    so that the distance to $z_0$ increases with r: $R = r\,\frac{r + \sigma}{\alpha + r}$. The determinant is

    $$\left(\frac{r+\sigma}{\alpha+r}\right)^{D-1} \frac{r^2 + 2\alpha r + \alpha\sigma}{(\alpha+r)^2}$$

    in a form where nothing cancels as $\beta \to -\alpha$. Inverse: r is the positive root of $r^2 + (\sigma - R)\,r - \alpha R = 0$. Cost:
    O(D), both ways.

    Args:
        dim: D.
        context_dim: Width of a context from which one linear map reads $z_0$, $\hat\alpha$, $\hat\beta$ (amortised), or None.

    Raises:
        ValueError: No dimension.

    Papers: Rezende and Mohamed (2015), arXiv:1505.05770, equation 14 and appendix A.2.

    Example:
        >>> from flowlib import Radial
        >>> x, log_det = Radial(3)(torch.zeros(5, 3)); log_det.shape
        torch.Size([5])
    """

    def __init__(self, dim: int, *, context_dim: int | None = None):
        check_dim(dim)
        super().__init__(dim, torch.cat([torch.randn(dim) / math.sqrt(dim), torch.randn(2)]), context_dim)

    def _terms(self, params: Tensor) -> Terms:
        center, rest = params.split_with_sizes((self.dim, 2), -1)
        smallest = torch.finfo(params.dtype).tiny ** 0.75  # so that neither underflows, nor sigma / alpha overflows
        return Terms(center, *F.softplus(rest).clamp(min=smallest).unbind(-1))

    def _log_det(self, r, alpha, sigma, top, bottom):
        """`top` and `bottom` are r + sigma and alpha + r."""
        near, far = alpha / bottom, r / bottom  # their sum is 1
        radial = torch.addcmul(far * torch.add(far, near, alpha=2), near, sigma / bottom)
        return torch.add(radial.log(), top.log() - bottom.log(), alpha=self.dim - 1)

    def _forward(self, z, params):
        center, alpha, sigma = self._terms(params)
        away = z - center
        r = length(away)
        top, bottom = r + sigma, alpha + r
        return torch.addcmul(center, away, (top / bottom)[..., None]), self._log_det(r, alpha, sigma, top, bottom)

    def _inverse(self, x, params):
        center, alpha, sigma = self._terms(params)
        away = x - center
        distance = length(away)  # R
        b = distance - sigma
        # sqrt(b^2 + 4 alpha R), whose squares may under- or overflow
        root = torch.hypot(b, 2 * alpha.sqrt() * distance.clamp(min=torch.finfo(x.dtype).tiny).sqrt())
        # of the two forms of the root, the one that adds
        r = torch.where(b > 0, 0.5 * (root + b), 2 * alpha * (distance / (root + b.abs())))
        top, bottom = r + sigma, alpha + r
        return torch.addcmul(center, away, (bottom / top)[..., None]), -self._log_det(r, alpha, sigma, top, bottom)
