"""What is there: `python -m flowlib`."""
from __future__ import annotations

import platform

import torch

import flowlib

from .command import Parser, one_line
from .data import READERS
from .data.files import at_hand
from .data.full import SETS
from .data.graphs import SETS as GRAPHS
from .data.tables import TABLES
from .recipes import recipes

__all__ = ["main"]


def _device() -> str:
    if torch.cuda.is_available():
        return f"cuda ({torch.cuda.get_device_name()})"
    return "mps" if torch.backends.mps.is_available() else f"cpu ({torch.get_num_threads()} threads)"


def report() -> str:
    """Version, device, models and data sets, and how to start.

    Example:
        >>> print(report().splitlines()[0].split()[0])
        flowlib
    """
    models = sorted(name for name, value in vars(flowlib).items()
                    if isinstance(value, type) and issubclass(value, flowlib.Flow) and value is not flowlib.Flow)
    # None: it is here
    sources = (dict.fromkeys(READERS) | SETS | {name: table.source for name, table in TABLES.items()}
               | dict.fromkeys(GRAPHS))
    sets = [name if source is None or at_hand(name, source) else f"{name} (not here yet)"
            for name, source in sources.items()]
    return "\n".join([
        f"flowlib {flowlib.__version__}, torch {torch.__version__}, Python {platform.python_version()}, {_device()}",
        f"models:    {', '.join(models)}",
        f"to train:  {', '.join(recipes())}",
        f"data sets: {', '.join(sets)}",
        "",
        "in Python:    flow = flowlib.RealNVP(2); flow.log_prob(x); flow.sample(5)",
        "to train:     python -m flowlib.train --model realnvp-flat --data digits --out runs/digits",
        "to evaluate:  python -m flowlib.evaluate runs/digits",
        "to grade:     python -m flowlib.exercises --help",
    ])


def main(argv: list[str] | None = None) -> None:
    Parser(prog="python -m flowlib", description="Print version, device, models and data sets.").parse_args(argv)
    with one_line():
        print(report())


if __name__ == "__main__":
    main()
