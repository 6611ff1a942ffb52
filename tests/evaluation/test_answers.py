"""What is kept of predictions for thresholds and calibration, against hand-made truth."""

import numpy as np
import pytest
import torch

from visionkit import (
    BoxPrediction,
    BoxTarget,
    ClassificationMetric,
    ClassPrediction,
    ClassTarget,
    InstancePrediction,
    MaskPrediction,
    MaskTarget,
    MultiTaskPrediction,
    ObjectMasks,
    UsageError,
)
from visionkit.core.joining import Joining
from visionkit.evaluation.answers import Evidence

NAMES = ("cat", "dog")


def picture(*probabilities, multilabel=False):
    return ClassPrediction(torch.tensor(probabilities), multilabel)


def truth(*labels):
    return ClassTarget.make(list(labels), 2)


def test_one_label_answers_with_the_most_probable_class():
    evidence = Evidence(NAMES)
    evidence.update([picture(0.9, 0.1), picture(0.4, 0.6)], [truth(0), truth(0)])
    evidence.update([picture(0.7, 0.3), picture(float("nan"), 0.5)], [truth(1), truth(1)])
    cat, dog = (evidence.answers()[name] for name in NAMES)
    assert cat.scores.tolist() == pytest.approx([0.9, 0.7])
    assert cat.right.tolist() == [True, False]
    assert cat.unit.tolist() == [0, 2]
    assert cat.truths.tolist() == [1, 1, 0, 0]
    assert dog.scores.tolist() == pytest.approx([0.6])
    assert dog.right.tolist() == [False]
    assert dog.truths.tolist() == [0, 0, 1, 1], "a picture without an answer is still one to find"
    assert (evidence.kind, evidence.images, evidence.units, evidence.grouped) == ("pictures", 4, 4, False)
    assert len(evidence.certainty().truth) == 3


def test_several_labels_answer_for_each_class():
    evidence = Evidence(NAMES)
    evidence.update([picture(0.9, 0.8, multilabel=True), picture(0.2, 0.3, multilabel=True)], [truth(0, 1), truth(1)])
    dog = evidence.answers()["dog"]
    assert dog.scores.tolist() == pytest.approx([0.8, 0.3])
    assert dog.right.tolist() == [True, True]
    cat = evidence.answers()["cat"]
    assert cat.right.tolist() == [True, False]
    sure = evidence.certainty()
    assert sure.yes_no
    assert np.exp(sure.logs[:, 1]).tolist() == pytest.approx([0.9, 0.8, 0.2, 0.3])
    assert sure.truth.tolist() == [1, 1, 0, 1]
    assert sure.label.tolist() == [0, 1, 0, 1]
    assert sure.unit.tolist() == [0, 0, 1, 1]


def boxes(*rows):
    placed = torch.tensor([row[:4] for row in rows], dtype=torch.float32).reshape(-1, 4)
    scores, labels = torch.tensor([row[4] for row in rows]), torch.tensor([row[5] for row in rows], dtype=torch.int64)
    return BoxPrediction(placed, scores, labels, (100, 100))


def test_a_box_is_right_once_at_an_overlap_of_one_half_and_crowds_do_not_count():
    objects = BoxTarget.make([[0, 0, 10, 10], [50, 50, 60, 60], [70, 70, 90, 90]], [0, 0, 0], [False, False, True])
    found = boxes(
        (0, 0, 10, 9, 0.9, 0), (0, 0, 10, 10, 0.8, 0), (50, 50, 60, 54, 0.7, 0), (72, 72, 80, 80, 0.6, 0), (0, 0, 9, 9, 0.5, 1)
    )  # fmt: skip
    evidence = Evidence(NAMES)
    evidence.update([found, boxes()], [objects, BoxTarget.make([[0, 0, 5, 5]], [1])], ["film", "film"])
    evidence.update([boxes((1, 1, 5, 5, 0.4, 1))], [BoxTarget.make([[0, 0, 5, 5]], [1])])
    cat, dog = (evidence.answers()[name] for name in NAMES)
    assert cat.scores.tolist() == pytest.approx([0.9, 0.8, 0.7])
    assert cat.right.tolist() == [True, False, False], (
        "a duplicate and a poor place are wrong; one in a crowd is neither"
    )
    assert cat.truths.tolist() == [2, 0]
    assert dog.right.tolist() == [False, True]
    assert dog.unit.tolist() == [0, 1]
    assert dog.truths.tolist() == [1, 1]
    assert (evidence.kind, evidence.images, evidence.units, evidence.grouped) == ("boxes", 3, 2, True)
    scores, unit = dog.things()
    assert scores.tolist() == [pytest.approx(0.4), -np.inf]
    assert unit.tolist() == [1, 0]


def test_boxes_of_a_class_that_no_image_has_are_wrong():
    evidence = Evidence(NAMES)
    evidence.update([boxes((0, 0, 10, 10, 0.9, 0), (0, 0, 10, 10, 0.8, 1))], [BoxTarget.make([[0, 0, 10, 10]], [0])])
    sure = evidence.certainty()
    assert sorted(zip(sure.label.tolist(), sure.truth.tolist(), strict=True)) == [(0, 1), (1, 0)]
    assert evidence.answers()["dog"].right.tolist() == [False]
    assert evidence.answers()["dog"].truths.tolist() == [0]


def test_masks_are_compared_where_there_are_masks():
    dense = np.zeros((1, 20, 20), np.uint8)
    dense[0, :10, :10] = 1
    target = BoxTarget.make([[0, 0, 10, 10]], [0], masks=ObjectMasks.from_dense(dense))
    half = np.zeros((1, 20, 20), np.uint8)
    half[0, :10, :4] = 1  # less than one half of the object, in a box that is right
    found = InstancePrediction._outlined(
        {"boxes": torch.tensor([[0.0, 0, 10, 10]]), "scores": torch.tensor([0.9]), "labels": torch.tensor([0]),
         "size": (20, 20)}, ObjectMasks.from_dense(half).encoded(),
    )  # fmt: skip
    evidence = Evidence(NAMES)
    evidence.update([found], [target])
    assert evidence.kind == "masks"
    assert evidence.answers()["cat"].right.tolist() == [False]


def test_within_keeps_units_apart():
    evidence = Evidence(NAMES)
    evidence.update([picture(0.9, 0.1), picture(0.8, 0.2), picture(0.7, 0.3)], [truth(0), truth(1), truth(0)])
    some = evidence.answers()["cat"].within(np.array([True, False, True]))
    assert some.scores.tolist() == pytest.approx([0.9, 0.7])
    assert some.truths.tolist() == [1, 0, 1]


def test_pixels_are_drawn_always_the_same_and_ignored_ones_never():
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(2, 8, 8, generator=generator) * 3
    mask = torch.randint(0, 2, (32, 32), generator=generator, dtype=torch.uint8)
    mask[:16] = 255
    found = MaskPrediction.of(scores, 4)
    made = []
    for _ in range(2):
        evidence = Evidence(NAMES)
        evidence.update([found, found], [MaskTarget(mask), MaskTarget(mask)])
        made.append(evidence.certainty())
    assert np.array_equal(made[0].logs, made[1].logs)
    assert 60 < len(made[0].truth) < 140, "a hundred of each picture, half of them ignored"
    assert evidence.kind == "pixels"
    with pytest.raises(UsageError, match="--choose: pixels take the most probable class and have no threshold"):
        evidence.answers()


@pytest.mark.parametrize("several", ["", "views", "a model whose classes have another order"])
def test_probabilities_of_some_pixels_are_those_of_all(several):
    generator = torch.Generator().manual_seed(0)
    found = MaskPrediction.of(torch.randn(3, 8, 8, generator=generator), 4)
    if several.startswith("a model"):  # as Ensemble.alone makes it
        found = MaskPrediction.combine([found], Joining.of([("a", "b", "c"), ("c", "a", "b")]).only(1))
    elif several:
        found = MaskPrediction.merge([found, MaskPrediction.of(torch.randn(3, 8, 8), 4)], [(0, 0, 32, 32)] * 2)
    places = torch.tensor([0, 5, 31, 32, 700, 1023])
    torch.testing.assert_close(found.probabilities_of(places), found.probabilities().flatten(1)[:, places].T)


def test_several_heads_are_refused_in_one_line():
    with pytest.raises(UsageError, match="not of a MultiTaskPrediction; of several heads take each out first"):
        Evidence(NAMES).update([MultiTaskPrediction({})], [None])


def test_nothing_was_answered():
    evidence = Evidence(NAMES)
    evidence.update([], [])
    assert evidence.answers() == {}
    assert evidence.certainty() is None


def test_the_metric_and_the_evidence_count_the_same():
    generator = torch.Generator().manual_seed(0)
    metric, evidence = ClassificationMetric(("a", "b", "c")), Evidence(("a", "b", "c"))
    predictions = [ClassPrediction(torch.randn(3, generator=generator).softmax(0)) for _ in range(200)]
    targets = [ClassTarget.make(int(k), 3) for k in torch.randint(0, 3, (200,), generator=generator)]
    metric.update(predictions, targets)
    evidence.update(predictions, targets)
    hits = sum(a.right.sum() for a in evidence.answers().values())
    assert hits / 200 == pytest.approx(float(metric.compute()["top1"]))
