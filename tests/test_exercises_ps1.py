"""Problem set 1: its solutions pass, and typical wrong answers fail, in the open checks and in the grader."""
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

if sys.platform == "win32":
    pytest.skip("grading needs fork: Linux, macOS or WSL", allow_module_level=True)

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "exercises"))

import submissions  # noqa: E402

from flowlib.exercises import judge, ps1, sandbox  # noqa: E402

PS1 = judge.load("ps1")
CHECKS = {ps1.check_weibull: ("weibull_forward", "weibull_inverse"), ps1.check_low_rank: ("low_rank_forward", "low_rank_inverse"),
          ps1.check_banana: ("banana_forward", "banana_inverse"), ps1.check_chain: ("chain_log_prob",)}
WRONG = [(function, *answer) for function, answers in submissions.WRONG.items() for answer in answers]
NAMES = [f"{function}: {what}" for function, what, _, _ in WRONG]


def said(check, capsys, answers):
    """What the open check prints for these texts."""
    torch.set_default_dtype(torch.float64)
    space = {}
    exec("import math, torch\n" + "\n".join(answers[name] for name in CHECKS[check]), space)
    check(*(space[name] for name in CHECKS[check]))
    return capsys.readouterr().out


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_open_checks_accept_the_solution(check, capsys):
    for _ in range(3):  # other inputs every time
        assert "all properties hold" in said(check, capsys, submissions.GOOD)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("body", ["raise NotImplementedError()", "pass", "return ..."])
def test_open_checks_know_a_stub(check, body, capsys):
    assert "not attempted yet" in said(check, capsys, {name: f"def {name}(*a):\n    {body}" for name in CHECKS[check]})


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("body", ["return 1 / 0", "raise SystemExit(1)", "return 3", "return 'x', None", "return a[0].numpy(), a[0]", "return a[0], a[0].sum(), a[0]"])
def test_open_checks_never_raise(check, body, capsys):
    line = said(check, capsys, {name: f"def {name}(*a):\n    {body}" for name in CHECKS[check]})
    assert line.count("\n") == 1 and ("violated" in line or "your code stopped" in line)


@pytest.mark.parametrize("function, what, answer, lost", WRONG, ids=NAMES)
def test_open_checks_reject(function, what, answer, lost, capsys):
    check = next(check for check, names in CHECKS.items() if function in names)
    line = said(check, capsys, submissions.GOOD | {function: answer})
    assert "violated" in line or "your code stopped" in line


def test_open_checks_leave_the_random_numbers(capsys):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    said(ps1.check_banana, capsys, submissions.GOOD)
    assert torch.equal(before, torch.get_rng_state())


def test_experiment_is_printed_or_not(capsys):
    ps1.show_experiment(lambda: [("one layer", [1.0, 2.0, 3.0], torch.tensor([2.0, 2.0, 2.0]))])
    assert "one layer" in (out := capsys.readouterr().out) and "2.00 ± 1.00" in out and "2.00 ± 0.00" in out
    ps1.show_experiment(lambda: None)
    assert "not attempted yet" in capsys.readouterr().out
    ps1.show_experiment(lambda: [("one layer", ["x"])])
    assert "your code stopped" in capsys.readouterr().out


@pytest.fixture(scope="module")
def box():
    with sandbox.Sandbox() as box:
        yield box


def lost_parts(box, function, answer):
    """The parts without points when this text answers the function."""
    lost = set()
    for question in PS1.questions:
        if question.function == function:
            asked, expected = question.ask(np.random.default_rng())
            try:
                given = box.run([(1, "import math, torch"), (2, answer)], function, asked, dtype=PS1.dtype, forbidden=PS1.forbidden)
            except sandbox.NoAnswer as reason:
                given = str(reason)
            lost |= {part for part, remark in question.verdict(expected, given).items() if remark}
    return lost


@pytest.mark.parametrize("function", sorted(submissions.GOOD.keys() - {"experiment"}))
def test_the_grader_accepts_the_solution(box, function):
    assert lost_parts(box, function, submissions.GOOD[function]) == set()


@pytest.mark.parametrize("function, what, answer, lost", WRONG, ids=NAMES)
def test_the_grader_rejects(box, function, what, answer, lost):
    assert lost_parts(box, function, answer) == lost


def test_there_are_three_wrong_answers_for_each_function():
    assert submissions.WRONG.keys() == {question.function for question in PS1.questions}
    assert all(len(answers) >= 3 for answers in submissions.WRONG.values())


def test_every_part_is_lost_by_some_wrong_answer():
    assert set().union(*(lost for *_, lost in WRONG)) == set(PS1.parts)


def test_hidden_tests_give_the_same_verdict():
    torch.set_default_dtype(torch.float64)
    space = {}
    exec("import math, torch\n" + "\n".join(submissions.GOOD.values()), space)
    for part in PS1.parts:
        judge.hidden_test("ps1", part, space)
    exec(submissions.changed("chain_log_prob", ("- torch.linalg", "+ torch.linalg")), space)
    with pytest.raises(AssertionError, match="log-density"):
        judge.hidden_test("ps1", "q5_log_prob", space)
