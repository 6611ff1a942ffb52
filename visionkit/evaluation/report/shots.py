"""What the gallery may show: pictures, or objects cut out of them, with what is true and what was predicted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from visionkit.evaluation.report.marks import is_number
from visionkit.evaluation.report.source import Source

__all__ = ["LARGE", "SMALL", "SURE", "SURE_BOX", "Box", "Shot", "cells_of", "chosen", "size_of", "wanted_images"]

SURE, SURE_BOX = 0.9, 0.8
"""Score from which on a prediction is called very sure: of a class, and of a box, whose scores are lower."""
SMALL, LARGE = 32**2, 96**2
"""Areas in pixels below which a thing is small, and from which on it is large, as COCO has it."""


@dataclass(frozen=True)
class Box:
    """A box to draw.

    Args:
        place: xyxy in pixels of the original.
        kind: "truth", "found" (what was predicted) or "other" (truth beside it).
        mask: Of a predicted object its record, ``{"size", "counts"}`` (COCO); None without.
    """

    place: tuple[float, float, float, float]
    kind: str
    mask: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Shot:
    """One entry of the gallery.

    Args:
        image: Position of its picture.
        caption: What is true and what was predicted.
        alt: The same as plain text, for who cannot see the picture.
        classes: Ids of the classes that it is found under.
        kinds: Kinds of errors that it is found under.
        size: "small", "medium" or "large".
        cells: Rows and columns of the confusion matrix that it belongs to.
        rank: The lower, the worse.
        score: How sure the prediction was, 0..1; -1 where nothing was predicted.
        focus: Part of the picture that is shown, xyxy in pixels; None for all of it.
        boxes: What is drawn.
        pixels: Whether truth and prediction of its pixels are laid over, side by side.
    """

    image: int
    caption: Markup
    alt: str
    classes: tuple[int, ...]
    kinds: tuple[str, ...]
    size: str
    cells: tuple[tuple[int, int], ...] = ()
    rank: float = 0.0
    score: float = -1.0
    focus: tuple[float, float, float, float] | None = None
    boxes: tuple[Box, ...] = ()
    pixels: bool = False

    @property
    def pictures(self) -> int:
        """How many pictures it takes in the page."""
        return 2 if self.pixels else 1


def size_of(area: float) -> str:
    """Return what an area in pixels is called."""
    return "small" if area < SMALL else "medium" if area < LARGE else "large"


def cells_of(source: Source) -> dict[tuple[int, int], list[int]]:
    """Return the positions of the pictures of each cell of the confusion matrix, the largest cell first."""
    counts = source.facts.rows("confusion", "counts")
    found = {}
    for key, places in source.facts.mapping("confusion", "images").items():
        row, column = map(int, key.split(","))  # as it was checked when it was read
        if counts[row][column]:
            found[row, column] = list(places)
    return dict(sorted(found.items(), key=lambda item: -counts[item[0][0]][item[0][1]]))


def wanted_images(source: Source, most: int) -> dict[int, int]:
    """Return the pictures that the gallery looks at, with the rank of each: the worst ones, and some of each cell.

    Args:
        source: The evaluation.
        most: How many pictures the page may have.
    """
    cells = list(cells_of(source).values())
    ranked = list(dict.fromkeys(source.facts.rows("worst")))[: 3 * most]
    turns = (places[k] for k in range(max(map(len, cells), default=0)) for places in cells if k < len(places))
    found = dict.fromkeys(ranked)
    for place in turns:
        if len(found) >= 6 * most:
            break
        found.setdefault(place)
    return {place: rank for rank, place in enumerate(found)}


def chosen(shots: list[Shot], most: int) -> list[Shot]:
    """Return the shots that the page shows: of each cell and kind of error its worst one, then the worst of all.

    Args:
        shots: All that there are.
        most: Most pictures.
    """
    ordered = sorted(shots, key=lambda s: s.rank)
    first: dict[object, Shot] = {}
    for shot in ordered:
        for kind in (*shot.cells, *shot.kinds):
            first.setdefault(kind, shot)
    taken: list[Shot] = []
    seen: set[int] = set()
    left = most
    for shot in [*sorted(first.values(), key=lambda s: s.rank), *ordered]:
        if id(shot) not in seen and shot.pictures <= left:
            seen.add(id(shot))
            taken.append(shot)
            left -= shot.pictures
    return sorted(taken, key=lambda s: s.rank)


def number_in(record: Mapping[str, Any], key: str) -> float | None:
    """Return a number of a record, or None."""
    value = record.get(key)
    return float(value) if is_number(value) else None
