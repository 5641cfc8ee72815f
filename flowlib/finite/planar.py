"""The planar flow: push space along one direction, by an amount that depends on another. With an exact inverse."""
from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..numerics import solve_monotone, sqrt_softplus
from .conditioned import Conditioned, add_outer, check_dim, dot, largest

__all__ = ["Planar"]


class Terms(NamedTuple):
    """The parameters of one map, or of one each."""

    u_hat: Tensor  # (..., D)
    w: Tensor  # (..., D)
    b: Tensor  # (...)
    root: Tensor  # (...), of 1 + w.u_hat = softplus(w.u)


class Planar(Conditioned):
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

    def _terms(self, params: Tensor) -> Terms:
        u, w, b = params.split_with_sizes((self.dim, self.dim, 1), -1)
        # the square of w may under- or overflow. w = 0 makes the map a translation by u tanh(b): nothing to correct, and
        # nothing to divide by (twice, in gradients)
        direction = w / F.threshold(largest(w), torch.finfo(w.dtype).tiny ** 0.5, torch.inf)
        square = dot(w, direction)  # over the largest entry
        t = dot(u, w).masked_fill(square == 0, math.log(math.e - 1))
        root = sqrt_softplus(t)
        along = (root * root - t - 1) / F.threshold(square, 0.0, torch.inf)
        return Terms(torch.addcmul(u, along[..., None], direction), w, b.squeeze(-1), root)

    @staticmethod
    def _log_det(a, h, root):
        # 1 + sech^2(a) (softplus(t) - 1) = tanh^2(a) + sech^2(a) softplus(t): a sum of positive terms, so nothing cancels
        # however close w.u_hat comes to -1; and as the square of a hypotenuse nothing underflows.
        return 2 * torch.hypot(h, root / a.clamp(-80.0, 80.0).cosh()).log()

    def _forward(self, z, params):
        u_hat, w, b, root = self._terms(params)
        a = dot(z, w) + b
        h = torch.tanh(a)
        return add_outer(z, h, u_hat), self._log_det(a, h, root)

    def _inverse(self, x, params):
        u_hat, w, b, root = self._terms(params)
        projection = dot(x, w)
        b, c = b.expand_as(projection), (root * root - 1).expand_as(projection)
        reach = c.abs() + 1e-3 * (1 + projection.abs())  # |s - w.x| <= |c|, with room for rounding
        s = solve_monotone(_along_w, projection, projection - reach, projection + reach, b, c, check=False)
        a = s + b
        h = torch.tanh(a)
        return add_outer(x, -h, u_hat), -self._log_det(a, h, root)


def _along_w(s, b, c):
    """s + c tanh(s + b) and its derivative."""
    tanh = torch.tanh(s + b)
    return s + c * tanh, 1 + c * (1 - tanh * tanh)
