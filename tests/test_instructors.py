"""The instructors' page says where each topic of the lectures is, and its links lead there."""
import re
from pathlib import Path

import lint

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "book" / "instructors.md"
PART_I = {*(f"0.{k}" for k in range(1, 6)), *(f"1.{k}" for k in range(1, 13)), "1.15", "2.10", "2.11",
          *(f"3.{k}" for k in range(1, 6))}
PART_II = {"1.13", "1.14", "4.1", "4.2", "4.3", "4.4", "4.5", "4.8"}
PART_III = {*(f"0.{k}" for k in range(6, 12)), *(f"2.{k}" for k in range(1, 8)), "3.6", "3.7"}
PART_IV = {"0.12", "0.13", "0.14", "4.6", "4.7", "4.9"}


def topics():
    """Row -> the links of its last column."""
    table = PAGE.read_text().split("## Where each topic of the lectures is")[1]
    rows = re.findall(r"^\| (\d\.\d+) \| .* \| (.*) \|$", table, flags=re.MULTILINE)
    assert len(rows) == len(dict(rows))
    return {row: re.findall(r"\[[^\]]+\]\(([^)]+)\)", where) for row, where in rows}


def anchors(path):
    if path.suffix == ".ipynb":
        return lint.Lesson(path).anchors
    return set(map(lint.slug, re.findall(r"^#{1,3} (.*)$", path.read_text(), flags=re.MULTILINE)))


def test_every_topic_of_the_parts_that_are_written_is_in_the_table():
    found = topics()
    assert PART_I | PART_II | PART_III | PART_IV <= set(found) and all(found.values())


def test_every_section_of_the_table_is_there():
    for row, links in topics().items():
        for link in links:
            name, _, anchor = link.partition("#")
            assert not anchor or anchor in anchors(PAGE.parent / name), (row, link)


def test_all_links_of_the_page_lead_to_files():
    for link in re.findall(r"\]\(([^)#:]+)[^)]*\)", re.sub(r"\]\(\w+:[^)]*\)", "", PAGE.read_text())):
        assert (PAGE.parent / link).is_file(), link
