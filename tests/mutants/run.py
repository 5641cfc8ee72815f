"""Change one line of the package at a time and see whether the tests notice: `make mutants`, or with words, only the mutants
whose file or text contains one of them.

    python tests/mutants/run.py [--workers 2] [WORD ...]

The changes stand in the `*.toml` files beside this one:

    [[mutant]]
    file = "flowlib/core.py"         # where
    old = "log_det = log_det + term" # a piece of text that occurs there once
    new = "log_det = log_det - term"
    tests = "tests/test_core.py"     # what should notice
    survives = "..."                 # only where nothing can: why

Each mutant is made in a copy of the repository. One that its tests pass has survived; that is an error unless a reason stands
beside it, and fewer than 95 of 100 killed is an error in any case.
"""
from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

ROOT = Path(__file__).parents[2]
SHARE = 0.95  # of the mutants that the tests must kill
ENDLESS = 1800  # seconds after which a mutant counts as killed: it does not end


@dataclass(frozen=True)
class Mutant:
    file: str
    old: str
    new: str
    tests: str
    survives: str = ""

    def __str__(self) -> str:
        return f"{self.file}: {' '.join(self.old.split())}  ->  {' '.join(self.new.split())}"


def mutants() -> list[Mutant]:
    """All of the list."""
    return [Mutant(**entry) for path in sorted(Path(__file__).parent.glob("*.toml"))
            for entry in tomllib.loads(path.read_text())["mutant"]]


def stale(mutant: Mutant) -> str | None:
    """What is wrong with an entry of the list itself."""
    path = ROOT / mutant.file
    count = path.read_text().count(mutant.old) if path.is_file() else 0
    if count != 1:
        return f"{mutant}: its text occurs {count} times"
    missing = [part for part in mutant.tests.split() if part.startswith("tests/") and not (ROOT / part.split("::")[0]).exists()]
    return f"{mutant}: no such test: {', '.join(missing)}" if missing else None


def passes(folder: Path, tests: str) -> bool:
    """Whether tests pass in a copy of the repository."""
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests.split()]
    try:
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=ENDLESS)
    except subprocess.TimeoutExpired:
        return False
    if done.returncode not in (0, 1, 2):  # 2: the mutant broke an import
        sys.exit(f"pytest {tests} ended with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.returncode == 0


def copy(folder: Path) -> Path:
    """The tracked files, as they are in the working tree."""
    names = subprocess.run(["git", "ls-files", "-z", "flowlib", "tests", "book", "lessons", "pyproject.toml", "_config.yml"],
                           cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    for name in filter(None, names):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


def survives(mutant: Mutant, folders: SimpleQueue) -> bool:
    """Whether the tests pass with this change."""
    folder = folders.get()
    path = folder / mutant.file
    whole = path.read_text()
    try:
        path.write_text(whole.replace(mutant.old, mutant.new))
        return passes(folder, mutant.tests)
    finally:
        path.write_text(whole)
        folders.put(folder)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("words", nargs="*")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args(arguments)
    chosen = [m for m in mutants() if not options.words or any(word in str(m) for word in options.words)]
    bad = [found for found in map(stale, chosen) if found]
    if bad or not chosen:
        sys.exit("\n".join(bad) or "no mutant with these words")
    with tempfile.TemporaryDirectory() as top, ThreadPoolExecutor(options.workers) as pool:
        folders: SimpleQueue = SimpleQueue()
        for k in range(options.workers):
            folders.put(copy(Path(top) / str(k)))
        alive = []
        for mutant, survived in zip(chosen, pool.map(lambda m: survives(m, folders), chosen), strict=True):
            print("survived" if survived else "killed  ", mutant, flush=True)
            alive += [mutant] if survived else []
    unexplained = [m for m in alive if not m.survives]
    killed = len(chosen) - len(alive)
    print(f"{killed} of {len(chosen)} killed")
    if unexplained or killed < SHARE * len(chosen):
        sys.exit("survivors without a reason:\n" + "\n".join(map(str, unexplained)) if unexplained else "too few")


if __name__ == "__main__":
    main()
