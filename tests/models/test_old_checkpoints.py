"""Checkpoints that 0.1.0 wrote before its modules moved are read as before."""

import json
import lzma
from pathlib import Path

import pytest
import torch

import visionkit
from visionkit.cli.config.configs import from_checkpoint
from visionkit.cli.main import run
from visionkit.models import checkpoint

OLD = Path(__file__).parent / "checkpoints_0_1_0"
DESCRIPTIONS = json.loads((OLD / "descriptions.json").read_text())
"""What the models of the shipped configs were described as, by the config's name."""


@pytest.fixture
def old(tmp_path):
    """A classifier with weights of few values, so that the file is small when it is packed."""
    path = tmp_path / "classifier.ckpt"
    path.write_bytes(lzma.decompress((OLD / "classifier.ckpt.xz").read_bytes()))
    return path


def test_it_says_what_it_said(old):
    model = checkpoint.load(old)  # in float32, as it was then, whatever this processor is fast at
    y, x = torch.meshgrid(torch.arange(24), torch.arange(32), indexing="ij")
    image = torch.stack([(x * 7) % 256, (y * 11) % 256, (x * y) % 256]).to(torch.uint8)
    said = model.predict(image).record(model.classes)
    before = json.loads((OLD / "classifier.json").read_text())
    assert said["label"] == before["label"]
    assert said["probabilities"] == pytest.approx(before["probabilities"], abs=1e-5)


def test_commands_take_it(old, photos, tmp_path, capsys):
    assert run(["heads", "list", str(old)]) == 0
    assert "MLPHead, 3 classes: circle, cross, ring" in capsys.readouterr().out
    assert run(["predict", "--ckpt", str(old), "--out", str(tmp_path / "p"), str(photos)]) == 0
    assert len((tmp_path / "p" / "predictions.jsonl").read_text().splitlines()) == 24
    for name, new in (("circle", "blue"), ("cross", "green"), ("ring", "red")):
        (photos / new).rename(photos / name)
    where = ["--data.root", str(photos), "--trainer.default_root_dir", str(tmp_path / "run")]
    assert run(["validate", "--ckpt_path", str(old), *where]) == 0
    assert "val/top1" in capsys.readouterr().out


@pytest.mark.parametrize("name", DESCRIPTIONS)
def test_every_description_is_still_a_model_and_a_config(name):
    described = DESCRIPTIONS[name]
    model = visionkit.VisionModel.from_spec(described["model"])
    assert model.spec() == described["model"]
    arguments = from_checkpoint(described, "old.ckpt")
    assert Path(arguments[1]).stem == name
    assert next(a.partition("=")[0] for a in arguments if a.startswith("--model.")) == "--model.backbone"
