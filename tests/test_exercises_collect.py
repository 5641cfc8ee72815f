"""Finding and reading submissions: whatever one student hands in, the others are graded, and a row says what
happened."""
import csv
import io
import json
import os
import subprocess
import tempfile
import unicodedata
import zipfile
from pathlib import Path

import pytest
from submissions import GOOD, notebook

from flowlib.exercises import collect, grade, judge, reader

PARTS = judge.load("ps1").parts
PERFECT = json.dumps(notebook(GOOD))
CODE = json.dumps({"cells": [{"cell_type": "code", "source": ["x = 1\n", "y = 2"]},
                             {"cell_type": "markdown", "source": "x"}]})


def packed(*files, compression=zipfile.ZIP_DEFLATED):
    """The bytes of a zip file of (name, content) pairs."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in files:
            archive.writestr(name, content)
    return buffer.getvalue()


def found(folder, **options):
    """place -> its code, or why there is none; and the files not taken."""
    submissions, others = collect.find(folder, **options)
    return {s.place: grade.code_cells(s) for s in submissions}, others


def self_link(folder):
    (folder / "bad.ipynb").symlink_to(folder / "bad.ipynb")


def pipe(folder):
    os.mkfifo(folder / "bad.ipynb")


def deep(folder):
    here = os.open(folder, os.O_RDONLY)
    for _ in range(1200):
        os.mkdir("d", dir_fd=here)
        inner = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(here)


HOSTILE = {
    "a link to itself": (self_link, "not a regular file"),
    "a link to another file": (lambda f: (f / "bad.ipynb").symlink_to(__file__), "not a regular file"),
    "a pipe": (pipe, "not a regular file"),
    "lists in lists": (lambda f: (f / "bad.ipynb").write_text('{"cells": ' + "[" * 10**6), "not a notebook"),
    "text of another kind": (lambda f: (f / "bad.ipynb").write_bytes(b"\xff\x00\x81"), "not a notebook"),
    "no list of cells": (lambda f: (f / "bad.ipynb").write_text('{"cells": 3}'), "not a notebook"),
    "a number as source": (lambda f: (f / "bad.ipynb").write_text('{"cells": [{"cell_type": "code", "source": 3}]}'),
                           "not a notebook"),
    "too much code": (lambda f: (f / "bad.ipynb").write_text(CODE.replace("y = 2", "y" * 2**20)),
                      "more than 1 MB of code"),
    "a zip that is none": (lambda f: (f / "bad.zip").write_bytes(b"PK\x03\x04 and so on"), "a damaged archive"),
    "a zip without a notebook": (lambda f: (f / "bad.zip").write_bytes(packed(("a.txt", "x"))),
                                 "an archive without a notebook"),
    "a zip bomb": (lambda f: (f / "bad.zip").write_bytes(packed(("a.ipynb", b" " * (reader.FILE_SIZE + 1)))),
                   "larger than 100 MB"),
    "a thousand files in a zip in a zip": (lambda f: (f / "bad.zip").write_bytes(packed(
        ("a.zip", packed(*((f"{k}.ipynb", "") for k in range(1000)))))), "an archive of more than 20 notebooks"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_file_says_why_and_stops_nobody(what, tmp_path):
    make, reason = HOSTILE[what]
    (tmp_path / "ann.ipynb").write_text(CODE)
    make(tmp_path)
    rows, _ = found(tmp_path)
    assert rows.pop("ann.ipynb") == [(1, "x = 1\ny = 2")]
    assert set(rows.values()) == {reason}


def test_a_small_file_that_needs_much_memory(tmp_path, monkeypatch):
    """A JSON of empty lists costs twenty times its size; the limit is lowered, so that the test stays cheap."""
    source = Path(reader.__file__).read_text().replace("1 << 30, 10_000", "200 << 20, 10_000")
    (tmp_path / "reader.py").write_text(source)
    monkeypatch.setattr(collect, "READER", tmp_path / "reader.py")
    (tmp_path / "ann.ipynb").write_text(CODE)
    (tmp_path / "bad.ipynb").write_text('{"cells": [' + "[]," * 3_000_000 + "[]]}")
    rows, _ = found(tmp_path)
    assert rows["ann.ipynb"] == [(1, "x = 1\ny = 2")] and "memory" in rows["bad.ipynb"]


def test_a_folder_of_1200_folders(tmp_path):
    (tmp_path / "ann.ipynb").write_text(CODE)
    deep(tmp_path)
    rows, _ = found(tmp_path)
    subprocess.run(["rm", "-r", tmp_path / "d"], check=True)  # which Python cannot
    assert rows.pop("ann.ipynb") == [(1, "x = 1\ny = 2")]
    assert list(rows.values()) == ["more than 32 folders deep"]


def test_what_may_not_be_read_is_named():
    """As an ordinary user, for whom permissions hold."""
    user = os.geteuid()
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        os.chmod(folder, 0o755)
        for name in ("ann.ipynb", "bad.ipynb"):
            (folder / name).write_text(CODE)
        (folder / "closed").mkdir()
        (folder / "closed" / "eve.ipynb").write_text(CODE)
        (folder / "bad.ipynb").chmod(0)
        (folder / "closed").chmod(0)
        if user == 0:
            os.seteuid(65534)
        try:
            (ann, bad, closed), _ = collect.find(folder)
            assert grade.code_cells(bad) == "cannot be read" and closed.fault == "a folder that cannot be read"
        finally:
            os.seteuid(user)
            (folder / "closed").chmod(0o755)
        assert (ann.place, bad.place, closed.place) == ("ann.ipynb", "bad.ipynb", "closed") and ann.cells()


def test_notebooks_of_every_spelling_are_taken_and_other_files_are_named(tmp_path):
    for name in ("PS1.IPYNB", "b/ps1.ipynb", "b/report.pdf", "b/.ipynb_checkpoints/ps1.ipynb", "._b.ipynb",
                 "out/grades.csv"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(CODE)
    rows, others = found(tmp_path, skip=tmp_path / "out")
    assert list(rows) == ["PS1.IPYNB", "b/ps1.ipynb"] and others == ["b/report.pdf"]


def test_zip_files_of_learning_platforms(tmp_path):
    """All students in one, a student's own inside it, names that climb, names in UTF-8 without saying so."""
    raw = packed(("Ann Lee_17/ps1.ipynb", CODE),
                 ("bob.zip", packed(("__MACOSX/._a.ipynb", ""), ("hw/A.ipynb", CODE), ("hw/a.png", ""))),
                 ("../../eve.ipynb", CODE), ("/etc/abs.ipynb", CODE), ("read.me", ""), ("JoXrg.ipynb", CODE))
    (tmp_path / "class.ZIP").write_bytes(raw.replace(b"JoXrg", b"J\xc3\xb6rg"))
    rows, others = found(tmp_path)
    places = ["Ann Lee_17/ps1.ipynb", "Jörg.ipynb", "bob.zip/hw/A.ipynb", "etc/abs.ipynb", "eve.ipynb"]
    assert rows == {f"class.ZIP/{place}": [(1, "x = 1\ny = 2")] for place in places}
    assert others == ["class.ZIP/bob.zip/hw/a.png", "class.ZIP/read.me"]
    assert found(tmp_path / "class.ZIP") == (rows, others)
    assert [path.name for path in tmp_path.rglob("*")] == ["class.ZIP"]


@pytest.mark.parametrize("place, name", [
    ("李明.ipynb", "李明"), ("Zoe\u0308.ipynb", "Zo\u00eb"), ("क्षितिज/ps1.ipynb", "क्षितिज-ps1"), ("مینا.IPYNB", "مینا"),
    ("=HYPERLINK(x).ipynb", "HYPERLINK_x"), ("a\nb\t\u202ec.ipynb", "a_b_c"),
    ("class.zip/Ann Lee/a.ipynb", "class-Ann_Lee-a")])
def test_names_in_every_script(place, name):
    assert collect.student_names([place]) == [name] and unicodedata.is_normalized("NFC", name)


def test_a_name_is_nobody_elses():
    assert collect.student_names(["a b.ipynb", "a-b.ipynb", "a/b.ipynb",
                                  "a-b-2.ipynb"]) == ["a_b", "a-b", "a-b-3", "a-b-2"]
    assert collect.student_names(["ANN.ipynb", "ann.ipynb"]) == ["ANN", "ann"]
    assert collect.distinct(["ANN", "ann", "Ann-2"], key=str.casefold) == ["ANN", "ann-3", "Ann-2"]
    assert len(collect.student_names(["語" * 200 + ".ipynb"])[0].encode()) <= 150


def test_a_place_is_shown_on_one_line_and_is_no_formula():
    assert collect.shown("=1+1.ipynb") == "./=1+1.ipynb"
    assert collect.shown("a\x1b[2J\n\u202e") == "a\ufffd[2J\ufffd\ufffd"


def test_all_are_graded_beside_hostile_files(tmp_path):
    """From the folder to the table: the right ones have their points, the others a remark, and all have their place."""
    subs, out, said = tmp_path / "subs", tmp_path / "out", []
    subs.mkdir()
    long = "語" * 83 + ".ipynb"  # 255 bytes: with another ending it is no name of a file
    for name in ("ann.ipynb", "ANN.ipynb", long):
        (subs / name).write_text(PERFECT)
    (subs / os.fsdecode(b"\xff.ipynb")).write_text(PERFECT)
    (subs / "class.zip").write_bytes(packed(("zoe/ps1.ipynb", PERFECT)))
    (subs / "notes.docx").write_text("")
    (subs / "link.ipynb").symlink_to(subs / "link.ipynb")
    grade.grade(subs, out, seed=1, say=said.append)
    with open(out / "grades.csv", newline="", encoding="utf-8") as file:
        rows = {row["path"]: row for row in csv.DictReader(file)}
    full = {"ann.ipynb", "ANN.ipynb", long, "./\ufffd.ipynb", "class.zip/zoe/ps1.ipynb"}
    assert {path for path, row in rows.items() if row["automatic"] == "18" and row["remark"] == ""} == full
    assert rows.keys() == full | {"link.ipynb"} and rows["link.ipynb"]["remark"] == "not a regular file"
    assert len({row["student"] for row in rows.values()}) == len(list((out / "feedback").iterdir())) == 6
    assert any("notes.docx" in line for line in said) and any("link.ipynb: not a regular" in line for line in said)
