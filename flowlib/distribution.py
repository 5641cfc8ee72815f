"""A flow as a `torch.distributions.Distribution`: what other libraries expect of a law."""
from __future__ import annotations

import math
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

if TYPE_CHECKING:
    from .core import Flow

__all__ = ["FlowDistribution"]


class FlowDistribution(Distribution):
    r"""The law $p(x|c)$ of a flow, with the methods and the checks of torch's own distributions.

    The context's leading axes are the batch shape: `sample(shape)` is (*shape, *batch_shape, *event_shape). Parameters
    are the flow's own, so that gradients reach them. A law of one number, event shape (1,), has `cdf` and `icdf` by
    formula where its base has them. Cost: that of the flow's methods.

    Args:
        flow: The flow.
        context: (*batch_shape, *context_shape) for a flow that reads one.
        validate_args: Whether values outside of the support are a ValueError, as they are for torch's distributions by
            default; else their density is 0.

    Raises:
        ValueError: A missing context, one that no part uses, or one that does not fit.

    Example:
        >>> from flowlib import RealNVP
        >>> p = RealNVP(2, context_dim=3).distribution(torch.zeros(5, 3)); p.batch_shape, p.event_shape
        (torch.Size([5]), torch.Size([2]))
        >>> p.log_prob(p.rsample((7,))).shape
        torch.Size([7, 5])
    """

    arg_constraints: dict[str, constraints.Constraint] = {}

    def __init__(self, flow: Flow, context: Tensor | None = None, validate_args: bool | None = None):
        self.flow, self.context = flow, context
        _, *batch = flow._latent_batch(0, context)
        super().__init__(torch.Size(batch), torch.Size(flow.event_shape), validate_args)

    def __repr__(self) -> str:
        return f"FlowDistribution({self.flow!r}, batch_shape={tuple(self._batch_shape)})"

    @property
    def support(self) -> constraints.Constraint:
        """Where x may lie: the bijection's codomain."""
        return self.flow.support

    @property
    def has_rsample(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether draws carry gradients: for an exact likelihood over a base with reparameterised draws."""
        return self.flow.exact and self.flow.base.has_rsample

    def expand(self, batch_shape, _instance=None) -> FlowDistribution:
        new = cast("FlowDistribution", self._get_checked_instance(FlowDistribution, _instance))
        new.flow, new.context = self.flow, self.context
        torch.empty(self._batch_shape, device="meta").expand(batch_shape)  # raises where it cannot be
        if self.context is not None:
            new.context = self.context.expand(*batch_shape, *(self.flow.context_shape or ()))
        Distribution.__init__(new, torch.Size(batch_shape), self._event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    def _number(self, sample_shape):
        """Of draws for each context."""
        return math.prod(sample_shape) * (math.prod(self._batch_shape) if self.context is None else 1)

    def sample(self, sample_shape=()) -> Tensor:
        return self.flow.sample(self._number(sample_shape), self.context).reshape(self._extended_shape(sample_shape))

    def rsample(self, sample_shape=()) -> Tensor:
        return self.rsample_and_log_prob(sample_shape)[0]

    def rsample_and_log_prob(self, sample_shape=()) -> tuple[Tensor, Tensor]:
        """Draws (*sample_shape, *batch_shape, *event_shape) with gradients and their log-densities in nats, in one
        pass of the flow.

        Raises:
            TypeError: The likelihood is not exact, or the base has no reparameterised draws.
        """
        x, log_p = self.flow.rsample_and_log_prob(self._number(sample_shape), self.context)
        return x.reshape(self._extended_shape(sample_shape)), log_p.reshape(*sample_shape, *self._batch_shape)

    def _checked(self, value):
        """The value with all batch axes."""
        if self._validate_args:
            self._validate_sample(value)
        leading = value.shape[: max(value.ndim - len(self._event_shape), 0)]
        return value.expand(*torch.broadcast_shapes(leading, self._batch_shape), *value.shape[len(leading):])

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density in nats, of the shape of the value's and the law's batch axes."""
        return self.flow.log_prob(self._checked(value), self.context)

    def _ends(self, device):
        """Two points of the law of one number, x0 and x1, and whether x rises with z. A bijection of an interval is
        monotone: any two latents tell."""
        if self._event_shape != (1,) or not self.flow.exact:
            raise NotImplementedError("cdf and icdf are for exact flows of one number, "
                                      f"this one is over events of shape {tuple(self._event_shape)}")
        generator = torch.Generator(device).manual_seed(0)  # torch's own is left alone
        flow, batch = self.flow, () if self.context is None else self._batch_shape
        with torch.no_grad():
            z = flow.base.sample((2, *batch), **flow._for_base(self.context, generator))
            x = flow.bijection(z, self.context)[0]
        return x, ((x[1] > x[0]) == (z[1] > z[0]))[..., 0]

    def cdf(self, value: Tensor) -> Tensor:
        """P(X <= x), of the shape of the value's and the law's batch axes; of events of one number, (..., 1).

        Raises:
            NotImplementedError: Events of several numbers, or a base without the formula.
        """
        flow, value = self.flow, self._checked(value)
        (middle, _), rises = self._ends(value.device)
        x = value.where(value.isfinite() | value.isnan(), middle)
        z, log_det = flow.bijection.inverse(x, self.context)
        p = flow.base.cdf(z, **flow._for_base(self.context))[..., 0]
        p = p.where(rises, 1 - p)
        outside = (log_det == -torch.inf) | value.isinf()[..., 0]
        return (value > middle)[..., 0].to(p.dtype).where(outside, p)

    def icdf(self, value: Tensor) -> Tensor:
        """The quantiles of probabilities (...), of shape (..., 1).

        Raises:
            NotImplementedError: As `cdf`.
        """
        flow, p = self.flow, value.expand(torch.broadcast_shapes(value.shape, self._batch_shape))
        _, rises = self._ends(value.device)
        z = flow.base.icdf(p.where(rises, 1 - p)[..., None], **flow._for_base(self.context))
        x = flow.bijection(z, self.context)[0]
        end = ((p == 0) | (p == 1))[..., None]  # whose latent may be infinite
        return x.where(~(end & x.isnan()), (2 * p[..., None] - 1) * torch.inf)
