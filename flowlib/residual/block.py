"""The residual block: the identity and a contraction. Cheap to the latent, a search to the data."""
from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..core import Bijection
from ..nets.lipschitz import Linearised, LipschitzNet, Weights
from ..numerics import full_precision, tame, wide
from .log_det import Estimate, estimate_log_det
from .solve import Solution, solve_contraction

__all__ = ["LOG_DETS", "ResidualBlock"]

SMALL = 8  # dimensions up to which the Jacobian is made whole: for the log-det, and for Newton's method
LOG_DETS = ("exact", "series", "roulette", "neumann")


class ResidualBlock(Bijection):
    r"""To the latent, $z = x + g(x)$ with a network g of Lipschitz constant at most c < 1 (`LipschitzNet`).

    Invertible, since $x \mapsto z - g(x)$ is a contraction; and $\ln\det(I + J_g)$ lies between $D \ln(1 - c)$ and $D
    \ln(1 + c)$. With `log_det="exact"` it is that of the Jacobian, which is pushed through the network with the value.
    The others need only products with $J_g$ and are random (`likelihood` is "estimate", see `estimate_log_det`):
    "series" ends after `terms` and is biased, by less than `truncation_bound(D, c, terms)`; "roulette" is not;
    "neumann" is roulette with a gradient of its own, whose memory does not grow with the number of terms.

    Cost: density one pass of g and its weights' bounds, and for the log-det D more passes, or one for each term.
    Sampling a search of some 5 to 20 passes, each with the Jacobian up to D = 8; its residual is always looked at.
    Computed in float32 at least whatever autocast does. Gradients of `inverse` are differentiable as often as one likes
    (but for "neumann": once), those of `forward` twice up to D = 8 and once above.

    Args:
        dim: D, or a shape (C, H, W), where g is convolutional.
        hidden: Widths of the hidden layers of g, or their channels.
        coefficient: c.
        activation: "lipswish" or "elu".
        context_dim: Width of a context that g reads, too, or None.
        log_det: One of the four; None is "exact" up to D = 8, "neumann" above.
        terms: How many terms of the series are always taken.
        more: For roulette, the probability that one more term follows; $c^2$ by default. Its variance is finite if the
            spectral radius of $J_g$ is below $\sqrt{\text{more}}$, and by default that is certain.

    Raises:
        ValueError: A coefficient outside (0, 1), an unknown activation or log-det, no hidden layer, no terms.
        InversionError: In `forward`: a latent that is not finite, or a g that was replaced and does not contract.

    Papers: Behrmann et al. (2019), arXiv:1811.00995; Chen et al. (2019), arXiv:1906.02735.

    Example:
        >>> from flowlib import ResidualBlock
        >>> f = ResidualBlock(2, hidden=(16,)); z, log_det = f.inverse(torch.ones(5, 2)); z.shape, log_det.shape
        (torch.Size([5, 2]), torch.Size([5]))
    """

    latent_shape: tuple[int, ...]
    event_shape: tuple[int, ...]

    def __init__(self, dim: int | tuple[int, ...], *, hidden: Sequence[int] = (64, 64), coefficient: float = 0.9,
                 activation: str = "lipswish", context_dim: int | None = None, log_det: str | None = None,
                 terms: int = 5, more: float | None = None):
        super().__init__()
        shape = (dim,) if isinstance(dim, int) else tuple(dim)
        self.latent_shape = self.event_shape = shape
        self.latent_ndim = self.event_ndim = len(shape)
        self.context_dim = context_dim
        self.dim = math.prod(shape)
        self.log_det = log_det or ("exact" if self.dim <= SMALL else "neumann")
        if self.log_det not in LOG_DETS:
            raise ValueError(f"log_det is one of {', '.join(map(repr, LOG_DETS))}, got {log_det!r}")
        if terms < 1 or not (more is None or 0 < more < 1):
            raise ValueError(f"the series needs terms >= 1 and more in (0, 1), got {terms} and {more}")
        self.terms, self.more = terms, coefficient**2 if more is None else more
        self.likelihood = "exact" if self.log_det == "exact" else "estimate"
        self.net = LipschitzNet(shape, hidden, coefficient=coefficient, activation=activation, context_dim=context_dim)

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        with full_precision(x):
            at_x = wide(tame(x))
            at = self.net.linearise(at_x, self.net.weights(context))
            log_det = self._log_det(at).value
            return (at_x + at.value).to(x.dtype), log_det.to(x.dtype)

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        with full_precision(z):
            target, weights = wide(tame(z)), self.net.weights(context)
            x = self._solve(target, weights).x
            # Steps from a root, for the derivatives of the implicit function: each makes one order more of them right.
            if self.dim <= SMALL:
                matrix = self._matrix(self.net.linearise(x, weights)).detach()
                for _ in range(2):
                    r = self._flat(x + self.net.linearise(x, weights).value - target)
                    x = x - torch.linalg.solve(matrix, r[..., None])[..., 0].reshape(r.shape[:-1] + self.event_shape)
            else:
                r = x + self.net.linearise(x, weights).value - target
                at = self.net.linearise(x, weights).detach()
                x = x - _Implicit.apply(r, self.net, len(at.matrices), *at.matrices, *at.slopes)
            log_det = self._log_det(self.net.linearise(x, weights)).value
            return x.to(z.dtype), -log_det.to(z.dtype)

    def solve(self, z: Tensor, context: Tensor | None = None) -> Solution:
        """The search that `forward` makes: x, its residual $\\|x + g(x) - z\\|$ (...), and how many evaluations of g it
        took. Without gradient; arguments and errors are those of `forward`."""
        self.check(z, context)
        with full_precision(z):
            return self._solve(wide(tame(z)), self.net.weights(context))

    def estimate(self, x: Tensor, context: Tensor | None = None, draws: int = 1,
                 generator: torch.Generator | None = None) -> Estimate:
        """The log-det of `inverse` at x, as the mean of so many independent draws, and its standard error (...); zero
        where it is exact."""
        self.check(x, context, inverse=True)
        with full_precision(x):
            at = self.net.linearise(wide(tame(x)), self.net.weights(context))
            return self._log_det(at, draws, generator)

    def _flat(self, x):
        return x.flatten(x.ndim - self.event_ndim)

    def _matrix(self, at: Linearised) -> Tensor:
        """I + J, (..., D, D)."""
        return self.net.jacobian(at) + torch.eye(self.dim, dtype=at.value.dtype, device=at.value.device)

    def _log_det(self, at: Linearised, draws: int = 1, generator: torch.Generator | None = None) -> Estimate:
        if self.log_det == "exact":
            value = _log_det(self._matrix(at))
            return Estimate(value, torch.zeros_like(value))
        neumann = self.log_det == "neumann"
        factors = at.detach() if neumann else at
        # torch's stub of `compiler.disable` forgets the arguments, here and below
        return estimate_log_det(lambda v: self.net.pull(factors, v), at.value,  # pyright: ignore[reportCallIssue]
                                terms=self.terms,
                                more=None if self.log_det == "series" else self.more, ndim=self.event_ndim, draws=draws,
                                generator=generator, gradient=(lambda v: self.net.push(at, v)) if neumann else None)

    def _solve(self, z: Tensor, weights: list[Weights]) -> Solution:
        batch = torch.broadcast_shapes(z.shape[: z.ndim - self.event_ndim],
                                       weights[0].bias.shape[: weights[0].bias.ndim - self.event_ndim])
        flat = self._flat(z.expand(*batch, *self.event_shape))

        def g(x):
            at = self.net.linearise(x.reshape(*batch, *self.event_shape), weights)
            return self._flat(at.value), self.net.jacobian(at) if self.dim <= SMALL else None

        found = solve_contraction(g, flat, self.net.coefficient)  # pyright: ignore[reportCallIssue]
        return found._replace(x=found.x.reshape(*batch, *self.event_shape))


def _log_det(matrix):
    """Of matrices with a positive determinant; for two dimensions by its formula, which is many times as fast."""
    if matrix.shape[-1] == 2:
        (a, b), (c, d) = (row.unbind(-1) for row in matrix.unbind(-2))
        return (a * d - b * c).log()
    return torch.linalg.slogdet(matrix)[1]


class _Implicit(torch.autograd.Function):
    """$(I + J)^{-1} r$ at a root, where r is as good as zero: r itself, with the gradient of the product."""

    generate_vmap_rule = True

    @staticmethod
    def forward(r, net, layers, *tensors):
        return r.clone()

    @staticmethod
    def setup_context(ctx, inputs, output):
        _, ctx.net, ctx.layers, *tensors = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        # (I + J)^T w = grad is again x + g(x) = z, for the linear contraction g = J^T
        net, shape, tensors = ctx.net, grad.shape, ctx.saved_tensors
        at = Linearised(grad, tensors[: ctx.layers], tensors[ctx.layers :])
        flat = grad.flatten(grad.ndim - net.event_ndim)
        def g(w):
            return net.pull(at, w.reshape(shape)).reshape(flat.shape), None

        found = solve_contraction(g, flat, net.coefficient)  # pyright: ignore[reportCallIssue]
        return found.x.reshape(shape), None, None, *[None] * len(tensors)
