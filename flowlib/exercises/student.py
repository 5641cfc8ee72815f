"""The student version of a problem set, from the one source in nbgrader's format.

    python -m flowlib.exercises student SRC DST      (a notebook, or a folder of them)

It does what `nbgrader generate_assignment` does: answers between ### BEGIN SOLUTION and ### END SOLUTION become a stub,
hidden tests and marking schemes go, outputs are cleared, cells that are not to be changed are locked, and checksums are
written. The notebook is the same, byte for byte. Standard library only, so that the site can be built without torch.
"""
import hashlib
import json
from pathlib import Path

from ..atomic import write_atomic

STUBS = {"code": "# YOUR CODE HERE\nraise NotImplementedError()", "markdown": "YOUR ANSWER HERE"}


class SourceError(ValueError):
    """The source notebook would not give a sound student version; the message says which cell and why."""


def cut(source: str, name: str, stub: str | None = None) -> tuple[str, bool]:
    """The text with each region `name` replaced by the stub, indented alike, or removed; and whether it had one."""
    lines, inside, found = [], False, False
    for line in source.split("\n"):
        if f"BEGIN {name}" in line:
            if inside:
                raise SourceError(f"BEGIN {name} twice")
            inside = found = True
            indent = line[: len(line) - len(line.lstrip())]
            lines += [indent + part for part in stub.split("\n")] if stub is not None else []
        elif f"END {name}" in line:
            if not inside:
                raise SourceError(f"END {name} without a beginning")
            inside = False
        elif not inside:
            lines.append(line)
    if inside:
        raise SourceError(f"BEGIN {name} without an end")
    return "\n".join(lines), found


def checksum(cell: dict, source: str, about: dict, locked: bool) -> str:
    """nbgrader's fingerprint of a cell, by which it sees whether a student changed it."""
    parts = [source, cell["cell_type"], about["grade"], about["solution"], locked, about["grade_id"]]
    parts += [float(about["points"])] if about["grade"] else []
    return hashlib.md5("".join(map(str, parts)).encode()).hexdigest()


def student_cell(cell: dict) -> None:
    """Change one cell of the source into that of the student version."""
    about = cell["metadata"].get("nbgrader", {})
    grade, solution, task = (about.get(key, False) for key in ("grade", "solution", "task"))
    locked = not solution and (grade or about.get("locked", False))
    source, kind = "".join(cell["source"]), cell["cell_type"]
    source, replaced = cut(source, "SOLUTION", STUBS.get(kind, ""))
    if solution and not replaced:
        source = STUBS[kind]
    source, tests = cut(source, "HIDDEN TESTS")
    source, scheme = cut(source, "MARK SCHEME")
    regions = (replaced, solution, "solution"), (tests, grade, "hidden test"), (scheme, task, "marking scheme")
    for found, wanted, what in regions:
        if found and not wanted:
            raise SourceError(f"a {what} in a cell that is not marked as one")
    if grade or solution or locked:
        cell["metadata"]["deletable"] = False
        if not solution:
            cell["metadata"]["editable"] = False
        about |= {"checksum": checksum(cell, source, about, locked), "cell_type": kind}
    if kind == "code":
        cell.update(outputs=[], execution_count=None)
    cell["source"] = source.splitlines(keepends=True)


def student_version(text: str) -> str:
    """The student notebook of a source notebook, both as JSON text.

    Raises:
        SourceError: A marker without its partner, a solution in a cell that is not one, a grade_id used twice.
    """
    notebook = json.loads(text)
    known = set()
    for number, cell in enumerate(notebook["cells"]):
        try:
            student_cell(cell)
        except SourceError as error:
            raise SourceError(f"cell {cell.get('id', number)}: {error}") from None
        grade_id = cell["metadata"].get("nbgrader", {}).get("grade_id")
        if grade_id in known:
            raise SourceError(f"cell {cell.get('id', number)}: grade_id {grade_id} is used twice")
        known |= {grade_id} - {None}
    return json.dumps(notebook, ensure_ascii=False, indent=1, sort_keys=True) + "\n"


def write_student_versions(source: str | Path, target: str | Path) -> list[Path]:
    """Write the student version of a notebook, or of each notebook of a folder; returns the written paths."""
    source, target = Path(source), Path(target)
    folder = source.is_dir()
    pairs = [(path, target / path.name) for path in sorted(source.glob("*.ipynb"))] if folder else [(source, target)]
    done = [(path, student_version(path.read_text(encoding="utf-8"))) for path, _ in pairs]  # all or nothing
    for (_, path), (_, text) in zip(pairs, done):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, text.encode())
    return [path for _, path in pairs]
