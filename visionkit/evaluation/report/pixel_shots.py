"""Pictures of an evaluation of pixels: classes that are missed, invented, or not met at their edges."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from visionkit.evaluation.folder import EvaluatedImage
from visionkit.evaluation.report.marks import is_number, join, name, say, short
from visionkit.evaluation.report.shots import Shot, cells_of, size_of, wanted_images
from visionkit.evaluation.report.source import Source

__all__ = ["KINDS", "pixel_shots"]

KINDS: Mapping[str, str] = {
    "unseen": "a class is not seen",
    "invented": "a class is seen that is not there",
    "edges": "edges and parts",
    "boundary": "pixels near the true boundaries",
}
"""Kinds of errors in words."""
NOTABLE = 0.01
"""Share of a picture from which on a class in it counts, and of itself below which it is not seen."""
_NAMED = 4  # classes that a caption names


def pixel_shots(source: Source, most: int) -> list[Shot]:
    """Return the pictures that the gallery may show.

    Args:
        source: An evaluation of pixels.
        most: How many pictures the page may have.
    """
    evaluation = source.evaluation
    assert evaluation is not None
    ranks = wanted_images(source, most)
    cells: dict[int, list[tuple[int, int]]] = {}
    for cell, places in cells_of(source).items():
        for place in places:
            cells.setdefault(place, []).append(cell)
    return [
        _shot(
            position, evaluation.images[position], record, evaluation.classes, cells.get(position, []), ranks[position]
        )
        for position, record in source.records(ranks)
    ]


def _shot(
    position: int,
    image: EvaluatedImage,
    record: Mapping[str, Any],
    classes: Any,
    cells: list[tuple[int, int]],
    rank: int,
) -> Shot:
    truth = {str(k): int(v) for k, v in image.truth.get("pixels", {}).items() if v}
    said = record.get("pixels")
    found = {str(k): int(v) for k, v in said.items() if is_number(v)} if isinstance(said, dict) else {}
    least = NOTABLE * image.size[0] * image.size[1]
    unseen = [k for k, v in truth.items() if v >= least and found.get(k, 0) < NOTABLE * v]
    invented = [k for k, v in found.items() if v >= least and truth.get(k, 0) < NOTABLE * v]
    kinds = [kind for kind, which in (("unseen", unseen), ("invented", invented)) if which] or ["edges"]
    words = []
    for what, which in (("not seen", unseen), ("not there, but seen", invented)):
        if which:
            more = " and others" if len(which) > _NAMED else ""
            words.append(say("{}: <b>{}</b>{}", what, join([name(k) for k in which[:_NAMED]]), more))
    ids = {one: k for k, one in enumerate(classes)}
    alt = f"truth beside prediction; classes {', '.join(map(short, [*truth][:8])) or 'none'}"
    return Shot(
        position, join(words or [KINDS["edges"]], "<br>"), alt, tuple(ids[k] for k in truth if k in ids), tuple(kinds),
        size_of(image.size[0] * image.size[1]), tuple(cells), rank, pixels=True,
    )  # fmt: skip
