"""Hold the lessons to the conventions that let one notebook serve the book page, raw Jupyter and Colab.

    python book/tools/lint.py lessons/*.ipynb

Prints one line a fault, `notebook: rule: what is wrong`, and exits 1 if there is any. A rule is a generator decorated
with @rule; its docstring states the convention. Standard library only.
"""
import json
import re
import sys
from functools import cached_property
from pathlib import Path

import setup_cell

SECTIONS = ("Predict first", "The idea in one picture", "The mathematics", "From scratch", "Verify it",
            "The same with flowlib",
            "What goes wrong", "Summary", "Key terms", "Exercises", "Going further", "References")
CARD = ("You will be able to", "Needs", "Reading time", "Run time")
BOXES = ("Theorem", "Lemma", "Proposition", "Corollary", "Definition", "Mind the formula", "Common mistake", "Note",
         "Pitfall")
WORDS = (2000, 3500)
CODE_LINES = 300
FIGURES = (8, 14)

CAPTION = re.compile(r"\*Figure (\d+)\.(\d+)\. [^\n]*\*")
TAG = re.compile(r"\\tag\{(\d+)\.(\d+)\}")
UNSTABLE = re.compile(r"\d\s?(?:[mµn]?s(?!\.d)|sec|seconds?|minutes?|min|it/s)\b|\bcuda\b|\bcpu\b|0x[0-9a-f]{6,}"
                      r"|/(?:home|root|tmp|Users)/", re.I)
PICTURE = re.compile(r"<(?:img|svg|canvas)\b", re.I)
RANGE = re.compile(r"<input\b[^>]*type=[\"']?range", re.I)
BASE64 = re.compile(r"iVBORw0KGgo[A-Za-z0-9+/\\\n]+=*")
RULES = []


def rule(check):
    RULES.append(check)
    return check


def text(value):
    return "".join(value) if isinstance(value, list) else value


def slug(heading):
    """The anchor of a heading, as MyST makes it."""
    return re.sub(r"[^\w\- ]", "", re.sub(r"[`*]", "", heading).strip().lower()).replace(" ", "-")


def prose(source):
    """Markdown without code and formulas."""
    source = re.sub(r"^(```+|~~~+).*?^\1", " ", source, flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"\$\$.*?\$\$|\$[^$\n]+\$|`[^`\n]+`", " ", source, flags=re.DOTALL)


class Lesson:
    """A notebook as the rules see it."""

    def __init__(self, path, notebook=None):
        self.path = Path(path)
        self.raw = (self.path.read_text() if notebook is None
                    else json.dumps(notebook, indent=1, ensure_ascii=False) + "\n")
        self.data = json.loads(self.raw)
        self.number = int(self.path.name[:2])
        self.cells = self.data["cells"]

    @staticmethod
    def source(cell):
        return text(cell["source"])

    @staticmethod
    def tags(cell):
        return cell["metadata"].get("tags", [])

    @property
    def code(self):
        return [cell for cell in self.cells if cell["cell_type"] == "code"]

    @cached_property
    def markdown(self):
        return "\n\n".join(self.source(cell) for cell in self.cells if cell["cell_type"] == "markdown")

    @cached_property
    def headings(self):
        """(level, title) in order."""
        plain = re.sub(r"^```.*?^```", "", self.markdown, flags=re.MULTILINE | re.DOTALL)
        return [(len(marks), title.strip())
                for marks, title in re.findall(r"^(#{1,6}) (.*)$", plain, flags=re.MULTILINE)]

    @cached_property
    def equations(self):
        return [(int(a), int(b)) for a, b in TAG.findall(self.markdown)]

    @cached_property
    def captions(self):
        return [(int(a), int(b)) for a, b in re.findall(rf"^{CAPTION.pattern}$", self.markdown, flags=re.MULTILINE)]

    @staticmethod
    def outputs(cell, mime):
        return [text(out["data"][mime]) for out in cell.get("outputs", []) if mime in out.get("data", {})]

    def is_figure(self, cell):
        html = "".join(self.outputs(cell, "text/html"))
        return cell["cell_type"] == "code" and bool(self.outputs(cell, "image/png") or PICTURE.search(html)
                                                    or RANGE.search(html))

    @cached_property
    def anchors(self):
        """What a link into this lesson may name."""
        boxes = re.findall(r"^> \*\*(\w+) (\d+)\.(\d+)", self.markdown, flags=re.MULTILINE)
        return ({slug(title) for _, title in self.headings} | {f"figure-{a}-{b}" for a, b in self.captions}
                | {f"{kind.lower()}-{a}-{b}" for kind, a, b in boxes})


def in_order(found, number, kind):
    """Faults of a list of (lesson, index) pairs that should be 1, 2, 3, ... of this lesson."""
    for place, pair in enumerate(found, 1):
        if pair != (number, place):
            yield f"{kind} {pair[0]}.{pair[1]} stands where {number}.{place} is expected"
            return


@rule
def notebook(lesson, lessons):
    """nbformat 4.5, indent 1, python3, ids, every code cell run, nothing that changes by itself."""
    if (lesson.data["nbformat"], lesson.data["nbformat_minor"]) != (4, 5):
        yield "not nbformat 4.5"
    if lesson.raw != json.dumps(lesson.data, indent=1, ensure_ascii=False) + "\n":
        yield "not written with indent 1 and one newline at the end (make lessons)"
    if lesson.data["metadata"].get("kernelspec", {}).get("name") != "python3":
        yield "the kernel is not python3"
    if "widgets" in lesson.data["metadata"] or any("execution" in cell["metadata"] for cell in lesson.cells):
        yield "widget state or time stamps are stored (make lessons)"
    ids = [cell.get("id") for cell in lesson.cells]
    if None in ids or len(set(ids)) < len(ids):
        yield "a cell has no id of its own"
    for cell in lesson.code:
        if cell["execution_count"] is None:
            yield f"cell {cell.get('id')} was never run (make lessons)"
        if any(out.get("name") == "stderr" or out["output_type"] == "error" for out in cell["outputs"]):
            yield f"cell {cell.get('id')} stores an error or a warning"


@rule
def set_up(lesson, lessons):
    """The first code cell is the set-up cell, the same in all lessons, tagged remove-cell."""
    pin = setup_cell.pin("\n".join(map(lesson.source, lessons[0].code)))
    expected = setup_cell.cell(setup_cell.address(), *pin)
    if not lesson.code or lesson.source(lesson.code[0]) != expected:
        yield "the first code cell is not the set-up cell of book/tools/setup_cell.py"
    elif "remove-cell" not in lesson.tags(lesson.code[0]):
        yield "the set-up cell is not tagged remove-cell"


@rule
def skeleton(lesson, lessons):
    """One title, the card under it, then the sections in their order; the summary has five points."""
    titles = [title for level, title in lesson.headings if level == 1]
    if len(titles) != 1 or not lesson.source(lesson.cells[0]).startswith("# "):
        yield "the first cell does not start with the one title"
    missing = [entry for entry in CARD if entry.lower() not in lesson.source(lesson.cells[0]).lower()]
    if missing:
        yield f"the card lacks: {', '.join(missing)}"
    sections = [title for level, title in lesson.headings if level == 2]
    named = [name for title in sections for name in SECTIONS if title.startswith(name)]
    if named != list(SECTIONS):
        yield f"sections are {named}, expected {list(SECTIONS)}"
    summary = re.search(r"^## Summary\n(.*?)(?=^## |\Z)", lesson.markdown, flags=re.MULTILINE | re.DOTALL)
    if summary and len(re.findall(r"^[-*] ", summary[1], flags=re.MULTILINE)) != 5:
        yield "the summary does not have five points"


@rule
def plain_markdown(lesson, lessons):
    """No directive, no role: they show raw in Colab. Boxes start with a known word; <details> has its blank lines."""
    for found in re.findall(r"^(?:```+|:::+)\{[^}]*\}", lesson.markdown, flags=re.MULTILINE):
        yield f"directive {found}"
    for found in re.findall(r"\{[a-z][\w:.-]*\}`[^`]*`", lesson.markdown):
        yield f"role {found}"
    for found in re.findall(r"(?<!> )(?:\A|\n\n)> \*\*([^*]*)\*\*", lesson.markdown):
        if not found.startswith(BOXES):
            yield f"no such kind of box: {found}"
    for found in re.findall(r"</summary>[^\n]*\n(?!\n)|[^\n]\n</details>", lesson.markdown):
        yield f"<details> needs blank lines around its content: {found.strip()}"


@rule
def equations(lesson, lessons):
    """Display formulas stand in paragraphs of their own; tags count up; every Eq. (n.m) exists."""
    for paragraph in re.split(r"\n(?:>[ \t]*)?\n", lesson.markdown):
        formula = re.sub(r"^> ?", "", paragraph, flags=re.MULTILINE).strip()
        if "$$" in formula and not re.fullmatch(r"\$\$[^$]*\$\$", formula):
            yield f"a display formula needs blank lines around it: {formula[:40]!r}"
    yield from in_order(lesson.equations, lesson.number, "equation")
    known = {pair for other in lessons for pair in other.equations}
    for start in re.findall(r"Eqs?\. ((?:\(\d+\.\d+\)(?:, | and | to )?)+)", lesson.markdown):
        for a, b in re.findall(r"(\d+)\.(\d+)", start):
            if (int(a), int(b)) not in known:
                yield f"Eq. ({a}.{b}) does not exist"


@rule
def figures(lesson, lessons):
    """Right below every figure its caption, counted up; every Figure n.m exists; enough of them, one interactive."""
    for cell, below in zip(lesson.cells, lesson.cells[1:] + [None]):
        first = lesson.source(below).split("\n\n")[0].strip() if below and below["cell_type"] == "markdown" else ""
        caption = CAPTION.fullmatch(first)
        if lesson.is_figure(cell) and not caption:
            yield f"the figure of cell {cell['id']} has no caption below it"
        if caption and not lesson.is_figure(cell):
            yield f"there is no figure above the caption {first[:12]}"
    yield from in_order(lesson.captions, lesson.number, "figure")
    known = {pair for other in lessons for pair in other.captions}
    for a, b in re.findall(r"Figures? (\d+)\.(\d+)", lesson.markdown):
        if (int(a), int(b)) not in known:
            yield f"Figure {a}.{b} does not exist"
    if not FIGURES[0] <= len(lesson.captions) <= FIGURES[1]:
        yield f"{len(lesson.captions)} figures, expected {FIGURES[0]} to {FIGURES[1]}"
    if not any(RANGE.search(html) for cell in lesson.code for html in lesson.outputs(cell, "text/html")):
        yield "no interactive figure"


@rule
def alternative_text(lesson, lessons):
    """A PNG has its text in the cell's mystnb.image.alt; pictures and sliders inside HTML carry their own."""
    for cell in lesson.code:
        alt = cell["metadata"].get("mystnb", {}).get("image", {}).get("alt", "")
        if lesson.outputs(cell, "image/png") and len(alt) < 20:
            yield f"cell {cell['id']} has no alternative text (metadata mystnb.image.alt) that describes its figure"
        for html in lesson.outputs(cell, "text/html"):
            for found in re.findall(r"<(?:img|svg|canvas)\b[^>]*>", BASE64.sub("", html)):
                if not re.search(r"\b(?:alt|aria-label|aria-labelledby|aria-hidden)=", found):
                    yield f"cell {cell['id']}: no alternative text on {found[:60]}"
            if RANGE.search(html) and not re.search(r"<label\b|aria-label", html):
                yield f"cell {cell['id']}: the slider has no label"


@rule
def citations(lesson, lessons):
    """Every DOI and arXiv number is in book/references.bib."""
    known = Path("book/references.bib").read_text().lower()
    for found in re.findall(r"(?:doi\.org/|arxiv\.org/(?:abs|pdf)/)([^)\s\"'>]+)",
                            lesson.markdown + "".join(map(lesson.source, lesson.code))):
        if f"{{{found.lower()}}}" not in known:
            yield f"{found} is not in book/references.bib"


@rule
def self_contained(lesson, lessons):
    """No picture from a file or from elsewhere, nothing loaded over the network, no front end that needs a kernel or a
    CDN."""
    stored = "".join(html for cell in lesson.code for html in lesson.outputs(cell, "text/html"))
    for found in re.findall(r"!\[[^\]]*\]\([^)]*\)|<img\b[^>]*>", lesson.markdown):
        if "data:image" not in found and "attachment:" not in found:
            yield f"picture that is not made by code: {found[:60]}"
    for found in re.findall(r"(?:src|href)=[\"'](?:https?:)?//[^\"']*|<link\b|@import\b", stored):
        yield f"an output loads from elsewhere: {found[:60]}"
    for cell in lesson.code:
        for found in re.findall(r"to_jshtml|\bplotly\b|tqdm\.auto|tqdm\.notebook", lesson.source(cell)):
            yield f"{found} does not work on the page"


@rule
def stable_output(lesson, lessons):
    """All output is compared, so it holds no time, no device and no place of this machine."""
    for cell in lesson.code:
        if {"nbval-ignore-output", "nbval-skip"} & set(lesson.tags(cell)):
            yield f"cell {cell['id']} asks not to be compared"
        if "trained" in lesson.tags(cell) and "assert " not in lesson.source(cell):
            yield f"cell {cell['id']} is tagged trained, so its figure is compared from afar, and asserts nothing"
        shown = [text(out.get("text", "")) for out in cell["outputs"]] + lesson.outputs(cell, "text/plain")
        for found in UNSTABLE.finditer("\n".join(shown)):
            yield f"cell {cell['id']} prints {found[0]!r}, which differs from run to run"


@rule
def plain_python(lesson, lessons):
    """No ! and no % line: a hung command passes unseen, and magics are not Python. No ; at the end: nbval shows the
    value."""
    for cell in lesson.code:
        for found in re.findall(r"^\s*[!%].*", lesson.source(cell), flags=re.MULTILINE):
            yield f"cell {cell['id']}: {found.strip()}"
        if lesson.source(cell).rstrip().endswith(";"):
            yield f"cell {cell['id']} ends with a semicolon: write _ = ..."


@rule
def size(lesson, lessons):
    """A lesson is one sitting: words of prose and lines of visible code, but for what they assert, within limits."""
    words = len(re.findall(r"[^\W\d_]{2,}|\b[aAI]\b", re.sub(r"<[^>]+>|\]\([^)]*\)", " ", prose(lesson.markdown))))
    if not WORDS[0] <= words <= WORDS[1]:
        yield f"{words} words, expected {WORDS[0]} to {WORDS[1]}"
    visible = [cell for cell in lesson.code if not {"remove-cell", "remove-input"} & set(lesson.tags(cell))]
    code = [line.strip() for cell in visible for line in lesson.source(cell).splitlines()]
    lines = sum(bool(line) and not line.startswith("assert ") for line in code)
    if lines > CODE_LINES:
        yield f"{lines} lines of code, at most {CODE_LINES}"


@rule
def links(lesson, lessons):
    """A link to another page names a file that is there and an anchor that it has."""
    for target in re.findall(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)", lesson.markdown):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        path = (lesson.path.parent / name).resolve() if name else lesson.path.resolve()
        other = next((known for known in lessons if known.path.resolve() == path), None)
        if other is None and not path.is_file():
            yield f"{target}: no such file"
        elif anchor:
            titles = re.findall(r"^#{1,3} (.*)$", path.read_text(), flags=re.MULTILINE) if other is None else []
            if anchor not in (other.anchors if other else set(map(slug, titles))):
                yield f"{target}: no such heading"


def lint(lessons):
    """All faults of a list of lessons as (path, rule, message)."""
    return [(lesson.path, check.__name__, message) for lesson in lessons for check in RULES
            for message in check(lesson, lessons)]


if __name__ == "__main__":
    faults = lint([Lesson(path) for path in sys.argv[1:]])
    for path, name, message in faults:
        print(f"{path}: {name}: {message}")
    sys.exit(bool(faults))
