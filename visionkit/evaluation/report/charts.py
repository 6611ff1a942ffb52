"""Charts as SVG: lines over an axis, and an interval in a row of a table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from visionkit.core.page import escape
from visionkit.evaluation.report.marks import Number, name, say, short
from visionkit.evaluation.report.style import LINES

__all__ = ["Line", "chart", "interval", "swatch", "ticks"]

WIDTH, HEIGHT = 360, 230  # of a chart, in its own units
LEFT, RIGHT, TOP, BOTTOM = 54, 10, 10, 36  # around the panel
MOST = 120
"""Points of a line that are drawn: more would not be seen."""
_DOTTED = 40  # points up to which each has a dot


@dataclass(frozen=True)
class Line:
    """A line of a chart.

    Args:
        label: What it is called.
        points: x and y, in order.
        key: Where they are read, for ``data-key``.
        plain: Whether it is a thin line to compare with, without a place of its own in the legend.
    """

    label: str
    points: Sequence[tuple[float, float]]
    key: str = ""
    plain: bool = False


def chart(
    title: str,
    lines: Sequence[Line],
    *,
    x: str,
    y: str,
    spans: tuple[tuple[float, float] | None, tuple[float, float] | None] = (None, None),
    whole: bool = False,
    dotted: bool = True,
) -> Markup:
    """Return a chart of lines with axes and a legend below it.

    Args:
        title: Stands above it.
        lines: Any number; the first :data:`~visionkit.evaluation.report.style.LINES` are drawn.
        x: What the horizontal axis shows.
        y: The same of the vertical one.
        spans: Ends of the axes; None for those of the points.
        whole: Whether the horizontal axis has whole numbers alone.
        dotted: Whether points have dots, which say their values, where they are few.
    """
    drawn = [line for line in lines if line.points][: LINES + 1]
    if not drawn:
        return Markup("")
    xs, ys = ([p[axis] for line in drawn for p in line.points] for axis in (0, 1))
    panel = _Panel(_span(xs, spans[0]), _span(ys, spans[1]))
    parts = [panel.grid(x, y, whole=whole)]
    legend = []
    number = 0
    for line in drawn:
        if line.plain:
            parts.append(panel.path(line, "plain"))
            continue
        parts.append(panel.path(line, f"line{number}"))
        if len(line.points) <= (_DOTTED if dotted else 1):
            parts.append(panel.dots(line, f"dot{number}"))
        sample = (
            f'<svg class="sample" viewBox="0 0 28 6" aria-hidden="true"><path class="line{number}" d="M0 3H28"/></svg>'
        )
        legend.append(say("<li>" + sample + " {}</li>", name(line.label)))
        number += 1
    told = f"{title}: {', '.join(short(line.label) for line in drawn if not line.plain)}; {x} and {y}"
    return say(
        '<div class="chart"><h3>{}</h3><svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>'
        '<ul class="legend">{}</ul></div>',
        title, str(WIDTH), str(HEIGHT), told, Markup("").join(parts), Markup("").join(legend),
    )  # fmt: skip


def interval(value: Number | None, low: Number | None, high: Number | None, *, most: float = 1.0) -> Markup:
    """Return a value with its interval as a small picture of a line from 0 to ``most``."""
    if value is None or not 0 <= value.value <= most:
        return Markup("")
    place = [round(100 * v.value / most, 1) for v in (low or value, value, high or value)]
    low_at, at, high_at = (min(max(p, 0.0), 100.0) for p in place)
    return say(
        '<svg class="interval" viewBox="0 0 104 12" aria-hidden="true"><path class="axis" d="M2 6H102"/>'
        '<path class="range" d="M{} 6H{}"/><circle class="dot0" cx="{}" cy="6" r="3.5"/></svg>',
        f"{2 + low_at:g}", f"{2 + high_at:g}", f"{2 + at:g}",
    )  # fmt: skip


def swatch(colour: tuple[int, int, int]) -> Markup:
    """Return a small square of a colour, RGB."""
    code = "#{:02x}{:02x}{:02x}".format(*colour)
    return say(
        '<svg class="swatch" viewBox="0 0 10 10" aria-hidden="true"><rect width="10" height="10" fill="{}"/></svg>',
        code,
    )


def ticks(low: float, high: float, about: int = 5, *, whole: bool = False) -> list[float]:
    """Return round numbers between two ends, about so many."""
    if not high > low:
        return [low]
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next((m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * 0.999), 10 * power)
    step = max(1.0, round(step)) if whole else step
    first = math.ceil(low / step - 1e-9)
    return [k * step for k in range(first, math.floor(high / step + 1e-9) + 1)]


@dataclass(frozen=True)
class _Panel:
    """Where the points of a chart lie."""

    across: tuple[float, float]
    up: tuple[float, float]

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Return where a point is drawn."""
        (x0, x1), (y0, y1) = self.across, self.up
        wide, high = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
        return round(LEFT + (x - x0) / (x1 - x0) * wide, 1), round(TOP + (y1 - y) / (y1 - y0) * high, 1)

    def grid(self, x: str, y: str, *, whole: bool) -> Markup:
        """Return axes with their numbers and names."""
        parts = []
        for value in ticks(*self.across, whole=whole):
            place = self.at(value, self.up[0])
            parts.append(f'<path class="axis" d="M{place[0]:g} {TOP}V{HEIGHT - BOTTOM}"/>')
            parts.append(f'<text x="{place[0]:g}" y="{HEIGHT - BOTTOM + 14}" text-anchor="middle">{value:.6g}</text>')
        for value in ticks(*self.up):
            place = self.at(self.across[0], value)
            parts.append(f'<path class="axis" d="M{LEFT} {place[1]:g}H{WIDTH - RIGHT}"/>')
            parts.append(f'<text x="{LEFT - 6}" y="{place[1] + 4:g}" text-anchor="end">{value:.4g}</text>')
        middle = TOP + (HEIGHT - TOP - BOTTOM) / 2
        parts.append(
            f'<text x="{LEFT + (WIDTH - LEFT - RIGHT) / 2:g}" y="{HEIGHT - 6}" text-anchor="middle">{escape(x)}</text>'
        )
        parts.append(
            f'<text transform="rotate(-90 10 {middle:g})" x="10" y="{middle:g}" text-anchor="middle">{escape(y)}</text>'
        )
        return Markup("".join(parts))  # noqa: S704  # numbers and escaped names

    def path(self, line: Line, kind: str) -> Markup:
        """Return a line through its points."""
        step = max(1, math.ceil(len(line.points) / MOST))
        points = [*line.points[:-1:step], line.points[-1]]
        d = "L".join("{:g} {:g}".format(*self.at(*p)) for p in points)
        key = say(' data-key="{}"', line.key) if line.key else Markup("")
        return say('<path class="{}" d="M{}"{}/>', kind, d, key)

    def dots(self, line: Line, kind: str) -> Markup:
        """Return a dot a point, which says its values where it is pointed at."""
        dots = []
        for px, py in line.points:
            x, y = self.at(px, py)
            told = f"{short(line.label)}: {px:.4g}, {py:.4g}"
            dots.append(
                say(
                    '<circle class="{}" cx="{}" cy="{}" r="3"><title>{}</title></circle>',
                    kind,
                    f"{x:g}",
                    f"{y:g}",
                    told,
                )
            )
        return Markup("").join(dots)


def _span(values: Sequence[float], given: tuple[float, float] | None) -> tuple[float, float]:
    """Return the ends of an axis."""
    if given is not None:
        return given
    low, high = min(values), max(values)
    room = (high - low) * 0.05
    if not room:
        room = abs(high) * 0.1 or 1.0
        return low - room, high + room
    return (0.0 if 0 <= low < 0.3 * high else low - room), high + room
