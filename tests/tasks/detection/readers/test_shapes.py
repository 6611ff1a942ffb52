import numpy as np
import pytest
import torch

from visionkit.core.errors import UsageError
from visionkit.data.shapes import SHAPES
from visionkit.tasks.detection.readers.shapes import ShapesDetection


def test_same_seed_same_pictures_and_boxes():
    one, two, other = ShapesDetection(20), ShapesDetection(40), ShapesDetection(20, seed=1)
    assert one.labels == two.labels[:20] != other.labels
    for i in range(3):
        assert torch.equal(one[i].image, two[i].image)
        assert torch.equal(one[i].target.boxes, two[i].target.boxes)
        assert not torch.equal(one[i].image, other[i].image)


def test_targets_are_what_labels_say():
    data = ShapesDetection(40, size=96)
    assert data.classes == SHAPES
    assert data.problems == []
    assert data.files() == [None] * 40
    for i in range(0, 40, 3):
        sample = data[i]
        boxes = sample.target.boxes
        assert sample.image.shape == (3, 96, 96)
        assert sample.info.id == data.ids[i] == f"shapes/{i:06d}"
        assert tuple(sorted(set(sample.target.labels.tolist()))) == data.labels[i]
        assert ((boxes >= 0) & (boxes <= 96)).all()
        assert torch.equal(sample.target.areas, (boxes[:, 2:] - boxes[:, :2]).prod(1))
        assert (sample.target.areas > 30).all()
        assert not sample.target.crowd.any()


def test_numbers_of_objects_and_classes_are_balanced():
    data = ShapesDetection(1000)
    counts = np.array([len(data._shown[i]) for i in data.ids])
    assert counts.max() == 6
    assert 40 <= (counts == 0).sum() <= 90
    assert all(120 <= (counts == n).sum() <= 200 for n in range(1, 7))
    shown = np.bincount([k for ids in data._shown.values() for k in ids])
    assert shown.min() > 0.85 * shown.max()


def test_subset_and_gray():
    data = ShapesDetection(10, channels=1)
    part = data.subset([7, 3])
    assert part[0].image.shape == (1, 128, 128)
    assert torch.equal(part[1].image, data[3].image)


@pytest.mark.parametrize("wrong", [{"count": 0}, {"seed": -1}, {"size": 31}, {"channels": 4}])
def test_values_out_of_range(wrong):
    with pytest.raises(UsageError, match="shapes: .*; give"):
        ShapesDetection(**{"count": 1, **wrong})
