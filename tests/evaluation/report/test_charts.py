"""Charts: where points lie, round numbers on axes."""

import re

import pytest

from visionkit.evaluation.report.charts import HEIGHT, LEFT, MOST, RIGHT, TOP, WIDTH, Line, chart, interval, ticks
from visionkit.evaluation.report.marks import Number


@pytest.mark.parametrize(
    ("ends", "numbers"),
    [((0, 1), [0, 0.2, 0.4, 0.6, 0.8, 1.0]), ((1, 9), [2, 4, 6, 8]), ((0.31, 0.34), [0.31, 0.32, 0.33, 0.34]),
     ((-5, 5), [-4, -2, 0, 2, 4]), ((3, 3), [3])],
)  # fmt: skip
def test_round_numbers(ends, numbers):
    found = ticks(*ends)
    if ends == (0.31, 0.34):
        assert found[0] == pytest.approx(0.31)
        assert len(found) >= 4
    else:
        assert found == pytest.approx(numbers)


def test_whole_numbers_alone():
    assert ticks(1, 3, whole=True) == [1, 2, 3]


def test_points_lie_where_they_should():
    spans = ((0.0, 1.0), (0.0, 1.0))
    text = chart("a", [Line("b", [(0.0, 0.0), (1.0, 1.0), (0.5, 0.25)])], x="x", y="y", spans=spans)
    d = re.search(r'class="line0" d="M([^"]+)"/>', str(text).split("legend")[0])[1]
    bottom = HEIGHT - 36
    assert [tuple(map(float, p.split())) for p in d.split("L")] == [
        (LEFT, bottom), (WIDTH - RIGHT, TOP), ((LEFT + WIDTH - RIGHT) / 2, pytest.approx(bottom - (bottom - TOP) / 4)),
    ]  # fmt: skip


def test_long_lines_are_thinned_and_keep_their_ends():
    points = [(k / 999, (k / 999) ** 2) for k in range(1000)]
    text = str(chart("a", [Line("b", points)], x="x", y="y", spans=((0.0, 1.0), (0.0, 1.0))))
    d = re.search(r'class="line0" d="M([^"]+)"/><', text)[1].split("L")
    assert len(d) <= MOST + 2
    assert d[-1] == f"{WIDTH - RIGHT} {TOP}"
    assert "<circle" not in text


def test_one_point_and_none():
    assert "circle" in chart("a", [Line("b", [(1, 2)])], x="x", y="y")
    assert chart("a", [Line("b", [])], x="x", y="y") == ""


def test_names_are_text():
    text = chart("<b>", [Line("</svg>", [(0, 0), (1, 1)])], x="<i>", y="&")
    assert "<b>" not in text
    assert "<i>" not in text
    assert text.count("</svg>") == 2  # its own, and that of the legend


def test_an_interval():
    ends = [Number(v, "k", "score") for v in (0.5, 0.25, 0.75)]
    assert 'd="M27 6H77"' in interval(*ends)
    assert 'cx="52"' in interval(*ends)
    assert interval(Number(7, "k"), None, None) == ""
