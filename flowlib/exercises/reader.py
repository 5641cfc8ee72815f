"""Read the code of one notebook, or list an archive, in a process of its own with little memory. Standard library only.

    python -I -S reader.py notebook|archive [MEMBER ...] < FILE

A few bytes of a stranger's file may unfold into gigabytes, so it is unfolded here and not where grades are given. Each
MEMBER is the number of a file in an archive, the next one that of a file in that file. Nothing is written to the disk.
Prints JSON: {"cells": [[number, text], ...]} of a notebook, {"members": [[number, name], ...]} of an archive, or
{"fault": why not}.
"""
import io
import json
import sys
import zipfile
from typing import IO

FILE_SIZE, CODE_SIZE, MEMORY, MEMBERS = 100 << 20, 1 << 20, 1 << 30, 10_000  # bytes, and files in an archive


class Unreadable(ValueError):
    """A file that cannot be graded; the message holds nothing of what is in it."""


def read(file: IO[bytes]) -> bytes:
    """All of a file that is not too large."""
    raw = file.read(FILE_SIZE + 1)
    if len(raw) > FILE_SIZE:
        raise Unreadable(f"larger than {FILE_SIZE >> 20} MB")
    return raw


def members(file: IO[bytes]) -> list[tuple[int, str]]:
    """[(number, name)] of the files in an archive. Zip programs that do not say so write UTF-8 all the same."""
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
    if len(entries) > MEMBERS:
        raise Unreadable(f"an archive of more than {MEMBERS} files")
    found = []
    for number, entry in enumerate(entries):
        name = entry.filename
        try:
            name = name if entry.flag_bits & 0x800 else name.encode("cp437").decode()
        except ValueError:
            pass
        found += [] if entry.is_dir() else [(number, name)]
    return found


def member(file: IO[bytes], number: int) -> io.BytesIO:
    """One file of an archive."""
    with zipfile.ZipFile(file) as archive:
        entry = archive.infolist()[number]
        if entry.flag_bits & 1:
            raise Unreadable("encrypted")
        with archive.open(entry) as inner:
            return io.BytesIO(read(inner))


def code_cells(file: IO[bytes]) -> list[tuple[int, str]]:
    """[(number, text)] of the code cells, counted from 1, whatever happened to ids, metadata and outputs."""
    try:
        cells = json.loads(read(file))["cells"]
        texts = ["".join(cell["source"]) for cell in cells if cell.get("cell_type") == "code"]
    except Unreadable:
        raise
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise Unreadable("not a notebook") from None
    if sum(map(len, texts)) > CODE_SIZE:
        raise Unreadable("more than 1 MB of code")
    return list(enumerate(texts, 1))


def answer(kind: str, path: list[str]) -> dict:
    """What is printed."""
    try:
        file: IO[bytes] = sys.stdin.buffer
        for number in path:
            file = member(file, int(number))
        return {"cells": code_cells(file)} if kind == "notebook" else {"members": members(file)}
    except Unreadable as error:
        return {"fault": str(error)}
    except MemoryError:
        return {"fault": "takes more than 1 GB of memory to read"}
    except Exception:  # zipfile raises what its decoders raise
        return {"fault": "a damaged archive"}


if __name__ == "__main__":
    import resource

    try:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    except (ValueError, OSError):  # macOS knows the limit and refuses it
        pass
    json.dump(answer(sys.argv[1], sys.argv[2:]), sys.stdout)
