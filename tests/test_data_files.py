"""Verified files, against a real server on 127.0.0.1 that does what servers do, and against full disks."""

import errno
import gzip
import io
import os
import signal
import subprocess
import sys
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from hashlib import sha256

import numpy as np
import pytest
from data_host import FAULTS, IMAGES, World, archive, dies_half_way, idx, put

from flowlib import data
from flowlib.data import files, full, tables


@pytest.fixture
def world(tmp_path, monkeypatch):
    world = World(tmp_path)
    for name, place, whole in [("mnist", "{file}.gz", None), ("cifar10", "cifar.tar.gz", "cifar.tar.gz")]:
        expected = {key: files.File(len(c), sha256(c).hexdigest()) for key, c in world.contents[name].items()}
        mirrors = tuple(f"{world.server.url}/{mirror}/{place}" for mirror in "ab")
        monkeypatch.setitem(full.SETS, name, files.Source(expected, mirrors, whole))
    monkeypatch.setattr(full, "VAL", {"mnist": 20, "cifar10": 4})
    monkeypatch.setattr(files, "cache", lambda: world.cache)
    monkeypatch.setattr(files, "PAUSE", 0.0)
    monkeypatch.setattr(files, "TIMEOUT", (10.0, 3.0))
    monkeypatch.setattr(files, "GRACE", 5.0)
    monkeypatch.setattr(files, "SLACK", 20_000)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    for variable in ("FLOWLIB_DATA", "FLOWLIB_MIRROR"):
        monkeypatch.delenv(variable, raising=False)
    yield world
    world.server.close()


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_download_once_then_use_the_cache(name, world):
    world.serve("a")
    world.check(name)
    assert len(world.server.asked) == (2 if name == "mnist" else 1)
    assert world.cached() == sorted(world.contents[name])  # whole files under their own names, nothing else
    world.server.close()
    world.check(name)


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
@pytest.mark.parametrize("fault", FAULTS)
def test_bad_mirror_gives_way_to_a_good_one(name, fault, world):
    world.serve("a", FAULTS[fault])
    world.serve("b")
    world.check(name)  # a server that hangs is not waited for: it would hang until the end of the test
    assert any(path.startswith("/a/") for path in world.server.asked)
    assert world.cached() == sorted(world.contents[name])


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
@pytest.mark.parametrize("fault, said", [
    ("truncated", "not a complete gzip file"), ("wrong digest", "SHA-256 is wrong"),
    ("dies half-way", "Connection|IncompleteRead"), ("never ends", "sends more than"), ("404", "404"),
])  # fmt: skip
def test_bad_mirrors_only(name, fault, said, world):
    world.serve("a", FAULTS[fault])
    world.serve("b", FAULTS[fault])
    with pytest.raises(data.DataError, match=said) as caught:
        data.load(name)
    assert all(mirror in str(caught.value) for mirror in (f"{world.server.url}/a/", f"{world.server.url}/b/"))
    assert len(world.server.asked) == 2 * files.ROUNDS  # it was worth a second try
    assert world.cached() == []


def test_a_mirror_that_recovers(world):
    answers = iter([dies_half_way(bytes(1000)), lambda request: request.send_error(503)])
    world.serve("a")
    good = world.server.routes[f"/a/{IMAGES}.gz"]

    def flaky(request):
        if answer := next(answers, None):
            answer(request)
        else:
            request.send_response(200)
            request.end_headers()
            request.wfile.write(good)

    world.server.routes[f"/a/{IMAGES}.gz"] = world.server.routes[f"/b/{IMAGES}.gz"] = flaky
    world.check()


def test_archive_without_a_file(world):
    world.serve("a", lambda content: archive(dict(list(world.contents["cifar10"].items())[:-1])))
    with pytest.raises(data.DataError, match="the archive lacks test_batch.bin"):
        data.load("cifar10")


def test_no_server_and_no_file(world):
    world.server.close()
    with pytest.raises(data.DataError) as caught:
        data.load("mnist")
    message = str(caught.value)
    assert f"put {IMAGES} or {IMAGES}.gz into $FLOWLIB_DATA/mnist/" in message and "go online" in message
    assert str(world.cache / "mnist") in message and world.server.url in message
    assert world.cached() == []


def test_what_may_not_be_distributed_has_two_ways_in(world, monkeypatch):
    name = "bsds300-small"
    patches = {split: np.full((n, 64), 7, np.uint8) for split, n in (("train", 3), ("val", 2), ("test", 2))}
    buffer = io.BytesIO()
    np.savez(buffer, **patches)
    content = buffer.getvalue()
    (file,) = tables.TABLES[name].source.files
    facts = files.Source({file: files.File(len(content), sha256(content).hexdigest())}, ())
    monkeypatch.setitem(tables.TABLES, name, tables.Table(facts))
    with pytest.raises(data.DataError) as caught:
        data.load(name)
    message = str(caught.value)
    assert f"put {file} or {file}.gz into $FLOWLIB_DATA/{name}/" in message and "FLOWLIB_MIRROR" in message
    assert "no public mirror is known" in message and "go online" not in message
    put(world.own / name, {file: content})
    monkeypatch.setenv("FLOWLIB_DATA", str(world.own))
    assert data.load(name).x.shape == (3, 63) and data.load(name, "val").x.abs().max() < 1 / 256  # noise alone
    monkeypatch.delenv("FLOWLIB_DATA")
    monkeypatch.setenv("FLOWLIB_MIRROR", world.server.url + "/class/")
    world.server.routes[f"/class/{name}/{file}"] = content
    assert data.load(name, "test").x.shape == (2, 63)


def test_decompression_is_bounded(world):
    bomb = gzip.compress(bytes(100_000_000))
    tracemalloc.start()
    with pytest.raises(data.DataError, match="more than the expected 1,000 bytes"):
        files._inflated(io.BytesIO(bomb), 1000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000


def test_processes_that_download_at_once(world):
    world.serve("a")
    with ThreadPoolExecutor(4) as pool:
        for future in [pool.submit(world.check) for _ in range(4)]:
            future.result()
    assert world.cached() == sorted(world.contents["mnist"])


def test_mirror_of_ones_own(world, monkeypatch):
    """`python -m http.server` in a cache makes a mirror; so does a folder of the original downloads."""
    monkeypatch.setenv("FLOWLIB_MIRROR", world.server.url + "/class/")
    for name, contents in world.contents.items():
        for file, content in contents.items():
            world.server.routes[f"/class/{name}/{file}"] = content
        world.check(name)
    del world.server.routes[f"/class/mnist/{IMAGES}"]
    world.server.routes[f"/class/mnist/{IMAGES}.gz"] = gzip.compress(world.contents["mnist"][IMAGES])
    (world.cache / "mnist" / IMAGES).unlink()
    world.check()


@pytest.mark.parametrize("form", ["raw", "gzip", "archive"])
def test_own_folder_first(form, world, monkeypatch):
    monkeypatch.setenv("FLOWLIB_DATA", str(world.own))
    name = "cifar10" if form == "archive" else "mnist"
    contents = world.contents[name]
    if form == "gzip":
        contents = {f"{file}.gz": gzip.compress(content) for file, content in contents.items()}
    elif form == "archive":
        contents = {"cifar.tar.gz": archive(contents)}
    put(world.own / name, contents)
    put(world.cache / name, dict.fromkeys(world.contents[name], b"not to be looked at"))
    world.check(name)
    assert world.server.asked == []


SOMETHING = gzip.compress(bytes(range(256)))
FROM_A_NETWORK = {fault for fault, change in FAULTS.items() if not isinstance(change(SOMETHING), bytes)}


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("fault", [*sorted(FAULTS.keys() - FROM_A_NETWORK), "empty"])
def test_damaged_own_file_is_refused_named_and_kept(fault, suffix, world, monkeypatch):
    monkeypatch.setenv("FLOWLIB_DATA", str(world.own))
    world.serve("a")  # the network would have it: a user's own file is still not passed over in silence
    content = gzip.compress(world.contents["mnist"][IMAGES])
    damaged = b"" if fault == "empty" else FAULTS[fault](content)
    put(world.own / "mnist", world.contents["mnist"])
    (world.own / "mnist" / IMAGES).unlink()
    path = world.own / "mnist" / (IMAGES + suffix)
    path.write_bytes(damaged)
    with pytest.raises(data.DataError) as caught:
        data.load("mnist")
    assert f"{path} is corrupt: " in str(caught.value)
    assert path.read_bytes() == damaged and world.server.asked == []


def test_damaged_cache_is_said_and_replaced(world):
    put(world.cache / "mnist", world.contents["mnist"] | {IMAGES: world.contents["mnist"][IMAGES][:-1]})
    with pytest.warns(UserWarning, match=f"{IMAGES} is corrupt: .* instead of .*downloading it again"):
        with pytest.raises(data.DataError, match="no sound copy"):
            data.load("mnist")
    assert len(world.cached()) == 2  # a copy that may be of use is kept until a good one is there
    world.serve("a")
    with pytest.warns(UserWarning, match="is corrupt"):
        data.load("mnist")
    world.check()


@contextmanager
def no_file_larger_than(size):
    """The kernel itself refuses to write more, as it does when a disk is full."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("at", ["download", "store"])
def test_full_disk_leaves_nothing_behind(at, world):
    world.contents["mnist"][IMAGES] = content = idx(np.zeros((2000, 28, 28), np.uint8))  # 1.5 MB, gzipped 2 kB
    expected = files.File(len(content), sha256(content).hexdigest())
    full.SETS["mnist"].files[IMAGES] = expected
    world.serve("a", (lambda compressed: content) if at == "download" else (lambda compressed: compressed))
    with no_file_larger_than(1_000_000):
        with pytest.raises(data.DataError, match="cannot write mnist into .*cache/mnist: .*large"):
            data.load("mnist")
    assert world.cached() == [] and len(world.server.asked) == 1  # no other mirror could help
    assert len(data.load("mnist").x) == 1980  # with room again, all is well


def test_disk_that_is_found_full_at_the_last_moment(world, monkeypatch):
    """Network and copy-on-write file systems report it when the bytes are to reach the disk."""

    def fsync(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    world.serve("a")
    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(data.DataError, match=f"cannot write mnist into .*{os.strerror(errno.ENOSPC)}"):
        data.load("mnist")
    assert world.cached() == []


def test_interrupt_before_the_rename_leaves_nothing_behind(world, monkeypatch):
    """A file gets its name in one step, after all its bytes have reached the disk."""

    def interrupted(temporary, path):
        assert temporary.read_bytes() == world.contents["mnist"][path.name] and not path.exists()
        raise KeyboardInterrupt

    world.serve("a")
    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        data.load("mnist")
    assert world.cached() == []


def test_one_of_several_processes_downloads(world):
    """The others wait, and find the file; a mirror that would be asked once by each is asked once."""
    world.serve("a")
    ready = threading.Barrier(4)

    def loads():
        ready.wait()
        data.load("mnist")

    with ThreadPoolExecutor(4) as pool:
        for future in [pool.submit(loads) for _ in range(4)]:
            future.result()
    assert sorted(world.server.asked) == sorted(f"/a/{name}.gz" for name in world.contents["mnist"])


KILLED = """
import os, sys
from pathlib import Path
from flowlib import atomic
os.replace = lambda part, path: os.kill(os.getpid(), 9)  # at the worst moment
path = Path(sys.argv[1])
with atomic.locked(path.with_name(".lock")):
    atomic.write_atomic(path, b"half of it")
"""


@pytest.mark.skipif(os.name == "nt", reason="kills by a signal")
def test_what_a_killed_download_left_is_cleared_up(world):
    path = world.cache / "mnist" / IMAGES
    path.parent.mkdir(parents=True)
    killed = subprocess.run([sys.executable, "-c", KILLED, str(path)])
    assert killed.returncode == -signal.SIGKILL and len(world.cached()) == 2  # a part and a lock
    world.serve("a")
    world.check()
    assert world.cached() == sorted(world.contents["mnist"])


def test_cache_that_cannot_be_made(world):
    world.serve("a")
    world.cache.write_text("a file where the folder should be")
    with pytest.raises(data.DataError, match="cannot write mnist into"):
        data.load("mnist")
