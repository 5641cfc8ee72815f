"""Base distributions: what z is drawn from. Modules with buffers, so that `.to(device)` and `.double()` move sampling too.

A base has `event_shape`, `log_prob(z)` in nats, and two ways to draw: `rsample(batch)` keeps gradients, and
`sample(batch, temperature)` scales the deviation from the centre, where there is a centre to deviate from.
"""
from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .describe import call_text, recorded
from .saving import Recorded

__all__ = ["GaussianMixture", "StandardLogistic", "StandardNormal", "Uniform"]

LOG_2PI = math.log(2 * math.pi)


class Base(nn.Module, metaclass=Recorded):
    """What the bases share: events, and the batch axes before them."""

    event_shape: tuple[int, ...]

    def __repr__(self) -> str:
        return call_text(type(self).__name__, *recorded(self))

    def rsample(self, batch: tuple[int, ...]) -> Tensor:
        """Draws of shape (*batch, *event_shape) that gradients pass through."""
        raise TypeError(f"{type(self).__name__} has no reparameterised samples")

    def sample(self, batch: tuple[int, ...], temperature: float = 1.0) -> Tensor:
        """Draws of shape (*batch, *event_shape) without gradient."""
        if temperature != 1:
            raise ValueError(f"{type(self).__name__} has no centre to scale around: temperature must be 1, got {temperature}")
        with torch.no_grad():
            return self.rsample(batch)

    def _sum(self, terms: Tensor) -> Tensor:
        return terms.sum(tuple(range(-len(self.event_shape), 0))) if self.event_shape else terms


class _Standard(Base):
    """A parameter-free, centred base; its one (empty) buffer carries dtype and device."""

    def __init__(self, *event_shape: int):
        super().__init__()
        if not event_shape or any(not isinstance(n, int) or n < 1 for n in event_shape):
            raise ValueError(f"{type(self).__name__} needs an event shape of positive integers, got {event_shape}")
        self.event_shape = event_shape
        self.register_buffer("like", torch.empty(0), persistent=False)

    def sample(self, batch, temperature=1.0):
        if temperature < 0:
            raise ValueError(f"temperature must not be negative, got {temperature}")
        with torch.no_grad():
            return temperature * self.rsample(batch)


class StandardNormal(_Standard):
    r"""$\log p(z) = -\tfrac12 \lVert z \rVert^2 - \tfrac{D}{2}\ln 2\pi$ over events of a given shape.

    Example:
        >>> from flowlib import StandardNormal
        >>> StandardNormal(2).log_prob(torch.zeros(2))  # -ln 2 pi
        tensor(-1.8379)
    """

    def rsample(self, batch):
        return torch.randn(*batch, *self.event_shape, dtype=self.like.dtype, device=self.like.device)

    def log_prob(self, z: Tensor) -> Tensor:
        """Log-density in nats, of shape `z.shape[:-len(event_shape)]`."""
        return -0.5 * self._sum(z * z) - 0.5 * LOG_2PI * math.prod(self.event_shape)


class StandardLogistic(_Standard):
    r"""$\log p(z) = \sum_i -|z_i| - 2 \ln(1 + e^{-|z_i|})$, the base of NICE; variance $\pi^2/3$.

    Example:
        >>> from flowlib import StandardLogistic
        >>> StandardLogistic(1).log_prob(torch.zeros(1)).exp()
        tensor(0.2500)
    """

    def rsample(self, batch):
        u = torch.rand(*batch, *self.event_shape, dtype=self.like.dtype, device=self.like.device)
        eps = torch.finfo(u.dtype).eps
        return torch.logit(u.clamp(eps / 4, 1 - eps / 2))  # rand can be 0

    def log_prob(self, z: Tensor) -> Tensor:
        """Log-density in nats, of shape `z.shape[:-len(event_shape)]`."""
        return self._sum(-z.abs() - 2 * F.softplus(-z.abs()))


class Uniform(Base):
    """The uniform distribution on a box; scalars make a one-dimensional event. Its support is closed, and a few units in
    the last place wider, so that a point that rounding moved off the edge still counts.

    Args:
        low, high: Corners of the box: numbers (event shape (1,)) or tensors of one shape.

    Raises:
        ValueError: low is not below high.

    Example:
        >>> from flowlib import Uniform
        >>> Uniform(0.0, 2.0).log_prob(torch.tensor([[1.0], [3.0]])).exp()
        tensor([0.5000, 0.0000])
    """

    def __init__(self, low: float | Tensor, high: float | Tensor):
        super().__init__()
        low, high = torch.broadcast_tensors(*(torch.as_tensor(v, dtype=None if isinstance(v, Tensor) else
                                                              torch.get_default_dtype()) for v in (low, high)))
        if not bool((low < high).all()):
            raise ValueError(f"Uniform needs low < high in every coordinate, got {low} and {high}")
        self.register_buffer("low", low.reshape(low.shape or (1,)).clone())
        self.register_buffer("high", high.reshape(high.shape or (1,)).clone())
        self.event_shape = tuple(self.low.shape)

    def rsample(self, batch):
        u = torch.rand(*batch, *self.event_shape, dtype=self.low.dtype, device=self.low.device)
        return self.low + (self.high - self.low) * u

    def log_prob(self, z: Tensor) -> Tensor:
        """Log-density in nats, of shape `z.shape[:-len(event_shape)]`; -inf outside the box."""
        low, high = self.low.to(z.dtype), self.high.to(z.dtype)
        slack = 4 * torch.finfo(z.dtype).eps * torch.maximum(low.abs(), high.abs())
        inside = (z >= low - slack) & (z <= high + slack)
        return self._sum(torch.where(inside, -(high - low).log(), -torch.inf))


class GaussianMixture(Base):
    r"""$p(z) = \sum_k \pi_k \prod_i N(z_i; \mu_{ki}, \sigma_{ki}^2)$, a base with several modes.

    Args:
        means: (K, D).
        scales: Standard deviations, anything that broadcasts to (K, D).
        weights: (K,), made to sum to one; equal where None.

    Raises:
        ValueError: Shapes that do not fit, or scales or weights that are not positive.

    Example:
        >>> from flowlib import GaussianMixture
        >>> GaussianMixture(torch.tensor([[-1.0], [1.0]])).log_prob(torch.zeros(1)).exp()  # N(1; 0, 1)
        tensor(0.2420)
    """

    def __init__(self, means: Tensor, scales: float | Tensor = 1.0, weights: Tensor | None = None):
        super().__init__()
        if means.ndim != 2:
            raise ValueError(f"GaussianMixture expected means of shape (K, D), got {tuple(means.shape)}")
        scales = torch.as_tensor(scales, dtype=means.dtype, device=means.device)
        weights = means.new_ones(len(means)) if weights is None else weights
        if weights.shape != means.shape[:1]:
            raise ValueError(f"GaussianMixture expected weights of shape ({len(means)},), got {tuple(weights.shape)}")
        if not bool((scales > 0).all()) or not bool((weights > 0).all()):
            raise ValueError("GaussianMixture needs positive scales and weights")
        self.register_buffer("means", means.clone())
        self.register_buffer("scales", scales.expand(means.shape).clone())
        self.register_buffer("weights", weights / weights.sum())
        self.event_shape = (means.shape[1],)

    def sample(self, batch, temperature=1.0):
        if temperature != 1:
            raise ValueError(f"a mixture has no one centre to scale around: temperature must be 1, got {temperature}")
        k = torch.multinomial(self.weights, math.prod(batch), replacement=True).reshape(batch)
        means = self.means[k]
        return means + self.scales[k] * torch.randn_like(means)

    def log_prob(self, z: Tensor) -> Tensor:
        """Log-density in nats, of shape `z.shape[:-1]`."""
        u = (z[..., None, :] - self.means) / self.scales  # (..., K, D)
        log_normal = -0.5 * (u * u + LOG_2PI) - self.scales.log()
        return torch.logsumexp(log_normal.sum(-1) + self.weights.log(), -1)
