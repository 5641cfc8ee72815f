"""A data host on 127.0.0.1 that does what servers do, and tiny sets with the names and formats of the real ones."""

import gzip
import io
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import torch

from flowlib import data
from flowlib.data import full

IMAGES, LABELS = full.IDX["train"]


def idx(array):
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes() + array.tobytes()


def archive(contents):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in ({"batches.meta.txt": b"airplane\n"} | contents).items():
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


class Server:
    """Answers by `routes`: path -> bytes, or a function of the request. Remembers what it was asked for."""

    def __init__(self):
        self.routes, self.asked = {}, []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                server.asked.append(self.path)
                answer = server.routes.get(self.path)
                if answer is None:
                    self.send_error(404)
                elif callable(answer):
                    answer(self)
                else:
                    self.send_response(200)
                    self.send_header("Content-Length", str(len(answer)))
                    self.end_headers()
                    self.wfile.write(answer)

            def log_message(self, *args):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.ended = threading.Event()
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    def close(self):
        self.http.ended.set()
        self.http.shutdown()
        self.http.server_close()


def dies_half_way(content):
    def answer(request):
        request.send_response(200)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        request.wfile.write(content[: len(content) // 2])  # then the connection closes

    return answer


def hangs(request):
    request.send_response(200)
    request.send_header("Content-Length", "1000")
    request.end_headers()
    request.wfile.flush()
    request.server.ended.wait()


def never_ends(request):
    request.send_response(200)
    request.end_headers()
    try:
        while True:
            request.wfile.write(bytes(1 << 16))
    except OSError:
        pass  # the client has hung up


def drips(request):
    """One byte now and then: no pause is long enough to be one."""
    request.send_response(200)
    request.end_headers()
    try:
        while not request.server.ended.wait(0.05):
            request.wfile.write(b"\x1f")
            request.wfile.flush()
    except OSError:
        pass


def says(answer):
    """A mirror that sends these bytes in place of an HTTP answer."""

    def raw(request):
        request.wfile.write(answer)
        request.close_connection = True

    return lambda content: raw


def unreadable_member(content):
    """An archive with a header that makes tarfile raise a ValueError."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", format=tarfile.PAX_FORMAT) as tar:
        member = tarfile.TarInfo("data")
        member.pax_headers = {"GNU.sparse.map": "many"}
        tar.addfile(member)
    return buffer.getvalue()


class World:
    """Two sets with the names and formats of the real ones, an empty cache, and a server that has nothing yet."""

    def __init__(self, folder):
        self.server, self.cache, self.own = Server(), folder / "cache", folder / "own"
        rng = np.random.RandomState(1)
        self.x, self.y = rng.randint(256, size=(70, 28, 28), dtype=np.uint8), rng.randint(10, size=70).astype(np.uint8)
        self.rows = rng.randint(10, size=(12, 3073)).astype(np.uint8)  # 2 in each of the 6 files
        self.contents = {
            "mnist": {IMAGES: idx(self.x), LABELS: idx(self.y)},
            "cifar10": {name: self.rows[2 * i : 2 * i + 2].tobytes() for i, name in enumerate(full.CIFAR10)},
        }

    def serve(self, mirror, change=lambda content: content):
        """Let a mirror have all files, the images (for cifar10 the archive) after a change."""
        for name, content in self.contents["mnist"].items():
            content = gzip.compress(content)
            self.server.routes[f"/{mirror}/{name}.gz"] = change(content) if name == IMAGES else content
        self.server.routes[f"/{mirror}/cifar.tar.gz"] = change(archive(self.contents["cifar10"]))

    def check(self, name="mnist"):
        """What `load` gives is what the files hold."""
        train, val = data.load(name), data.load(name, "val")
        x, y = (self.x, self.y) if name == "mnist" else (self.rows[:10, 1:], self.rows[:10, 0])
        assert np.array_equal(torch.cat([train.x, val.x]).flatten(1).numpy(), x.reshape(len(x), -1))
        assert torch.cat([train.y, val.y]).tolist() == y.tolist() and len(val.x) == full.VAL[name]

    def cached(self):
        return sorted(path.name for path in self.cache.rglob("*") if not path.is_dir())


def put(folder, contents):
    folder.mkdir(parents=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)


FAULTS = {  # what a mirror may do to a file that it should give
    "truncated": lambda content: content[:-100],
    "wrong digest": lambda content: gzip.compress(gzip.decompress(content).replace(b"\x07", b"\x08")),
    "not gzip": lambda content: b"<html>Sign in to this network</html>",
    "broken gzip": lambda content: content[:50] + bytes([content[50] ^ 255]) + content[51:],
    "dies half-way": dies_half_way,
    "hangs": lambda content: hangs,
    "never ends": lambda content: never_ends,
    "gzip bomb": lambda content: gzip.compress(bytes(10_000_000)),
    "404": lambda content: None,
    "drips": lambda content: drips,
    "no HTTP": says(b"\x00\xff" * 50),
    "bad header": says(b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n"),
    "bad redirect": says(b"HTTP/1.1 302 Found\r\nLocation: http://[::\r\n\r\n"),
    "redirect to a file": says(b"HTTP/1.1 302 Found\r\nLocation: file:///etc/hosts\r\n\r\n"),
    "bad chunk size": says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nmany\r\n\r\n"),
    "bad encoding": says(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nnone"),
    "bad member": unreadable_member,
}
