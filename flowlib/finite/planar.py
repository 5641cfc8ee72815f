"""The planar flow: push space along one direction, by an amount that depends on another. With an exact inverse."""
from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from ..numerics import log_softplus, solve_monotone
from .amortised import Amortised, check_dim

__all__ = ["Planar"]


class Planar(Amortised):
    r"""$x = z + \hat u \tanh(w^\top z + b)$, invertible for every value of its parameters u, w, b.

    By the matrix determinant lemma $\det\frac{\partial x}{\partial z} = 1 + (1 - \tanh^2 a)\, w^\top\hat u$ with $a = w^\top z +
    b$. It is positive everywhere exactly if $w^\top \hat u > -1$, which is built in: $\hat u$ is u with its component along w
    replaced so that $w^\top \hat u = m(w^\top u)$, $m(t) = -1 + \ln(1 + e^t)$.

    Inverse: $s = w^\top z$ solves the scalar equation $s + w^\top\hat u \tanh(s + b) = w^\top x$, whose left side increases;
    then $z = x - \hat u\tanh(s+b)$.

    Cost: O(D) forward (sampling), O(D) and one scalar root search a row in `inverse` (density).

    Args:
        dim: D.
        context_dim: Width of a context from which one linear map reads u, w and b (amortised), or None (parameters).

    Papers: Rezende and Mohamed (2015), arXiv:1505.05770, equations 10-12 and appendix A.1.

    Example:
        >>> from flowlib import Flow, Planar, StandardNormal
        >>> Flow(StandardNormal(2), Planar(2)).log_prob(torch.zeros(5, 2)).shape
        torch.Size([5])
    """

    def __init__(self, dim: int, context_dim: int | None = None):
        check_dim(dim)
        super().__init__(dim, torch.randn(2 * dim + 1) / math.sqrt(dim), context_dim)

    def _terms(self, value, context):
        """u-hat and w (..., D), b, t = w.u and c = w.u-hat, each (...)."""
        u, w, b = self._params(value, context).split([self.dim, self.dim, 1], -1)
        length2 = (w * w).sum(-1, keepdim=True)
        # w = 0 makes the map a translation by u tanh(b): nothing to correct, and nothing to divide by
        some = length2 > torch.finfo(w.dtype).tiny
        along = torch.where(some, w / length2.where(some, 1.0), 0.0)  # w / |w|^2
        t = (w * u).sum(-1, keepdim=True)
        c = torch.where(some, F.softplus(t) - 1, 0.0)
        u_hat = u - t * along + c * along
        return u_hat, w, b.squeeze(-1), torch.where(some, t, math.log(math.e - 1)).squeeze(-1), c.squeeze(-1)

    @staticmethod
    def _log_det(a, t):
        # 1 + sech^2(a) (softplus(t) - 1) = tanh^2(a) + sech^2(a) softplus(t): a sum of positive terms, so nothing cancels
        # however close w.u-hat comes to -1. Its logarithm from the logarithms of the terms, so nothing underflows.
        a = a.abs().clamp(min=1e3 * torch.finfo(a.dtype).tiny)
        log_cosh = a + F.softplus(-2 * a) - math.log(2)
        log_tanh = (-torch.expm1(-2 * a)).log() - F.softplus(-2 * a)
        return torch.logaddexp(2 * log_tanh, log_softplus(t) - 2 * log_cosh)

    def forward(self, z, context=None):
        u_hat, w, b, t, _ = self._terms(z, context)
        a = (w * z).sum(-1) + b
        return z + u_hat * torch.tanh(a)[..., None], self._log_det(a, t)

    def inverse(self, x, context=None):
        u_hat, w, b, t, c = self._terms(x, context)
        projection = (w * x).sum(-1)
        b, c = b.expand_as(projection), c.expand_as(projection)
        reach = c.detach().abs() + 1e-3 * (1 + projection.detach().abs())  # |s - w.x| <= |c|, with room for rounding
        s = solve_monotone(_along_w, projection, projection.detach() - reach, projection.detach() + reach, b, c)
        a = s + b
        return x - u_hat * torch.tanh(a)[..., None], -self._log_det(a, t)


def _along_w(s, b, c):
    """s + c tanh(s + b) and its derivative."""
    tanh = torch.tanh(s + b)
    return s + c * tanh, 1 + c * (1 - tanh * tanh)
