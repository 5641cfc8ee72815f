"""The whole idea of the package: a model is a base distribution and a bijection.

    x = f(z),  z ~ base          log p(x) = log p(z) + log|det dz/dx|,  z = f^-1(x)

`forward` is always latent z -> data x, `inverse` is data x -> latent z. Both return the value and the log-determinant
*of the call just made*, one number per event: a sum over the event, never a mean, never an accumulator.
"""
from __future__ import annotations

import copy
import functools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.distributions import constraints

from .arguments import check_tensor, checked_call, float_dtype, number_of_draws, shared_context
from .describe import call_text, recorded
from .distribution import FlowDistribution
from .saving import Recorded, load, save

if TYPE_CHECKING:
    from .bases import Base

__all__ = ["Bijection", "Compose", "Flow", "Inverse", "InversionError", "load", "save"]

FAR = 1e15  # of a coordinate: no data lies there, and powers of it may overflow
LIKELIHOODS = ("exact", "bound", "estimate")  # from strong to weak: a chain is as strong as its weakest part


class InversionError(RuntimeError):
    """A search found no root where one must be: its bracket holds none, or its steps were too few. The message gives
    the residual. `numerics.solve_monotone` raises it; the layers' own brackets always hold a root, and a NaN among many
    rows stays a NaN in its row, so `Flow.log_prob` does not."""


_reals = functools.cache(lambda ndim: constraints.independent(constraints.real, ndim))


class _Reals:
    """The domain or codomain of a layer that names none: all real events of its number of axes."""

    def __init__(self, ndim: str):
        self.ndim = ndim

    def __get__(self, layer, owner) -> constraints.Constraint:
        return _reals(getattr(owner if layer is None else layer, self.ndim))


class Bijection(nn.Module, metaclass=Recorded):
    r"""An invertible map $x = f(z; c)$ between events, with the logarithm of its change of volume.

    A subclass writes `forward` and `inverse`; everything else has a default. Their arguments are checked before each
    call (`check`), so that neither needs to. The last `latent_ndim` axes of z (`event_ndim` of x) make one event; the
    axes before them are a batch of any shape.

    Attributes:
        latent_ndim: Number of axes of one latent, 1 for vectors (..., D).
        event_ndim: Number of axes of one data point, 1 for vectors, 3 for images (..., C, H, W).
        latent_shape: The shape of one latent where the layer fixes it, else None.
        event_shape: The shape of one data point where the layer fixes it, else None.
        domain: Where z may lie, as a `torch.distributions` constraint.
        codomain: Where x may lie. Outside of it `inverse` gives a finite z and the log-det -inf: density zero, never
            NaN.
        likelihood: "exact", "bound" (the log-det is that of a lower bound) or "estimate" (it is random and unbiased).
        context_shape: The shape of one context that the layer needs, (C,), or (C, H, W) for some image layers; or None.
        context_dim: Its first number C, or None; setting C stands for the context shape (C,).
        dtype: That of the parameters or buffers, which inputs must have too; None for a layer without, which follows
            them.

    Example:
        >>> import torch, flowlib
        >>> f = flowlib.Planar(2)
        >>> x, log_det = f(torch.zeros(5, 2)); log_det.shape
        torch.Size([5])
    """

    latent_ndim: int = 1
    event_ndim: int = 1
    latent_shape: tuple[int, ...] | None = None
    event_shape: tuple[int, ...] | None = None
    domain = _Reals("latent_ndim")
    codomain = _Reals("event_ndim")
    likelihood: str = "exact"
    context_shape: tuple[int, ...] | None = None

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        for name in ("forward", "inverse", "initialize"):
            if name in vars(cls):
                setattr(cls, name, checked_call(vars(cls)[name], name))

    @property
    def context_dim(self) -> int | None:
        """Width C of the context, or its channels."""
        return None if self.context_shape is None else self.context_shape[0]

    @context_dim.setter
    def context_dim(self, width: int | None) -> None:
        self.context_shape = None if width is None else (width,)

    @property
    def dtype(self) -> torch.dtype | None:
        """That of the first floating-point parameter or buffer; None where there is none."""
        return float_dtype(self)

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Latent to data: x and log|det dx/dz| in nats, of shape `z.shape[:-latent_ndim]`."""
        raise TypeError(f"{type(self).__name__} does not define forward")

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Data to latent: z and log|det dz/dx| in nats, of shape `x.shape[:-event_ndim]`."""
        raise TypeError(f"{type(self).__name__} does not define inverse")

    @torch.no_grad()
    def initialize(self, batch: Tensor, context: Tensor | None = None, inverse: bool = True) -> Tensor:
        """Data-dependent start: takes a batch at the data side (`inverse=False`: at the latent side), sets what the
        layer sets from data, and returns the batch mapped to the other side. Most layers set nothing and only map."""
        return (self.inverse if inverse else self.forward)(batch, context)[0]

    def check(self, value: Tensor, context: Tensor | None = None, inverse: bool = False) -> None:
        """What `forward` and (`inverse=True`) `inverse` need of their arguments, which is checked before every call.

        Raises:
            ValueError: A value that is not a tensor, of another shape or dtype than the layer's, or a missing context
                or one whose shape or dtype does not fit or whose leading axes do not broadcast against the value's.
        """
        who, dtype = type(self).__name__, self.dtype
        if not isinstance(value, Tensor) or (value.dtype != dtype and not (
                (self.codomain.is_discrete or self.likelihood == "bound")
                and not value.is_floating_point())):  # what dequantizes takes integers
            check_tensor(value, who, dtype)
        shape, ndim = (self.event_shape, self.event_ndim) if inverse else (self.latent_shape, self.latent_ndim)
        sizes = value.shape
        leading = len(sizes) - ndim
        if leading < 0 or (shape is not None and sizes[leading:] != tuple(shape)):
            expected = "..., " + ", ".join(map(str, shape)) if shape is not None else f"..., with {ndim} event axes"
            raise ValueError(f"{who} expected shape ({expected}), got {tuple(sizes)}")
        if self.context_shape is None:
            return
        if context is None:
            raise ValueError(f"{who} was built with context_shape={self.context_shape} and needs a context")
        check_tensor(context, who, dtype, "a context")
        batch, given = sizes[:leading], self.context_batch(context)
        if context.shape[len(given):] != self.context_shape:
            raise ValueError(f"{who} expected a context of shape (..., {', '.join(map(str, self.context_shape))}), "
                             f"got {tuple(context.shape)}")
        if given != batch and any(a != b and a != 1 and b != 1 for a, b in zip(reversed(batch), reversed(given))):
            raise ValueError(f"a context of shape {tuple(context.shape)} does not broadcast against the batch "
                             f"{tuple(batch)}")

    def __repr__(self) -> str:
        return call_text(type(self).__name__, *recorded(self))

    def context_batch(self, context: Tensor) -> torch.Size:
        """The leading axes of a context: those before its declared shape."""
        return context.shape[: max(context.ndim - len(self.context_shape or ()), 0)]


def _same_shape(a, b) -> bool:
    return a is None or b is None or tuple(a) == tuple(b)


def _outer_shape(parts, side):
    """The shape at one end of a chain, listed from that end: a part that takes any shape passes its neighbour's on."""
    for part in parts:
        if getattr(part, side) is not None:
            return getattr(part, side)
        if part.latent_ndim != part.event_ndim:
            return None
    return None


def check_bijection(part: Any, who: str) -> None:
    """ValueError where something else stands in a bijection's place; an elementwise map is easily taken for one."""
    if isinstance(part, Bijection):
        return
    if hasattr(part, "n_params"):
        raise ValueError(f"{part!r} is an elementwise map, which has no parameters: {who} needs a container around it, "
                         f"such as Elementwise(dim, {part!r}) or Coupling(dim, {part!r})")
    raise ValueError(f"{who} expected a bijection, got {type(part).__name__}")


class Compose(Bijection):
    r"""The composition $x = f_K(\dots f_1(z))$: left to right in the generative direction.

    $\log|\det dx/dz| = \sum_k \log|\det df_k/dz_k|$. Cost of either direction: the sum of the parts'.

    Args:
        bijections: The maps, first applied first; neighbours' event axes (and shapes, where fixed) must fit.

    Raises:
        ValueError: Nothing to compose, or neighbours that do not fit.

    Example:
        >>> import torch
        >>> from flowlib import AffineMap, Compose, Exp
        >>> Compose(AffineMap(2.0, 1.0), Exp())(torch.zeros(1))[0]  # exp(2 * 0 + 1)
        tensor([2.7183])
    """

    bijections: Sequence[Bijection]

    def __init__(self, *bijections: Bijection):
        super().__init__()
        if not bijections:
            raise ValueError("Compose needs at least one bijection")
        for part in bijections:
            check_bijection(part, "Compose")
        for a, b in zip(bijections, bijections[1:]):
            if a.event_ndim != b.latent_ndim or not _same_shape(a.event_shape, b.latent_shape):
                raise ValueError(f"{type(a).__name__} gives events of {a.event_ndim} axes, shape {a.event_shape}, but "
                                 f"{type(b).__name__} takes {b.latent_ndim} axes, shape {b.latent_shape}")
        self.bijections = cast("Sequence[Bijection]", nn.ModuleList(bijections))
        self.context_shape = shared_context(bijections)
        first, last = bijections[0], bijections[-1]
        self.latent_ndim, self.event_ndim = first.latent_ndim, last.event_ndim
        self.latent_shape = _outer_shape(bijections, "latent_shape")
        self.event_shape = _outer_shape(bijections[::-1], "event_shape")
        self.likelihood = max((b.likelihood for b in bijections), key=LIKELIHOODS.index)

    @property
    def domain(self) -> constraints.Constraint:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.bijections[0].domain

    @property
    def codomain(self) -> constraints.Constraint:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.bijections[-1].codomain

    def __repr__(self) -> str:
        return call_text(type(self).__name__, tuple(self))

    def __len__(self) -> int:
        return len(self.bijections)

    def __iter__(self) -> Iterator[Bijection]:
        return iter(self.bijections)

    def __getitem__(self, index: int | slice) -> Bijection:
        """A part, or for a slice the composition of these parts (the same objects)."""
        return type(self)(*self.bijections[index]) if isinstance(index, slice) else self.bijections[index]

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        first, *others = self.bijections
        x, log_det = first(z, context)
        for f in others:
            x, term = f(x, context)
            log_det = log_det + term
        return x, log_det

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        last, *others = reversed(self.bijections)
        z, log_det = last.inverse(x, context)
        for f in others:
            z, term = f.inverse(z, context)
            log_det = log_det + term
        return z, log_det

    def initialize(self, batch: Tensor, context: Tensor | None = None, inverse: bool = True) -> Tensor:
        for f in reversed(self.bijections) if inverse else self.bijections:
            batch = f.initialize(batch, context, inverse)
        return batch


class Inverse(Bijection):
    """The same map the other way round: `forward` and `inverse`, latent and event, domain and codomain change places.

    Example:
        >>> import torch
        >>> from flowlib import Exp, Inverse
        >>> Inverse(Exp())(torch.full((1,), 2.0))  # log 2, with slope 1/2
        (tensor([0.6931]), tensor(-0.6931))
    """

    def __init__(self, bijection: Bijection):
        super().__init__()
        check_bijection(bijection, "Inverse")
        self.bijection = bijection
        self.latent_ndim, self.event_ndim = bijection.event_ndim, bijection.latent_ndim
        self.latent_shape, self.event_shape = bijection.event_shape, bijection.latent_shape
        self.likelihood, self.context_shape = bijection.likelihood, bijection.context_shape

    @property
    def domain(self) -> constraints.Constraint:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.bijection.codomain

    @property
    def codomain(self) -> constraints.Constraint:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.bijection.domain

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.bijection.inverse(z, context)

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.bijection(x, context)

    def initialize(self, batch: Tensor, context: Tensor | None = None, inverse: bool = True) -> Tensor:
        return self.bijection.initialize(batch, context, not inverse)


class Flow(nn.Module, metaclass=Recorded):
    r"""A normalizing flow: the distribution of $x = f(z)$ for $z$ drawn from a base distribution.

    $$\log p(x) = \log p_Z(f^{-1}(x)) + \log\left|\det \frac{\partial f^{-1}(x)}{\partial x}\right|$$

    Calling the module is `log_prob`, so that it can be wrapped (compiled, distributed) like any other.

    Args:
        base: The distribution of z, from `flowlib.bases`. One with a `context_shape` reads the flow's context too.
        bijection: The map from z to x.

    Raises:
        ValueError: The base's events are not the bijection's latents.

    Papers: Tabak and Vanden-Eijnden (2010), doi:10.4310/CMS.2010.v8.n1.a11; Papamakarios et al. (2021),
    arXiv:1912.02762.

    Example:
        >>> from flowlib import AffineMap, Flow, Uniform
        >>> Flow(Uniform(0.0, 1.0), AffineMap(2.0, 1.0)).log_prob(torch.tensor([[2.0], [4.0]])).exp()  # 1/2 on [1, 3]
        tensor([0.5000, 0.0000])
    """

    def __init__(self, base: Base, bijection: Bijection):
        super().__init__()
        check_bijection(bijection, "Flow")
        if len(base.event_shape) != bijection.latent_ndim or not _same_shape(bijection.latent_shape, base.event_shape):
            wanted = bijection.latent_shape or f"{bijection.latent_ndim} axes"
            raise ValueError(f"the base has events of shape {tuple(base.event_shape)}, "
                             f"{type(bijection).__name__} needs {wanted}")
        self.base: Base = base
        self.bijection: Bijection = bijection
        self.context_shape = shared_context((bijection, base))

    def __repr__(self) -> str:
        by_parts = type(self).__init__ is Flow.__init__
        return call_text(type(self).__name__, *(((self.base, self.bijection), {}) if by_parts else recorded(self)))

    @property
    def support(self) -> constraints.Constraint:
        """Where the density can be positive, as a `torch.distributions` constraint: the bijection's codomain."""
        return self.bijection.codomain

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one data point."""
        shape = self.bijection.event_shape
        return tuple(self.base.event_shape) if shape is None else tuple(shape)

    @property
    def likelihood(self) -> str:
        """What `log_prob` is: "exact", a lower "bound" or an unbiased "estimate"."""
        return self.bijection.likelihood

    @property
    def exact(self) -> bool:
        """Whether `log_prob` is exact."""
        return self.likelihood == "exact"

    def _check(self, value, context, shape):
        """What the bijection's own check cannot know: the flow's events, and whether any part reads the context."""
        if not isinstance(value, Tensor):
            check_tensor(value, "this flow", self.bijection.dtype)
        if value.ndim < len(shape) or value.shape[value.ndim - len(shape):] != shape:
            raise ValueError(f"this flow is over events of shape {shape}, got {tuple(value.shape)}")
        self._unused(context)

    def _unused(self, context):
        if context is not None and self.context_shape is None:
            raise ValueError("a context was given, but no part of this flow was built with context_dim or "
                             "context_shape")

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Log-density at x in nats, of shape `x.shape[:-event_ndim]`; -inf outside the support. One `inverse`.

        A flow whose `likelihood` is "bound" gives a lower bound (random, for dequantization), "estimate" a random
        estimate.
        """
        self._check(x, context, self.event_shape)
        if not x.is_floating_point():  # pixels
            z, log_det = self.bijection.inverse(x, context)
            log_base = self.base.log_prob(z, **self._for_base(context))
            return (log_base + log_det).masked_fill(log_base == -torch.inf, -torch.inf)
        # Infinity is no point of R^D, and a z out of the base's reach is no draw of it: density zero, whatever log-det
        # the layers make of them. Nor is an x so large that it overflows on its way. Any other NaN stays, to be seen.
        largest = x.detach().abs().amax(tuple(range(-self.bijection.event_ndim, 0)))
        z, log_det = self.bijection.inverse(x.nan_to_num(torch.nan, 0.0, 0.0), context)
        log_base = self.base.log_prob(z, **self._for_base(context))
        log_p = log_base + log_det
        dead = (log_base == -torch.inf) | (largest == torch.inf) | (log_p.isnan() & (largest > FAR))
        return log_p.masked_fill(dead, -torch.inf)

    forward = log_prob

    def _latent_batch(self, n, context):
        """The batch axes of n draws: (n,), or (n, B) for a context of B rows."""
        n = number_of_draws(n)
        self._unused(context)
        if self.context_shape is None:
            return (n,)
        if context is None:
            raise ValueError(f"this flow was built with context_shape={self.context_shape} and needs a context")
        check_tensor(context, "this flow", what="a context")
        batch = context.shape[: max(context.ndim - len(self.context_shape), 0)]
        if context.shape[len(batch):] != self.context_shape:
            raise ValueError(f"this flow expected a context of shape (..., {', '.join(map(str, self.context_shape))}), "
                             f"got {tuple(context.shape)}")
        return (n, *batch)

    def _for_base(self, context, generator=None) -> dict[str, Any]:
        """Further arguments of the base's methods: only a base that reads a context is given one."""
        reads = getattr(self.base, "context_shape", None) is not None
        return ({"context": context} if reads else {}) | ({} if generator is None else {"generator": generator})

    @torch.no_grad()
    def sample_latent(self, n: int, context: Tensor | None = None, temperature: float = 1.0,
                      generator: torch.Generator | None = None) -> Tensor:
        """n draws of the base, which `decode` makes data of; arguments and batch axes as for `sample`."""
        return self.base.sample(self._latent_batch(n, context), temperature, **self._for_base(context, generator))

    @torch.no_grad()
    def sample(self, n: int, context: Tensor | None = None, temperature: float = 1.0,
               generator: torch.Generator | None = None) -> Tensor:
        """n draws without gradient: (n, *event), or (n, B, *event) for a context of B rows. One `forward`.

        `temperature` scales the base's deviation from its centre (Gaussian and logistic bases only). The base draws by
        `generator` (on its device) where one is given, else by torch's own.
        """
        return self.bijection(self.sample_latent(n, context, temperature, generator), context)[0]

    def rsample_and_log_prob(self, n: int, context: Tensor | None = None,
                             generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """n reparameterised draws and their log-densities (nats) in one `forward`, for variational inference.

        Raises:
            TypeError: The likelihood is not exact.
        """
        if not self.exact:
            raise TypeError(f"the likelihood of this flow is a {self.likelihood}: "
                            "its samples have no exact log-density")
        z = self.base.rsample(self._latent_batch(n, context), **self._for_base(context, generator))
        x, log_det = self.bijection(z, context)
        return x, self.base.log_prob(z, **self._for_base(context)) - log_det

    def distribution(self, context: Tensor | None = None, validate_args: bool | None = None) -> FlowDistribution:
        """The same law as a `torch.distributions.Distribution`: its batch shape are the context's leading axes.

        Raises:
            ValueError: A missing context, one that no part uses, or one that does not fit.

        Example:
            >>> from flowlib import Exp, Flow, StandardNormal
            >>> Flow(StandardNormal(1), Exp()).distribution().cdf(torch.ones(1))  # the median of a log-normal law
            tensor(0.5000)
        """
        return FlowDistribution(self, context, validate_args)

    def encode(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """The latent of x."""
        self._check(x, context, self.event_shape)
        return self.bijection.inverse(x, context)[0]

    def decode(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """The data point of the latent z."""
        self._check(z, context, tuple(self.base.event_shape))
        return self.bijection(z, context)[0]

    @torch.no_grad()
    def initialize(self, batch: Tensor, context: Tensor | None = None) -> None:
        """Data-dependent start from one batch, once: returns at once where every layer has had it or none needs it.

        Under several processes rank 0 decides and the others receive its values.
        """
        waiting = [m for m in self.modules() if hasattr(m, "initialized") and not m.initialized]
        if not waiting:
            return
        self._check(batch, context, self.event_shape)
        self.bijection.check(batch, context, inverse=True)
        before = [copy.deepcopy(layer.state_dict()) for layer in waiting]
        try:
            self.bijection.initialize(batch, context)
        except Exception:  # all layers are started, or none
            for layer, state in zip(waiting, before):
                layer.load_state_dict(state)
            raise
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            for layer in waiting:
                for tensor in layer.state_dict().values():
                    torch.distributed.broadcast(tensor, src=0)
