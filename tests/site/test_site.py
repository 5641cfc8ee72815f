"""Every page of the built site in a real browser; and a page with faults, to show that each kind is found."""
from pathlib import Path

import browse
import pytest

ROOT = Path(__file__).parents[2]
SITE = ROOT / "_build" / "html"

if not browse.chromium():
    pytest.skip("no Chromium on this machine: the pages were not opened in a browser", allow_module_level=True)

PAGES = sorted(set(str(path.relative_to(SITE)) for path in SITE.rglob("*.html") if "_static" not in path.parts)
               - {"index.html"})


@pytest.fixture(scope="module")
def opened():
    with browse.browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def site():
    with browse.served(SITE) as base:
        yield base


def test_the_index_leads_to_the_welcome(opened, site):
    if not (SITE / "index.html").is_file():
        pytest.skip("no site in _build/html: run `make book` first")
    page = opened.new_page()
    page.goto(site)
    page.wait_for_url("**/book/welcome.html")
    page.close()


@pytest.mark.parametrize("path", PAGES)
def test_page(opened, site, path):
    assert browse.faults_of(opened, site, path) == []


GOOD = """<!doctype html><html lang="en"><head><title>A page</title>
<style>@media (prefers-color-scheme: dark) { body { background: #111; color: #eee } }</style></head>
<body><main><h1>A page</h1><figure><img alt="scale 0" src="data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAA=">
<label>scale <input type="range" id="s" max="3" value="0"
oninput="FIGURE.alt = 'scale ' + this.value"></label></figure></main>
<script>const FIGURE = document.querySelector('img')</script></body></html>"""

FAULTS = [
    ("third-party request", "<h1>", '<img alt="" src="https://cdn.example/a.png"><h1>'),
    ("failed request", "<h1>", '<img alt="" src="missing.png"><h1>'),
    ("console", "<script>", "<script>console.error('no');"),
    ("script error", "<script>", "<script>setTimeout(() => nothing());"),
    ("formulas", "<h1>", "<p class='math'>x</p><h1>"),
    ("axe, light: image-alt", "<h1>", "<img src='data:,'><h1>"),
    ("axe, light: color-contrast", "<h1>", "<p style='color: #eee'>light ink</p><h1>"),
    ("axe, dark: color-contrast", "<h1>", "<p style='color: #222'>dark ink</p><h1>"),
    ("axe, dark: color-contrast", "<h1>",
     "<pre class='highlight'><span>alike</span> <span style='color: #222'>but this</span></pre><h1>"),
    ("scrolls sideways", "<h1>", "<div style='width: 900px'>wide</div><h1>"),
    ("does not change the value", "oninput", "onkeydown='event.preventDefault()' oninput"),
    ("changes no text alternative", "FIGURE.alt =", "FIGURE.name ="),
    ("does not turn dark", "(prefers-color-scheme: dark)", "print"),
]


def page_faults(opened, tmp_path, html):
    (tmp_path / "page.html").write_text(html)
    (tmp_path / "favicon.ico").touch()
    with browse.served(tmp_path) as base:
        return browse.faults_of(opened, base, "page.html")


def test_a_good_page_has_no_fault(opened, tmp_path):
    assert page_faults(opened, tmp_path, GOOD) == []


@pytest.mark.parametrize("kind, old, new", FAULTS, ids=[f"{k} {kind}" for k, (kind, _, _) in enumerate(FAULTS)])
def test_each_fault_is_found(opened, tmp_path, kind, old, new):
    assert old in GOOD
    assert any(kind in fault for fault in page_faults(opened, tmp_path, GOOD.replace(old, new, 1)))
