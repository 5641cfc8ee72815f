"""Flow matching: the velocity of a continuous flow by regression, without a solver."""
from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from ..core import Compose, Flow
from .layer import ContinuousLayer

__all__ = ["FlowMatching"]


def _linear(t):
    return t, 1 - t, torch.ones_like(t), -torch.ones_like(t)


def _variance_preserving(t):
    angle = 0.5 * math.pi * t
    return angle.sin(), angle.cos(), 0.5 * math.pi * angle.cos(), -0.5 * math.pi * angle.sin()


PATHS = {"linear": _linear, "variance-preserving": _variance_preserving}  # t -> a, b, da/dt, db/dt
COUPLINGS = ("independent", "optimal")


class FlowMatching(nn.Module):
    r"""$\|v(t, x_t) - \dot x_t\|^2$ at a random time t in [0, 1] of a path from noise $x_0$ to data $x_1$,

    $$x_t = a(t)\, x_1 + b(t)\, x_0, \qquad \dot x_t = a'(t)\, x_1 + b'(t)\, x_0,$$

    as an objective of `train.fit`, not in nats. Its least value has v(t, x) the mean of $\dot x_t$ over the paths
    through x at t, and that field carries the base to the data (Lipman et al. 2023, arXiv:2210.02747, theorems 1 and
    2). `flow.log_prob` is then the density of what was trained.

    The path is "linear", a = t and b = 1 - t (rectified flow: Liu et al. 2023, arXiv:2209.03003), or
    "variance-preserving", $a = \sin\frac{\pi t}{2}$ and $b = \cos\frac{\pi t}{2}$ (stochastic interpolants: Albergo and
    Vanden-Eijnden 2023, arXiv:2209.15571). The coupling is "independent", or "optimal": within the batch, noise is
    assigned to data so that the sum of squared distances is least (Tong et al. 2024, arXiv:2302.00482), whose paths
    cross less. Cost: one pass of the network; "optimal" an assignment of order $B^3$ on the CPU.

    Args:
        flow: A `ContinuousFlow`, or a flow that begins with a `ContinuousLayer` and goes on with other bijections, such
            as `Pixels` of one: what stands behind the layer maps the data and is not trained.
        path: "linear" or "variance-preserving".
        coupling: "independent" or "optimal"; the latter is not for flows with a context, since noise that was chosen by
            the data would tell something of it.

    Raises:
        ValueError: A flow without such a layer, an unknown path or coupling, "optimal" with a context.

    Example:
        >>> from flowlib import ContinuousFlow, FlowMatching
        >>> FlowMatching(ContinuousFlow(2))(torch.zeros(5, 2)).shape
        torch.Size([5])
    """

    def __init__(self, flow: Flow, *, path: str = "linear", coupling: str = "independent"):
        super().__init__()
        f = flow.bijection
        parts = list(f) if isinstance(f, Compose) else [f]
        if not isinstance(parts[0], ContinuousLayer):
            raise ValueError(f"flow matching trains a flow that begins with a ContinuousLayer, got {parts[0]!r}")
        if path not in PATHS:
            raise ValueError(f"path is one of {', '.join(map(repr, PATHS))}, got {path!r}")
        if coupling not in COUPLINGS:
            raise ValueError(f"coupling is one of {', '.join(map(repr, COUPLINGS))}, got {coupling!r}")
        if coupling == "optimal" and flow.context_shape is not None:
            raise ValueError('the optimal coupling makes noise depend on the context: use "independent"')
        self.flow: Any = flow
        self.path, self.coupling = path, coupling

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """The squared error of each sample, of shape (B,)."""
        layer, *others = list(self.flow.bijection) if isinstance(self.flow.bijection, Compose) else [
            self.flow.bijection]
        with torch.no_grad():
            for f in reversed(others):
                x = f.inverse(x, context)[0]
            layer.check(x, context, inverse=True)
            draws = (len(x), None) if context is None else (1, context.expand(len(x), -1))
            noise = self.flow.sample_latent(*draws).reshape(x.shape)
            if self.coupling == "optimal":
                noise = noise[assignment(noise, x)]
            a, b, da, db = PATHS[self.path](t := torch.rand(len(x), 1, dtype=x.dtype, device=x.device))
        velocity = layer.net(t, a * x + b * noise, context)  # pyright: ignore[reportCallIssue]
        return (velocity - (da * x + db * noise)).square().sum(-1)

    def initialize(self, x: Tensor, context: Tensor | None = None) -> None:
        """The flow's data-dependent start, of what stands behind the layer."""
        self.flow.initialize(x, context)


def assignment(noise: Tensor, x: Tensor) -> Tensor:
    """For each row of x (B, D) the row of noise (B, D) that is its own, of the least sum of squared distances."""
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(torch.cdist(x, noise).square().cpu().numpy())
    return torch.as_tensor(columns, device=x.device)
