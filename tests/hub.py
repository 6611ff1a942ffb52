"""A small server on the loopback that stands in for the hub: it says what a file is, and sends it on to where it lies."""

import hashlib
import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """What the server has, what it was asked, and how it fails."""

    def __init__(self):
        self.files = {}  # OWNER/NAME -> content
        self.asked = []  # (method, path, Range, Authorization)
        self.cuts = []  # for each download to come, bytes after which the connection ends; None for none
        self.sha256 = None  # what it says instead of the truth
        self.ranges = True  # whether it can send a part
        self.open = threading.Event()  # what downloads wait for
        self.open.set()
        self.url = ""

    def downloads(self):
        """The ranges of all downloads."""
        return [asked for method, path, asked, _ in self.asked if method == "GET" and path.startswith("/blob/")]


@contextmanager
def serving():
    """Run a hub; yield it."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.answer(send=False)

        def do_GET(self):
            self.answer(send=True)

        def answer(self, send):
            hub.asked.append((self.command, self.path, self.headers.get("Range"), self.headers.get("Authorization")))
            if found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/main/model.safetensors", self.path):
                self.resolve(found[1])
            elif self.path.startswith("/blob/") and send:
                self.blob(hub.files[self.path.removeprefix("/blob/")])
            else:
                self.plain(404)

        def resolve(self, name):
            if name not in hub.files:
                return self.plain(404)
            content = hub.files[name]
            return self.plain(
                302,
                Location=f"/blob/{name}",
                ETag='"of-the-redirect"',
                **{
                    "X-Linked-ETag": f'"{hub.sha256 or hashlib.sha256(content).hexdigest()}"',
                    "X-Linked-Size": str(len(content)),
                    "X-Repo-Commit": COMMIT,
                },
            )

        def blob(self, content):
            hub.open.wait(20)
            start = 0
            if hub.ranges and (asked := self.headers.get("Range")):
                start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1])
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            cut = hub.cuts.pop(0) if hub.cuts else None
            self.wfile.write(content[start:] if cut is None else content[start : start + cut])
            self.close_connection = True

        def plain(self, code, **headers):
            self.send_response(code)
            for name, value in {**headers, "Content-Length": "0"}.items():
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True, kwargs={"poll_interval": 0.02}).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


def use(monkeypatch, endpoint, cache):
    """Let this process take an address for the hub, a folder for its cache, and no mirror."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.delenv("VISIONKIT_WEIGHTS", raising=False)
    monkeypatch.delenv("HF_TOKEN", raising=False)
