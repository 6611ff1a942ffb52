"""What every metric keeps to: values over any images, on one process or two, in any batches."""

import copy
import io
import os
import pickle
import socket

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from hypothesis import given, settings
from hypothesis import strategies as st

from visionkit import BoxTarget, ClassTarget, DataError, ImageInfo, TaskMetric, UsageError
from visionkit.core.distributed import order_of_images
from visionkit.data.labels.masks import ObjectMasks
from visionkit.tasks.classification.metric import ClassificationMetric
from visionkit.tasks.classification.types import ClassPrediction
from visionkit.tasks.detection.instances import InstancePrediction
from visionkit.tasks.detection.metrics import average_precision, error_types
from visionkit.tasks.detection.metrics.metric import DetectionMetric
from visionkit.tasks.detection.types import BoxPrediction
from visionkit.tasks.multitask.metric import MultiTaskMetric
from visionkit.tasks.multitask.types import MultiTaskPrediction, MultiTaskTarget
from visionkit.tasks.segmentation.metrics.metric import SegmentationMetric
from visionkit.tasks.segmentation.types import MaskPrediction, MaskTarget

pytestmark = pytest.mark.filterwarnings("ignore:The ``compute`` method")

SIZE = (24, 32)


def names(k):
    return [f"class {i}" for i in range(k)]


def one_class(g, k=7):
    label = int(torch.randint(k, (), generator=g))
    scores = (torch.randn(k, generator=g) + 2 * torch.eye(k)[label]).softmax(0)
    return ClassPrediction(scores), ClassTarget(torch.eye(k)[label])


def two_classes(g):
    return one_class(g, 2)


def several_classes(g, k=4):
    """Probabilities of few values, so that images share them."""
    truth = (torch.rand(k, generator=g) < 0.4).float()
    scores = ((torch.randn(k, generator=g) + truth).sigmoid() * 5).round() / 5
    return ClassPrediction(scores, multilabel=True), ClassTarget(truth)


def boxes(g, k=3, levels=3, edge=120):
    """Boxes of all sizes with few scores, so that an image has several of one class and score; some crowds."""
    n, extra = torch.randint(0, 6, (2,), generator=g).tolist()
    corner = torch.rand(n, 2, generator=g) * edge
    truth = torch.cat([corner, corner + 4 + 130 * torch.rand(n, 2, generator=g) ** 2], 1)
    labels = torch.randint(k, (n,), generator=g)
    crowd = torch.rand(n, generator=g) < 0.15
    far = torch.rand(extra, 2, generator=g) * edge
    found = torch.cat([truth + 4 * torch.randn(n, 4, generator=g), torch.cat([far, far + 20], 1)])
    found = torch.cat([found[:, :2], torch.maximum(found[:, 2:], found[:, :2] + 1)], 1)
    every = torch.cat([labels, torch.randint(k, (extra,), generator=g)])
    scores = (torch.rand(len(found), generator=g) * levels).ceil() / levels
    order = scores.argsort(descending=True, stable=True)
    return BoxPrediction(found[order], scores[order], every[order]), BoxTarget.make(truth, labels, crowd)


def instances(g):
    """Objects that fill their boxes, and masks that fill a part of theirs."""
    prediction, target = boxes(g, 2, 2, edge=20)
    size = (160, 170)
    dense = np.zeros((len(target), *size), np.uint8)
    for mask, (x1, y1, x2, y2) in zip(dense, target.boxes.int().tolist(), strict=True):
        mask[y1:y2, x1:x2] = 1
    masks = ObjectMasks.from_dense(dense)
    truth = BoxTarget.make(target.boxes, target.labels, target.crowd, masks.areas(), masks=masks)
    seen = (torch.rand(len(prediction), 7, 7, generator=g) + 0.3).clamp(0, 1)
    found = prediction.boxes.clamp(0, 160)
    found[:, 2:] = torch.maximum(found[:, 2:], found[:, :2] + 1)
    return (
        InstancePrediction(found, prediction.scores, prediction.labels, size, masks=seen, frames=found),
        truth,
    )


def areas(g, k=5):
    """Blocks of classes with holes, and some ignored pixels."""
    truth = torch.randint(k, (3, 4), generator=g).repeat_interleave(8, 0).repeat_interleave(8, 1)
    found = torch.where(torch.rand(SIZE, generator=g) < 0.1, torch.randint(k, SIZE, generator=g), truth)
    truth = torch.where(torch.rand(SIZE, generator=g) < 0.05, 255, truth)
    return MaskPrediction.of(torch.eye(k)[found].permute(2, 0, 1), 1), MaskTarget(truth.byte())


def several_tasks(g):
    """Labelled for some of the heads, or for none; the model speaks of all."""
    every = {"kind": one_class(g, 3), "cars": boxes(g, 2), "ground": areas(g)}
    labelled = [name for name in every if torch.rand((), generator=g) < 0.6]
    return (
        MultiTaskPrediction({name: pair[0] for name, pair in every.items()}),
        MultiTaskTarget({name: every[name][1] for name in labelled}),
    )


def multitask_metric():
    metrics = {
        "kind": ClassificationMetric(names(3)),
        "cars": DetectionMetric(names(2)),
        "ground": SegmentationMetric(names(5)),
    }
    classes = [f"{head}/{name}" for head, metric in metrics.items() for name in metric.classes]
    return MultiTaskMetric(classes, metrics)


KINDS = {
    "one label": (lambda: ClassificationMetric(names(7)), one_class),
    "two classes": (lambda: ClassificationMetric(names(2)), two_classes),
    "several labels": (lambda: ClassificationMetric(names(4), multilabel=True), several_classes),
    "boxes": (lambda: DetectionMetric(names(3)), boxes),
    "masks": (lambda: DetectionMetric(names(2), masks=True), instances),
    "segmentation": (lambda: SegmentationMetric(names(5)), areas),
    "several tasks": (multitask_metric, several_tasks),
}
every_metric = pytest.mark.parametrize("kind", KINDS)


def images(kind, count, seed=0):
    g = torch.Generator().manual_seed(seed)
    return [KINDS[kind][1](g) for _ in range(count)]


def made(kind, data, batch=3):
    metric = KINDS[kind][0]()
    for i in range(0, len(data), batch):
        metric.update(*zip(*data[i : i + batch], strict=True))
        metric.add_infos([ImageInfo(f"{k}.png", SIZE) for k in range(i, i + len(data[i : i + batch]))])
    return metric


def plain(values):
    """Return what can be compared, bit by bit, with the shapes: nan equals nan."""
    return {k: (v.dtype, v.shape, v.nan_to_num(-7).tolist()) for k, v in values.items()}


@every_metric
def test_all_images_give_what_compute_gives(kind):
    metric = made(kind, images(kind, 12))
    values = plain(metric.compute())
    assert len(values) > 4
    assert 0 < values[metric.monitor][2] < 1
    assert plain(metric.redraw(range(12))) == values
    assert plain(metric.compute()) == values
    assert plain(made(kind, images(kind, 12), batch=12).redraw(range(12))) == values, "also where nothing is computed"


@every_metric
@settings(max_examples=12)
@given(data=st.data(), seed=st.integers(0, 2**20))
def test_some_images_give_what_a_new_metric_gives(kind, data, seed):
    count = data.draw(st.integers(1, 8))
    rows = data.draw(st.lists(st.integers(0, count - 1), min_size=1, max_size=12))
    everything = images(kind, count, seed)
    metric = made(kind, everything)
    metric.compute()
    alone = made(kind, [everything[k] for k in sorted(rows)], batch=data.draw(st.integers(1, 5)))
    assert plain(metric.redraw(rows)) == plain(alone.compute())


@every_metric
def test_copies_of_one_image(kind):
    """An image with several equal scores counts as if each copy were an image after the other."""
    everything = images(kind, 20)
    metric = made(kind, everything)
    for row in range(20):
        alone = made(kind, [everything[row]] * 3)
        assert plain(metric.redraw([row] * 3)) == plain(alone.compute())


@every_metric
def test_what_is_drawn_is_what_was_seen_since_the_last_reset(kind):
    everything = images(kind, 9)
    metric = made(kind, everything[:4])
    before = plain(metric.redraw([1, 3]))
    metric.update(*zip(*everything[4:], strict=True))
    assert plain(metric.redraw([1, 3])) == before
    assert plain(metric.redraw(range(9))) == plain(made(kind, everything).compute())
    metric.reset()
    assert metric.redraw([]) == metric.compute() == {}
    with pytest.raises(UsageError, match=r"^row 1 of a metric that has no images$"):
        metric.redraw([1])
    metric.update(*zip(*everything[5:7], strict=True))
    assert plain(metric.redraw([0, 1])) == plain(made(kind, everything[5:7]).compute())


@every_metric
def test_rows_that_there_are_not(kind):
    metric = made(kind, images(kind, 3))
    assert metric.redraw([]) == {}
    for row in (3, -1):
        with pytest.raises(UsageError, match=f"^row {row} of a metric that has 3 images: 0 to 2$"):
            metric.redraw([0, row])


@every_metric
def test_images_have_ids(kind):
    metric = made(kind, images(kind, 5))
    assert metric.image_ids() == [f"{k}.png" for k in range(5)]
    metric.reset()
    assert metric.image_ids() == []


@every_metric
def test_copies_are_whole(kind):
    metric = made(kind, images(kind, 6))
    values = plain(metric.redraw([0, 2, 2]))
    for other in (copy.deepcopy(metric), pickle.loads(pickle.dumps(metric))):
        assert plain(other.redraw([0, 2, 2])) == values
        assert plain(other.compute()) == plain(metric.compute())


@every_metric
def test_nothing_is_worth_a_state_in_a_checkpoint(kind):
    assert not made(kind, images(kind, 3)).state_dict()


@every_metric
def test_ones_as_weights_are_compute_and_other_weights_are_rows(kind):
    metric = made(kind, images(kind, 9))
    values = plain(metric.compute())
    assert plain(metric.redraw_weighted(np.ones(9, np.int64))) == values
    rows = [0, 2, 2, 5, 8, 8, 8]
    assert plain(metric.redraw_weighted(np.bincount(rows, minlength=9))) == plain(metric.redraw(rows))
    assert metric.redraw_weighted(np.zeros(9, np.int64)) == {}
    for weight in (np.ones(8, np.int64), np.ones(9), -np.ones(9, np.int64)):
        with pytest.raises(UsageError, match="weights of 9 images: one whole number"):
            metric.redraw_weighted(weight)


DRAWN = {**KINDS, "boxes": (KINDS["boxes"][0], lambda g: boxes(g, levels=10**6))}
"""Boxes of different scores: where one image has equal ones, a draw may count its copies in another order."""


@every_metric
def test_drawing_gives_the_numbers_of_weighted_images(kind):
    g = torch.Generator().manual_seed(3)
    data = [DRAWN[kind][1](g) for _ in range(14)]
    metric = made(kind, data)
    draw = metric.drawing()
    rng = np.random.default_rng(0)
    weights = [np.ones(14, np.int64), *(rng.integers(0, 2 if kind == "masks" else 4, (12, 14)))]
    for weight in weights:
        values = {k: float(v) for k, v in metric.redraw_weighted(weight).items() if v.numel() == 1}
        drawn = draw(weight)
        assert drawn.keys() == values.keys()
        assert drawn == pytest.approx(values, abs=2e-7, rel=2e-7)
    assert draw(np.zeros(14, np.int64)) == {}
    assert KINDS[kind][0]().drawing()(np.zeros(0, np.int64)) == {}


def test_drawing_where_nothing_is_found_or_true():
    empty = BoxPrediction(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.long))
    none = BoxTarget.make(torch.zeros(0, 4), torch.zeros(0, dtype=torch.long))
    box = torch.tensor([[0.0, 0, 40, 40]])
    one, found = BoxTarget.make(box, torch.tensor([1])), BoxPrediction(box, torch.tensor([0.9]), torch.tensor([1]))
    for pairs in ([(empty, none)], [(empty, one)], [(found, none)], [(empty, none), (found, one)], [(found, one)] * 3):
        metric = DetectionMetric(names(3))
        metric.update(*map(list, zip(*pairs, strict=True)))
        for weight in (np.ones(len(pairs), np.int64), np.eye(len(pairs), dtype=np.int64)[0]):
            values = {k: float(v) for k, v in metric.redraw_weighted(weight).items() if v.numel() == 1}
            if not sum(len(truth) * times for (_, truth), times in zip(pairs, weight, strict=True)):
                assert values.pop("map") == 0.0  # a draw without any object says nothing of it
            assert metric.drawing()(weight) == pytest.approx(values)


def kept(metric):
    """What a metric holds, through a file of numpy's."""
    file = io.BytesIO()
    np.savez(file, **metric.arrays())
    file.seek(0)
    with np.load(file, allow_pickle=False) as arrays:
        return dict(arrays)


@every_metric
def test_what_images_add_goes_through_a_file_bit_by_bit(kind):
    metric = made(kind, images(kind, 10))
    other = KINDS[kind][0]()
    other.update(*zip(*images(kind, 2, 1), strict=True))  # which is forgotten
    other.take_arrays(kept(metric))
    assert other.images == 10
    assert plain(other.compute()) == plain(metric.compute())
    assert plain(other.redraw([3, 3, 7])) == plain(metric.redraw([3, 3, 7]))
    assert kept(other).keys() == kept(metric).keys()
    assert all((a == kept(other)[name]).all() for name, a in kept(metric).items())
    other.update(*zip(*images(kind, 3, 5), strict=True))
    metric.update(*zip(*images(kind, 3, 5), strict=True))
    assert plain(other.compute()) == plain(metric.compute())
    empty = KINDS[kind][0]()
    empty.take_arrays(kept(KINDS[kind][0]()))
    assert empty.compute() == {}


def test_settings_come_with_the_arrays():
    metric = DetectionMetric(names(3), score_threshold=0.6, iou_threshold=0.7)
    metric.update(*zip(*images("boxes", 5), strict=True))
    other = KINDS["boxes"][0]()
    other.take_arrays(kept(metric))
    assert (other.score_threshold, other.iou_threshold) == (0.6, 0.7)
    assert plain(other.compute()) == plain(metric.compute())
    metric = ClassificationMetric(names(7), bins=4)
    metric.update(*zip(*images("one label", 9), strict=True))
    other = KINDS["one label"][0]()
    other.take_arrays(kept(metric))
    assert plain(other.compute()) == plain(metric.compute())


@every_metric
def test_arrays_that_do_not_fit_are_refused(kind):
    """What a file holds may be anybody's: nothing but DataError, and no crash later."""
    arrays = kept(made(kind, images(kind, 6)))
    changes = {
        "gone": lambda a: None,
        "shorter": lambda a: a[:-1] if a.ndim else a.reshape(1),
        "flat": lambda a: a.reshape(-1) if a.ndim > 1 else a.reshape(-1, 1),
        "text": lambda a: np.full(a.shape, "x"),
        "complex": lambda a: a.astype(np.complex128),
        "below 0": lambda a: np.full_like(a, -3) if a.dtype.kind in "if" else a.astype(np.int8) - 3,
        "far too large": lambda a: np.full_like(a, 10**9) if a.dtype.kind in "if" and a.itemsize > 2 else None,
        "no number": lambda a: np.full_like(a, np.nan) if a.dtype.kind == "f" else None,
    }
    for name, array in arrays.items():
        for what, change in changes.items():
            if not array.size or (what == "no number" and array.dtype.kind != "f"):
                continue
            given = {k: v for k, v in {**arrays, name: change(array)}.items() if v is not None}
            metric = KINDS[kind][0]()
            try:
                metric.take_arrays(given)
            except DataError:
                continue
            assert name.endswith(("probabilities", "found", "truth")), (name, what)  # any finite number is a box
            assert what in ("below 0",), (name, what)
            metric.compute()


@every_metric
def test_what_values_rest_on(kind):
    metric = made(kind, images(kind, 12))
    values = metric.compute()
    counted = dict(metric.counted())
    assert counted
    for key, (of, hits, unit) in counted.items():
        assert of.shape == (12,)
        assert unit
        if hits is not None and key in values:
            assert (hits <= of).all()
            assert hits.sum() / of.sum() == pytest.approx(float(values[key]), abs=1e-6)
        if "/" in key and of.sum() == 0:
            assert key not in values
    faults = metric.faults()
    assert faults.shape == (12,)
    assert faults.max() > 0
    assert KINDS[kind][0]().faults().shape == (0,)


def test_faults_are_those_of_each_image():
    metric = DetectionMetric(["a", "b"])
    box, far = torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([[50.0, 50, 60, 60]])
    one = torch.tensor([0])
    truth = BoxTarget.make(box, one)
    right, wrong = BoxPrediction(box, torch.tensor([0.9]), one), BoxPrediction(far, torch.tensor([0.9]), one)
    nothing = BoxPrediction(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.long))
    metric.update([right, wrong, nothing], [truth] * 3)
    assert metric.faults().tolist() == [0, 2, 1]
    counted = dict(metric.counted())
    assert [counted[k].of.tolist() for k in ("precision", "recall", "ap/a", "ap/b", "map_small")] == [
        [1, 1, 0], [1, 1, 1], [1, 1, 1], [0, 0, 0], [1, 1, 1],
    ]  # fmt: skip
    assert counted["recall"].hits.tolist() == [1, 0, 0]


@pytest.mark.parametrize("kind", ["boxes", "masks"])
def test_what_is_matched_once_is_not_matched_again(kind, monkeypatch):
    metric = made(kind, images(kind, 8))
    metric.compute()

    def refuse(*arguments, **options):
        raise AssertionError("matched again")

    for module in (average_precision, error_types):
        monkeypatch.setattr(module, "match_greedily", refuse)
        monkeypatch.setattr(module, "box_pairs", refuse)
    assert metric.redraw([0, 3, 3])
    with pytest.raises(AssertionError, match="matched again"):
        metric.compute()


def test_of_many_classes_only_those_that_occur_are_held():
    """150 classes, five of which an image has: a whole matrix would take 180,000 bytes an image."""
    metric = SegmentationMetric(names(150))
    metric.update(*zip(*images("segmentation", 20), strict=True))
    assert len(pickle.dumps(metric._parts)) < 20 * 1000
    assert metric.compute()["confusion_matrix"].shape == (150, 150)


class Count(TaskMetric):
    """A metric of somebody's own."""

    monitor = "count"

    def __init__(self, classes):
        super().__init__(classes)
        self.add_state("count", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, predictions, targets):
        self.count += len(targets)

    def compute(self):
        return {"count": self.count.clone()}


def test_a_metric_of_ones_own_needs_no_more_than_update_and_compute():
    metric = Count(["a"])
    metric.update([0], [0])
    metric.add_infos([ImageInfo("x.png", SIZE)])
    assert metric.compute() == {"count": 1}
    assert metric.image_ids() == ["x.png"]
    with pytest.raises(UsageError, match=r"^Count cannot be drawn again .* give it a method redraw\(rows\)$"):
        metric.redraw([0])
    joint = MultiTaskMetric(["a/x"], {"a": metric})
    joint.update([MultiTaskPrediction({"a": 0})], [MultiTaskTarget({"a": 0})])
    assert joint.compute() == {"combined": 2, "a/count": 2}
    with pytest.raises(UsageError, match="^Count cannot be drawn again"):
        joint.redraw([0])
    with pytest.raises(UsageError, match="^head a: Count does not keep what each image adds$"):
        joint.arrays()


# ---- several processes


def test_the_order_of_one_process():
    for count in range(8):
        for processes in (1, 2, 3):
            shares = [list(range(rank, count, processes)) for rank in range(processes)]
            joined = np.array([k for share in shares for k in share], int)
            assert joined[order_of_images([len(s) for s in shares])].tolist() == list(range(count))


COUNTS = (9, 8, 1, 0)
ROWS = [7, 0, 0, 3, 7, 7]


def compute_on_rank(rank, port, queue):
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    results = {}
    for kind in KINDS:
        for count in COUNTS:
            data = images(kind, count)
            metric = KINDS[kind][0]()
            for k in range(rank, count, 2):
                metric.update(*([v] for v in data[k]))
                metric.add_infos([ImageInfo(f"{k}.png", SIZE)])
            results[kind, count] = plain(metric.compute()), metric.image_ids()
            if count == 1:
                metric.reset()
                if rank == 1:  # the first has none
                    metric.update(*zip(*images(kind, 3), strict=True))
                results[kind, "second"] = plain(metric.compute())
            if count == 9:
                if rank == 1:  # one process draws on its own
                    results[kind, "drawn"] = plain(metric.redraw(ROWS))
                if rank == 0:  # after more images on one process alone, all count once
                    metric.update(*([v] for v in images(kind, 1, 5)[0]))
                results[kind, "more"] = plain(metric.compute())
    queue.put((rank, results))
    dist.barrier()
    dist.destroy_process_group()


def test_two_processes_equal_one_bit_by_bit(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    if os.path.exists("/sys/class/net/lo"):
        monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    context = mp.get_context("spawn")
    queue = context.Queue()
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    workers = [context.Process(target=compute_on_rank, args=(rank, port, queue), daemon=True) for rank in (0, 1)]
    for w in workers:
        w.start()
    got = dict(queue.get(timeout=120) for _ in workers)
    for w in workers:
        w.join(60)
        assert w.exitcode == 0
    for kind in KINDS:
        for count in COUNTS:
            alone = made(kind, images(kind, count))
            expected = plain(alone.compute()), [f"{k}.png" for k in range(count)]
            assert got[0][kind, count] == got[1][kind, count] == expected, (kind, count)
        assert got[0][kind, "second"] == plain(made(kind, images(kind, 3)).compute()), kind
        nine = made(kind, images(kind, 9))
        assert got[1][kind, "drawn"] == plain(nine.redraw(ROWS)), kind
        ten = made(kind, images(kind, 9) + images(kind, 1, 5))
        assert got[0][kind, "more"] == got[1][kind, "more"] == plain(ten.compute()), kind
