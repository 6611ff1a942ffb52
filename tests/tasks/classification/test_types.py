import json

import pytest
import torch

from visionkit.core.sample import ImageInfo
from visionkit.tasks.classification.types import ClassPrediction, ClassTarget

NAMES = ("cat", "dog", "eel")


def test_target_names():
    assert ClassTarget(torch.tensor([0.0, 1.0, 1.0])).names(NAMES) == ["dog", "eel"]
    assert ClassTarget(torch.zeros(3)).names(NAMES) == []
    assert ClassTarget(torch.tensor([0.3, 0.7, 0.0])).names(NAMES) == ["dog"]


def test_target_of_class_ids():
    assert ClassTarget.make(2, 3).scores.tolist() == [0.0, 0.0, 1.0]
    assert ClassTarget.make([0, 2], 3).scores.tolist() == [1.0, 0.0, 1.0]
    assert ClassTarget.make([], 3).scores.tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("weights", [None, torch.ones(3)])
def test_target_moves_with_its_weights(weights):
    moved = ClassTarget(torch.zeros(3), weights).to("meta")
    assert moved.scores.device.type == "meta"
    assert moved.weights is None if weights is None else moved.weights.device.type == "meta"


def test_record_of_one_label():
    record = ClassPrediction(torch.tensor([0.25, 0.5, 0.25])).record(NAMES)
    assert record == {"label": "dog", "score": 0.5, "probabilities": {"cat": 0.25, "dog": 0.5, "eel": 0.25}}
    assert json.loads(json.dumps(record)) == record


def test_record_of_several_labels():
    record = ClassPrediction(torch.tensor([0.5, 0.25, 0.75]), multilabel=True).record(NAMES)
    assert record["labels"] == ["cat", "eel"]
    assert record["label"] == "eel"
    none = ClassPrediction(torch.tensor([0.5, 0.25, 0.75]), multilabel=True, threshold=0.9).record(NAMES)
    assert none["labels"] == []


def test_restore_changes_nothing():
    prediction = ClassPrediction(torch.tensor([1.0]))
    assert prediction.restore(ImageInfo("a", (9, 9), (0.5, 0.5))) is prediction


@pytest.mark.parametrize("multilabel", [False, True])
def test_draw_leaves_the_picture_in_place(multilabel):
    image = torch.full((3, 120, 160), 90, dtype=torch.uint8)
    drawn = ClassPrediction(torch.tensor([0.9, 0.8, 0.1]), multilabel=multilabel).draw(image, NAMES)
    assert drawn.shape == image.shape
    assert drawn.dtype == torch.uint8
    assert (drawn != image).any()
    assert (drawn[:, 80:] == 90).all()
    other = ClassPrediction(torch.tensor([0.1, 0.1, 0.1]), multilabel=multilabel).draw(image, NAMES)
    assert (other != drawn).any()


def test_target_is_drawn_as_a_prediction_is(monkeypatch):
    written = []
    monkeypatch.setattr("visionkit.prediction.draw.draw_text", lambda image, text: written.append(text) or image)
    image = torch.zeros(3, 50, 50, dtype=torch.uint8)
    for scores in ([0.0, 1.0, 0.0], [1.0, 0.0, 1.0], [0.3, 0.7, 0.0], [0.0, 0.0, 0.0]):
        ClassTarget(torch.tensor(scores)).draw(image, NAMES)
    assert written == ["dog", "cat, eel", "dog 70%, cat 30%", "(none)"]
