import contextlib
import copy
import io
import json
import pickle
from collections import defaultdict

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from visionkit.core.errors import UsageError
from visionkit.tasks.detection.metrics.metric import DetectionMetric
from visionkit.tasks.detection.types import BoxPrediction, BoxTarget

TWELVE = (
    "map", "map_50", "map_75", "map_small", "map_medium", "map_large", "mar_1", "mar_10", "mar_100", "mar_small",
    "mar_medium", "mar_large",
)  # fmt: skip
AB = ["a", "b"]
BOX = [100.0, 100, 200, 200]


def names(k):
    return [f"class {i}" for i in range(k)]


def prediction(boxes, scores, labels):
    return BoxPrediction(
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        torch.tensor(scores, dtype=torch.float32),
        torch.tensor(labels, dtype=torch.int64),
    )


NOTHING = prediction([], [], [])
NO_TRUTH = BoxTarget.make([], [])


def jittered(truth, k, g, *, noise=0.08, extra=5, levels=0):
    """Predictions near the truth, some of another class or twice, and noise; ``levels`` makes equal scores."""
    sides = (truth.boxes[:, 2:] - truth.boxes[:, :2]).repeat(1, 2)
    near = truth.boxes + sides * noise * torch.randn(len(truth), 4, generator=g)
    twice = near + sides * noise * torch.randn(len(truth), 4, generator=g)
    keep = torch.rand(len(truth), generator=g) < 0.25
    corner = torch.rand(extra, 2, generator=g) * 300
    far = torch.cat([corner, corner + 3 + torch.rand(extra, 2, generator=g) * 200], 1)
    labels = torch.where(
        torch.rand(len(truth), generator=g) < 0.15, torch.randint(k, (len(truth),), generator=g), truth.labels
    )
    boxes = torch.cat([near, twice[keep], far])
    boxes = torch.cat([boxes[:, :2], torch.maximum(boxes[:, 2:], boxes[:, :2] + 1)], 1)
    labels = torch.cat([labels, labels[keep], torch.randint(k, (extra,), generator=g)])
    scores = torch.rand(len(boxes), generator=g)
    if levels:
        scores = (scores * levels).ceil() / levels
    order = scores.argsort(descending=True, stable=True)
    return BoxPrediction(boxes[order], scores[order], labels[order])


def random_data(images, k, seed=0, *, most=12, levels=10, extra=5):
    """Random objects of several sizes, some crowds, some images without any; areas smaller than the boxes."""
    g = torch.Generator().manual_seed(seed)
    data = []
    for _ in range(images):
        n = int(torch.randint(0, most + 1, (), generator=g))
        corner = torch.rand(n, 2, generator=g) * 300
        sides = 4 + 200 * torch.rand(n, 2, generator=g) ** 3
        boxes = torch.cat([corner, corner + sides], 1)
        crowd = torch.rand(n, generator=g) < 0.15
        areas = sides.prod(1) * (0.5 + 0.5 * torch.rand(n, generator=g))
        truth = BoxTarget.make(boxes, torch.randint(k, (n,), generator=g), crowd, areas)
        data.append((jittered(truth, k, g, levels=levels, extra=extra), truth))
    return data


def feed(metric, data, batch=3):
    for i in range(0, len(data), batch):
        metric.update(*zip(*data[i : i + batch], strict=True))
    return metric


def evaluate_pycocotools(data, k):
    """COCO's own twelve numbers and the average precision (all, at 0.5) of each class."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def xywh(box):
        x1, y1, x2, y2 = (float(v) for v in box)
        return [x1, y1, x2 - x1, y2 - y1]

    truth, found = [], []
    for number, (p, t) in enumerate(data, start=10):
        for box, label, crowd, area in zip(t.boxes, t.labels, t.crowd, t.areas, strict=True):
            truth.append(
                {"id": len(truth) + 1, "image_id": number, "category_id": int(label) + 1, "bbox": xywh(box),
                 "iscrowd": int(crowd), "area": float(area)}
            )  # fmt: skip
        for box, label, score in zip(p.boxes, p.labels, p.scores, strict=True):
            found.append(
                {"image_id": number, "category_id": int(label) + 1, "bbox": xywh(box), "score": float(score)}
            )  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):
        known = COCO()
        known.dataset = {
            "info": {},
            "images": [{"id": i} for i in range(10, 10 + len(data))],
            "categories": [{"id": c + 1, "name": str(c)} for c in range(k)],
            "annotations": truth,
        }
        known.createIndex()
        evaluation = COCOeval(known, known.loadRes(found), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    precision = evaluation.eval["precision"][..., 0, 2]
    per_class = [(precision[:, :, c].mean(), precision[0, :, c].mean()) for c in range(k)]
    return evaluation.stats, per_class, precision[0].T


def assert_equals_coco(data, k, batch=3):
    values = feed(DetectionMetric(names(k)), data, batch).compute()
    stats, per_class, curves = evaluate_pycocotools(data, k)
    for name, expected in zip(TWELVE, stats, strict=True):
        if expected == -1:
            assert name not in values or (name == "map" and values[name] == 0)
        else:
            assert values[name].item() == pytest.approx(expected, abs=1e-6), name
    for c, (ap, ap_50) in enumerate(per_class):
        assert (f"ap/class {c}" in values) == (ap > -1)
        if ap > -1:
            assert values[f"ap/class {c}"].item() == pytest.approx(ap, abs=1e-6)
            assert values[f"ap_50/class {c}"].item() == pytest.approx(ap_50, abs=1e-6)
    curve = values["pr_curve"].numpy()
    assert np.array_equal(np.isnan(curve), curves == -1)
    assert np.allclose(np.nan_to_num(curve), np.maximum(curves, 0), atol=1e-6)
    return values


# ---- against COCO's own code


@settings(max_examples=25)
@given(
    seed=st.integers(0, 2**20), images=st.integers(1, 6), k=st.integers(1, 5), levels=st.sampled_from([0, 1, 3, 20]),
    most=st.sampled_from([1, 6, 20]),
)  # fmt: skip
def test_random_data_against_pycocotools(seed, images, k, levels, most):
    assert_equals_coco(random_data(images, k, seed, most=most, levels=levels), k)


def test_many_images_of_all_sizes_against_pycocotools():
    values = assert_equals_coco(random_data(60, 6, most=15), 6)
    assert set(TWELVE) <= values.keys()
    assert 0.1 < values["map"] < 0.9


def test_more_than_a_hundred_boxes_an_image_against_pycocotools():
    data = random_data(3, 2, most=20, extra=400)
    assert min(len(p) for p, _ in data) > 300
    assert_equals_coco(data, 2)


@pytest.mark.parametrize("split", ["instances_train2017.json", "boxes_val2017.json"])
def test_real_objects_against_pycocotools(data_root, split):
    file = data_root / "coco128" / "annotations" / split
    if not file.is_file():
        pytest.skip(f"no {file}")
    content = json.loads(file.read_text())
    labels = {c["id"]: i for i, c in enumerate(content["categories"])}
    objects = defaultdict(list)
    for o in content["annotations"]:
        objects[o["image_id"]].append(o)
    g = torch.Generator().manual_seed(0)
    data = []
    for image in content["images"]:
        rows = objects[image["id"]]
        boxes = torch.tensor([o["bbox"] for o in rows]).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        truth = BoxTarget.make(
            boxes,
            [labels[o["category_id"]] for o in rows],
            [o.get("iscrowd", 0) for o in rows],
            [o["area"] for o in rows],
        )
        data.append((jittered(truth, len(labels), g, extra=20), truth))
    values = assert_equals_coco(data, len(labels), batch=16)
    assert values["map_50"] > 0.2
    matrix = values["confusion_matrix"]
    assert matrix[:-1].sum() == sum(int((~t.crowd).sum()) for _, t in data)


def test_hits_are_those_of_pycocotools():
    """Recall at a threshold and IoU 0.5 is what COCO's recall is for the detections above it."""
    data = random_data(30, 3, seed=5, levels=0)
    values = feed(DetectionMetric(names(3)), data).compute()
    kept = [(p.at_least(0.3), t) for p, t in data]
    metric = feed(DetectionMetric(names(3), score_threshold=0), kept)
    again = metric.compute()
    assert torch.equal(values["confusion_matrix"], again["confusion_matrix"])
    images, ready = metric.gather()
    recall = ready.boxes.evaluate(np.ones(images, np.int64))[1][0, :, 0, 2]
    matrix = values["confusion_matrix"].numpy()
    assert matrix.diagonal()[:3] / matrix[:3].sum(1) == pytest.approx(recall)
    assert matrix[:3].sum() == sum(int((~t.crowd).sum()) for _, t in data)


# ---- the metric as such


def test_values_are_what_the_task_needs():
    metric = DetectionMetric(names(2))
    values = feed(metric, random_data(10, 2)).compute()
    assert metric.monitor in values
    assert metric.monitor_mode == "max"
    for key, value in values.items():
        if key == "confusion_matrix":
            assert value.shape == (3, 3)
        elif key == "pr_curve":
            assert value.shape == (2, 101)
        elif key == "recall_grid":
            assert value.tolist() == pytest.approx([i / 100 for i in range(101)])
        else:
            assert (value.dtype, value.ndim) == (torch.float32, 0)
            assert torch.isfinite(value)


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_nothing_seen_gives_nothing():
    metric = DetectionMetric(AB)
    assert metric.compute() == {}
    metric.update([], [])
    assert metric.compute() == {}
    assert feed(metric, random_data(2, 2)).compute()
    metric.reset()
    assert metric.compute() == {}


def test_images_without_objects():
    metric = DetectionMetric(AB)
    metric.update([NOTHING, prediction([BOX], [0.9], [1])], [NO_TRUTH, NO_TRUTH])
    values = metric.compute()
    assert values["map"] == 0
    assert not set(values) & set(TWELVE[1:])
    assert int(values["errors/background"]) == 1
    assert values["pr_curve"].isnan().all()


def test_no_prediction_at_all():
    metric = DetectionMetric(AB)
    metric.update([NOTHING, NOTHING], [BoxTarget.make([BOX], [0]), NO_TRUTH])
    values = metric.compute()
    assert (values["map"], values["mar_100"], values["ap/a"], values["precision"], values["f1"]) == (0, 0, 0, 0, 0)
    assert "ap/b" not in values
    assert int(values["errors/missed"]) == 1


def test_sizes_that_do_not_occur_are_left_out():
    metric = DetectionMetric(AB)
    metric.update([prediction([BOX], [0.9], [0])], [BoxTarget.make([BOX], [0])])
    values = metric.compute()
    assert {k: v.item() for k, v in values.items() if k in TWELVE} == pytest.approx(
        dict.fromkeys(set(TWELVE) - {"map_small", "map_medium", "mar_small", "mar_medium"}, 1.0)
    )


def test_the_area_of_the_object_and_not_of_the_box_tells_the_size():
    metric = DetectionMetric(AB)
    metric.update([prediction([BOX], [0.9], [0])], [BoxTarget.make([BOX], [0], areas=[900.0])])
    values = metric.compute()
    assert "map_small" in values
    assert "map_large" not in values


def test_what_is_not_finite_is_left_out():
    metric = DetectionMetric(AB)
    nan = float("nan")
    metric.update([prediction([BOX, BOX, [nan] * 4], [0.9, nan, 0.8], [0, 0, 1])], [BoxTarget.make([BOX], [0])])
    values = metric.compute()
    assert (values["map"], values["precision"]) == (1, 1)


def test_wrong_numbers_are_refused():
    metric = DetectionMetric(AB)
    with pytest.raises(UsageError, match="2 predictions for 1"):
        metric.update([NOTHING] * 2, [NO_TRUTH])
    with pytest.raises(UsageError, match="2 classes, a box has class id 2"):
        metric.update([prediction([BOX], [0.9], [2])], [NO_TRUTH])
    with pytest.raises(UsageError, match="2 classes, a box has class id 3"):
        metric.update([NOTHING], [BoxTarget.make([BOX], [3])])


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k].nan_to_num(-1), b[k].nan_to_num(-1)) for k in a)


def test_batches_do_not_matter_and_copies_are_whole():
    data = random_data(11, 3)
    metric = DetectionMetric(names(3))
    other = feed(pickle.loads(pickle.dumps(metric)), data, batch=11)
    assert equal(feed(metric, data, batch=1).compute(), other.compute())
    assert equal(metric.compute(), copy.deepcopy(metric).compute())


def test_nothing_is_printed(capsys):
    feed(DetectionMetric(names(3)), random_data(5, 3)).compute()
    assert capsys.readouterr() == ("", "")
