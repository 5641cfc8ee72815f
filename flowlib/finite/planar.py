"""The planar flow: push space along one direction, by an amount that depends on another. With an exact inverse."""
from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from ..numerics import solve_monotone
from .amortised import Amortised, add_outer, check_dim, dot

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

    def __init__(self, dim: int, *, context_dim: int | None = None):
        check_dim(dim)
        super().__init__(dim, torch.randn(2 * dim + 1) / math.sqrt(dim), context_dim)

    def _terms(self, value, context):
        """u-hat and w (..., D), b, t = w.u and softplus(t) (...)."""
        u, w, b = self._params(value, context).split_with_sizes((self.dim, self.dim, 1), -1)
        length2 = dot(w, w)
        # w = 0 makes the map a translation by u tanh(b): nothing to correct, and nothing to divide by
        none = length2 <= torch.finfo(w.dtype).tiny
        t = dot(u, w).masked_fill(none, math.log(math.e - 1))
        softplus = F.softplus(t, threshold=40.0)  # the default of 20 costs digits in float64
        along = (softplus - t - 1) / length2.masked_fill(none, math.inf)
        return torch.addcmul(u, along[..., None], w), w, b.squeeze(-1), t, softplus

    @staticmethod
    def _log_det(a, h, t, softplus):
        # 1 + sech^2(a) (softplus(t) - 1) = tanh^2(a) + sech^2(a) softplus(t): a sum of positive terms, so nothing cancels
        # however close w.u-hat comes to -1; and as the square of a hypotenuse nothing underflows. Left of -40 the root of
        # softplus(t) is e^(t/2), here as a second factor.
        small = (0.5 * t + 20).clamp(math.log(torch.finfo(t.dtype).tiny) + 21, 0.0).exp()
        root = softplus.clamp(min=math.exp(-40)).sqrt() * small
        return 2 * torch.hypot(h, root / a.clamp(-80.0, 80.0).cosh()).log()

    def forward(self, z, context=None):
        u_hat, w, b, t, softplus = self._terms(z, context)
        a = dot(z, w) + b
        h = torch.tanh(a)
        return add_outer(z, h, u_hat), self._log_det(a, h, t, softplus)

    def inverse(self, x, context=None):
        u_hat, w, b, t, softplus = self._terms(x, context)
        projection = dot(x, w)
        b, c = b.expand_as(projection), (softplus - 1).expand_as(projection)
        reach = c.detach().abs() + 1e-3 * (1 + projection.detach().abs())  # |s - w.x| <= |c|, with room for rounding
        s = solve_monotone(_along_w, projection, projection.detach() - reach, projection.detach() + reach, b, c)
        a = s + b
        h = torch.tanh(a)
        return add_outer(x, -h, u_hat), -self._log_det(a, h, t, softplus)


def _along_w(s, b, c):
    """s + c tanh(s + b) and its derivative."""
    tanh = torch.tanh(s + b)
    return s + c * tanh, 1 + c * (1 - tanh * tanh)
