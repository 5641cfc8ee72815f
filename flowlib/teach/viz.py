"""Figures: the one style of the book, four ways to draw a density or a map, and interactive figures without a server.

Two kinds of interactive figure, both one HTML output that works in Jupyter, in Colab and on a static page opened from
disk, by mouse, touch and keyboard, without any network: `frames` turns over pictures drawn beforehand by matplotlib,
`demo` runs one of the small scripts in `flowlib/teach/demos/`, which draw SVG. Both are the same text whenever the same
cell runs again.
"""
from __future__ import annotations

import base64
import html
import io
import json
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .architecture import architecture

if TYPE_CHECKING:
    from IPython.display import HTML
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage
    from matplotlib.lines import Line2D
    from matplotlib.patches import StepPatch

__all__ = ["COLOURS", "DATA", "LATENT", "MAP", "architecture", "demo", "frames", "plot_density", "plot_density_2d",
           "plot_grid", "plot_samples", "use_style"]

# The colours of Okabe and Ito, which colour-blind readers tell apart. The first three mean the same in every figure.
DATA, LATENT, MAP = "#0072b2", "#d55e00", "#5f6670"
COLOURS = (DATA, LATENT, "#009e73", "#cc79a7", "#e69f00", "#56b4e9", MAP)

STYLE = {
    "figure.figsize": (5.6, 3.0), "figure.dpi": 130, "figure.constrained_layout.use": True,
    "figure.facecolor": "white", "axes.facecolor": "white", "savefig.facecolor": "white",
    "font.family": "DejaVu Sans", "font.size": 10, "axes.titlesize": 11, "legend.frameon": False,
    "axes.spines.top": False, "axes.spines.right": False, "lines.linewidth": 2, "image.cmap": "viridis",
}

CSS = """\
.flow-figure { margin: 0; padding: 0.75rem; border-radius: 0.4rem; background: #fff; color: #1f2328; \
color-scheme: light;
  font: 15px/1.45 system-ui, sans-serif; }
.flow-figure > * { max-width: 38rem; margin-left: auto !important; margin-right: auto !important; }
.flow-figure img, .flow-figure svg { display: block; width: 100%; height: auto; }
.flow-figure div { display: grid; grid-template-columns: auto 1fr 3.5rem; gap: 0.4rem 0.75rem; align-items: center;
  margin: 0.5rem 0; }
.flow-figure div select { grid-column: 2 / span 2; }
.flow-figure input, .flow-figure select { width: 100%; min-width: 0; min-height: 28px; margin: 0; font: inherit; }
.flow-figure output { text-align: right; font-variant-numeric: tabular-nums; }
.flow-figure svg { touch-action: pan-y; user-select: none; }
.flow-figure p { margin: 0.5rem 0 0; color: inherit; font-variant-numeric: tabular-nums; }"""


def use_style() -> None:
    """Set matplotlib to the book's style: white ground, colours for colour-blind readers, sizes readable on a phone.

    Raises:
        ImportError: matplotlib is not installed.

    Example:
        >>> from flowlib import viz
        >>> viz.use_style()
    """
    import matplotlib
    from cycler import cycler

    settings: dict[Any, Any] = {**STYLE, "axes.prop_cycle": cycler(color=COLOURS)}
    matplotlib.rcParams.update(settings)


# --- densities and maps -----------------------------------------------------------------------------------------------


def _like(density) -> dict:
    """dtype and device of a flow's tensors, so that the grid of a plot fits it."""
    tensors = (*density.parameters(), *density.buffers()) if isinstance(density, torch.nn.Module) else ()
    first = next((t for t in tensors if t.is_floating_point()), torch.empty(0))
    return {"dtype": first.dtype, "device": first.device}


@torch.no_grad()
def _evaluate(density, points: Tensor) -> Tensor:
    """Density at points (..., D): of a flow, a torch distribution, or a function of numbers (D = 1) or of points."""
    if hasattr(density, "log_prob"):
        return density.log_prob(points if density.event_shape else points[..., 0]).exp().cpu()
    return density(points[..., 0] if points.shape[-1] == 1 else points).cpu()


def plot_density(ax: Axes, density: Any, low: float, high: float, n: int = 501, fill: bool = True, **style) -> Line2D:
    """Draw a one-dimensional density as a curve over its light area.

    Args:
        ax: Matplotlib axes.
        density: A `Flow` over events of shape (1,), a torch distribution of numbers, or a function of a tensor (n,).
        low, high: Ends of the interval.
        n: Number of points.
        fill: Whether to tint the area below.
        style: For `ax.plot`, such as `color` and `label`.

    Example:
        >>> import matplotlib.pyplot as plt
        >>> normal = torch.distributions.Normal(0.0, 1.0)
        >>> line = plot_density(plt.figure().add_subplot(), normal, -4, 4, label="Gaussian")
    """
    x = torch.linspace(low, high, n, **_like(density))
    p, x = _evaluate(density, x[:, None]).numpy(), x.cpu().numpy()
    (line,) = ax.plot(x, p, **style)
    if fill:
        ax.fill_between(x, p, color=line.get_color(), alpha=0.18, linewidth=0)
    return line


def plot_samples(ax: Axes, samples: Tensor, bins: int = 50, range: tuple[float, float] | None = None,
                 **style) -> StepPatch:
    """Draw samples, of any shape, as a histogram whose total area is one: what a density is compared with.

    With `range`, the area is the share of the samples inside, so the bars still estimate the density of all.

    Example:
        >>> import matplotlib.pyplot as plt
        >>> bars = plot_samples(plt.figure().add_subplot(), torch.randn(1000), range=(-4, 4), color=DATA)
    """
    import numpy as np

    x = samples.detach().flatten().cpu().double().numpy()
    counts, edges = np.histogram(x, bins=bins, range=range)
    heights = counts / (len(x) * np.diff(edges))
    return ax.stairs(heights, edges, **{"fill": True, "alpha": 0.35, "linewidth": 0, **style})


def plot_density_2d(ax: Axes, density: Any, low: float, high: float, n: int = 200, **style) -> AxesImage:
    """Draw a two-dimensional density as an image on the square from `low` to `high`; `style` goes to `ax.imshow`.

    Example:
        >>> import flowlib, matplotlib.pyplot as plt
        >>> image = plot_density_2d(plt.figure().add_subplot(), flowlib.RealNVP(2), -4, 4, n=50)
    """
    side = torch.linspace(low, high, n, **_like(density))
    points = torch.stack(torch.meshgrid(side, side, indexing="xy"), -1)  # (n, n, 2), x along the columns
    image = _evaluate(density, points.reshape(-1, 2)).reshape(n, n).numpy()
    ax.set_aspect("equal")
    return ax.imshow(image, origin="lower", extent=(low, high, low, high), **style)


@torch.no_grad()
def plot_grid(ax: Axes, f: Callable[[Tensor], Tensor], low: float, high: float, lines: int = 21, n: int = 200,
              **style) -> None:
    """Draw the image of a square grid under f, a map of points (n, 2): cells of equal area become large and small ones.

    Verticals have the colour of the first axis, horizontals of the second, unless `style` says otherwise.

    Example:
        >>> import matplotlib.pyplot as plt
        >>> plot_grid(plt.figure().add_subplot(), lambda z: z + 0.3 * z.flip(-1).sin(), -2, 2)
    """
    fine = torch.linspace(low, high, n)
    for place in torch.linspace(low, high, lines):
        for axis, colour in ((0, DATA), (1, LATENT)):
            line = torch.stack((place.expand(n), fine) if axis == 0 else (fine, place.expand(n)), -1)
            ax.plot(*f(line).cpu().T.numpy(), **{"color": colour, "linewidth": 0.8, **style})
    ax.set_aspect("equal")


# --- interactive figures ----------------------------------------------------------------------------------------------


def _json(value) -> str:
    """JSON that may stand inside a script element."""
    return json.dumps(value, ensure_ascii=False).replace("</", "<\\/")


def _slider(key: str, label: str, last: str, extra: str) -> str:
    """A labelled slider and what it shows at the moment."""
    return (f'<label for="{key}">{html.escape(label)}</label><input type="range" id="{key}" {extra}>'
            f'<output for="{key}">{html.escape(last)}</output>')


def _figure(key: str, picture: str, controls: str, script: str, rest: str = "") -> HTML:
    from IPython.display import HTML

    return HTML(f'<figure class="flow-figure" id="{key}">\n<style>\n{CSS}\n</style>\n{picture}\n'
                f"<div>{controls}</div>\n{rest}<script>\n{script}\n</script>\n</figure>")


def _key(*parts) -> str:
    """An id that is the same in every run and differs between the figures of a page. It must not depend on pixels."""
    return f"flow-{zlib.crc32(repr(parts).encode()):08x}"


def _png(figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=STYLE["figure.dpi"], metadata={"Software": None})
    return base64.b64encode(buffer.getvalue()).decode()


def frames(draw: Callable, values: Sequence, *, label: str, alt: str | Callable, start: int = 0,
           show: str | Callable = "{}") -> HTML:
    """A figure with a slider that turns over pictures drawn beforehand, one for each value.

    Args:
        draw: Takes a value and returns a matplotlib figure; all figures must have one size.
        values: Anything that `draw` takes, some 5 to 20 of them (each is a PNG in the page).
        label: Name of the slider.
        alt: The alternative text of a picture: a function of the value, or a format string such as "scale {}".
        start: Index of the first value shown.
        show: How a value is written beside the slider: a function or a format string.

    Returns:
        An `IPython.display.HTML` to end a cell with.

    Raises:
        ValueError: No values, or a start that is none of them.

    Example:
        >>> import matplotlib.pyplot as plt
        >>> def draw(slope):
        ...     figure, ax = plt.subplots()
        ...     ax.plot([0, 1], [0, slope])
        ...     return figure
        >>> frames(draw, [0.5, 1.0, 2.0], label="slope", alt="A line of slope {}")
        <IPython.core.display.HTML object>
    """
    import matplotlib.pyplot as plt

    values = list(values)
    if not values or not 0 <= start < len(values):
        raise ValueError(f"frames needs values and a start among them, got {len(values)} values and start={start}")
    shown, texts = ([(form.format if isinstance(form, str) else form)(v) for v in values] for form in (show, alt))
    pictures = []
    for value in values:
        figure = draw(value)
        pictures.append(_png(figure))
        plt.close(figure)
    key = _key(label, shown, texts)
    slider = _slider(f"{key}-slider", label, shown[start], f'min="0" max="{len(values) - 1}" step="1" value="{start}" '
                     f'aria-valuetext="{html.escape(shown[start])}"')
    script = f"""(() => {{
  const root = document.getElementById("{key}");
  const [image, slider, output] = ["img", "input", "output"].map(tag => root.querySelector(tag));
  const shown = {_json(shown)}, texts = {_json(texts)};
  const pictures = {_json(pictures)};
  slider.addEventListener("input", () => {{
    const i = Number(slider.value);
    image.src = "data:image/png;base64," + pictures[i];
    image.alt = texts[i];
    output.textContent = shown[i];
    slider.setAttribute("aria-valuetext", shown[i]);
  }});
}})();"""
    picture = f'<img class="dark-light" alt="{html.escape(texts[start])}" '\
              f'src="data:image/png;base64,{pictures[start]}">'
    return _figure(key, picture, slider, script)


def demo(name: str, *, alt: str, controls: dict, data: dict | None = None, size: tuple[int, int] = (400, 380)) -> HTML:
    """A figure drawn in the browser by `flowlib/teach/demos/<name>.js`, again at every movement of its controls.

    The script is a function `(pen, values, data) => sentence`: it draws with the pen (see `pen.js` beside it) what the
    controls' values say, and returns a sentence, which becomes the text below the picture and its alternative text.

    Args:
        name: Name of the script.
        alt: What is to be seen, for readers of a page where scripts do not run.
        controls: By label, a list of words (a menu) or a tuple (low, high, step, start) (a slider). The script reads
            their values under the same labels.
        data: Anything that JSON can write, for the script. Round computed numbers: outputs are compared as text.
        size: Width and height of the drawing, in its own units; a unit is at most a pixel and a half.

    Returns:
        An `IPython.display.HTML` to end a cell with.

    Raises:
        ValueError: There is no such demo.

    Example:
        >>> demo("push_forward", alt="A density and its push-forward.", controls={
        ...     "base": ["standard Gaussian"], "map": ["x = exp(a·z)"],
        ...     "steepness a": (0.1, 2, 0.1, 1), "strip at z": (-3, 2.8, 0.1, 0)})
        <IPython.core.display.HTML object>
    """
    folder = Path(__file__).parent / "demos"
    known = sorted(path.stem for path in folder.glob("*.js") if path.stem != "pen")
    if name not in known:
        raise ValueError(f"no demo {name!r}; there are: {', '.join(known)}")
    key = _key(name, controls, data)
    parts = []
    for place, (word, control) in enumerate(controls.items()):
        one, named = f"{key}-{place}", f'name="{html.escape(word)}"'
        if isinstance(control, tuple):
            low, high, step, first = (f"{number:g}" for number in control)
            parts.append(_slider(one, word, first, f'{named} min="{low}" max="{high}" step="{step}" value="{first}"'))
        else:
            options = "".join(f"<option>{html.escape(option)}</option>" for option in control)
            parts.append(f'<label for="{one}">{html.escape(word)}</label><select id="{one}" {named}>{options}</select>')
    pen, script = ((folder / f"{stem}.js").read_text(encoding="utf-8").strip() for stem in ("pen", name))
    picture = f'<svg role="img" aria-label="{html.escape(alt)}" viewBox="0 0 {size[0]} {size[1]}"></svg>'
    text = f'<p aria-live="polite">{html.escape(alt)}</p>\n'
    call = f'flowDemo("{key}", {_json(data or {})},\n{script}\n);'
    return _figure(key, picture, "\n".join(parts), f"(() => {{\n{pen}\n{call}\n}})();", text)
