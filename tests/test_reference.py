"""The reference pages hold every public name, and what docstrings and pages cite is in the list of references."""
import json
import re
from pathlib import Path

import api_pages
import griffe
import pytest

ROOT = Path(__file__).parents[1]
PAGES = json.loads((ROOT / "book" / "reference" / "pages.json").read_text())
CITED = re.compile(r"(?:\barXiv:|arxiv\.org/abs/|\bdoi:|doi\.org/)(10\.[^\s,;)\]>\"'}]+|\d{4}\.\d{4,5})", re.I)


def package(files):
    """A package as griffe reads it, from the text of its modules."""
    with griffe.temporary_visited_package("pack", files) as found:
        return found


def test_every_public_name_is_on_a_page():
    found = griffe.load("flowlib", search_paths=[ROOT], allow_inspection=False)
    assert api_pages.faults(found, PAGES) == []


def test_faults_are_found():
    text = '__all__ = ["f", "g", "part"]\nfrom . import part\ndef f(): "Does f."\ndef g(): pass\n'
    found = package({"__init__.py": text, "part.py": '__all__ = ["h"]\ndef h(): "Does h."\n'})
    pages = [{"names": ["f", "g", "k", "f"]}]
    assert api_pages.faults(found, pages) == ["part.h is public and on no page", "k is on a page and not public",
                                              "f is listed twice", "g has no docstring"]


def test_a_docstring_becomes_markdown():
    found = package({"__init__.py": '''class A:
    r"""Maps $x$ to $2x$ (arXiv:1605.08803).

    Args:
        scale: The factor.

    Returns:
        A pair: the value and (...,) log-dets.

    Raises:
        ValueError: The scale is zero.

    Example:
        >>> A(2)
        A
    """
    def __init__(self, scale: float = 2.0, *, bias=None): ...
    def run(self, x):
        """Runs."""
    def _hidden(self):
        """Not shown."""
'''})
    text = api_pages.directive(found["A"], "A", "::::")
    for part in ("::::{py:class} A(scale=2.0, *, bias=None)",
                 "Maps $x$ to $2x$ ([arXiv:1605.08803](https://arxiv.org/abs/1605.08803)).",
                 "- `scale`: The factor.",
                 "- A pair: the value and (...,) log-dets.", "- `ValueError`: The scale is zero.",
                 "```python\n>>> A(2)\nA\n```", ":::{py:method} A.run(x)"):
        assert part in text
    assert "_hidden" not in text


def sources():
    return [*ROOT.glob("flowlib/**/*.py"), *ROOT.glob("book/*.md"), *ROOT.glob("book/results/*.json"),
            ROOT / "README.md"]


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_citations_are_in_the_list(path):
    known = (ROOT / "book" / "references.bib").read_text().lower()
    cited = {found.rstrip(".").lower() for found in CITED.findall(path.read_text())} if path.exists() else set()
    assert {found for found in cited if f"{{{found}}}" not in known} == set()
