"""Normalisation as a flow layer: by data at the start (ActNorm), or by every batch (BatchNorm)."""
from __future__ import annotations

import torch
from torch import Tensor, nn

from ..core import Bijection

__all__ = ["ActNorm", "BatchNorm"]


class _PerChannel(Bijection):
    """A layer with one number per coordinate of a vector (D,), or per channel of an image (C, H, W)."""

    def __init__(self, shape: int | tuple[int, ...]):
        super().__init__()
        shape = (shape,) if isinstance(shape, int) else tuple(shape)
        if len(shape) not in (1, 3):
            raise ValueError(f"{type(self).__name__} is for vectors (D,) or images (C, H, W), got shape {shape}")
        self.latent_ndim = self.event_ndim = len(shape)
        self.latent_shape = self.event_shape = shape
        self.per_channel = (shape[0], *[1] * (len(shape) - 1))  # (D,) or (C, 1, 1)
        self.positions = torch.Size(shape[1:]).numel()  # H W, or 1

    def _rows(self, batch: Tensor) -> Tensor:
        """All values of each channel: (N, C)."""
        return batch.movedim(-self.event_ndim, -1).reshape(-1, self.event_shape[0])


class ActNorm(_PerChannel):
    r"""$x = z\,e^{s_c} + b_c$ per channel, with $\log|\det| = HW \sum_c s_c$ (Kingma and Dhariwal 2018, arXiv:1807.03039,
    section 3.1). `initialize` sets s and b so that the latents of its batch have mean 0 and variance 1. Cost: O(D) both ways.

    Args:
        shape: (C, H, W) for images; (D,) or D for vectors.

    Raises:
        ValueError: Another number of axes; a start from fewer than two values a channel.

    Example:
        >>> from flowlib import ActNorm
        >>> layer = ActNorm(2); z = layer.initialize(torch.tensor([[0.0, 5.0], [4.0, 5.5]])); z.mean(0).tolist()
        [0.0, 0.0]
    """

    def __init__(self, shape: int | tuple[int, ...]):
        super().__init__(shape)
        self.log_scale = nn.Parameter(torch.zeros(self.per_channel))
        self.shift = nn.Parameter(torch.zeros(self.per_channel))
        self.register_buffer("initialized", torch.tensor(False))

    def _log_det(self, like):
        return (self.positions * self.log_scale.sum()).expand(like.shape[: like.ndim - self.event_ndim])

    def forward(self, z, context=None):
        return z * self.log_scale.exp() + self.shift, self._log_det(z)

    def inverse(self, x, context=None):
        return (x - self.shift) * (-self.log_scale).exp(), -self._log_det(x)

    @torch.no_grad()
    def initialize(self, batch, context=None, inverse=True):
        if not self.initialized:
            rows = self._rows(batch)
            if len(rows) < 2:
                raise ValueError("a data-dependent start needs at least two values in each channel")
            mean = rows.mean(0).reshape(self.per_channel)
            log_std = rows.std(0).clamp(min=1e-4).log().reshape(self.per_channel)  # a constant channel has no scale
            self.log_scale.copy_(log_std if inverse else -log_std)
            self.shift.copy_(mean if inverse else -mean * (-log_std).exp())
            self.initialized.fill_(True)
        return super().initialize(batch, context, inverse)


class BatchNorm(_PerChannel):
    r"""Batch normalisation as RealNVP has it (Dinh et al. 2017, arXiv:1605.08803, section 3.7 and appendix E): to the latent,
    $z = (x - \mu)/\sqrt{\sigma^2 + \epsilon}$ with $\log|\det dz/dx| = -\tfrac{HW}{2} \sum_c \ln(\sigma_c^2 + \epsilon)$.

    In training, `inverse` takes mean and variance of the batch, so a row's density depends on the other rows, and updates
    the running ones; `eval`, and `forward` (sampling) always, use the running ones. Cost: O(D) both ways.

    Args:
        shape: (C, H, W) for images; (D,) or D for vectors.
        momentum: Weight of a new batch in the running moments.
        eps: Added to the variance.

    Example:
        >>> from flowlib import BatchNorm
        >>> BatchNorm(2).inverse(torch.tensor([[0.0, 1.0], [2.0, 3.0]]))[0].tolist()
        [[-0.9999949932098389, -0.9999949932098389], [0.9999949932098389, 0.9999949932098389]]
    """

    def __init__(self, shape: int | tuple[int, ...], *, momentum: float = 0.1, eps: float = 1e-5):
        super().__init__(shape)
        self.momentum, self.eps = momentum, eps
        self.register_buffer("mean", torch.zeros(self.per_channel))
        self.register_buffer("var", torch.ones(self.per_channel))

    def _log_det(self, var, like):
        log_det = -0.5 * self.positions * (var + self.eps).log().sum()
        return log_det.expand(like.shape[: like.ndim - self.event_ndim])

    def forward(self, z, context=None):
        return z * (self.var + self.eps).sqrt() + self.mean, -self._log_det(self.var, z)

    def inverse(self, x, context=None):
        mean, var = self.mean, self.var
        if self.training:
            rows = self._rows(x)
            mean, var = (m.reshape(self.per_channel) for m in (rows.mean(0), rows.var(0, correction=0)))
            with torch.no_grad():
                self.mean.lerp_(mean.detach(), self.momentum)
                self.var.lerp_(var.detach(), self.momentum)
        return (x - mean) * (var + self.eps).rsqrt(), self._log_det(var, x)
