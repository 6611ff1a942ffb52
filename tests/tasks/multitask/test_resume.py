"""Predictions of several heads that stopped go on, and end as if they had not."""

import itertools
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

import visionkit
from visionkit import FPN, FCOSHead, FPNSegmentationHead, LinearHead, MultiTask, Preprocessing, ResNet, UsageError
from visionkit.prediction.files import ImageFile, predict_to_folder


@pytest.fixture
def ckpt(tmp_path):
    torch.manual_seed(0)
    heads = {
        "d": partial(FCOSHead, channels=32, score_threshold=0.0, detections=4),
        "s": FPNSegmentationHead,
        "c": LinearHead,
    }
    task = MultiTask(
        ResNet(18),
        heads,
        partial(FPN, channels=32, max_level=5),
        ["d/a", "d/b", "s/x", "s/y", "s/z", "c/k", "c/l"],
        preprocessing=Preprocessing(64),
    )
    visionkit.save(task.eval(), tmp_path / "m.ckpt")
    return tmp_path / "m.ckpt"


@pytest.fixture
def pictures(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "in").mkdir()
    for i in range(5):
        Image.fromarray(rng.integers(0, 256, (40 + i, 50, 3), dtype=np.uint8)).save(tmp_path / "in" / f"{i}.png")
    return [ImageFile(str(tmp_path / "in" / f"{i}.png"), {"n": i}) for i in range(5)]


def test_what_several_heads_say_goes_on(ckpt, pictures, tmp_path):
    more = {"formats": ["d/coco", "d/yolo"], "num_workers": 0}
    whole, part = tmp_path / "whole", tmp_path / "part"
    predict_to_folder(ckpt, pictures, whole, **more)
    predict_to_folder(ckpt, pictures, part, **more)
    lines = (whole / "predictions.jsonl").read_bytes().splitlines(keepends=True)
    (part / "predictions.jsonl").write_bytes(b"".join(lines[:2]) + lines[2][:30])  # killed while it wrote the third
    for name in ("predictions.csv", "s/masks/3.png", "d/predictions.coco.json", "s/masks/classes.txt"):
        (part / name).unlink()
    with pytest.raises(UsageError, match="already holds predictions"):
        predict_to_folder(ckpt, pictures, part, **more)
    assert predict_to_folder(ckpt, pictures, part, resume=True, **more).count == 5
    for file in itertools.chain(whole.rglob("*.*"), whole.rglob(".*")):
        if file.is_file():
            assert (part / file.relative_to(whole)).read_bytes() == file.read_bytes(), file
