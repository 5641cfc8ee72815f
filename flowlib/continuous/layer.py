"""The flow of a velocity field over the time from 0 to 1, as a bijection. Cheap to the latent, a search to the data."""
from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ..core import Bijection, InversionError
from ..numerics import HALF, full_precision, tame
from ..residual.log_det import Estimate, signs
from ..residual.solve import solve_contraction
from .ode import integrate, integrate_adjoint, step

__all__ = ["ContinuousLayer", "VelocityNet"]

SMALL = 8  # dimensions up to which the Jacobian is made whole: for the log-det, and for Newton's method
LOG_DETS = ("exact", "trace", "hutchinson")
CONTRACTION = 0.9  # of a step of the solver, at most, for the search


class VelocityNet(nn.Module):
    """A velocity (..., D) at time t and place x (..., D), given a context that broadcasts: layers with tanh between
    them, so that it is smooth, as a solver of high order needs, and bounded. The last layer starts at zero: no motion.

    Args:
        dim: D.
        hidden: Widths of the hidden layers.
        context_dim: Width of a context, or None.
    """

    def __init__(self, dim: int, hidden: Sequence[int] = (64, 64), context_dim: int | None = None):
        super().__init__()
        widths = [dim + 1 + (context_dim or 0), *hidden, dim]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip(widths, widths[1:]))
        for p in self.layers[-1].parameters():
            nn.init.zeros_(p)

    def forward(self, t: float | Tensor, x: Tensor, context: Tensor | None = None) -> Tensor:
        """The velocity; t is a number or (..., 1)."""
        parts = [x, torch.as_tensor(t, dtype=x.dtype, device=x.device).expand(*x.shape[:-1], 1)]
        if context is not None:
            parts.append(context.expand(*x.shape[:-1], context.shape[-1]))
        h = torch.cat(parts, -1)
        for layer in self.layers[:-1]:  # pyright: ignore[reportIndexIssue]
            h = layer(h).tanh()
        return self.layers[-1](h)


def push(f: Callable[[Tensor], Tensor], x: Tensor, tangents: Tensor) -> tuple[Tensor, Tensor]:
    """f(x), and the products of its Jacobian with K tangents (K, *x.shape), by forward mode."""
    def along(v: Tensor) -> tuple[Tensor, Tensor]:
        value, product = torch.func.jvp(f, (x,), (v,))  # pyright: ignore[reportAssignmentType]
        return value, product

    values, products = torch.func.vmap(along)(tangents)
    return values[0], products  # the value is the same for all, and computed once


class ContinuousLayer(Bijection):
    r"""x(1) from $x(0) = z$, where $dx/dt = v(t, x; c)$ for a network v: from the latent at time 0 to the data at 1.

    The map is the solver's: to the latent `steps` steps of the classical Runge-Kutta method from time 1 to 0, and to
    the data the exact inverse of these steps, each found by a search. So it is a bijection wherever the steps are
    short enough to be inverted; a second integration the other way would miss z by the error of both. With
    `log_det="exact"` the log-det is that of this same map, $\sum_k \ln|\det S_k|$ over the Jacobians of the steps,
    and the density integrates to one. The others are of the differential equation (the instantaneous change of
    variables: Chen et al. 2018, arXiv:1806.07366, theorem 1) and fit the map up to the solver's error ($h^4$), so
    that `likelihood` is "estimate":

    $$\ln\left|\det\frac{\partial x(1)}{\partial z}\right| = \int_0^1 \operatorname{tr} \frac{\partial v}{\partial x}\,
    dt,$$

    "trace" with the trace itself, and "hutchinson" with $u^\top (\partial v/\partial x) u$ for signs u that are drawn
    once a call (Grathwohl et al. 2019, arXiv:1810.01367): unbiased for the trace.

    Cost: density 4 passes of v a step, and for the log-det another 4 D, or 4 for "hutchinson". Sampling a search for
    each step (3 to 5 such steps by Newton's method at D = 2, 8 to 22 by Anderson's at D = 16), with a test of its
    residual, and a density for the log-det; gradients of `forward` take two densities more, with the whole Jacobian.
    Both directions are differentiable more than once (`inverse` with `adjoint`: once). Computed in float32 at least
    whatever autocast does.

    Args:
        dim: D.
        hidden: Widths of the hidden layers of v.
        steps: Of the solver.
        log_det: "exact", "trace" or "hutchinson"; None is "exact" up to D = 8, "hutchinson" above.
        adjoint: Gradients of `inverse` by the adjoint equation, in memory that does not grow with the steps; not for
            "exact", which is no integral.
        context_dim: Width of a context that v reads, or None.
        net: v itself, as a module `net(t, x, context)` that is smooth in x; None: `VelocityNet`.

    Raises:
        ValueError: No step, an unknown log-det, `adjoint` with "exact", or parameters in 16 bits.
        InversionError: In `forward`: steps too long to be inverted, or a latent that is not finite.

    Example:
        >>> f = ContinuousLayer(2, steps=4); z, log_det = f.inverse(torch.ones(5, 2)); z.shape, log_det.shape
        (torch.Size([5, 2]), torch.Size([5]))
    """

    def __init__(self, dim: int, *, hidden: Sequence[int] = (64, 64), steps: int = 16, log_det: str | None = None,
                 adjoint: bool = False, context_dim: int | None = None, net: nn.Module | None = None):
        super().__init__()
        self.dim, self.latent_shape, self.event_shape = dim, (dim,), (dim,)
        self.context_dim = context_dim
        self.steps, self.adjoint = steps, adjoint
        self.log_det = log_det or ("exact" if dim <= SMALL else "hutchinson")
        if steps < 1:
            raise ValueError(f"a solver makes at least one step, got steps={steps}")
        if self.log_det not in LOG_DETS:
            raise ValueError(f"log_det is one of {', '.join(map(repr, LOG_DETS))}, got {log_det!r}")
        if adjoint and self.log_det == "exact":
            raise ValueError('the adjoint equation is that of an integral: choose log_det="trace" or "hutchinson"')
        self.likelihood = "exact" if self.log_det == "exact" else "estimate"
        self.net = net if net is not None else VelocityNet(dim, hidden, context_dim)

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        with full_precision(x):
            return self._density(self._start(x, context), context, self._probes(x, context))

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        with full_precision(z):
            target = self._start(z, context)
            x = self._search(target, context)
            if torch.is_grad_enabled():
                # Steps from a root, for the derivatives of the implicit function: each makes one order more right.
                matrix = self._whole(x, context)[1].detach()
                for _ in range(2):
                    r = self._whole(x, context)[0] - target
                    x = x - torch.linalg.solve(matrix, r[..., None])[..., 0]
            return x, -self._density(x, context, self._probes(x, context))[1]

    def estimate(self, x: Tensor, context: Tensor | None = None, draws: int = 1,
                 generator: torch.Generator | None = None) -> Estimate:
        """The log-det of `inverse` at x, as the mean of so many independent draws, and its standard error (...), which
        is zero where nothing is drawn (for "trace", that of the solver remains)."""
        self.check(x, context, inverse=True)
        with full_precision(x):
            at = self._start(x, context)
            if self.log_det != "hutchinson":
                value = self._density(at, context, self._probes(x, context))[1]
                return Estimate(value, torch.zeros_like(value))
            return Estimate.of(torch.stack([self._density(at, context, signs(at, 1, generator))[1]
                                            for _ in range(draws)]))

    def _start(self, value: Tensor, context: Tensor | None) -> Tensor:
        """Within range, and with the batch axes of value and context together."""
        if value.dtype in HALF:
            raise ValueError(f"a continuous flow is solved in float32 or float64, got {value.dtype}")
        batch = value.shape[:-1]
        if context is not None and self.context_shape is not None:
            batch = torch.broadcast_shapes(batch, self.context_batch(context))
        return tame(value).expand(*batch, self.dim)

    def _velocity(self, t: float, x: Tensor, context: Tensor | None) -> Tensor:
        return self.net(t, x, context if self.context_shape is not None else None)

    def _probes(self, x: Tensor, context: Tensor | None) -> Tensor:
        """The tangents (K, ..., D) that the log-det needs: the unit vectors, or one draw of signs."""
        at = self._start(x, context)
        return signs(at, 1) if self.log_det == "hutchinson" else self._unit(at)

    def _unit(self, x: Tensor) -> Tensor:
        unit = torch.eye(self.dim, dtype=x.dtype, device=x.device)
        return unit.reshape(self.dim, *[1] * (x.ndim - 1), self.dim).expand(self.dim, *x.shape)

    def _back(self, k: int, x: Tensor, context: Tensor | None) -> Tensor:
        """The step from time (k + 1)/n to k/n."""
        n = self.steps
        return step(lambda t, y: (self._velocity(t, y[0], context),), (k + 1) / n, -1 / n, (x,))[0]

    def _back_with_matrix(self, k: int, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """The same, and its Jacobian (..., D, D)."""
        value, columns = push(lambda x: self._back(k, x, context), x, self._unit(x))
        return value, columns.movedim(0, -1)

    def _whole(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """The latent of x, and the Jacobian of all steps together."""
        matrix = torch.eye(self.dim, dtype=x.dtype, device=x.device)
        for k in reversed(range(self.steps)):
            x, one = self._back_with_matrix(k, x, context)
            matrix = one @ matrix
        return x, matrix

    def _density(self, x: Tensor, context: Tensor | None, probes: Tensor) -> tuple[Tensor, Tensor]:
        """The latent of x, and the log-det of the way there."""
        log_det = torch.zeros_like(x[..., 0])
        if self.log_det == "exact":
            for k in reversed(range(self.steps)):
                x, matrix = self._back_with_matrix(k, x, context)
                log_det = log_det + torch.linalg.slogdet(matrix)[1]
            return x, log_det

        def slopes(t, state):
            v, products = push(lambda y: self._velocity(t, y, context), state[0], probes)
            return v, (probes * products).sum((0, -1))

        if not self.adjoint:
            z, log_det = integrate(slopes, (x, log_det), 1.0, 0.0, self.steps)
            return z, log_det
        reads: list[Tensor] = [p for p in self.net.parameters() if p.requires_grad]
        if context is not None and context.requires_grad:
            reads.append(context)
        z, log_det = integrate_adjoint(slopes, (x, log_det), 1.0, 0.0, self.steps, reads)
        return z, log_det

    @torch.no_grad()
    def _search(self, z: Tensor, context: Tensor | None) -> Tensor:
        for k in range(self.steps):
            def beyond_identity(x, k=k):
                if self.dim > SMALL:
                    return self._back(k, x, context) - x, None
                value, matrix = self._back_with_matrix(k, x, context)
                return value - x, matrix - torch.eye(self.dim, dtype=x.dtype, device=x.device)

            try:
                # torch's stub of `compiler.disable` forgets the arguments
                z = solve_contraction(beyond_identity, z, CONTRACTION).x  # pyright: ignore[reportCallIssue]
            except InversionError as error:
                raise InversionError(f"a step of the solver was not inverted; more steps are shorter ones, here "
                                     f"steps={self.steps}: {error}") from error
        return z
