"""What stands about the package outside of its code agrees with it."""
import re
import tomllib
from pathlib import Path

import flowlib

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_one_version():
    assert re.search(r"^version: (\S+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)[1] == flowlib.__version__
    assert f"version {flowlib.__version__}" in (ROOT / "book" / "cite.md").read_text()
    assert f"## {flowlib.__version__}\n" in (ROOT / "CHANGELOG.md").read_text()


def test_all_is_every_extra():
    extras = {name: set(needs) for name, needs in PROJECT["optional-dependencies"].items()}
    everything = extras.pop("all")
    assert everything == set().union(*extras.values())


def test_what_the_package_needs_the_environment_has():
    """requirements.txt, which the lessons and tests use, has at least what pyproject.toml asks of users."""
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    named = {re.split(r"[<>=]", line)[0].lower() for line in lines if line and not line.startswith("#")}
    needed = PROJECT["dependencies"] + PROJECT["optional-dependencies"]["all"]
    names = {re.split(r"[<>=]", need)[0].lower() for need in needed}
    brought = {"pillow", "requests", "ipython"}  # by Matplotlib, by pooch, by ipywidgets
    assert names - brought <= named


def test_every_command_is_there():
    import importlib

    for entry in PROJECT["scripts"].values():
        module, function = entry.split(":")
        assert callable(getattr(importlib.import_module(module), function))
