import importlib.metadata
import json
import socket

import pytest

from visionkit.cli.commands import info
from visionkit.cli.main import run


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    """Caches that are the test's own, and no network."""

    def refuse(*_, **__):
        raise AssertionError("a socket is opened")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.chdir(tmp_path)
    for name in ("HF_HOME", "HF_HUB_CACHE", "TORCH_HOME", "VISIONKIT_WEIGHTS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_it_says_what_is_here(tmp_path, monkeypatch, capsys):
    kept = tmp_path / "cache" / "huggingface" / "hub" / "models--timm--x" / "blobs"
    kept.mkdir(parents=True)
    (kept / "a").write_bytes(b"x" * 2_500_000)
    (kept / "link").symlink_to(kept / "a")
    monkeypatch.setattr(info, "EXTRAS", {"heif": (("no-such-package",), "photos"), "track": (("numpy",), "curves")})
    assert run(["info", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["packages"]["torch"] == importlib.metadata.version("torch")
    assert found["cores"] >= 1
    assert found["precision"] in ("bf16-mixed", "32-true")
    hub = found["caches"]["weights of the hub"]
    assert hub == {"path": str(tmp_path / "cache/huggingface/hub"), "files": 2, "megabytes": 2.5}
    assert found["caches"]["runs"]["files"] == 0

    assert run(["info"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("visionkit  ")
    assert "extras     heif      not there: pip install 'visionkit[heif]'" in lines
    assert any(line.startswith("           track     numpy ") for line in lines)
    assert f"caches     weights of the hub: {hub['path']}, 2.5 MB in 2 files" in lines
    assert "           runs: runs, empty" in lines


def test_variables_say_where_caches_are(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "h"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "t"))
    monkeypatch.setenv("VISIONKIT_WEIGHTS", str(tmp_path / "w"))
    assert {k: str(v.relative_to(tmp_path)) for k, v in info._caches().items() if k != "runs"} == {
        "weights of the hub": "h", "weights of torch": "t/hub", "weights at hand": "w",
    }  # fmt: skip


def test_extras_are_those_of_the_package():
    said = importlib.metadata.requires("visionkit") or []
    for name, (packages, _) in info.EXTRAS.items():
        asked = {line.partition(">")[0].strip() for line in said if f'extra == "{name}"' in line.replace("'", '"')}
        assert not asked or set(packages) == asked
