"""Verified files: whatever a caller gets is byte for byte what was published, or a `DataError` says what is wrong.

A file is looked for in the user's own folder, then in the cache, then at the mirrors. It may lie there as it is,
gzipped, or as a member of a gzipped tar archive: its digest is that of the uncompressed content, so all three are one.
"""

import gzip
import io
import os
import tarfile
import tempfile
import threading
import time
import warnings
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NamedTuple

from ..atomic import locked, sweep, write_atomic

ROUNDS, PAUSE = 2, 1.0  # how often every mirror is tried, and the seconds between two rounds
TIMEOUT = (10, 30)  # seconds to connect, and between two pieces of an answer
GRACE, SLOWEST = 60.0, 20_000  # a mirror has so many seconds, and one more for each so many bytes that it has sent
PATIENCE = 3600.0  # seconds to wait for another process that downloads the same set
CHUNK = 1 << 14  # bytes that a connection collects before they are counted
SLACK = 1_000_000  # bytes that compression or the headers and small texts of an archive may add to the content


class DataError(OSError):
    """A data file is corrupt, or cannot be had; the message names it and says what to do."""


class File(NamedTuple):
    """What the uncompressed content of one file must be."""

    size: int
    sha256: str


class Source(NamedTuple):
    """The files of one data set, and the addresses of their mirrors, in the order in which they are tried."""

    files: dict[str, File]
    mirrors: tuple[str, ...]  # "{file}" stands for the file's name; else the address is that of the archive
    archive: str | None = None  # name of an archive that holds all the files

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files.values())


def fetch(name: str, source: Source, wanted: Sequence[str]) -> list[bytes]:
    """The verified contents of the `wanted` files of the data set `name`.

    Raises:
        DataError: For a corrupt file in `$FLOWLIB_DATA`, or when a file is nowhere to be had.
    """
    own = os.environ.get("FLOWLIB_DATA")
    found: dict[str, bytes] = {}
    for file in wanted:
        if own and file not in found:
            found |= _local(Path(own).expanduser() / name, source, file)  # what a user put there is never replaced
        if file not in found:
            found |= _cached_or_downloaded(name, source, file)
    return [found[file] for file in wanted]


def at_hand(name: str, source: Source) -> bool:
    """Whether files of these names lie in `$FLOWLIB_DATA` or in the cache, whatever is in them."""
    folders = [Path(own).expanduser() / name] if (own := os.environ.get("FLOWLIB_DATA")) else []
    with suppress(ImportError):
        folders.append(cache() / name)
    return all(any((folder / place).is_file() for folder in folders for place in _places(source, file))
               for file in source.files)


def cache() -> Path:
    """The folder for downloads: what the operating system reserves for caches, `~/.cache/flowlib` on Linux."""
    return Path(_pooch().os_cache("flowlib"))


def _pooch():
    try:
        import pooch
        import tqdm  # noqa: F401  (the progress bar)
    except ImportError as error:
        raise ImportError("the full data sets are downloaded and cached by pooch: pip install pooch tqdm") from error
    return pooch


def _cached_or_downloaded(name: str, source: Source, file: str) -> dict[str, bytes]:
    folder = cache() / name
    try:
        if found := _local(folder, source, file):
            return found
    except DataError as error:
        warnings.warn(f"{error}; downloading it again", stacklevel=5)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / ".lock", wait=PATIENCE):  # of several processes one downloads, the others find the file
            sweep(folder)
            with suppress(DataError):
                if found := _local(folder, source, file):
                    return found
            return _download(folder, name, source, file)
    except DataError:
        raise
    except OSError as error:  # ours, not a mirror's: a full disk, a folder without write permission
        raise DataError(f"cannot write {name} into {folder}: {error}") from error


def _places(source: Source, file: str) -> list[str]:
    """The names under which `file` may lie in a folder."""
    return [file, f"{file}.gz"] + ([source.archive] if source.archive else [])


def _local(folder: Path, source: Source, file: str) -> dict[str, bytes]:
    """Verified contents by name: of `file`, or of all files if an archive holds it; empty if the folder has neither."""
    for path in (folder / place for place in _places(source, file)):
        if path.is_file():
            try:
                with path.open("rb") as stream:
                    return _unpack(stream, source, file, path.name == source.archive)
            except DataError as error:
                raise DataError(f"{path} is corrupt: {error}") from error
    return {}


def _unpack(stream: BinaryIO, source: Source, file: str, is_archive: bool) -> dict[str, bytes]:
    """Verified contents by name. DataError for whatever a damaged or hostile file does to the one who reads it."""
    try:
        if not is_archive:
            return {file: _verified(_inflated(stream, source.files[file].size), source.files[file])}
        contents = {}
        with tarfile.open(fileobj=io.BytesIO(_inflated(stream, source.size + SLACK)), mode="r:") as tar:
            for member in filter(tarfile.TarInfo.isfile, tar):
                member_name = PurePosixPath(member.name).name  # the folder inside the archive does not matter
                if member_name in source.files and (inner := tar.extractfile(member)):
                    expected = source.files[member_name]
                    contents[member_name] = _verified(inner.read(expected.size + 1), expected)
    except (DataError, MemoryError):
        raise
    except Exception as error:  # tar headers raise errors of many kinds
        raise DataError(f"not a complete file of its kind ({type(error).__name__}: {error})") from error
    if missing := source.files.keys() - contents:
        raise DataError(f"the archive lacks {', '.join(sorted(missing))}")
    return contents


def _inflated(stream: BinaryIO, limit: int) -> bytes:
    """The content, uncompressed if it is gzipped; never more than `limit` bytes, however much a file claims to hold."""
    gzipped = stream.read(2) == b"\x1f\x8b"
    stream.seek(0)
    try:
        content = (gzip.GzipFile(fileobj=stream) if gzipped else stream).read(limit + 1)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"not a complete gzip file ({error})") from error
    if len(content) > limit:
        raise DataError(f"more than the expected {limit:,} bytes")
    return content


def _verified(content: bytes, expected: File) -> bytes:
    if len(content) != expected.size:
        raise DataError(f"{len(content):,} bytes instead of {expected.size:,}")
    if sha256(content).hexdigest() != expected.sha256:
        raise DataError("its SHA-256 is wrong")
    return content


def _download(folder: Path, name: str, source: Source, file: str) -> dict[str, bytes]:
    """Download `file`, or the archive that holds it, into the folder; return the verified contents by name."""
    pooch, problems = _pooch(), {}
    for attempt in range(ROUNDS):
        time.sleep(PAUSE if attempt else 0)
        for url in _addresses(name, source, file):
            is_archive = url.endswith(f"/{source.archive}")
            limit = (source.size if is_archive else source.files[file].size) + SLACK
            try:
                with tempfile.TemporaryFile(dir=folder) as stream:
                    _stream(pooch, url, _Capped(stream, limit))
                    stream.seek(0)
                    contents = _unpack(stream, source, file, is_archive)
            except DataError as error:  # this mirror's fault: on to the next
                problems[url] = error
                continue
            for key, content in contents.items():
                write_atomic(folder / key, content)
            return contents
    tried = "".join(f"  {url}: {problem}\n" for url, problem in problems.items())
    else_ = "go online and call again" if tried else "set FLOWLIB_MIRROR to the address of a server that has it"
    raise DataError(
        f"{name}: no sound copy of {file} in $FLOWLIB_DATA/{name} or {folder}, and "
        + (f"no mirror gave one:\n{tried}" if tried else "no public mirror is known.\n") +
        f"Two ways out: put {' or '.join(_places(source, file))} into $FLOWLIB_DATA/{name}/ (set the variable to any "
        f"folder), or {else_}."
    )


def _addresses(name: str, source: Source, file: str) -> list[str]:
    """Where to ask for `file`: at `$FLOWLIB_MIRROR` if it is set (a served copy of a cache), else at the mirrors."""
    if mirror := os.environ.get("FLOWLIB_MIRROR"):
        return [f"{mirror.rstrip('/')}/{name}/{place}" for place in _places(source, file)]
    return [mirror.format(file=file) for mirror in source.mirrors]


class _Capped:
    """A stream that refuses to grow beyond `limit` bytes, whatever a server sends, and remembers a fault of its own."""

    def __init__(self, stream: BinaryIO, limit: int):
        self.stream, self.limit, self.received, self.fault = stream, limit, 0, None

    def write(self, chunk: bytes) -> int:
        self.received += len(chunk)
        if self.received > self.limit:
            raise DataError(f"sends more than {self.limit:,} bytes")
        return self._try(self.stream.write, chunk)

    def flush(self) -> None:
        self._try(self.stream.flush)

    def _try(self, action: Callable, *arguments):
        try:
            return action(*arguments)
        except OSError as error:
            self.fault = error
            raise


def _stream(pooch, url: str, output: _Capped) -> None:
    """Download into `output`. DataError for whatever the mirror does wrong, as being too slow; OSError for the disk.

    The work is done in a thread of its own, which is left alone when the time is up: a mirror that sends one byte now
    and then, of its headers or of an encrypted connection, never lets the call return.
    """
    from tqdm import tqdm

    problems: list[Exception] = []

    def work() -> None:
        try:
            # pooch sets the true total; it needs some total to begin with, since a bar without one has no truth value
            with tqdm(desc=url.rsplit("/", 1)[-1], total=1, unit="B", unit_scale=True, leave=False) as bar:
                pooch.HTTPDownloader(progressbar=bar, chunk_size=CHUNK, timeout=TIMEOUT)(url, output, None)
        except Exception as error:
            problems.append(error)

    thread = threading.Thread(target=work, daemon=True)
    began = time.monotonic()
    thread.start()
    while thread.is_alive():
        thread.join(0.1)
        seconds = time.monotonic() - began
        if thread.is_alive() and seconds > GRACE + output.received / SLOWEST:
            raise DataError(f"sent {output.received:,} bytes in {seconds:.0f} s, too slow to wait for")
    if output.fault:
        raise output.fault
    for problem in problems:
        raise problem if isinstance(problem, DataError) else DataError(f"{type(problem).__name__}: {problem}")
