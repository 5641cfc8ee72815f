"""Every test starts from the same seed and checks of torch's distributions, and leaves the default dtype as it was.

E-numbers in the tests are rows of book/corrections.md. Helpers and tools are imported by their bare names: `pythonpath`
in pyproject.toml says where they lie.
"""
import shutil
import sys

import pytest
import torch

# benchmarks need three other libraries (`make bench`); exercises hold notebooks to work on; a conftest is no test
collect_ignore = ["benchmarks", "exercises", "conftest.py"]
if sys.platform == "win32":  # grading needs fork: Linux, macOS or WSL
    collect_ignore += [f"test_exercises_{name}.py" for name in ("collect", "grade", "sets")]


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
