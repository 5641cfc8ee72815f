"""The exercises inside the lessons: the stub is not attempted yet, and the folded solution has all the properties that
its check asks for."""
import ast
import json
import re
from pathlib import Path

import matplotlib
import pytest
import torch

LESSONS = Path(__file__).parents[1] / "lessons"
STUB = "# your turn"


def turns():
    """(lesson, place of the stub), for every cell with a stub."""
    for path in sorted(LESSONS.glob("*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        for place, cell in enumerate(cells):
            if cell["cell_type"] == "code" and STUB in "".join(cell["source"]):
                yield pytest.param(cells, place, id=cell["id"])


@pytest.fixture
def as_before():
    """What lessons set for themselves is set back."""
    dtype, threads = torch.get_default_dtype(), torch.get_num_threads()
    with matplotlib.rc_context():
        yield
    torch.set_default_dtype(dtype)
    torch.set_num_threads(threads)


def definitions(cells):
    """What code cells import, define as functions or classes, and set to plain constants; nothing that computes."""
    kept = []
    for cell in cells:
        if cell["cell_type"] == "code" and "remove-cell" not in cell["metadata"].get("tags", []):
            for statement in ast.parse("".join(cell["source"])).body:
                constant = isinstance(statement, ast.Assign) and not any(
                    isinstance(node, ast.Call | ast.Name) and not isinstance(getattr(node, "ctx", None), ast.Store)
                    for node in ast.walk(statement))
                if constant or isinstance(statement, ast.Import | ast.ImportFrom | ast.FunctionDef | ast.ClassDef):
                    kept.append(statement)
    return compile(ast.Module(kept, []), "<definitions>", "exec")


@pytest.mark.parametrize("cells, place", list(turns()))
def test_the_stub_is_open_and_the_solution_right(cells, place, as_before, capsys):
    imports, check, stub, below = ("".join(cells[at]["source"]) for at in (
        next(at for at, cell in enumerate(cells) if "".join(cell["source"]).startswith("import ")),
        place - 1, place, place + 1))
    (solution,) = re.findall(r"^<details><summary>Solution</summary>\n\n```python\n(.*?)```", below, flags=re.S)
    names = {}
    for source in (imports, definitions(cells[: place - 1]), check, stub):
        exec(source, names)
    assert capsys.readouterr().out.endswith("not attempted yet\n")
    stored = "".join(cells[place]["outputs"][0]["text"])  # after all cells before it: no name of the check is taken
    assert stored.endswith("not attempted yet\n")
    exec(solution + stub.rstrip().splitlines()[-1], names)
    assert capsys.readouterr().out.endswith("all properties hold\n")
