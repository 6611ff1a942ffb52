"""Which network init takes: the one whose frozen features know most of the pictures, of those whose weights lie here."""

import visionkit
from visionkit.cli.backbone_choice import choose_backbone
from visionkit.cli.config import configs


def choice(root):
    content = configs.content_of(configs.folder() / "classify.yaml")
    lines = []
    reasons = choose_backbone(content, visionkit.ClassificationData(str(root), num_workers=0), lines)
    return content["model"]["init_args"]["backbone"], reasons, lines


def test_the_network_that_knows_more_is_taken(data_root, monkeypatch):
    monkeypatch.setenv("VISIONKIT_WEIGHTS", str(data_root / "weights"))
    backbone, reasons, lines = choice(data_root / "classification" / "coco5")
    assert backbone == {
        "class_path": "TimmBackbone",
        "init_args": {"name": "tf_efficientnet_lite0", "weights": "auto"},
    }
    assert lines[0].startswith("network  tf_efficientnet_lite0: its frozen features get most of 65 pictures right")
    assert "ResNet-18 0." in reasons["model", "backbone", "class_path"]


def test_one_network_alone_is_not_compared(photos, tmp_path, monkeypatch):
    monkeypatch.setenv("VISIONKIT_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    backbone, reasons, lines = choice(photos)
    assert (backbone["class_path"], reasons, lines) == ("ResNet", {}, [])
