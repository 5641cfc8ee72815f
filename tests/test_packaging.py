"""What stands about the package outside of its code agrees with it."""
import contextlib
import importlib.metadata
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import torch

import flowlib
from flowlib.__main__ import main
from flowlib.data import files, full

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


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel that `pip install .` builds, unpacked; of a copy, since building leaves things in the tree."""
    folder = tmp_path_factory.mktemp("wheel")
    (folder / "source").mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / "source")
    shutil.copytree(ROOT / "flowlib", folder / "source" / "flowlib", ignore=shutil.ignore_patterns("__pycache__"))
    build = f"from setuptools.build_meta import build_wheel; build_wheel({str(folder)!r})"
    subprocess.run([sys.executable, "-c", build], cwd=folder / "source", check=True, capture_output=True)
    [archive] = folder.glob("*.whl")
    zipfile.ZipFile(archive).extractall(folder / "site")
    return folder / "site"


def test_the_wheel_holds_the_whole_package(wheel):
    here = {path.relative_to(ROOT) for path in (ROOT / "flowlib").rglob("*")
            if path.is_file() and "__pycache__" not in path.parts}
    there = {path.relative_to(wheel) for path in (wheel / "flowlib").rglob("*") if path.is_file()}
    assert there == here


def needed(*names):
    """Distributions and all that they need here, extras apart."""
    found, waiting = {}, [*names]
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):  # for another system
            if name not in found:
                found[name] = importlib.metadata.distribution(name)
                needs = [need for need in found[name].requires or () if "extra ==" not in need]
                waiting += [re.split(r"[^\w.-]", need)[0] for need in needs]
    return found.values()


BARE = """
import sys
sys.path[:0] = {paths}
import torch, flowlib, flowlib.__main__
flow = flowlib.RealNVP(2)
x = flow.distribution().sample((5,))
flow.log_prob(x).sum().backward()
assert flowlib.Flow(flowlib.StandardNormal(2), flowlib.Planar(2)).log_prob(x).shape == (5,)
flowlib.__main__.main([])
brought = {{name.split(".")[0] for name in sys.modules}} & {others}
assert not brought, brought
"""


def test_the_wheel_works_where_only_torch_and_numpy_are(wheel, tmp_path):
    for distribution in needed("torch", "numpy"):
        for file in distribution.files or ():
            if (top := file.parts[0]) != ".." and not (tmp_path / top).exists():
                (tmp_path / top).symlink_to(Path(distribution.locate_file(top)))
    others = {"scipy", "matplotlib", "sklearn", "tqdm", "accelerate", "pooch", "safetensors", "IPython", "PIL"}
    script = BARE.format(paths=[str(wheel), str(tmp_path)], others=others)
    run = subprocess.run([sys.executable, "-I", "-S", "-c", script], capture_output=True, text=True, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    first, *lines = run.stdout.splitlines()
    assert first.startswith(f"flowlib {flowlib.__version__}, torch {torch.__version__}")
    text = "\n".join(lines)
    for word in ("RealNVP", "digits", "flow.log_prob(x)", "python -m flowlib.train"):
        assert word in text


def test_what_is_there_is_told_and_what_is_not(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("FLOWLIB_DATA", str(tmp_path))
    monkeypatch.setattr(files, "cache", lambda: tmp_path / "cache")
    main([])
    assert " mnist (not here yet)" in capsys.readouterr().out
    for file in full.SETS["mnist"].files:
        path = tmp_path / "mnist" / f"{file}.gz"
        path.parent.mkdir(exist_ok=True)
        path.touch()
    main([])
    text = capsys.readouterr().out
    assert " mnist (not here yet)" not in text and "fashion-mnist (not here yet)" in text
    with pytest.raises(SystemExit) as error:
        main(["--what"])
    assert error.value.code == 2 and "--what" in capsys.readouterr().err
