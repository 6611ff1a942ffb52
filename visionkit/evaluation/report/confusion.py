"""What is taken for what: a matrix whose cells are buttons, or a list of pairs where there are many classes."""

from __future__ import annotations

from typing import NamedTuple

from markupsafe import Markup

from visionkit.evaluation.report.marks import Facts, Number, join, name, pointer, say, short
from visionkit.evaluation.report.style import HEAT

__all__ = ["MOST_CLASSES", "Pair", "confusion_part", "is_listed", "pairs"]

BUTTON = '<button type="button" data-cell="{},{}" aria-pressed="false" aria-label="{}: {}" title="{}">{}</button>'
MOST_CLASSES = 30
"""Classes up to which the matrix is shown."""
MOST_COUNT = 9999
"""Largest count that fits into a cell; where one is larger, all cells hold shares of their rows."""
_PAIRS = 60  # that are listed where there is no matrix


class Pair(NamedTuple):
    """Things of one class that were taken for another."""

    row: int
    column: int
    truth: str
    said: str
    number: Number
    """How many: pictures, objects or pixels."""
    share: Number
    """Of all that are of this class."""


def pairs(facts: Facts) -> list[Pair]:
    """Return what was taken for what, the most frequent first; of boxes what was missed or found for nothing, too."""
    rows, columns = facts.rows("confusion", "names"), facts.rows("confusion", "columns")
    counts = facts.rows("confusion", "counts")
    found = []
    for r, row in enumerate(counts):
        for c, count in enumerate(row):
            if count and r != c:
                key, whole = pointer("confusion", "counts", r, c), pointer("confusion", "counts", r)
                share = Number(count / sum(row), f"{key} / {whole}", "share")
                found.append(Pair(r, c, rows[r], columns[c], Number(count, key), share))
    return sorted(found, key=lambda p: -p.number.value)


def is_listed(facts: Facts) -> bool:
    """Return whether there are too many classes for a matrix; of boxes its row and column of nothing do not count."""
    edge = max(len(facts.rows("confusion", key)) for key in ("names", "columns"))
    return edge - (facts.text("task") in ("detection", "instance")) > MOST_CLASSES


def confusion_part(facts: Facts, shown: set[tuple[int, int]]) -> Markup:
    """Return the matrix, or the list of the most frequent pairs where there are more than 30 classes.

    Args:
        facts: The evaluation.
        shown: Cells of which the page has pictures: theirs are buttons.
    """
    rows, columns = facts.rows("confusion", "names"), facts.rows("confusion", "columns")
    nothing = len(facts.rows("classes"))
    if not facts.rows("confusion", "counts"):
        return Markup("")
    found = pairs(facts)
    if is_listed(facts):
        if not found:
            return Markup("<p>Nothing is confused.</p>")
        items = [say("<li>{}</li>", _pair(pair, shown, nothing)) for pair in found[:_PAIRS]]
        more = say("<p class='soft'>and {} rarer pairs</p>", str(len(found) - _PAIRS)) if len(found) > _PAIRS else ""
        return say('<ul class="pairs">{}</ul>{}', join(items, ""), more)
    head = join([say('<th scope="col">{}</th>', name(c)) for c in columns], "")
    body = [
        say('<tr><th scope="row">{}</th>{}</tr>', name(truth), join(_row(facts, r, shown, nothing), ""))
        for r, truth in enumerate(rows)
    ]
    return say(
        '<div class="wide" tabindex="0" role="region" aria-label="confusion matrix"><table class="matrix"><thead><tr>'
        "<th>truth&nbsp;\N{DOWNWARDS ARROW}<br>predicted&nbsp;\N{RIGHTWARDS ARROW}</th>{}</tr></thead>"
        "<tbody>{}</tbody></table></div>", head, join(body, ""),
    )  # fmt: skip


def _row(facts: Facts, r: int, shown: set[tuple[int, int]], nothing: int) -> list[Markup]:
    row, columns = facts.rows("confusion", "counts", r), facts.rows("confusion", "columns")
    truth = facts.rows("confusion", "names")[r]
    total = sum(row)
    shares = max((n for one in facts.rows("confusion", "counts") for n in one), default=0) > MOST_COUNT
    cells = []
    for c, said in enumerate(columns):
        count = row[c]
        heat = 0 if not count else min(HEAT - 1, 1 + int((HEAT - 1) * count / total * 0.999))
        key, whole = pointer("confusion", "counts", r, c), pointer("confusion", "counts", r)
        number = Number(count / total, f"{key} / {whole}", "percent") if shares and total else Number(count, key)
        if (r, c) in shown:
            words = _told(Pair(r, c, truth, said, number, number), nothing)
            inner = say(
                BUTTON, str(r), str(c), words, f"{count:,}", words, number if count else "",
            )  # fmt: skip
        else:
            inner = say("<span>{}</span>", number if count else "")
        cells.append(say('<td class="heat{}">{}</td>', str(heat), inner))
    return cells


def _pair(pair: Pair, shown: set[tuple[int, int]], nothing: int) -> Markup:
    words = say("<bdi>{}</bdi> ({})", _told(pair, nothing), pair.number)
    if (pair.row, pair.column) not in shown:
        return words
    return say(
        BUTTON, str(pair.row), str(pair.column), _told(pair, nothing), pair.number.shown, _told(pair, nothing), words,
    )  # fmt: skip


def _told(pair: Pair, nothing: int) -> str:
    """Return a cell in words; of boxes the row and the column ``nothing`` stand for nothing."""
    truth, said = short(pair.truth), short(pair.said)
    if pair.column >= nothing:
        return f"{truth} missed"
    if pair.row >= nothing:
        return f"{said} found where nothing is"
    return f"{truth} taken for {said}" if pair.row != pair.column else f"{truth} right"
