"""The metric of masks beside COCO's own code."""

import contextlib
import io
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from visionkit import DataError, UsageError
from visionkit.data.labels.masks import ObjectMasks, encode_window
from visionkit.tasks.detection.instances import InstancePrediction
from visionkit.tasks.detection.metrics.metric import DetectionMetric
from visionkit.tasks.detection.readers.coco import CocoDataset
from visionkit.tasks.detection.types import BoxPrediction, BoxTarget

NAMES = ("map", "map_50", "map_75", "map_small", "map_medium", "map_large")
SIZE = (150, 200)


def names(k):
    return [f"class {i}" for i in range(k)]


def predicted(boxes, masks, scores, labels, size=SIZE):
    order = scores.argsort(descending=True, stable=True)
    frames = boxes[order]
    return InstancePrediction(frames, scores[order], labels[order], size, masks=masks[order], frames=frames)


def perturbed(truth, k, g, noise=0.06, extra=3):
    """Predictions whose masks are those of the truth, moved, blurred and eaten away; and some out of nowhere."""
    dense = torch.from_numpy(truth.masks.dense()).float()
    boxes, masks = [], []
    for box, mask in zip(truth.boxes.tolist(), dense, strict=True):
        x1, y1, x2, y2 = (int(v) for v in box)
        window = mask[y1 : max(y2, y1 + 1), x1 : max(x2, x1 + 1)]
        small = F.interpolate(window[None, None], size=14, mode="bilinear")[0, 0]
        masks.append((small + 0.4 * torch.randn(14, 14, generator=g)).clamp(0, 1))
        sides = torch.tensor([x2 - x1, y2 - y1] * 2)
        boxes.append(torch.tensor(box) + sides * noise * torch.randn(4, generator=g))
    corner = torch.rand(extra, 2, generator=g) * 100
    boxes += torch.cat([corner, corner + 5 + torch.rand(extra, 2, generator=g) * 60], 1)
    masks += torch.rand(extra, 14, 14, generator=g)
    boxes = torch.stack([*boxes, torch.zeros(4)])[:-1]
    boxes[:, 2:] = torch.maximum(boxes[:, 2:], boxes[:, :2] + 1)
    labels = torch.cat([truth.labels, torch.randint(k, (extra,), generator=g)])
    wrong = torch.rand(len(labels), generator=g) < 0.15
    labels = torch.where(wrong, torch.randint(k, labels.shape, generator=g), labels)
    scores = (torch.rand(len(labels), generator=g) * 10).ceil() / 10
    return predicted(boxes, torch.stack([*masks, torch.zeros(14, 14)])[:-1], scores, labels, truth.masks.size)


def random_data(images, k, seed=0, most=8):
    """Ellipses of several sizes, some of them crowds, some pictures without any."""
    g = torch.Generator().manual_seed(seed)
    y, x = np.mgrid[0 : SIZE[0], 0 : SIZE[1]] + 0.5
    data = []
    for _ in range(images):
        n = int(torch.randint(0, most + 1, (), generator=g))
        corner = (torch.rand(n, 2, generator=g) * 110).floor()
        sides = 5 + (90 * torch.rand(n, 2, generator=g) ** 2).floor()
        boxes = torch.cat([corner, (corner + sides).minimum(torch.tensor(SIZE[::-1]))], 1)
        dense = np.zeros((n, *SIZE), np.uint8)
        for mask, (x1, y1, x2, y2) in zip(dense, boxes.tolist(), strict=True):
            mask[((2 * x - x1 - x2) / (x2 - x1)) ** 2 + ((2 * y - y1 - y2) / (y2 - y1)) ** 2 <= 1] = 1
        crowd = torch.rand(n, generator=g) < 0.15
        masks = ObjectMasks.from_dense(dense)
        labels = torch.randint(k, (n,), generator=g)
        truth = BoxTarget.make(boxes, labels, crowd, masks.areas(), masks)
        data.append((perturbed(truth, k, g), truth))
    return data


def feed(metric, data, batch=3):
    for i in range(0, len(data), batch):
        metric.update(*zip(*data[i : i + batch], strict=True))
    return metric


def pycocotools(data, k):
    """COCO's twelve numbers of masks, and the average precision of each class."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth, found = [], []
    for number, (p, t) in enumerate(data, start=10):
        masks = [] if t.masks is None else t.masks.rles()
        for label, crowd, area, mask in zip(t.labels.tolist(), t.crowd.tolist(), t.areas.tolist(), masks, strict=True):
            truth.append({"id": len(truth) + 1, "image_id": number, "category_id": label + 1, "segmentation": mask,
                          "iscrowd": int(crowd), "area": area, "bbox": [0, 0, 1, 1]})  # fmt: skip
        for label, score, mask in zip(p.labels.tolist(), p.scores.tolist(), p.rles(), strict=True):
            found.append({"image_id": number, "category_id": label + 1, "score": score, "segmentation": mask})
    with contextlib.redirect_stdout(io.StringIO()):
        known = COCO()
        known.dataset = {
            "info": {},
            "images": [{"id": i, "height": p.size[0], "width": p.size[1]} for i, (p, _) in enumerate(data, start=10)],
            "categories": [{"id": c + 1, "name": str(c)} for c in range(k)],
            "annotations": truth,
        }
        known.createIndex()
        evaluation = COCOeval(known, known.loadRes(found), "segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats, [evaluation.eval["precision"][:, :, c, 0, 2].mean() for c in range(k)]


def assert_equals_coco(data, k):
    values = feed(DetectionMetric(names(k), masks=True), data).compute()
    stats, per_class = pycocotools(data, k)
    for name, expected in [*zip(NAMES, stats, strict=False), ("mar_100", stats[8])]:
        if expected == -1:
            assert f"mask_{name}" not in values or (name == "map" and values["mask_map"] == 0)
        else:
            assert values[f"mask_{name}"].item() == pytest.approx(expected, abs=1e-6), name
    for c, expected in enumerate(per_class):
        assert (f"mask_ap/class {c}" in values) == (expected > -1)
        if expected > -1:
            assert values[f"mask_ap/class {c}"].item() == pytest.approx(expected, abs=1e-6)
    plain = feed(DetectionMetric(names(k)), data).compute()
    for name, value in plain.items():
        assert torch.equal(values[name].nan_to_num(-1), value.nan_to_num(-1)), f"{name} of boxes is another with masks"
    return values


@settings(max_examples=12)
@given(seed=st.integers(0, 2**20), images=st.integers(1, 5), k=st.integers(1, 4), most=st.sampled_from([1, 4, 10]))
def test_random_data_against_pycocotools(seed, images, k, most):
    assert_equals_coco(random_data(images, k, seed, most), k)


def test_many_images_of_all_sizes_against_pycocotools():
    values = assert_equals_coco(random_data(40, 4), 4)
    assert {f"mask_{n}" for n in NAMES} - {"mask_map_large"} <= values.keys()
    assert 0.1 < values["mask_map"] < 0.9
    assert values["mask_map"] != values["map"]


def test_real_objects_against_pycocotools(data_root):
    try:
        real = CocoDataset(data_root / "coco128" / "annotations" / "instances_train2017.json", masks=True)
    except DataError as e:
        pytest.skip(str(e))
    g = torch.Generator().manual_seed(0)
    data = []
    for entry in real.entries[:64]:
        truth = entry.target(entry.size)
        data.append((perturbed(truth, len(real.classes), g, noise=0.03), truth))
    assert sum(int(t.crowd.sum()) for _, t in data) > 2
    values = assert_equals_coco(data, len(real.classes))
    assert values["mask_map_50"] > 0.3
    assert {f"mask_{n}" for n in NAMES} <= values.keys()


def one(mask, boxes=((10.0, 10, 50, 50),), crowd=None, found=None):
    masks = ObjectMasks((encode_window(mask, (10, 10), SIZE),), SIZE)
    truth = BoxTarget.make(boxes, [0], crowd, masks=masks)
    frames = torch.tensor(boxes if found is None else found)
    full = torch.ones(len(frames), 28, 28)
    return predicted(frames, full, torch.full((len(frames),), 0.9), torch.zeros(len(frames)).long()), truth


def test_the_overlap_is_that_of_masks():
    square, half = np.ones((40, 40), bool), np.ones((40, 40), bool)
    half[:, 24:] = False  # 60 % of the box
    values = feed(DetectionMetric(["a"], masks=True), [one(square)]).compute()
    assert (values["map"], values["mask_map"], values["mask_mar_100"]) == (1, 1, 1)
    values = feed(DetectionMetric(["a"], masks=True), [one(half)]).compute()
    assert (values["map"], values["mask_map_50"]) == (1, 1)
    assert values["mask_map"].item() == pytest.approx(0.2, abs=0.11), "right at 0.5 and 0.55 alone"


def test_what_lies_in_a_crowd_is_not_counted():
    square = np.ones((40, 40), bool)
    inside = torch.tensor([[15.0, 15, 25, 25], [100, 100, 120, 120]])
    crowd = one(square, crowd=[True], found=inside[:1].tolist())
    real = one(square)
    values = feed(DetectionMetric(["a"], masks=True), [crowd, real]).compute()
    assert values["mask_map"] == 1
    crowd = one(square, crowd=[True], found=inside.tolist())
    assert feed(DetectionMetric(["a"], masks=True), [crowd, real]).compute()["mask_map"] < 1


def test_pictures_without_objects_and_without_predictions():
    nothing = predicted(torch.zeros(0, 4), torch.zeros(0, 28, 28), torch.zeros(0), torch.zeros(0).long())
    metric = DetectionMetric(["a"], masks=True)
    assert metric.monitor == "mask_map"
    metric.update([nothing], [BoxTarget.make([], [])])
    values = metric.compute()
    assert (values["map"], values["mask_map"]) == (0, 0)
    square = one(np.ones((40, 40), bool))
    metric.update([nothing, square[0]], [square[1], BoxTarget.make([], [])])
    assert metric.compute()["mask_map"] == 0
    metric.reset()
    assert feed(metric, [square]).compute()["mask_map"] == 1


def test_what_is_not_finite_is_left_out():
    prediction, truth = one(np.ones((40, 40), bool), found=[[10.0, 10, 50, 50], [float("nan")] * 4])
    assert feed(DetectionMetric(["a"], masks=True), [(prediction, truth)]).compute()["mask_map"] == 1


def test_masks_that_are_missing():
    prediction, truth = one(np.ones((40, 40), bool))
    metric = DetectionMetric(["a"], masks=True)
    with pytest.raises(UsageError, match="the truth has none: set --data.masks true"):
        metric.update([prediction], [BoxTarget.make(truth.boxes, truth.labels)])
    with pytest.raises(UsageError, match="the predictions have none: use a head such as MaskRCNNHead"):
        metric.update([BoxPrediction(prediction.boxes, prediction.scores, prediction.labels)], [truth])
    with pytest.raises(UsageError, match="restore both first"):
        metric.update([prediction], [truth.place((2, 2), (0, 0), (300, 400))])


def test_it_holds_run_lengths_alone():
    metric = feed(DetectionMetric(names(3), masks=True), random_data(20, 3))
    assert len(pickle.dumps(metric._parts)) < 20 * 12 * 1000
    masks = [m for batch in metric._parts for m in batch.masks]
    assert len(masks) == 20
    assert all(isinstance(o, bytes) for m in masks for o in (*m.found.outlines, *m.truth.outlines))
