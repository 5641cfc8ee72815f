"""The list of mutants fits the package: each changes one place, and names tests that are there. `make mutants` runs them."""
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "mutants"))

import run  # noqa: E402

ALL = run.mutants()


def test_the_list_is_long_enough_and_current():
    assert [run.stale(mutant) for mutant in ALL if run.stale(mutant)] == []
    assert len(ALL) >= 100 and len({(m.file, m.old, m.new) for m in ALL}) == len(ALL)


def test_an_entry_that_changes_nothing_is_found():
    good = ALL[0]
    for bad in (dict(old="no such text"), dict(old="\n"), dict(file="flowlib/none.py"), dict(tests="tests/test_none.py")):
        assert run.stale(run.Mutant(**{**vars(good), **bad}))


@pytest.mark.parametrize("body, alive", [("assert f() == 1", False), ("f()", True)], ids=["killed", "survives"])
def test_a_mutant_lives_exactly_where_its_tests_pass(tmp_path, body, alive):
    (tmp_path / "code.py").write_text("def f():\n    return 1\n")
    (tmp_path / "test_code.py").write_text(f"from code_ import f\n\n\ndef test_f():\n    {body}\n".replace("code_", "code"))
    (tmp_path / "conftest.py").write_text("import sys\nsys.path.insert(0, '.')\nsys.modules.pop('code', None)\n")
    folders = run.SimpleQueue()
    folders.put(tmp_path)
    assert run.survives(run.Mutant("code.py", "return 1", "return 2", "test_code.py"), folders) == alive
    assert "return 1" in (tmp_path / "code.py").read_text()
