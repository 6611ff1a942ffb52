import pytest
import torch

from visionkit.detection.error_types import ERROR_TYPES
from visionkit.detection.metric import DetectionMetric
from visionkit.detection.types import BoxPrediction, BoxTarget
from visionkit.errors import UsageError

AB = ["a", "b"]
BOX = [100.0, 100, 200, 200]
NEAR = [100.0, 100, 200, 260]  # overlap 0.625
HALF = [150.0, 100, 250, 200]  # overlap 1/3
FAR = [400.0, 400, 500, 500]

CASES = {
    "right": ([BOX], [0], [BOX], [0], [[1, 0, 0], [0, 0, 0], [0, 0, 0]], {}),
    "missed": ([BOX], [1], [], [], [[0, 0, 0], [0, 0, 1], [0, 0, 0]], {"missed": 1}),
    "confused": ([BOX], [0], [NEAR], [1], [[0, 1, 0], [0, 0, 0], [0, 0, 0]], {"confused": 1}),
    "poorly localised": ([BOX], [0], [HALF], [0], [[0, 0, 1], [0, 0, 0], [1, 0, 0]], {"poorly_localised": 1}),
    "both": ([BOX], [0], [HALF], [1], [[0, 0, 1], [0, 0, 0], [0, 1, 0]], {"both": 1, "missed": 1}),
    "duplicate": ([BOX], [0], [BOX, NEAR], [0, 0], [[1, 0, 0], [0, 0, 0], [1, 0, 0]], {"duplicate": 1}),
    "background": ([BOX], [0], [BOX, FAR], [0, 1], [[1, 0, 0], [0, 0, 0], [0, 1, 0]], {"background": 1}),
    "background alone": ([], [], [FAR], [1], [[0, 0, 0], [0, 0, 0], [0, 1, 0]], {"background": 1}),
    "another class beside the right one": (
        [BOX], [0], [BOX, NEAR], [0, 1], [[1, 0, 0], [0, 0, 0], [0, 1, 0]], {"confused": 1},
    ),
    "the right class wins over a stronger wrong one": (
        [BOX], [0], [BOX, NEAR], [1, 0], [[1, 0, 0], [0, 0, 0], [0, 1, 0]], {"confused": 1},
    ),
    "the nearest is taken": (
        [BOX, NEAR], [0, 0], [NEAR, BOX], [0, 0], [[2, 0, 0], [0, 0, 0], [0, 0, 0]], {},
    ),
    "one place, two classes": (
        [BOX, BOX], [0, 1], [BOX], [1], [[0, 0, 1], [0, 1, 0], [0, 0, 0]], {"missed": 1},
    ),
}  # fmt: skip


def prediction(boxes, scores, labels):
    return BoxPrediction(
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        torch.tensor(scores, dtype=torch.float32),
        torch.tensor(labels, dtype=torch.int64),
    )


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_confusions_and_errors_by_hand(case):
    truth, truth_labels, found, labels, matrix, errors = case
    metric = DetectionMetric(AB)
    scores = [0.9 - 0.1 * i for i in range(len(found))]
    metric.update([prediction(found, scores, labels)], [BoxTarget.make(truth, truth_labels)])
    values = metric.compute()
    assert values["confusion_matrix"].dtype == torch.int64
    assert values["confusion_matrix"].tolist() == matrix
    assert {k: int(values[f"errors/{k}"]) for k in ERROR_TYPES if values[f"errors/{k}"]} == errors
    hits = sum(matrix[i][i] for i in range(2))
    assert values["precision"].item() == pytest.approx(hits / max(1, len(found)))
    assert values["recall"].item() == pytest.approx(hits / max(1, len(truth)))
    assert values["f1"].item() == pytest.approx(2 * hits / (len(found) + len(truth)))


def test_the_score_decides_who_chooses_first_whatever_the_order():
    """The strong one has one object in reach, the weak one two."""
    strong = [100.0, 60, 200, 180]  # overlaps of 0.57 with BOX and 0.4 with NEAR
    metric = DetectionMetric(AB)
    metric.update([prediction([BOX, strong], [0.4, 0.8], [0, 0])], [BoxTarget.make([BOX, NEAR], [0, 0])])
    assert metric.compute()["recall"] == 1


def test_thresholds():
    truth = [BoxTarget.make([BOX], [0])]

    def errors(found, score, **settings):
        metric = DetectionMetric(AB, **settings)
        metric.update([prediction([found], [score], [0])], truth)
        values = metric.compute()
        return values["recall"].item(), {k for k in ERROR_TYPES if values[f"errors/{k}"]}

    assert errors(BOX, 0.3) == (1, set()), "the threshold itself counts"
    assert errors(BOX, 0.299) == (0, {"missed"})
    assert errors(BOX, 0.299, score_threshold=0.1) == (1, set())
    assert errors(NEAR, 0.9, iou_threshold=0.625) == (1, set())
    assert errors(NEAR, 0.9, iou_threshold=0.63) == (0, {"poorly_localised"})
    for name, value in (
        ("score_threshold", -0.1),
        ("score_threshold", 1.1),
        ("iou_threshold", 0.1),
        ("iou_threshold", 2),
    ):
        with pytest.raises(UsageError, match=name):
            DetectionMetric(AB, **{name: value})


def test_crowds_are_neither_asked_for_nor_wrong_to_find():
    metric = DetectionMetric(AB)
    truth = BoxTarget.make([[0, 0, 300, 300], FAR], [0, 1], [True, False])
    found = [[10, 10, 60, 60], [20, 20, 90, 90], [250, 250, 400, 400], [30, 30, 80, 80], FAR]
    metric.update([prediction(found, [0.9, 0.8, 0.7, 0.6, 0.5], [0, 0, 0, 1, 1])], [truth])
    values = metric.compute()
    assert values["confusion_matrix"].tolist() == [[0, 0, 0], [0, 1, 0], [1, 1, 0]], "half outside, or another class"
    assert int(values["errors/background"]) == 2
    assert int(values["errors/missed"]) == 0
    assert "ap/a" not in values
