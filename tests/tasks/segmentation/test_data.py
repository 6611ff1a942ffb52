"""SegmentationData and class weights."""

import numpy as np
import pytest
import torch
from PIL import Image

from visionkit.data.transforms.crop import RandomScaledCrop
from visionkit.tasks.segmentation.data import SegmentationData, balanced_weights


def test_weights_are_the_root_of_median_frequency():
    weights = balanced_weights(np.array([100, 400, 0, 25]))  # the median of 25, 100 and 400 is 100
    torch.testing.assert_close(weights, torch.tensor([1.0, 0.5, 1.0, 2.0]))


def test_weights_of_nothing_are_one():
    assert balanced_weights(np.array([0, 0])).tolist() == [1.0, 1.0]


def test_balanced_loss_gives_the_training_targets_weights():
    data = SegmentationData(balance="loss", num_workers=0, size=64, batch_size=2)
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    weights = batch.targets[0].weights
    assert weights.shape == (7,)
    assert weights[0] == weights.min(), "the background is the largest class"
    assert next(iter(data.val_dataloader())).targets[0].weights is None


def test_crops():
    assert SegmentationData(crop_scale=None).combine is None
    combine = SegmentationData(balance="crops", crop_scale=(0.8, 1.2)).combine
    assert isinstance(combine, RandomScaledCrop)
    assert combine.balanced == pytest.approx(0.5)


def test_real_pictures_and_masks_reach_the_model(data_root):
    data = SegmentationData(str(data_root / "segmentation" / "camvid"), size=(360, 480), batch_size=4, num_workers=0)
    data.setup("fit")
    assert len(data.classes) == 11
    for loader in (data.train_dataloader(), data.val_dataloader()):
        batch = next(iter(loader))
        assert batch.images.shape == (4, 3, 360, 480)
        for target in batch.targets:
            assert target.mask.shape == (360, 480)
            assert set(target.mask.unique().tolist()) <= {*range(11), 255}


def test_masks_of_several_frames_are_said(tmp_path):
    for i in range(6):
        for folder in ("images", "masks"):
            (tmp_path / folder).mkdir(exist_ok=True)
        Image.new("RGB", (8, 8), (i * 30, 0, 0)).save(tmp_path / f"images/{i}.png")
        frames = [Image.fromarray(np.full((8, 8), value, np.uint8)) for value in (i % 2, 1 - i % 2)]
        more = {"save_all": True, "append_images": frames[1:]} if i < 2 else {}
        kind = "tif" if i == 1 else "png"
        frames[0].save(tmp_path / f"masks/{i}.{kind}", **more)
    (tmp_path / "classes.txt").write_text("background\nroad\n")
    data = SegmentationData(str(tmp_path), num_workers=0, size=32)
    data.setup("fit")
    assert data.notes() == ["masks    2 files hold several (animations, pages): the first of each is taken"]
    (index,) = (i for i, id in enumerate(data.splits.train.ids) if id.endswith("1.png"))
    assert (data.splits.train.read_mask(index) == 1).all()


def test_palettes_that_differ_are_said(tmp_path):
    for i in range(6):
        for folder in ("images", "masks"):
            (tmp_path / folder).mkdir(exist_ok=True)
        Image.new("RGB", (8, 8), (i * 30, 0, 0)).save(tmp_path / f"images/{i}.png")
        mask = Image.frombytes("P", (8, 8), bytes(i % 2 for i in range(64)))
        mask.putpalette([0, 0, 0, 255, 0, 0] if i < 4 else [0, 0, 0, 0, 255, 0])
        mask.save(tmp_path / f"masks/{i}.png")
    (tmp_path / "classes.txt").write_text("background\nroad\n")
    data = SegmentationData(str(tmp_path), num_workers=0, size=32, val_fraction=0.01)
    data.setup("fit")
    (note,) = data.notes()
    numbers = (len([1 for id in data.splits.train.ids if id.endswith(("4.png", "5.png"))]),)
    assert note.startswith(f"masks    {numbers[0]} files have other palettes than those before: their ids count")
