"""Laws and transforms of `torch.distributions` as bases and bijections, and a bijection as a transform."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.distributions import Distribution, Transform, biject_to, constraints, transform_to
from torch.distributions.constraints import Constraint
from torch.distributions.transforms import _InverseTransform

from .arguments import batch_shape, device_of
from .bases import Base, Batch
from .core import Bijection, check_bijection
from .seeds import STEP, kept_random_state, seed_all

__all__ = ["FlowTransform", "FromDistribution", "FromTransform"]


def _mapped(part: Any, visit: Callable[[str, Any], Any], name: str = "of") -> Any:
    """A copy of a law, transform or constraint in which `visit(name, old)` stands for each tensor and each module."""
    if isinstance(part, (Tensor, nn.Module)):
        return visit(name, part)
    if isinstance(part, (list, tuple)):
        return type(part)([_mapped(value, visit, f"{name}_{k}") for k, value in enumerate(part)])
    if not isinstance(part, (Distribution, Transform, Constraint)):
        return part
    copied = object.__new__(type(part))
    for key, value in vars(part).items():
        if key == "_cached_x_y":
            value = None, None
        elif key == "_inv" and not isinstance(part, _InverseTransform):  # which refers back
            value = None
        copied.__dict__[key] = _mapped(value, visit, f"{name}_{key}")
    if isinstance(copied, Distribution):
        copied._validate_args = False  # outside of the support the density is 0
    return copied


def _kept(module: nn.Module) -> Callable[[str, Any], Any]:
    """A `visit` that makes buffers of tensors and parts of modules."""
    def visit(name, value):
        if isinstance(value, nn.Module):
            module.add_module(name, value)
        elif value.requires_grad:
            raise ValueError(f"{type(module).__name__} copies the law's tensors, so one that requires a gradient would "
                             "not be trained: give it detached")
        else:
            module.register_buffer(name, value.clone())
        return value
    return visit


def _inside(value: Tensor, support: Constraint) -> tuple[Tensor, Tensor]:
    """Which parts of a value lie in the support (NaN too, to be seen), and the value with some point of the support in
    place of all others: what is masked needs a finite gradient."""
    is_nan = ~constraints.independent(constraints.real, support.event_dim).check(value)
    inside = support.check(value) | is_nan
    try:
        to_support = transform_to(support)
    except NotImplementedError:  # of mixtures
        return inside, value
    safe = to_support(value.new_zeros(to_support.inverse_shape(value.shape)))
    return inside, torch.where(inside[(..., *[None] * support.event_dim)], value, safe)


class FromDistribution(Base):
    r"""Any continuous law of `torch.distributions` as a base. Its batch axes become axes of the event, with independent
    coordinates; a law of one number has event shape (1,). Its tensors become buffers, a module in it is trained. `save`
    refuses laws made of laws.

    Args:
        distribution: The law.

    Raises:
        ValueError: A law of integers, or a tensor that requires a gradient.

    Example:
        >>> from torch.distributions import Gamma
        >>> from flowlib import AffineMap, Flow, FromDistribution
        >>> Flow(FromDistribution(Gamma(1.0, 1.0)), AffineMap(2.0)).log_prob(torch.tensor([2.0]))  # e^-1 / 2
        tensor(-1.6931)
    """

    def __init__(self, distribution: Distribution):
        super().__init__()
        if distribution.support is not None and distribution.support.is_discrete:
            raise ValueError(f"a flow needs a base with a density, {type(distribution).__name__} is a law of integers")
        if not distribution.batch_shape and not distribution.event_shape:
            distribution = distribution.expand((1,))
        self.event_shape = (*distribution.batch_shape, *distribution.event_shape)
        self._law = _mapped(distribution, _kept(self))

    @property
    def distribution(self) -> Distribution:
        """The law, made of the present buffers."""
        return _mapped(self._law, lambda name, _: getattr(self, name))

    @property
    def has_rsample(self) -> bool:
        return self._law.has_rsample

    def _draw(self, method, batch, generator):
        if generator is None:
            return method(batch_shape(batch))
        device = device_of(self)  # a law draws by torch's own generators only
        with kept_random_state(device):
            seed_all(int(torch.randint(2**62, (), generator=generator, device=generator.device)), STEP, device=device)
            return method(batch_shape(batch))

    def rsample(self, batch: Batch, context: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        if not self.has_rsample:
            return super().rsample(batch)
        return self._draw(self.distribution.rsample, batch, generator)

    def sample(self, batch: Batch, temperature: float = 1.0, context: Tensor | None = None,
               generator: Generator | None = None) -> Tensor:
        if temperature != 1:
            return super().sample(batch, temperature)
        return self._draw(self.distribution.sample, batch, generator)

    def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Log-density in nats, of shape `z.shape[:-len(event_shape)]`; -inf outside the support."""
        law = self.distribution
        assert law.support is not None
        inside, z = _inside(z, law.support)
        log_p, rows = law.log_prob(z), z.shape[: z.ndim - len(self.event_shape)]
        return log_p.reshape(*rows, -1).sum(-1).masked_fill(~inside.reshape(*rows, -1).all(-1), -torch.inf)

    def cdf(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        law = self.distribution
        assert law.support is not None
        inside, safe = _inside(z, law.support)
        return law.cdf(safe).where(inside, (z > safe).to(z.dtype))

    def icdf(self, p: Tensor, context: Tensor | None = None) -> Tensor:
        return self.distribution.icdf(p)


class FromTransform(Bijection):
    r"""Any bijective transform of `torch.distributions` as a bijection; one of numbers acts on each coordinate of the
    last axis. Its tensors become buffers, a module in it is trained; `save` refuses it. Cost: that of the transform.

    A constraint stands for `biject_to(constraint)`, from all real numbers onto it: `FromTransform(prior.support)` at
    the data end of a flow keeps all mass where a prior has any.

    Args:
        transform: The transform, latent to data, or a constraint.

    Raises:
        ValueError: A transform that is not bijective, a tensor that requires a gradient, or (in a call) tensors that
            broadcast to more coordinates than the event has.

    Example:
        >>> from torch.distributions import transforms
        >>> from flowlib import FromTransform
        >>> FromTransform(transforms.TanhTransform())(torch.zeros(3, 2))[1]  # slope 1 at 0
        tensor([0., 0., 0.])
    """

    def __init__(self, transform: Transform | Constraint):
        super().__init__()
        self._of = _mapped(transform, _kept(self))
        transform = self.transform
        if not transform.bijective:
            raise ValueError(f"{transform!r} is not bijective")
        self.extra = 0 if transform.domain.event_dim else 1  # the axis that makes an event of numbers
        self.latent_ndim = transform.domain.event_dim + self.extra
        self.event_ndim = transform.codomain.event_dim + self.extra

    def _made(self):
        """The transform, made of the present buffers, and its codomain: a chain of torch's does not know its own."""
        of = _mapped(self._of, lambda name, _: getattr(self, name))
        return (biject_to(of), of) if isinstance(of, Constraint) else (of, of.codomain)

    @property
    def transform(self) -> Transform:
        """The transform, made of the present buffers."""
        return self._made()[0]

    @property
    def domain(self) -> Constraint:  # pyright: ignore[reportIncompatibleVariableOverride]
        return constraints.independent(self.transform.domain, self.extra)

    @property
    def codomain(self) -> Constraint:  # pyright: ignore[reportIncompatibleVariableOverride]
        return constraints.independent(self._made()[1], self.extra)

    def _map(self, transform: Any, value: Tensor, support: Any) -> tuple[Tensor, Tensor]:
        inside, value = _inside(value, support)
        mapped = transform(value)
        log_det = transform.log_abs_det_jacobian(value, mapped)
        if self.extra:
            if mapped.shape != value.shape:
                raise ValueError(f"{transform!r} makes events of shape {tuple(mapped.shape[-1:])} of "
                                 f"{tuple(value.shape[-1:])}: its tensors do not fit")
            inside, log_det = inside.all(-1), log_det.sum(-1)
        return mapped, log_det.masked_fill(~inside, -torch.inf)

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        transform = self.transform
        return self._map(transform, z, transform.domain)

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        transform, codomain = self._made()
        return self._map(transform.inv, x, codomain)


class FlowTransform(Transform, nn.Module):
    r"""A bijection as a transform of `torch.distributions`, latent to data, with its parameters. The log-determinant of
    the last pair is kept with it, so that `TransformedDistribution` needs one pass a draw.

    Args:
        bijection: The bijection.
        context: What it is called with, (..., *context_shape); a buffer.
        cache_size: 1, or 0 to keep nothing.

    Example:
        >>> from torch.distributions import Normal, TransformedDistribution
        >>> from flowlib import FlowTransform, Planar
        >>> base = Normal(torch.zeros(2), torch.ones(2))
        >>> TransformedDistribution(base, FlowTransform(Planar(2))).rsample((5,)).shape
        torch.Size([5, 2])
    """

    bijective = True
    context: Tensor | None

    def __init__(self, bijection: Bijection, context: Tensor | None = None, cache_size: int = 1):
        super().__init__(cache_size)
        check_bijection(bijection, "FlowTransform")
        self.bijection = bijection
        self.register_buffer("context", context)
        self._last: tuple = (None, None, None)  # x, y, log|det dy/dx|

    def __repr__(self) -> str:
        return f"FlowTransform({self.bijection!r})"

    def __hash__(self) -> int:  # Transform compares by identity, and forgets to hash by it
        return id(self)

    def __getstate__(self) -> dict[str, Any]:  # without what is remembered
        return super().__getstate__() | {"_last": (None, None, None), "_cached_x_y": (None, None)}

    @property
    def domain(self) -> Constraint:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.bijection.domain

    @property
    def codomain(self) -> Constraint:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.bijection.codomain

    def with_cache(self, cache_size: int = 1) -> FlowTransform:
        if cache_size == self._cache_size:
            return self
        return FlowTransform(self.bijection, self.context, cache_size)

    def _call(self, x: Tensor) -> Tensor:
        y, log_det = self.bijection(x, self.context)
        self._last = (x, y, log_det) if self._cache_size else self._last
        return y

    def _inverse(self, y: Tensor) -> Tensor:
        x, log_det = self.bijection.inverse(y, self.context)
        self._last = (x, y, -log_det) if self._cache_size else self._last
        return x

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        last_x, last_y, log_det = self._last
        return log_det if x is last_x and y is last_y else self.bijection(x, self.context)[1]

    def forward_shape(self, shape):
        event = self.bijection.event_shape
        return shape if event is None else torch.Size((*shape[: len(shape) - self.bijection.latent_ndim], *event))

    def inverse_shape(self, shape):
        latent = self.bijection.latent_shape
        return shape if latent is None else torch.Size((*shape[: len(shape) - self.bijection.event_ndim], *latent))
