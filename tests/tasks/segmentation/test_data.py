"""SegmentationData and class weights."""

import numpy as np
import pytest
import torch

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
