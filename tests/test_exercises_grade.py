"""Grading: the submissions of the trial and the attacks get the right points, and nothing reaches out of the child."""
import csv
import dataclasses
import errno
import os
import platform
import signal
import socket
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import submissions

from flowlib.exercises import collect, contain, grade, judge, sandbox

ROOT = Path(__file__).parents[1]


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
    # would be full points, and any file of the instructor's
    (root / "subs" / "link.ipynb").symlink_to(submissions.SOURCE)
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
    ("s6_loop", "Stopped after 5 s"), ("s7_cheat_patch", "X is not the image of z"),
    ("s8_cheat_exit", "without an answer")])
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
    assert all(word in done.stderr for word in ("no namespaces", "files", "programs"))
    assert "isolation off" in done.stdout
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
        run.isolated, run.filtered = box.isolated, box.filtered
        yield run


def test_a_child_has_no_rights_and_no_environment(monkeypatch):
    monkeypatch.setenv("SECRET", "x")
    source = ("import ctypes, os\ndef f():\n    c = ctypes.CDLL(None)\n"
              "    return os.getuid(), c.mount(b'tmpfs', b'/usr', b'tmpfs', 0, None), "
              "len(os.environ.get('SECRET', ''))")
    with sandbox.Sandbox() as box:
        values = box.run([(1, source)], "f", [([], [], [])])
    assert values["0_r0"] == (65534 if os.geteuid() == 0 else os.geteuid())
    assert values["0_r1"] == -1 and values["0_r2"] == 0


def test_children_share_nothing(child):
    """Forward leaves a note; inverse of the same run does not find it."""
    if not child.isolated:
        pytest.skip("no namespaces on this machine")
    places = "('/scratch/note', '/tmp/note', '/dev/shm/note')"
    source = (f"import os\ndef leave():\n    for place in {places}:\n        try: open(place, 'w').close()\n        "
              f"except OSError: pass\n"
              f"    return find()\ndef find():\n    return sum(map(os.path.exists, {places}))")
    assert child(source, "leave")["0_r0"] >= 1  # so the note can be left, and
    assert child(source, "find")["0_r0"] == 0


KERNEL = """
import ctypes, os, socket, threading
c = ctypes.CDLL(None, use_errno=True)
def tried(call):
    try:
        return call()
    except OSError as error:
        return -error.errno
def system(number, *arguments):
    ctypes.set_errno(0)
    return -ctypes.get_errno() if c.syscall(number, *arguments) < 0 else 0
def f():
"""
FORBIDDEN = {  # what no namespace holds: each gives EPERM
    "a process": "tried(os.fork)",
    "a process by another name": "tried(lambda: os.posix_spawn('/bin/true', ['true'], {{}}))",
    "the internet": "tried(lambda: socket.socket(socket.AF_INET).close())",
    "vsock": "tried(lambda: socket.socket(40).close())",
    "a file in memory": "tried(lambda: os.memfd_create('x'))", "shared memory": "system({shmget}, 0, 4096, 0o1600)",
    "a key": "system({add_key}, b'user', b'note', b'x', 1, -3)", "a keyring": "system({keyctl}, 1, None)",
    "a namespace": "system({unshare}, 0x10000000)",
    "a process in a namespace": "system({clone}, 0x10000011, 0, 0, 0, 0)",
    "a thread in a namespace": "system({clone}, 0x20000 | 0x10f00, 0, 0, 0, 0)",
    "the second table": "system(0x40000000 + 39)"}


def on_this_machine(source):
    column = contain.MACHINES[platform.machine()][0]
    numbers = {name: both[column] for calls in contain.CALLS.values() for name, both in calls.items()}
    return source.format(clone=contain.CLONE[column], **numbers)


@pytest.mark.parametrize("what", FORBIDDEN)
def test_what_no_namespace_holds_is_refused(child, what):
    if not child.filtered:
        pytest.skip("no filter of system calls on this machine")
    source = f"{KERNEL}    return {on_this_machine(FORBIDDEN[what])}"
    assert child(source)["0_r0"] == -errno.EPERM


def test_what_is_refused_could_be_done_without_the_filter():
    """Negative control: else the test above could not fail."""
    done = ["a file in memory", "shared memory", "a process"]
    code = (f"{KERNEL}    return [{', '.join(on_this_machine(FORBIDDEN[what]) for what in done)}]\nprint(min(f()), "
            f"flush=True)")
    lines = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert lines and all(int(line) >= 0 for line in lines)


def test_threads_and_pairs_of_sockets_still_work(child):
    source = (f"{KERNEL}    done = []\n    thread = threading.Thread(target=lambda: done.append(3))\n"
              "    thread.start()\n    thread.join()\n    a, b = socket.socketpair()\n    return done[0]")
    assert child(source)["0_r0"] == 3


@pytest.mark.skipif(sys.platform != "linux", reason="keys of the kernel are Linux's")
def test_the_keyring_of_the_instructor_is_not_that_of_the_child(monkeypatch):
    """Also where there is no filter: the serial number of the session keyring is another one."""
    number = on_this_machine("{keyctl}")
    code = f"import ctypes; print(ctypes.CDLL(None).syscall({number}, 0, -3, 0))"
    mine = int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout)
    if mine <= 0:
        pytest.skip("no session keyring on this machine")
    monkeypatch.setattr(contain, "can_forbid_calls", lambda: False)
    with sandbox.Sandbox() as box:
        assert not box.filtered and any("processes" in gap for gap in box.gaps)
        theirs = box.run([(1, f"{KERNEL}    return c.syscall({number}, 0, -3, 0)")], "f", [([], [], [])])["0_r0"]
    assert theirs > 0 and theirs != mine


@pytest.mark.parametrize("column, architecture", contain.MACHINES.values())
def test_the_filter_of_both_machines(column, architecture):
    """The program, run here: every listed call is refused, and clone by its flags, read and write pass."""
    def verdict(number, argument=0, machine=architecture):
        seen = {contain.ARCHITECTURE: machine, contain.NUMBER: number, contain.FIRST_ARGUMENT: argument}
        program, line, value = contain.call_filter(column, architecture), 0, None
        while True:
            code, if_true, if_false, k = program[line]
            if code == contain.RETURN:
                return k
            if code == contain.LOAD:
                value, line = seen[k], line + 1
                continue
            holds = {contain.EQUAL: value == k, contain.AT_LEAST: value >= k, contain.ANY_BIT: bool(value & k)}[code]
            line += 1 + (if_true if holds else if_false)
    refused, clone = contain.REFUSE | errno.EPERM, contain.CLONE[column]
    listed = {numbers[column] for calls in contain.CALLS.values() for numbers in calls.values()} - {None}
    assert {verdict(number) for number in listed} == {refused}
    assert verdict(clone, 17) == verdict(clone, contain.NEWUSER | contain.CLONE_THREAD) == refused
    assert verdict(clone, 0x3D0F00) == contain.ALLOW  # the flags of pthread_create
    assert verdict(contain.CLONE3) == contain.REFUSE | errno.ENOSYS
    assert verdict(0, machine=0x40000003) == contain.KILL and verdict(contain.X32 + 1) == refused
    assert {verdict(number) for number in ((0, 1, 9, 231), (63, 64, 222, 94))[column]} == {contain.ALLOW}


def test_one_limit_of_memory_for_all_of_a_submission(child):
    """Memory of forks, of shared files and of its own, together: a quarter of the limit each, five times."""
    if not (child.filtered and child.isolated):
        pytest.skip("no filter of system calls, or no namespaces, on this machine")
    source = (f"import mmap\n{KERNEL}    held = []\n    for k in range(5):\n"
              "        try:\n            if os.fork() == 0:\n                b = bytearray(1 << 26)\n               "
              " os.pause()\n"
              "        except OSError: pass\n"
              "        try:\n            d = os.memfd_create('x')\n            os.truncate(d, 1 << 26)\n"
              "        except OSError: held.append(mmap.mmap(-1, 1 << 26))\n    return 3")
    with pytest.raises(sandbox.NoAnswer):
        child(source, memory=1 << 28)


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
    "%%time\ndef f(): return 3", "def f(): return ''' \n% x\n''' and 3",
    "try:\n    from nowhere import g\nexcept ImportError:\n    def g(): return 3\ndef f(): return g()",
    "def f(): return 0\nf.k = 3\ng = f\ndef f(): return g.k", "from math import *\ndef f(): return floor(pi)",
    "a = [0]\na[0] = 3\ndef f(): return a[0]",
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
    for raw in (npz(a=np.array([{}], dtype=object)), npz(a=np.ones(2, dtype=complex)),
                npz(np.savez_compressed, a=np.ones(2)), b"", npz(a=np.ones(2))[:-9]):
        with pytest.raises((ValueError, zipfile.BadZipFile)):
            sandbox.read_arrays(raw)


def test_reasons_from_a_child_are_from_a_list():
    job = {"function": "f", "forbidden": [], "cells": [(1, "x")]}
    assert sandbox.explain(["raised", "Hunter2", "1", "1"],
                           job) == "stopped with another exception in code cell 1, line 1"
    for cell, line in (("7", "1"), ("1", "2"), ("1", "0"), ("1", "-1")):  # what the notebook does not have
        assert sandbox.explain(["raised", "ValueError", cell, line], job) == "stopped with ValueError"
    assert sandbox.explain(["raised", "BytesWarning", "0", "0"], job) == "stopped with another exception"
    with pytest.raises(KeyError):
        sandbox.explain(["Hunter2", "", "0", "0"], job)


def test_close_is_strict():
    one = np.ones(3)
    assert judge.close(one + 1e-7, one) and judge.close(np.array([-np.inf]), np.array([-np.inf]))
    for given in (one * np.nan, one + 1e-3, np.ones(()), np.ones((3, 1)), None, np.array(["1", "1", "1"]),
                  np.array([np.inf] * 3)):
        assert not judge.close(given, one)


def test_names_of_students_are_distinct_and_no_formula():
    names = collect.student_names(["a-b.ipynb", "a/b.ipynb", "=1+1.ipynb", "Ann Lee/ps1.ipynb"])
    assert len(set(names)) == 4 and names[2:] == ["1+1", "Ann_Lee-ps1"]


def test_a_seed_repeats_and_no_seed_does_not():
    question = PS1.questions[0]
    a, b, c = (question.ask(np.random.default_rng(seed))[1]["0_r0"] for seed in (1, 1, 2))
    assert np.array_equal(a, b) and not np.array_equal(a, c)


IPYTHON = [  # each runs in Jupyter and stands in the cell of a right answer
    "%%time\n{}  # is the sign right?", "!pip install -q numpy, don't ask (\n{}",
    "files = !ls\nt = %timeit -o -n1 -r1 1+1\n{}",
    "%matplotlib inline\n{}\ntorch.log?\n?torch.log", "{}\n%timeit x = (1,  # why not 2?\n\nprint(0\n      % 3)"]
FILLED = {  # the right answer, in the manner of a notebook
    "a loop": "POWERS = {{}}\nfor k in range(3):\n    POWERS[k] = k\n{}", "append": "L = []\nL.append(1)\n{}",
    "update": "CFG = {{}}\nCFG.update(one=1)\n{}", "walrus": "print(one := 1)\n{}",
    "setattr": "{}\nsetattr({name}, 'one', 1)"}
USED = {"a loop": "POWERS[1]", "append": "L[0]", "update": "CFG['one']", "walrus": "one",
        "setattr": "weibull_inverse.one"}


def test_honest_notebooks_get_their_points(tmp_path):
    name = "weibull_inverse"
    for number, form in enumerate(IPYTHON):
        submissions.write(tmp_path / "subs", f"ipython{number}", submissions.notebook(
            submissions.GOOD | {name: form.format(submissions.GOOD[name])}))
    for what, form in FILLED.items():
        answer = submissions.changed(name, ("return torch.exp(-power)", f"return {USED[what]} * torch.exp(-power)"))
        submissions.write(tmp_path / "subs", what,
                          submissions.notebook(submissions.GOOD | {name: form.format(answer, name=name)}))
    rows, _ = graded(tmp_path / "subs", tmp_path / "out")
    assert len(rows) == 10
    for row in rows.values():
        assert_points(row, set())


def test_ctrl_c_stops_at_once_and_keeps_what_is_done(tmp_path, monkeypatch):
    """The second function would run for a day; the interrupt comes while it does."""
    endless = {name: f"def {name}(*a):\n    while True: pass" for name in submissions.GOOD}
    submissions.write(tmp_path / "subs", "ann", submissions.notebook(submissions.GOOD))
    for name in ("bob", "eve"):
        submissions.write(tmp_path / "subs", name, submissions.notebook(endless))
    real, asked = grade.grade_one, []

    def with_time(cells, problems, box, seed):
        asked.append(cells)
        if len(asked) == 2:
            days = [dataclasses.replace(question, seconds=86_400) for question in problems.questions]
            problems = dataclasses.replace(problems, questions=days)
            threading.Timer(0.5, signal.pthread_kill, (threading.main_thread().ident, signal.SIGINT)).start()
        return real(cells, problems, box, seed)

    monkeypatch.setattr(grade, "grade_one", with_time)
    said = []
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a process of pytest-xdist ignores it
    try:
        with pytest.raises(KeyboardInterrupt):
            grade.grade(tmp_path / "subs", tmp_path / "out", name="ps1", jobs=1, say=said.append)
    finally:
        signal.signal(signal.SIGINT, before)
    with open(tmp_path / "out" / "grades.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["student"] == "ann" and row["automatic"] == "18" and len(asked) == 2
    assert "stopped after 1 of 3" in said[-1]
    assert [path.name for path in (tmp_path / "out" / "feedback").iterdir()] == ["ann.md"]


def test_a_mistake_of_the_grader_itself_stops_nobody(tmp_path, monkeypatch):
    for name in ("ann", "bob"):
        submissions.write(tmp_path / "subs", name, submissions.notebook(submissions.GOOD))
    real, asked = grade.grade_one, []

    def first_fails(*arguments):
        asked.append(arguments)
        return real(*arguments) if len(asked) > 1 else 1 / 0

    monkeypatch.setattr(grade, "grade_one", first_fails)
    rows, said = graded(tmp_path / "subs", tmp_path / "out", jobs=1)
    assert rows["ann"]["automatic"] == "0" and "by hand" in rows["ann"]["remark"] and rows["bob"]["automatic"] == "18"
    assert any("ann.ipynb: the grader failed with ZeroDivisionError" in line for line in said)


def test_command(tmp_path):
    submissions.write(tmp_path / "subs", "ann", submissions.notebook(submissions.GOOD))
    done = subprocess.run([sys.executable, "-m", "flowlib.exercises", "grade", tmp_path / "subs", tmp_path / "out",
                           "--jobs", "1"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "ps1: 1 submissions" in done.stdout and "ann,1,1,1,1" in (tmp_path / "out" / "grades.csv").read_text()
    done = subprocess.run([sys.executable, "-m", "flowlib.exercises", "grade", tmp_path / "out", tmp_path / "x"],
                          cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and "no .ipynb" in done.stderr
