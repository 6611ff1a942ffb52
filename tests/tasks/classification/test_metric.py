import csv
import pickle

import numpy as np
import pytest
import sklearn.metrics
import torch
import torch.nn.functional as F

from visionkit.core.errors import UsageError
from visionkit.tasks.classification.metric import ClassificationMetric, average_precision
from visionkit.tasks.classification.types import ClassPrediction, ClassTarget


def names(k):
    return [f"class {i}" for i in range(k)]


def one_label(n, k, seed=0, absent=()):
    """Random probabilities that are right more often than not, and one-hot truth."""
    g = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, k, (n,), generator=g)
    for a in absent:
        labels[labels == a] = (a + 1) % k
    logits = torch.randn(n, k, generator=g) + 1.5 * F.one_hot(labels, k)
    return logits.softmax(1), F.one_hot(labels, k).float()


def several_labels(n, k, seed=0):
    g = torch.Generator().manual_seed(seed)
    truth = (torch.rand(n, k, generator=g) < 0.3).float()
    probabilities = (torch.randn(n, k, generator=g) + truth).sigmoid()
    return (probabilities * 20).round() / 20, truth  # many equal probabilities


def feed(metric, probabilities, scores, batch=7):
    for p, s in zip(probabilities.split(batch), scores.split(batch), strict=True):
        metric.update([ClassPrediction(x, metric.multilabel) for x in p], [ClassTarget(x) for x in s])
    return metric


def by_hand_ece(confidence, hits, bins):
    total = 0.0
    for i in range(bins):
        inside = (confidence > i / bins) & (confidence <= (i + 1) / bins)
        if inside.any():
            total += inside.mean() * abs(hits[inside].mean() - confidence[inside].mean())
    return total


@pytest.mark.parametrize("k", [2, 4, 9])
def test_one_label_against_scikit_learn(k):
    probabilities, scores = one_label(150, k, absent=(1,) if k > 2 else ())
    values = feed(ClassificationMetric(names(k)), probabilities, scores).compute()
    truth, predicted = scores.argmax(1).numpy(), probabilities.argmax(1).numpy()
    assert values["top1"].item() == pytest.approx(sklearn.metrics.accuracy_score(truth, predicted))
    assert values["macro_f1"].item() == pytest.approx(sklearn.metrics.f1_score(truth, predicted, average="macro"))
    matrix = sklearn.metrics.confusion_matrix(truth, predicted, labels=range(k))
    assert values["confusion_matrix"].dtype == torch.int64
    assert np.array_equal(values["confusion_matrix"].numpy(), matrix)
    assert ("top5" in values) == (k > 5)
    if k > 5:
        top5 = sklearn.metrics.top_k_accuracy_score(truth, probabilities.numpy(), k=5, labels=range(k))
        assert values["top5"].item() == pytest.approx(top5)
    recalls = sklearn.metrics.recall_score(truth, predicted, average=None, labels=range(k), zero_division=0)
    for i, name in enumerate(names(k)):
        assert (f"accuracy/{name}" in values) == (i in truth)
        if i in truth:
            assert values[f"accuracy/{name}"].item() == pytest.approx(recalls[i])
    ece = by_hand_ece(probabilities.max(1).values.numpy(), (truth == predicted).astype(float), 15)
    assert values["ece"].item() == pytest.approx(ece, abs=1e-6)


@pytest.mark.parametrize("k", [2, 6])
def test_several_labels_against_scikit_learn(k):
    probabilities, truth = several_labels(120, k)
    probabilities[:, 1] = 0.01  # a class never predicted ...
    truth[:, 1] = 0  # ... and never present
    values = feed(ClassificationMetric(names(k), multilabel=True), probabilities, truth).compute()
    t, p = truth.numpy(), probabilities.numpy()
    present = [i for i in range(k) if i != 1]
    expected = {i: sklearn.metrics.average_precision_score(t[:, i], p[:, i]) for i in present}
    for i in present:
        assert values[f"ap/class {i}"].item() == pytest.approx(expected[i], abs=1e-6)
    assert "ap/class 1" not in values
    assert values["map"].item() == pytest.approx(np.mean(list(expected.values())), abs=1e-6)
    assert values["micro_f1"].item() == pytest.approx(sklearn.metrics.f1_score(t, p >= 0.5, average="micro"))
    macro = sklearn.metrics.f1_score(t, p >= 0.5, average="macro", labels=present)
    assert values["macro_f1"].item() == pytest.approx(macro)
    assert values["ece"].item() == pytest.approx(by_hand_ece(p.ravel(), t.ravel(), 15), abs=1e-6)
    assert all(v.ndim == 0 and torch.isfinite(v) for v in values.values())


def test_values_by_hand():
    metric = ClassificationMetric(["a", "b"], bins=2)
    probabilities = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.3, 0.7]])
    feed(metric, probabilities, torch.tensor([[1.0, 0], [0, 1.0], [0, 1.0], [0, 1.0]]))
    values = metric.compute()
    assert values["confusion_matrix"].tolist() == [[1, 0], [1, 2]]
    assert values["top1"].item() == pytest.approx(3 / 4)
    assert values["accuracy/a"].item() == 1
    assert values["accuracy/b"].item() == pytest.approx(2 / 3)
    assert values["macro_f1"].item() == pytest.approx((2 / 3 + 4 / 5) / 2)
    assert values["ece"].item() == pytest.approx(abs(0.75 - (0.9 + 0.6 + 0.8 + 0.7) / 4), abs=1e-7)


def test_average_precision_by_hand():
    probabilities = torch.tensor([[0.9, 0.5, 0.1], [0.8, 0.5, 0.2], [0.7, 0.5, 0.3]])
    truth = torch.tensor([[1, 1, 0], [0, 0, 0], [1, 1, 0]]).bool()
    a, tied, absent = average_precision(probabilities, truth).tolist()
    assert a == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert tied == pytest.approx(2 / 3)
    assert np.isnan(absent)


def test_thresholds_of_the_predictions_count():
    metric = ClassificationMetric(["a"], multilabel=True)
    metric.update([ClassPrediction(torch.tensor([0.4]), True, threshold=0.3)], [ClassTarget(torch.ones(1))])
    assert metric.compute()["micro_f1"].item() == 1


def test_monitor_names_a_value():
    for metric, data in (
        (ClassificationMetric(names(3)), one_label(9, 3)),
        (ClassificationMetric(names(3), multilabel=True), several_labels(9, 3)),
    ):
        assert metric.monitor in feed(metric, *data).compute()
        assert metric.monitor_mode == "max"


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
@pytest.mark.parametrize("multilabel", [False, True])
def test_nothing_seen_gives_nothing(multilabel):
    metric = ClassificationMetric(names(3), multilabel=multilabel)
    assert metric.compute() == {}
    metric.update([], [])
    assert metric.compute() == {}
    data = (several_labels if multilabel else one_label)(9, 3)
    assert feed(metric, *data).compute()
    metric.reset()
    assert metric.compute() == {}


def test_no_positive_at_all_is_finite():
    metric = feed(ClassificationMetric(names(2), multilabel=True), torch.full((4, 2), 0.1), torch.zeros(4, 2))
    assert {k: v.item() for k, v in metric.compute().items()} == pytest.approx(
        {"map": 0, "micro_f1": 0, "macro_f1": 0, "ece": 0.1}
    )


def test_nan_probabilities_do_not_break_the_sums():
    metric = ClassificationMetric(names(2))
    metric.update([ClassPrediction(torch.full((2,), float("nan")))], [ClassTarget(torch.tensor([1.0, 0]))])
    values = metric.compute()
    assert values.pop("confusion_matrix").tolist() == [[0, 1], [0, 0]], "never right"
    assert {k: v.item() for k, v in values.items()} == {"top1": 0, "macro_f1": 0, "ece": 0, "accuracy/class 0": 0}


def test_wrong_numbers_are_refused():
    metric = ClassificationMetric(names(3))
    with pytest.raises(UsageError, match="2 predictions for 1"):
        metric.update([ClassPrediction(torch.ones(3))] * 2, [ClassTarget(torch.ones(3))])
    with pytest.raises(UsageError, match="3 classes, the predictions have 4"):
        metric.update([ClassPrediction(torch.ones(4))], [ClassTarget(torch.ones(3))])
    with pytest.raises(UsageError, match="bins"):
        ClassificationMetric(names(3), bins=0)


@pytest.mark.parametrize("multilabel", [False, True])
def test_order_and_batches_do_not_matter(multilabel):
    probabilities, scores = (several_labels if multilabel else one_label)(50, 7)
    order = torch.randperm(50, generator=torch.Generator().manual_seed(1))
    first = feed(ClassificationMetric(names(7), multilabel=multilabel), probabilities, scores).compute()
    metric = ClassificationMetric(names(7), multilabel=multilabel)
    other = feed(pickle.loads(pickle.dumps(metric)), probabilities[order], scores[order], batch=50).compute()
    assert first.keys() == other.keys()
    assert all(torch.allclose(first[k].float(), other[k].float(), atol=1e-7) for k in first)
    assert torch.equal(first["ece"], other["ece"])


# ---- pictures


@pytest.mark.parametrize("k", [2, 5, 60, 130])
def test_confusion_matrix_is_written(k, tmp_path):
    classes = ['a, $b$ "c"', "日本", *names(k)][:k]
    metric = feed(ClassificationMetric(classes), *one_label(200, k))
    values = metric.compute()
    folder = tmp_path / "new"
    paths = metric.plot(values, folder, "val_")
    assert [p.name for p in paths] == ["val_confusion_matrix.png", "val_confusion_matrix.csv"]
    assert sorted(folder.iterdir()) == sorted(paths)  # nothing temporary is left
    assert paths[0].read_bytes().startswith(b"\x89PNG")
    with paths[1].open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    assert header[1:] == classes == [r[0] for r in rows]
    assert [[int(c) for c in r[1:]] for r in rows] == values["confusion_matrix"].tolist()


def test_average_precision_is_drawn(tmp_path):
    metric = feed(ClassificationMetric(names(4), multilabel=True), *several_labels(30, 4))
    (path,) = metric.plot(metric.compute(), tmp_path, "test_")
    assert path.name == "test_average_precision.png"
    assert path.read_bytes().startswith(b"\x89PNG")


def test_nothing_to_plot(tmp_path):
    assert ClassificationMetric(names(3)).plot({}, tmp_path / "no", "") == []
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_probabilities_that_are_not_finite_are_never_right(wrong):
    probabilities = torch.full((6, 6), wrong)
    truth = F.one_hot(torch.arange(6), 6).float()
    values = feed(ClassificationMetric(names(6)), probabilities, truth).compute()
    assert values["top1"] == values["top5"] == values["macro_f1"] == 0
    values = feed(ClassificationMetric(names(6), multilabel=True), probabilities, truth).compute()
    assert values["map"] == values["micro_f1"] == 0


def test_one_image_without_an_answer_is_one_miss():
    probabilities = torch.tensor([[0.9, 0.1], [float("nan"), 0.2], [0.3, 0.7]])
    truth = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    assert feed(ClassificationMetric(names(2)), probabilities, truth).compute()["top1"] == pytest.approx(2 / 3)
    values = feed(ClassificationMetric(names(2), multilabel=True), probabilities, truth).compute()
    assert values["ap/class 0"] == pytest.approx(0.5), "one of its two is never found"
    assert values["ap/class 1"] == 1


def test_resamples_of_many_classes_need_no_table(monkeypatch):
    probabilities, truth = one_label(60, 8)
    metric = ClassificationMetric(names(8))
    feed(metric, probabilities, truth)
    weights = [np.random.default_rng(seed).integers(0, 3, 60) for seed in range(5)]
    with_table = [metric.drawing()(weight) for weight in weights]
    monkeypatch.setattr("visionkit.tasks.classification.metric.LARGE_TABLE", 0)
    monkeypatch.setattr(ClassificationMetric, "values", None)
    assert [metric.drawing()(weight) for weight in weights] == with_table
    assert with_table[0].keys() > {"top1", "top5", "macro_f1", "ece"}
