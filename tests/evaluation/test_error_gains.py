"""The entry "errors" of an evaluation: kinds, gains and the sentence."""

import pytest
import torch

from visionkit.evaluation.error_gains import BoundaryBand, error_gains
from visionkit.tasks.classification.metric import ClassificationMetric
from visionkit.tasks.classification.types import ClassPrediction, ClassTarget
from visionkit.tasks.detection.metrics.metric import DetectionMetric
from visionkit.tasks.detection.types import BoxPrediction, BoxTarget
from visionkit.tasks.segmentation.metrics.metric import SegmentationMetric
from visionkit.tasks.segmentation.types import MaskPrediction, MaskTarget
from visionkit.training.metric import TaskMetric


def test_boxes():
    metric = DetectionMetric(["cat", "dog"])
    box, far = [10.0, 10, 50, 50], [80.0, 80, 90, 90]
    found = BoxPrediction(torch.tensor([box, far]), torch.tensor([0.9, 0.1]), torch.tensor([0, 0]))
    metric.update([found], [BoxTarget.make([box, [0, 60, 20, 80], [30, 60, 60, 90]], [0, 0, 0])])
    told = error_gains(metric)
    assert told["metric"] == "map_50"
    assert told["value"] == pytest.approx(34 / 101)
    first, *others = told["kinds"]
    assert first["kind"] == "missed"
    assert (first["count"], first["count_all"]) == (2, 2)
    assert first["gain"] == first["gain_map"] == pytest.approx(67 / 101)
    assert first["words"] == "finding the objects that are missed (2 at score 0.3): AP50 +0.663"
    assert (
        told["sentence"]
        == "Most would be gained by finding the objects that are missed (2 at score 0.3): AP50 0.337 -> 1.000."
    )
    assert {k["kind"]: (k["count"], k["count_all"]) for k in others if k["count_all"]} == {"background": (0, 1)}
    assert len(told["kinds"]) == 6


def classes(answers, names=("cat", "dog", "cow")):
    metric = ClassificationMetric(names)
    for true, said in answers:
        metric.update([ClassPrediction(torch.eye(len(names))[said])], [ClassTarget.make(true, len(names))])
    return metric


def test_classes():
    told = error_gains(classes([(0, 0), (1, 1), (2, 2), (0, 1), (0, 1), (1, 0), (1, 2), (2, 2), (0, 0), (0, 0)]))
    assert told["metric"] == "top1"
    assert told["value"] == pytest.approx(0.6)
    assert [(k["kind"], k["count"], k["gain"]) for k in told["kinds"]] == [
        ("cat and dog confused", 3, 0.3),
        ("dog and cow confused", 1, 0.1),
    ]
    way = "telling cat and dog apart (2 cat taken for dog, 1 dog taken for cat)"
    assert told["kinds"][0]["words"] == f"{way}: top-1 +0.300"
    assert told["sentence"] == f"Most would be gained by {way}: top-1 0.600 -> 0.900."


def test_nothing_wrong_and_nothing_seen():
    told = error_gains(classes([(0, 0), (1, 1)]))
    assert told["kinds"] == []
    assert told["sentence"] == "No kind of error alone costs top-1 anything that shows (top-1 1.000)."
    assert error_gains(ClassificationMetric(["a", "b"])) is None
    assert error_gains(TaskMetric.__new__(Own)) is None


class Own(TaskMetric):
    def compute(self):
        return {"own": torch.ones(())}


def test_several_classes():
    metric = ClassificationMetric(["cat", "dog"], multilabel=True)
    rows = [([0.9, 0.8], [0]), ([0.8, 0.6], [1]), ([0.1, 0.1], [0, 1])]
    metric.update([ClassPrediction(torch.tensor(p), True) for p, _ in rows], [ClassTarget.make(t, 2) for _, t in rows])
    told = error_gains(metric)
    assert told["metric"] == "map"
    precisions = {"cat": (1 + 2 / 3) / 2, "dog": (1 / 2 + 2 / 3) / 2}
    assert [k["kind"] for k in told["kinds"]] == ["dog", "cat"]
    for kind in told["kinds"]:
        assert kind["gain"] == pytest.approx((1 - precisions[kind["kind"]]) / 2)


def mask(rows):
    return torch.tensor(rows, dtype=torch.uint8)


def said(rows, classes):
    ids = mask(rows)
    record = {"height": ids.shape[0], "width": ids.shape[1], "mask": ids}
    return MaskPrediction.from_record(record, [str(k) for k in range(classes)])


def pixels(truth, predicted, names):
    metric, band = SegmentationMetric(names, boundary_tolerance=0), BoundaryBand(names, tolerance=0)
    for watcher in (metric, band):
        watcher.update([said(predicted, len(names))], [MaskTarget(mask(truth))])
    return metric, band


def test_pixels_by_hand():
    truth = [[0, 0, 0, 0, 1, 1, 1, 1, 255]]
    found = [[0, 2, 0, 0, 0, 1, 1, 1, 1]]
    metric, band = pixels(truth, found, ["sky", "road", "tree"])
    told = error_gains(metric, band)
    value = (3 / 5 + 3 / 4 + 0) / 3
    assert told["value"] == pytest.approx(value)
    assert float(metric.compute()["miou"]) == pytest.approx(value)
    gains = {k["kind"]: (k["count"], k["gain"]) for k in told["kinds"]}
    assert gains == {
        "sky and tree confused": (1, pytest.approx((4 / 5 + 3 / 4) / 2 - value)),  # tree occurs no more
        "sky and road confused": (1, pytest.approx((3 / 4 + 1 + 0) / 3 - value)),
        "boundary": (1, pytest.approx((3 / 4 + 1 + 0) / 3 - value)),
    }
    assert told["sentence"].startswith("Most would be gained by telling sky and tree apart (1 pixels): mIoU 0.450 -> ")
    assert "boundary" not in {k["kind"] for k in error_gains(metric)["kinds"]}


def test_gains_of_pairs_are_those_of_mended_masks():
    g = torch.Generator().manual_seed(0)
    names = [f"c{k}" for k in range(5)]
    truth = torch.randint(0, 5, (20, 20), generator=g)
    found = torch.where(torch.rand(20, 20, generator=g) < 0.6, truth, torch.randint(0, 4, (20, 20), generator=g))
    told = error_gains(pixels(truth.tolist(), found.tolist(), names)[0])
    for kind in told["kinds"]:
        a, b = (names.index(n) for n in kind["kind"].removesuffix(" confused").split(" and "))
        both = ((truth == a) & (found == b)) | ((truth == b) & (found == a))
        assert kind["count"] == int(both.sum())
        mended = pixels(truth.tolist(), torch.where(both, truth, found).tolist(), names)[0].compute()["miou"]
        assert kind["gain"] == pytest.approx(float(mended) - told["value"], abs=1e-6)


def test_the_band_along_boundaries():
    truth = torch.zeros(40, 40, dtype=torch.uint8)
    truth[:, 20:] = 1
    found = truth.clone()
    found[:, 18:20] = 1  # two columns beside the boundary
    found[0:4, 0:4] = 1  # far away
    names = ["a", "b"]
    band = BoundaryBand(names, tolerance=2.1 / 56.57)
    band.update([said(found.tolist(), 2)], [MaskTarget(truth)])
    assert band.confusion.tolist() == [[40, 80], [0, 120]]
