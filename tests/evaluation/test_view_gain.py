"""The gain of views is that of the same draws of both."""

import numpy as np
import pytest
import torch

from visionkit.evaluation.counting import Count
from visionkit.evaluation.images import EvaluatedImage
from visionkit.evaluation.view_gain import gain_of_views
from visionkit.evaluation.words import views_in_words
from visionkit.tasks.classification.metric import ClassificationMetric
from visionkit.tasks.classification.types import ClassPrediction, ClassTarget


def counted(right, seconds):
    made = Count(ClassificationMetric(("a", "b")))
    made.metric.update([ClassPrediction(torch.tensor([0.6, 0.4] if r else [0.3, 0.7])) for r in right],
                       [ClassTarget.make(0, 2)] * len(right))  # fmt: skip
    made.images = [EvaluatedImage(str(k), "0" * 64, None, (1, 1), {"label": "a"}) for k in range(len(right))]
    made.seconds = seconds
    return made


def test_gain_with_its_interval():
    before, after = [True] * 60 + [False] * 40, [True] * 70 + [False] * 30
    entry = gain_of_views(counted(before, 0.1), counted(after, 0.25), "--flip", draws=400)
    told = entry["metrics"]["top1"]
    assert told["plain"] == pytest.approx(0.6)
    assert told["gain"] == pytest.approx(0.1)
    spread = np.sqrt(0.1 * 0.9 / 100) * 1.98  # ten pictures of a hundred became right
    assert told["low"] == pytest.approx(0.1 - spread, abs=0.015)
    assert told["high"] == pytest.approx(0.1 + spread, abs=0.02)
    assert entry["cost"] == pytest.approx(2.5)
    assert "accuracy/a" not in entry["metrics"]
    assert views_in_words(entry).startswith("they gain +0.100 [")
    assert views_in_words(entry).endswith("at 2.5 times the time of a picture")


def test_no_gain_is_said_so():
    same = [True] * 30 + [False] * 10
    entry = gain_of_views(counted(same, 0.1), counted(same, 0.2), "--flip", draws=100)
    assert entry["metrics"]["top1"]["low"] == entry["metrics"]["top1"]["high"] == 0
    assert views_in_words(entry).startswith("no gain is shown: +0.000")
    one = gain_of_views(counted([True], None), counted([True], None), "--flip", draws=10)
    assert one["metrics"]["top1"]["low"] is None
    assert one["cost"] is None
    assert "against one view" in views_in_words(one)
