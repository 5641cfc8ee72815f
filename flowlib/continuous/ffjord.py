"""FFJORD: a flow whose layers are the moments of a differential equation."""
from __future__ import annotations

from collections.abc import Sequence

from ..bases import StandardNormal
from ..core import Flow
from .layer import ContinuousLayer

__all__ = ["ContinuousFlow"]


class ContinuousFlow(Flow):
    r"""Continuous normalizing flow (Chen et al. 2018, arXiv:1806.07366; Grathwohl et al. 2019, arXiv:1810.01367): noise
    at time 0 carried along a velocity field to data at time 1 (`ContinuousLayer`). Train it by likelihood (`train.fit`)
    or without a solver (`FlowMatching`).

    $$\ln p(x) = \ln p_Z(z) - \int_0^1 \operatorname{tr}\frac{\partial v}{\partial x}\,dt$$

    Cost: density 4 `steps` passes of the network, and as many again for each of D dimensions (D > 8: once); sampling
    a search for each step (see `ContinuousLayer`) and a density.

    Args:
        dim: D.
        hidden: Widths of the network's hidden layers.
        steps: Of the Runge-Kutta solver.
        log_det: "exact", "trace" or "hutchinson" (`ContinuousLayer`); None is "exact" up to D = 8, "hutchinson" above.
        adjoint: Gradients of `log_prob` by the adjoint equation, in memory that does not grow with `steps`; with
            "trace" or "hutchinson".
        context_dim: Width of a context, or None.

    Raises:
        ValueError: As `ContinuousLayer`.
        InversionError: As `ContinuousLayer`.

    Example:
        >>> import torch; from flowlib import ContinuousFlow
        >>> flow = ContinuousFlow(2, steps=4); flow.log_prob(flow.sample(5)).shape
        torch.Size([5])
    """

    def __init__(self, dim: int, *, hidden: Sequence[int] = (64, 64), steps: int = 16, log_det: str | None = None,
                 adjoint: bool = False, context_dim: int | None = None):
        super().__init__(StandardNormal(dim), ContinuousLayer(dim, hidden=hidden, steps=steps, log_det=log_det,
                                                              adjoint=adjoint, context_dim=context_dim))
