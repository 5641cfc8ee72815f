"""The set-up cell in its three situations, and the one place that holds the repository's address."""
import json
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "book" / "tools"))

import setup_cell  # noqa: E402

USE = "import flowlib, torch\nprint(flowlib.__file__)\nprint(flowlib.Flow(flowlib.Uniform(0., 1.), flowlib.AffineMap(2., 1.)).log_prob(torch.tensor([2.])).exp().item())"


def git(folder, *command):
    return subprocess.run(["git", "-c", "user.name=n", "-c", "user.email=e", "-C", str(folder), *command],
                          check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def remote(tmp_path_factory):
    """A bare repository with the package as it lies here, tagged v9: stands for the public one."""
    work, bare = tmp_path_factory.mktemp("work"), tmp_path_factory.mktemp("remote") / "flows.git"
    for name in git(ROOT, "ls-files", "flowlib", "pyproject.toml", "README.md", "LICENSE").splitlines():
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, work / name)
    git(work, "init", "-q", "-b", "main")
    git(work, "add", ".")
    git(work, "commit", "-q", "-m", "all")
    git(work, "tag", "v9")
    git(work, "clone", "-q", "--bare", str(work), str(bare))
    return f"file://{bare}"


@pytest.fixture
def python(tmp_path):
    """An interpreter with torch and pip but without flowlib; what it installs stays in tmp_path."""
    venv.create(tmp_path / "env", with_pip=False)
    packages = next((tmp_path / "env").rglob("site-packages"))
    (packages / "here.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return tmp_path / "env" / "bin" / "python"


def run(python, folder, url, ref="v9"):
    """Run the cell and then use the package, in one process as in a notebook; returns where flowlib came from."""
    folder.mkdir(exist_ok=True)
    # without build isolation: setuptools is there already, and no index is asked
    environment = {"PATH": "/usr/bin:/bin", "PIP_NO_BUILD_ISOLATION": "0", "PIP_NO_INDEX": "1", "HOME": str(folder)}
    done = subprocess.run([str(python), "-c", setup_cell.cell(url, ref) + "\n" + USE], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    place, density = done.stdout.split()[-2:]
    assert density == "0.5"
    return Path(place)


def test_in_a_clone(python):
    for folder in (ROOT, ROOT / "lessons"):
        assert run(python, folder, "file:///nowhere").parent == ROOT / "flowlib"


def test_neither(python, tmp_path, remote):
    package = run(python, tmp_path / "empty", remote).parent
    assert tmp_path / "env" in package.parents
    files = git(ROOT, "ls-files", "flowlib").splitlines()
    assert [file for file in files if not (package.parent / file).is_file()] == []  # data, demos and checkpoints too


def test_installed(python, tmp_path, remote):
    first = run(python, tmp_path / "empty", remote)
    assert run(python, tmp_path / "empty", "file:///nowhere") == first  # nothing is fetched a second time


def test_an_unknown_release_stops_the_lesson(python, tmp_path, remote):
    with pytest.raises(AssertionError, match="CalledProcessError"):
        run(python, tmp_path / "empty", remote, ref="v10")


HOLDERS = ["CITATION.cff", "book/welcome.md", "pyproject.toml"]


@pytest.mark.parametrize("name", HOLDERS)
def test_address_is_the_one_of_the_configuration(name, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert setup_cell.address() in (ROOT / name).read_text()


@pytest.fixture
def copy(tmp_path, monkeypatch):
    """A small repository: the configuration, a page that names the address, a notebook."""
    cell = {"source": setup_cell.cell("https://github.com/a/flows", "main").splitlines(keepends=True)}
    (tmp_path / "_config.yml").write_text("repository:\n  url: https://github.com/a/flows\n")
    (tmp_path / "page.md").write_text("https://github.com/a/flows, https://github.com/a/flows-two, v1\n")
    (tmp_path / "lesson.ipynb").write_text(json.dumps({"cells": [cell]}, indent=1) + "\n")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def lesson_cell():
    return "".join(json.loads(Path("lesson.ipynb").read_text())["cells"][0]["source"])


def test_repository_command_changes_every_place(copy):
    setup_cell.main("repository", "https://github.com/b/book.git")
    assert setup_cell.address() == "https://github.com/b/book"
    assert Path("page.md").read_text() == "https://github.com/b/book, https://github.com/a/flows-two, v1\n"
    assert lesson_cell() == setup_cell.cell("https://github.com/b/book", "main")


def test_release_command_changes_every_lesson(copy):
    setup_cell.main("release", "v1.0")
    assert lesson_cell() == setup_cell.cell("https://github.com/a/flows", "v1.0")


@pytest.mark.parametrize("command, value", [("repository", "flows"), ("repository", "https://github.com/b"), ("release", 'v1"; x')])
def test_unusable_values_are_refused(copy, command, value):
    with pytest.raises(SystemExit, match="not a usable"):
        setup_cell.main(command, value)
    assert re.search(r"a/flows$", setup_cell.address())
