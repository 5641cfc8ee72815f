"""The invertible 1x1 convolution: a learned mixing of channels, the same at every pixel."""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core import Bijection
from ..numerics import full_precision, tame, wide

__all__ = ["InvertibleConv1x1"]


class InvertibleConv1x1(Bijection):
    r"""$z = W x$ at every pixel, with $W = P L (U + \operatorname{diag}(\sigma e^{s}))$ (Kingma and Dhariwal 2018,
    arXiv:1807.03039, section 3.2, equation 11): $\log|\det dz/dx| = HW \sum_c s_c$.

    P (a permutation) and $\sigma$ (signs) come from the LU factors of a random rotation and stay fixed, as buffers; L,
    U and s are trained. W is invertible for every value of them. It is built and solved with in float32 or better, and
    applied in the parameters' own precision, whatever autocast says. Cost: `inverse` (density) O(C^2) a pixel and
    O(C^3) for W; `forward` (sampling) two triangular solves of size C more.

    Args:
        shape: (C, H, W).

    Example:
        >>> from flowlib import InvertibleConv1x1
        >>> layer = InvertibleConv1x1((4, 8, 8)); layer(torch.zeros(2, 4, 8, 8))[1].shape
        torch.Size([2])
    """

    latent_ndim = event_ndim = 3

    def __init__(self, shape: tuple[int, int, int]):
        super().__init__()
        c, h, w = self.latent_shape = self.event_shape = tuple(shape)
        self.positions = h * w
        rotation = torch.linalg.qr(torch.randn(c, c)).Q
        p, lower, upper = torch.linalg.lu(rotation)
        diagonal = upper.diagonal()
        self.register_buffer("order", p.argmax(1))  # row i of P L is row order[i] of L
        self.register_buffer("signs", diagonal.sign())
        self.lower = nn.Parameter(lower.tril(-1))
        self.upper = nn.Parameter(upper.triu(1))
        self.log_s = nn.Parameter(diagonal.abs().log())

    def _factors(self) -> tuple[Tensor, Tensor]:
        """L and U + diag, (C, C), in float32 at least."""
        eye = torch.eye(len(self.log_s), dtype=self.log_s.dtype, device=self.log_s.device)
        return wide(self.lower.tril(-1) + eye), wide(self.upper.triu(1) + (self.signs * self.log_s.exp()).diag())

    @staticmethod
    def _mix(matrix, value):
        """The product at every pixel: one matrix product where channels are last in memory, as they then are in the
        result."""
        return F.linear(tame(value).movedim(-3, -1), matrix.to(value.dtype)).movedim(-1, -3)

    def _log_det(self, like):
        return (self.positions * self.log_s.sum()).expand(like.shape[:-3])

    def forward(self, z, context=None):
        with full_precision(z):
            lower, upper = self._factors()
            # W^-1 = (U + diag)^-1 L^-1 P^T
            eye = torch.eye(len(lower), dtype=lower.dtype, device=lower.device)
            half = torch.linalg.solve_triangular(lower, eye[self.order].T, upper=False, unitriangular=True)
            return self._mix(torch.linalg.solve_triangular(upper, half, upper=True), z), -self._log_det(z)

    def inverse(self, x, context=None):
        with full_precision(x):
            lower, upper = self._factors()
            return self._mix((lower @ upper)[self.order], x), self._log_det(x)
