"""Find the submissions below a folder or in a zip file, read their code, name them.

Nothing that lies there can end the search: what cannot be read is a submission all the same, and `fault` says why.
"""
import errno
import json
import os
import stat
import subprocess
import sys
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from .reader import Unreadable

DEPTH = 32  # folders in folders
MOST = (2000, 20)  # notebooks in an archive, and in an archive inside it; deeper ones are not opened
SECONDS = 60  # to read one file
READER = Path(__file__).with_name("reader.py")
OF_SYSTEMS = {"__MACOSX", ".ipynb_checkpoints", ".DS_Store", "Thumbs.db", "desktop.ini"}
JOINERS = "\u200c\u200d"  # part of words in Persian and in Indic scripts


@dataclass(frozen=True)
class Submission:
    """A notebook, or what stands where one should be.

    Attributes:
        place: Where it was found, relative to the folder, with `/`; in an archive "class.zip/ann/ps1.ipynb".
        path: The file on the disk.
        members: The numbers that lead to it in the archive `path`; empty for a plain file.
        fault: Why it cannot be read, if that is known already.
    """

    place: str
    path: Path
    members: tuple[int, ...] = ()
    fault: str = ""

    def cells(self) -> list[tuple[int, str]]:
        """[(number, text)] of its code cells.

        Raises:
            Unreadable: With the reason.
        """
        if self.fault:
            raise Unreadable(self.fault)
        return [(number, text) for number, text in ask(self.path, "notebook", self.members)["cells"]]


def ask(path: Path, kind: str, members: Sequence[int] = ()) -> dict:
    """What reader.py says about a file.

    Raises:
        Unreadable: With the reason.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)  # a pipe would keep us waiting
    except OSError as error:
        raise Unreadable("not a regular file" if error.errno == errno.ELOOP else "cannot be read") from None
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise Unreadable("not a regular file")
        command = [sys.executable, "-I", "-S", READER, kind, *map(str, members)]
        try:
            done = subprocess.run(command, stdin=file, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                                  timeout=SECONDS, check=True)
            answer = json.loads(done.stdout)
        except (subprocess.SubprocessError, ValueError):
            raise Unreadable("takes too much time or memory to read") from None
    if "fault" in answer:
        raise Unreadable(answer["fault"])
    return answer


def kind(where: str) -> str | None:
    """Whether a place is that of a "notebook", an "archive", another file (""), or left behind by a system (None)."""
    path = PurePosixPath(where)
    if OF_SYSTEMS & set(path.parts) or path.name.startswith("._"):
        return None
    return {".ipynb": "notebook", ".zip": "archive"}.get(path.suffix.lower(), "")


def in_archive(archive: Submission) -> tuple[list[Submission], list[str]]:
    """The submissions in a zip file, also in zip files inside it, and the places of its other files."""
    try:
        listed = ask(archive.path, "archive", archive.members)["members"]
    except Unreadable as error:
        return [Submission(archive.place, archive.path, fault=str(error))], []
    found, others = [], []
    for number, name in listed:
        # a name is for reading only, and may be one that climbs out of its folder
        parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".", "..")]
        inner = Submission("/".join([archive.place, *parts]), archive.path, (*archive.members, number))
        what = kind("/".join(parts))
        if what == "notebook":
            found.append(inner)
        elif what == "archive" and len(inner.members) < len(MOST):
            more = in_archive(inner)
            found, others = found + more[0], others + more[1]
        elif what is not None:
            others.append(inner.place)
    fault = "" if found else "an archive without a notebook"
    if len(found) > (most := MOST[len(archive.members)]):
        fault = f"an archive of more than {most} notebooks"
    return [Submission(archive.place, archive.path, fault=fault)] if fault else found, others


def walk(top: Path, skip: Path | None) -> Iterator[tuple[Path, str]]:
    """Each file below a folder, with ""; each folder that cannot be searched, with the reason. No link is followed."""
    waiting = [top]
    while waiting:
        here = waiting.pop()
        try:
            with os.scandir(here) as entries:
                inside = [(Path(entry.path), entry.is_dir(follow_symlinks=False)) for entry in entries]
        except OSError:
            yield here, "a folder that cannot be read"
            continue
        for path, is_folder in inside:
            if not is_folder:
                yield path, ""
            elif len(path.relative_to(top).parts) > DEPTH:
                yield path, f"more than {DEPTH} folders deep"
            elif path != skip:
                waiting.append(path)


def find(folder: Path, skip: Path | None = None) -> tuple[list[Submission], list[str]]:
    """All submissions below a folder, or in a zip file, and the places of the files that are none.

    Args:
        folder: The folder or the zip file.
        skip: A folder that is left out.
    """
    top = folder if folder.is_dir() else folder.parent
    found, others = [], []
    for path, fault in walk(folder, skip) if folder.is_dir() else [(folder, "")]:
        submission = Submission(place(path, top), path, fault=fault)
        what = kind(submission.place)
        if fault or what == "notebook":
            found.append(submission)
        elif what == "archive":
            more = in_archive(submission)
            found, others = found + more[0], others + more[1]
        elif what is not None:
            others.append(submission.place)
    return sorted(found, key=lambda submission: submission.place), sorted(others)


def place(path: Path, top: Path) -> str:
    """A path below `top` as text, also where its bytes are no UTF-8."""
    return os.fsencode(path.relative_to(top).as_posix()).decode("utf-8", "replace")


def shown(text: str) -> str:
    """A text from outside in one printable line that no spreadsheet takes for a formula."""
    text = "".join(c if c.isprintable() or c in JOINERS else "\ufffd" for c in text)
    return text if text[:1].isalnum() else f"./{text}"


def plain_name(where: str) -> str:
    """The name of a student made of a place: `ann/ps1.ipynb` is ann-ps1. Letters of every script stay."""
    parts = [part[: -len(suffix)] if (suffix := PurePosixPath(part).suffix).lower() in (".ipynb", ".zip") else part
             for part in where.split("/")]
    letters = ((c, unicodedata.category(c)[0] in "LMN" or c in "_.@+-" + JOINERS)
               for c in unicodedata.normalize("NFC", "-".join(parts)))
    name = "_".join("".join(c if kept else " " for c, kept in letters).split())
    return name.lstrip("+-@._").encode()[:150].decode(errors="ignore") or "unnamed"  # bytes: a file gets this name


def distinct(names: Sequence[str], key: Callable[[str], str] = str) -> list[str]:
    """The same names; where two have one key, the later one gets a number, and never becomes what another one is."""
    wanted, used, result = set(map(key, names)), set(), []
    for name in names:
        new, number = name, 1
        while key(new) in used or number > 1 and key(new) in wanted:
            number += 1
            new = f"{name}-{number}"
        used.add(key(new))
        result.append(new)
    return result


def student_names(places: Sequence[str]) -> list[str]:
    """A name for each place; all differ, none is a formula in a CSV."""
    return distinct([plain_name(where) for where in places])
