"""The main job on real photos with real pretrained weights."""

import json
from pathlib import Path

import pytest

from visionkit.cli.main import run


@pytest.mark.slow
def test_fine_tuning_on_a_hundred_photos_and_predictions_that_agree(data_root, tmp_path):
    photos = data_root / "classification" / "coco5"
    out = tmp_path / "out"
    settings = {
        "data.root": photos, "data.size": 224, "data.batch_size": 16, "model.backbone": "TimmBackbone",
        "model.backbone.name": "tf_efficientnet_lite0",
        "model.backbone.weights": data_root / "weights" / "tf_efficientnet_lite0.safetensors",
        "model.recipe.optimizer.lr": 3e-4, "trainer.max_epochs": 12, "trainer.default_root_dir": out,
    }  # fmt: skip
    assert run(["fit", "-c", "classify.yaml", *(f"--{k}={v}" for k, v in settings.items())]) == 0
    best = json.loads((out / "metrics.json").read_text())
    assert best["val/top1"] >= 0.88
    checkpoint = str(out / "checkpoints" / "best.ckpt")
    assert run(["predict", "--ckpt", checkpoint, "--out", str(tmp_path / "p"), str(photos / "val")]) == 0
    records = [json.loads(line) for line in (tmp_path / "p" / "predictions.jsonl").read_text().splitlines()]
    right = sum(r["label"] == Path(r["image"]).parent.name for r in records)
    assert right / len(records) == pytest.approx(best["val/top1"])


@pytest.mark.slow
def test_a_linear_probe_on_a_frozen_backbone_reaches_the_known_accuracy(data_root, tmp_path, capsys):
    """The weights' own notes give 0.775 for a linear probe on these photos at 112 pixels."""
    settings = {
        "data.root": data_root / "classification" / "imagenette224", "data.size": 112, "data.batch_size": 50,
        "data.augment": "null", "model.backbone.weights": data_root / "weights" / "resnet18_tinyimagenet.safetensors",
        "model.head.label_smoothing": 0, "model.recipe.freeze": "backbone", "model.recipe.cache_features": "true",
        "model.recipe.optimizer.lr": 3e-3, "trainer.max_epochs": 30, "trainer.default_root_dir": tmp_path / "out",
    }  # fmt: skip
    assert run(["fit", "-c", "classify.yaml", *(f"--{k}={v}" for k, v in settings.items())]) == 0
    said = capsys.readouterr().out
    assert "100.0% of the tensors loaded" in said
    assert "features 1,400 pictures" in said
    best = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert best["val/top1"] >= 0.75


def test_real_photos_reach_the_model_as_they_are(data_root):
    """Every photo of the two real sets is read, split and brought to size; labels are the folders' names."""
    from visionkit import ClassificationData

    data = ClassificationData(str(data_root / "classification" / "coco5"), size=64, batch_size=35, num_workers=0)
    data.setup("fit")
    batch = next(iter(data.val_dataloader()))
    assert batch.images.shape == (35, 3, 64, 64)
    assert data.classes == ("bird", "car", "cat", "dog", "person")
    for target, info in zip(batch.targets, batch.infos, strict=True):
        assert target.names(data.classes) == [Path(info.id).parent.name]
    assert not set(data.splits.train.ids) & set(data.splits.val.ids)
