"""Draw how the package hangs together, from its own imports, and hold it to one direction.

    python book/tools/architecture.py flowlib book/architecture.md

Modules are read as text, never imported. Each belongs to a floor; it may import from its own floor or from one below.
On the floor of models there is one rule more: a model never imports a model.
"""
from __future__ import annotations

import ast
import sys
from collections import defaultdict
from pathlib import Path

from setup_cell import address

# The floors from the ground up: what a folder or a module stands on is further up in this list.
FLOORS = {
    "The ground": ("atomic", "seeds", "arguments", "describe", "likeness", "saving", "distribution"),
    "The contract": ("core", "numerics", "bases", "reversible", "checks", "maps", "adapters", "recipes", "command"),
    "Maps of one number, networks": ("elementwise", "nets"),
    "Layers": ("finite", "coupling", "autoregressive", "residual", "gaussianization", "discrete", "continuous",
               "images"),
    "Models": ("coupling.nice", "coupling.realnvp", "coupling.nsf", "coupling.glow", "coupling.flowpp",
               "coupling.jet", "autoregressive.tarflow", "autoregressive.maf", "autoregressive.iaf",
               "autoregressive.naf", "autoregressive.bernoulli", "autoregressive.state_space",
               "residual.iresnet", "residual.mintnet", "gaussianization.copula",
               "gaussianization.flow", "gaussianization.rbig", "discrete.categorical", "discrete.autoregressive",
               "continuous.ffjord", "images.pixels", "vae", "policies"),
    "What a model is worth": ("data", "evaluate", "inference"),
    "Training, teaching": ("train", "actor_critic", "sklearn", "teach", "exercises", "sbi", "__main__"),
}
MODELS = "Models"
WIDTH, ROW, BOX, GAP = 760, 104, 30, 12  # of the drawing, in its own units


def modules(folder: Path) -> dict[str, Path]:
    """Every module of the package by its name below it; a package by the name of its folder."""
    found = {}
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder).with_suffix("").parts
        name = ".".join(part for part in parts if part != "__init__")
        if name:
            found[name] = path
    return found


def imports(name: str, path: Path, known: dict[str, Path], package: str) -> set[str]:
    """The modules of the package that this one imports, anywhere in its text (but not where only a type checker
    reads)."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    inside = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            full = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = [package, *inside[: len(inside) - node.level + 1]] if node.level else []
            base = ".".join([*start, *(node.module or "").split(".")]).rstrip(".")
            full = [f"{base}.{alias.name}" for alias in node.names] + [base]
        else:
            continue
        for target in full:
            below = target.removeprefix(package + ".")
            if below != target and below in known:
                found.add(below)
    # `from ..images import x` names the folder too, where the module x is meant
    return {a for a in found if not any(b.startswith(a + ".") for b in found)} - {name}


def graph(folder: Path) -> dict[str, set[str]]:
    """Each module and what it imports."""
    known = modules(folder)
    return {name: imports(name, path, known, folder.name) for name, path in known.items()}


def floor(name: str) -> str | None:
    """Where a module stands: the longest entry of `FLOORS` that it is or lies in."""
    places = [(len(entry), title) for title, entries in FLOORS.items() for entry in entries
              if name == entry or name.startswith(entry + ".")]
    return max(places)[1] if places else None


def faults(edges: dict[str, set[str]]) -> list[str]:
    """What breaks the order: a module without a floor, an import from above, a model that imports a model, a cycle."""
    order = list(FLOORS)
    found = [f"{name} stands on no floor (FLOORS in book/tools/architecture.py)"
             for name in edges if floor(name) is None]
    if found:
        return found
    for name, targets in edges.items():
        for target in sorted(targets):
            if order.index(floor(target)) > order.index(floor(name)):
                found.append(f"{name} ({floor(name)}) imports {target} from above ({floor(target)})")
            elif floor(name) == floor(target) == MODELS:
                found.append(f"the model {name} imports the model {target}")
    done: set[str] = set()
    for start in edges:
        found += cycle(edges, start, [], done)
    return found


def cycle(edges: dict[str, set[str]], name: str, path: list[str], done: set[str]) -> list[str]:
    """The cycle that a walk from `name` runs into, as one sentence, or nothing."""
    if name in path:
        return ["a cycle of imports: " + " -> ".join([*path[path.index(name):], name])]
    if name in done:
        return []
    found = [fault for target in sorted(edges[name]) for fault in cycle(edges, target, [*path, name], done)]
    done.add(name)
    return found


def boxes(edges: dict[str, set[str]]) -> dict[str, list[str]]:
    """The boxes of each floor: its entries in `FLOORS`, as far as the package has them."""
    return {title: [entry for entry in entries if any(name == entry or name.startswith(entry + ".") for name in edges)]
            for title, entries in FLOORS.items()}


def box_of(name: str) -> str:
    """The box that holds a module."""
    entries = [entry for entries in FLOORS.values() for entry in entries
               if name == entry or name.startswith(entry + ".")]
    return max(entries, key=len)


def necessary(edges: dict[str, set[str]]) -> set[tuple[str, str]]:
    """The pairs of boxes on different floors of which the upper needs the lower, without those that follow from
    others."""
    below: dict[str, set[str]] = defaultdict(set)
    for name, targets in edges.items():
        below[box_of(name)] |= {box_of(target) for target in targets if floor(target) != floor(name)}

    def reach(box: str) -> set[str]:
        """All that a box needs, directly or not."""
        return below[box].union(*map(reach, below[box]))

    return {(a, b) for a in list(below) for b in below[a] - set().union(*map(reach, below[a]))}


def drawing(edges: dict[str, set[str]]) -> str:
    """The floors as rows of boxes, the ground at the bottom; lines down to what each box needs."""
    rows = boxes(edges)
    place, parts = {}, []
    for k, (title, entries) in enumerate(rows.items()):
        top = (len(rows) - 1 - k) * ROW + 24
        width = (WIDTH - GAP * (len(entries) - 1)) / len(entries)
        parts.append(f'<text x="0" y="{top - 8}" class="floor">{title}</text>')
        for i, entry in enumerate(entries):
            left = i * (width + GAP)
            place[entry] = (left + width / 2, top)
            parts.append(f'<rect x="{left:.1f}" y="{top}" width="{width:.1f}" height="{BOX}" rx="5"/>'
                         f'<text x="{left + width / 2:.1f}" y="{top + 20}" class="name">{entry.split(".")[-1]}</text>')
    lines = []
    for a, b in sorted(necessary(edges)):
        (x0, y0), (x1, y1) = place[a], place[b]
        y0 += BOX
        lines.append(f'<path d="M{x0:.1f} {y0}C{x0:.1f} {y0 + 40} {x1:.1f} {y1 - 40} {x1:.1f} {y1}"/>')
    style = ("text{font:12px system-ui,sans-serif;fill:currentColor}.floor{opacity:.7}.name{text-anchor:middle}"
             "rect{fill:none;stroke:currentColor}path{fill:none;stroke:#0072b2;opacity:.6}")
    return (f'<svg viewBox="-1 0 {WIDTH + 2} {len(rows) * ROW - 40}" class="architecture" role="img" aria-label="The '
            f'modules of the package on {len(rows)} floors; every import goes down" style="width:100%;height:auto">'
            f'<style>{style}</style>'
            + "".join(lines + parts) + "</svg>")


def first_line(path: Path) -> str:
    """What a module is for: the first sentence of its docstring."""
    text = ast.get_docstring(ast.parse(path.read_text())) or ""
    return text.split("\n\n")[0].replace("\n", " ").replace("|", "\\|")


def page(folder: Path) -> str:
    """The page: the drawing, and every module with its first sentence."""
    edges, known = graph(folder), modules(folder)
    lines = sum(len(path.read_text().splitlines()) for path in known.values())
    out = ["# How the package is built", "",
           "One idea carries everything: a model is `Flow(base, bijection)`. The drawing is made from the imports of "
           "the source: each line goes from a box down to one that it needs; what follows from two lines is left out. "
           "Every import goes down or stays on its floor, no model imports a model, and there is no cycle; a test "
           "holds the package to it.", "",
           drawing(edges), "",
           f"{len(known)} modules, {lines:,} lines with their docstrings and examples. Read them from the ground up.",
           ""]
    for title in FLOORS:
        names = [name for name in known if floor(name) == title
                 and (ast.get_docstring(ast.parse(known[name].read_text())) or "")]
        out += [f"## {title}", "", "| module | what it is for |", "|---|---|"]
        for name in names:
            where = f"{folder.name}/{known[name].relative_to(folder).as_posix()}"
            out.append(f"| [`{name}`]({address()}/blob/main/{where}) | {first_line(known[name])} |")
        out.append("")
    return "\n".join(out)


def main(package: str, target: str) -> None:
    folder = Path(package)
    found = faults(graph(folder))
    if found:
        sys.exit("imports point one way (book/tools/architecture.py):\n  " + "\n  ".join(found))
    Path(target).write_text(page(folder))


if __name__ == "__main__":
    main(*sys.argv[1:])
