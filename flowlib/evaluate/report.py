"""What the commands report beside the flow: bits per dimension, two baselines that need no flow, the round trip."""
from __future__ import annotations

import copy
import json
import math
from pathlib import Path

import torch
from torch import Tensor

from ..core import device_of
from ..images.dequantize import bits_per_dim
from ..saving import write_atomic

ROWS = 10_000  # rows over which the dequantization noise is averaged: more draws of few images, one of many


@torch.no_grad()
def flow_bits(flow, x: Tensor, draws: int | None = None, batch_size: int = 500) -> float:
    """Mean bits per dimension of images x (N, C, H, W) under a flow: an upper bound of the true value, since `log_prob`
    is a lower bound; averaged over several draws of the dequantization noise (20, or as many as `ROWS` allow)."""
    device = device_of(flow)
    draws = draws or min(20, max(1, ROWS // len(x)))
    parts = [part.to(device) for part in x.split(batch_size)] * draws
    total = sum(flow.log_prob(part).double().sum().item() for part in parts)
    return bits_per_dim(total / (draws * len(x)), x[0].numel())


@torch.no_grad()
def round_trip(flow, x: Tensor, dtype: torch.dtype, batch_size: int = 250) -> tuple[float, int, int]:
    """Images (N, C, H, W) encoded and decoded in one precision: the largest error of the dequantized pixels on the unit
    interval, the number of pixels that came back as another integer, and that of all. A pixel is wrong where its noise lay
    nearer than the error to the edge of its cell."""
    *layers, noise = copy.deepcopy(flow).to(dtype).bijection.bijections  # the last one, to the data, dequantizes
    error, wrong = 0.0, 0
    for part in x.split(batch_size):
        v = value = noise.inverse(part)[0]
        for f in reversed(layers):
            value = f.inverse(value)[0]
        for f in layers:
            value = f(value)[0]
        error = max(error, (value - v).abs().max().item())
        wrong += int((noise(value)[0] != part).sum())
    return error, wrong, x.numel()


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
    train, x = train.flatten(1).double(), x.flatten(1).double()
    dims = x.shape[1]
    eye = torch.eye(dims, dtype=x.dtype)
    factor = torch.linalg.cholesky(torch.cov(train.T, correction=0) + eye / 12)
    white = torch.linalg.solve_triangular(factor, (x - train.mean(0)).T, upper=False)  # (D, N); the two halves cancel
    quadratic = white.square().sum(0).mean() + torch.cholesky_inverse(factor).trace() / 12
    log_p = -0.5 * (quadratic + dims * math.log(2 * math.pi)) - factor.diagonal().log().sum()
    return bits_per_dim(log_p.item(), dims)


def write_metrics(path: Path, metrics: dict) -> None:
    """`metrics.json`, all or nothing."""
    write_atomic(path, (json.dumps(metrics, indent=1) + "\n").encode())
