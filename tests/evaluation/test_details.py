"""Cells of the confusion with their pictures, scores of pictures, curves: against counting by hand."""

import numpy as np
import pytest
import torch

from visionkit.evaluation import details
from visionkit.evaluation.details import MISSED, NOTHING, confusion_of, precision_recall_of, scores_of, worst_first
from visionkit.tasks.classification.metric import ClassificationMetric
from visionkit.tasks.classification.types import ClassPrediction, ClassTarget
from visionkit.tasks.detection.metrics.metric import DetectionMetric
from visionkit.tasks.detection.types import BoxPrediction, BoxTarget
from visionkit.tasks.segmentation.metrics.metric import SegmentationMetric
from visionkit.tasks.segmentation.types import MaskPrediction, MaskTarget

LEFT, RIGHT = [0, 0, 10, 10], [20, 0, 30, 10]


def boxes(*found):
    """A prediction of (box, score, label)."""
    columns = list(zip(*found, strict=True)) or [[], [], []]
    return BoxPrediction(
        torch.tensor(columns[0], dtype=torch.float32).reshape(-1, 4),
        torch.tensor(columns[1], dtype=torch.float32),
        torch.tensor(columns[2], dtype=torch.int64),
    )


def truth(*objects):
    """A target of (box, label)."""
    columns = list(zip(*objects, strict=True)) or [[], []]
    return BoxTarget.make(np.array(columns[0], np.float32).reshape(-1, 4), np.array(columns[1], np.int64))


def detection():
    metric = DetectionMetric(("cat", "dog"))
    metric.update(
        [boxes((LEFT, 0.9, 0)), boxes((LEFT, 0.8, 1), (RIGHT, 0.4, 1)), boxes(), boxes((RIGHT, 0.7, 0))],
        [truth((LEFT, 0)), truth((LEFT, 0)), truth(), truth((LEFT, 1))],
    )
    return metric


def test_confusion_of_boxes():
    metric = detection()
    scores = scores_of(metric, [None] * 4)
    assert scores == [1.0, 0.0, 1.0, 0.0]
    found = confusion_of(metric, scores)
    assert found["names"] == ["cat", "dog", NOTHING]
    assert found["columns"] == ["cat", "dog", MISSED]
    assert found["counts"] == [[1, 1, 0], [0, 0, 1], [1, 1, 0]]
    assert found["images"] == {"0,1": [1], "1,2": [3], "2,0": [3], "2,1": [1]}
    assert worst_first(scores) == [1, 3, 0, 2]
    assert np.array_equal(found["counts"], metric.compute()["confusion_matrix"].numpy())


def test_curve_of_boxes():
    curves = precision_recall_of(detection())
    assert set(curves) == {"cat", "dog"}
    assert curves["cat"] == [[0.5, 1.0, 0.9], [0.5, 0.5, 0.7]]
    assert curves["dog"] == [[0.0, 0.0, 0.8], [0.0, 0.0, 0.4]]


def test_crowds_are_neither_right_nor_wrong_in_curves():
    metric = DetectionMetric(("cat",))
    crowd = BoxTarget.make(np.array([LEFT, RIGHT], np.float32), np.array([0, 0]), np.array([True, False]))
    metric.update([boxes((LEFT, 0.9, 0), (RIGHT, 0.8, 0))], [crowd])
    assert precision_recall_of(metric) == {"cat": [[1.0, 1.0, 0.8]]}


def test_several_labels():
    metric = ClassificationMetric(("cat", "dog"), multilabel=True)
    probabilities = torch.tensor([[0.9, 0.1], [0.6, 0.1], [0.6, 0.4], [0.2, 0.3]])
    labels = [[0], [], [0], [1]]
    metric.update([ClassPrediction(p, True) for p in probabilities], [ClassTarget.make(ids, 2) for ids in labels])
    assert confusion_of(metric, [0.0] * 4) is None
    curves = precision_recall_of(metric)
    assert curves["cat"] == [[0.5, 1.0, 0.9], [1.0, pytest.approx(2 / 3, abs=1e-6), 0.6], [1.0, 0.5, 0.2]]
    assert [point[0] for point in curves["dog"]] == [0.0, 1.0, 1.0]


def test_one_label_orders_the_pictures_of_a_cell():
    metric = ClassificationMetric(("cat", "dog"))
    probabilities = torch.tensor([[0.6, 0.4], [0.9, 0.1], [0.3, 0.7], [0.8, 0.2]])
    metric.update([ClassPrediction(p) for p in probabilities], [ClassTarget.make(1, 2)] * 4)
    scores = scores_of(metric, [-0.2, -0.8, 0.4, -0.6])
    assert confusion_of(metric, scores)["images"] == {"1,0": [1, 3, 0]}
    assert precision_recall_of(metric) == {}


def test_pixels():
    metric = SegmentationMetric(("sky", "sea"))

    def said(rows):
        mask = torch.tensor(rows, dtype=torch.uint8)
        return MaskPrediction.from_record({"height": 2, "width": 2, "mask": mask}, ("sky", "sea"))

    targets = [MaskTarget(torch.tensor(rows, dtype=torch.uint8)) for rows in ([[0, 0], [1, 1]], [[0, 0], [0, 255]])]
    metric.update([said([[0, 1], [1, 1]]), said([[0, 0], [0, 1]])], targets)
    scores = scores_of(metric, [None, None])
    assert scores == [pytest.approx((1 / 2 + 2 / 3) / 2), 1.0]
    found = confusion_of(metric, scores)
    assert found["counts"] == [[4, 1], [0, 2]]
    assert found["images"] == {"0,1": [0]}


def test_without_pictures():
    for metric in (DetectionMetric(("a",)), ClassificationMetric(("a", "b")), SegmentationMetric(("a",))):
        assert confusion_of(metric, []) is None
        assert precision_recall_of(metric) == {}


def test_so_many_classes_have_no_table(monkeypatch):
    assert confusion_of(detection(), [0.0] * 4) is not None
    monkeypatch.setattr(details, "MOST_CLASSES", 1)
    assert confusion_of(detection(), [0.0] * 4) is None


def test_curves_have_so_many_points_at_most():
    metric = ClassificationMetric(("a",), multilabel=True)
    scores = torch.rand(500, 1, generator=torch.Generator().manual_seed(0))
    metric.update([ClassPrediction(p, True) for p in scores], [ClassTarget.make([0][: k % 2], 1) for k in range(500)])
    (curve,) = precision_recall_of(metric).values()
    assert len(curve) == 100
    assert curve[0][2] == pytest.approx(float(scores.max()), abs=1e-6)
    assert curve[-1][:2] == [1.0, 0.5]
