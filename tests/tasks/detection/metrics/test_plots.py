import csv

import pytest
import torch

from visionkit.tasks.detection.metrics import plots
from visionkit.tasks.detection.metrics.error_types import ERROR_TYPES
from visionkit.tasks.detection.metrics.metric import DetectionMetric
from visionkit.tasks.detection.types import BoxPrediction, BoxTarget


def measured(k, classes=None):
    """A metric of k classes after 2 objects a class, each found once."""
    metric = DetectionMetric(classes or [f"class {i}" for i in range(k)])
    labels = torch.arange(k).repeat(2)
    corner = torch.arange(2 * k, dtype=torch.float32)[:, None] * 30
    boxes = torch.cat([corner, corner + 20], 1).index_select(1, torch.tensor([0, 0, 1, 1]))
    found = labels.clone()
    found[0] = k - 1
    metric.update([BoxPrediction(boxes, torch.linspace(0.9, 0.4, 2 * k), found)], [BoxTarget.make(boxes, labels)])
    return metric, metric.compute()


@pytest.mark.parametrize("k", [2, 14, 90, 130])
def test_all_pictures_are_written(k, tmp_path):
    classes = ['a, $b$ "c"', "日本", *(f"class {i}" for i in range(k))][:k]
    metric, values = measured(k, classes)
    folder = tmp_path / "new"
    paths = metric.plot(values, folder, "val_")
    assert [p.name for p in paths] == [
        "val_confusion_matrix.png", "val_confusion_matrix.csv", "val_pr_curves.png", "val_error_types.png",
    ]  # fmt: skip
    assert sorted(folder.iterdir()) == sorted(paths), "nothing temporary is left"
    assert all(p.read_bytes().startswith(b"\x89PNG") for p in paths if p.suffix == ".png")
    with paths[1].open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    assert header[1:] == [*classes, "(background)"] == [r[0] for r in rows]
    assert [[int(c) for c in r[1:]] for r in rows] == values["confusion_matrix"].tolist()


def drawn(monkeypatch):
    figures = {}
    monkeypatch.setattr(plots, "save_figure", lambda figure, path: figures.update({path.name: figure}))
    return figures


def test_the_legend_names_each_class_with_its_precision(tmp_path, monkeypatch):
    figures = drawn(monkeypatch)
    metric, values = measured(2, ["cat", "dog"])
    metric.plot(values, tmp_path, "")
    (legend,) = figures["pr_curves.png"].legends
    mean = (values["ap_50/cat"] + values["ap_50/dog"]) / 2
    assert [t.get_text() for t in legend.get_texts()] == [
        f"cat  {values['ap_50/cat']:.3f}", f"dog  {values['ap_50/dog']:.3f}", f"all 2 classes  {mean:.3f}",
    ]  # fmt: skip
    *curves, last = figures["pr_curves.png"].axes[0].lines
    for curve, expected in zip([*curves, last], [*values["pr_curve"], values["pr_curve"].mean(0)], strict=True):
        assert list(curve.get_ydata()) == pytest.approx(expected.tolist())


def test_of_many_classes_the_most_frequent_are_drawn(tmp_path, monkeypatch):
    figures = drawn(monkeypatch)
    curves = {f"class {i}": torch.rand(101) for i in range(20)}
    frequency = {name: (i * 7) % 20 for i, name in enumerate(curves)}
    plots.write_curves(curves, torch.linspace(0, 1, 101), dict.fromkeys(curves, 0.5), frequency, tmp_path, "")
    texts = [t.get_text().partition("  ")[0] for t in figures["pr_curves.png"].legends[0].get_texts()]
    assert [frequency[t] for t in texts[:-1]] == list(range(19, 7, -1))
    assert texts[-1] == "all 20 classes"
    colours = {line.get_color() for line in figures["pr_curves.png"].axes[0].lines}
    assert len(colours) == 13


def test_each_kind_of_error_has_its_bar(tmp_path, monkeypatch):
    figures = drawn(monkeypatch)
    errors = {kind: 3 * i for i, kind in enumerate(ERROR_TYPES)}
    plots.write_errors(errors, tmp_path, "", score=0.3)
    axes = figures["error_types.png"].axes[0]
    assert [bar.get_width() for bar in axes.patches] == list(errors.values())
    labels = [t.get_text() for t in axes.get_yticklabels()]
    assert [t.partition("\n")[0].replace(" ", "_") for t in labels] == list(ERROR_TYPES)


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_nothing_to_plot(tmp_path):
    metric = DetectionMetric(["a"])
    assert metric.plot(metric.compute(), tmp_path / "no", "") == []
    assert not (tmp_path / "no").exists()


def test_without_any_object_there_are_no_curves(tmp_path):
    metric = DetectionMetric(["a"])
    metric.update([BoxPrediction(torch.empty(0, 4), torch.empty(0), torch.empty(0).long())], [BoxTarget.make([], [])])
    paths = metric.plot(metric.compute(), tmp_path, "")
    assert [p.name for p in paths] == ["confusion_matrix.png", "confusion_matrix.csv", "error_types.png"]
