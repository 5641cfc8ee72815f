"""Grading: the submissions of the trial and the attacks get the right points, and nothing reaches out of the child."""
import csv
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

if sys.platform == "win32":
    pytest.skip("grading needs fork: Linux, macOS or WSL", allow_module_level=True)

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "exercises"))

import submissions  # noqa: E402

from flowlib.exercises import collect, grade, judge, sandbox  # noqa: E402

PS1 = judge.load("ps1")


def graded(folder, out, **options):
    """Rows of the CSV by student, and what was said."""
    said = []
    grade.grade(folder, out, say=said.append, **options)
    with open(out / "grades.csv", newline="") as file:
        return {row["student"]: row for row in csv.DictReader(file)}, said


def assert_points(row, lost):
    given = {part: int(row[part]) for part in PS1.parts}
    assert given == {part: 0 if part in lost else points for part, points in PS1.parts.items()}
    assert int(row["automatic"]) == sum(given.values())


@pytest.fixture(scope="module")
def trial(tmp_path_factory):
    root = tmp_path_factory.mktemp("trial")
    expected = submissions.trial()
    for name, (notebook, _) in expected.items():
        submissions.write(root / "subs", name, notebook)
    submissions.write(root / "subs" / "late", "not_json", "{")
    (root / "subs" / "link.ipynb").symlink_to(submissions.SOURCE)  # would be full points, and any file of the instructor's
    rows, said = graded(root / "subs", root / "out", seed=5)
    return root, expected, rows, said


def test_there_are_fourteen():
    assert len(submissions.trial()) == 14


@pytest.mark.parametrize("name", submissions.trial())
def test_the_trial(trial, name):
    root, expected, rows, _ = trial
    assert_points(rows[name], expected[name][1])
    text = (root / "out" / "feedback" / f"{name}.md").read_text()
    assert all(f"- {part}: " in text for part in (*PS1.parts, *PS1.manual))


@pytest.mark.parametrize("name, reason", [("late-not_json", "Not a notebook"), ("link", "Not a regular file")])
def test_what_is_no_notebook(trial, name, reason):
    root, _, rows, _ = trial
    assert_points(rows[name], set(PS1.parts))
    assert reason in (root / "out" / "feedback" / f"{name}.md").read_text()


def test_what_a_person_marks_is_blank(trial):
    for row in trial[2].values():
        assert all(row[part] == "" for part in PS1.manual)
        assert (row["automatic_max"], row["max"]) == ("18", "27")


@pytest.mark.parametrize("name, remark", [
    ("s1_empty", "Not attempted"), ("s2_wrong_sign", "log-density is not that of the composition"),
    ("s3_missing_sums", "The log-det does not agree with the Jacobian"), ("s5_syntax", "a cell with a syntax error"),
    ("s6_loop", "Stopped after 5 s"), ("s7_cheat_patch", "X is not the image of z"), ("s8_cheat_exit", "without an answer")])
def test_feedback_names_the_property(trial, name, remark):
    assert remark in (trial[0] / "out" / "feedback" / f"{name}.md").read_text()


@pytest.fixture(scope="module")
def attacked(tmp_path_factory):
    """All attacks in one run, with a listener and a place to write that must stay untouched. Never without a cage."""
    with sandbox.Sandbox() as box:
        if not box.isolated:
            pytest.skip(f"no namespaces on this machine: {box.gaps[0]}")
    root = tmp_path_factory.mktemp("attack")
    (root / "probe").mkdir(mode=0o777)
    os.chmod(root / "probe", 0o777)
    (root / "subs").mkdir()
    (root / "subs" / "secret.txt").write_text("Hunter2\n")
    visits = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        def listen():
            while True:
                try:
                    visits.append(server.accept()[1])
                except OSError:
                    return
        threading.Thread(target=listen, daemon=True).start()
        bodies = submissions.attacks(root / "probe", server.getsockname()[1], root / "subs" / "secret.txt")
        for name, body in bodies.items():
            submissions.write(root / "subs", name, submissions.attack_notebook(body))
        start = time.monotonic()
        rows, _ = graded(root / "subs", root / "out")
        time.sleep(max(0, 5 - (time.monotonic() - start)))
        server.shutdown(socket.SHUT_RDWR)
    return root, rows, visits


ATTACKS = list(submissions.attacks(Path("p"), 0, Path("s")))


def test_there_are_thirteen_and_more():
    assert len(ATTACKS) >= 13


@pytest.mark.parametrize("name", ATTACKS)
def test_attacks_gain_nothing_and_harm_nobody(attacked, name):
    root, rows, _ = attacked
    assert_points(rows[name], {"q1_x", "q1_forward_log_slope"})
    assert "Hunter2" not in (root / "out" / "feedback" / f"{name}.md").read_text()


def test_nothing_reached_out(attacked):
    root, _, visits = attacked
    assert list((root / "probe").iterdir()) == [] and visits == []


def test_the_probe_would_see_an_attack(tmp_path):
    """Negative control: without a cage the same code writes, and reads the secret."""
    (tmp_path / "secret").write_text("Hunter2\n")
    bodies = submissions.attacks(tmp_path, 1, tmp_path / "secret")
    for name in ("a1_write", "a3_read_others"):
        space = {}
        exec("def f(z):\n    " + bodies[name].replace("\n", "\n    "), space)
        if name == "a1_write":
            space["f"](0)
            assert (tmp_path / "a1").exists()
        else:
            with pytest.raises(Exception, match="Hunter2"):
                space["f"](0)


def without_namespaces(folder, out):
    """Grade as an ordinary user with --no-isolation; only harmless submissions may be given to it."""
    user = ["unshare", "--user", "--map-user=1000", "--map-group=1000"] if os.geteuid() == 0 else []
    if user and subprocess.run([*user, "true"], capture_output=True).returncode:
        pytest.skip("as root, without a way to become an ordinary user")
    done = subprocess.run([*user, sys.executable, "-m", "flowlib.exercises", "grade", folder, out, "--no-isolation"],
                          cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done


def test_without_namespaces_it_says_what_stays_open(tmp_path):
    expected = submissions.trial()
    names = ["s0_perfect", "s6_loop", "s7_cheat_patch", "s8_cheat_exit"]
    for name in names:
        submissions.write(tmp_path / "subs", name, expected[name][0])
    done = without_namespaces(tmp_path / "subs", tmp_path / "out")
    assert all(word in done.stderr for word in ("no namespaces", "files", "programs")) and "isolation off" in done.stdout
    with open(tmp_path / "out" / "grades.csv", newline="") as file:
        for row in csv.DictReader(file):
            assert_points(row, expected[row["student"]][1])


def test_feedback_leaks_no_file_even_without_namespaces(tmp_path):
    bodies = submissions.attacks(tmp_path, 1, ROOT / "LICENSE")
    for name in ("a3_read_others", "a4_leak_by_a_name"):
        submissions.write(tmp_path / "subs", name, submissions.attack_notebook(bodies[name]))
    without_namespaces(tmp_path / "subs", tmp_path / "out")
    texts = [path.read_text() for path in (tmp_path / "out").rglob("*.*")]
    first = (ROOT / "LICENSE").read_text().split("\n")[0]
    assert len(texts) == 3 and not any(first in text for text in texts)
    assert all("another exception" in text for text in texts if text.startswith("#"))


def test_root_without_namespaces_is_refused_unless_it_can_be_nobody(monkeypatch):
    monkeypatch.setattr(sandbox.os, "geteuid", lambda: 0)
    monkeypatch.setattr(sandbox.Sandbox, "_probe", lambda self: "no")
    with pytest.raises(PermissionError, match="ordinary account"), sandbox.Sandbox():
        pass
    monkeypatch.setattr(sandbox.Sandbox, "_probe", lambda self: "no" if self.isolated else "")
    with sandbox.Sandbox() as box:
        assert not box.isolated and len(box.gaps) == 2


@pytest.fixture(scope="module")
def child():
    """Runs a function `f`, or another one, in a child and gives its values."""
    with sandbox.Sandbox() as box:
        def run(source, function="f", **options):
            return box.run([(1, source)], function, [([], [], [])], **options)
        run.isolated = box.isolated
        yield run


def test_a_child_has_no_rights_and_no_environment(monkeypatch):
    monkeypatch.setenv("SECRET", "x")
    source = ("import ctypes, os\ndef f():\n    c = ctypes.CDLL(None)\n"
              "    return os.getuid(), c.mount(b'tmpfs', b'/usr', b'tmpfs', 0, None), len(os.environ.get('SECRET', ''))")
    with sandbox.Sandbox() as box:
        values = box.run([(1, source)], "f", [([], [], [])])
    assert values["0_r0"] == (65534 if os.geteuid() == 0 else os.geteuid())
    assert values["0_r1"] == -1 and values["0_r2"] == 0


def test_children_share_nothing(child):
    """Forward leaves a note; inverse of the same run does not find it."""
    if not child.isolated:
        pytest.skip("no namespaces on this machine")
    places = "('/scratch/note', '/tmp/note', '/dev/shm/note')"
    source = (f"import os\ndef leave():\n    for place in {places}:\n        try: open(place, 'w').close()\n        except OSError: pass\n"
              f"    return find()\ndef find():\n    return sum(map(os.path.exists, {places}))")
    assert child(source, "leave")["0_r0"] >= 1  # so the note can be left, and
    assert child(source, "find")["0_r0"] == 0


def test_limits_are_those_of_the_job(child):
    with pytest.raises(sandbox.NoAnswer, match="stopped after 1 s"):
        child("def f():\n    while True: pass", seconds=1)
    with pytest.raises(sandbox.NoAnswer, match="out of memory"):
        child("def f():\n    return bytearray(1 << 29)", memory=1 << 28)


def test_the_place_of_an_exception_is_told_and_its_words_are_not(child):
    with pytest.raises(sandbox.NoAnswer) as told:
        child("def f():\n    x = 1\n    raise ValueError('Hunter2')")
    assert str(told.value) == "stopped with ValueError in code cell 1, line 3"


@pytest.mark.parametrize("source", [
    "%%time\ndef f(): return 3", "def f(): return ''' \n% x\n''' and 3", "try:\n    from nowhere import g\nexcept ImportError:\n    def g(): return 3\ndef f(): return g()",
    "def f(): return 0\nf.k = 3\ng = f\ndef f(): return g.k", "from math import *\ndef f(): return floor(pi)", "a = [0]\na[0] = 3\ndef f(): return a[0]",
    "k = boom()\nk = 3\ndef f(): return k", "while True: pass\ndef f(): return 3"])
def test_extraction(child, source):
    assert child(source)["0_r0"] == 3


def test_an_import_that_the_set_does_not_allow_is_refused(child):
    source = "def f():\n    import wave\n    return 3"
    assert child(source)["0_r0"] == 3
    with pytest.raises(sandbox.NoAnswer, match=r"does not allow \(wave\)"):
        child(source, forbidden=["wave"])


def npz(save=np.savez, **arrays):
    import io
    buffer = io.BytesIO()
    save(buffer, **arrays)
    return buffer.getvalue()


def test_only_plain_arrays_are_read():
    assert sandbox.read_arrays(npz(a=np.ones(2)))["a"].tolist() == [1, 1]
    for raw in (npz(a=np.array([{}], dtype=object)), npz(np.savez_compressed, a=np.ones(2)), b"", npz(a=np.ones(2))[:-9]):
        with pytest.raises(Exception):
            sandbox.read_arrays(raw)


def test_reasons_from_a_child_are_from_a_list():
    job = {"function": "f", "forbidden": [], "cells": [(1, "x")]}
    assert sandbox.explain(["raised", "Hunter2", "1", "1"], job) == "stopped with another exception in code cell 1, line 1"
    assert sandbox.explain(["raised", "ValueError", "7", "2"], job) == "stopped with ValueError"
    with pytest.raises(KeyError):
        sandbox.explain(["Hunter2", "", "0", "0"], job)


def test_close_is_strict():
    one = np.ones(3)
    assert judge.close(one + 1e-7, one) and judge.close(np.array([-np.inf]), np.array([-np.inf]))
    for given in (one * np.nan, one + 1e-3, np.ones(()), np.ones((3, 1)), None, np.array(["1", "1", "1"]), np.array([np.inf] * 3)):
        assert not judge.close(given, one)


def test_names_of_students_are_distinct_and_no_formula():
    names = collect.student_names(["a-b.ipynb", "a/b.ipynb", "=1+1.ipynb", "Ann Lee/ps1.ipynb"])
    assert len(set(names)) == 4 and names[2:] == ["1+1", "Ann_Lee-ps1"]


def test_a_seed_repeats_and_no_seed_does_not():
    question = PS1.questions[0]
    a, b, c = (question.ask(np.random.default_rng(seed))[1]["0_r0"] for seed in (1, 1, 2))
    assert np.array_equal(a, b) and not np.array_equal(a, c)


def test_command(tmp_path):
    submissions.write(tmp_path / "subs", "ann", submissions.notebook(submissions.GOOD))
    done = subprocess.run([sys.executable, "-m", "flowlib.exercises", "grade", tmp_path / "subs", tmp_path / "out", "--jobs", "1"],
                          cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "ps1: 1 submissions" in done.stdout and "ann,1,1,1,1" in (tmp_path / "out" / "grades.csv").read_text()
    done = subprocess.run([sys.executable, "-m", "flowlib.exercises", "grade", tmp_path / "out", tmp_path / "x"],
                          cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and "no .ipynb" in done.stderr
