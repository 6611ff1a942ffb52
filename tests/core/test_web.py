import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from visionkit import DataError
from visionkit.core.web import fetch, is_url


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.asked.append((self.path, self.headers["User-Agent"]))
        kind, _, rest = self.path.lstrip("/").partition("/")
        if kind == "to":
            self.send_response(302)
            self.send_header("Location", rest)
            self.end_headers()
        elif kind == "silent":
            time.sleep(1)
        elif kind == "missing":
            self.send_error(404)
        else:
            body = b"x" * 1000
            self.send_response(200)
            if kind != "endless":
                self.send_header("Content-Length", "2000" if kind == "cut" else "1000")
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, *words):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    made = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.asked = []
    threading.Thread(target=made.serve_forever, daemon=True).start()
    made.url = f"http://127.0.0.1:{made.server_port}"
    yield made
    made.shutdown()
    made.server_close()


def test_a_file_comes_into_memory(server):
    assert fetch(f"{server.url}/plain") == b"x" * 1000
    assert fetch(f"{server.url}/endless", limit=1000) == b"x" * 1000
    assert fetch(f"{server.url}/a b/ü%20?q=ö&r=1")
    assert server.asked[-1][0] == "/a%20b/%C3%BC%20?q=%C3%B6&r=1"
    assert fetch(f"{server.url}/to//plain") == b"x" * 1000, "redirections to http are followed"
    assert server.asked[0][1].startswith("visionkit/")


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/missing", "the server answers 404 Not Found; check the address"),
        ("/plain", "has more than 999 bytes, the most for a picture of the web"),
        ("/endless", "has more than 999 bytes"),
        ("/cut", r"the connection ended after 1,000 of 2,000 bytes; try again|has more than 999"),
        ("/silent", r"cannot be read \(no answer within 0.2 s\)"),
        ("/to/file:///etc/passwd", "Redirection to url 'file:///etc/passwd' is not allowed"),
        ("/to/ftp://127.0.0.1/x", "leads to ftp://127.0.0.1/x"),
    ],
)
def test_what_fails_is_one_line(server, path, words):
    with pytest.raises(DataError, match=words) as raised:
        fetch(server.url + path, limit=999, timeout=0.2)
    assert "\n" not in str(raised.value)


def test_a_connection_that_ends_early_is_no_whole_file(server):
    with pytest.raises(DataError, match="ended after 1,000 of 2,000 bytes"):
        fetch(f"{server.url}/cut")


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://h/x", "http://", "http://me:secret@h/x", "s3://b/x"])
def test_other_kinds_are_not_opened(url):
    assert is_url(url)
    with pytest.raises(DataError, match="only http and https URLs without a user's name are read"):
        fetch(url)


def test_nobody_there_is_one_line(server):
    server.shutdown()
    server.server_close()
    with pytest.raises(DataError, match=r"127\.0\.0\.1.*cannot be read .*check address and connection"):
        fetch(f"{server.url}/x")


def test_paths_are_no_urls():
    assert not any(map(is_url, ("a.jpg", "/a//b.jpg", "C:\\a.jpg", "C:/a.jpg", "a:b.jpg", "*.jpg", "x[1].png")))
