"""Imports point one way, and every rule that says so can fire."""
import ast
from pathlib import Path

import architecture
import pytest

ROOT = Path(__file__).parents[1]


def test_the_package_keeps_its_order():
    edges = architecture.graph(ROOT / "flowlib")
    assert architecture.faults(edges) == []
    # what a reader of that file sees
    assert "coupling.halves" in edges["coupling.vector"] and "nets.mlp" in edges["coupling.vector"]


@pytest.mark.parametrize("edges, said", [
    ({"core": {"train.loop"}, "train.loop": set()}, "core (The contract) imports train.loop from above"),
    ({"coupling.glow": {"coupling.nice"}, "coupling.nice": set()},
     "the model coupling.glow imports the model coupling.nice"),
    ({"core": {"bases"}, "bases": {"checks"}, "checks": {"core"}},
     "a cycle of imports: core -> bases -> checks -> core"),
    ({"newcomer": set()}, "newcomer stands on no floor"),
], ids=["from above", "model to model", "cycle", "no floor"])
def test_what_breaks_the_order_is_said(edges, said):
    found = architecture.faults(edges)
    assert len(found) == 1 and said in found[0]


def test_imports_are_read_in_every_form(tmp_path):
    files = {"__init__.py": "from .core import f", "core.py": "", "bases.py": "", "seeds.py": "", "checks.py": "",
             "nets/__init__.py": "", "nets/mlp.py": "from .. import core\nfrom ..bases import Normal\n"
             "def late():\n    import package.seeds\nif TYPE_CHECKING:\n    from .. import checks\n",
             "nets/conv.py": "from . import mlp"}
    for name, text in files.items():
        path = tmp_path / "package" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    edges = architecture.graph(tmp_path / "package")
    assert edges["nets.mlp"] == {"core", "bases", "seeds"}
    assert edges["nets.conv"] == {"nets.mlp"}


def test_the_page_names_every_module_that_says_what_it_is_for():
    page = architecture.page(ROOT / "flowlib")
    assert page.count("<svg") == 1
    for name in ("core", "coupling.glow", "train.loop", "evaluate.importance"):
        assert f"[`{name}`]" in page


def test_a_line_that_follows_from_two_others_is_not_drawn():
    edges = {"vae": {"elementwise.base", "core"}, "elementwise.base": {"core"}, "core": set()}
    assert architecture.necessary(edges) == {("vae", "elementwise"), ("elementwise", "core")}


def test_every_model_stands_on_the_floor_of_models():
    """Or the rule that no model imports another would not be asked of it."""
    for name, path in architecture.modules(ROOT / "flowlib").items():
        classes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ClassDef)]
        if any(ast.unparse(base) == "Flow" for node in classes for base in node.bases):
            assert architecture.floor(name) == architecture.MODELS, name
