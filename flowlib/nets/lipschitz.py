"""Networks with a Lipschitz constant below a chosen one, at every value of their weights: what makes x + g(x)
invertible. And their Jacobians, as linear maps that can be applied without autograd."""
from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..numerics import wide

__all__ = ["ACTIVATIONS", "Linearised", "LipschitzNet", "spectral_bound"]

SQUARINGS = 8  # of A^T A: the bound is at most r^(1/514) of the norm for r singular values, 1.008 for 64 equal ones
DENSE = 64  # numbers in an image up to which a convolution is looked at as one matrix


def spectral_bound(matrices: Tensor, squarings: int = SQUARINGS) -> Tensor:
    r"""An upper bound of the largest singular value of each matrix, tight to a percent and never below: the Schatten
    norm $(\sum_i \sigma_i^{2q})^{1/2q}$ with $q = 2^k + 1$, from k squarings of $A^\top A$.

    A power iteration comes to the norm from below, and as slowly as the second singular value is near the first; this
    comes from above, at a cost that is known (Delattre et al. 2023, arXiv:2305.16173). It is a function of the matrix
    alone, without vectors to be kept, saved or updated: so it holds for weights that were just loaded, too.
    Differentiable once: its gradient is that of the Schatten norm.

    Args:
        matrices: A, (..., m, n), real or complex.
        squarings: k.

    Returns:
        The bounds, (...), real. Cost: k products of matrices of the smaller side.

    Raises:
        ValueError: No matrix.

    Example:
        >>> bound = spectral_bound(torch.diag(torch.tensor([3.0, 1.0]))); round(bound.item(), 4)
        3.0
    """
    if matrices.ndim < 2:
        raise ValueError(f"spectral_bound takes matrices (..., m, n), got shape {tuple(matrices.shape)}")
    a = matrices if matrices.shape[-1] <= matrices.shape[-2] else matrices.mH
    constant, tiny = a.detach(), torch.finfo(a.dtype).tiny
    power = constant.mH @ constant
    sizes = []
    for k in range(squarings + 1):
        power = power @ power if k else power
        sizes.append(torch.linalg.matrix_norm(power).clamp(min=tiny))
        power = power / sizes[-1][..., None, None]
    doublings = torch.tensor([2.0**k for k in range(squarings, -1, -1)], dtype=power.real.dtype, device=power.device)
    log = torch.stack(sizes, -1).log() @ doublings
    # tr((A^T A)^q) = e^log tr(power A^T A), whose gradient reaches A through the last factor alone: q times too small
    half = 0.5 * ((a @ power) * a.conj()).real.sum((-1, -2)).clamp(min=tiny).log()
    value = ((log + 2 * half.detach()) / (2 * (2**squarings + 1))).exp()
    return value * (half - half.detach()).exp()


# --- layers -----------------------------------------------------------------------------------------------------------


class LipSwish(nn.Module):
    r"""$\phi(x) = x\,\sigma(\beta x) / 1.1$ with $\beta > 0$ learned: its slope lies in (-0.1, 1) for each $\beta$, and
    is smooth (Chen et al. 2019, arXiv:1906.02735, section 3.4). It starts at $\beta = 4$: where weights may not grow, a
    bend that is too wide for data of variance 1 takes long to become narrow."""

    def __init__(self):
        super().__init__()
        self.log_beta = nn.Parameter(torch.full((1,), math.log(4)))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Value and slope."""
        beta = wide(self.log_beta).exp()
        t = beta * x
        s = torch.sigmoid(t)
        swish = t * s
        return swish * (1 / (1.1 * beta)), torch.lerp(s, torch.ones_like(beta), swish) * (1 / 1.1)  # s + t s (1 - s)


class ELU(nn.Module):
    """$x$ for x > 0, else $e^x - 1$: its slope lies in (0, 1]."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Value and slope."""
        slope = x.clamp(max=0.0).exp()
        return torch.where(x > 0, x, slope - 1), slope  # one branch: at 0 the slopes of both would add up


ACTIVATIONS = {"lipswish": LipSwish, "elu": ELU}


class _Linear(nn.Linear):
    """A matrix that acts on the last axis."""

    def matrices(self, weight: Tensor) -> Tensor:
        return weight

    def apply_to(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.linear(x, weight)

    def apply_transposed(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.linear(x, weight.mT)


class _Conv(nn.Conv2d):
    """A convolution that keeps the size of its image, with zeros around it."""

    def __init__(self, inputs: int, outputs: int, kernel: int, size: tuple[int, int]):
        super().__init__(inputs, outputs, kernel, padding=kernel // 2)
        self.size = size

    def matrices(self, weight: Tensor) -> Tensor:
        """Matrices whose largest norm is not below that of the whole map: the map itself where it is small. Else, with
        p zeros around it, an image of n x n pixels is a part of a ring of n + p, on which the convolution is, after a
        Fourier transform, one small matrix for each frequency."""
        outputs, inputs, kernel, _ = weight.shape
        if kernel == 1:
            return weight[..., 0, 0]
        pixels = math.prod(self.size)
        if min(inputs, outputs) * pixels <= DENSE:
            channels, apply = (inputs, self.apply_to) if inputs <= outputs else (outputs, self.apply_transposed)
            identity = torch.eye(channels * pixels, dtype=weight.dtype, device=weight.device)
            return apply(identity.reshape(-1, channels, *self.size), weight).flatten(1)
        ring = [max(n + kernel // 2, kernel) for n in self.size]
        return torch.fft.rfft2(weight, s=ring).movedim((0, 1), (-2, -1))  # (H', W'/2 + 1, outputs, inputs)

    def apply_to(self, x: Tensor, weight: Tensor) -> Tensor:
        return self._folded(F.conv2d, x, weight)

    def apply_transposed(self, x: Tensor, weight: Tensor) -> Tensor:
        return self._folded(F.conv_transpose2d, x, weight)

    def _folded(self, convolve, x, weight):
        y = convolve(x.reshape(-1, *x.shape[-3:]), weight, padding=weight.shape[-1] // 2)
        return y.reshape(*x.shape[:-3], *y.shape[-3:])


class Weights(NamedTuple):
    """One layer, normalised: its weight, and its bias with what a context adds to it."""

    weight: Tensor
    bias: Tensor


class Linearised(NamedTuple):
    """A network at some points: its values there, and what its Jacobian needs to be applied."""

    value: Tensor
    matrices: tuple[Tensor, ...]  # the weight of each layer
    slopes: tuple[Tensor, ...]  # of each activation, (..., *hidden)

    def detach(self) -> Linearised:
        """The same as constants."""
        return Linearised(self.value.detach(), tuple(w.detach() for w in self.matrices),
                          tuple(s.detach() for s in self.slopes))


class LipschitzNet(nn.Module):
    r"""A network g (..., *event) -> (..., *event) with $\|g(x) - g(y)\|_2 \le c\,\|x - y\|_2$ for a c below one.

    L layers, each divided by as much as its `spectral_bound` exceeds $c^{1/L}$, at every call, with activations of
    slope at most one between them (Behrmann et al. 2019, arXiv:1811.00995, section 2.1). It is computed outside of
    autocast: rounded to eight bits, a contraction has no accurate inverse. The last layer starts at zero.

    Args:
        shape: (D,), or (C, H, W) for convolutions 3x3, 1x1, ..., 1x1, 3x3.
        hidden: Widths, or channels, of the hidden layers.
        coefficient: c.
        activation: "lipswish" or "elu". (A second derivative that is zero, as ReLU's is, would leave the log-det
            without a gradient.)
        context_dim: Width of a context, of which a linear function (of any size: it moves g as a whole) is added in
            the first layer, at every pixel; or None.

    Raises:
        ValueError: A coefficient that is not in (0, 1), an unknown activation, or no hidden layer.

    Example:
        >>> net = LipschitzNet((2,), (8,)); net(torch.ones(5, 2)).shape
        torch.Size([5, 2])
    """

    def __init__(self, shape: tuple[int, ...], hidden: Sequence[int], *, coefficient: float = 0.9,
                 activation: str = "lipswish", context_dim: int | None = None):
        super().__init__()
        if not 0 < coefficient < 1:
            raise ValueError(f"a residual block is invertible for a coefficient in (0, 1), got {coefficient}")
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation is one of {', '.join(map(repr, ACTIVATIONS))}, got {activation!r}")
        if not hidden or len(shape) not in (1, 3):
            raise ValueError("a residual block has hidden layers and acts on vectors (D,) or images (C, H, W), got "
                             f"hidden={tuple(hidden)} and shape {tuple(shape)}")
        self.event_ndim = len(shape)
        self.coefficient = coefficient
        widths = [shape[0], *hidden, shape[0]]
        ends = (0, len(hidden))
        layers = [_Linear(a, b) if len(shape) == 1 else
                  _Conv(a, b, 3 if k in ends else 1, (shape[1], shape[2]))
                  for k, (a, b) in enumerate(zip(widths, widths[1:]))]
        for parameter in layers[-1].parameters():  # near the identity: g = 0
            nn.init.zeros_(parameter)
        self.layers = cast("Sequence[_Linear | _Conv]", nn.ModuleList(layers))
        self.activations = nn.ModuleList(ACTIVATIONS[activation]() for _ in hidden)
        self.context = None if context_dim is None else nn.Linear(context_dim, hidden[0], bias=False)

    def weights(self, context: Tensor | None = None) -> list[Weights]:
        """Every layer's weight and bias as the network uses them. Cost: the bounds of the weights."""
        allowed = self.coefficient ** (1 / len(self.layers))
        found = []
        for layer in self.layers:
            weight, bias = wide(layer.weight), wide(cast("Tensor", layer.bias))
            bound = spectral_bound(layer.matrices(weight))
            excess = (bound.amax() / allowed).clamp(min=1.0)
            found.append(Weights(weight / excess, self._per_channel(bias)))
        if self.context is not None:
            assert context is not None  # `Bijection.check` has looked
            added = F.linear(wide(context), wide(self.context.weight))
            found[0] = Weights(found[0].weight, found[0].bias + self._per_channel(added))
        return found

    def _per_channel(self, bias):
        return bias[(..., *[None] * (self.event_ndim - 1))]

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """g(x), (..., *event)."""
        return self.linearise(x, self.weights(context)).value

    def linearise(self, x: Tensor, weights: list[Weights]) -> Linearised:
        """g at x, and its slopes there. Cost: one pass."""
        slopes = []
        for k, (layer, (weight, bias)) in enumerate(zip(self.layers, weights)):
            x = layer.apply_to(x, weight) + bias
            if k < len(self.activations):
                x, slope = self.activations[k](x)
                slopes.append(slope)
        return Linearised(x, tuple(weight for weight, _ in weights), tuple(slopes))

    def push(self, at: Linearised, v: Tensor) -> Tensor:
        """J v, for v (..., *event) whose leading axes broadcast with the points'. Cost: one pass."""
        for k, (layer, weight) in enumerate(zip(self.layers, at.matrices)):
            v = layer.apply_to(v, weight)
            v = v * at.slopes[k] if k < len(at.slopes) else v
        return v

    def pull(self, at: Linearised, v: Tensor) -> Tensor:
        """J^T v, likewise."""
        for k in reversed(range(len(self.layers))):
            v = v * at.slopes[k] if k < len(at.slopes) else v
            v = self.layers[k].apply_transposed(v, at.matrices[k])
        return v

    def jacobian(self, at: Linearised) -> Tensor:
        """J as matrices (..., D, D). Cost: D passes."""
        shape = at.value.shape[at.value.ndim - self.event_ndim :]
        identity = torch.eye(math.prod(shape), dtype=at.value.dtype, device=at.value.device)
        # An axis of directions before the event's: the first layer takes all of them at once, for every point
        spread = at._replace(slopes=tuple(s.unsqueeze(-1 - self.event_ndim) for s in at.slopes))
        columns = self.push(spread, identity.reshape(-1, *shape)).flatten(-self.event_ndim)
        return columns.mT
