"""Reliability, calibration error and temperature against known answers and the metric's own number."""

import json

import numpy as np
import pytest
import torch

from visionkit import BoxPrediction, BoxTarget, ClassificationMetric, ClassPrediction, ClassTarget
from visionkit.evaluation.answers import Evidence
from visionkit.evaluation.calibration import (
    _interval,
    calibration_error,
    calibration_of,
    negative_log_likelihood,
    temperature_of,
)
from visionkit.evaluation.intervals import wilson

NAMES = ("a", "b", "c")


def drawn(temperature, count=4000, seed=0):
    """Logits whose truth is drawn at a temperature: at that one they are as sure as they are right."""
    random = np.random.default_rng(seed)
    logits = random.normal(0, 3, (count, 3))
    scaled = logits / temperature
    true = np.exp(scaled) / np.exp(scaled).sum(1, keepdims=True)
    truth = (random.random((count, 1)) > true.cumsum(1)).sum(1).clip(0, 2)
    return logits, truth


def evidence(temperature, count=4000):
    logits, truth = drawn(temperature, count)
    made, metric = Evidence(NAMES), ClassificationMetric(NAMES)
    predictions = [ClassPrediction(p) for p in torch.from_numpy(logits).softmax(1).float()]
    targets = [ClassTarget.make(int(k), 3) for k in truth]
    made.update(predictions, targets)
    metric.update(predictions, targets)
    return made, metric


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_the_temperature_that_the_truth_was_drawn_at_is_found(temperature):
    logits, truth = drawn(temperature)
    found = temperature_of(logits, truth)
    assert found == pytest.approx(temperature, rel=0.08)
    grid = np.linspace(0.9, 1.1, 41) * found
    likelihoods = [negative_log_likelihood(logits, truth, t) for t in grid]
    assert grid[int(np.argmin(likelihoods))] == pytest.approx(found, rel=0.003), "it is the lowest"


def test_likelihood_is_torchs():
    logits, truth = drawn(1.5, 200)
    wanted = torch.nn.functional.cross_entropy(torch.from_numpy(logits) / 1.3, torch.from_numpy(truth))
    assert negative_log_likelihood(logits, truth, 1.3) == pytest.approx(float(wanted))


def test_a_model_that_is_always_right_gets_a_bounded_temperature():
    logits = np.array([[2.0, 0], [0, 1.0], [3.0, 0]])
    assert temperature_of(logits, np.array([0, 1, 0])) == pytest.approx(1 / 20, rel=1e-3)


def test_a_model_that_is_too_sure():
    made, metric = evidence(2.5)
    found = calibration_of(made)
    assert json.loads(json.dumps(found)) == found
    assert found["ece"] == pytest.approx(float(metric.compute()["ece"]), abs=1e-6)
    assert found["ece_after"] < found["ece"] / 3
    assert found["nll_after"] < found["nll"]
    assert found["verdict"] == "too sure"
    assert found["words"] == f"says {found['says']:.2f} where {found['is']:.2f} is right: too sure (4,000 pictures)"
    assert found["is_low"] < found["is"] < found["is_high"] < found["says"]
    assert sum(b["count"] for b in found["bins"]) == found["n"] == 4000
    for b in found["bins"]:
        assert b["low"] <= b["confidence"] <= b["high"]
        assert b["accuracy_low"] <= b["accuracy"] <= b["accuracy_high"]
    assert set(found["classes"]) == set(NAMES)
    assert found["classes"]["a"]["verdict"] == "too sure"


def test_models_that_are_right_or_not_sure_enough():
    assert calibration_of(evidence(1.0)[0])["verdict"] == "about right"
    assert "as sure as it should be, as far as these tell" in calibration_of(evidence(1.0)[0])["words"]
    assert calibration_of(evidence(0.4)[0])["verdict"] == "not sure enough"


def test_several_labels_are_yes_and_no():
    random = np.random.default_rng(0)
    p = random.random((2000, 3)).astype(np.float32)
    truth = random.random((2000, 3)) < p
    made, metric = Evidence(NAMES), ClassificationMetric(NAMES, multilabel=True)
    predictions = [ClassPrediction(row, multilabel=True) for row in torch.from_numpy(p)]
    targets = [ClassTarget(torch.from_numpy(row).float()) for row in truth]
    made.update(predictions, targets)
    metric.update(predictions, targets)
    found = calibration_of(made)
    assert found["ece"] == pytest.approx(float(metric.compute()["ece"]), abs=1e-6)
    assert found["temperature"] == pytest.approx(1.0, abs=0.06)
    assert found["kind"] == "labels"
    assert "from a score of 0.5 on" in found["words"]


def test_boxes_are_judged_by_whether_there_is_an_object():
    random = np.random.default_rng(0)
    made = Evidence(NAMES)
    for _ in range(500):
        scores = np.sort(random.random(4))[::-1]
        right = random.random(4) < 1 / (1 + ((1 - scores) / scores) ** 0.4)  # as at a temperature of 2.5
        corners = np.array([[20 * k, 0, 20 * k + 10, 10] for k in range(4)], np.float32)
        found = BoxPrediction(
            torch.from_numpy(corners),
            torch.tensor(scores.copy(), dtype=torch.float32),
            torch.zeros(4).long(),
            (100, 100),
        )
        made.update([found], [BoxTarget.make(corners[right], np.zeros(right.sum(), np.int64))])
    told = calibration_of(made)
    assert told["kind"] == "boxes"
    assert told["n"] == 2000
    assert told["verdict"] == "too sure"
    assert told["temperature"] == pytest.approx(2.5, rel=0.2)
    assert told["ece_after"] < told["ece"] / 2
    assert told["nll_after"] < told["nll"]


def test_boxes_that_stand_together_say_less():
    """All answers of a picture are right or wrong together: 40 pictures are no 400 answers."""
    random = np.random.default_rng(1)
    together, alone = Evidence(NAMES), Evidence(NAMES)
    for _ in range(400):
        right = random.random() < 0.75
        row = ClassPrediction(torch.tensor([0.8, 0.1, 0.1]))
        alone.update([row], [ClassTarget.make(0 if right else 1, 3)])
    for k in range(40):
        right = random.random() < 0.75
        rows = [ClassPrediction(torch.tensor([0.8 - 1e-3 * i, 0.1, 0.1])) for i in range(10)]
        together.update(rows, [ClassTarget.make(0 if right else 1, 3)] * 10, [f"film {k}"] * 10)
    assert calibration_of(alone) is None, "one certainty for all is none"
    told = calibration_of(together)
    assert told["is_high"] - told["is_low"] > 0.2
    assert told["verdict"] == "about right"


def test_error_by_hand():
    sure, right = np.array([0.9, 0.9, 0.2, 1.0]), np.array([True, False, False, True])
    assert calibration_error(sure, right, 10) == pytest.approx((abs(1 - 1.8) + 0.2 + 0) / 4)


def test_one_picture_tells_nothing_of_after():
    made = Evidence(NAMES)
    made.update([ClassPrediction(torch.tensor([0.7, 0.2, 0.1]))] * 2 + [ClassPrediction(torch.tensor([0.5, 0.3, 0.2]))],
                [ClassTarget.make(0, 3)] * 3, ["one"] * 3)  # fmt: skip
    found = calibration_of(made)
    assert found["ece_after"] is None
    assert found["nll_after"] is None
    assert calibration_of(Evidence(NAMES)) is None


def test_things_that_are_alike_widen_the_interval_and_leave_the_share():
    right = np.array([*[True] * 9, False, *[True] * 4, *[False] * 6])  # 13 of 20, in two films
    effect = (2.5**2 + 2.5**2) / (20 * 0.65 * 0.35)
    told = wilson(13 / effect, 20 / effect)
    assert _interval(right, np.repeat([0, 1], 10)) == pytest.approx((told.low, told.high))
    alone = wilson(13, 20)
    assert _interval(right, np.arange(20)) == pytest.approx((alone.low, alone.high))
