"""What the command reports beside the flow: bits per dimension, two baselines that need no flow, and two pictures."""
from __future__ import annotations

import io
import json
import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..images.dequantize import bits_per_dim
from ..saving import write_atomic
from .batches import device_of
from .config import History

BLUE, ORANGE, GREY = "#1f6fb4", "#c2570c", "#5f5f5f"


@torch.no_grad()
def flow_bits(flow, x: Tensor, draws: int = 20, batch_size: int = 1000) -> float:
    """Mean bits per dimension of images x (N, C, H, W) under a flow: an upper bound of the true value, since `log_prob`
    is a lower bound; averaged over several draws of the dequantization noise."""
    device = device_of(flow)
    parts = [part.to(device) for part in x.split(batch_size)] * draws
    total = sum(flow.log_prob(part).double().sum().item() for part in parts)
    return bits_per_dim(total / (draws * len(x)), x[0].numel())


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


def sheet(images: Tensor, columns: int) -> np.ndarray:
    """Images (N, C, H, W) on one page of shape (rows (H + 2) - 2, columns (W + 2) - 2, C), with NaN between them."""
    n, c, h, w = images.shape
    page = np.full((math.ceil(n / columns) * (h + 2) - 2, columns * (w + 2) - 2, c), np.nan)
    for i, image in enumerate(images):
        row, column = divmod(i, columns)
        page[row * (h + 2) :, column * (w + 2) :][:h, :w] = image.permute(1, 2, 0)
    return page


def draw_samples(path: Path, real: Tensor, samples: Tensor, levels: int, titles: tuple[str, str], text: dict) -> None:
    """Real images beside samples, in one PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.2, 4.3), layout="constrained")
    figure.get_layout_engine().set(wspace=0.08)
    for axes, images, title in zip(figure.subplots(1, 2), (real, samples), titles):
        page = sheet(images, columns=10) / (levels - 1)
        page = np.nan_to_num(1 - page if page.shape[2] == 1 else page, nan=1.0)  # one channel: dark ink; gaps are white
        axes.imshow(page, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axes.set_title(title, fontsize=11)
        axes.set_axis_off()
    _save(figure, path, text)


def draw_losses(path: Path, history: History, dims: int, baselines: dict[str, float], text: dict) -> None:
    """Training and validation loss over the steps in bits per dimension, with the baselines, in one PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4), layout="constrained")
    axes = figure.subplots()
    loss = bits_per_dim(-np.array(history.loss), dims)
    axes.plot(np.arange(1, len(loss) + 1), loss, color=BLUE, alpha=0.35, linewidth=0.8, label="training, each batch")
    val_loss = bits_per_dim(-np.array(history.val_loss), dims)
    axes.plot(history.val_step, val_loss, color=BLUE, label="validation, averaged weights")
    for (name, value), style in zip(baselines.items(), (":", "--")):
        axes.axhline(value, color=ORANGE, linestyle=style, label=name)
    axes.axvline(history.best_step, color=GREY, linewidth=0.8, label=f"best validation (step {history.best_step})")
    low = min(loss.min(), *baselines.values())
    axes.set(xlabel="step", ylabel="bits per dimension", ylim=(low - 0.1, max(*baselines.values(), loss[0]) + 0.3))
    axes.legend(frameon=False, fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    _save(figure, path, text)


def _save(figure, path: Path, text: dict) -> None:
    """A PNG of a palette of 64 colours, a third of the size, which says in its header how it was made."""
    from PIL import Image, PngImagePlugin

    buffer, small, info = io.BytesIO(), io.BytesIO(), PngImagePlugin.PngInfo()
    figure.savefig(buffer, format="png", dpi=110)
    for key, value in text.items():
        info.add_text(key, value)
    image = Image.open(buffer).convert("RGB").quantize(64, dither=Image.Dither.NONE)
    image.save(small, format="png", optimize=True, pnginfo=info)
    write_atomic(path, small.getvalue())


def write_metrics(path: Path, metrics: dict) -> None:
    """`metrics.json`, all or nothing."""
    write_atomic(path, (json.dumps(metrics, indent=1) + "\n").encode())
