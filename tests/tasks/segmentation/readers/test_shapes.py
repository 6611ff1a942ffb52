import numpy as np
import pytest
import torch

from visionkit.core.errors import UsageError
from visionkit.data.shapes import SHAPES
from visionkit.tasks.detection.readers.shapes import ShapesDetection
from visionkit.tasks.segmentation.readers.shapes import ShapesSegmentation


def test_same_seed_same_pictures_and_masks():
    one, two, other = ShapesSegmentation(20), ShapesSegmentation(40), ShapesSegmentation(20, seed=1)
    assert one.labels == two.labels[:20] != other.labels
    for i in range(3):
        assert torch.equal(one[i].image, two[i].image)
        assert torch.equal(one[i].target.mask, two[i].target.mask)
        assert not torch.equal(one[i].image, other[i].image)


def test_masks_are_what_labels_say():
    data = ShapesSegmentation(40, size=96)
    assert data.classes == ("background", *SHAPES)
    assert data.files() == [None] * 40
    assert data.problems == []
    total = np.zeros(7, np.int64)
    for i in range(40):
        sample = data[i]
        assert sample.image.shape == (3, 96, 96)
        assert sample.info.id == data.ids[i] == f"shapes/{i:06d}"
        assert sample.target.mask.shape == (96, 96)
        assert tuple(np.unique(sample.target.mask)) == data.labels[i]
        assert data.mismatch(i) is None
        total += np.bincount(sample.target.mask.ravel(), minlength=7)
    assert data.pixel_counts().tolist() == total.tolist()


def test_masks_fit_the_boxes_of_the_same_pictures():
    boxes, masks = ShapesDetection(10), ShapesSegmentation(10)
    for i in range(10):
        assert torch.equal(boxes[i].image, masks[i].image)
        mask = masks[i].target.mask
        for (x1, y1, x2, y2), label in zip(
            boxes[i].target.boxes.int().tolist(), boxes[i].target.labels.tolist(), strict=True
        ):
            assert (mask[y1:y2, x1:x2] == label + 1).any()
            assert (mask[y1:y2, x1] == label + 1).any()
            assert (mask[y2 - 1, x1:x2] == label + 1).any()


def test_subset_gray_and_weights():
    data = ShapesSegmentation(10, channels=1)
    part = data.subset([7, 3]).with_weights(torch.ones(7))
    assert part[0].image.shape == (1, 128, 128)
    assert torch.equal(part[1].image, data[3].image)
    assert part[1].target.weights.tolist() == [1] * 7
    assert part.labels == [data.labels[7], data.labels[3]]


@pytest.mark.parametrize("wrong", [{"count": 0}, {"seed": -1}, {"size": 31}, {"channels": 4}])
def test_values_out_of_range(wrong):
    with pytest.raises(UsageError, match="shapes: .*; give"):
        ShapesSegmentation(**{"count": 1, **wrong})
