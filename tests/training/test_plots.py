import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from visionkit.training.plots import draw_learning_curves, write_confusion_matrix


@pytest.fixture
def drawn(tmp_path, monkeypatch, recwarn):
    """Draw rows and return the lines of each panel: title -> label -> points."""

    def draw(rows, monitor="val/top1"):
        figures, save = [], Figure.savefig
        monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: (figures.append(self), save(self, *a, **k))[1])
        path = tmp_path / "new" / "curves.png"
        draw_learning_curves(rows, path, monitor=monitor)
        with Image.open(path) as picture:
            assert picture.format == "PNG"
            assert picture.width > 2 * picture.height > 400
        assert [p.name for p in path.parent.iterdir()] == ["curves.png"]
        assert not [str(w.message) for w in recwarn]
        (figure,) = figures
        return {a.get_title(): {x.get_label(): x.get_xydata().tolist() for x in a.lines} for a in figure.axes}

    return draw


def row(epoch, **more):
    return {"epoch": epoch, "train/loss": 1 / epoch, "val/loss": 2 / epoch, "val/top1": 0.5, "lr": 0.1, **more}


def test_one_epoch(drawn):
    assert drawn([row(1)]) == {
        "loss": {"train/loss": [[1, 1]], "val/loss": [[1, 2]]},
        "val/top1": {"val/top1": [[1, 0.5]]},
        "learning rate": {"lr": [[1, 0.1]]},
    }


def test_many_epochs(drawn):
    panels = drawn([row(k) for k in range(1, 301)])
    assert panels["loss"]["val/loss"] == [[k, 2 / k] for k in range(1, 301)]


def test_values_that_are_missing_leave_gaps(drawn):
    rows = [row(1), {"epoch": 2, "train/loss": 0.5, "lr": 0.1}, row(3)]
    panels = drawn(rows)
    assert [x for x, _ in panels["val/top1"]["val/top1"]] == [1, 3]
    assert [x for x, _ in panels["loss"]["train/loss"]] == [1, 2, 3]


@pytest.mark.parametrize(
    "rows", [[], [{"epoch": 1}], [{"epoch": 1, "lr": 0.1}], [{"epoch": 1, "val/loss": float("nan")}]]
)
def test_keys_that_no_row_has_leave_a_panel_empty(drawn, rows):
    panels = drawn(rows)
    assert list(panels) == ["loss", "val/top1", "learning rate"]
    assert panels["val/top1"] == {}


def test_the_monitored_metric_is_the_tasks(drawn):
    panels = drawn([row(1) | {"val/map": 0.25}], monitor="val/map")
    assert panels["val/map"] == {"val/map": [[1, 0.25]]}


@pytest.mark.parametrize(
    ("counts", "cells"),
    [
        ([[9999, 1], [0, 3]], {"9999", "1", "3"}),
        ([[12_345_000, 54_900], [0, 3]], {"100%"}),  # 54,900 are 0.44 %
        ([[9950, 10_050], [200, 0]], {"50%", "100%"}),
    ],
)
def test_cells_hold_counts_or_where_these_are_too_large_percents(counts, cells, tmp_path, monkeypatch):
    figures, save = [], Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: (figures.append(self), save(self, *a, **k))[1])
    picture, table = write_confusion_matrix(torch.tensor(counts), ["a", "b"], tmp_path, "", title="title")
    assert {t.get_text() for t in figures[0].axes[0].texts} == cells
    with Image.open(picture) as drawn:
        assert drawn.format == "PNG"
    lines = [line.split(",")[1:] for line in table.read_text().splitlines()[1:]]
    assert [[int(c) for c in line] for line in lines] == counts


@pytest.mark.parametrize("k", [2, 11, 24])
def test_nothing_of_a_confusion_matrix_is_cut_off(k, tmp_path, monkeypatch):
    figures, save = [], Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: (figures.append(self), save(self, *a, **k))[1])
    names = [f"name of class {i}" for i in range(k)]
    write_confusion_matrix(torch.full((k, k), 20_000), names, tmp_path, "", title="title")
    whole = figures[0].get_window_extent()
    for axes in figures[0].axes:
        box = axes.get_tightbbox()
        assert whole.x0 <= box.x0 < box.x1 <= whole.x1
        assert whole.y0 <= box.y0 < box.y1 <= whole.y1
