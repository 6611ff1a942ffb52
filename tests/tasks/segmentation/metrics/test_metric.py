import csv
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from visionkit.core.errors import UsageError
from visionkit.core.sample import ImageInfo
from visionkit.tasks.segmentation.metrics.boundary import boundary_counts
from visionkit.tasks.segmentation.metrics.metric import SegmentationMetric
from visionkit.tasks.segmentation.types import MaskPrediction, MaskTarget

ABC = ["a", "b", "c"]
OVERALL = {"miou", "mdice", "pixel_accuracy", "mean_accuracy", "boundary_f1", "confusion_matrix"}


def names(k):
    return [f"class {i}" for i in range(k)]


def prediction(labels, k):
    """A prediction whose labels are these, [H, W]."""
    scores = torch.nn.functional.one_hot(torch.as_tensor(labels).long(), k).permute(2, 0, 1).float()
    return MaskPrediction.of(scores, 1)


def target(mask):
    return MaskTarget(torch.as_tensor(mask).to(torch.uint8))


def random_pair(size, k, seed, *, ignore=0.1, absent=()):
    """Labels [H, W] that are right more often than not, and a truth in blocks with ignored pixels."""
    rng = np.random.default_rng(seed)
    ids = np.array([i for i in range(k) if i not in absent])
    truth = rng.choice(ids, (size[0] // 4 + 1, size[1] // 4 + 1)).repeat(4, 0).repeat(4, 1)[: size[0], : size[1]]
    labels = np.where(rng.random(size) < 0.3, rng.choice(ids, size), truth)
    truth[rng.random(size) < ignore] = 255
    return labels, truth


def feed(metric, pairs, batch=2):
    k = len(metric.classes)
    for i in range(0, len(pairs), batch):
        part = pairs[i : i + batch]
        metric.update([prediction(p, k) for p, _ in part], [target(t) for _, t in part])
    return metric


def evaluate(pairs, k, **settings):
    return feed(SegmentationMetric(names(k), **settings), pairs).compute()


# ---- values


def test_values_by_hand():
    """Two images of different sizes; "-" is ignored, so c occurs nowhere.

    truth       prediction
    a a b b     a a a b        of 4 a, 3 are hit and 1 is taken for b; of 3 b, 2 are hit and 1 is taken for a
    a a b -     a b b c
    a           b              1 more a is taken for b
    """
    metric = SegmentationMetric(ABC)
    first = ([[0, 0, 0, 1], [0, 1, 1, 2]], [[0, 0, 1, 1], [0, 0, 1, 255]])
    feed(metric, [first, ([[1]], [[0]])])
    values = metric.compute()
    assert values["confusion_matrix"].tolist() == [[3, 2, 0], [1, 2, 0], [0, 0, 0]]
    assert values["confusion_matrix"].dtype == torch.int64
    assert values["iou/a"].item() == pytest.approx(3 / (5 + 4 - 3))
    assert values["iou/b"].item() == pytest.approx(2 / (3 + 4 - 2))
    assert values["dice/a"].item() == pytest.approx(2 * 3 / (5 + 4))
    assert values["dice/b"].item() == pytest.approx(2 * 2 / (3 + 4))
    assert values["miou"].item() == pytest.approx((3 / 6 + 2 / 5) / 2)
    assert values["mdice"].item() == pytest.approx((6 / 9 + 4 / 7) / 2)
    assert values["pixel_accuracy"].item() == pytest.approx(5 / 8)
    assert values["mean_accuracy"].item() == pytest.approx((3 / 5 + 2 / 3) / 2)
    assert "iou/c" not in values, "predicted on an ignored pixel alone"
    assert "dice/c" not in values
    assert "boundary_f1/c" not in values


def test_boundary_values_by_hand():
    """In a 10 x 100 picture the boundary is 1 pixel off, in another 4 pixels: half of all is met at a pixel's tolerance.

    Its diagonal is 100.5 pixels, so 0.0075 of it is below a pixel and 1 is taken; 0.045 of it are 4.5 pixels.
    """
    pairs = []
    for off in (1, 4):
        truth, labels = np.zeros((10, 100), int), np.zeros((10, 100), int)
        truth[:, 50:] = 1
        labels[:, 50 + off :] = 1
        pairs.append((labels, truth))
    for tolerance, expected in ((0.0075, 0.5), (0.0, 0.5), (0.045, 1.0)):
        values = evaluate(pairs, 3, boundary_tolerance=tolerance)
        assert values["boundary_f1/class 0"] == values["boundary_f1/class 1"] == values["boundary_f1"] == expected
        assert "boundary_f1/class 2" not in values


def test_boundary_f1_is_of_the_sums_over_the_data_set():
    pairs = [random_pair((24, 40), 4, seed) for seed in range(3)]
    counts = sum(boundary_counts(torch.tensor(p).byte(), torch.tensor(t).byte(), 4, 1.0) for p, t in pairs)
    found, predicted, met, true = counts.double().unbind(1)
    f1 = 2 * (found / predicted) * (met / true) / (found / predicted + met / true)
    values = evaluate(pairs, 4)
    assert [values[f"boundary_f1/class {k}"].item() for k in range(4)] == pytest.approx(f1.tolist())
    assert values["boundary_f1"].item() == pytest.approx(f1.mean().item())


@pytest.mark.parametrize(("k", "absent"), [(2, ()), (5, (1, 3)), (130, tuple(range(0, 130, 3))), (255, ())])
def test_random_masks_against_scikit_learn_and_torchmetrics(k, absent):
    import sklearn.metrics  # here: each process of the test of two would wait for it
    from torchmetrics.classification import MulticlassJaccardIndex

    pairs = [random_pair((40, 56), k, seed, absent=absent) for seed in range(3)]
    values = evaluate(pairs, k)
    labels = np.concatenate([p.ravel() for p, _ in pairs])
    truth = np.concatenate([t.ravel() for _, t in pairs])
    labels, truth = labels[truth != 255], truth[truth != 255]
    matrix = sklearn.metrics.confusion_matrix(truth, labels, labels=range(k))
    assert np.array_equal(values["confusion_matrix"].numpy(), matrix)
    present = [i for i in range(k) if (truth == i).any() or (labels == i).any()]
    assert {i for i in range(k) if f"iou/class {i}" in values} == set(present)
    iou = sklearn.metrics.jaccard_score(truth, labels, labels=present, average=None)
    dice = sklearn.metrics.f1_score(truth, labels, labels=present, average=None)
    assert [values[f"iou/class {i}"].item() for i in present] == pytest.approx(iou, abs=1e-6)
    assert [values[f"dice/class {i}"].item() for i in present] == pytest.approx(dice, abs=1e-6)
    assert values["miou"].item() == pytest.approx(iou.mean(), abs=1e-6)
    assert values["mdice"].item() == pytest.approx(dice.mean(), abs=1e-6)
    assert values["pixel_accuracy"].item() == pytest.approx((truth == labels).mean(), abs=1e-6)
    assert values["mean_accuracy"].item() == pytest.approx(
        sklearn.metrics.recall_score(truth, labels, labels=np.unique(truth), average="macro"), abs=1e-6
    )
    jaccard = MulticlassJaccardIndex(num_classes=k, average="macro", ignore_index=255)
    for p, t in pairs:
        jaccard.update(torch.tensor(p)[None], torch.tensor(t)[None])
    assert values["miou"].item() == pytest.approx(jaccard.compute().item(), abs=1e-6)


def test_a_class_that_is_predicted_alone_counts_as_0():
    values = evaluate([([[0, 0, 2, 2]], [[0, 0, 0, 0]])], 3)
    assert values["iou/class 2"] == values["dice/class 2"] == 0
    assert "iou/class 1" not in values
    assert values["miou"].item() == pytest.approx((2 / 4 + 0) / 2)
    assert values["mean_accuracy"].item() == 0.5, "class 2 is not in the truth"
    assert values["boundary_f1"] == 0


def test_one_class_alone():
    """No boundary, so no value for it: neither 0 nor 1 would be true."""
    values = evaluate([(np.zeros((5, 6), int), np.zeros((5, 6), int))], 2)
    assert values.keys() == OVERALL - {"boundary_f1"} | {"iou/class 0", "dice/class 0"}
    assert all(v == 1 for v in values.values() if v.ndim == 0)


@pytest.mark.parametrize("k", [1, 2, 7, 130])
def test_a_perfect_prediction_is_1_everywhere(k):
    truth = [random_pair((60, 80), k, seed)[1] for seed in range(2)]
    rng = np.random.default_rng(0)
    pairs = [(np.where(t == 255, rng.integers(0, k, t.shape), t), t) for t in truth]  # ignored: anything
    values = evaluate(pairs, k)
    assert all(v == 1 for key, v in values.items() if key != "confusion_matrix")
    assert ("boundary_f1" in values) == (k > 1)


# ---- the metric as such


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_nothing_seen_gives_nothing():
    metric = SegmentationMetric(ABC)
    assert metric.compute() == {}
    metric.update([], [])
    assert metric.compute() == {}
    assert feed(metric, [random_pair((8, 8), 3, 0)]).compute()
    metric.reset()
    assert metric.compute() == {}


def test_ignored_pixels_alone_give_0():
    metric = feed(SegmentationMetric(ABC), [(np.ones((4, 5), int), np.full((4, 5), 255))])
    values = metric.compute()
    assert values.keys() == OVERALL - {"boundary_f1"}
    assert all(v == 0 for k, v in values.items() if k != "confusion_matrix")
    assert values["confusion_matrix"].sum() == 0


def test_values_are_what_the_task_needs():
    metric = SegmentationMetric(ABC)
    values = feed(metric, [random_pair((30, 20), 3, 0)]).compute()
    assert metric.monitor == "miou"
    assert metric.monitor_mode == "max"
    assert values.keys() == OVERALL | {f"{kind}/{n}" for kind in ("iou", "dice", "boundary_f1") for n in ABC}
    for key, value in values.items():
        assert key == "confusion_matrix" or (value.dtype, value.ndim) == (torch.float32, 0)
        assert torch.isfinite(value).all()
    values["confusion_matrix"].zero_()
    assert metric.compute()["confusion_matrix"].sum() > 0, "a copy"


def test_originals_are_compared():
    """What the network saw at half the size is compared in pixels of the original."""
    truth = target(np.repeat([[0, 1]], 8, 0).repeat(4, 1))  # [8, 8], split in the middle
    info = ImageInfo("a.png", (8, 8), (0.5, 0.5), (0, 0))
    seen = prediction(np.repeat([[0, 0, 1, 1]], 4, 0), 2).restore(info)
    metric = SegmentationMetric(["a", "b"])
    metric.update([seen], [truth.place((0.5, 0.5), (0, 0), (4, 4)).restore(info)])
    assert metric.compute()["confusion_matrix"].tolist() == [[32, 0], [0, 32]]


@pytest.mark.parametrize(
    ("labels", "mask", "words"),
    [
        ([[0, 1, 0], [0, 0, 0]], [[0, 1], [0, 0]], "a prediction of 2 x 3 pixels for a truth of 2 x 2"),
        ([[0, 1]], [[3, 1]], "3 classes, a truth has class id 3"),
        ([[0, 1]], [[254, 255]], "3 classes, a truth has class id 254"),
        ([[0, 3]], [[0, 1]], "3 classes, a prediction has class id 3"),
        ([[0, 3]], [[0, 255]], "3 classes, a prediction has class id 3"),
    ],
)
def test_what_does_not_fit_is_refused_and_leaves_no_trace(labels, mask, words):
    metric = SegmentationMetric(ABC)
    good = random_pair((4, 4), 3, 0)
    with pytest.raises(UsageError, match=words) as e:
        metric.update([prediction(good[0], 3), prediction(labels, 4)], [target(good[1]), target(mask)])
    assert "\n" not in str(e.value)
    metric.update([prediction(good[0], 3)], [target(good[1])])
    alone = feed(SegmentationMetric(ABC), [good]).compute()
    assert all(torch.equal(v, alone[k]) for k, v in metric.compute().items())


def test_wrong_arguments_are_refused():
    for tolerance in (-0.1, 1.5, float("nan")):
        with pytest.raises(UsageError, match="boundary_tolerance"):
            SegmentationMetric(ABC, boundary_tolerance=tolerance)
    with pytest.raises(UsageError, match="256 classes"):
        SegmentationMetric(names(256))
    with pytest.raises(UsageError, match="1 predictions for 2 targets"):
        SegmentationMetric(ABC).update([prediction([[0]], 3)], [target([[0]])] * 2)


@settings(max_examples=25)
@given(order=st.permutations(range(5)), batch=st.integers(1, 5), k=st.sampled_from([2, 6]), seed=st.integers(0, 99))
def test_order_and_batches_do_not_matter(order, batch, k, seed):
    pairs = [random_pair((8 + 3 * i, 20 - 2 * i), k, seed + i) for i in range(5)]
    first = evaluate(pairs, k)
    metric = pickle.loads(pickle.dumps(SegmentationMetric(names(k))))
    other = feed(metric, [pairs[i] for i in order], batch).compute()
    assert first.keys() == other.keys()
    assert all(torch.equal(first[key], other[key]) for key in first)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_gpu_counts_the_same():
    pairs = [random_pair((60, 80), 7, seed) for seed in range(2)]
    metric = SegmentationMetric(names(7)).cuda()
    metric.update([prediction(torch.tensor(p).cuda(), 7) for p, _ in pairs], [target(t) for _, t in pairs])
    values = metric.compute()
    assert values["miou"].is_cuda
    assert values["confusion_matrix"].is_cuda
    assert all(torch.equal(v, values[k].cpu()) for k, v in evaluate(pairs, 7).items())


# ---- pictures


@pytest.mark.parametrize("k", [1, 2, 11, 130])
def test_pictures_are_written(k, tmp_path):
    classes = ['a, $b$ "c"', "日本", *names(k)][:k]
    metric = feed(SegmentationMetric(classes), [random_pair((120, 160), k, 0)])
    values = metric.compute()
    folder = tmp_path / "new"
    paths = metric.plot(values, folder, "val_")
    assert [p.name for p in paths] == ["val_confusion_matrix.png", "val_confusion_matrix.csv", "val_class_iou.png"]
    assert sorted(folder.iterdir()) == sorted(paths)
    with paths[1].open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    assert header[1:] == classes
    assert [[int(c) for c in r[1:]] for r in rows] == values["confusion_matrix"].view(k, k).tolist()


def test_nothing_to_plot(tmp_path):
    metric = SegmentationMetric(ABC)
    assert metric.plot({}, tmp_path / "no", "") == []
    assert not (tmp_path / "no").exists()
    ignored = feed(metric, [(np.zeros((2, 2), int), np.full((2, 2), 255))]).compute()
    assert [p.suffix for p in metric.plot(ignored, tmp_path, "")] == [".png", ".csv"]


def test_scores_that_are_no_numbers_are_never_right():
    scores = torch.full((2, 4, 4), torch.nan)
    metric = SegmentationMetric(names(2))
    metric.update([MaskPrediction.of(scores, 1)], [target(torch.zeros(4, 4))])
    values = metric.compute()
    assert values["pixel_accuracy"] == 0
    assert values["miou"] == 0
    assert values["confusion_matrix"].tolist() == [[0, 16], [0, 0]]
