"""``visionkit backbone``: list and get; what ``fit`` says of weights that it cannot have."""

import hashlib
import json
import socket
import sys
import time

import pytest
from safetensors.torch import save

from tests import hub as stand_in
from visionkit.cli.main import run
from visionkit.models.backbones.resnet import ResNet

NAME = "resnet18.tv_in1k"
HOOK = []  # what watches Python's sockets now: an audit hook is never taken away


@pytest.fixture
def hub(tmp_path, monkeypatch):
    with stand_in.serving() as hub:
        stand_in.use(monkeypatch, hub.url, tmp_path / "cache")
        hub.files = {f"timm/{NAME}": save(ResNet(18).bn1.state_dict())}
        yield hub


@pytest.fixture
def mirror(tmp_path, monkeypatch, hub):
    (tmp_path / "mirror").mkdir()
    monkeypatch.setenv("VISIONKIT_WEIGHTS", str(tmp_path / "mirror"))
    return tmp_path / "mirror"


class TestList:
    def listed(self, capsys):
        assert run(["backbone", "list", "--json"]) == 0
        return {row["name"]: row for row in json.loads(capsys.readouterr().out)}

    def test_what_can_be_had_in_eighty_columns(self, hub, tmp_path, capsys):
        assert run(["backbone", "list"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[:2] == [
            "  name                      depth  param.    size  top-1  licence       where",
            "* resnet18.a1_in1k             18    12 M   47 MB   73.2  Apache-2.0    -",
        ]
        assert "  resnet50.tv2_in1k            50    26 M  102 MB   80.9  BSD-3-Clause  -" in lines
        assert lines[-3:] == [
            "mirror   none: VISIONKIT_WEIGHTS names no folder", f"cache    {tmp_path / 'cache'}", f"hub      {hub.url}"
        ]  # fmt: skip
        assert max(len(line) for line in lines if not line.startswith("cache")) <= 80
        assert hub.asked == []

    def test_where_it_is(self, mirror, capsys):
        assert run(["backbone", "get", NAME]) == 0
        (mirror / "resnet34.tv_in1k.pth").touch()
        capsys.readouterr()
        rows = self.listed(capsys)
        assert {name: row["where"] for name, row in rows.items() if row["where"]} == {
            NAME: "cache", "resnet34.tv_in1k": "mirror"
        }  # fmt: skip
        assert rows["resnet34.tv_in1k"]["path"] == str(mirror / "resnet34.tv_in1k.pth")
        assert rows["resnet50d.ra2_in1k"]["style"] == {"stem": "deep", "avg_down": True}

    def test_what_auto_takes_from_the_mirror(self, mirror, capsys):
        (mirror / "resnet18_mine.pth").touch()
        assert run(["backbone", "list"]) == 0
        assert capsys.readouterr().out.endswith(f"auto     of resnet18: {mirror / 'resnet18_mine.pth'}\n")

    def test_a_mirror_that_is_none(self, hub, monkeypatch, capsys):
        monkeypatch.setenv("VISIONKIT_WEIGHTS", "nothere")
        assert run(["backbone", "list"]) == 2
        assert capsys.readouterr().err.startswith("error: VISIONKIT_WEIGHTS is nothere, which is no folder")


class TestGet:
    def test_path_and_hash(self, hub, tmp_path, capsys):
        content = hub.files[f"timm/{NAME}"]
        for name in (NAME, f"timm/{NAME}"):
            assert run(["backbone", "get", name]) == 0
            file, sha256, use = capsys.readouterr().out.splitlines()
            assert file.startswith(f"file     {tmp_path / 'cache'}")
            assert sha256 == f"sha256   {hashlib.sha256(content).hexdigest()}"
            assert use == f"use      --model.backbone.weights {NAME}"
        assert len(hub.downloads()) == 1

    def test_a_copy_for_another_machine_is_a_mirror_there(self, hub, tmp_path, monkeypatch, capsys):
        command = ["backbone", "get", NAME, "--out", str(tmp_path / "stick")]
        assert run(command) == 0
        copy = tmp_path / "stick" / f"{NAME}.safetensors"
        assert copy.read_bytes() == hub.files[f"timm/{NAME}"]
        assert f"file     {copy}, " in capsys.readouterr().out
        stand_in.use(monkeypatch, "http://127.0.0.1:9", tmp_path / "empty")
        monkeypatch.setenv("VISIONKIT_WEIGHTS", str(tmp_path / "stick"))
        assert run(command) == 0
        assert f"file     {copy}, " in capsys.readouterr().out

    def test_another_file_stays_unless_told(self, hub, tmp_path, capsys):
        (tmp_path / f"{NAME}.safetensors").write_text("mine")
        command = ["backbone", "get", NAME, "--out", str(tmp_path)]
        assert run(command) == 2
        assert "exists and is another file: choose another folder, or add --overwrite" in capsys.readouterr().err
        assert (tmp_path / f"{NAME}.safetensors").read_text() == "mine"
        assert run([*command, "--overwrite"]) == 0
        assert (tmp_path / f"{NAME}.safetensors").read_bytes() == hub.files[f"timm/{NAME}"]

    def test_a_networks_name_is_what_auto_takes(self, hub, mirror, tmp_path, capsys):
        (mirror / "resnet18_mine.pth").write_text("x")
        assert run(["backbone", "get", "resnet18", "--out", str(tmp_path / "stick")]) == 0
        assert (tmp_path / "stick" / "resnet18_mine.pth").read_text() == "x"
        assert (
            "use      --model.backbone.weights auto, where VISIONKIT_WEIGHTS names this folder"
            in capsys.readouterr().out
        )

    @pytest.mark.parametrize(
        ("name", "status", "words"),
        [
            ("resnet18.tv_in1", 2, "no weights are named 'resnet18.tv_in1': did you mean resnet18.tv_in1k"),
            ("xqzzz", 2, "no weights are named 'xqzzz': `visionkit backbone list` shows names"),
            ("resnet34.tv_in1k", 1, "has no model.safetensors under this name (404)"),
            ("hf-hub:me", 1, "no name of the hub"),
        ],
    )
    def test_faults(self, hub, capsys, name, status, words):
        assert run(["backbone", "get", name]) == status
        error = capsys.readouterr().err
        assert words in error
        assert error.startswith("error: ")
        assert error.count("\n") == 1


def test_fit_without_network_is_one_line(tmp_path, photos, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    stand_in.use(monkeypatch, "http://127.0.0.1:9", tmp_path / "cache")
    start = time.monotonic()
    assert run(["fit", "-c", "classify.yaml", "--data.root", str(photos), "--weights", "auto"]) == 1
    assert time.monotonic() - start < 30  # it imports a lot
    error = capsys.readouterr().err
    assert error.startswith("error: weights resnet18.a1_in1k (47 MB, Apache-2.0): not on this machine, and http://127")
    assert error.count("\n") == 1
    assert not (tmp_path / "runs").exists()


class TestNothingElse:
    """What names no weights of the hub opens no socket, from the first line to the last."""

    SMALL = (
        *(
            "--data.size=32",
            "--data.batch_size=8",
            "--data.num_workers=0",
            "--data.augment=null",
            "--trainer.max_epochs=1",
        ),
        *("--model.backbone.layers=[1,1,1,1]", "--model.backbone.block=basic", "--model.backbone.stem=small"),
    )

    @pytest.fixture
    def closed(self, monkeypatch):
        """Refuse whatever asks Python's sockets for a network."""
        opened = []
        if not HOOK:
            sys.addaudithook(lambda event, arguments: [watch(event, arguments) for watch in HOOK])

        def watch(event, arguments):
            kind = arguments[1] if event == "socket.__new__" else None
            if event in ("socket.getaddrinfo", "socket.connect", "socket.bind") or kind in (2, 10):  # IPv4, IPv6
                opened.append(event)
                raise AssertionError(f"{event} {arguments[1:]}")

        HOOK.append(watch)
        yield opened
        HOOK.remove(watch)

    def test_fit_validate_predict(self, closed, tmp_path, photos, monkeypatch, capsys):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("VISIONKIT_WEIGHTS", str(tmp_path / "nothere"))  # nobody looks
        data = f"--data.root={photos}"
        assert run(["fit", "-c", "classify.yaml", data, *self.SMALL, "--model.backbone.weights=null"]) == 0
        first = "runs/classify-1/checkpoints/last.ckpt"
        assert run(["fit", "-c", "classify.yaml", data, *self.SMALL, "--model.backbone.weights", first]) == 0
        assert run(["validate", "-c", "runs/classify-2/config.yaml"]) == 0
        assert run(["predict", "--ckpt", "runs/classify-2", "--out", "out", str(photos)]) == 0
        assert closed == []
        with pytest.raises(AssertionError, match="socket"):
            socket.create_connection(("127.0.0.1", 9))
