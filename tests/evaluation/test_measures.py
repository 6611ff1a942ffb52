"""Each number has its interval, and a word where it rests on too little."""

import math

import numpy as np
import pytest
import torch

from tests import evaluated
from visionkit import UsageError
from visionkit.evaluation.intervals import wilson
from visionkit.evaluation.measures import bases, lower_is_better, measure, share_interval
from visionkit.evaluation.resampling import bootstrap_weights, resample
from visionkit.tasks.detection.types import BoxPrediction, BoxTarget


def pets(n=60, right=0.8, seed=0, classes=evaluated.PETS):
    rng = np.random.default_rng(seed)
    labels = rng.integers(len(classes), size=n)
    answers = np.where(rng.random(n) < right, labels, (labels + 1) % len(classes))
    return evaluated.classified(labels.tolist(), answers.tolist(), classes=classes, draws=10), labels, answers


def test_shares_of_pictures_have_wilsons_interval():
    found, labels, answers = pets(classes=[f"c{k}" for k in range(6)])
    measured = measure(found.metric, draws=50)
    assert measured.keys() == {k for k, v in found.metric.compute().items() if k != "confusion_matrix"}
    hits = int((labels == answers).sum())
    top1 = measured["top1"]
    assert (top1.value, top1.interval) == (pytest.approx(hits / 60), wilson(hits, 60))
    assert (top1.n, top1.unit, top1.method, top1.few) == (60, "images", "wilson", None)
    assert measured["top5"].method == "wilson"
    of = labels == 2
    one = measured["accuracy/c2"]
    assert one.interval == wilson(int((answers[of] == 2).sum()), int(of.sum()))
    assert (one.n, one.unit) == (of.sum(), "pictures of the class")
    for key in ("macro_f1", "ece"):
        assert measured[key].method == "bootstrap"
        assert measured[key].interval.low < measured[key].value < measured[key].interval.high or key == "ece"


def test_too_few_is_said():
    few = measure(evaluated.classified([0] * 40 + [1] * 9, [0] * 49).metric, draws=20)
    assert few["top1"].few == few["accuracy/cat"].few == "too few to say: 49 images"
    enough = measure(evaluated.classified([0] * 40 + [1] * 9 + [2], [0] * 50).metric, draws=20)
    assert enough["top1"].few is enough["accuracy/cat"].few is None
    assert enough["accuracy/dog"].few == "too few to say: 9 pictures of the class"
    assert enough["accuracy/fox"].few == "too few to say: 1 picture of the class"
    grouped = evaluated.classified([0] * 40, [0] * 40, groups=["a", "b"] * 20)
    assert measure(grouped.metric, grouped.groups, draws=20)["top1"].few == "too few to say: 2 groups"
    with pytest.raises(UsageError, match="3 groups of 40 images"):
        measure(grouped.metric, ["a"] * 3)


def test_one_picture_has_no_interval_of_draws():
    measured = measure(evaluated.classified([0], [0]).metric, draws=20)
    assert measured["macro_f1"].interval is None
    assert measured["top1"].interval == wilson(1, 1)
    assert measured["top1"].few == "too few to say: 1 image"


def test_all_right_is_not_certain():
    measured = measure(evaluated.classified([0, 1] * 30, [0, 1] * 30).metric, draws=50)
    assert measured["macro_f1"].interval == wilson(60, 60)
    assert measured["top1"].interval == wilson(60, 60)


def test_boxes():
    found = evaluated.detected(evaluated.boxes(0, count=50))
    measured = measure(found.metric, draws=200)
    assert measured["map"].method == "bootstrap"
    assert measured["map"].interval.low < measured["map"].value < measured["map"].interval.high
    objects = sum(len(i.truth["objects"]) for i in found.images)
    assert (measured["recall"].n, measured["recall"].unit, measured["recall"].method) == (objects, "objects", "wilson")
    assert measured["precision"].unit == "detections"
    cars = sum(o["label"] == "car" for i in found.images for o in i.truth["objects"])
    assert (measured["ap/car"].n, measured["ap/car"].unit) == (cars, "objects of the class")
    small = sum(o["area"] <= 32**2 for i in found.images for o in i.truth["objects"])
    assert (measured["map_small"].n, measured["map_small"].unit) == (small, "small objects")
    duplicates = measured["errors/duplicate"]
    assert duplicates.interval is None or duplicates.value > 0


def test_a_mean_of_rare_classes_says_little():
    """Three of ten classes with a few objects each: their average precision is mostly luck, and too high."""
    pairs = evaluated.boxes(0, count=60)
    extra = [(p, t) for k in range(3) for p, t in evaluated.boxes(k, count=2, classes=1)]
    for k, (_, target) in enumerate(extra):
        target.labels[:] = 2 + k // 2
    found = evaluated.detected([*pairs, *extra], classes=[f"c{k}" for k in range(5)], draws=20).metrics
    assert found["ap/c3"].few == f"too few to say: {found['ap/c3'].n} objects of the class"
    for key in ("map", "map_50", "map_small"):
        assert found[key].few == "too few to say: 3 of 5 classes have under 10 objects"
    assert found["recall"].few is found["mar_100"].few is found["ap/c0"].few is None
    assert evaluated.detected(pairs, draws=20).metrics["map"].few is None


def test_masks():
    measured = measure(evaluated.segmented().metric, draws=200)
    assert measured["miou"].method == measured["pixel_accuracy"].method == "bootstrap"
    assert measured["miou"].unit == "images"
    assert measured["iou/sky"].unit == "pictures of the class"
    assert measured["miou"].interval.low < measured["miou"].value < measured["miou"].interval.high


def test_things_of_one_group_say_less_than_independent_ones():
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(40), 25)
    alike = np.repeat(rng.random(40) < 0.7, 25).astype(np.int64)  # a group is right or wrong as a whole
    ones = np.ones(1000, np.int64)
    known = wilson(int(alike[::25].sum()), 40)
    found = share_interval(alike, ones, group)
    assert found.high - found.low == pytest.approx(known.high - known.low, rel=0.06)
    mixed = (rng.random(1000) < 0.7).astype(np.int64)
    found, known = share_interval(mixed, ones, group), wilson(int(mixed.sum()), 1000)
    assert known.high - known.low < found.high - found.low < 1.35 * (known.high - known.low)
    assert share_interval(mixed, ones, np.arange(1000)) == known
    assert share_interval(ones, ones, group) == wilson(40, 40), "all right: each group counts once"
    empty = share_interval(mixed * 0, ones * 0, group)
    assert (empty.low, empty.high) == (0, 1)


def test_what_values_rest_on_for_others():
    found, labels, _ = pets()
    of = bases(found.metric, [k // 2 for k in range(60)])
    assert (of[""].n, of[""].unit, of[""].units) == (30, "groups", 30)
    assert (of["accuracy/dog"].n, of["accuracy/dog"].unit) == ((labels == 1).sum(), "pictures of the class")
    assert of["accuracy/dog"].units == len({k // 2 for k in np.flatnonzero(labels == 1)})
    assert [lower_is_better(k) for k in ("ece", "errors/missed", "cars/errors/missed", "top1", "ap/ece box")] == [
        True, True, True, False, False,
    ]  # fmt: skip


def test_the_same_seed_gives_the_same_interval():
    metric = evaluated.detected(evaluated.boxes(0), draws=10).metric
    a, b, c = (measure(metric, draws=100, seed=s)["map"].interval for s in (0, 0, 1))
    assert a == b != c
    assert math.isclose(a.low, c.low, abs_tol=0.05)


def test_no_images_no_numbers():
    from visionkit.evaluation.folder import new_metric

    assert measure(new_metric("detection", ["a"])) == {}


def bus(at, count):
    """A prediction of the first of some buses in one picture, and these."""
    boxes = torch.tensor([[20.0 * k, 0, 20.0 * k + 10, 10] for k in range(count)]).reshape(-1, 4) + at
    labels = torch.ones(count, dtype=torch.int64)
    return BoxPrediction(boxes[:1], torch.full((min(count, 1),), 0.9), labels[:1]), BoxTarget.make(boxes, labels)


def test_objects_that_all_lie_in_few_pictures_say_little():
    measured = measure(evaluated.detected([*evaluated.boxes(0, count=60, classes=1), bus(0, 12)]).metric, draws=50)
    assert measured["ap/bus"].few == "too few to say: 12 objects of the class in 1 image"
    assert measured["ap/car"].few is None
    labels = [1] * 20 + [0] * 80
    grouped = evaluated.classified(labels, labels, groups=[f"film {k // 10}" if k < 20 else None for k in range(100)])
    found = measure(grouped.metric, grouped.groups, draws=20)
    assert found["accuracy/dog"].few == "too few to say: 20 pictures of the class in 2 groups"
    assert found["accuracy/cat"].few is None


def test_resamples_without_any_object_pull_no_interval_to_zero():
    """All objects are found; of these pictures hardly any has one."""
    metric = evaluated.detected([bus(k, int(k < 2)) for k in range(60)]).metric
    drawn = resample(metric, bootstrap_weights(range(60), 200))
    assert np.isnan(drawn["map"]).any()
    assert set(drawn["map"][~np.isnan(drawn["map"])].round(6)) == {1.0}
    assert float(metric.compute()["map"]) == pytest.approx(1.0)
    empty = evaluated.detected([bus(k, 0) for k in range(60)]).metric
    none = measure(empty, draws=20)["map"]
    assert (none.value, none.interval, none.few) == (0, None, "too few to say: 0 of what it is of in 60 images")
