"""Grade a folder of submissions: OUT/grades.csv, and OUT/feedback with one file for each student.

    python -m flowlib.exercises grade SUBMISSIONS OUT

Submitted code never runs in this process. The function of a question is cut out of the notebook and called by a limited
child process (sandbox.py); its values are judged here (judge.py). Every run asks with fresh numbers and sizes.
"""
import csv
import io
import json
import os
import re
import secrets
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from ..atomic import write_atomic
from . import judge
from .sandbox import NoAnswer, Sandbox

NOTEBOOK_SIZE, CODE_SIZE = 200 << 20, 1 << 20  # bytes


class Unreadable(ValueError):
    """A file that is no notebook; the message holds nothing of what is in it."""


def code_cells(path):
    """[(number, text)] of the code cells, counted from 1, whatever happened to ids, metadata and outputs."""
    if path.resolve() != path or not path.is_file():  # a link may point anywhere
        raise Unreadable("not a regular file")
    if path.stat().st_size > NOTEBOOK_SIZE:
        raise Unreadable(f"larger than {NOTEBOOK_SIZE >> 20} MB")
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        texts = ["".join(cell["source"]) for cell in cells if cell.get("cell_type") == "code"]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise Unreadable("not a notebook") from None
    if sum(map(len, texts)) > CODE_SIZE:
        raise Unreadable("more than 1 MB of code")
    return list(enumerate(texts, 1))


def notebooks(folder):
    """The submissions: every .ipynb below the folder, but for those that Jupyter keeps."""
    return sorted(path for path in folder.rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts)


def students(folder, paths):
    """A name for each path, made of its place: `ann/ps1.ipynb` is ann-ps1. All differ, none is a formula in a CSV."""
    names, used = [], set()
    for path in paths:
        place = "-".join(path.relative_to(folder).with_suffix("").parts)
        plain = re.sub(r"[^\w.@+-]+", "_", place).lstrip("+-@._")[:100] or "unnamed"
        name, number = plain, 1
        while name.casefold() in used:  # also where file names do not tell A from a
            number += 1
            name = f"{plain}-{number}"
        used.add(name.casefold())
        names.append(name)
    return names


def detect(paths):
    """The problem set whose functions most of the notebooks define.

    Raises:
        ValueError: None of them fits.
    """
    score = Counter()
    for path in paths:
        try:
            text = "\n".join(text for _, text in code_cells(path))
        except Unreadable:
            continue
        for name in judge.names():
            score[name] += sum(f"def {question.function}(" in text for question in judge.load(name).questions)
    if not score or max(score.values()) == 0:
        raise ValueError(f"no notebook has a function of a problem set ({', '.join(judge.names())})")
    return score.most_common(1)[0][0]


def grade_one(path, problems, sandbox, seed):
    """{grade_id: (points, remark)} of one notebook."""
    try:
        cells = code_cells(path)
    except Unreadable as error:
        return {part: (0, str(error)) for part in problems.parts}
    result = {}
    for number, question in enumerate(problems.questions):
        asked, expected = question.ask(np.random.default_rng([seed, number]))
        try:
            given = sandbox.run(cells, question.function, asked, seconds=question.seconds, memory=question.memory,
                                dtype=problems.dtype, forbidden=problems.forbidden)
        except NoAnswer as reason:
            given = str(reason)
        for part, remark in question.verdict(expected, given).items():
            result[part] = (0 if remark else problems.parts[part], remark)
    return result


def feedback(student, problems, result, seed):
    """The text that a student gets. The remarks are ours; nothing in it comes out of the submission."""
    lines = [f"# {student}", ""]
    lines += [f"- {part}: {points} of {problems.parts[part]}{'. ' + remark[0].upper() + remark[1:] if remark else ''}"
              for part, (points, remark) in result.items()]
    lines += [f"- {part}: marked by a person, out of {points}" for part, points in problems.manual.items()]
    total = sum(points for points, _ in result.values())
    lines += ["", f"Marked automatically: {total} of {sum(problems.parts.values())}. {problems.name}, seed {seed}.", ""]
    return "\n".join(lines)


def table(problems, rows):
    """The CSV: one row a student, blank cells for what a person marks."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["student", *problems.parts, "automatic", "automatic_max", *problems.manual, "max"])
    automatic, most = sum(problems.parts.values()), sum(problems.parts.values()) + sum(problems.manual.values())
    for student, result in rows:
        points = [result[part][0] for part in problems.parts]
        writer.writerow([student, *points, sum(points), automatic, *[""] * len(problems.manual), most])
    return text.getvalue()


def grade(submissions, out, name=None, seed=None, jobs=None, isolate=True, say=print):
    """Grade every notebook below a folder.

    Args:
        submissions: The folder.
        out: Where grades.csv and feedback/ are written.
        name: The problem set; found by the names of the functions if None.
        seed: Of the inputs; random if None. The feedback names it, and the same seed asks the same.
        jobs: Children at a time, the number of processors if None.
        isolate: False does without namespaces.
        say: Where warnings and the summary go.

    Returns:
        {student: {grade_id: (points, remark)}}.

    Raises:
        ValueError: No notebooks, or no such problem set.
    """
    folder, out = Path(submissions).resolve(), Path(out).resolve()
    paths = notebooks(folder)
    if not paths:
        raise ValueError(f"no .ipynb below {folder}")
    problems = judge.load(name or detect(paths))
    seed = secrets.randbits(32) if seed is None else seed
    (out / "feedback").mkdir(parents=True, exist_ok=True)
    jobs = min(jobs or os.cpu_count() or 1, len(paths))
    with Sandbox(jobs, [folder, out], isolate) as sandbox, ThreadPoolExecutor(jobs) as pool:
        for gap in sandbox.gaps:
            say(f"warning: {gap}")
        results = list(pool.map(lambda path: grade_one(path, problems, sandbox, seed), paths))
    rows = list(zip(students(folder, paths), results))
    for student, result in rows:
        write_atomic(out / "feedback" / f"{student}.md", feedback(student, problems, result, seed).encode())
    write_atomic(out / "grades.csv", table(problems, rows).encode())
    isolation = "on" if sandbox.isolated else "off"
    say(f"{problems.name}: {len(rows)} submissions, seed {seed}, isolation {isolation}: {out / 'grades.csv'}")
    return dict(rows)
