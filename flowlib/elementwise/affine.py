"""Shifts and affine maps of one number: the maps of NICE, RealNVP and Jet."""
from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .base import ElementwiseMap

__all__ = ["Additive", "Affine", "SigmoidAffine"]


class Additive(ElementwiseMap):
    """$x = z + t$ with log-derivative 0: the map of NICE (Dinh et al. 2015, arXiv:1410.8516, section 3.2).

    Example:
        >>> Additive().forward(torch.tensor([1.0]), torch.tensor([[2.0]]))
        (tensor([3.]), tensor([0.]))
    """

    n_params = 1

    def forward(self, z: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        """x and 0, elementwise."""
        x = z + params.squeeze(-1)
        return x, torch.zeros_like(x)

    def inverse(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        """z and 0, elementwise."""
        z = x - params.squeeze(-1)
        return z, torch.zeros_like(z)


class Affine(ElementwiseMap):
    r"""$x = z\,e^{s} + t$ with log-derivative s: the map of RealNVP (Dinh et al. 2017, arXiv:1605.08803, equation 7).

    $s = a \tanh(\hat s / a)$ is bounded by $\pm a$ and symmetric, so that a layer can stretch and shrink alike but no
    weight, however large, overflows it. A coordinate that is stretched by $e^a$ again and again stays within float32
    for 88/a maps: 44 for a = 2, in a coupling flow 88 layers that move the two halves in turn. In a deeper one it may
    become infinite, which has the log-density -inf, not NaN.

    Args:
        bound: a.

    Raises:
        ValueError: A bound that is not positive.

    Example:
        >>> Affine().forward(torch.tensor([1.0]), torch.tensor([[0.0, 2.0]]))
        (tensor([3.]), tensor([0.]))
    """

    n_params = 2

    def __init__(self, bound: float = 2.0):
        if not bound > 0:
            raise ValueError(f"bound must be positive, got {bound}")
        self.bound = bound

    def forward(self, z: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        """x and s, elementwise; params hold the raw log-scale, then the shift."""
        raw, shift = params.unbind(-1)
        log_scale = self.bound * torch.tanh(raw / self.bound)
        return z * log_scale.exp() + shift, log_scale

    def inverse(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        """z and -s, elementwise."""
        raw, shift = params.unbind(-1)
        log_scale = -self.bound * torch.tanh(raw / self.bound)
        return (x - shift) * log_scale.exp(), log_scale


class SigmoidAffine(ElementwiseMap):
    r"""$z = (x + b) \cdot 2\sigma(s)$ to the latent: the map of Jet (Kolesnikov et al. 2024, arXiv:2412.15129).
    The factor lies in (0, 2), so that no layer stretches data by more than 2 on the way to the latent; from the
    latent it is divided by. The log-derivative there is $-\ln 2\sigma(s)$.

    Example:
        >>> SigmoidAffine().inverse(torch.tensor([1.0]), torch.tensor([[0.0, 2.0]]))  # s = 0: the factor is 1
        (tensor([3.]), tensor([0.]))
    """

    n_params = 2

    def forward(self, z: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        """x and $-\\ln 2\\sigma(s)$, elementwise; params hold s, then b."""
        raw, shift = params.unbind(-1)
        log_scale = -math.log(2) - F.logsigmoid(raw)
        return z * log_scale.exp() - shift, log_scale

    def inverse(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        """z and $\\ln 2\\sigma(s)$, elementwise."""
        raw, shift = params.unbind(-1)
        log_scale = math.log(2) + F.logsigmoid(raw)
        return (x + shift) * log_scale.exp(), log_scale
