"""The planar flow: push space along one direction, by an amount that depends on another. With an exact inverse."""
from __future__ import annotations

import functools
import math
from typing import NamedTuple

import torch
from torch import Tensor

from ..numerics import softplus, solve_monotone, sqrt_softplus
from .conditioned import Conditioned, add_outer, check_dim, dot

__all__ = ["Planar"]


class Terms(NamedTuple):
    """The parameters of one map, or of one each."""

    u_hat: Tensor  # (..., D)
    w: Tensor  # (..., D)
    b: Tensor  # (...)
    slope: Tensor  # (...), 1 + w.u_hat = softplus(w.u)
    root: Tensor  # (...), of the slope


@functools.cache
def within_squares(dtype: torch.dtype) -> tuple[float, float]:
    """A range of numbers of which the squares of a million can be added: a larger weight acts as its end."""
    end = torch.finfo(dtype).max ** 0.5 / 1000
    return -end, end


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
        w = w.clamp(*within_squares(w.dtype))
        square = dot(w, w)
        # w = 0 makes the map a translation by u tanh(b): nothing to correct, and nothing to divide by (twice, in gradients)
        none = square <= 16 * torch.finfo(w.dtype).tiny ** 0.5
        t = dot(u, w).masked_fill(none, math.log(math.e - 1))
        slope = softplus(t)
        root = sqrt_softplus(t, slope)
        u_hat = torch.addcmul(u, ((slope - t - 1) / square.masked_fill(none, math.inf))[..., None], w)
        return Terms(u_hat, w, b.squeeze(-1), slope, root)

    @staticmethod
    def _log_det(a, h, root):
        # 1 + sech^2(a) (softplus(t) - 1) = tanh^2(a) + sech^2(a) softplus(t): a sum of positive terms, so nothing cancels
        # however close w.u_hat comes to -1; and as the square of a hypotenuse nothing underflows.
        return 2 * torch.hypot(h, root / a.clamp(-80.0, 80.0).cosh()).log()

    def _forward(self, z, params):
        u_hat, w, b, _, root = self._terms(params)
        a = dot(z, w) + b
        h = torch.tanh(a)
        return add_outer(z, h, u_hat), self._log_det(a, h, root)

    def _inverse(self, x, params):
        u_hat, w, b, slope, root = self._terms(params)
        projection = dot(x, w)
        b, c = b.expand_as(projection), (slope - 1).expand_as(projection)
        reach = c.abs() + 1e-3 * (1 + projection.abs())  # |s - w.x| <= |c|, with room for rounding
        s = solve_monotone(_along_w, projection, projection - reach, projection + reach, b, c, check=False)
        a = s + b
        h = torch.tanh(a)
        return add_outer(x, -h, u_hat), -self._log_det(a, h, root)


def _along_w(s, b, c):
    """s + c tanh(s + b) and its derivative."""
    tanh = torch.tanh(s + b)
    return s + c * tanh, 1 + c * (1 - tanh * tanh)
