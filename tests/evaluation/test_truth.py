"""The truth in plain words, and by how much a classifier is right."""

import numpy as np
import pytest
import torch

from visionkit.core.errors import UsageError
from visionkit.evaluation.truth import margin_of, truth_of
from visionkit.tasks.classification.types import ClassPrediction, ClassTarget
from visionkit.tasks.detection.types import BoxPrediction, BoxTarget
from visionkit.tasks.segmentation.types import MaskTarget

NAMES = ("cat", "dog", "emu")


def test_truth_of_each_task():
    assert truth_of(ClassTarget.make(1, 3), NAMES) == {"label": "dog"}
    assert truth_of(ClassTarget.make([0, 2], 3), NAMES, multilabel=True) == {"labels": ["cat", "emu"]}
    assert truth_of(ClassTarget.make([], 3), NAMES, multilabel=True) == {"labels": []}
    boxes = BoxTarget.make(np.array([[1, 2, 5, 8]], np.float32), np.array([2]), np.array([True]))
    expected = {"label": "emu", "box": [1.0, 2.0, 5.0, 8.0], "crowd": True, "area": 24.0}
    assert truth_of(boxes, NAMES) == {"objects": [expected]}
    mask = MaskTarget(torch.tensor([[0, 0, 2], [255, 2, 2]], dtype=torch.uint8))
    assert truth_of(mask, NAMES) == {"pixels": {"cat": 2, "emu": 3}}
    with pytest.raises(UsageError, match="object is no truth"):
        truth_of(object(), NAMES)


def test_margin():
    def one(*probabilities):
        return ClassPrediction(torch.tensor(probabilities))

    dog = ClassTarget.make(1, 3)
    assert margin_of(one(0.1, 0.7, 0.2), dog) == pytest.approx(0.5)
    assert margin_of(one(0.8, 0.05, 0.15), dog) == pytest.approx(-0.75)
    assert margin_of(one(0.4, 0.35, 0.25), dog) == pytest.approx(-0.05)
    assert margin_of(one(0.4, torch.nan, 0.25), dog) == -1.0
    several = ClassPrediction(torch.tensor([0.9, 0.2, 0.6]), True, 0.5)
    assert margin_of(several, ClassTarget.make([0, 2], 3)) == pytest.approx(0.1)
    assert margin_of(several, ClassTarget.make([0, 1], 3)) == pytest.approx(-0.3)
    own = ClassPrediction(torch.tensor([0.9, 0.2, 0.6]), True, 0.5, torch.tensor([0.95, 0.5, 0.5]))
    assert margin_of(own, ClassTarget.make([0, 2], 3)) == pytest.approx(-0.05)
    assert margin_of(own, ClassTarget.make([2], 3)) == pytest.approx(0.05)
    nothing = BoxPrediction(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64))
    assert margin_of(nothing, BoxTarget.make(np.zeros((0, 4), np.float32), np.zeros(0, np.int64))) is None
