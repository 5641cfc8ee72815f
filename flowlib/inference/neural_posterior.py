"""Neural posterior estimation: a conditional flow $q(\\theta|x)$, trained by maximum likelihood on simulated pairs."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import constraints
from torch.distributions.constraints import Constraint

from ..adapters import FromTransform
from ..arguments import constants, holds
from ..core import Bijection, Compose, Flow, check_bijection
from ..coupling.nsf import NSF
from ..maps import AffineMap, Logit

__all__ = ["Box", "StandardizedContext", "posterior"]


class Box(Bijection):
    r"""$x_i = l_i + (h_i - l_i)\,\sigma(z_i)$: all real vectors onto a box, $\log|\det| = \sum_i \ln(h_i - l_i) +
    \ln\sigma(z_i) + \ln\sigma(-z_i)$. Outside of the box the density of a flow that ends here is 0. Cost: O(D) both
    ways.

    Args:
        low, high: l and h, of shape (D,), or numbers for all coordinates; buffers, which are not trained.

    Raises:
        ValueError: A side whose length is not positive and finite, or a tensor that requires a gradient.

    Example:
        >>> from flowlib.inference import Box
        >>> Box(1.0, 3.0)(torch.zeros(1))  # the middle, with slope 2 / 4
        (tensor([2.]), tensor(-0.6931))
    """

    low: Tensor
    high: Tensor

    def __init__(self, low: float | Tensor, high: float | Tensor):
        super().__init__()
        least, most = torch.broadcast_tensors(*constants("Box", low=low, high=high))
        if not holds((most > least) & (most - least).isfinite()):
            raise ValueError(f"a box needs low < high, both finite; got low = {low}, high = {high}")
        self.register_buffer("low", least.clone())
        self.register_buffer("high", most.clone())
        self.logit = Logit()
        if least.ndim:
            self.event_shape = self.latent_shape = tuple(least.shape[-1:])

    @property
    def codomain(self) -> Constraint:  # pyright: ignore[reportIncompatibleVariableOverride]
        return constraints.independent(constraints.interval(self.low, self.high), 1)

    def _log_volume(self, like):
        return (self.high - self.low).log().expand(like.shape).sum(-1)

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        p, log_det = self.logit.inverse(z)
        x = torch.lerp(self.low.expand_as(p), self.high.expand_as(p), p)
        return x.clamp(self.low, self.high), log_det + self._log_volume(z)

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        outside = ((x < self.low) | (x > self.high)).any(-1)
        p = ((x - self.low) / (self.high - self.low)).clamp(0, 1)  # whose rounding may lead out of the cube
        z, log_det = self.logit(p)
        return z, (log_det - self._log_volume(x)).masked_fill(outside, -torch.inf)


class StandardizedContext(Bijection):
    r"""A bijection that is given $(c - m)/s$ for a context c, or a network's summary of it: $x = f(z;\,
    h((c - m)/s))$.

    Raw observations come in any units, and networks learn from numbers near one. Cost: that of the parts.

    Args:
        bijection: f, with a context of shape (C,).
        mean: m, of the shape of one raw context.
        std: s, of the same shape.
        embedding: h, a module from (B, *shape) to (B, C), or to what flattens to it. None: the context itself,
            flattened.

    Raises:
        ValueError: A bijection without a context of one axis, shapes that differ, or a scale that is not positive.

    Example:
        >>> from flowlib import RealNVP
        >>> from flowlib.inference import StandardizedContext
        >>> f = StandardizedContext(RealNVP(2, context_dim=3).bijection, torch.full((3,), 50.0), torch.ones(3))
        >>> f(torch.zeros(4, 2), torch.full((4, 3), 50.0))[0].shape
        torch.Size([4, 2])
    """

    mean: Tensor
    std: Tensor

    def __init__(self, bijection: Bijection, mean: Tensor, std: Tensor, embedding: nn.Module | None = None):
        super().__init__()
        check_bijection(bijection, "StandardizedContext")
        mean, std = constants("StandardizedContext", mean=mean, std=std)
        if mean.shape != std.shape or not holds((std > 0) & std.isfinite() & mean.isfinite()):
            raise ValueError("StandardizedContext needs a mean and a positive scale of one shape, finite numbers, got "
                             f"shapes {tuple(mean.shape)} and {tuple(std.shape)}")
        if bijection.context_shape is None or len(bijection.context_shape) != 1:
            raise ValueError("StandardizedContext needs a bijection with a context of shape (C,), "
                             f"got {bijection.context_shape}")
        if embedding is None and bijection.context_shape != (mean.numel(),):
            raise ValueError(f"the context has {mean.numel()} numbers, the bijection needs {bijection.context_dim}")
        self.bijection, self.embedding = bijection, embedding
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)
        self.latent_ndim, self.event_ndim = bijection.latent_ndim, bijection.event_ndim
        self.latent_shape, self.event_shape = bijection.latent_shape, bijection.event_shape
        self.likelihood, self.context_shape = bijection.likelihood, tuple(mean.shape)

    @property
    def domain(self) -> Constraint:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.bijection.domain

    @property
    def codomain(self) -> Constraint:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.bijection.codomain

    def embed(self, context: Tensor) -> Tensor:
        """What the bijection reads: (..., *shape) to (..., C)."""
        batch = self.context_batch(context)
        context = (context - self.mean) / self.std
        if self.embedding is not None:
            context = self.embedding(context.reshape(-1, *self.mean.shape))
        return context.reshape(*batch, *(self.bijection.context_shape or ()))

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        assert context is not None  # `check` has seen it
        return self.bijection(z, self.embed(context))

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        assert context is not None
        return self.bijection.inverse(x, self.embed(context))

    def initialize(self, batch: Tensor, context: Tensor | None = None, inverse: bool = True) -> Tensor:
        assert context is not None
        return self.bijection.initialize(batch, self.embed(context), inverse)


def posterior(theta: Tensor, x: Tensor, *, model: Callable[..., Flow] = NSF, support: Constraint | None = None,
              embedding: nn.Module | None = None, **settings: Any) -> Flow:
    r"""An untrained flow $q(\theta|x)$ for pairs $\theta_i \sim p(\theta)$, $x_i \sim p(x|\theta_i)$; `train.fit(flow,
    (theta, x), ...)` trains it.

    The maximum of $\mathbb E[\ln q(\theta|x)]$ over all q is the posterior $p(\theta|x) \propto p(x|\theta)\,
    p(\theta)$, for all observations at once; no likelihood is asked for, only simulations (Papamakarios and Murray
    2016, arXiv:1605.06376; Greenberg et al. 2019, arXiv:1905.07488). Both sides are standardised inside, by the moments
    of these pairs, so that `log_prob(theta, x)` and `sample(n, x)` are about $\theta$ and x as they were given. Cost:
    that of the model.

    Args:
        theta: Parameters (N, D), draws of the prior.
        x: Simulations (N, *shape), one for each; the flow's context has this shape.
        model: Makes the flow over standardised parameters, `model(D, context_dim=C, **settings)`.
        support: Where the prior has mass, as `prior.support`: the flow's last map leads onto it, so that none leaks
            out. A box becomes a `Box`, anything else a `FromTransform` (which `save` refuses). None: all of $R^D$.
        embedding: A network from standardised x (B, *shape) to a summary (B, C); it is trained with the flow.
        **settings: Of the model, such as layers and hidden.

    Raises:
        ValueError: Other shapes, unequal numbers of rows, fewer than two, numbers that are not finite, or parameters
            outside of the support.

    Example:
        >>> from flowlib import inference
        >>> theta = torch.rand(100, 2); x = theta + 0.1 * torch.randn(100, 2)
        >>> q = inference.posterior(theta, x, support=torch.distributions.constraints.interval(0.0, 1.0))
        >>> q.sample(5, x[:3]).shape, q.log_prob(torch.full((2,), 1.5), x[0]).item()  # outside of the prior
        (torch.Size([5, 3, 2]), -inf)
    """
    if theta.ndim != 2 or len(theta) != len(x) or len(theta) < 2 or x.ndim < 2:
        raise ValueError("a posterior needs parameters (N, D) and simulations (N, ...) with N >= 2, "
                         f"got {tuple(theta.shape)} and {tuple(x.shape)}")
    if not holds(theta.isfinite()) or not holds(x.isfinite()):
        raise ValueError("the simulations hold NaN or infinity; leave those pairs out only if the simulator fails at "
                         "random, not where it fails at some parameters")
    last = [] if support is None else [_onto(support, theta)]
    real = theta if not last else last[0].inverse(theta)[0]
    summary = x.flatten(1) if embedding is None else embedding(x[:2])
    made = model(theta.shape[1], context_dim=summary[0].numel(), **settings).to(theta.dtype)
    (mean, std), (x_mean, x_std) = _moments(real), _moments(x)
    return Flow(made.base, Compose(StandardizedContext(made.bijection, x_mean, x_std, embedding),
                                   AffineMap(std, mean), *last))


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation over the rows; 1 where all rows agree."""
    std = x.std(0)
    return x.mean(0), torch.where(std > 0, std, 1.0)


def _onto(support: Constraint, theta: Tensor) -> Bijection:
    """The map from all real vectors onto where the prior has mass."""
    inside = support.check(theta)
    if not holds(inside):
        raise ValueError(f"{int((~inside).sum())} of the parameters lie outside of the support {support!r}")
    ends = support
    while isinstance(ends, constraints.independent):
        ends = ends.base_constraint
    if type(ends) is type(constraints.unit_interval):  # an interval
        low, high = (torch.as_tensor(end).to(theta).expand(theta.shape[1:])
                     for end in (ends.lower_bound, ends.upper_bound))
        return Box(low, high)
    return FromTransform(support)
