"""The command's pictures, each one PNG that is written all or nothing: samples, losses, and a sheet on the way."""
from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..arguments import device_of
from ..atomic import write_atomic
from ..core import Flow
from ..evaluate import latents
from ..images.dequantize import bits_per_dim
from ..images.multiscale import MultiScale
from .config import History

BLUE, ORANGE, GREY = "#1f6fb4", "#c2570c", "#5f5f5f"
DPI = 110


def sheet(images: Tensor, columns: int) -> np.ndarray:
    """Images (N, C, H, W) on one page of shape (rows (H + 2) - 2, columns (W + 2) - 2, C), with NaN between them."""
    n, c, h, w = images.shape
    page = np.full((math.ceil(n / columns) * (h + 2) - 2, columns * (w + 2) - 2, c), np.nan)
    for i, image in enumerate(images):
        row, column = divmod(i, columns)
        page[row * (h + 2) :, column * (w + 2) :][:h, :w] = image.permute(1, 2, 0)
    return page


def _shades(page: np.ndarray) -> np.ndarray:
    """A page of numbers in [0, 1] as they are drawn: one channel as dark ink, white between the images."""
    return np.nan_to_num(1 - page if page.shape[2] == 1 else page, nan=1.0)


def draw_samples(path: Path, real: Tensor, samples: Tensor, levels: int, titles: tuple[str, str], text: dict) -> None:
    """Real images beside samples, in one PNG."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    pages = [_shades(sheet(images, columns=10) / (levels - 1)) for images in (real, samples)]
    height, width = np.max([page.shape[:2] for page in pages], axis=0)
    each = max(4.1, width / DPI)  # inches: at least one dot a pixel
    figure = Figure(figsize=(2 * each, each * height / width + 0.2), layout=ConstrainedLayoutEngine(wspace=0.08))
    for axes, page, title in zip(figure.subplots(1, 2), pages, titles):
        axes.imshow(page, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axes.set_title(title, fontsize=11)
        axes.set_axis_off()
    _save(figure, path, text)


@torch.no_grad()
def draw_step(path: Path, flow: Flow, x: Tensor, levels: int, step: int, text: dict) -> None:
    """A sheet on the way, pixel for pixel and fast: samples, and below them ten images x as they are, encoded and
    decoded, and, where the flow has scales, with the centre of the finest latents in place of their own: what the
    coarser ones know."""
    from PIL import Image, ImageDraw

    z = flow.encode(x.to(device_of(flow)))
    back = flow.decode(z).cpu()
    blocks = {f"samples after {step:,} steps": flow.sample(30).cpu(), "images": x,
              f"encoded and decoded: {(back == x).double().mean():.2%} of the pixels exact": back}
    if any(isinstance(m, MultiScale) for m in flow.modules()):
        blocks["without the finest latents"] = flow.decode(latents.resample(flow, z, 0, temperature=0.0)).cpu()
    pages = [_shades(sheet(images, columns=10) / (levels - 1)) for images in blocks.values()]
    zoom = max(1, round(560 / pages[0].shape[1]))
    pages = [np.broadcast_to((255 * page).round().astype(np.uint8), (*page.shape[:2], 3)) for page in pages]
    pages = [page.repeat(zoom, 0).repeat(zoom, 1) for page in pages]
    pages = [np.pad(page, ((20, 4), (4, 4), (0, 0)), constant_values=255) for page in pages]
    image = Image.fromarray(np.concatenate(pages))
    starts = np.cumsum([0] + [len(page) for page in pages])
    for caption, top in zip(blocks, starts):
        ImageDraw.Draw(image).text((4, int(top) + 5), caption, fill="black")
    path.parent.mkdir(exist_ok=True)
    _write(image, path, text)


def draw_losses(path: Path, history: History, dims: int, baselines: dict[str, float], text: dict) -> None:
    """Training and validation loss over the steps in bits per dimension, with the baselines, in one PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4), layout="constrained")
    axes = figure.subplots()
    loss, val_loss = (bits_per_dim(-torch.tensor(nats, dtype=torch.float64), dims).numpy()
                      for nats in (history.loss, history.val_loss))
    axes.plot(np.arange(1, len(loss) + 1), loss, color=BLUE, alpha=0.35, linewidth=0.8, label="training, each batch")
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
    """A figure as a PNG of a palette of 64 colours, a third of the size."""
    from PIL import Image

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    _write(Image.open(buffer).convert("RGB").quantize(64, dither=Image.Dither.NONE), path, text)


def _write(image, path: Path, text: dict) -> None:
    """All or nothing, with words in the header that say how it was made."""
    from PIL import PngImagePlugin

    buffer, info = io.BytesIO(), PngImagePlugin.PngInfo()
    for key, value in text.items():
        info.add_text(key, value)
    image.save(buffer, format="png", optimize=True, pnginfo=info)
    write_atomic(path, buffer.getvalue())
