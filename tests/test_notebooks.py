"""The tools behind the lessons: which figures count as equal, what nbval catches, and that a second run changes
nothing."""
import base64
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from notebook_images import difference, match_numbers, match_pngs, shrink

ROOT = Path(__file__).parents[1]


def curve(shift=0.0, width=1.5, colour="C0", title="density", right=4.0):
    """A figure as the base64 text that a notebook stores."""
    x = np.linspace(-4, 4, 300)
    figure, axes = plt.subplots(figsize=(4, 3), dpi=100)
    axes.plot(x, np.exp(-(x - shift) ** 2 / 2), color=colour, lw=width)
    axes.set(title=title, xlim=(-4, right))
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    plt.close(figure)
    return base64.b64encode(buffer.getvalue()).decode()


def test_small_noise_is_equal():
    assert difference(curve(), curve(shift=1e-3)) is None
    assert difference(curve(), curve(width=1.6)) is None


@pytest.mark.parametrize("change", [{"shift": 0.1}, {"colour": "C3"}, {"title": "densitx"}, {"right": 4.4}])
def test_a_change_that_a_reader_sees_differs(change):
    assert "worst block" in difference(curve(), curve(**change))


def test_a_trained_curve_may_run_elsewhere_but_not_far_away():
    assert difference(curve(), curve(shift=0.1), far=True) is None
    assert difference(curve(), curve(shift=0.5, width=6), far=True) and difference(curve(), curve()[:-400], far=True)


def bars(left=0, tall=60):
    """Wide bars in the stead of a figure, `left` pixels from where they stood."""
    picture = np.ones((300, 400, 3))
    for place, height in ((90, 200), (170, tall), (250, 140)):
        picture[280 - height:280, place + left:place + left + 50] = (0.1, 0.3, 0.7)
    return base64.b64encode(_png(picture)).decode()


def test_from_afar_bars_may_stand_a_few_pixels_aside_but_not_be_taller():
    assert difference(bars(), bars(left=6)) and difference(bars(), bars(left=6), far=True) is None
    assert difference(bars(), bars(left=6, tall=90), far=True) and difference(bars(), bars(left=30), far=True)


@pytest.mark.parametrize("stored, new, same", [
    ("KS 2.56 of 3", "KS 2.57 of 3", True), ("a -0.00 b", "a +0.01 b", True), ("cost  9.99", "cost 10.00", True),
    ("1.0", "1.0", True),
    ("KS 2.56", "KS 2.58", False), ("n = 3", "n = 4", False), ("KS 2.56", "KS 2.561", False),
    ("KS 2.56", "KL 2.56", False),
    ("1.5 nan", "nan 1.5", False), ("", "1.0", False)])
def test_a_number_may_differ_by_one_in_its_last_place(stored, new, same):
    assert match_numbers(stored, new) == (stored if same else new)
    assert stored == new or match_numbers(new, stored) == (new if same else stored)


def test_another_size_and_a_broken_picture_differ():
    small = base64.b64decode(shrink(curve()))
    assert "size" in difference(curve(), base64.b64encode(_png(np.zeros((8, 8)))).decode())
    assert "not a readable PNG" in difference(curve(), base64.b64encode(small[:99]).decode())


def _png(array):
    buffer = io.BytesIO()
    plt.imsave(buffer, array, format="png")
    return buffer.getvalue()


def test_shrink_is_smaller_and_looks_the_same():
    assert len(shrink(curve())) < 0.5 * len(curve())
    assert difference(curve(), shrink(curve())) is None


def test_frames_in_html_are_compared_one_by_one():
    old = f'["{curve()}", "{curve(shift=1)}"] scale'
    new = f'["{curve(shift=1e-3)}", "{curve(shift=1)}"] scale'
    assert match_pngs(old, new)[:2] == ('["<png 1>", "<png 2>"] scale',) * 2
    left, right, notes = match_pngs(old, f'["{curve()}", "{curve(shift=2)}"] scale')
    assert left != right and notes[0].startswith("picture 2 of 2")
    left, right, notes = match_pngs(old, f'["{curve()}"] scale')
    assert left != right and notes == ["2 pictures stored, 1 now"]


SOURCE = """\
import matplotlib.pyplot as plt
plt.figure(figsize=(4, 3)); plt.plot([0, 1], [0, SLOPE]); plt.ylim(-0.05, 1.05)
plt.show()
print(f"slope {SLOPE}, of {SLOPE / 3:.4f}")"""


def line(slope):
    """What that cell draws, as the notebook stores it, for another slope."""
    figure, axes = plt.subplots(figsize=(4, 3))
    axes.plot([0, 1], [0, slope])
    axes.set(ylim=(-0.05, 1.05))
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", bbox_inches="tight")
    plt.close(figure)
    return base64.b64encode(buffer.getvalue()).decode()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder like the repository with one lesson that was run and normalised."""
    root = tmp_path_factory.mktemp("repository")
    (root / "lessons").mkdir()
    shutil.copy(ROOT / "lessons" / "conftest.py", root / "lessons")
    shutil.copytree(ROOT / "book" / "tools", root / "book" / "tools", ignore=shutil.ignore_patterns("__pycache__"))
    cells = [{"id": "02-00", "cell_type": "code", "execution_count": None, "metadata": {}, "outputs": [],
              "source": source}
             for source in ("SLOPE = 1", SOURCE)]
    notebook = {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    notebook["cells"][1]["id"] = "02-01"
    (root / "lessons" / "02_x.ipynb").write_text(json.dumps(notebook))
    assert run(root, "book/tools/normalise.py", "lessons/02_x.ipynb").returncode == 0
    return root


def run(root, *command):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "FIGURES": ""}  # flowlib, and figures compared as they are
    return subprocess.run([sys.executable, *command], cwd=root, env=environment, capture_output=True, text=True)


def nbval(root):
    return run(root, "-m", "pytest", "lessons", "-q", "--nbval", "--nbval-current-env", "-p", "no:cacheprovider")


def changed(folder, tmp_path, change):
    """A copy of the folder in which the stored notebook was changed."""
    copy = shutil.copytree(folder, tmp_path / "copy")
    path = copy / "lessons" / "02_x.ipynb"
    notebook = json.loads(path.read_text())
    change(notebook["cells"])
    path.write_text(json.dumps(notebook, indent=1) + "\n")
    return copy


def test_second_run_changes_no_byte(folder):
    before = (folder / "lessons" / "02_x.ipynb").read_bytes()
    assert "unchanged" in run(folder, "book/tools/normalise.py", "lessons/02_x.ipynb").stdout
    assert (folder / "lessons" / "02_x.ipynb").read_bytes() == before


def test_stored_outputs_pass(folder):
    assert nbval(folder).returncode == 0


def rounding(cells):
    cells[1]["outputs"][-1]["text"] = ["slope 1, of 0.3334\n"]


def another_training(cells):
    cells[1]["metadata"] = {"tags": ["trained"]}
    data = cells[1]["outputs"][0]["data"]
    assert difference(data["image/png"], line(1.1))
    data["image/png"] = line(1.1)


@pytest.mark.parametrize("change", [rounding, another_training])
def test_what_only_rounding_changed_passes(folder, tmp_path, change):
    copy = changed(folder, tmp_path, change)
    before = (copy / "lessons" / "02_x.ipynb").read_bytes()
    assert nbval(copy).returncode == 0
    run(copy, "book/tools/normalise.py", "lessons/02_x.ipynb")
    kept = json.loads((copy / "lessons" / "02_x.ipynb").read_text())["cells"][1]["outputs"]
    assert kept == json.loads(before)["cells"][1]["outputs"]


def stale_figure(cells):
    cells[1]["outputs"][0]["data"]["image/png"] = curve()


def stale_text(cells):
    cells[1]["outputs"][-1]["text"] = ["slope 2, of 0.3333\n"]


def never_run(cells):
    cells[1].update(execution_count=None, outputs=[])


@pytest.mark.parametrize("change, message", [
    (stale_figure, "image/png output 1 of the cell"), (stale_text, "slope 2"), (never_run, "was never run")])
def test_what_is_stale_fails(folder, tmp_path, change, message):
    done = nbval(changed(folder, tmp_path, change))
    assert done.returncode == 1 and message in done.stdout


def test_a_failing_cell_leaves_the_file(folder, tmp_path):
    copy = changed(folder, tmp_path, lambda cells: cells[0].update(source="SLOPE = 1 / 0"))
    before = (copy / "lessons" / "02_x.ipynb").read_bytes()
    done = run(copy, "book/tools/normalise.py", "lessons/02_x.ipynb")
    assert done.returncode == 2 and "ZeroDivisionError" in done.stdout
    assert (copy / "lessons" / "02_x.ipynb").read_bytes() == before
