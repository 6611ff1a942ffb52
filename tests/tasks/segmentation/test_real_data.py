"""Segmentation of real street pictures from scratch."""

import json

import pytest

from visionkit.cli.main import run


@pytest.mark.slow
def test_streets_are_segmented_from_scratch(data_root, tmp_path):
    settings = {"data.root": data_root / "segmentation" / "camvid", "data.size": "[180, 240]", "data.batch_size": 4,
                "model.recipe.optimizer.lr": 2e-3, "trainer.max_epochs": 30, "trainer.check_val_every_n_epoch": 10,
                "trainer.logger": "false", "trainer.default_root_dir": tmp_path / "out"}  # fmt: skip
    assert run(["fit", "-c", "segment.yaml", *(f"--{k}={v}" for k, v in settings.items())]) == 0
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["val/miou"] > 0.28
    assert metrics["val/iou/Road"] > 0.75
    assert metrics["val/iou/Sky"] > 0.8
