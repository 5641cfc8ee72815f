"""The distribution function of a category, written over the unit interval: the exact head of an autoregressive model of
categories."""
from __future__ import annotations

import torch
from torch import Tensor

from .base import ElementwiseMap

__all__ = ["CategoricalCDF"]


class CategoricalCDF(ElementwiseMap):
    r"""The unit interval in K cells of equal length, one for each category: to the latent,

    $$z = \sum_{c<k} p_c + (Kx - k)\, p_k, \qquad k = \lfloor Kx \rfloor,\ p = \operatorname{softmax}(\theta),$$

    which is linear in each cell, with slope $K p_k$. So with a uniform base the density is $K p_k$ in all of cell k,
    and a label k that is dequantized uniformly, $x = (k + u)/K$, has the probability $p_k$ exactly, whatever u. Outside
    of [0, 1] it is the identity. Cost: O(K) both ways.

    Args:
        categories: K, which is also the number of parameters: a logit for each.

    Raises:
        ValueError: No category.

    Example:
        >>> logits = torch.tensor([[0.1, 0.2, 0.7]]).log()
        >>> CategoricalCDF(3).inverse(torch.tensor([2.5 / 3]), logits)  # in the middle of the third cell; ln (3 x 0.7)
        (tensor([0.6500]), tensor([0.7419]))
    """

    def __init__(self, categories: int):
        if categories < 1:
            raise ValueError(f"a categorical distribution needs a category, got {categories}")
        self.categories = self.n_params = categories

    def _cells(self, params):
        """ln p, and where each cell begins in the latent: (..., K) both."""
        log_p = params.log_softmax(-1)
        p = log_p.exp()
        return log_p, p.cumsum(-1) - p

    def _read(self, values, k):
        return values.gather(-1, k[..., None]).squeeze(-1)

    def inverse(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        """z and ln dz/dx, elementwise."""
        log_p, start = self._cells(params)
        inside = (x >= 0) & (x <= 1)
        position = torch.where(inside, x, 0.5) * self.categories
        k = position.detach().long().clamp(max=self.categories - 1)
        log_p, start = self._read(log_p, k), self._read(start, k)
        log_slope = log_p + torch.as_tensor(self.categories, dtype=x.dtype).log()
        return torch.where(inside, start + (position - k) * log_p.exp(), x), torch.where(inside, log_slope, 0.0)

    def forward(self, z: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        """x and ln dx/dz, elementwise."""
        log_p, start = self._cells(params)
        inside = (z >= 0) & (z <= 1)
        place = torch.where(inside, z, 0.5)
        k = (place[..., None] >= start[..., 1:]).sum(-1)
        log_p, start = self._read(log_p, k), self._read(start, k)
        share = ((place - start) * (-log_p).exp()).clamp(0.0, 1.0)  # of the cell
        log_slope = log_p + torch.as_tensor(self.categories, dtype=z.dtype).log()
        return torch.where(inside, (k + share) / self.categories, z), torch.where(inside, -log_slope, 0.0)
