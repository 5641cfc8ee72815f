"""Grade a folder of submissions: OUT/grades.csv, and OUT/feedback with one file for each student.

    python -m flowlib.exercises grade SUBMISSIONS OUT

Submitted code never runs in this process. The function of a question is cut out of the notebook and called by a limited
child process (sandbox.py); its values are judged here (judge.py). Every run asks with fresh numbers and sizes.
"""
import csv
import io
import os
import secrets
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..atomic import write_atomic
from . import judge
from .collect import Submission, Unreadable, distinct, find, shown, student_names
from .sandbox import NoAnswer, Sandbox, Stopped

Cells = list[tuple[int, str]]
NAMED = 20  # files that a warning names


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        student, place: The name, and where the notebook was found.
        points: grade_id -> (points, remark).
        fault: Why the whole notebook could not be graded, or "".
    """

    student: str
    place: str
    points: dict[str, tuple[int, str]]
    fault: str = ""


def code_cells(submission: Submission) -> Cells | str:
    """The code of a submission, or why there is none. Whatever a file holds, it ends the grading of no other."""
    try:
        return submission.cells()
    except Unreadable as error:
        return str(error)


def detect(codes: Sequence[Cells]) -> str:
    """The problem set whose functions most of the notebooks define.

    Raises:
        ValueError: None of them fits.
    """
    score = Counter()
    functions = {name: {question.function for question in judge.load(name).questions} for name in judge.names()}
    for cells in codes:
        text = "\n".join(text for _, text in cells)
        for name, wanted in functions.items():
            score[name] += sum(f"def {function}(" in text for function in wanted)
    if not score or max(score.values()) == 0:
        raise ValueError(f"no notebook has a function of a problem set ({', '.join(functions)})")
    return score.most_common(1)[0][0]


def grade_one(cells: Cells, problems: judge.ProblemSet, sandbox: Sandbox, seed: int) -> dict[str, tuple[int, str]]:
    """{grade_id: (points, remark)} of one notebook."""
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


def feedback(row: Row, problems: judge.ProblemSet, seed: int) -> str:
    """The text that a student gets. The remarks are ours; nothing in it comes out of the submission."""
    lines = [f"# {row.student}", ""]
    lines += [f"- {part}: {points} of {problems.parts[part]}{'. ' + remark[0].upper() + remark[1:] if remark else ''}"
              for part, (points, remark) in row.points.items()]
    lines += [f"- {part}: marked by a person, out of {points}" for part, points in problems.manual.items()]
    total = sum(points for points, _ in row.points.values())
    lines += ["", f"Marked automatically: {total} of {sum(problems.parts.values())}. {problems.name}, seed {seed}.", ""]
    return "\n".join(lines)


def table(problems: judge.ProblemSet, rows: Sequence[Row]) -> str:
    """The CSV: one row a student, blank cells for what a person marks."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    automatic = sum(problems.parts.values())
    columns = [*problems.parts, "automatic", "automatic_max", *problems.manual, "max"]
    writer.writerow(["student", *columns, "path", "remark"])
    for row in rows:
        points = [row.points[part][0] for part in problems.parts]
        writer.writerow([row.student, *points, sum(points), automatic, *[""] * len(problems.manual),
                         automatic + sum(problems.manual.values()), shown(row.place), row.fault])
    return text.getvalue()


def write(out: Path, problems: judge.ProblemSet, rows: Sequence[Row], seed: int) -> None:
    """grades.csv and the feedback; names that differ only in case get files that differ in more."""
    (out / "feedback").mkdir(parents=True, exist_ok=True)
    for row, file in zip(rows, distinct([row.student for row in rows], key=str.casefold), strict=True):
        write_atomic(out / "feedback" / f"{file}.md", feedback(row, problems, seed).encode())
    write_atomic(out / "grades.csv", table(problems, rows).encode())


def grade(submissions: str | os.PathLike, out: str | os.PathLike, name: str | None = None, seed: int | None = None,
          jobs: int | None = None, isolate: bool = True, say: Callable[[str], None] = print) -> list[Row]:
    """Grade every notebook below a folder.

    Args:
        submissions: The folder, or the zip file of a learning platform.
        out: Where grades.csv and feedback/ are written, also if Ctrl-C ends the grading: then for those who are done.
        name: The problem set; found by the names of the functions if None.
        seed: Of the inputs; random if None. The feedback names it, and the same seed asks the same.
        jobs: Children at a time, the number of processors if None.
        isolate: False does without namespaces.
        say: Where warnings and the summary go.

    Returns:
        One row for each submission, by place.

    Raises:
        ValueError: No notebooks, or no such problem set.
    """
    folder, out = Path(submissions).resolve(), Path(out).resolve()
    if not folder.exists():
        raise ValueError(f"{submissions} does not exist")
    found, others = find(folder, out)
    if others:
        more = f" and {len(others) - NAMED} more" if len(others) > NAMED else ""
        say(f"warning: no notebooks, not taken: {', '.join(map(shown, others[:NAMED]))}{more}")
    if not found:
        raise ValueError(f"no .ipynb and no .zip below {folder}")
    seed = secrets.randbits(32) if seed is None else seed
    jobs = min(jobs or os.cpu_count() or 1, len(found))
    students = student_names([submission.place for submission in found])
    with ThreadPoolExecutor(jobs) as pool:
        codes = list(pool.map(code_cells, found))
    problems = judge.load(name or detect([cells for cells in codes if not isinstance(cells, str)]))
    rows: list[Row] = []

    def one(student: str, submission: Submission, cells: Cells | str) -> None:
        try:
            fault, points = (cells, {}) if isinstance(cells, str) else ("", grade_one(cells, problems, sandbox, seed))
        except Stopped:
            return
        except Exception as error:  # one of ours; the others are graded all the same
            fault, points = f"the grader failed with {type(error).__name__}, grade it by hand", {}
        if fault:
            say(f"warning: {shown(submission.place)}: {fault}")
        rows.append(Row(student, submission.place, points or dict.fromkeys(problems.parts, (0, fault)), fault))

    with Sandbox(jobs, [folder, out], isolate) as sandbox, ThreadPoolExecutor(jobs) as pool:
        for gap in sandbox.gaps:
            say(f"warning: {gap}")
        work = [pool.submit(one, *each) for each in zip(students, found, codes, strict=True)]
        try:
            for future in work:
                future.result()
        finally:  # after Ctrl-C what is left ends at once, and what is done is kept
            pool.shutdown(wait=False, cancel_futures=True)
            sandbox.close()
            done = sorted(rows, key=lambda row: row.place)
            write(out, problems, done, seed)
            count = len(done) if len(done) == len(found) else f"stopped after {len(done)} of {len(found)}"
            isolation = "on" if sandbox.isolated else "off"
            say(f"{problems.name}: {count} submissions, seed {seed}, isolation {isolation}: {out / 'grades.csv'}")
    return done
