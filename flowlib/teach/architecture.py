"""The architecture of a flow as a drawing, made from the object itself: from the latent at the top to the data at the
bottom, a row a layer."""
from __future__ import annotations

import html
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from ..core import Bijection, Compose, Flow, Inverse
from ..coupling.halves import Halves
from ..images.multiscale import MultiScale

if TYPE_CHECKING:
    from IPython.display import HTML

__all__ = ["architecture"]

WIDTH, ROW, GAP = 392, 34, 8  # of the drawing, a row, and between rows, in units of about a pixel
LEFT, STRIP, SHAPE, RIGHT = 34, 190, 256, 384  # where the names, the strips and the shapes start; where counts end
CELLS = 8  # of a strip, at most
MOVED, KEPT, INK, FAINT = "#d55e00", "#c3c8ce", "#1f2328", "#5f6670"


@dataclass(frozen=True)
class Layer:
    """A row: what the layer is called, the shape that it gives, which cells of the event it keeps, its parameters."""

    name: str
    shape: tuple[int, ...] | None
    kept: tuple[bool, ...] = ()  # empty where no part is kept as it is
    parameters: int = 0


@dataclass(frozen=True)
class Latent:
    """A row where latents come in: all of them at the top, or those of one scale."""

    name: str
    shape: tuple[int, ...] | None


@dataclass(frozen=True)
class Repeated:
    """Rows that stand `times` times, one after the other."""

    times: int
    layers: tuple[Layer, ...]


def _count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def _kept(layer: Halves) -> tuple[bool, ...]:
    """Which of the coordinates or channels a coupling keeps; of a checkerboard, which pixels of the first row."""
    if layer.cut is not None:
        mask = (torch.arange(layer.event_shape[layer.axis]) < layer.cut) ^ layer.swap
    else:
        mask = layer.kept.broadcast_to(layer.event_shape).cpu()
        if mask.ndim > 1:
            channels = mask[:, 0, 0]
            mask = mask[0, 0, :CELLS] if channels.all() or not channels.any() else channels
    shown = torch.linspace(0, len(mask) - 1, min(len(mask), CELLS)).round().long()
    return tuple(mask[shown].tolist())


def _layer(f: Bijection) -> Layer:
    name, inner = type(f).__name__, f
    while isinstance(inner, Inverse):
        inner = inner.bijection
        name = f"Inverse of {type(inner).__name__}"
    slot = getattr(inner, "elementwise", None)
    name += f" · {type(slot).__name__}" if slot is not None else ""
    return Layer(name, f.event_shape, _kept(inner) if isinstance(inner, Halves) else (), _count(f))


def _rows(f: Bijection) -> list[Layer | Latent]:
    """One row a layer, in the generative direction, without what only holds layers together."""
    if isinstance(f, Compose):
        return [row for part in f for row in _rows(part)]
    if isinstance(f, MultiScale):
        rows: list[Layer | Latent] = []
        for k in reversed(range(len(f.scales))):
            rows.append(Latent(f"latent of scale {k + 1}", f.latents[k]))
            if k + 1 < len(f.scales) and f.priors:
                rows.append(Layer("split prior", f.latents[k], parameters=_count(f.priors[k])))
            rows += _rows(f.scales[k])
        return rows
    return [_layer(f)]


def _folded(rows: list) -> list:
    """Neighbours that repeat with the least period, as one group: a b a b a b is (a b) three times."""
    folded, at = [], 0
    while at < len(rows):
        best = (1, 1)  # period, times
        for period in range(1, (len(rows) - at) // 2 + 1):
            one, times = rows[at : at + period], 1
            while rows[at + times * period : at + (times + 1) * period] == one:
                times += 1
            if times > 1 and times * period > math.prod(best):
                best = (period, times)
        period, times = best
        one = rows[at : at + period]
        folded += [Repeated(times, tuple(one))] if times > 1 else one
        at += period * times
    return folded


def _text(x: float, y: float, words: str, size: int = 13, anchor: str = "start", fill: str = INK) -> str:
    return (f'<text x="{x:g}" y="{y:g}" font-size="{size}" text-anchor="{anchor}" fill="{fill}">'
            f"{html.escape(words)}</text>")


def _shape(row: Layer | Latent) -> str:
    return "" if row.shape is None else "×".join(map(str, row.shape))


def _row(row: Layer | Latent, y: float) -> str:
    """One row, its upper edge at y."""
    middle = y + ROW / 2 + 4.5
    if isinstance(row, Latent):
        return (f'<path d="M{LEFT} {y + ROW / 2:g}h12m-5-4l5 4l-5 4" fill="none" stroke="{MOVED}" stroke-width="2"/>'
                + _text(LEFT + 22, middle, row.name, fill=MOVED) + _text(SHAPE, middle, _shape(row), 12, fill=MOVED))
    parts = [f'<rect x="{LEFT}" y="{y:g}" width="{RIGHT - LEFT + 4}" height="{ROW}" rx="4" fill="#f3f4f6"/>']
    name, _, slot = row.name.partition(" · ")
    parts += ([_text(LEFT + 8, y + 15, name), _text(LEFT + 8, y + 28, slot, 11, fill=FAINT)] if slot
              else [_text(LEFT + 8, middle, name)])
    for k, kept in enumerate(row.kept):
        side = 56 / len(row.kept)
        parts.append(f'<rect x="{STRIP + k * side:.3g}" y="{y + 11:g}" width="{side - 1:.3g}" height="12" '
                     f'fill="{KEPT if kept else MOVED}"/>')
    parts.append(_text(SHAPE, middle, _shape(row), 12))
    return "".join(parts) + _text(RIGHT, middle, f"{row.parameters:,}" if row.parameters else "–", 12, "end", FAINT)


def architecture(flow: Flow | Bijection) -> HTML:
    """Draw what a flow is made of: from the latent at the top to the data at the bottom, a row a layer, with the shape
    that it gives and its number of parameters. Layers that repeat are drawn once, with how often they stand. A strip
    shows which part of an event a coupling keeps (grey) and which it moves (orange): coordinates, channels, or the
    pixels of a row. In a multi-scale model an arrow shows where the latents of each scale come in.

    Args:
        flow: A `Flow`, or a bijection.

    Returns:
        An `IPython.display.HTML` to end a cell with: an SVG, the same in every run.

    Example:
        >>> from flowlib import RealNVP
        >>> architecture(RealNVP(2))
        <IPython.core.display.HTML object>
    """
    from IPython.display import HTML

    body = flow.bijection if isinstance(flow, Flow) else flow
    rows = _folded(_rows(body))
    if not isinstance(rows[0], Latent):
        rows.insert(0, Latent("latent z", body.latent_shape))
    parts = [_text(SHAPE, 14, "shape", 11, fill=FAINT), _text(RIGHT, 14, "parameters", 11, "end", FAINT)]
    y, words = 22.0, []
    for group in rows:
        layers = group.layers if isinstance(group, Repeated) else (group,)
        top = y
        for row in layers:
            parts.append(_row(row, y))
            y += ROW + GAP
        names = ", ".join(f"{row.name} {_shape(row)}".rstrip() for row in layers)
        if isinstance(group, Repeated):
            parts.append(f'<path d="M{LEFT - 4} {top:g}h-5v{y - GAP - top:g}h5" fill="none" stroke="{FAINT}"/>'
                         + _text(LEFT - 12, (top + y - GAP) / 2 + 4.5, f"{group.times}×", 12, "end"))
            names = f"{group.times} times ({names})"
        words.append(names)
    shape = _shape(Latent("x", body.event_shape))
    parts.append(_text(LEFT + 22, y + 14, "data x", fill="#0072b2") + _text(SHAPE, y + 14, shape, 12, fill="#0072b2")
                 + _text(RIGHT, y + 14, f"{_count(flow):,}", 12, "end", "#0072b2"))
    title = f"{type(flow).__name__}, from latent to data: {'; '.join(words)}; data {shape}"
    return HTML(f'<figure class="flow-figure architecture-figure">\n<svg role="img" aria-label="{html.escape(title)}" '
                f'viewBox="0 0 {WIDTH} {y + 22:g}" style="max-width: 38rem; width: 100%; background: #fff" '
                f'font-family="system-ui, sans-serif">{"".join(parts)}</svg>\n</figure>')
