"""Two models of integer data that need no flow: what every flow has to beat."""
from __future__ import annotations

import math

import torch
from torch import Tensor

from ..images.dequantize import bits_per_dim

__all__ = ["gaussian_bits", "histogram_bits"]


def histogram_bits(train: Tensor, x: Tensor, levels: int) -> float:
    """Bits per dimension of x under independent pixels: each pixel's histogram over the training images, with one count
    added to every level, or a level never seen would cost infinitely many bits. Exact: no dequantization."""
    dims = x[0].numel()
    place = levels * torch.arange(dims)  # row of each pixel in the table (D, L)
    counts = torch.bincount((train.flatten(1).long() + place).flatten(), minlength=levels * dims).double() + 1
    log_p = (counts / (len(train) + levels)).log()
    return bits_per_dim(log_p[x.flatten(1).long() + place].sum(1).mean().item(), dims)


def gaussian_bits(train: Tensor, x: Tensor) -> float:
    r"""Bits per dimension of x under the Gaussian with mean and covariance of the dequantized training images.

    Cells have volume 1, so the density of $x + u$ needs no Jacobian. Noise u of mean 1/2 and covariance I/12 is
    averaged in closed form: $E_u\,(x + u - \mu)^\top P (x + u - \mu) = (x + \frac12 - \mu)^\top P (x + \frac12 - \mu) +
    \operatorname{tr} P/12$. An upper bound, like that of a dequantized flow.
    """
    train, x = train.flatten(1).cpu().double(), x.flatten(1).cpu().double()
    dims = x.shape[1]
    eye = torch.eye(dims, dtype=x.dtype)
    factor = torch.linalg.cholesky(torch.cov(train.T, correction=0) + eye / 12)
    white = torch.linalg.solve_triangular(factor, (x - train.mean(0)).T, upper=False)  # (D, N); the two halves cancel
    quadratic = white.square().sum(0).mean() + torch.cholesky_inverse(factor).trace() / 12
    log_p = -0.5 * (quadratic + dims * math.log(2 * math.pi)) - factor.diagonal().log().sum()
    return bits_per_dim(log_p.item(), dims)
