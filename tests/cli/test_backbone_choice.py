"""Which network init takes: the one whose frozen features know most of the pictures, of those whose weights lie here."""

import pytest

import visionkit
from visionkit.cli import backbone_choice
from visionkit.cli.backbone_choice import choose_backbone, choose_size
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


@pytest.mark.parametrize(
    ("right", "size"),
    [
        ({96: 0.72, 128: 0.74, 160: 0.72}, 128),
        ({96: 0.7, 128: 0.8, 160: 0.81}, 128),
        ({96: 0.5, 128: 0.6, 160: 0.7}, 160),
    ],
)
def test_the_smallest_size_that_knows_about_as_much_is_taken(photos, monkeypatch, right, size):
    seen = []

    def judged(backbone, samples, data):
        seen.append((backbone.stage_parameters().keys(), samples[0].image.shape[-1]))
        return right[samples[0].image.shape[-1]]

    monkeypatch.setattr(backbone_choice, "_judged", judged)
    monkeypatch.setattr(backbone_choice, "weights_at_hand", lambda network: "here")
    monkeypatch.setattr(backbone_choice, "_made", lambda spec: visionkit.ResNet(layers=[1, 1, 1, 1], block="basic"))
    content, lines = configs.content_of(configs.folder() / "classify.yaml"), []
    content["model"]["init_args"]["backbone"]["init_args"]["weights"] = "auto"
    data = visionkit.ClassificationData(str(photos), num_workers=0)
    reasons = choose_size(content, data, lines, {})
    assert content["data"]["init_args"]["size"] == size
    assert [edge for _, edge in seen] == [96, 128, 160]
    assert lines[0].startswith(
        f"size     {size} px: frozen features get about as many pictures right as at any (96 px 0."
    )
    assert ("data", "size") in reasons


def test_random_weights_and_absent_ones_say_nothing_of_the_size(photos, tmp_path, monkeypatch):
    monkeypatch.setenv("VISIONKIT_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    data = visionkit.ClassificationData(str(photos), num_workers=0)
    for given in (None, "auto", "nowhere.pth"):
        content = configs.content_of(configs.folder() / "classify.yaml")
        before = content["data"]["init_args"]["size"]
        assert choose_size(content, data, [], {("model", "backbone", "weights"): given}) == {}
        assert content["data"]["init_args"]["size"] == before
