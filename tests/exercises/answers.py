"""The right answers of a problem set, cut out of its source notebook, and notebooks with answers written into them."""
import json
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "lessons" / "problem_sets").glob("*.ipynb"))


def text(cell):
    return "".join(cell["source"])


class Answers:
    """Of the problem set "ps1", "ps2", ...

    Attributes:
        source, student: Paths of its two notebooks.
        good: function -> its right text.
    """

    def __init__(self, name):
        self.source, = (path for path in SOURCES if path.name.startswith(f"{name}_"))
        self.student = ROOT / "book" / "problem_sets" / self.source.name
        cells = [text(cell) for cell in json.loads(self.source.read_text())["cells"] if cell["cell_type"] == "code"]
        found = {re.match(r"def (\w+)", source)[1]: source for source in cells if "BEGIN SOLUTION" in source}
        self.good = {name: "\n".join(line for line in source.split("\n") if "### " not in line)
                     for name, source in found.items()}

    def changed(self, function, *pairs):
        """The right text with replacements; each must change something."""
        source = self.good[function]
        for old, new in pairs:
            assert old in source, f"{old!r} is not in {function}"
            source = source.replace(old, new)
        return source

    def notebook(self, answers):
        """The student version with these functions written into it."""
        result = json.loads(self.student.read_text())
        for cell in result["cells"]:
            found = re.match(r"def (\w+)", text(cell))
            if cell["cell_type"] == "code" and found and found[1] in answers:
                cell["source"] = answers[found[1]]
        return result
