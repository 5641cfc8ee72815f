"""Open a page of the built site in Chromium, with every other host unreachable, and list what is wrong with it."""
import contextlib
import functools
import http.server
import shutil
import threading
from pathlib import Path

import axe_playwright_python
import playwright.sync_api

AXE = (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text()
STANDARDS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
# Measuring contrast takes most of the time: it is done in the light and in the dark, on what REDUCE leaves of the page;
# a phone has the same colours. Rules that are not about colours see the whole page, at a desk and on a phone.
CONTRAST = ["color-contrast", "link-in-text-block"]
COLOURS = {"runOnly": {"type": "rule", "values": CONTRAST}}
ALL_BUT_COLOURS = {"runOnly": STANDARDS, "rules": {rule: {"enabled": False} for rule in CONTRAST}}
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking",
         "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1"]
PHONE = {"width": 400, "height": 800}
DESK = {"width": 1300, "height": 900}

# Nine tenths of a page are formulas, in which axe finds no text to measure (style sheets draw their glyphs), and code.
# Of its tokens those go that are hidden, or look like an earlier one: they and all around them are of the same classes.
REDUCE = """() => {
  for (const formula of document.querySelectorAll('mjx-container')) formula.replaceChildren();
  const seen = new Set();
  const kind = e => e ? kind(e.parentElement) + '/' + e.tagName + ' ' + e.className + ' ' + e.style.cssText : '';
  for (const token of document.querySelectorAll('.highlight span:not(:has(*))')) {
    if (seen.has(kind(token)) || !token.checkVisibility()) token.remove();
    else seen.add(kind(token));
  }
}"""

# What a figure says to someone who does not see it: the text alternatives and the printed values around a slider.
SPOKEN = """slider => {
  const figure = slider.closest('.cell_output, figure') || slider.parentElement;
  const said = [...figure.querySelectorAll('[alt], [aria-label], [aria-valuetext], output, title, desc')].map(
    e => [e.getAttribute('alt'), e.getAttribute('aria-label'), e.getAttribute('aria-valuetext'),
          e.tagName == 'INPUT' ? '' : e.textContent]);
  return JSON.stringify(said);
}"""

DRAWN_ANEW = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"

# A page is dark when its background is nearer to black than to white, and not transparent.
DARK = """() => {
  const colour = getComputedStyle(document.body).backgroundColor.match(/[\\d.]+/g).map(Number);
  return colour.length == 3 && colour[0] + colour[1] + colour[2] < 200;
}"""


def chromium():
    """Path of a Chromium on this machine, or None."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@contextlib.contextmanager
def browser():
    """One window for all pages: what they share, such as MathJax, is read and compiled once."""
    with playwright.sync_api.sync_playwright() as api:
        opened = api.chromium.launch(executable_path=chromium(), args=FLAGS)
        yield opened.new_context(color_scheme="light")
        opened.close()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@contextlib.contextmanager
def served(folder):
    """The address at which a folder is served."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()


def watch(page, base):
    """A list that fills with requests to others, failed requests and errors while the page is used."""
    faults = []

    def request(sent):
        if not sent.url.startswith((base, "data:", "blob:", "about:")):
            faults.append(f"third-party request: {sent.url}")

    page.on("request", request)
    page.on("requestfailed", lambda sent: faults.append(f"failed request: {sent.url}"))
    page.on("response", lambda got: got.status >= 400 and faults.append(f"failed request: {got.status} {got.url}"))
    page.on("console", lambda line: line.type == "error" and faults.append(f"console: {line.text}"))
    page.on("pageerror", lambda error: faults.append(f"script error: {error}"))
    return faults


def axe(page, where, rules):
    """Violations of these rules that axe-core finds, as text."""
    found = page.evaluate("async rules => (await axe.run(document, {resultTypes: ['violations'], preload: false, "
                          "...rules})).violations", rules)
    return [f"axe, {where}: {rule['id']} at {rule['nodes'][0]['html'][:160]}" for rule in found]


def keyboard(page):
    """Every slider must move by an arrow key, and the figure must say something else afterwards."""
    faults = []
    for slider in page.locator("input[type=range]").all():
        slider.scroll_into_view_if_needed()
        slider.focus()
        value, said = slider.input_value(), slider.evaluate(SPOKEN)
        key = "ArrowLeft" if float(value) == float(slider.get_attribute("max")) else "ArrowRight"
        slider.press(key)
        name = slider.get_attribute("id") or "slider"
        if slider.input_value() == value:
            faults.append(f"{name}: {key} does not change the value")
        elif slider.evaluate(SPOKEN) == said:
            faults.append(f"{name}: {key} changes no text alternative")
    return faults


def faults_of(opened, base, path):
    """All that is wrong with one page: light, dark and on a phone."""
    page = opened.new_page()
    page.set_viewport_size(DESK)
    page.set_default_timeout(120_000)
    faults = watch(page, base)
    page.goto(base + path, wait_until="load")
    page.evaluate("async () => { if (window.MathJax) await MathJax.startup.promise; }")
    # the page's own late repairs (a11y.js), without waiting for them
    page.evaluate("dispatchEvent(new Event('resize'))")
    formulas = page.evaluate(
        "[...document.querySelectorAll('.math')].filter(e => !e.querySelector('mjx-container')).length")
    if formulas:
        faults.append(f"{formulas} formulas are not drawn")
    faults += [f"formula error: {text}"
               for text in page.eval_on_selector_all("[data-mml-node=merror]", "all => all.map(e => e.textContent)")]
    page.add_style_tag(content="* { transition: none !important; }")  # else colours are measured half-way
    page.evaluate(AXE)
    faults += axe(page, "light", ALL_BUT_COLOURS)
    faults += keyboard(page)
    page.set_viewport_size(PHONE)
    page.evaluate(DRAWN_ANEW)
    width = page.evaluate("document.documentElement.scrollWidth")
    if width > PHONE["width"]:
        faults.append(f"scrolls sideways on a phone: {width} px wide")
    faults += axe(page, "phone", ALL_BUT_COLOURS)
    page.set_viewport_size(DESK)
    page.evaluate(REDUCE)
    page.evaluate(DRAWN_ANEW)
    faults += axe(page, "light", COLOURS)
    page.emulate_media(color_scheme="dark")
    try:
        page.wait_for_function(DARK, timeout=12_000)
    except playwright.sync_api.TimeoutError:
        faults.append("the page does not turn dark")
    faults += axe(page, "dark", COLOURS)
    page.close()
    return faults
