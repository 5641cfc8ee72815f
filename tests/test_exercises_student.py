"""The student version: the same as nbgrader makes, without solutions, and it runs untouched."""
import json
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from answers import SOURCES, Answers, text
from nbclient import NotebookClient

from flowlib.exercises.student import SourceError, student_version, write_student_versions

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "tests" / "exercises" / "every_cell.ipynb"


def test_equal_to_what_nbgrader_made():
    """Stored: `nbgrader generate_assignment` (0.9.6) on a notebook with every kind of cell."""
    assert student_version(EXAMPLE.read_text()) == EXAMPLE.with_name("every_cell_student.ipynb").read_text()


@pytest.mark.skipif(not shutil.which("nbgrader"), reason="nbgrader is not installed")
@pytest.mark.parametrize("source", [EXAMPLE, *SOURCES], ids=lambda path: path.stem)
def test_equal_to_what_nbgrader_makes(source, tmp_path):
    (tmp_path / "source" / "a").mkdir(parents=True)
    shutil.copy(source, tmp_path / "source" / "a")
    subprocess.run(["nbgrader", "generate_assignment", "a", "--create"], cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / "release" / "a" / source.name).read_text() == student_version(source.read_text())


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_the_one_on_the_site_is_new(source):
    """Else: python -m flowlib.exercises student lessons/problem_sets book/problem_sets"""
    assert (ROOT / "book" / "problem_sets" / source.name).read_text() == student_version(source.read_text())


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_a_release_changes_both_alike(source, monkeypatch):
    """The commands replace the set-up cell of notebooks, so it must carry no checksum."""
    monkeypatch.syspath_prepend(ROOT / "book" / "tools")
    monkeypatch.chdir(ROOT)
    import setup_cell
    first = next(text(cell) for cell in json.loads(source.read_text())["cells"] if cell["cell_type"] == "code")
    assert first == setup_cell.cell(setup_cell.address(), *setup_cell.pin(first))
    release = lambda text: setup_cell.with_cell(text, "https://github.com/a/b", ("12ab", "v9"))  # noqa: E731
    assert '12ab' in release(source.read_text())
    assert release(student_version(source.read_text())) == student_version(release(source.read_text()))


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_no_solution_is_left(source):
    result = student_version(source.read_text())
    for word in ("SOLUTION", "HIDDEN TESTS", "MARK SCHEME", "hidden_test("):
        assert word in source.read_text() or word == "MARK SCHEME"
        assert word not in result
    answers = Answers(source.name.split("_")[0]).good.values()
    lines = {line.strip() for answer in answers for line in answer.split("\n")[2:]}
    cells = json.loads(result)["cells"]
    shown = {line.strip() for cell in cells if cell["cell_type"] == "code" for line in cell["source"]}
    assert not {line for line in lines if len(line) > 12} & shown
    written = [cell for cell in json.loads(source.read_text())["cells"] if cell["cell_type"] == "markdown"
               and cell["metadata"]["nbgrader"]["solution"]]
    assert written and not any(line.strip() in result for cell in written for line in cell["source"] if len(line) > 12)


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_runs_untouched(source):
    """From top to bottom, without an error; each check says that nothing was attempted."""
    notebook = nbformat.reads(student_version(source.read_text()), 4)
    NotebookClient(notebook, timeout=600, kernel_name="python3",
                   resources={"metadata": {"path": str(source.parent)}}).execute()
    checks = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.startswith("ps")]
    assert len(checks) >= 4
    assert all("not attempted yet" in cell.outputs[0].text for cell in checks)
    assert not any(out.output_type == "error" for cell in notebook.cells if cell.cell_type == "code"
                   for out in cell.outputs)


def altered(change):
    notebook = json.loads(EXAMPLE.read_text())
    change({cell["id"]: cell for cell in notebook["cells"]})
    return json.dumps(notebook)


@pytest.mark.parametrize("fault, change", [
    ("SOLUTION without an end", lambda cells: cells["two"].update(source=["### BEGIN SOLUTION\n", "1"])),
    ("SOLUTION without a beginning", lambda cells: cells["two"].update(source=["### END SOLUTION"])),
    ("SOLUTION twice", lambda cells: cells["two"].update(source=["### BEGIN SOLUTION\n", "### BEGIN SOLUTION\n"])),
    ("solution in a cell that is not marked",
     lambda cells: cells["free"].update(source=["### BEGIN SOLUTION\n", "### END SOLUTION"])),
    ("hidden test in a cell that is not marked",
     lambda cells: cells["free"].update(source=["### BEGIN HIDDEN TESTS\n", "### END HIDDEN TESTS"])),
    ("used twice", lambda cells: cells["two"]["metadata"]["nbgrader"].update(grade_id="test"))])
def test_an_unsound_source_is_refused(fault, change, tmp_path):
    (tmp_path / "a.ipynb").write_text(altered(change))
    with pytest.raises(SourceError, match=fault):
        write_student_versions(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_command(tmp_path):
    command = [sys.executable, "-m", "flowlib.exercises", "student", EXAMPLE, tmp_path / "a" / "b.ipynb"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and (tmp_path / "a" / "b.ipynb").read_text() == student_version(EXAMPLE.read_text())
    (tmp_path / "bad.ipynb").write_text("{")
    done = subprocess.run([*command[:4], tmp_path / "bad.ipynb", tmp_path / "c.ipynb"], cwd=ROOT, capture_output=True,
                          text=True)
    assert done.returncode == 2 and "Traceback" not in done.stderr
