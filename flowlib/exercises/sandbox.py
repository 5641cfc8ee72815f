"""The grader's side of the cage: start workers, send jobs, read what comes back as numbers and nothing else.

The verdict is made in this process, which never imports submitted code. All that arrives is an npz of plain arrays,
read with limits, or one of a few known reasons; so a submission can send no text of its own into a feedback file.
"""
import io
import json
import math
import os
import queue
import socket
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable
from contextlib import contextmanager
from itertools import product
from pathlib import Path

import numpy as np

from . import contain
from .worker import ANSWER_SIZE, NO_ISOLATION, OVERTIME

HERE = Path(__file__).resolve().parent
REASONS = {
    "empty": "not attempted", "missing": "no definition of `{function}` was found",
    "broken": "no definition of `{function}` was found, and a cell with a syntax error was left out",
    "memory": "out of memory", "import": "imports what this problem set does not allow ({forbidden})",
    "type": "returns something that is not numbers",
}
EXCEPTIONS = set("""ArithmeticError AssertionError AttributeError FileNotFoundError ImportError IndexError KeyError
    ModuleNotFoundError NameError OverflowError PermissionError RecursionError RuntimeError StopIteration SyntaxError
    SystemExit TypeError UnboundLocalError ValueError ZeroDivisionError""".split())
ENVIRONMENT = {"LANG": "C.UTF-8", "HOME": "/scratch",
               "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
SYSTEM = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/nix/store")


class NoAnswer(Exception):
    """There are no values; the text says why and holds nothing that the submission wrote."""


class Stopped(Exception):
    """The sandbox was stopped while a job was waiting or running."""


def outermost(folders: Iterable[str]) -> list[str]:
    """The existing folders that lie in no other one of them."""
    real = sorted({os.path.abspath(folder) for folder in folders if folder and os.path.isdir(folder)})
    return [a for a in real if a != "/" and not any(a.startswith(b + "/") for b in real)]


def read_arrays(raw: bytes) -> dict[str, np.ndarray]:
    """The arrays of an npz from an untrusted source: stored (nothing to unpack), small, numeric or text.

    Raises:
        ValueError: Anything else.
    """
    arrays = {}
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        members = archive.infolist()
        sizes = sum(member.file_size for member in members)
        packed = any(member.compress_type != zipfile.ZIP_STORED for member in members)
        if len(members) > 1000 or sizes > ANSWER_SIZE or packed:
            raise ValueError("not an answer of ours")
        for member in members:
            file = io.BytesIO(archive.read(member))
            if np.lib.format.read_magic(file) != (1, 0):  # what plain arrays are written as
                raise ValueError("not an answer of ours")
            shape, _, dtype = np.lib.format.read_array_header_1_0(file)
            # the header may promise more than is there: compare before anything is allocated
            promised = math.prod(shape) * dtype.itemsize
            if dtype.kind not in "biufU" or promised != member.file_size - file.tell():
                raise ValueError("not an answer of ours")
            file.seek(0)
            arrays[member.filename.removesuffix(".npy")] = np.lib.format.read_array(file, allow_pickle=False)
    return arrays


def explain(error: list[str], job: dict) -> str:
    """A sentence for an `error` array: known words, the name of a frequent exception, a line that the cell has."""
    reason, name, cell, line = error
    if reason != "raised":
        return REASONS[reason].format(function=job["function"], forbidden=", ".join(job["forbidden"]))
    name = name if name in EXCEPTIONS else "another exception"
    lines = {number: text.count("\n") + 1 for number, text in job["cells"]}
    exists = 0 < int(line) <= lines.get(int(cell), 0)
    return f"stopped with {name}" + (f" in code cell {int(cell)}, line {int(line)}" if exists else "")


class Worker:
    """One worker process, started anew after it was lost, and for each job where a fork after torch is not safe."""

    def __init__(self, hidden: Iterable[str | os.PathLike]):
        self.hidden, self.process, self.closed = [str(Path(folder).resolve()) for folder in hidden], None, False

    def start(self) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="grade-")
        self.socket, theirs = socket.socketpair()
        packages = [str(Path(path).resolve()) for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
        visible = outermost([*packages, sys.prefix, sys.base_prefix if sys.base_prefix != "/usr" else "", *SYSTEM,
                             *(path for path in sys.path if path.startswith(sys.base_prefix))])
        settings = {"packages": packages, "visible": visible, "hidden": [*self.hidden, str(HERE.parent)],
                    "folder": self.folder.name}
        command = [sys.executable, "-I", str(HERE / "worker.py"), str(theirs.fileno()), json.dumps(settings)]
        environment = ENVIRONMENT | {"PATH": os.environ.get("PATH", "")}
        nothing = subprocess.DEVNULL
        self.process = subprocess.Popen(command, pass_fds=[theirs.fileno()], env=environment, cwd=self.folder.name,
                                        start_new_session=True, stdin=nothing, stdout=nothing, stderr=nothing)
        theirs.close()
        self.socket.settimeout(300)
        if self.socket.recv(16) != b"ready":
            raise RuntimeError("the worker could not import numpy and torch")

    def stop(self) -> None:
        if self.process is not None:
            self.socket.close()
            self.process.kill()
            self.process.wait()
            self.folder.cleanup()
            self.process = None

    def close(self) -> None:
        """Stop for good, from another thread: the job that is running ends at once."""
        self.closed, process = True, self.process
        if process is not None:
            process.kill()

    def send(self, job: dict, arrays: dict[str, np.ndarray]) -> tuple[int | None, bytes]:
        """Status and bytes of one job."""
        if self.closed:
            raise Stopped
        if self.process is None or self.process.poll() is not None or sys.platform != "linux":
            self.stop()
            self.start()
        with tempfile.TemporaryFile() as request, tempfile.TemporaryFile() as answer:
            request.write(json.dumps(job).encode() + b"\n")
            np.savez(request, **arrays)  # pyright: ignore[reportArgumentType]  # no name is allow_pickle
            request.seek(0)
            self.socket.settimeout(job["seconds"] + 30)
            try:
                socket.send_fds(self.socket, [b"job"], [request.fileno(), answer.fileno()])
                status = int(self.socket.recv(16))
            except (OSError, ValueError):  # killed from inside, which namespaces prevent
                self.stop()
                status = None
            if self.closed:
                raise Stopped
            answer.seek(0)
            return status, answer.read(ANSWER_SIZE + 1)


class Sandbox:
    """A few workers behind one method that threads may call at the same time.

    Args:
        jobs: Number of workers.
        hidden: Folders to cover even if they lie among the packages.
        isolate: False gives up the namespaces.

    Attributes:
        isolated: Whether each child has a network, process ids and files of its own.
        filtered: Whether each child is a single process without sockets, keys and memory that no limit counts.
        gaps: Sentences that say what is not contained.

    Raises:
        PermissionError: On entering, if not even a harmless function works, as for root where there are no namespaces
            and this Python cannot be read by others.
        Stopped: From `run`, after `close`.
    """

    def __init__(self, jobs: int = 1, hidden: Iterable[Path] = (), isolate: bool = True):
        self.free, self.workers = queue.SimpleQueue(), [Worker(hidden) for _ in range(jobs)]
        for worker in self.workers:
            self.free.put(worker)
        self.isolated, self.filtered, self.gaps = isolate, contain.can_forbid_calls(), []

    def __enter__(self):
        try:
            self._choose()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _choose(self) -> None:
        """Use namespaces and the filter if they work, and say what is missing otherwise."""
        reasons = [] if self.isolated else ["not asked for"]
        for choice in dict.fromkeys(product((self.isolated, False), (self.filtered, False))):
            self.isolated, self.filtered = choice
            reason = self._probe()
            if not reason:
                break
            reasons.append(reason)
        else:
            # root may do anything to the machine, so without namespaces its children must be able to run as nobody
            raise PermissionError(f"no namespaces ({reasons[0]}), and without them {reasons[-1]}: grade with an "
                                  "ordinary account that can read Python's own files")
        if not self.isolated:
            self.gaps.append(f"no namespaces ({reasons[0]}): submitted code can read and change the files and end the "
                             "programs of the account that runs it" + ("" if self.filtered else ", and use the network")
                             + ". Time, memory and output are limited")
        if not self.filtered:
            self.gaps.append("no filter of system calls, which Linux has on x86-64 and aarch64: submitted code can "
                             "start processes, each with a whole limit of memory, and leave notes in the kernel's keys")
        if os.geteuid() == 0:
            self.gaps.append("grading runs as root: use an ordinary account")

    def _probe(self) -> str:
        """Why a harmless function that imports something gives no answer, or ""."""
        harmless = "def probe():\n    import wave\n    return 1.0"
        job, arrays = self._job([(1, harmless)], "probe", [([], [], [])], seconds=60)
        status, raw = self._send(job, arrays)
        if status == NO_ISOLATION:
            return raw.decode(errors="replace")
        try:
            return "" if "0_r0" in read_arrays(raw) else "Python's own files cannot be read inside"
        except Exception:
            return "a child ended without an answer"

    def close(self) -> None:
        """End all jobs at once, those that run and those that wait."""
        for worker in self.workers:
            worker.close()

    def __exit__(self, *_):
        for worker in self.workers:
            worker.stop()

    @contextmanager
    def _worker(self):
        worker = self.free.get()
        try:
            yield worker
        finally:
            self.free.put(worker)

    def _send(self, job, arrays):
        with self._worker() as worker:
            return worker.send(job, arrays)

    def _job(self, cells, function, cases, seconds=5, memory=1 << 30, dtype="float64", forbidden=()):
        arrays, lines = {}, []
        for i, (arguments, wrt, weights) in enumerate(cases):
            names = {f"a{i}_{k}": np.asarray(a) for k, a in enumerate(arguments) if not isinstance(a, (int, float))}
            weight = {f"w{i}_{k}": np.asarray(w) for k, w in enumerate(weights)}
            shown = [a if isinstance(a, (int, float)) else f"a{i}_{k}" for k, a in enumerate(arguments)]
            lines.append({"arguments": shown, "wrt": list(wrt), "weights": list(weight)})
            arrays |= names | weight
        job = {"cells": cells, "function": function, "cases": lines, "seconds": seconds, "memory": memory,
               "dtype": dtype, "forbidden": list(forbidden), "isolate": self.isolated, "filter": self.filtered}
        return job, arrays

    def run(self, cells: list[tuple[int, str]], function: str, cases: list[tuple], **limits) -> dict[str, np.ndarray]:
        """Call a submitted function on each case, in one child.

        Args:
            cells: [(number, text)] of the code cells.
            function: Its name.
            cases: [(arguments, wrt, weights)]: arrays or numbers; which are differentiated; one array for each value.
            **limits: seconds, memory (bytes), dtype (torch's default in the child), forbidden (packages).

        Returns:
            {"0_r0": array, ...}: values r and gradients g of each case.

        Raises:
            NoAnswer: With the reason.
        """
        job, arrays = self._job(cells, function, cases, **limits)
        status, raw = self._send(job, arrays)
        if status == OVERTIME:
            raise NoAnswer(f"stopped after {job['seconds']} s")
        try:
            values = read_arrays(raw)
            if "error" in values:
                reason = explain(values["error"].tolist(), job)
        except Exception:  # forged, cut off, or empty: nothing of it is shown
            raise NoAnswer("ended the process without an answer") from None
        if "error" in values:
            raise NoAnswer(reason)
        return values
