"""Monotone rational quadratic splines of one number: the map of neural spline flows."""
from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .base import ElementwiseMap

__all__ = ["RationalQuadraticSpline"]


class RationalQuadraticSpline(ElementwiseMap):
    r"""A monotone spline of rational quadratic pieces on $[-B, B]$, the identity outside (Durkan et al. 2019,
    arXiv:1906.04032, equations 4-8). In bin k, with $\theta = (z - z_k)/w_k$, slope $s = h_k/w_k$ and knot slopes
    $d_k$,

    $$x = x_k + h_k \frac{s\theta^2 + d_k\theta(1-\theta)}{s + (d_{k+1} + d_k - 2s)\theta(1-\theta)}$$

    This is the textbook form, the paper's equation 4; the code computes the same piece as interpolations between slopes
    (de Casteljau's scheme), which adds positive terms only, where the textbook form subtracts. The tests compare the
    two. The inverse solves the paper's quadratic (equations 6-8), in the form that does not cancel. Cost: O(bins) both
    ways.

    Args:
        bins: K. The map takes 3K - 1 parameters: K widths, K heights, K - 1 inner slopes.
        box: B, half the side of the box.

    Raises:
        ValueError: No bins, or an empty box.

    Example:
        >>> RationalQuadraticSpline().forward(torch.tensor([1.0]), torch.zeros(1, 23))[0]  # the identity at the start
        tensor([1.])
    """

    min_share = 1e-2  # of the even share 1/K that every bin keeps: whatever K, no bin vanishes
    min_slope = 1e-3

    def __init__(self, bins: int = 8, box: float = 5.0):
        if bins < 1 or not box > 0:
            raise ValueError(f"a spline needs at least one bin and a positive box, got bins={bins}, box={box}")
        self.bins, self.box = bins, box
        self.n_params = 3 * bins - 1
        self._slope_offset = math.log(math.expm1(1 - self.min_slope))  # raw slope 0 gives slope 1

    def _bin(self, value, params, axis):
        """The bin that `value` falls into (axis 0: value is a z, 1: an x), as its six numbers:
        left edge and width in z, left edge and height in x, slopes at both ends. Each (...).

        Bins come first here: what runs over the K bins then runs over whole planes of numbers, which is several times
        as fast as over rows of K. And what can be picked is picked before it is computed with.
        """
        k = self.bins
        raw_sizes, raw_slopes = params.movedim(-1, 0).split([2 * k, k - 1])
        shares = raw_sizes.unflatten(0, (2, k)).softmax(1)  # (2, K, ...)
        sizes = (2 * self.box * (1 - self.min_share)) * shares + 2 * self.box * self.min_share / k
        with torch.no_grad():  # which bin: no gradient passes through a choice
            right = sizes[axis].cumsum(0)
            right[-1] = torch.inf  # the last bin takes the edge of the box
            before = (right <= value + self.box).to(sizes.dtype)  # (K, ...), 1 for the bins left of the value's
            index = before.sum(0, keepdim=True).long()  # (1, ...)
        z0, x0 = (sizes * before).sum(1) - self.box
        w, h = sizes.take_along_dim(index[None], 1).squeeze(1)
        edge = torch.zeros_like(raw_sizes[:1])  # the identity outside has slope 1
        raw_ends = torch.cat([edge, raw_slopes, edge]).take_along_dim(torch.cat([index, index + 1]), 0)  # (2, ...)
        d0, d1 = F.softplus(raw_ends + self._slope_offset) + self.min_slope
        return z0, w, x0, h, d0, d1

    @staticmethod
    def _piece(theta, s, d0, d1):
        """The piece from (0, 0) to (1, 1) at theta, and ln dx/dz. Written as de Casteljau's interpolations between the
        slopes d0, s, d1, it adds positive terms only."""
        a, b = torch.lerp(d0, s, theta), torch.lerp(s, d1, theta)
        below = torch.lerp(b, a, theta)
        ratio = s / below
        return theta * a / below, (ratio * (ratio * torch.lerp(a, b, theta))).log()  # in this order nothing underflows

    def forward(self, z: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        """x and ln dx/dz, elementwise."""
        inside = z.clamp(-self.box, self.box)  # before the spline: no NaN reaches the gradient through where()
        outside = inside != z
        z0, w, x0, h, d0, d1 = self._bin(inside, params, 0)
        rise, log_slope = self._piece(((inside - z0) / w).clamp(0, 1), h / w, d0, d1)
        return torch.where(outside, z, x0 + h * rise), torch.where(outside, 0.0, log_slope)

    def inverse(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        """z and ln dz/dx, elementwise."""
        inside = x.clamp(-self.box, self.box)
        outside = inside != x
        z0, w, x0, h, d0, d1 = self._bin(inside, params, 1)
        s, rise = h / w, (inside - x0) / h
        # (s - b) theta^2 + b theta = s rise
        b = d0 - rise * (d0 + d1 - 2 * s)
        twice = 2 * s * rise
        root = b * b + 2 * twice * (s - b)  # not negative in exact arithmetic, and sqrt has no slope at 0
        theta = (twice / (b + root.clamp(min=torch.finfo(x.dtype).tiny).sqrt())).clamp(0, 1)
        _, log_slope = self._piece(theta, s, d0, d1)
        return torch.where(outside, x, z0 + w * theta), torch.where(outside, 0.0, -log_slope)
