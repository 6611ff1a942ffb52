import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from visionkit.core.errors import UsageError
from visionkit.tasks.detection.metrics.error_types import ERROR_TYPES
from visionkit.tasks.detection.metrics.metric import DetectionMetric
from visionkit.tasks.detection.types import BoxPrediction, BoxTarget

AB = ["a", "b"]
BOX = [100.0, 100, 200, 200]
NEAR = [100.0, 100, 200, 260]  # overlap 0.625
HALF = [150.0, 100, 250, 200]  # overlap 1/3
FAR = [400.0, 400, 500, 500]

CASES = {
    "right": ([BOX], [0], [BOX], [0], [[1, 0, 0], [0, 0, 0], [0, 0, 0]], {}),
    "missed": ([BOX], [1], [], [], [[0, 0, 0], [0, 0, 1], [0, 0, 0]], {"missed": 1}),
    "confused": ([BOX], [0], [NEAR], [1], [[0, 1, 0], [0, 0, 0], [0, 0, 0]], {"confused": 1}),
    "poorly localised": ([BOX], [0], [HALF], [0], [[0, 0, 1], [0, 0, 0], [1, 0, 0]], {"poorly_localised": 1}),
    "both": ([BOX], [0], [HALF], [1], [[0, 0, 1], [0, 0, 0], [0, 1, 0]], {"both": 1, "missed": 1}),
    "duplicate": ([BOX], [0], [BOX, NEAR], [0, 0], [[1, 0, 0], [0, 0, 0], [1, 0, 0]], {"duplicate": 1}),
    "background": ([BOX], [0], [BOX, FAR], [0, 1], [[1, 0, 0], [0, 0, 0], [0, 1, 0]], {"background": 1}),
    "background alone": ([], [], [FAR], [1], [[0, 0, 0], [0, 0, 0], [0, 1, 0]], {"background": 1}),
    "another class beside the right one": (
        [BOX], [0], [BOX, NEAR], [0, 1], [[1, 0, 0], [0, 0, 0], [0, 1, 0]], {"confused": 1},
    ),
    "the right class wins over a stronger wrong one": (
        [BOX], [0], [BOX, NEAR], [1, 0], [[1, 0, 0], [0, 0, 0], [0, 1, 0]], {"confused": 1},
    ),
    "the nearest is taken": (
        [BOX, NEAR], [0, 0], [NEAR, BOX], [0, 0], [[2, 0, 0], [0, 0, 0], [0, 0, 0]], {},
    ),
    "one place, two classes": (
        [BOX, BOX], [0, 1], [BOX], [1], [[0, 0, 1], [0, 1, 0], [0, 0, 0]], {"missed": 1},
    ),
}  # fmt: skip


def prediction(boxes, scores, labels):
    return BoxPrediction(
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        torch.tensor(scores, dtype=torch.float32),
        torch.tensor(labels, dtype=torch.int64),
    )


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_confusions_and_errors_by_hand(case):
    truth, truth_labels, found, labels, matrix, errors = case
    metric = DetectionMetric(AB)
    scores = [0.9 - 0.1 * i for i in range(len(found))]
    metric.update([prediction(found, scores, labels)], [BoxTarget.make(truth, truth_labels)])
    values = metric.compute()
    assert values["confusion_matrix"].dtype == torch.int64
    assert values["confusion_matrix"].tolist() == matrix
    assert {k: int(values[f"errors/{k}"]) for k in ERROR_TYPES if values[f"errors/{k}"]} == errors
    hits = sum(matrix[i][i] for i in range(2))
    assert values["precision"].item() == pytest.approx(hits / max(1, len(found)))
    assert values["recall"].item() == pytest.approx(hits / max(1, len(truth)))
    assert values["f1"].item() == pytest.approx(2 * hits / (len(found) + len(truth)))


def test_the_score_decides_who_chooses_first_whatever_the_order():
    """The strong one has one object in reach, the weak one two."""
    strong = [100.0, 60, 200, 180]  # overlaps of 0.57 with BOX and 0.4 with NEAR
    metric = DetectionMetric(AB)
    metric.update([prediction([BOX, strong], [0.4, 0.8], [0, 0])], [BoxTarget.make([BOX, NEAR], [0, 0])])
    assert metric.compute()["recall"] == 1


def test_thresholds():
    truth = [BoxTarget.make([BOX], [0])]

    def errors(found, score, **settings):
        metric = DetectionMetric(AB, **settings)
        metric.update([prediction([found], [score], [0])], truth)
        values = metric.compute()
        return values["recall"].item(), {k for k in ERROR_TYPES if values[f"errors/{k}"]}

    assert errors(BOX, 0.3) == (1, set()), "the threshold itself counts"
    assert errors(BOX, 0.299) == (0, {"missed"})
    assert errors(BOX, 0.299, score_threshold=0.1) == (1, set())
    assert errors(NEAR, 0.9, iou_threshold=0.625) == (1, set())
    assert errors(NEAR, 0.9, iou_threshold=0.63) == (0, {"poorly_localised"})
    for name, value in (
        ("score_threshold", -0.1),
        ("score_threshold", 1.1),
        ("iou_threshold", 0.1),
        ("iou_threshold", 2),
    ):
        with pytest.raises(UsageError, match=name):
            DetectionMetric(AB, **{name: value})


def test_crowds_are_neither_asked_for_nor_wrong_to_find():
    metric = DetectionMetric(AB)
    truth = BoxTarget.make([[0, 0, 300, 300], FAR], [0, 1], [True, False])
    found = [[10, 10, 60, 60], [20, 20, 90, 90], [250, 250, 400, 400], [30, 30, 80, 80], FAR]
    metric.update([prediction(found, [0.9, 0.8, 0.7, 0.6, 0.5], [0, 0, 0, 1, 1])], [truth])
    values = metric.compute()
    assert values["confusion_matrix"].tolist() == [[0, 0, 0], [0, 1, 0], [1, 1, 0]], "half outside, or another class"
    assert int(values["errors/background"]) == 2
    assert int(values["errors/missed"]) == 0
    assert "ap/a" not in values


def random_data(images, k, seed, levels):
    """Objects, some of them crowds, and detections near them, of another class, twice, and out of nowhere."""
    g = torch.Generator().manual_seed(seed)
    data = []
    for _ in range(images):
        n = int(torch.randint(0, 9, (), generator=g))
        corner = torch.rand(n, 2, generator=g) * 120
        boxes = torch.cat([corner, corner + 10 + 60 * torch.rand(n, 2, generator=g)], 1)
        labels = torch.randint(k, (n,), generator=g)
        target = BoxTarget.make(boxes, labels, torch.rand(n, generator=g) < 0.15)
        near = torch.cat([boxes, boxes, torch.rand(4, 4, generator=g) * 60 + torch.tensor([0, 0, 61.0, 61])])
        near = near + 5 * torch.randn(near.shape, generator=g)
        other = torch.randint(k, (len(near),), generator=g)
        kinds = torch.where(torch.rand(len(near), generator=g) < 0.3, other, torch.cat([labels, labels, other[:4]]))
        scores = torch.rand(len(near), generator=g)
        scores = (scores * levels).ceil() / levels if levels else scores
        near[:, 2:] = torch.maximum(near[:, 2:], near[:, :2] + 1)
        data.append((BoxPrediction(near, scores, kinds), target))
    return data


def overlap_of(a, b, share=False):
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    common = max(width, 0) * max(height, 0)
    own, other = (a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1])
    return common / (own if share else own + other - common)


def take_turns(detections, objects, allowed, threshold):
    """Each detection in turn takes the free object that it overlaps most."""
    free, pairs = set(range(len(objects))), {}
    for i, (box, label, _) in enumerate(detections):
        options = [(overlap_of(box, objects[j][0]), -j) for j in free if allowed(label, objects[j][1], i, j)]
        best = max(options, default=(0, 0))
        if best[0] >= threshold:
            pairs[i] = -best[1]
            free.remove(-best[1])
    return pairs


def by_loops(prediction, target, k, score, threshold):
    """The documented rules, an image and a detection at a time."""
    matrix, kinds = torch.zeros(k + 1, k + 1, dtype=torch.int64), dict.fromkeys(ERROR_TYPES, 0)
    rows = zip(prediction.boxes.tolist(), prediction.labels.tolist(), prediction.scores.tolist(), strict=True)
    detections = sorted((r for r in rows if r[2] >= torch.tensor(score)), key=lambda r: -r[2])
    everything = list(zip(target.boxes.tolist(), target.labels.tolist(), target.crowd.tolist(), strict=True))
    objects = [(b, c) for b, c, crowd in everything if not crowd]
    crowds = [(b, c) for b, c, crowd in everything if crowd]
    right = take_turns(detections, objects, lambda a, b, i, j: a == b, threshold)
    in_crowd = {
        i
        for i, (box, label, _) in enumerate(detections)
        if any(c == label and overlap_of(box, b, share=True) >= threshold for b, c in crowds)
    }
    wrong = set(range(len(detections))) - set(right) - in_crowd
    taken = set(right.values())
    mixed = take_turns(detections, objects, lambda a, b, i, j: i in wrong and j not in taken, threshold)
    for i, j in (right | mixed).items():
        matrix[objects[j][1], detections[i][1]] += 1
    for i in wrong - set(mixed):
        matrix[k, detections[i][1]] += 1
    for j in set(range(len(objects))) - taken - set(mixed.values()):
        matrix[objects[j][1], k] += 1
    explained = set(taken)
    for i in wrong:
        box, label, _ = detections[i]
        near = [(overlap_of(box, b), -j, c == label) for j, (b, c) in enumerate(objects)]
        own, other = (max((n for n in near if n[2] is same), default=(0, 0, same)) for same in (True, False))
        if 0.1 <= own[0] < threshold:
            kinds["poorly_localised"] += 1
            explained.add(-own[1])
        elif other[0] >= threshold:
            kinds["confused"] += 1
            explained.add(-other[1])
        elif own[0] >= threshold:
            kinds["duplicate"] += 1
        else:
            kinds["both" if other[0] >= 0.1 else "background"] += 1
    kinds["missed"] += len(objects) - len(explained)
    return matrix, kinds


@settings(max_examples=30)
@given(seed=st.integers(0, 2**20), images=st.integers(1, 6), levels=st.sampled_from([0, 3, 20]))
@pytest.mark.parametrize("threshold", [0.5, 0.75])
def test_random_data_against_loops(threshold, seed, images, levels):
    data = random_data(images, 3, seed, levels=levels)
    metric = DetectionMetric(["a", "b", "c"], iou_threshold=threshold)
    metric.update(*zip(*data, strict=True))
    values = metric.compute()
    matrix, kinds = torch.zeros(4, 4, dtype=torch.int64), dict.fromkeys(ERROR_TYPES, 0)
    for prediction, target in data:
        part, some = by_loops(prediction, target, 3, 0.3, threshold)
        matrix += part
        kinds = {name: count + some[name] for name, count in kinds.items()}
    assert torch.equal(values["confusion_matrix"], matrix)
    assert {name: int(values[f"errors/{name}"]) for name in ERROR_TYPES} == kinds
