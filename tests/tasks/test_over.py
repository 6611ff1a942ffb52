"""Predictions by thresholds: what is left out, what is said to be sure, what is drawn."""

import json
import math

import pytest
import torch

from visionkit import (
    BoxPrediction,
    ClassPrediction,
    DataError,
    ImageInfo,
    MaskPrediction,
    MultiTaskPrediction,
    Prediction,
)
from visionkit.prediction.writers import WriterJob
from visionkit.tasks.detection.crops import CropWriter

NAMES = ("cat", "dog", "cow")


def boxes():
    corners = torch.tensor([[0.0, 0, 10, 10], [20, 0, 30, 10], [0, 20, 10, 30], [20, 20, 30, 30], [0, 0, 9, 9]])
    return BoxPrediction(corners, torch.tensor([0.9, 0.62, 0.5, 0.35, 0.2]), torch.tensor([0, 0, 1, 1, 2]), (40, 40))


def left(prediction):
    return [(o["label"], round(o["score"], 2)) for o in prediction.record(NAMES)["objects"]]


def test_objects_below_the_threshold_of_their_class_are_left_out():
    found = boxes().over({"cat": 0.62, "dog": 0.6, "cow": 0.1}, NAMES)
    assert left(found) == [("cat", 0.9), ("cat", 0.62), ("cow", 0.2)]
    assert left(boxes().over({"ship": 0.9}, NAMES)) == left(boxes())


def test_of_a_class_without_a_promise_stays_what_would_be_drawn():
    assert left(boxes().over({"cat": 0.95, "dog": None, "cow": None}, NAMES)) == [("dog", 0.5), ("dog", 0.35)]


def test_what_reaches_a_low_threshold_is_drawn_and_cut_out_too(tmp_path):
    image = torch.full((3, 40, 40), 90, dtype=torch.uint8)
    found = boxes().over({"cat": 0.95, "dog": 0.95, "cow": 0.1}, NAMES)
    assert (found.draw(image, NAMES) != image).any()
    weak = boxes().select(torch.tensor([4]))
    assert torch.equal(weak.draw(image, NAMES), image), "as without thresholds"
    job = WriterJob(tmp_path, NAMES, ("a.jpg",))
    CropWriter(job).add(ImageInfo("a.jpg", (40, 40)), found, image)
    assert [p.parent.name for p in tmp_path.rglob("*.jpg")] == ["cow"]


def one(*values):
    return ClassPrediction(torch.tensor(values))


@pytest.mark.parametrize(
    ("thresholds", "sure"),
    [
        ({"cat": 0.6, "dog": 0.1}, True),
        ({"cat": 0.61}, False),
        ({"cat": None, "dog": 0.1}, False),
        ({"dog": 0.9}, True),
    ],
)
def test_a_label_is_sure_from_the_threshold_of_its_class_on(thresholds, sure):
    found = one(0.6, 0.3, 0.1).over(thresholds, NAMES)
    record = found.record(NAMES)
    assert list(record) == ["label", "score", "sure", "probabilities"]
    assert record["sure"] is sure
    assert record["label"] == "cat", "the label stays"
    again = ClassPrediction.from_record(json.loads(json.dumps(record)), NAMES)
    assert again.record(NAMES) == record
    assert found.rows(NAMES) == [record]
    tally = ClassPrediction.tally(record)["classes"]
    assert tally.counts == ({"cat": 1} if sure else {"(not sure)": 1})
    assert tally.said == ("cat 0.60" if sure else "cat 0.60 (not sure)")


def test_without_thresholds_nothing_is_said_of_being_sure():
    assert "sure" not in one(0.6, 0.3, 0.1).record(NAMES)
    assert one(0.6, 0.3, 0.1).over({}, NAMES).sure is None


def test_not_sure_is_drawn(monkeypatch):
    said = []
    monkeypatch.setattr("visionkit.prediction.draw.draw_text", lambda image, text: said.append(text))
    one(0.6, 0.3, 0.1).over({"cat": 0.7}, NAMES).draw(torch.zeros(3, 4, 4, dtype=torch.uint8), NAMES)
    one(0.6, 0.3, 0.1).over({"cat": 0.5}, NAMES).draw(torch.zeros(3, 4, 4, dtype=torch.uint8), NAMES)
    assert said == ["cat 60% (not sure)", "cat 60%"]


@pytest.mark.parametrize("wrong", ["yes", 1, [True]])
def test_a_record_whose_sure_is_none_is_refused(wrong):
    record = {**one(0.6, 0.3, 0.1).record(NAMES), "sure": wrong}
    with pytest.raises(DataError, match="sure is .* neither true nor false"):
        ClassPrediction.from_record(record, NAMES)


def test_a_label_that_is_no_longer_among_the_classes_is_not_sure():
    found = one(0.6, 0.3, 0.1).over({"cat": 0.5}, NAMES)
    assert found.select_classes(NAMES, ("dog", "cow")).sure is None
    assert found.select_classes(NAMES, ("cow", "cat")).sure is True


def several(*values):
    return ClassPrediction(torch.tensor(values), multilabel=True, threshold=0.5)


def test_each_label_goes_by_its_own_threshold_and_one_without_a_promise_by_that_of_the_head():
    found = several(0.3, 0.55, 0.45).over({"cat": 0.25, "dog": 0.6, "cow": None}, NAMES)
    record = found.record(NAMES)
    assert record["labels"] == ["cat"]
    assert found.present().tolist() == [True, False, False]
    again = ClassPrediction.from_record(json.loads(json.dumps(record)), NAMES)
    assert again.record(NAMES) == record
    assert again.select_classes(NAMES, ("dog", "cat")).record(("dog", "cat"))["labels"] == ["cat"]
    assert found.agreement(several(0.3, 0.55, 0.45)).share == 0.0


def test_labels_that_one_threshold_can_make_are_read_back_as_before():
    record = several(0.6, 0.55, 0.45).record(NAMES)
    again = ClassPrediction.from_record(record, NAMES)
    assert again.thresholds is None
    assert again.threshold == pytest.approx(0.55)
    none = ClassPrediction.from_record(several(0.1, 0.2, 0.3).record(NAMES), NAMES)
    assert none.threshold == math.inf


def test_the_metric_counts_labels_by_their_own_thresholds():
    from visionkit import ClassificationMetric, ClassTarget

    metric = ClassificationMetric(NAMES, multilabel=True)
    found = several(0.3, 0.55, 0.45).over({"cat": 0.25, "dog": 0.6, "cow": None}, NAMES)
    metric.update([found], [ClassTarget.make([0], 3)])
    assert metric.compute()["micro_f1"] == 1.0


def test_heads_go_by_their_own_and_one_without_by_none():
    names = tuple(f"{head}/{name}" for head in ("kind", "cars", "more") for name in NAMES)
    joint = MultiTaskPrediction({"kind": one(0.6, 0.3, 0.1), "cars": boxes(), "more": boxes()})
    found = joint.over({"kind/cat": 0.7, "cars/cat": 0.8, "cars/dog": 0.8, "cars/cow": 0.8}, names)
    record = found.record(names)
    assert record["kind"]["sure"] is False
    assert len(record["cars"]["objects"]) == 1
    assert len(record["more"]["objects"]) == 5
    assert found.rows(names)[0]["kind/sure"] is False


def test_pixels_and_predictions_of_ones_own_stay():
    pixels = MaskPrediction.of(torch.zeros(3, 4, 4), 1)
    assert pixels.over({"cat": 0.9}, NAMES) is pixels
    own = Prediction()
    assert own.over({"cat": 0.9}, NAMES) is own
