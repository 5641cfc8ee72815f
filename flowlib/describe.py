"""What a flow says of itself: the call that makes each part, and a table of all parts."""
from __future__ import annotations

import inspect
import re
import textwrap

from torch import Tensor, nn

__all__ = ["summary"]

WIDTH = 100  # of one line of a `repr`
LINES = ",\n"


def recorded(made: object) -> tuple[tuple, dict]:
    """The arguments that an object was made with, less what is said by default; none while it is being made."""
    args, kwargs = vars(made).get("_call", ((), {}))
    defaults = {name: p.default for name, p in inspect.signature(type(made).__init__).parameters.items()}
    return args, {key: value for key, value in kwargs.items()
                  if isinstance(value, Tensor) or value != defaults.get(key)}


def call_text(name: str, args: tuple = (), kwargs: dict | None = None) -> str:
    """A call as it is written, `Coupling(4, Affine(bound=2.0), swap=True)`; one argument a line where it is long."""
    parts = [*map(_text, args), *(f"{key}={_text(value)}" for key, value in (kwargs or {}).items())]
    line = f"{name}({', '.join(parts)})"
    if len(line) <= WIDTH and "\n" not in line:
        return line
    return f"{name}(\n{textwrap.indent(LINES.join(parts), '  ')}\n)"


def _text(value) -> str:
    if isinstance(value, Tensor):
        short = value.numel() <= 4 and not value.is_meta
        return f"tensor({value.tolist()})" if short else f"tensor of {tuple(value.shape)}"
    if isinstance(value, (tuple, list)):
        return f"({', '.join(map(_text, value))}{',' if len(value) == 1 else ''})"
    return getattr(value, "__qualname__", None) or repr(value)


def summary(flow: nn.Module) -> str:
    r"""A flow's layers from latent to data, with the shapes on both sides, the number of parameters, and what the two
    directions of each kind of layer cost.

    Args:
        flow: A `Flow`, or a bijection.

    Returns:
        Text of several lines, for `print`.

    Example:
        >>> from flowlib import RealNVP
        >>> print(summary(RealNVP(2, layers=2, hidden=(8,))))
        RealNVP(2, layers=2, hidden=(8,))
        <BLANKLINE>
        layer           latent  data  parameters
        StandardNormal          (2,)           0
        Compose         (2,)    (2,)          68
          Coupling      (2,)    (2,)          34
          Coupling      (2,)    (2,)          34
        <BLANKLINE>
        Coupling: one pass of the network, both ways.
    """
    base = getattr(flow, "base", None)
    top = flow if base is None else getattr(flow, "bijection", flow)
    rows = [("layer", "latent", "data", "parameters")]
    if base is not None and top is not flow:
        rows.append((type(base).__name__, "", str(tuple(base.event_shape)), f"{_count(base):,}"))
    costs: dict[str, str] = {}
    _collect(top, 0, rows, costs)
    widths = [max(len(row[k]) for row in rows) for k in range(4)]
    table = ["  ".join([*(cell.ljust(w) for cell, w in zip(row[:3], widths)), row[3].rjust(widths[3])]) for row in rows]
    notes = [textwrap.fill(f"{name}: {cost}", WIDTH, subsequent_indent="    ") for name, cost in costs.items()]
    head = repr(flow)
    return "\n".join([type(flow).__name__ if "\n" in head else head, "", *table, "", *notes])


def _count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def _collect(layer, depth, rows, costs):
    """A row of the table for a layer and, below it, one for each of its parts."""
    shapes = (str(shape) if shape is not None else "any" for shape in (layer.latent_shape, layer.event_shape))
    rows.append(("  " * depth + type(layer).__name__, *shapes, f"{_count(layer):,}"))
    parts = [*getattr(layer, "bijections", getattr(layer, "scales", ()))]
    for part in parts:
        _collect(part, depth + 1, rows, costs)
    stated = re.search(r"Cost[^:]*: (.*?)(?=\n\n|$)", inspect.getdoc(type(layer)) or "", re.S)
    if not parts and stated:
        costs[type(layer).__name__] = " ".join(stated[1].split())
