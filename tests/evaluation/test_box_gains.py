"""What mending each kind of error of a detector gains, by hand."""

import numpy as np
import pytest
import torch

from visionkit import UsageError
from visionkit.evaluation.box_gains import box_gains, mean_gains
from visionkit.tasks.detection.metrics.metric import DetectionMetric
from visionkit.tasks.detection.types import BoxPrediction, BoxTarget

BOX = [100.0, 100, 200, 200]
NEAR = [100.0, 100, 200, 260]  # overlap 0.625
HALF = [150.0, 100, 250, 200]  # overlap 1/3
FAR = [400.0, 400, 500, 500]
OTHER = [600.0, 600, 700, 700]


def prediction(boxes, scores, labels):
    return BoxPrediction(
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        torch.as_tensor(scores, dtype=torch.float32),
        torch.tensor(labels, dtype=torch.int64),
    )


def of(truth, labels, found, found_labels, scores, classes=2, **truth_options):
    metric = DetectionMetric([f"c{k}" for k in range(classes)])
    metric.update([prediction(found, scores, found_labels)], [BoxTarget.make(truth, labels, **truth_options)])
    return metric


HALFWAY = 51 / 101  # one of two objects: recalls of 0 to 0.5 are reached
CASES = {
    "one of two is missed": ([BOX, FAR], [0, 0], [BOX], [0], [0.9], HALFWAY, {"missed": 1 - HALFWAY}),
    "another class": ([BOX, FAR], [0, 0], [FAR, NEAR], [0, 1], [0.9, 0.8], HALFWAY, {"confused": 1 - HALFWAY}),
    "not close enough": (
        [BOX, FAR], [0, 0], [FAR, HALF], [0, 0], [0.9, 0.8], HALFWAY, {"poorly_localised": 1 - HALFWAY},
    ),
    "found twice": (
        [BOX, FAR], [0, 0], [BOX, NEAR, FAR], [0, 0, 0], [0.9, 0.8, 0.7], (51 + 50 * 2 / 3) / 101,
        {"duplicate": 50 / 3 / 101},
    ),
    "nothing there": ([BOX], [0], [FAR, BOX], [0, 0], [0.9, 0.8], 0.5, {"background": 0.5}),
    "both wrong": (
        [BOX, FAR], [1, 0], [BOX, HALF, FAR], [1, 0, 0], [0.95, 0.9, 0.8], 0.75, {"both": 0.25},
    ),
    "two of another class at one object: one finds it, one is gone": (
        [BOX], [0], [BOX, NEAR], [1, 1], [0.9, 0.8], 0.0, {"confused": 1.0},
    ),
    "another class where the object is found: it is gone": (
        [BOX, FAR], [0, 1], [BOX, BOX, FAR], [1, 0, 1], [0.9, 0.8, 0.7], 0.75, {"confused": 0.25},
    ),
    "not close enough where the object is found: it is gone": (
        [BOX], [0], [HALF, BOX], [0, 0], [0.9, 0.8], 0.5, {"poorly_localised": 0.5},
    ),
    "a class that is missed wholly": ([BOX, FAR], [0, 1], [BOX], [0], [0.9], 0.5, {"missed": 0.5}),
    "nothing wrong": ([BOX], [0], [BOX], [0], [0.9], 1.0, {}),
    "nothing found": ([BOX], [0], [], [], [], 0.0, {"missed": 1.0}),
    "no object": ([], [], [BOX], [0], [0.9], 0.0, {}),
}  # fmt: skip


@pytest.mark.parametrize(
    ("truth", "labels", "found", "found_labels", "scores", "value", "gains"), CASES.values(), ids=CASES
)
def test_gains_by_hand(truth, labels, found, found_labels, scores, value, gains):
    metric = of(truth, labels, found, found_labels, scores)
    told = box_gains(metric.boxes(), 2)
    assert told.value == pytest.approx(value)
    assert {kind: gain for kind, gain in told.gains.items() if gain} == pytest.approx(gains)
    if truth:
        assert told.value == pytest.approx(float(metric.compute()["map_50"]), abs=1e-6)


def test_a_detection_in_a_crowd_is_no_error():
    metric = of([BOX, FAR], [0, 0], [BOX, FAR, FAR], [0, 0, 0], [0.9, 0.8, 0.7], crowd=[False, True])
    told = box_gains(metric.boxes(), 2)
    assert told.value == pytest.approx(1)
    assert not any(told.gains.values())


def test_the_mean_over_overlaps():
    """An overlap of 0.625 is right at 0.5, 0.55 and 0.6, and not close enough at the seven others."""
    told = mean_gains(of([BOX], [0], [NEAR], [0], [0.9]).boxes(), 2)
    assert told.value == pytest.approx(0.3)
    assert {kind: gain for kind, gain in told.gains.items() if gain} == pytest.approx({"poorly_localised": 0.7})


@pytest.mark.parametrize("seed", range(4))
def test_the_value_is_that_of_the_metric_and_all_mended_is_right(seed):
    g = torch.Generator().manual_seed(seed)
    metric = DetectionMetric([f"c{k}" for k in range(3)])
    for _ in range(8):
        n, m = (int(torch.randint(0, 9, (), generator=g)) for _ in range(2))
        corner = torch.rand(n, 2, generator=g) * 200
        boxes = torch.cat([corner, corner + 50 + torch.rand(n, 2, generator=g) * 100], 1)
        labels = torch.randint(3, (n,), generator=g)
        far = torch.rand(m, 2, generator=g) * 200
        found = torch.cat([boxes + torch.randn(n, 4, generator=g) * 8, torch.cat([far, far + 40], 1)])
        named = torch.cat([torch.where(torch.rand(n, generator=g) < 0.3, (labels + 1) % 3, labels), torch.zeros(m)])
        scores = torch.rand(n + m, generator=g).sort(descending=True).values
        crowd = torch.rand(n, generator=g) < 0.1
        metric.update([prediction(found.tolist(), scores, named.tolist())], [BoxTarget.make(boxes, labels, crowd)])
    boxes = metric.boxes()
    values = metric.compute()
    told, mean = box_gains(boxes, 3), mean_gains(boxes, 3)
    assert told.value == pytest.approx(float(values["map_50"]), abs=1e-6)
    assert mean.value == pytest.approx(float(values["map"]), abs=1e-6)
    assert all(0 <= gain <= 1 - told.value + 1e-9 for gain in told.gains.values())
    every = DetectionMetric(metric.classes, score_threshold=0.0)
    every._parts, every._held = metric._parts, metric._held
    counts = {kind: int(v) for kind, v in every.compute().items() if str(kind).startswith("errors/")}
    assert {f"errors/{k}": n for k, n in told.counts.items()} == counts


def test_of_more_than_a_hundred_the_best_count():
    scores = np.linspace(1, 0.5, 101)
    metric = of([BOX], [0], [FAR] * 100 + [BOX], [0] * 101, scores)
    assert box_gains(metric.boxes(), 2).value == float(metric.compute()["map_50"]) == 0
    assert box_gains(metric.boxes(), 2).gains["background"] == 0


def test_a_metric_without_images_has_no_boxes():
    with pytest.raises(UsageError, match="a metric that has no images has no boxes"):
        DetectionMetric(["a"]).boxes()
