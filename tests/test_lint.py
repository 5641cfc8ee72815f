"""The lessons keep to their conventions, and every rule of the lint can fire."""
import copy
import json
from pathlib import Path

import lint
import pytest
import setup_cell

ROOT = Path(__file__).parents[1]
LESSONS = sorted(ROOT.glob("lessons/*.ipynb"))
SLIDER = ('<label for="k">scale</label><input type="range" id="k">'
          '<img alt="scale one" src="data:image/png;base64,iVBORw0KGgoAAAA=">')


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)


def markdown(source):
    return {"cell_type": "markdown", "metadata": {}, "source": source}


def code(source, data=None, **metadata):
    out = [{"output_type": "display_data", "data": data, "metadata": {}}] if data else []
    return {"cell_type": "code", "execution_count": 1, "metadata": metadata, "outputs": out, "source": source}


def good_lesson():
    """A small lesson without a fault, as a notebook dictionary."""
    cells = [markdown("# Lesson 2: One dimension\n\nYou will be able to map. Needs: nothing. Reading time: 20 min. Run "
                      "time: 9 s."),
             code(setup_cell.cell(setup_cell.address()), tags=["remove-cell"]),
             markdown("## Predict first\n\n" + "What do you expect from it? " * 420 + "See Eq. (2.1) and Figure 2.1."),
             markdown("## The idea in one picture"),
             code("frames()", {"text/html": SLIDER}),
             markdown("*Figure 2.1. A slider.*\n\nMore."),
             markdown("## The mathematics\n\n> **Theorem 2.1 (mass).** It holds:\n>\n> $$ p(x) = 1 \\tag{2.1} "
                      "$$\n>\n> always.\n\n" "<details><summary>Proof</summary>\n\nAs in [Dinh et al., "
                      "2017](https://arxiv.org/abs/1605.08803).\n\n</details>")]
    for number in range(2, 9):
        alt = {"image": {"alt": f"Curve number {number} rises from left to right."}}
        cells += [code(f"draw({number})", {"image/png": "iVBORw0KGgoAAAA="}, mystnb=alt),
                  markdown(f"*Figure 2.{number}. A curve.*")]
    cells += [markdown("## From scratch"), code("x = 1\nprint(x)"),
              markdown("## Verify it\n\nAs in [Lesson 2](#from-scratch)."),
              markdown("## The same with flowlib"), markdown("## What goes wrong"),
              markdown("## Summary\n\n" + "- point\n" * 5),
              markdown("## Key terms\n\n[flow](../book/glossary.md#flow)"), markdown("## Exercises"),
              markdown("## Going further"),
              markdown("## References")]
    cells = [{"id": f"02-{place:02d}", **cell} for place, cell in enumerate(cells)]
    return {"cells": cells, "metadata": {"kernelspec": {"name": "python3"}}, "nbformat": 4, "nbformat_minor": 5}


def faults(notebook):
    found = lint.lint([lint.Lesson(ROOT / "lessons" / "02_one_dimension.ipynb", notebook)])
    return [(name, message) for _, name, message in found]


def replaced(old, new):
    """A change of the lesson's sources; the old text must be there."""
    def change(notebook):
        before = json.dumps(notebook)
        for cell in notebook["cells"]:
            cell["source"] = cell["source"].replace(old, new)
        assert json.dumps(notebook) != before, old
    return change


def on_cell(source, action):
    """A change of the first cell whose source starts like this."""
    def change(notebook):
        action(next(cell for cell in notebook["cells"] if cell["source"].startswith(source)))
    return change


def printed(line):
    return on_cell("x = 1", lambda cell: cell["outputs"].append({"output_type": "stream", "name": "stdout",
                                                                 "text": line}))


FAULTS = [
    ("notebook", lambda nb: nb.update(nbformat_minor=4)),
    ("notebook", lambda nb: nb["metadata"]["kernelspec"].update(name="julia")),
    ("notebook", lambda nb: nb["metadata"].update(widgets={})),
    ("notebook", lambda nb: nb["cells"][3].update(id="02-00")),
    ("notebook", on_cell("x = 1", lambda cell: cell.update(execution_count=None))),
    ("notebook",
     on_cell("x = 1", lambda cell: cell["outputs"].append({"output_type": "stream", "name": "stderr", "text": "w"}))),
    ("set_up", replaced(" is None:", " == None:")),
    ("set_up", on_cell("# Set-up", lambda cell: cell["metadata"].clear())),
    ("skeleton", replaced("Reading time", "Time")),
    ("skeleton", replaced("## From scratch", "## By hand")),
    ("skeleton", replaced("- point\n- point\n", "- point\n")),
    ("skeleton", replaced("## Exercises", "# Exercises")),
    ("plain_markdown", replaced("More.", "```{note}\nMore.\n```")),
    ("plain_markdown", replaced("More.", ":::{exercise} One\n:::")),
    ("plain_markdown", replaced("More.", "See {eq}`one`.")),
    ("plain_markdown", replaced("More.", "> **Warning.** More.")),
    ("plain_markdown", replaced("</summary>\n\n", "</summary>\n")),
    ("equations", replaced(">\n> $$", "> $$")),
    ("equations", replaced("\\tag{2.1}", "\\tag{2.2}")),
    ("equations", replaced("Eq. (2.1)", "Eqs. (2.1) and (2.7)")),
    ("figures", replaced("*Figure 2.3. A curve.*", "A curve.")),
    ("figures", replaced("*Figure 2.3. A curve.*", "*Figure 2.9. A curve.*")),
    ("figures", replaced("More.", "Figure 2.12 shows it.")),
    ("figures", on_cell("draw(4)", lambda cell: cell["outputs"].clear())),
    ("figures", on_cell("frames", lambda cell: cell["outputs"][0].update(data={"text/html": '<img alt="scale one">'}))),
    ("alternative_text", on_cell("draw(4)", lambda cell: cell["metadata"].clear())),
    ("alternative_text",
     on_cell("frames", lambda cell: cell["outputs"][0].update(data={"text/html": SLIDER.replace("alt=", "x=")}))),
    ("alternative_text",
     on_cell("frames", lambda cell: cell["outputs"][0].update(data={"text/html": SLIDER.replace("label", "b")}))),
    ("citations", replaced("1605.08803", "1605.08804")),
    ("self_contained", replaced("More.", "![a map](map.png)")),
    ("self_contained", replaced("More.", '<img src="map.png" alt="a map">')),
    ("self_contained", replaced("x = 1", "import plotly")),
    ("self_contained", on_cell("x = 1", lambda cell: cell["outputs"].append(
        {"output_type": "display_data", "data": {"text/html": '<script src="https://cdn.example/x.js"></script>'}}))),
    ("stable_output", printed("took 3.2 s")),
    ("stable_output", printed("tensor(1., device='cuda:0')")),
    ("stable_output", printed("<object at 0x7f3a2b1c9d>")),
    ("stable_output", on_cell("x = 1", lambda cell: cell["metadata"].update(tags=["nbval-ignore-output"]))),
    ("stable_output", on_cell("draw(4)", lambda cell: cell["metadata"].update(tags=["trained"]))),
    ("plain_python", replaced("x = 1", "!ls")),
    ("plain_python", replaced("x = 1", "%timeit 1")),
    ("plain_python", replaced("print(x)", "print(x);")),
    ("size", replaced("What do you expect from it? ", "What? ")),
    ("size", replaced("x = 1", "x = 1\n" * 301)),
    ("links", replaced("(#from-scratch)", "(#by-hand)")),
    ("links", replaced("glossary.md#flow", "glossary.md#stream")),
    ("links", replaced("../book/glossary.md#flow", "../book/words.md")),
]


def test_a_good_lesson_has_no_fault():
    assert faults(good_lesson()) == []


@pytest.mark.parametrize("rule, change", FAULTS)
def test_each_fault_is_found(rule, change):
    notebook = copy.deepcopy(good_lesson())
    change(notebook)
    assert rule in [name for name, _ in faults(notebook)]


def test_every_rule_has_a_fault():
    assert {rule for rule, _ in FAULTS} == {check.__name__ for check in lint.RULES}


def test_equal_set_up_in_all_lessons(monkeypatch):
    monkeypatch.setattr(setup_cell, "address", lambda: "https://github.com/a/flows")
    one, two = good_lesson(), good_lesson()
    for lesson, pin in ((one, ("12ab", "v1.0")), (two, ("34cd", "v2.0"))):
        lesson["cells"][1]["source"] = setup_cell.cell(setup_cell.address(), *pin)
    lessons = [lint.Lesson(ROOT / "lessons" / f"0{n}_x.ipynb", nb) for n, nb in ((2, one), (3, two))]
    assert [path.name for path, name, _ in lint.lint(lessons) if name == "set_up"] == ["03_x.ipynb"]


def test_lessons():
    if not all((ROOT / "book" / name).is_file() for name in ("results.md", "reference/core.md")):
        pytest.skip("lessons link pages that are not generated yet: run `make book` first")
    assert lint.lint([lint.Lesson(path) for path in LESSONS]) == []
