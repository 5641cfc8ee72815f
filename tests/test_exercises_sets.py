"""Every problem set: its solutions pass, and typical wrong answers fail, in the open checks and in the grader."""
import csv
import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from answers import SOURCES, text
from submissions import write

from flowlib.exercises import grade, judge, sandbox

ROOT = Path(__file__).parents[1]
NAMES = judge.names()
SETS = {name: importlib.import_module(f"wrong_{name}") for name in NAMES}
OPEN = {name: importlib.import_module(f"flowlib.exercises.{name}") for name in NAMES}
CHECKS = [(name, check) for name, module in SETS.items() for check in module.CHECKS]
FUNCTIONS = [(name, question.function) for name in NAMES for question in judge.load(name).questions]
WRONG = [(name, function, *answer) for name, module in SETS.items() for function, answers in module.WRONG.items()
         for answer in answers]
WRONG_IDS = [f"{name} {function}: {what}" for name, function, what, _, _ in WRONG]
CONSISTENT, RIGHT = ([pytest.param(name, *answer, id=f"{name}: {answer[0]}") for name, module in SETS.items()
                      for answer in getattr(module, kind, ())] for kind in ("CONSISTENT", "RIGHT"))
IMPORTS = "import math\n\nimport torch\nimport torch.nn.functional as F\n"

each_set = pytest.mark.parametrize("name", NAMES)
each_check = pytest.mark.parametrize("name, check", CHECKS)


def said(name, check, capsys, answers):
    """What the open check prints for these texts."""
    torch.set_default_dtype(torch.float64)
    space = {}
    exec(IMPORTS + "\n".join(answers.values()), space)
    getattr(OPEN[name], check)(*(space[function] for function in SETS[name].CHECKS[check]))
    return capsys.readouterr().out


def all_alike(name, check, body):
    """The text of functions that all do the same."""
    return {function: f"def {function}(*a):\n    {body}" for function in SETS[name].CHECKS[check]}


def test_every_set_is_tested():
    assert [path.name.split("_")[0] for path in SOURCES] == NAMES


def test_checks_come_without_the_right_answers():
    code = f"import sys; from flowlib.exercises import {', '.join(NAMES)}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True,
                            check=True).stdout.split()
    assert f"flowlib.exercises.{NAMES[0]}.checks" in loaded
    assert not [name for name in loaded if re.fullmatch(r"flowlib.*\.reference", name)]


@each_check
def test_open_checks_accept_the_solution(name, check, capsys):
    for _ in range(3):  # other inputs every time
        assert "all properties hold" in said(name, check, capsys, SETS[name].ANSWERS.good)


@each_check
@pytest.mark.parametrize("body", ["raise NotImplementedError()", "pass", "return ..."])
def test_open_checks_know_a_stub(name, check, body, capsys):
    assert "not attempted yet" in said(name, check, capsys, all_alike(name, check, body))


@each_check
@pytest.mark.parametrize("body", ["return 1 / 0", "raise SystemExit(1)", "return 3", "return 'x', None",
                                  "return a[0].numpy(), a[0]", "return a[0], a[0].sum(), a[0]"])
def test_open_checks_never_raise(name, check, body, capsys):
    line = said(name, check, capsys, all_alike(name, check, body))
    assert line.count("\n") == 1 and ("violated" in line or "your code stopped" in line)


@pytest.mark.parametrize("name, function, what, answer, lost", WRONG, ids=WRONG_IDS)
def test_open_checks_reject(name, function, what, answer, lost, capsys):
    check = next(check for check, functions in SETS[name].CHECKS.items() if function in functions)
    line = said(name, check, capsys, SETS[name].ANSWERS.good | {function: answer})
    assert "violated" in line or "your code stopped" in line


@pytest.mark.parametrize("name, what, answers", CONSISTENT)
def test_open_checks_reject_what_agrees_with_itself(name, what, answers, capsys):
    """Always, not for some of the random inputs."""
    check = next(check for check, functions in SETS[name].CHECKS.items() if answers.keys() <= set(functions))
    for _ in range(5):
        assert "violated" in said(name, check, capsys, SETS[name].ANSWERS.good | answers)


@pytest.mark.parametrize("name, what, answers", RIGHT)
def test_other_right_answers_are_right(box, name, what, answers, capsys):
    check = next(check for check, functions in SETS[name].CHECKS.items() if answers.keys() <= set(functions))
    for _ in range(3):
        assert "all properties hold" in said(name, check, capsys, SETS[name].ANSWERS.good | answers)
    for function, answer in answers.items():
        assert lost_parts(box, name, function, answer) == set()


@each_set
def test_the_layer_to_debug_runs_and_is_rejected(name, capsys):
    cells = [text(cell) for cell in json.loads(SETS[name].ANSWERS.source.read_text())["cells"]
             if cell["cell_type"] == "markdown"]
    layer, = (code for cell in cells for code in re.findall(r"```python\n(.*?)```", cell, flags=re.DOTALL))
    functions = re.findall(r"^def (\w+)", layer, flags=re.MULTILINE)
    check = next(check for check, tested in SETS[name].CHECKS.items() if list(tested) == functions)
    assert "violated" in said(name, check, capsys, {"both": layer})
    for function in functions:  # each of the two has mistakes
        other = {right: source for right, source in SETS[name].ANSWERS.good.items() if right in functions
                 and right != function}
        assert "violated" in said(name, check, capsys, {"both": layer} | other)


def test_open_checks_leave_the_random_numbers(capsys):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    said("ps1", "check_banana", capsys, SETS["ps1"].ANSWERS.good)
    assert torch.equal(before, torch.get_rng_state())


@each_set
def test_experiment_is_printed_or_not(name, capsys):
    show = OPEN[name].show_experiment
    show(lambda: [("one layer", [1.0, 2.0, 3.0], torch.tensor([2.0, 2.0, 2.0]))])
    assert "one layer" in (out := capsys.readouterr().out) and "2.00 ± 1.00" in out and "2.00 ± 0.00" in out
    show(lambda: None)
    assert "not attempted yet" in capsys.readouterr().out
    show(lambda: [("one layer", ["x"])])
    assert "your code stopped" in capsys.readouterr().out


@pytest.fixture(scope="module")
def box():
    with sandbox.Sandbox() as box:
        yield box


def lost_parts(box, name, function, answer):
    """The parts of a function's questions without points, when this text answers it and the rest is right."""
    problems, lost = judge.load(name), set()
    cells = [(1, IMPORTS), *enumerate((SETS[name].ANSWERS.good | {function: answer}).values(), 2)]
    for question in problems.questions:
        if question.function == function:
            asked, expected = question.ask(np.random.default_rng())
            try:
                given = box.run(cells, question.function, asked, dtype=problems.dtype, forbidden=problems.forbidden,
                                seconds=60)  # a busy machine is no wrong answer
            except sandbox.NoAnswer as reason:
                given = str(reason)
            lost |= {part for part, remark in question.verdict(expected, given).items() if remark}
    return lost


@pytest.mark.parametrize("name, function", sorted(set(FUNCTIONS)))
def test_the_grader_accepts_the_solution(box, name, function):
    assert lost_parts(box, name, function, SETS[name].ANSWERS.good[function]) == set()


@pytest.mark.parametrize("name, function, what, answer, lost", WRONG, ids=WRONG_IDS)
def test_the_grader_rejects(box, name, function, what, answer, lost):
    assert lost_parts(box, name, function, answer) == lost


@each_set
def test_there_are_three_wrong_answers_for_each_function(name):
    wrong = SETS[name].WRONG
    assert wrong.keys() == {function for owner, function in FUNCTIONS if owner == name}
    assert all(len(answers) >= 3 for answers in wrong.values())


@each_set
def test_every_part_is_lost_by_some_wrong_answer(name):
    assert set().union(*(lost for owner, *_, lost in WRONG if owner == name)) == set(judge.load(name).parts)


@each_set
def test_source_and_judge_agree_on_points(name):
    cells = json.loads(SETS[name].ANSWERS.source.read_text())["cells"]
    about = [cell["metadata"].get("nbgrader", {}) for cell in cells]
    by_hand = {cell["grade_id"]: cell["points"] for cell in about if cell.get("grade") and cell["solution"]}
    by_test = {cell["grade_id"]: cell["points"] for cell in about if cell.get("grade") and not cell["solution"]}
    assert (by_test, by_hand) == (judge.load(name).parts, judge.load(name).manual)
    # the headings and the table of the first cell announce the same
    headings = re.findall(r"^## Exercise (\d).*\((\d+) points", "\n".join(map(text, cells)), flags=re.MULTILINE)
    rows = re.findall(r"^\| (\d) ★+ \|.*\| (\d+) \|$", text(cells[0]), flags=re.MULTILINE)
    points = {str(number): 0 for number in range(1, len(rows) + 1)}
    for part, worth in (by_test | by_hand).items():
        points[part[1]] += worth
    assert dict(headings) == dict(rows) == {number: str(worth) for number, worth in points.items()}


@each_set
def test_hidden_tests_give_the_same_verdict(name):
    torch.set_default_dtype(torch.float64)
    good = IMPORTS + "\n".join(SETS[name].ANSWERS.good.values())
    space = {}
    exec(good, space)
    for part in judge.load(name).parts:
        judge.hidden_test(name, part, space)
    for (_, answer, lost), *_ in SETS[name].WRONG.values():
        exec(good + "\n" + answer, wrong := {})
        for part in lost:
            with pytest.raises(AssertionError):
                judge.hidden_test(name, part, wrong)


@each_set
def test_a_folder_is_graded(name, tmp_path):
    """The set is found by its functions; the perfect and the untouched notebook, and one with a single slip."""
    answers, parts = SETS[name].ANSWERS, judge.load(name).parts
    function, ((_, answer, lost), *_) = list(SETS[name].WRONG.items())[-1]
    for student, given in {"ann": answers.good, "bob": {}, "eve": answers.good | {function: answer}}.items():
        write(tmp_path / "subs", student, answers.notebook(given))
    grade.grade(tmp_path / "subs", tmp_path / "out", say=lambda line: None)
    with open(tmp_path / "out" / "grades.csv", newline="") as file:
        rows = {row["student"]: {part: int(row[part]) for part in parts} for row in csv.DictReader(file)}
    assert rows == {"ann": parts, "bob": dict.fromkeys(parts, 0), "eve": parts | dict.fromkeys(lost, 0)}
