"""An autoregressive flow across time: each frame of a sequence is moved by the frames before it, all of its numbers at
once. To the latent, it takes out of a sequence what could have been foreseen."""
from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..core import Bijection
from ..elementwise.affine import Affine
from ..elementwise.base import arrange, readable
from ..nets.mlp import MLP

__all__ = ["TemporalAffine"]


class TemporalAffine(Bijection):
    r"""$x_t = z_t \odot e^{s_t} + m_t$ with $s_t, m_t$ read from the L frames before $x_t$, over sequences (..., T, D)
    of any length T (Marino et al. 2020, arXiv:2010.03172).

    $\log|\det dx/dz| = \sum_{t,i} s_{t,i}$. To the latent it subtracts what could be foreseen and divides by the
    deviation that is left, so that z is whiter than x: with $x_t - x_{t-1}$ as its simplest case. The network also
    reads which of the L frames there are, and so can begin otherwise than it goes on. Cost: `inverse` (density) one
    pass of the network over all frames at once; `forward` (sampling) T passes over a frame each.

    Args:
        dim: D, numbers in a frame.
        lags: L, frames that the network sees.
        hidden: Widths of its hidden layers; with none, $s_t$ (within ±2) and $m_t$ are linear in the frames.
        context_dim: Width of a context (..., C) that is the same for all frames of a sequence, or None.

    Raises:
        ValueError: No numbers in a frame, or no frame to see.

    Example:
        >>> from flowlib import TemporalAffine
        >>> z, log_det = TemporalAffine(2).inverse(torch.ones(5, 30, 2)); z.shape, log_det.shape
        (torch.Size([5, 30, 2]), torch.Size([5]))
    """

    latent_ndim = event_ndim = 2

    def __init__(self, dim: int, *, lags: int = 1, hidden: Sequence[int] = (64, 64), context_dim: int | None = None):
        super().__init__()
        if dim < 1 or lags < 1:
            raise ValueError(f"TemporalAffine needs dim >= 1 and lags >= 1, got dim={dim}, lags={lags}")
        self.dim, self.lags, self.context_dim = dim, lags, context_dim
        self.map = Affine()
        self.net = MLP(lags * (dim + 1), 2 * dim, hidden, context_dim)

    def check(self, value: Tensor, context: Tensor | None = None, inverse: bool = False) -> None:
        super().check(value, context, inverse)
        if value.shape[-1] != self.dim:
            raise ValueError(f"TemporalAffine expected sequences of shape (..., T, {self.dim}), "
                             f"got {tuple(value.shape)}")

    def _params(self, past: Tensor, context: Tensor | None, count: int) -> Tensor:
        """For `count` frames after one another, from what was before each of them, the raw log-scales and the shifts.

        Args:
            past: The frames (..., L + count - 1, D + 1), of which each has a 1 beside its numbers, or is all zeros
                where there is no frame.

        Returns:
            (..., count, D, 2).
        """
        windows = torch.cat([past[..., k : k + count, :] for k in range(self.lags)], -1)
        context = None if context is None or self.context_shape is None else context[..., None, :]
        return arrange(self.net(readable(windows), context).to(past.dtype), 2, -1)

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        past = F.pad(F.pad(x, (0, 1), value=1.0), (0, 0, self.lags, 0))
        params = self._params(past, context, x.shape[-2])
        z, log_slope = self.map.inverse(x.expand(params.shape[:-1]), params)
        return z, log_slope.sum((-2, -1))

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if context is not None and self.context_shape is not None:  # which may bring batch axes
            z = z.expand(*torch.broadcast_shapes(z.shape[:-2], context.shape[:-1]), *z.shape[-2:])
        past = z.new_zeros(*z.shape[:-2], self.lags, self.dim + 1)
        frames, log_det = [z[..., :0, :]], z.new_zeros(z.shape[:-2])
        for t in range(z.shape[-2]):
            x, log_slope = self.map.forward(z[..., t : t + 1, :], self._params(past, context, 1))
            frames.append(x)
            log_det = log_det + log_slope.sum((-2, -1))
            past = torch.cat([past[..., 1:, :], F.pad(x, (0, 1), value=1.0)], -2)
        return torch.cat(frames, -2), log_det
