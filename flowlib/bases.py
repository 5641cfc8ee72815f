"""Base distributions: what z is drawn from. Modules with buffers, so that `.to` and `.double()` move sampling too.

A base has `event_shape`, `log_prob(z)` in nats, and two ways to draw: `rsample(batch)` keeps gradients, and
`sample(batch, temperature)` scales the deviation from the centre, where there is a centre to deviate from. A base that
has a `context_shape` reads a context too, which the flow hands on to it.
"""
from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from .arguments import batch_shape, check_tensor, constants, holds
from .describe import call_text, recorded
from .saving import Recorded

__all__ = ["Base", "ConditionalNormal", "GaussianMixture", "StandardLogistic", "StandardNormal", "Uniform"]

LOG_2PI = math.log(2 * math.pi)
Batch = int | tuple[int, ...]


class Base(nn.Module, metaclass=Recorded):
    """The distribution of a flow's latents. A base of your own sets `event_shape` and defines `log_prob` and `rsample`,
    or `sample` where there is no reparameterised way to draw.

    Attributes:
        event_shape: The shape of one latent.
        context_shape: The shape of one context that the base reads, such as (C,), or None. Only a base that has one is
            given a context.

    Example:
        >>> class Exponential(Base):
        ...     event_shape = (1,)
        ...     def log_prob(self, z, context=None): return torch.where(z < 0, -torch.inf, -z).sum(-1)
        ...     def rsample(self, batch, context=None, generator=None):
        ...         return -torch.rand(*batch, 1, generator=generator).log1p()
        >>> from flowlib import AffineMap, Flow
        >>> Flow(Exponential(), AffineMap(2.0)).log_prob(torch.tensor([2.0])).exp()  # e^-1 / 2
        tensor(0.1839)
    """

    event_shape: tuple[int, ...]
    context_shape: tuple[int, ...] | None = None

    def __repr__(self) -> str:
        return call_text(type(self).__name__, *recorded(self))

    def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Log-density in nats, of shape `z.shape[:-len(event_shape)]`; -inf outside the support."""
        raise TypeError(f"{type(self).__name__} does not define log_prob")

    def rsample(self, batch: Batch, context: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        """Draws of shape (*batch, *event_shape) that gradients pass through; as `sample` otherwise."""
        raise TypeError(f"{type(self).__name__} has no reparameterised samples")

    @property
    def has_rsample(self) -> bool:
        """Whether there are reparameterised draws."""
        return type(self).rsample is not Base.rsample

    def cdf(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """$P(Z_i \\le z_i)$ of each coordinate by itself, of z's shape. It makes the `cdf` of a flow of one number."""
        raise NotImplementedError(f"{type(self).__name__} has no formula for its distribution function")

    def icdf(self, p: Tensor, context: Tensor | None = None) -> Tensor:
        """The quantile of each coordinate by itself, of p's shape."""
        raise NotImplementedError(f"{type(self).__name__} has no formula for its quantiles")

    def sample(self, batch: Batch, temperature: float = 1.0, context: Tensor | None = None,
               generator: Generator | None = None) -> Tensor:
        """Draws of shape (*batch, *event_shape) without gradient.

        Args:
            batch: The axes before the event, or one number.
            temperature: Factor of the deviation from the centre; 1 for a base that has none.
            context: Broadcast against `batch`, for a base with a `context_shape`.
            generator: Where the random numbers come from, on the base's device; torch's own where None.

        Raises:
            ValueError: A number of draws that is no integer or is negative, or a temperature that does not fit.
        """
        if temperature != 1:
            raise ValueError(f"{type(self).__name__} has no one centre to scale around: temperature must be 1, "
                             f"got {temperature}")
        with torch.no_grad():
            return self.rsample(batch, **given(context=context, generator=generator))

    def _shape(self, batch: Batch) -> tuple[int, ...]:
        """(*batch, *event_shape)."""
        return (*batch_shape(batch), *self.event_shape)

    def _sum(self, terms: Tensor) -> Tensor:
        return terms.sum(tuple(range(-len(self.event_shape), 0))) if self.event_shape else terms


def given(**options: Any) -> dict[str, Any]:
    """The options that are not None: bases of other people need not know the others."""
    return {name: value for name, value in options.items() if value is not None}


class _Standard(Base):
    """A parameter-free, centred base; its one (empty) buffer carries dtype and device."""

    like: Tensor

    def __init__(self, *event_shape: int):
        super().__init__()
        if not event_shape or any(not isinstance(n, int) or n < 1 for n in event_shape):
            raise ValueError(f"{type(self).__name__} needs an event shape of positive integers, got {event_shape}")
        self.event_shape = event_shape
        self.register_buffer("like", torch.empty(0), persistent=False)

    def sample(self, batch: Batch, temperature: float = 1.0, context: Tensor | None = None,
               generator: Generator | None = None) -> Tensor:
        _check_temperature(temperature)
        with torch.no_grad():
            return temperature * self.rsample(batch, generator=generator)


def _check_temperature(temperature: float) -> None:
    if not temperature >= 0:
        raise ValueError(f"temperature must not be negative, got {temperature}")


class StandardNormal(_Standard):
    r"""$\log p(z) = -\tfrac12 \lVert z \rVert^2 - \tfrac{D}{2}\ln 2\pi$ over events of a given shape.

    Example:
        >>> from flowlib import StandardNormal
        >>> StandardNormal(2).log_prob(torch.zeros(2))  # -ln 2 pi
        tensor(-1.8379)
    """

    def rsample(self, batch: Batch, context: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        return torch.randn(self._shape(batch), dtype=self.like.dtype, device=self.like.device, generator=generator)

    def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Log-density in nats, of shape `z.shape[:-len(event_shape)]`."""
        return -0.5 * self._sum(z * z) - 0.5 * LOG_2PI * math.prod(self.event_shape)

    def cdf(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        return torch.special.ndtr(z)

    def icdf(self, p: Tensor, context: Tensor | None = None) -> Tensor:
        return torch.special.ndtri(p)


class StandardLogistic(_Standard):
    r"""$\log p(z) = \sum_i -|z_i| - 2 \ln(1 + e^{-|z_i|})$, the base of NICE; variance $\pi^2/3$.

    Example:
        >>> from flowlib import StandardLogistic
        >>> StandardLogistic(1).log_prob(torch.zeros(1)).exp()
        tensor(0.2500)
    """

    def rsample(self, batch: Batch, context: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        u = torch.rand(self._shape(batch), dtype=self.like.dtype, device=self.like.device, generator=generator)
        eps = torch.finfo(u.dtype).eps
        return torch.logit(u.clamp(eps / 4, 1 - eps / 2))  # rand can be 0

    def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Log-density in nats, of shape `z.shape[:-len(event_shape)]`."""
        return self._sum(-z.abs() - 2 * F.softplus(-z.abs()))

    def cdf(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        return torch.sigmoid(z)

    def icdf(self, p: Tensor, context: Tensor | None = None) -> Tensor:
        return torch.logit(p)


class Uniform(Base):
    """The uniform distribution on a box; scalars make a one-dimensional event. Its support is closed, and a few units
    in the last place wider, so that a point that rounding moved off the edge still counts.

    Args:
        low, high: Corners of the box: numbers (event shape (1,)), or tensors, arrays or lists of one shape.

    Raises:
        ValueError: low is not below high, or a tensor that requires a gradient.

    Example:
        >>> from flowlib import Uniform
        >>> Uniform(0.0, 2.0).log_prob(torch.tensor([[1.0], [3.0]])).exp()
        tensor([0.5000, 0.0000])
    """

    low: Tensor
    high: Tensor

    def __init__(self, low: float | Tensor, high: float | Tensor):
        super().__init__()
        a, b = torch.broadcast_tensors(*constants("Uniform", low=low, high=high))
        if not holds(a < b):
            raise ValueError(f"Uniform needs low < high in every coordinate, got {a} and {b}")
        self.register_buffer("low", a.reshape(a.shape or (1,)).clone())
        self.register_buffer("high", b.reshape(b.shape or (1,)).clone())
        self.event_shape = tuple(self.low.shape)

    def rsample(self, batch: Batch, context: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        u = torch.rand(self._shape(batch), dtype=self.low.dtype, device=self.low.device, generator=generator)
        return self.low + (self.high - self.low) * u

    def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Log-density in nats, of shape `z.shape[:-len(event_shape)]`; -inf outside the box."""
        low, high = self.low.to(z.dtype), self.high.to(z.dtype)
        slack = 4 * torch.finfo(z.dtype).eps * torch.maximum(low.abs(), high.abs())
        inside = (z >= low - slack) & (z <= high + slack)
        return self._sum(torch.where(inside, -(high - low).log(), -torch.inf))

    def cdf(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        return ((z - self.low) / (self.high - self.low)).clamp(0, 1)

    def icdf(self, p: Tensor, context: Tensor | None = None) -> Tensor:
        return self.low + (self.high - self.low) * p


class GaussianMixture(Base):
    r"""$p(z) = \sum_k \pi_k \prod_i N(z_i; \mu_{ki}, \sigma_{ki}^2)$, a base with several modes, fixed or trained.

    It holds $\mu$, $\ln\sigma$ and $\ln\pi$ (up to a constant), which may be any real numbers: `means`, `log_scales`,
    `logits`.

    Args:
        means: (K, D), a tensor, array or list; where training starts for `trainable=True`.
        scales: Standard deviations, anything that broadcasts to (K, D).
        weights: (K,), made to sum to one; equal where None.
        trainable: Whether the three are parameters, rather than buffers.

    Raises:
        ValueError: Shapes that do not fit, scales or weights that are not positive, or a tensor that requires a
            gradient.

    Example:
        >>> from flowlib import GaussianMixture
        >>> GaussianMixture([[-1.0], [1.0]]).log_prob(torch.zeros(1)).exp()  # N(1; 0, 1)
        tensor(0.2420)
        >>> [name for name, _ in GaussianMixture([[-1.0], [1.0]], trainable=True).named_parameters()]
        ['means', 'log_scales', 'logits']
    """

    means: Tensor
    log_scales: Tensor
    logits: Tensor

    def __init__(self, means: Tensor, scales: float | Tensor = 1.0, weights: Tensor | None = None,
                 trainable: bool = False):
        super().__init__()
        means, scales, *rest = constants("GaussianMixture", means=means, scales=scales, **given(weights=weights))
        if means.ndim != 2:
            raise ValueError(f"GaussianMixture expected means of shape (K, D), got {tuple(means.shape)}")
        weights = rest[0] if rest else means.new_ones(len(means))
        if weights.shape != means.shape[:1]:
            raise ValueError(f"GaussianMixture expected weights of shape ({len(means)},), got {tuple(weights.shape)}")
        if not holds(scales > 0) or not holds(weights > 0):
            raise ValueError("GaussianMixture needs positive scales and weights")
        start = {"means": means, "log_scales": scales.log().expand(means.shape).clone(), "logits": weights.log()}
        for name, value in start.items():
            if trainable:
                self.register_parameter(name, nn.Parameter(value))
            else:
                self.register_buffer(name, value)
        self.event_shape = (means.shape[1],)

    @property
    def scales(self) -> Tensor:
        """The standard deviations, (K, D)."""
        return self.log_scales.exp()

    @property
    def weights(self) -> Tensor:
        """The components' probabilities, (K,)."""
        return self.logits.softmax(0)

    @torch.no_grad()
    def sample(self, batch: Batch, temperature: float = 1.0, context: Tensor | None = None,
               generator: Generator | None = None) -> Tensor:
        if temperature != 1:
            raise ValueError(f"a mixture has no one centre to scale around: temperature must be 1, got {temperature}")
        shape = self._shape(batch)
        n, dim = math.prod(shape[:-1]), shape[-1]
        # it refuses to draw none
        k = torch.multinomial(self.weights, max(n, 1), replacement=True, generator=generator)[:n]
        noise = torch.randn(n, dim, dtype=self.means.dtype, device=self.means.device, generator=generator)
        return (self.means[k] + self.scales[k] * noise).reshape(shape)

    def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Log-density in nats, of shape `z.shape[:-1]`."""
        u = (z[..., None, :] - self.means) / self.scales  # (..., K, D)
        log_normal = -0.5 * (u * u + LOG_2PI) - self.log_scales
        return torch.logsumexp(log_normal.sum(-1) + self.logits.log_softmax(0), -1)

    def cdf(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        u = (z[..., None, :] - self.means) / self.scales  # (..., K, D)
        return (self.weights[:, None] * torch.special.ndtr(u)).sum(-2)


class ConditionalNormal(Base):
    r"""$p(z|c) = \prod_i N(z_i; \mu_i(c), \sigma_i(c)^2)$, whose mean and log-scale (within $\pm 5$) are linear in the
    context: a base for each class, say. It starts as the standard normal for every context.

    Args:
        dim: D.
        context_dim: Width C of the context.

    Raises:
        ValueError: A missing context, or one that does not fit.

    Example:
        >>> from flowlib import ConditionalNormal, Coupling, Affine, Flow
        >>> flow = Flow(ConditionalNormal(2, context_dim=3), Coupling(2, Affine()))
        >>> flow.sample(5, context=torch.eye(3)).shape  # five of each class
        torch.Size([5, 3, 2])
    """

    bound = 5.0

    def __init__(self, dim: int, context_dim: int):
        super().__init__()
        if dim < 1 or context_dim < 1:
            raise ValueError(f"dim and context_dim must be positive, got {dim} and {context_dim}")
        self.event_shape, self.context_shape = (dim,), (context_dim,)
        self.linear = nn.Linear(context_dim, 2 * dim)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def _moments(self, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """Mean and log-scale, (..., D)."""
        if context is None:
            raise ValueError(f"ConditionalNormal was built with context_dim={self.linear.in_features} and needs one")
        check_tensor(context, "ConditionalNormal", self.linear.weight.dtype, "a context")
        if context.shape[-1:] != self.context_shape:
            raise ValueError(f"ConditionalNormal expected a context of shape (..., {self.linear.in_features}), "
                             f"got {tuple(context.shape)}")
        mean, raw = self.linear(context).to(self.linear.weight.dtype).chunk(2, -1)
        return mean, self.bound * torch.tanh(raw / self.bound)

    def _draw(self, batch, temperature, context, generator):
        mean, log_scale = self._moments(context)
        noise = torch.randn(self._shape(batch), dtype=mean.dtype, device=mean.device, generator=generator)
        return mean + temperature * log_scale.exp() * noise

    def rsample(self, batch: Batch, context: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        return self._draw(batch, 1.0, context, generator)

    @torch.no_grad()
    def sample(self, batch: Batch, temperature: float = 1.0, context: Tensor | None = None,
               generator: Generator | None = None) -> Tensor:
        _check_temperature(temperature)
        return self._draw(batch, temperature, context, generator)

    def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Log-density in nats, of shape `z.shape[:-1]`, broadcast against the context's leading axes."""
        mean, log_scale = self._moments(context)
        u = (z - mean) * (-log_scale).exp()
        return (-0.5 * (u * u + LOG_2PI) - log_scale).sum(-1)

    def cdf(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        mean, log_scale = self._moments(context)
        return torch.special.ndtr((z - mean) * (-log_scale).exp())

    def icdf(self, p: Tensor, context: Tensor | None = None) -> Tensor:
        mean, log_scale = self._moments(context)
        return mean + log_scale.exp() * torch.special.ndtri(p)
