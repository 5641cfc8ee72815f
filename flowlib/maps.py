"""Elementary maps: the flows of a first course in probability, acting on the last axis. All have closed inverses."""
from __future__ import annotations

import math
from numbers import Real
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Distribution, Normal, constraints

from .arguments import constants, distribution_arguments, holds
from .core import Bijection
from .numerics import full_precision, reduced, tame, wide

__all__ = ["AffineMap", "Exp", "InverseCDF", "Linear", "Logit", "Permutation", "Rotation", "Tanh"]

POSITIVE = constraints.independent(constraints.positive, 1)
UNIT_CUBE = constraints.independent(constraints.unit_interval, 1)


def _inside(p: Tensor, least: float | None = None) -> Tensor:
    """Probabilities moved into the open interval by the least step: a uniform draw can be 0 exactly, whose quantile is
    infinite."""
    limits = torch.finfo(p.dtype)
    return p.clamp(limits.tiny if least is None else least, 1 - limits.eps / 2)


class AffineMap(Bijection):
    r"""$x_i = a_i z_i + b_i$ with $\log|\det| = \sum_i \ln|a_i|$. Cost: O(D) both ways.

    Args:
        scale: a, a number or a tensor (an array, a list) of shape (D,); negative values turn the axis round.
        shift: b, likewise. Numbers follow the input's dtype exactly; tensors become buffers, which are not trained.
        ndim: Number of axes of one event, 3 for images (numbers only).

    Raises:
        ValueError: A scale of zero, an infinite or NaN entry, or a tensor that requires a gradient.

    Example:
        >>> from flowlib import AffineMap
        >>> AffineMap(2.0, 1.0)(torch.tensor([0.5]))
        (tensor([2.]), tensor(0.6931))
    """

    scale: float | Tensor
    shift: float | Tensor

    def __init__(self, scale: float | Tensor, shift: float | Tensor = 0.0, *, ndim: int = 1):
        super().__init__()
        self.latent_ndim = self.event_ndim = ndim
        self.axes = tuple(range(-ndim, 0))
        given = {"scale": scale, "shift": shift}
        tensors = {name: v for name, v in given.items() if not isinstance(v, Real)}
        tensors = dict(zip(tensors, constants("AffineMap", **tensors)))
        for name, value in given.items():
            tensor = tensors[name] if name in tensors else torch.tensor(float(value), dtype=torch.float64, device="cpu")
            if not holds(tensor.isfinite()) or (name == "scale" and not holds(tensor != 0)):
                raise ValueError(f"AffineMap needs a finite, non-zero scale and a finite shift, got {name} = {value}")
            if name not in tensors:
                setattr(self, name, float(value))
            else:
                self.register_buffer(name, tensor)
                if tensor.ndim:
                    self.event_shape = self.latent_shape = tuple(tensor.shape[-1:])

    def _log_det(self, like):
        scale = torch.as_tensor(self.scale, dtype=like.dtype, device=like.device)
        return scale.abs().log().expand(like.shape).sum(self.axes)

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.scale * z + self.shift, self._log_det(z)

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return (x - self.shift) / self.scale, -self._log_det(x)


class Exp(Bijection):
    r"""$x_i = e^{z_i}$ with $\log|\det| = \sum_i z_i$; the codomain is $x_i > 0$. Cost: O(D) both ways.

    Example:
        >>> from flowlib import Exp, Flow, Uniform
        >>> Flow(Uniform(0.0, 2.0), Exp()).log_prob(torch.tensor([2.0])).exp()  # 1 / (2 x)
        tensor(0.2500)
    """

    codomain = POSITIVE

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return z.exp(), tame(z).sum(-1)

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        outside = x <= 0
        z = x.masked_fill(outside, 1.0).log()
        return z, (-z).masked_fill(outside, -torch.inf).sum(-1)


class Logit(Bijection):
    r"""$x = \operatorname{logit}(\alpha + (1-2\alpha) z)$, from the unit cube to all of $R^D$ (the usual pre-processing
    of pixels, with $\alpha = 0.05$, after Dinh et al. 2017, arXiv:1605.08803, section 4.1). Cost: O(D) both ways.

    $\log|\det| = \sum_i \ln(1-2\alpha) + \operatorname{softplus}(x_i) + \operatorname{softplus}(-x_i)$.

    Args:
        alpha: Distance kept from 0 and 1, in [0, 1/2).
        ndim: Number of axes of one event, 3 for images.

    Raises:
        ValueError: alpha out of range.

    Example:
        >>> from flowlib import Logit
        >>> Logit()(torch.tensor([0.5]))  # slope 4 in the middle
        (tensor([0.]), tensor(1.3863))
    """

    def __init__(self, alpha: float = 0.0, *, ndim: int = 1):
        super().__init__()
        if not 0 <= alpha < 0.5:
            raise ValueError(f"alpha must lie in [0, 1/2), got {alpha}")
        self.alpha = alpha
        self.latent_ndim = self.event_ndim = ndim
        self.axes = tuple(range(-ndim, 0))
        self.domain = constraints.independent(constraints.unit_interval, ndim)
        self.codomain = constraints.independent(constraints.real, ndim)

    def _log_slope(self, x):
        return F.softplus(x) + F.softplus(-x) + math.log1p(-2 * self.alpha)

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        p = self.alpha + (1 - 2 * self.alpha) * z
        outside = (p < 0) | (p > 1)
        x = torch.logit(_inside(p))
        # as an Inverse(Logit) this direction evaluates densities: outside of the cube they are zero
        return x, self._log_slope(x).masked_fill(outside, -torch.inf).sum(self.axes)

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return (torch.sigmoid(x) - self.alpha) / (1 - 2 * self.alpha), -self._log_slope(x).sum(self.axes)


class Tanh(Bijection):
    r"""$x_i = \tanh z_i$, from all of $R^D$ into the cube $(-1, 1)^D$: the last map of a policy whose actions are
    bounded (Haarnoja et al. 2018, arXiv:1801.01290, appendix C). Cost: O(D) both ways.

    $\log|\det| = \sum_i \ln(1 - x_i^2) = \sum_i 2\,(\ln 2 - z_i - \operatorname{softplus}(-2 z_i))$: forward by the
    second form, which does not cancel; back by the first, as $\ln(1-x) + \ln(1+x)$. Far out x is rounded to 1, from 9
    on in float32: `inverse` takes that for the number before 1, so that every z it gives is finite.

    Example:
        >>> from flowlib import Tanh
        >>> Tanh()(torch.tensor([30.0]))  # 2 ln 2 - 60
        (tensor([1.]), tensor(-58.6137))
    """

    codomain = constraints.independent(constraints.interval(-1.0, 1.0), 1)

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        held = tame(z)
        return z.tanh(), (2 * (math.log(2) - held - F.softplus(-2 * held))).sum(-1)

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        outside, last = x.abs() > 1, 1 - torch.finfo(x.dtype).eps / 2
        x = x.clamp(-last, last)
        log_slope = torch.log1p(-x) + torch.log1p(x)
        return x.atanh(), (-log_slope).masked_fill(outside, -torch.inf).sum(-1)


class InverseCDF(Bijection):
    r"""$x_i = F^{-1}(z_i)$ from the unit cube: with a uniform base, x has exactly the density F'. $\log|\det| = -\sum_i
    \ln F'(x_i)$. Cost: that of the distribution's `icdf` (forward) and `cdf` (inverse).

    z is a number, and near 1 numbers lie coarser than near 0: on the right x comes back up to the quantile of the
    number before 1 (5.3 standard deviations in float32, 8.2 in float64) and is that quantile beyond. On the left a
    Normal comes back to 12.9 in float32 and 37.5 in float64, other laws as far as their `cdf` does.

    Args:
        distribution: A one-dimensional `torch.distributions` distribution with `cdf` and `icdf`. Its parameters become
            buffers.

    Raises:
        ValueError: A distribution with events, without an inverse CDF, or with parameters that require a gradient.

    Example:
        >>> from flowlib import Flow, InverseCDF, Uniform
        >>> exponential = torch.distributions.Exponential(torch.tensor(2.0))
        >>> Flow(Uniform(0.0, 1.0), InverseCDF(exponential)).log_prob(torch.ones(1)).exp()
        tensor(0.2707)
    """

    domain = UNIT_CUBE

    def __init__(self, distribution: Distribution):
        super().__init__()
        if distribution.event_shape:
            raise ValueError("InverseCDF needs a distribution of numbers, "
                             f"got events of shape {tuple(distribution.event_shape)}")
        self.kind = type(distribution)
        arguments = distribution_arguments(distribution)
        self.names = tuple(arguments)
        for name, value in zip(arguments, constants("InverseCDF", **arguments)):
            self.register_buffer(name, value)
        try:
            self.distribution.icdf(torch.full_like(value, 0.5).expand(distribution.batch_shape))
        except NotImplementedError as error:  # how torch.distributions says that there is none
            raise ValueError(f"{type(distribution).__name__} has no inverse CDF") from error
        if distribution.batch_shape:
            self.event_shape = self.latent_shape = tuple(distribution.batch_shape[-1:])
        self.codomain = constraints.independent(distribution.support, 1)

    @property
    def distribution(self) -> Distribution:
        """The distribution, made of the present buffers, in float32 at least."""
        arguments: dict[str, Any] = {name: wide(getattr(self, name)) for name in self.names}
        return self.kind(**arguments, validate_args=False)

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        distribution = self.distribution
        outside = (z < 0) | (z > 1)
        if type(distribution) is Normal:
            x = distribution.loc + distribution.scale * torch.special.ndtri(wide(_inside(z)))
        else:  # formulas that tell 0 from no smaller number
            x = distribution.icdf(wide(_inside(z, torch.finfo(z.dtype).eps / 2)))
        log_det = (-distribution.log_prob(x)).masked_fill(outside, -torch.inf).sum(-1)
        return x.to(z.dtype), log_det.to(z.dtype)

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        distribution, dtype, x = self.distribution, x.dtype, wide(x)
        assert distribution.support is not None  # it is part of the codomain
        outside = ~distribution.support.check(x) & ~x.isnan()
        x = torch.where(outside, distribution.icdf(torch.full_like(x, 0.5)), x)
        if type(distribution) is Normal:  # torch's own subtracts from 1, on the left too
            z = 0.5 * torch.erfc((distribution.loc - x) / (math.sqrt(2) * distribution.scale))
        else:
            z = distribution.cdf(x)
        return z.to(dtype), distribution.log_prob(x).masked_fill(outside, -torch.inf).sum(-1).to(dtype)


class Linear(Bijection):
    r"""$x = A z$ with $\log|\det A|$. Cost: O(D^2) a row forward, one O(D^3) factorisation a call for the log-det and
    the inverse. Computed in the matrix's own precision, but float32 at least, whatever autocast says.

    Args:
        matrix: A, (D, D), a tensor, array or nested list; a buffer, which is not trained.

    Raises:
        ValueError: A matrix that is not square, singular to working precision, or a tensor that requires a gradient.

    Example:
        >>> from flowlib import Linear
        >>> Linear(torch.tensor([[2.0, 1.0], [0.0, 3.0]]))(torch.tensor([1.0, 1.0]))  # ln 6
        (tensor([3., 3.]), tensor(1.7918))
    """

    matrix: Tensor

    def __init__(self, matrix: Tensor):
        super().__init__()
        [matrix] = constants("Linear", matrix=matrix)
        if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
            raise ValueError(f"Linear expected a square matrix, got shape {tuple(matrix.shape)}")
        if not holds(torch.linalg.matrix_rank(wide(matrix)) == len(matrix)):
            raise ValueError("Linear expected an invertible matrix, this one is singular to working precision")
        self.event_shape = self.latent_shape = (len(matrix),)
        self.register_buffer("matrix", matrix)

    def _log_det(self, like):
        return torch.linalg.slogdet(wide(self.matrix))[1].to(like.dtype).expand(like.shape[:-1])

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if not reduced(z):
            return F.linear(tame(z), self.matrix), self._log_det(z)
        with full_precision(z):
            return F.linear(tame(wide(z)), wide(self.matrix)).to(z.dtype), self._log_det(z)

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        with full_precision(x):
            rows = tame(wide(x)).reshape(-1, x.shape[-1])  # z A^T = x, by rows
            return torch.linalg.solve(wide(self.matrix).T, rows, left=False).view_as(x).to(x.dtype), -self._log_det(x)


class Permutation(Bijection):
    r"""$x_i = z_{\pi(i)}$: a reordering, $\log|\det| = 0$. Cost: O(D) both ways.

    Args:
        order: The permutation as D integers, or D itself for a random one (from torch's generator, kept as a buffer).

    Raises:
        ValueError: Integers that are not a permutation of 0..D-1.

    Example:
        >>> from flowlib import Permutation
        >>> Permutation([2, 0, 1])(torch.tensor([10.0, 11.0, 12.0]))[0]
        tensor([12., 10., 11.])
    """

    order: Tensor
    inverse_order: Tensor

    def __init__(self, order: int | list[int] | Tensor):
        super().__init__()
        order = torch.randperm(order) if isinstance(order, int) else torch.as_tensor(order)
        if order.ndim != 1 or order.is_floating_point() or not holds(
                order.sort().values == torch.arange(len(order), device=order.device)):
            raise ValueError(f"Permutation expected each of 0..D-1 once, got {order.tolist()}")
        self.event_shape = self.latent_shape = (len(order),)
        self.register_buffer("order", order.clone())
        self.register_buffer("inverse_order", order.argsort())

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return z[..., self.order], z.new_zeros(z.shape[:-1])

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return x[..., self.inverse_order], x.new_zeros(x.shape[:-1])


class Rotation(Bijection):
    r"""$x = Q z$ with a trainable rotation $Q = \exp(S - S^\top)$, $\det Q = 1$: $\log|\det| = 0$, inverse $Q^\top$.

    The matrix exponential reaches every rotation, and keeps Q orthogonal whatever an optimiser does to S: it is
    computed in float64 (where the device has it) and rounded, since its errors grow with S. So Q is orthogonal to
    float32's rounding for entries of S up to 1e8. Cost: O(D^2) a row and one O(D^3) exponential a call, both ways;
    outside autocast.

    Args:
        dim: D. S starts at random.

    Example:
        >>> from flowlib import Rotation
        >>> q = Rotation(3).matrix(); torch.allclose(q @ q.T, torch.eye(3), atol=1e-5)
        True
    """

    rows_columns: Tensor

    def __init__(self, dim: int):
        super().__init__()
        if dim < 1:
            raise ValueError(f"dim must be positive, got {dim}")
        self.dim = dim
        self.event_shape = self.latent_shape = (dim,)
        self.register_buffer("rows_columns", torch.triu_indices(dim, dim, offset=1))
        self.upper = nn.Parameter(torch.randn(dim * (dim - 1) // 2))  # the entries of S above the diagonal

    def matrix(self) -> Tensor:
        """Q, (D, D)."""
        s = self.upper.new_zeros(self.dim, self.dim).index_put((self.rows_columns[0], self.rows_columns[1]), self.upper)
        exact = wide(s) if s.device.type == "mps" else s.double()
        return torch.linalg.matrix_exp(exact - exact.T).to(s.dtype)

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        with full_precision(z):
            return F.linear(tame(z), self.matrix()), z.new_zeros(z.shape[:-1])

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        with full_precision(x):
            return tame(x) @ self.matrix(), x.new_zeros(x.shape[:-1])
