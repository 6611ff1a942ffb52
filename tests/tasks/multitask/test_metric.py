"""Several metrics in one give each head's own values over its own pictures."""

import pytest
import torch

from visionkit import BoxTarget, ClassTarget, TaskMetric, UsageError
from visionkit.tasks.classification.metric import ClassificationMetric
from visionkit.tasks.classification.types import ClassPrediction
from visionkit.tasks.detection.metrics.metric import DetectionMetric
from visionkit.tasks.detection.types import BoxPrediction
from visionkit.tasks.multitask.metric import MultiTaskMetric
from visionkit.tasks.multitask.types import MultiTaskPrediction, MultiTaskTarget

CLASSES = ("kind/a", "kind/b", "kind/c", "cars/car", "cars/bus", "style/x", "style/y")


def make():
    return MultiTaskMetric(
        CLASSES,
        {
            "kind": ClassificationMetric("abc"),
            "cars": DetectionMetric(("car", "bus")),
            "style": ClassificationMetric("xy", multilabel=True),
        },
    )


def picture(row):
    """Prediction and truth of each head; the detector is off by some pixels."""
    generator = torch.Generator().manual_seed(row)
    corner = torch.rand(3, 2, generator=generator) * 60
    boxes = torch.cat([corner, corner + 10 + 20 * torch.rand(3, 2, generator=generator)], 1)
    labels = torch.randint(0, 2, (3,), generator=generator)
    scores = torch.rand(3, generator=generator).sort(descending=True).values
    return {
        "kind": (ClassPrediction(torch.rand(3, generator=generator).softmax(0)), ClassTarget(torch.eye(3)[row % 3])),
        "cars": (BoxPrediction(boxes + row, scores, labels, (100, 100)), BoxTarget.make(boxes, labels)),
        "style": (
            ClassPrediction(torch.rand(2, generator=generator), multilabel=True),
            ClassTarget(torch.tensor([float(row % 2), 1.0])),
        ),
    }


LABELS = [("kind",), ("cars", "style"), (), ("kind", "cars"), ("kind", "cars", "style"), ("style",), ("kind",)]
PICTURES = [{name: picture(row)[name] for name in names} for row, names in enumerate(LABELS)]


def update(metric, pictures):
    metric.update(
        [MultiTaskPrediction({name: pair[0] for name, pair in p.items()}) for p in pictures],
        [MultiTaskTarget({name: pair[1] for name, pair in p.items()}) for p in pictures],
    )


def each_alone():
    values = {}
    for name, metric in make().each().items():
        pairs = [p[name] for p in PICTURES if name in p]
        metric.update([a for a, _ in pairs], [b for _, b in pairs])
        values |= {f"{name}/{key}": value for key, value in metric.compute().items()}
    return values


def assert_equal(a, b):
    assert a.keys() == b.keys()
    for key in a:
        assert torch.equal(a[key], b[key]) or (a[key].isnan().all() and b[key].isnan().all()), key


@pytest.mark.parametrize("batches", [[slice(0, 7)], [slice(0, 1), slice(1, 3), slice(3, 7)]])
def test_values_are_those_of_each_metric_alone(batches):
    metric = make()
    for batch in batches:
        update(metric, PICTURES[batch])
    values = metric.compute()
    expected = each_alone()
    mean = (expected["kind/top1"] + expected["cars/map"] + expected["style/map"]) / 3
    torch.testing.assert_close(values.pop("combined"), mean)
    assert 0 < mean < 1
    assert_equal(values, expected)


def test_predictions_of_heads_that_were_not_asked_for_do_not_count():
    """A test-time picture that all heads speak of, and that is labelled for one."""
    metric = make()
    everything = [picture(row) for row in range(7)]
    metric.update(
        [MultiTaskPrediction({name: pair[0] for name, pair in p.items()}) for p in everything],
        [MultiTaskTarget({name: pair[1] for name, pair in p.items()}) for p in PICTURES],
    )
    values = metric.compute()
    values.pop("combined")
    assert_equal(values, each_alone())


def test_what_it_chooses_checkpoints_by():
    assert make().monitors == {
        "best": ("combined", "max"),
        "best-kind": ("kind/top1", "max"),
        "best-cars": ("cars/map", "max"),
        "best-style": ("style/map", "max"),
    }


def test_reset_starts_all_anew():
    metric = make()
    update(metric, [picture(9)])
    metric.compute()
    metric.reset()
    update(metric, PICTURES)
    values = metric.compute()
    values.pop("combined")
    assert_equal(values, each_alone())


def test_a_head_without_pictures_does_not_count_and_does_not_warn(recwarn):
    metric = make()
    update(metric, [{"kind": picture(0)["kind"]}])
    values = metric.compute()
    assert values["combined"] == values["kind/top1"]
    assert not [w for w in recwarn if "compute" in str(w.message)]


class Error(TaskMetric):
    monitor, monitor_mode = "mae", "min"

    def compute(self):
        return {"mae": torch.tensor(0.125)}

    def update(self, predictions, targets):
        pass


def test_values_of_which_less_is_better_have_a_checkpoint_and_no_part_in_the_mean():
    metric = MultiTaskMetric(
        ("kind/a", "kind/b", "kind/c", "age/x"), {"kind": ClassificationMetric("abc"), "age": Error("x")}
    )
    update(metric, [{"kind": picture(0)["kind"]}])
    values = metric.compute()
    assert values["combined"] == values["kind/top1"]
    assert values["age/mae"] == 0.125
    assert metric.monitors["best-age"] == ("age/mae", "min")
    with pytest.raises(UsageError, match="no head has a metric of which higher is better"):
        MultiTaskMetric(("age/x",), {"age": Error("x")})


def test_plots_of_each_head_begin_with_its_name(tmp_path):
    metric = make()
    update(metric, PICTURES)
    drawn = metric.plot(metric.compute(), tmp_path, "test_")
    names = {p.name for p in tmp_path.iterdir()}
    assert {p.name for p in drawn} <= names
    assert {"test_kind_confusion_matrix.png", "test_cars_pr_curves.png"} <= names
    assert all(name.startswith(("test_kind_", "test_cars_", "test_style_")) for name in names)
