"""Every test starts from the same seed and checks of torch's distributions, and leaves the default dtype as it was.

E-numbers in the tests are rows of book/corrections.md. Helpers and tools are imported by their bare names: `pythonpath`
in pyproject.toml says where they lie.
"""
import shutil
import sys
import zlib

import pytest
import torch

# benchmarks need three other libraries (`make bench`); exercises hold notebooks to work on; a conftest is no test
collect_ignore = ["benchmarks", "exercises", "conftest.py"]
if sys.platform == "win32":  # grading needs fork: Linux, macOS or WSL
    collect_ignore += [f"test_exercises_{name}.py" for name in ("collect", "grade", "sets")]


# What takes longest, from long to short: it is begun first, so that no worker is alone with it at the end.
LONGEST = ["tests/site/", "lessons/", "tests/test_exercises_grade.py", "tests/test_setup_cell.py", "tests/test_demo",
           "tests/test_train", "tests/test_exercises", "tests/test_laws.py", "tests/test_results.py"]


def pytest_collection_modifyitems(items):
    """Long files first; the order within a file stays."""
    items.sort(key=lambda item: next((k for k, start in enumerate(LONGEST) if item.nodeid.startswith(start)),
                                     len(LONGEST)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Each file on one worker, as notebooks need and fixtures like it, in the order above; only the pages of the site
    are shared by all."""
    if config.getoption("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class Scheduler(LoadFileScheduling):
        def _split_scope(self, nodeid):
            file = super()._split_scope(nodeid)
            return f"{file} {zlib.crc32(nodeid.encode()) % 8}" if file == "tests/site/test_site.py" else file

    config.option.loadscopereorder = False  # which would put files with many tests first
    return Scheduler(config, log)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)
    torch.distributions.Distribution.set_default_validate_args(True)  # torch.compile turns it off, for good
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def one_thread():
    """Bits are compared, and small networks gain nothing from more."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def browser():
    """Chromium, once a file: a second one beside it cannot be steered from the same process."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no Chromium on this machine")
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def opened(browser, tmp_path):
    """Opens the HTML of a figure from disk in a page 400 px wide; afterwards no error was logged, nothing is wider."""
    page, faults = browser.new_page(viewport={"width": 400, "height": 900}), []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda message: faults.append(message.text))

    def show(figure):
        html = f"<!doctype html><meta charset=utf-8><meta name=viewport content='width=device-width'>{figure.data}"
        (tmp_path / "page.html").write_text(html, encoding="utf-8")
        page.goto((tmp_path / "page.html").as_uri())
        return page

    yield show
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    page.close()
    assert not faults
