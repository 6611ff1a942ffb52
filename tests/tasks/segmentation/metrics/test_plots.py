import pytest
from matplotlib.figure import Figure
from PIL import Image

from visionkit.tasks.segmentation.metrics.plots import write_class_iou


@pytest.fixture
def drawn(tmp_path, monkeypatch, recwarn):
    """Draw scores and return the figure's only panel; nothing may stick out of the picture."""

    def draw(scores, shares, mean=0.5):
        figures, save = [], Figure.savefig
        monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: (figures.append(self), save(self, *a, **k))[1])
        (path,) = write_class_iou(scores, shares, tmp_path / "new", "test_", mean=mean)
        assert path == tmp_path / "new" / "test_class_iou.png"
        assert list(path.parent.iterdir()) == [path]
        with Image.open(path) as picture:
            assert picture.format == "PNG"
        assert not [str(w.message) for w in recwarn]
        (figure,) = figures
        (axes,) = figure.axes
        whole = figure.get_window_extent()
        for text in [*axes.texts, *axes.get_yticklabels(), *axes.get_xticklabels()]:
            box = text.get_window_extent()
            assert whole.x0 <= box.x0, text
            assert box.x1 <= whole.x1, text
            assert whole.y0 <= box.y0, text
            assert box.y1 <= whole.y1, text
        return axes

    return draw


def rows(axes):
    """Name and the three numbers of each row, from above."""
    texts = [t.get_text() for t in axes.texts]
    numbers = [tuple(texts[i : i + 3]) for i in range(0, len(texts) - 3, 3)]
    assert texts[-3:] == ["IoU", "Dice", "pixels"]
    return [(label.get_text(), *n) for label, n in zip(axes.get_yticklabels(), numbers, strict=True)]


def test_best_class_first_with_its_numbers(drawn):
    scores = {"pole": (0.25, 0.4), "road": (0.875, 0.9333), "ghost": (0.0, 0.0)}
    axes = drawn(scores, {"pole": 0.00004, "road": 0.75, "ghost": 0.0, "absent": 0.0}, mean=0.375)
    assert rows(axes) == [
        ("road", "0.875", "0.933", "75.00%"),
        ("pole", "0.250", "0.400", "< 0.01%"),
        ("ghost", "0.000", "0.000", "none"),
    ]
    assert [bar.get_width() for bar in axes.patches] == [0.875, 0.25, 0]
    assert axes.lines[0].get_xdata().tolist() == [0.9333, 0.4, 0]
    assert axes.lines[1].get_xdata() == [0.375, 0.375]
    assert axes.get_xlim() == (0, 1)


@pytest.mark.parametrize("k", [1, 2, 130, 255])
def test_all_classes_are_named(drawn, k):
    names = [f"$x{i}" for i in range(k - 1)] + ["a name of a class that is much too long to be shown"]
    axes = drawn(dict.fromkeys(names, (0.5, 0.6)), dict.fromkeys(names, 1 / k))
    found = [row[0] for row in rows(axes)]
    assert found == [*names[:-1], "a name of a class that …"]
    heights = [t.get_window_extent().height for t in axes.get_yticklabels()]
    places = [t.get_window_extent().y0 for t in axes.get_yticklabels()]
    assert all(a - b > max(heights) for a, b in zip(places, places[1:], strict=False)), "lines do not touch"
