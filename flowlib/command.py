"""What the commands share: flags whose values are checked, errors of one line, and files of numbers."""
from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from .atomic import write_atomic

__all__ = ["Parser", "fail", "number", "one_line", "threads", "whole", "write_json"]


class Parser(argparse.ArgumentParser):
    """Says in one line what is wrong with a command, and ends with exit status 2."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {' '.join(message.split())}; --help lists the arguments\n")


def whole(low: int, high: int = 10**9) -> Callable[[str], int]:
    """The `type` of a flag that takes a whole number between two ends."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = low - 1
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"must be a whole number from {low:,} to {high:,}, got {text!r}")
        return value

    return parse


def number(low: float = 0.0, high: float = math.inf, ends: bool = False) -> Callable[[str], float]:
    """The `type` of a flag that takes a finite number between two ends; the lower one itself only if `ends`."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and value <= high and (value > low or ends and value == low)):
            limits = f"{'of at least' if ends else 'above'} {low:g}"
            limits += "" if high == math.inf else f" and at most {high:g}"
            raise argparse.ArgumentTypeError(f"must be a finite number {limits}, got {text!r}")
        return value

    return parse


def threads(text: str) -> int:
    """The `type` of a flag that takes a number of threads: no more than processors, far beyond which torch crashes."""
    return whole(1, os.cpu_count() or 1)(text)


@contextmanager
def one_line(*known: type[Exception]) -> Iterator[None]:
    """End the command with one sentence for a user's or a machine's fault: exit status 2 for arguments that make no
    sense, 1 for what fails on the way (`known` errors too), 130 for Ctrl-C. Other exceptions are bugs, and pass."""
    try:
        yield
    except KeyboardInterrupt:
        fail("interrupted", 130)
    except (ValueError, FileExistsError) as error:
        fail(error, 2)
    except (OSError, ImportError, MemoryError, *known) as error:
        fail(str(error) or "there is not enough memory", 1)
    except RuntimeError as error:  # how torch says it
        if "memory" not in str(error).lower():
            raise
        fail(f"there is not enough memory ({str(error).splitlines()[0]})", 1)


def fail(message: object, status: int) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(status)


def write_json(path: Path, numbers: dict) -> None:
    """All or nothing."""
    write_atomic(path, (json.dumps(numbers, indent=1) + "\n").encode())
