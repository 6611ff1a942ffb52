"""A picture of the web, from the command line to its record; the server is on this machine."""

import json
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

import visionkit
from visionkit.cli.main import run


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *words):
        pass


@pytest.fixture
def url(photos, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(photos)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_urls_are_predicted_as_files_are_and_saved_nowhere(url, photos, tiny_model, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    visionkit.save(tiny_model, "m.ckpt")
    given = [f"{url}/red/0.png", str(photos / "red" / "0.png"), f"{url}/none.png", f"{url}/red/"]
    assert run(["predict", "--ckpt", "m.ckpt", "--out", "o", *given]) == 1
    said = capsys.readouterr()
    first, second = map(json.loads, (tmp_path / "o" / "predictions.jsonl").read_text().splitlines())
    assert (first.pop("image"), second.pop("image")) == tuple(given[:2])
    assert first == second
    assert said.err.splitlines() == [
        f"{url}/none.png: the server answers 404 File not found; check the address",
        f"{url}/red/: a web page or XML, not an image; save it as PNG or JPEG",
        "error: 2 of 4 pictures could not be predicted",
    ]
    assert {p.name for p in tmp_path.rglob("*") if p.suffix == ".png"} == {f"{k}.png" for k in range(8)}
    assert not list((tmp_path / "o").rglob("*.png"))
