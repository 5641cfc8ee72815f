"""Files that are whole whatever happens, and locks that die with their process."""
import os
import subprocess
import sys
import threading

import pytest

from flowlib.atomic import locked, sweep, write_atomic

HOLD = """
import sys, time
from pathlib import Path
from flowlib.atomic import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_writers_of_one_file_do_not_meet(tmp_path):
    """Each has a part of its own: what is there at the end is whole, and no write fails."""
    contents, errors, ready = [bytes([k]) * 100_000 for k in range(8)], [], threading.Barrier(8)

    def write(content):
        ready.wait()
        try:
            for _ in range(5):
                write_atomic(tmp_path / "file", content)
        except OSError as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors and (tmp_path / "file").read_bytes() in contents
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.skipif(os.name == "nt", reason="an open file cannot be replaced there")
def test_who_reads_the_old_file_reads_it_to_its_end(tmp_path):
    write_atomic(tmp_path / "file", b"old")
    with (tmp_path / "file").open("rb") as reader:
        write_atomic(tmp_path / "file", b"new")
        assert reader.read() == b"old" and (tmp_path / "file").read_bytes() == b"new"


def test_a_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    write_atomic(tmp_path / "file", b"old")

    def fsync(handle):
        raise OSError("no room")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match="no room"):
        write_atomic(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"old" and [path.name for path in tmp_path.iterdir()] == ["file"]


def test_sweep_removes_parts_alone(tmp_path):
    for name in ("file", ".file.0123.part", ".hidden"):
        (tmp_path / name).touch()
    sweep(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".hidden", "file"]


def test_one_holds_the_lock_and_leaves_nothing(tmp_path):
    with locked(tmp_path / "lock"):
        with pytest.raises(BlockingIOError, match="locked by another process"), locked(tmp_path / "lock"):
            pass
    assert not list(tmp_path.iterdir())
    with pytest.raises(KeyError), locked(tmp_path / "lock"):
        raise KeyError
    with locked(tmp_path / "lock"):
        pass


def test_a_lock_is_waited_for(tmp_path):
    inside, turns = threading.Event(), []

    def second():
        inside.wait()
        with locked(tmp_path / "lock", wait=60):
            turns.append("second")

    thread = threading.Thread(target=second)
    thread.start()
    with locked(tmp_path / "lock"):
        inside.set()
        turns.append("first")
    thread.join()
    assert turns == ["first", "second"]


def test_a_process_that_dies_lets_go(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "lock")], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    with pytest.raises(BlockingIOError), locked(tmp_path / "lock"):
        pass
    process.kill()
    process.wait()
    process.stdout.close()
    with locked(tmp_path / "lock"):
        pass


def test_a_file_system_without_locks_locks_nothing(tmp_path, monkeypatch):
    fcntl = pytest.importorskip("fcntl")

    def flock(handle, how):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", flock)
    with locked(tmp_path / "lock"):
        pass
