"""Files that are whole whatever happens, and folders with one writer at a time."""
from __future__ import annotations

import errno
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["locked", "sweep", "write_atomic"]


def write_atomic(path: Path, data: bytes) -> None:
    """All or nothing: a reader sees the old file or the new one, whatever stops this process or writes beside it.

    Raises:
        OSError: The file cannot be written, as on a full disk; the old one stays as it was.
    """
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")  # a name of its own for every writer
    try:
        with part.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)  # still there only if something failed


def sweep(folder: Path) -> None:
    """Remove what writers that were killed have left in a folder; its lock must be held."""
    for part in folder.glob(".*.part"):
        part.unlink(missing_ok=True)


@contextmanager
def locked(path: Path, wait: float = 0.0) -> Iterator[None]:
    """Hold the lock file at `path` while the block runs. The operating system lets go of it when a process dies, so
    that nothing is left to be cleared up; a file system without locks (some network ones) locks nothing.

    Args:
        path: The lock file, which exists only as long as it is held.
        wait: Seconds to wait for a process that holds it.

    Raises:
        BlockingIOError: Another process, or another block of this one, holds it.
        OSError: The file cannot be made.
    """
    deadline = time.monotonic() + wait
    while True:
        file = path.open("ab")
        try:
            held = _lock(file.fileno()) and os.path.samestat(os.stat(path), os.fstat(file.fileno()))
        except FileNotFoundError:  # the one who held it has removed it meanwhile
            held = False
        except BaseException:
            file.close()
            raise
        if held:
            break
        file.close()
        if time.monotonic() > deadline:
            raise BlockingIOError(errno.EAGAIN, "is locked by another process", str(path))
        time.sleep(0.05)
    try:
        yield
    finally:
        if os.name != "nt":
            path.unlink(missing_ok=True)  # while it is held: nobody else can have locked this file
        file.close()
        if os.name == "nt":  # where an open file cannot be removed, and one that another process has opened stays
            with suppress(OSError):
                path.unlink(missing_ok=True)


def _lock(handle: int) -> bool:
    """Try to lock an open file against everybody else, until it is closed."""
    try:
        if os.name == "nt":
            import msvcrt

            os.lseek(handle, 0, os.SEEK_SET)
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES, errno.EDEADLK)
    return True
