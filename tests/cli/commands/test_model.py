from pathlib import Path

import pytest
import torch

import visionkit
from visionkit.cli.main import run

TINY = ["--model.backbone.layers=[1,1,1,1]", "--model.backbone.block=basic", "--model.backbone.stem=small"]


@pytest.fixture
def trained(tmp_path, photos, monkeypatch):
    """Train for an epoch with averaging, in a folder of its own, and return the checkpoint."""
    monkeypatch.chdir(tmp_path)
    fixed = ["--data.root=photos", "--data.size=32", "--data.num_workers=0", "--trainer.default_root_dir=run"]
    quick = ["--trainer.max_epochs=1", "--model.recipe.ema=0.9"]
    assert run(["fit", "-c", "classify.yaml", *TINY, *fixed, *quick]) == 0
    return tmp_path / "run" / "checkpoints" / "best.ckpt"


def test_the_model_alone_predicts_the_same(trained, tmp_path, capsys):
    assert run(["model", "export", "run/checkpoints/best.ckpt", "out/m.ckpt"]) == 0
    assert "written  out/m.ckpt" in capsys.readouterr().out
    assert run(["model", "export", "out/again.ckpt", "--ckpt", "run"]) == 0, "a run folder, under the other name"
    assert Path("out/again.ckpt").stat().st_size == Path("out/m.ckpt").stat().st_size
    whole = torch.load(trained, weights_only=True)
    alone = torch.load("out/m.ckpt", weights_only=True)
    assert set(alone) == {"state_dict", "visionkit"}
    for key in ("classes", "head", "neck", "preprocessing"):
        assert alone["visionkit"]["model"][key] == whole["visionkit"]["model"][key]
    assert alone["visionkit"]["task"] == "visionkit.Classifier"
    assert (tmp_path / "out" / "m.ckpt").stat().st_size < 0.4 * trained.stat().st_size
    images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    model, again = visionkit.load(trained), visionkit.load("out/m.ckpt")
    with torch.no_grad():
        assert torch.equal(model(images).logits, again(images).logits)
    for ckpt in (str(trained), "out/m.ckpt"):
        assert run(["predict", "--ckpt", ckpt, "--out", ckpt.rpartition("/")[2], "photos"]) == 0
    assert Path("m.ckpt/predictions.jsonl").read_text() == Path("best.ckpt/predictions.jsonl").read_text()
    assert run(["validate", "--ckpt_path", "out/m.ckpt", "--data.root", "photos", "--data.num_workers=0"]) == 0
    capsys.readouterr()
    assert run(["fit", "--ckpt_path", "out/m.ckpt", "--data.root", "photos"]) == 2
    assert "holds a model alone, no training to go on with" in capsys.readouterr().err


def test_what_is_there_stays(tiny_model, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    visionkit.save(tiny_model, "a.ckpt")
    (tmp_path / "b.ckpt").write_bytes(b"mine")
    (tmp_path / "d.ckpt").mkdir()
    for out, words in (
        ("b.ckpt", "b.ckpt exists: choose another name, or add --overwrite"),
        ("d.ckpt", "d.ckpt exists: choose another name"),
        ("m.pth", "give it a name that ends in .ckpt"),
    ):
        assert run(["model", "export", "a.ckpt", out]) == 2
        assert words in capsys.readouterr().err
    (tmp_path / "bad.ckpt").write_bytes(b"bad")
    assert run(["model", "export", "bad.ckpt", "b.ckpt", "--overwrite"]) == 1
    assert "bad.ckpt: neither a PyTorch" in capsys.readouterr().err
    assert (tmp_path / "b.ckpt").read_bytes() == b"mine"
    assert run(["model", "export", "a.ckpt", "b.ckpt", "--overwrite"]) == 0
    assert visionkit.load("b.ckpt").classes == tiny_model.classes
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.ckpt", "b.ckpt", "bad.ckpt", "d.ckpt"]
