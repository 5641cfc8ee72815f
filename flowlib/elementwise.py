"""Elementwise maps: increasing functions of one number whose parameters something else computes.

They hold no parameters of their own. Each has `n_params`, and `forward(z, params)` and `inverse(x, params)` for z of any shape
(...) and params (..., n_params), which return the value and the log-derivative *per element*; containers (`Elementwise`,
`Coupling`, ...) sum over the event. With params of zero every map is the identity.
"""
from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .core import Bijection
from .saving import Recorded

__all__ = ["Additive", "Affine", "Elementwise", "RationalQuadraticSpline"]


class Additive(metaclass=Recorded):
    """$x = z + t$ with log-derivative 0: the map of NICE (Dinh et al. 2015, arXiv:1410.8516, section 3.2).

    Example:
        >>> Additive().forward(torch.tensor([1.0]), torch.tensor([[2.0]]))
        (tensor([3.]), tensor([0.]))
    """

    n_params = 1

    def forward(self, z: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        """x and 0, elementwise."""
        x = z + params[..., 0]
        return x, torch.zeros_like(x)

    def inverse(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        """z and 0, elementwise."""
        z = x - params[..., 0]
        return z, torch.zeros_like(z)


class Affine(metaclass=Recorded):
    r"""$x = z\,e^{s} + t$ with log-derivative s: the map of RealNVP (Dinh et al. 2017, arXiv:1605.08803, equation 7).

    $s = a \tanh(\hat s / a)$ is bounded by $\pm a$ and symmetric, so that a layer can stretch and shrink alike but no weight,
    however large, overflows it; deep flows stay finite both ways.

    Args:
        bound: a.

    Raises:
        ValueError: A bound that is not positive.

    Example:
        >>> Affine().forward(torch.tensor([1.0]), torch.tensor([[0.0, 2.0]]))
        (tensor([3.]), tensor([0.]))
    """

    n_params = 2

    def __init__(self, bound: float = 2.0):
        if not bound > 0:
            raise ValueError(f"bound must be positive, got {bound}")
        self.bound = bound

    def _unpack(self, params):
        raw, shift = params.unbind(-1)
        return self.bound * torch.tanh(raw / self.bound), shift

    def forward(self, z: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        """x and s, elementwise; params hold the raw log-scale, then the shift."""
        log_scale, shift = self._unpack(params)
        return z * log_scale.exp() + shift, log_scale

    def inverse(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        """z and -s, elementwise."""
        log_scale, shift = self._unpack(params)
        return (x - shift) * (-log_scale).exp(), -log_scale


class RationalQuadraticSpline(metaclass=Recorded):
    r"""A monotone spline of rational quadratic pieces on $[-B, B]$, the identity outside (Durkan et al. 2019,
    arXiv:1906.04032, equations 4-8). In bin k, with $\theta = (z - z_k)/w_k$, slope $s = h_k/w_k$ and knot slopes $d_k$,

    $$x = x_k + h_k \frac{s\theta^2 + d_k\theta(1-\theta)}{s + (d_{k+1} + d_k - 2s)\theta(1-\theta)}$$

    The inverse solves a quadratic, in the form that does not cancel. Cost: O(bins) both ways.

    Args:
        bins: K. The map takes 3K - 1 parameters: K widths, K heights, K - 1 inner slopes.
        box: B, half the side of the box.

    Raises:
        ValueError: No bins, or an empty box.

    Example:
        >>> RationalQuadraticSpline().forward(torch.tensor([1.0]), torch.zeros(1, 23))
        (tensor([1.]), tensor([0.]))
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
        left edge and width in z, left edge and height in x, slopes at both ends. Each (...)."""
        k = self.bins
        shares = params[..., : 2 * k].unflatten(-1, (2, k)).softmax(-1)  # (..., 2, K)
        sizes = (2 * self.box) * ((1 - self.min_share) * shares + self.min_share / k)
        right = sizes.cumsum(-1) - self.box  # right edges
        slopes = F.softplus(params[..., 2 * k :] + self._slope_offset) + self.min_slope
        slopes = F.pad(slopes, (1, 1), value=1.0)  # the identity outside has slope 1
        index = (value[..., None] >= right[..., axis, :-1]).sum(-1, keepdim=True)  # (..., 1)
        corners = torch.stack([right[..., 0, :] - sizes[..., 0, :], sizes[..., 0, :], right[..., 1, :] - sizes[..., 1, :],
                               sizes[..., 1, :], slopes[..., :-1], slopes[..., 1:]], -2)  # (..., 6, K)
        return corners.gather(-1, index[..., None, :].expand(*corners.shape[:-1], 1)).squeeze(-1).unbind(-1)

    @staticmethod
    def _log_slope(theta, s, d0, d1):
        """ln dx/dz at the place theta of a bin."""
        mixed = theta * (1 - theta)
        numerator = d1 * theta * theta + 2 * s * mixed + d0 * (1 - theta) ** 2
        return 2 * (s / (s + (d0 + d1 - 2 * s) * mixed)).log() + numerator.log()

    def forward(self, z: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        """x and ln dx/dz, elementwise."""
        inside = z.abs() < self.box
        clamped = z.clamp(-self.box, self.box)  # before the spline: no NaN reaches the gradient through where()
        z0, w, x0, h, d0, d1 = self._bin(clamped, params, 0)
        s, theta = h / w, ((clamped - z0) / w).clamp(0, 1)
        mixed = theta * (1 - theta)
        x = x0 + h * (s * theta * theta + d0 * mixed) / (s + (d0 + d1 - 2 * s) * mixed)
        log_slope = self._log_slope(theta, s, d0, d1)
        return torch.where(inside, x, z), log_slope.masked_fill(~inside, 0.0)

    def inverse(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        """z and ln dz/dx, elementwise."""
        inside = x.abs() < self.box
        clamped = x.clamp(-self.box, self.box)
        z0, w, x0, h, d0, d1 = self._bin(clamped, params, 1)
        s, rise = h / w, clamped - x0
        curve = rise * (d0 + d1 - 2 * s)
        a, b, c = h * (s - d0) + curve, h * d0 - curve, -s * rise
        root = (b * b - 4 * a * c).clamp(min=0.0)  # not negative in exact arithmetic
        # sqrt has no slope at 0, reached at most at the corner of a degenerate bin
        theta = (2 * c / (-b - root.clamp(min=torch.finfo(x.dtype).tiny).sqrt())).clamp(0, 1)
        log_slope = self._log_slope(theta, s, d0, d1)
        return torch.where(inside, z0 + w * theta, x), (-log_slope).masked_fill(~inside, 0.0)


class Elementwise(Bijection):
    r"""An elementwise map on every coordinate of a vector, with parameters of its own, or read from a context by one linear
    map. $\log|\det| = \sum_i \ln f_i'(z_i)$. It moves each axis by itself: dependence must come from other layers.

    Args:
        dim: D.
        elementwise: The map, such as `RationalQuadraticSpline()`.
        context_dim: Width of a context, or None.

    Example:
        >>> from flowlib import Affine, Elementwise
        >>> Elementwise(3, Affine())(torch.ones(3))[1]  # the identity at the start
        tensor(0., grad_fn=<SumBackward1>)
    """

    def __init__(self, dim: int, elementwise, context_dim: int | None = None):
        super().__init__()
        if dim < 1:
            raise ValueError(f"dim must be positive, got {dim}")
        self.event_shape = self.latent_shape = (dim,)
        self.elementwise, self.context_dim = elementwise, context_dim
        self.params = nn.Parameter(torch.zeros(dim, elementwise.n_params))
        if context_dim is not None:
            self.shift = nn.Linear(context_dim, dim * elementwise.n_params, bias=False)
            nn.init.zeros_(self.shift.weight)

    def _broadcast(self, value, context):
        self.check(value, self.event_shape, 1, self.params.dtype)
        context = self.check_context(context, value.shape[:-1], self.params.dtype)
        params = self.params
        if context is not None:
            params = params + self.shift(context).unflatten(-1, params.shape).to(value.dtype)
        shape = torch.broadcast_shapes(value.shape, params.shape[:-1])
        return value.expand(shape), params.expand(*shape, -1)

    def forward(self, z, context=None):
        x, log_slope = self.elementwise.forward(*self._broadcast(z, context))
        return x, log_slope.sum(-1)

    def inverse(self, x, context=None):
        z, log_slope = self.elementwise.inverse(*self._broadcast(x, context))
        return z, log_slope.sum(-1)
