"""One scale a channel: set from data at the start (DiagonalScale, ActNorm), or by every batch (BatchNorm)."""
from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..core import Bijection

__all__ = ["ActNorm", "BatchNorm", "DiagonalScale"]


class _PerChannel(Bijection):
    """A layer with one number a coordinate of a vector (D,), or a channel of an event (C, ...) of any further axes."""

    event_shape: tuple[int, ...]

    def __init__(self, shape: int | tuple[int, ...]):
        super().__init__()
        shape = (shape,) if isinstance(shape, int) else tuple(shape)
        if not shape or min(shape) < 1:
            raise ValueError(f"{type(self).__name__} is for events of shape (C, ...), C first, got {shape}")
        self.latent_ndim = self.event_ndim = len(shape)
        self.latent_shape = self.event_shape = shape
        self.per_channel = (shape[0], *[1] * (len(shape) - 1))  # (D,), (C, 1, 1)
        self.positions = math.prod(shape[1:])  # H W, or 1

    def _rows(self, batch: Tensor) -> Tensor:
        """All values of each channel: (N, C)."""
        return batch.movedim(-self.event_ndim, -1).reshape(-1, self.event_shape[0])

    def _per_event(self, channels: Tensor, like: Tensor) -> Tensor:
        """The sum over all positions of one number a channel, for each event."""
        return (self.positions * channels.sum()).expand(like.shape[: like.ndim - self.event_ndim])


class DiagonalScale(_PerChannel):
    r"""$x_i = z_i e^{s_i}$ with $\log|\det| = \sum_i s_i$: the layer at the latent end of NICE (Dinh et al. 2015,
    arXiv:1410.8516, section 3.3). Without it a NICE model preserves volume and cannot fit data of another scale.

    `initialize` sets s so that the latents of the batch have the standard deviation `std` in every channel. Cost: O(D).

    Args:
        dim: D, or a shape (C, ...): one scale a channel.
        std: Standard deviation of the base.

    Raises:
        ValueError: A start from fewer than two values a channel, or from values that are not finite.

    Example:
        >>> from flowlib import DiagonalScale
        >>> DiagonalScale(2)(torch.ones(2))[0].tolist()
        [1.0, 1.0]
    """

    initialized: Tensor

    def __init__(self, dim: int | tuple[int, ...], *, std: float = 1.0):
        super().__init__(dim)
        self.std = std
        self.log_scale = nn.Parameter(torch.zeros(self.per_channel))
        self.register_buffer("initialized", torch.tensor(False))

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return z * self.log_scale.exp(), self._per_event(self.log_scale, z)

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return x * (-self.log_scale).exp(), -self._per_event(self.log_scale, x)

    @torch.no_grad()
    def initialize(self, batch: Tensor, context: Tensor | None = None, inverse: bool = True) -> Tensor:
        if not self.initialized:
            self.check(batch, context, inverse)
            rows = self._rows(batch)
            if len(rows) < 2 or not bool(rows.isfinite().all()):
                raise ValueError("a data-dependent start needs at least two values in each channel, all of them finite")
            log_ratio = (rows.std(0).clamp(min=1e-4) / self.std).log()  # finite for a constant channel, too
            self._start(rows.mean(0).reshape(self.per_channel), log_ratio.reshape(self.per_channel), inverse)
            self.initialized.fill_(True)
        return super().initialize(batch, context, inverse)

    def _start(self, mean: Tensor, log_ratio: Tensor, inverse: bool) -> None:
        """From mean and ln(deviation / std) of a batch at the data side (`inverse`) or the latent side."""
        self.log_scale.copy_(log_ratio if inverse else -log_ratio)


class ActNorm(DiagonalScale):
    r"""$x = z\,e^{s_c} + b_c$ per channel, with $\log|\det| = HW \sum_c s_c$ (Kingma and Dhariwal 2018,
    arXiv:1807.03039, section 3.1). `initialize` sets s and b so that the latents of its batch have mean 0 and variance
    1. Cost: O(D) both ways.

    Args:
        shape: (C, H, W) for images, (C, T) for sequences; (D,) or D for vectors.

    Raises:
        ValueError: A start from fewer than two values a channel, or from values that are not finite.

    Example:
        >>> from flowlib import ActNorm
        >>> layer = ActNorm(2); z = layer.initialize(torch.tensor([[0.0, 5.0], [4.0, 5.5]])); z.mean(0).tolist()
        [0.0, 0.0]
    """

    def __init__(self, shape: int | tuple[int, ...]):
        super().__init__(shape)
        self.shift = nn.Parameter(torch.zeros(self.per_channel))

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        x, log_det = super().forward(z)
        return x + self.shift, log_det

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return super().inverse(x - self.shift)

    def _start(self, mean, log_ratio, inverse):
        super()._start(mean, log_ratio, inverse)
        self.shift.copy_(mean if inverse else -mean * (-log_ratio).exp())


class BatchNorm(_PerChannel):
    r"""Batch normalisation as RealNVP has it (Dinh et al. 2017, arXiv:1605.08803, section 3.7 and appendix E): to the
    latent, $z = (x - \mu)/\sqrt{\sigma^2 + \epsilon}$ with $\log|\det dz/dx| = -\tfrac{HW}{2} \sum_c \ln(\sigma_c^2 +
    \epsilon)$.

    In training, `inverse` takes mean and variance of the batch, so a row's density depends on the other rows, and
    updates the running ones; `eval`, and `forward` (sampling) always, use the running ones. Cost: O(D) both ways.

    Args:
        shape: (C, H, W) for images, (C, T) for sequences; (D,) or D for vectors.
        momentum: Weight of a new batch in the running moments.
        eps: Added to the variance.

    Raises:
        ValueError: In training, a batch with only one value a channel, which has no variance.

    Example:
        >>> from flowlib import BatchNorm
        >>> BatchNorm(2).inverse(torch.tensor([[0.0, 1.0], [2.0, 3.0]]))[0].tolist()
        [[-0.9999949932098389, -0.9999949932098389], [0.9999949932098389, 0.9999949932098389]]
    """

    reads_batch = True  # in training a row's value depends on the others
    mean: Tensor
    var: Tensor

    def __init__(self, shape: int | tuple[int, ...], *, momentum: float = 0.1, eps: float = 1e-5):
        super().__init__(shape)
        self.momentum, self.eps = momentum, eps
        self.register_buffer("mean", torch.zeros(self.per_channel))
        self.register_buffer("var", torch.ones(self.per_channel))

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return z * (self.var + self.eps).sqrt() + self.mean, 0.5 * self._per_event((self.var + self.eps).log(), z)

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        mean, var = self.mean, self.var
        if self.training and x.numel():  # an empty batch has no moments
            rows = self._rows(x)
            if len(rows) < 2:
                raise ValueError("BatchNorm in training needs more than one value in each channel")
            mean, var = (m.reshape(self.per_channel) for m in (rows.mean(0), rows.var(0, correction=0)))
            with torch.no_grad():
                self.mean.lerp_(mean.detach(), self.momentum)
                self.var.lerp_(var.detach(), self.momentum)
        return (x - mean) * (var + self.eps).rsqrt(), -0.5 * self._per_event((var + self.eps).log(), x)
