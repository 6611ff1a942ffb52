"""``visionkit backbone``: inspect and export."""

import json
import subprocess
import sys

import pytest
import torch
from safetensors import safe_open

import visionkit
from visionkit import ResNet, TimmBackbone
from visionkit.cli.main import run

SMALL = {"layers": (1, 1, 1, 1), "block": "basic", "stem": "small"}


@pytest.fixture
def ckpt(tmp_path, tiny_model):
    visionkit.save(tiny_model, tmp_path / "m.ckpt")
    return tmp_path / "m.ckpt"


def inspect(capsys, path):
    assert run(["backbone", "inspect", str(path)]) == 0
    return capsys.readouterr().out


def as_json(capsys, path):
    assert run(["backbone", "inspect", str(path), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


class TestInspect:
    def test_a_checkpoint(self, ckpt, capsys):
        out = inspect(capsys, ckpt)
        for line in (
            "kind     visionkit checkpoint, 3 classes",
            'network  a ResNet of layers [1, 1, 1, 1], block basic, stem small',
            'use      --model.backbone ResNet --model.backbone.layers "[1, 1, 1, 1]" --model.backbone.block basic '
            f"--model.backbone.stem small --model.backbone.weights {ckpt}",
            "where    state_dict, prefix 'model.backbone.'",
            "classes  3: blue, green, red",
            "input    mean 0.485 0.456 0.406, std 0.229 0.224 0.225: from the checkpoint",
            "beside the backbone: head (2)",
        ):  # fmt: skip
            assert line in out.splitlines()

    def test_json(self, ckpt, capsys):
        found = as_json(capsys, ckpt)
        assert found["arguments"] == {"layers": [1, 1, 1, 1], "block": "basic", "stem": "small"}
        assert found["backbone"] == "ResNet"
        net = ResNet(**SMALL)
        counts = {s["name"]: s["parameters"] for s in found["stages"]}
        assert counts == {k: sum(p.numel() for m in v for p in m.parameters()) for k, v in net.stages().items()}
        assert found["dtypes"]["float32"] + found["dtypes"]["int64"] == len(net.state_dict()) + 2
        assert (found["mean"], found["lineage"], found["averaged"]) == ([0.485, 0.456, 0.406], [], False)

    def test_averaged_weights_and_what_lies_beside(self, tmp_path, capsys):
        state = ResNet(**SMALL).state_dict()
        torch.save({"state_dict": state, "state_dict_ema": state, "arch": "mine"}, tmp_path / "w.pth")
        out = inspect(capsys, tmp_path / "w.pth")
        assert "where    state_dict_ema\naverage  averaged weights (EMA) are taken\n" in out
        assert f"beside   state_dict ({len(state)} tensors)" in out
        assert "kind     timm checkpoint of mine" in out

    def test_lineage(self, tmp_path, ckpt, capsys):
        visionkit.save(
            visionkit.VisionModel(ResNet(**SMALL, weights=str(ckpt)), visionkit.LinearHead, ["a"]), tmp_path / "2.ckpt"
        )
        assert inspect(capsys, tmp_path / "2.ckpt").splitlines()[-1] == (
            f"itself from {ckpt.name} (visionkit checkpoint, 3 classes), 100.0%"
        )

    def test_an_unknown_network_has_its_top_level_names(self, tmp_path, capsys):
        torch.save(
            {"trunk.a": torch.ones(2, 3), "trunk.b": torch.ones(3), "fc.weight": torch.ones(7, 3)}, tmp_path / "q"
        )
        found = as_json(capsys, tmp_path / "q")
        assert (found["network"], found["options"], found["outputs"]) == ("not recognised", "", 7)
        assert [(s["name"], s["tensors"], s["parameters"]) for s in found["stages"]] == [("trunk", 2, 9), ("fc", 1, 21)]

    @pytest.mark.parametrize(
        ("name", "network", "options", "outputs", "total"),
        [
            ("resnet18_tinyimagenet", "a ResNet of depth 18", "--model.backbone ResNet --model.backbone.depth 18", 200, 11176512),
            (
                "tf_efficientnet_lite0", "timm's tf_efficientnet_lite0",
                "--model.backbone TimmBackbone --model.backbone.name tf_efficientnet_lite0", 1000, 3371008,
            ),
        ],
    )  # fmt: skip
    def test_real_files(self, data_root, capsys, name, network, options, outputs, total):
        path = data_root / "weights" / f"{name}.safetensors"
        if not path.exists():
            pytest.skip(f"{path.name} is not there")
        found = as_json(capsys, path)
        assert (found["network"], found["options"], found["outputs"]) == (network, options, outputs)
        assert found["certain"] is True
        assert sum(s["parameters"] for s in found["stages"]) == total


class TestExport:
    def test_header_and_tensors(self, tmp_path, ckpt, tiny_model, capsys):
        out = tmp_path / "new" / "b.safetensors"
        assert run(["backbone", "export", str(ckpt), str(out)]) == 0
        assert f"written  {out}" in capsys.readouterr().out
        with safe_open(out, "pt") as file:
            header = file.metadata()
            tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
        state = tiny_model.backbone.state_dict()
        assert tensors.keys() == state.keys()
        assert all(torch.equal(tensors[k], state[k]) for k in state)
        assert all(isinstance(v, str) for v in header.values())
        assert header["visionkit"] == visionkit.__version__
        assert json.loads(header["backbone"])["class_path"] == "visionkit.ResNet"
        assert json.loads(header["passport"])["source"] == ckpt.name
        assert [p.name for p in out.parent.iterdir()] == ["b.safetensors"]

    def test_inspecting_it(self, tmp_path, ckpt, capsys):
        run(["backbone", "export", str(ckpt), str(tmp_path / "b.safetensors")])
        capsys.readouterr()
        out = inspect(capsys, tmp_path / "b.safetensors")
        assert "stem small" in out
        assert "from the file's header" in out
        assert f"itself from {ckpt.name} " in out

    def test_timms_own_names(self, tmp_path):
        net = TimmBackbone("mobilenetv3_small_050")
        visionkit.save(visionkit.VisionModel(net, visionkit.LinearHead, ["a"]), tmp_path / "m.ckpt")
        assert run(["backbone", "export", str(tmp_path / "m.ckpt"), str(tmp_path / "b.safetensors")]) == 0
        with safe_open(tmp_path / "b.safetensors", "pt") as file:
            assert set(file.keys()) == set(net.net.state_dict())

    def test_it_does_not_overwrite_unasked(self, tmp_path, ckpt, capsys):
        out = tmp_path / "b.safetensors"
        out.write_text("mine")
        assert run(["backbone", "export", str(ckpt), str(out)]) == 2
        assert "exists: choose another name, or add --overwrite" in capsys.readouterr().err
        assert out.read_text() == "mine"
        assert run(["backbone", "export", str(ckpt), str(out), "--overwrite"]) == 0
        assert out.stat().st_size > 1e6

    def test_a_backbone_of_the_users_own_wants_trust(self, tmp_path, monkeypatch, capsys):
        (tmp_path / "my_own_backbones.py").write_text(
            "from visionkit import ResNet\nclass Mine(ResNet):\n    '''Mine.'''\n"
        )
        monkeypatch.syspath_prepend(str(tmp_path))
        from my_own_backbones import Mine

        visionkit.save(visionkit.VisionModel(Mine(**SMALL), visionkit.LinearHead, ["a"]), tmp_path / "m.ckpt")
        command = ["backbone", "export", str(tmp_path / "m.ckpt"), str(tmp_path / "b.safetensors")]
        assert run(command) == 2
        assert "--trust my_own_backbones" in capsys.readouterr().err
        assert run([*command, "--trust", "my_own_backbones"]) == 0


class TestFaults:
    @pytest.mark.parametrize(
        ("arguments", "status", "words"),
        [
            ([], 2, "required: list|get|inspect|export"),
            (["look"], 2, "invalid choice: 'look'"),
            (["inspect"], 2, "required: FILE"),
            (["inspect", "x", "--jsn"], 2, "did you mean --json"),
            (["inspect", "nothere.pth"], 2, "nothere.pth: no such file; check the path"),
            (["export", "nothere.ckpt", "b.safetensors"], 1, "nothere.ckpt: no such file"),
            (["export", "{weights}", "b.pth"], 2, "ends in .safetensors"),
            (["export", "{weights}", "b.safetensors"], 1, "not a visionkit checkpoint"),
            (["inspect", "{empty}"], 1, "the file is empty"),
        ],
    )
    def test_one_line_and_status(self, tmp_path, monkeypatch, capsys, arguments, status, words):
        monkeypatch.chdir(tmp_path)
        torch.save({"conv1.weight": torch.ones(1)}, tmp_path / "w.pth")
        (tmp_path / "empty").touch()
        given = [a.format(weights="w.pth", empty="empty") for a in arguments]
        assert run(["backbone", *given]) == status
        error = capsys.readouterr().err
        assert words in error
        assert error.startswith("error: ")
        assert error.count("\n") == 1
        assert not list(tmp_path.glob("b.*"))


def test_help_is_light():
    code = (
        "import sys; from visionkit.cli.main import run\n"
        "for words in (['--help'], ['inspect', '--help'], ['export', '--help'], ['list'], ['list', '--help'], ['get', '--help']):\n"
        "    try: run(['backbone', *words])\n"
        "    except SystemExit: pass\n"
        "print('heavy:', sorted({'torch', 'lightning', 'timm', 'numpy', 'jsonargparse'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.rstrip().endswith("heavy: []")
