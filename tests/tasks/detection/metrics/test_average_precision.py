"""Parts of the evaluation; the whole stands beside pycocotools in test_metric.py."""

import numpy as np
import pytest

from visionkit.tasks.detection.metrics.average_precision import RECALLS, _curves, _falling, match_coco, needed_hits
from visionkit.tasks.detection.metrics.matching import DataSetBoxes


def test_scores_become_numbers_that_rise_as_they_fall():
    scores = np.array([1.0, 0.5, np.nextafter(np.float32(0.5), np.float32(0)), 1e-40, 0.0, -1e-40, -2.0], np.float32)
    numbers = _falling(scores)
    assert (np.diff(numbers) > 0).all()
    assert (numbers >= 0).all()
    assert (numbers < 2**32).all()
    assert len(set(_falling(np.array([0.0, -0.0], np.float32)))) == 1


def test_right_detections_that_reach_a_recall():
    objects = np.arange(1, 400)
    needed = needed_hits(objects)
    for n, row in zip(objects, needed, strict=True):
        recall = np.arange(1, n + 1) / n
        assert row.tolist() == (np.searchsorted(recall, RECALLS, "left") + 1).tolist()


def test_a_curve_by_hand():
    """Right, wrong, right, right, wrong: precisions of 1, 2/3 and 3/4; the second is raised to the third."""
    found = _curves(np.array([0, 1, 1]), np.ones(3, np.int64), np.array([0, 3]), needed_hits(np.array([2, 4])))
    assert (found[0] == 0).all()
    assert found[1, [0, 25]] == pytest.approx([1, 1])
    assert found[1, [26, 50, 75]] == pytest.approx([0.75] * 3)
    assert (found[1, 76:] == 0).all()


def test_ties_between_images_keep_their_order():
    """Two equal scores, the wrong one in the first image: precision at the first recalls is one half."""
    box, far = [0.0, 0, 50, 50], [100.0, 100, 150, 150]

    def evaluated(first, second):
        boxes = DataSetBoxes(
            2, np.array([first, second], np.float32), np.array([0.5, 0.5], np.float32), np.zeros(2, np.int64),
            np.arange(2), np.array([box, box], np.float32), np.zeros(2, np.int64), np.arange(2), np.zeros(2, bool),
            np.array([2500.0, 2500.0], np.float32),
        )  # fmt: skip
        return match_coco(boxes, 1).evaluate(np.ones(2, np.int64))[0][0, :, 0, 0]

    assert evaluated(far, box)[:51] == pytest.approx(0.5)
    assert evaluated(box, far)[:51] == pytest.approx(1.0)
    assert (evaluated(box, far)[51:] == 0).all()
