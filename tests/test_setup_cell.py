"""The set-up cell in its situations, the one place that holds the repository's address, and the buttons that lead
there."""
import json
import shutil
import subprocess
import sysconfig
import venv
from pathlib import Path
from types import SimpleNamespace

import address
import pytest
import setup_cell

ROOT = Path(__file__).parents[1]


PUBLIC, NONE = "https://github.com/a/flows", setup_cell.PLACEHOLDER + "flows/flows"
FIND = "print(importlib.util.find_spec('flowlib').origin)"  # what `import` would find, without importing torch
USE = FIND + ("\nimport flowlib, torch\nflow = flowlib.Flow(flowlib.Uniform(0., 1.), flowlib.AffineMap(2., 1.))\n"
              "assert abs(flow.log_prob(torch.tensor([2.])).exp().item() - 0.5) < 1e-6")


def git(folder, *command):
    return subprocess.run(["git", "-c", "user.name=n", "-c", "user.email=e", "-C", str(folder), *command],
                          check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def remote(tmp_path_factory):
    """A bare repository with the package as it lies here stands for the public one; its address and its only commit."""
    work, bare = tmp_path_factory.mktemp("work"), tmp_path_factory.mktemp("remote") / "flows.git"
    for name in git(ROOT, "ls-files", "flowlib", "pyproject.toml", "README.md", "LICENSE").splitlines():
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, work / name)
    git(work, "init", "-q", "-b", "main")
    git(work, "add", ".")
    git(work, "commit", "-q", "-m", "all")
    git(work, "clone", "-q", "--bare", str(work), str(bare))
    return f"file://{bare}", git(work, "rev-parse", "HEAD").strip()


def interpreter(folder):
    """One with torch and pip but without flowlib; what it installs stays in its folder."""
    venv.create(folder, with_pip=False)
    (next(folder.rglob("site-packages")) / "here.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin" / "python"


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """An interpreter in which nothing is ever installed."""
    return interpreter(tmp_path_factory.mktemp("env"))


@pytest.fixture(scope="module")
def installed(tmp_path_factory, remote):
    """An interpreter in which the cell installed flowlib, and where that lies."""
    python = interpreter(tmp_path_factory.mktemp("installed"))
    return python, run(python, tmp_path_factory.mktemp("empty"), *remote)


def run(python, folder, url, commit="", use=USE):
    """Run the cell and then use the package, in one process as in a notebook; returns where flowlib came from."""
    folder.mkdir(exist_ok=True)
    # without build isolation: setuptools is there already, and no index is asked
    environment = {"PATH": "/usr/bin:/bin", "PIP_NO_BUILD_ISOLATION": "0", "PIP_NO_INDEX": "1", "HOME": str(folder)}
    done = subprocess.run([str(python), "-c", setup_cell.cell(url, commit, "v9") + "\n" + use], cwd=folder,
                          env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.split()[-1])


@pytest.mark.parametrize("url", ["file:///nowhere", NONE])
def test_in_a_clone(python, url):
    for folder, use in ((ROOT, FIND), (ROOT / "lessons", USE)):
        assert run(python, folder, url, use=use).parent == ROOT / "flowlib"


def test_neither(installed):
    python, package = installed[0], installed[1].parent
    assert python.parents[1] in package.parents
    files = git(ROOT, "ls-files", "flowlib").splitlines()
    assert [file for file in files if not (package.parent / file).is_file()] == []  # data, demos and checkpoints too


def test_installed(installed, tmp_path):
    python, first = installed
    for url in ("file:///nowhere", NONE):
        assert run(python, tmp_path / "empty", url, use=FIND) == first  # nothing is fetched a second time


def test_an_unknown_commit_stops_the_lesson(python, tmp_path, remote):
    with pytest.raises(AssertionError, match="CalledProcessError"):
        run(python, tmp_path / "empty", remote[0], "0" * 40)


def test_without_an_address_nothing_is_installed(python, tmp_path):
    assert "pip\"," not in setup_cell.cell(NONE) and "example.org" not in setup_cell.cell(NONE)
    with pytest.raises(AssertionError, match="ModuleNotFoundError: flowlib is not here.*clone"):
        run(python, tmp_path / "empty", NONE)


@pytest.mark.parametrize("name", ["CITATION.cff", "pyproject.toml"])
def test_address_is_the_one_of_the_configuration(name, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert setup_cell.address() in (ROOT / name).read_text()


def test_no_other_address_stands_anywhere(monkeypatch):
    monkeypatch.chdir(ROOT)
    holders = {str(path) for path, text in setup_cell.tracked() if setup_cell.address() in text}
    assert holders - {str(path) for path, _ in setup_cell.tracked() if path.suffix == ".ipynb"} == {
        "_config.yml", "CITATION.cff", "pyproject.toml"}


@pytest.mark.parametrize("url, shown", [(NONE, False), (PUBLIC, True)])
def test_the_site_has_buttons_only_with_an_address(url, shown):
    names = ("repository_url", "launch_buttons", "use_repository_button", "use_issues_button")
    options = dict.fromkeys(names, True) | {"repository_url": url, "announcement": ""}
    address.without_buttons(None, SimpleNamespace(html_theme_options=options))
    assert all((name in options) == shown for name in names) and "announcement" in options


def test_the_built_site_has_these_buttons(monkeypatch):
    monkeypatch.chdir(ROOT)
    page = ROOT / "_build" / "html" / "lessons" / "01_why_flows.html"
    if not page.is_file():
        pytest.skip("no site in _build/html: run `make book` first")
    html = page.read_text()
    shown = not setup_cell.address().startswith(setup_cell.PLACEHOLDER)
    assert [word in html for word in ("colab.research.google.com", "btn-source-repository-button",
                                      "btn-source-issues-button")] == [shown] * 3
    assert "example.org" not in html


@pytest.fixture
def copy(tmp_path, monkeypatch):
    """A small repository without an address, tagged v1.0: the configuration, a page that names the address, a
    notebook."""
    cells = [{"cell_type": "markdown", "source": ["# Set-up. \u2192"]},
             {"cell_type": "code", "source": setup_cell.cell(NONE).splitlines(keepends=True)}]
    (tmp_path / "_config.yml").write_text(f"repository:\n  url: {NONE}\n")
    (tmp_path / "page.md").write_text(f"{NONE}, {NONE}-two, v1\n")
    (tmp_path / "lesson.ipynb").write_text(json.dumps({"cells": cells}, indent=1, ensure_ascii=False) + "\n")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "all")
    git(tmp_path, "tag", "v1.0")
    monkeypatch.chdir(tmp_path)
    return git(tmp_path, "rev-parse", "HEAD").strip()


def lesson_cell():
    return "".join(json.loads(Path("lesson.ipynb").read_text())["cells"][1]["source"])


def test_both_commands_change_every_place(copy):
    untouched = Path("lesson.ipynb").read_text()
    setup_cell.main("repository", PUBLIC + ".git")
    assert setup_cell.address() == PUBLIC
    assert Path("page.md").read_text() == f"{PUBLIC}, {NONE}-two, v1\n"
    assert lesson_cell() == setup_cell.cell(PUBLIC, copy, "no release yet")
    setup_cell.main("release", "v1.0")
    assert lesson_cell() == setup_cell.cell(PUBLIC, copy, "v1.0") and f'COMMIT = "{copy}"  # v1.0\n' in lesson_cell()
    setup_cell.main("repository", "https://github.com/b/book")
    assert lesson_cell() == setup_cell.cell("https://github.com/b/book", copy, "v1.0")  # a release stays what it is
    setup_cell.main("repository", NONE)
    assert Path("lesson.ipynb").read_text() == untouched


@pytest.mark.parametrize("command, value, message", [
    ("repository", "flows", "not a usable"), ("repository", "https://github.com/b", "not a usable"),
    ("release", 'v1"; x', "not a usable"), ("release", "v1.0", "first `make repository"),
    ("release", "v2", "has no refs/tags/v2")])
def test_unusable_values_are_refused(copy, command, value, message):
    if value == "v2":
        setup_cell.main("repository", PUBLIC)
    before = Path("lesson.ipynb").read_text()
    with pytest.raises(SystemExit, match=message):
        setup_cell.main(command, value)
    assert Path("lesson.ipynb").read_text() == before
