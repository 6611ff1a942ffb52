"""Objects of an evaluation of boxes that were missed, and boxes that are wrong: each cut out of its picture."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from visionkit.evaluation.details import MOST_IMAGES
from visionkit.evaluation.folder import PREDICTIONS, Evaluation
from visionkit.evaluation.report.marks import Number, is_number, join, name, pointer, say, short
from visionkit.evaluation.report.shots import SURE_BOX, Box, Shot, cells_of, size_of, wanted_images
from visionkit.evaluation.report.source import Source
from visionkit.tasks.detection.metrics.error_types import DetectionErrors, find_errors
from visionkit.tasks.detection.metrics.matching import DataSetBoxes
from visionkit.tasks.detection.metrics.metric import DetectionMetric

__all__ = ["KINDS", "box_shots"]

KINDS: Mapping[str, str] = {
    "missed": "missed",
    "confused": "right place, wrong class",
    "poorly_localised": "right class, box not close enough",
    "both": "wrong class and box not close enough",
    "duplicate": "found twice",
    "background": "nothing there",
}
"""Kinds of errors in words."""
_ROOM = 0.35  # of an object that is shown around it, on each side
_LEAST = 48.0  # pixels that are shown at least
_MISSED = 0.6  # a missed object is as bad as a wrong box with this score


def box_shots(source: Source, most: int) -> list[Shot]:
    """Return the errors that the gallery may show: the worst one of each picture first, then the second ones.

    Args:
        source: An evaluation of boxes.
        most: How many pictures the page may have.
    """
    evaluation = source.evaluation
    assert evaluation is not None
    ranks = wanted_images(source, most)
    shots: list[Shot] = []
    cells = cells_of(source)
    for position, record in source.records(ranks):
        here = {cell for cell, places in cells.items() if position in places or len(places) >= MOST_IMAGES}
        worst_first = sorted(_shots(evaluation, position, record, here), key=lambda shot: shot.rank)
        shots += [replace(s, rank=turn * len(ranks) + ranks[position]) for turn, s in enumerate(worst_first)]
    return shots


def _shots(
    evaluation: Evaluation, position: int, record: Mapping[str, Any], cells: Collection[tuple[int, int]]
) -> list[Shot]:
    """Return the errors of a picture; ``cells`` are those of the confusion matrix that may count something in it."""
    ids = {one: k for k, one in enumerate(evaluation.classes)}
    objects = record.get("objects")
    kept = [k for k, o in enumerate(objects) if _is_object(o, ids)] if isinstance(objects, list) else []
    found = [objects[k] for k in kept] if isinstance(objects, list) else []
    image = evaluation.images[position]
    truth = image.truth.get("objects", ())
    metric = evaluation.metric
    assert isinstance(metric, DetectionMetric)
    boxes = _boxes(found, truth, ids)
    strong = np.flatnonzero(boxes.scores >= metric.score_threshold)
    errors = find_errors(boxes, strong, iou_threshold=metric.iou_threshold)
    shots = []
    for kind, f, t in _one_by_one(errors):
        said = None if f < 0 else found[f]
        key = "" if f < 0 else pointer(record["line"], "objects", kept[f], "score", file=PREDICTIONS)
        error = _Error(kind, said, None if t < 0 else truth[t], key)
        others = [Box(_place(o), "other") for k, o in enumerate(truth) if k != t and not o["crowd"]]
        shots.append(_shot(position, image.size, error, others, ids, cells))
    return shots


def _one_by_one(errors: DetectionErrors) -> Iterator[tuple[str, int, int]]:
    """Yield kind, detection and object of each error of a picture; -1 where there is none."""
    nearest = {"poorly_localised": errors.own, "duplicate": errors.own, "confused": errors.other, "both": errors.other}
    for kind, which in errors.kinds.items():
        for place in np.flatnonzero(which).tolist():
            if kind == "missed":
                yield kind, -1, int(errors.columns[place])
            else:
                near = int(errors.columns[nearest[kind][place]]) if kind in nearest else -1
                yield kind, int(errors.rows[place]), near


def _is_object(found: Any, ids: Mapping[str, int]) -> bool:
    """Return whether an entry of a record is a box of a known class: what is no number does not count."""
    box = found.get("box") if isinstance(found, dict) else None
    numbers, label = ([*box, found.get("score")], found.get("label")) if isinstance(box, list) else ([], None)
    return len(numbers) == 5 and all(map(is_number, numbers)) and isinstance(label, str) and label in ids


class _Error(NamedTuple):
    """One error."""

    kind: str
    said: Mapping[str, Any] | None
    """What was predicted; None where an object is missed."""
    true: Mapping[str, Any] | None
    """The object that it concerns; None where nothing is near."""
    key: str
    """Where the score is read."""


def _shot(
    position: int,
    size: tuple[int, int],
    error: _Error,
    others: list[Box],
    ids: Mapping[str, int],
    counted: Collection[tuple[int, int]],
) -> Shot:
    """Return one error with the objects that lie around it."""
    said, true, nothing = error.said, error.true, len(ids)
    words, alt, classes, drawn, score = [], [], [], [], -1.0
    if true is not None:
        words.append(say("labelled <b>{}</b>", name(true["label"])))
        alt.append(f"labelled {short(true['label'])}")
        classes.append(ids[true["label"]])
        drawn.append(Box(_place(true), "truth"))
    if said is not None:
        score = float(said["score"])
        words.append(say("predicted <b>{}</b> {}", name(said["label"]), Number(score, error.key, "share")))
        alt.append(f"predicted {short(said['label'])}")
        classes.append(ids[said["label"]])
        mask = said.get("mask")
        drawn.append(Box(_place(said), "found", mask if isinstance(mask, dict) else None))
    words.append(say("{}", KINDS[error.kind]))
    if said is None:
        cells = [(classes[0], nothing)]
    elif error.kind == "confused":
        cells = [(classes[0], classes[-1])]
    else:
        cells = [(nothing, classes[-1]), *([(classes[0], nothing)] if error.kind == "poorly_localised" else [])]
    cells = [cell for cell in cells if cell in counted]
    if not cells and said is not None and (nothing, classes[-1]) in counted:  # its object was found by another box
        cells = [(nothing, classes[-1])]
    sure = score >= SURE_BOX and error.kind in ("confused", "background")
    kinds = (error.kind, "sure") if sure else (error.kind,)
    boxes = [b.place for b in drawn]
    area = _area(boxes[0]) if true is None else float(true["area"])
    return Shot(
        position, join(words, "<br>"), ", ".join([*alt, KINDS[error.kind]]), tuple(dict.fromkeys(classes)),
        kinds, size_of(area), tuple(cells), -_MISSED if said is None else -score, score, _focus(boxes, size),
        (*others, *drawn),
    )  # fmt: skip


def _boxes(
    found: Sequence[Mapping[str, Any]], objects: Sequence[Mapping[str, Any]], ids: Mapping[str, int]
) -> DataSetBoxes:
    """Return what is predicted and true in one picture."""
    return DataSetBoxes(
        1,
        np.array([o["box"] for o in found], np.float32).reshape(-1, 4),
        np.array([o["score"] for o in found], np.float32),
        np.array([ids[o["label"]] for o in found], np.int64),
        np.zeros(len(found), np.int64),
        np.array([o["box"] for o in objects], np.float32).reshape(-1, 4),
        np.array([ids[o["label"]] for o in objects], np.int64),
        np.zeros(len(objects), np.int64),
        np.array([o["crowd"] for o in objects], bool),
        np.array([o["area"] for o in objects], np.float32),
    )


def _focus(
    boxes: Sequence[tuple[float, float, float, float]], size: tuple[int, int]
) -> tuple[float, float, float, float]:
    """Return the part of a picture that shows boxes with some room around them, nearly square."""
    left, top = min(b[0] for b in boxes), min(b[1] for b in boxes)
    right, bottom = max(b[2] for b in boxes), max(b[3] for b in boxes)
    side = max((right - left) * (1 + 2 * _ROOM), (bottom - top) * (1 + 2 * _ROOM), _LEAST)
    edges = []
    for start, end, edge in ((left, right, size[1]), (top, bottom, size[0])):
        wide = min(side, edge)
        first = min(max((start + end - wide) / 2, 0.0), edge - wide)
        edges.append((first, first + wide))
    return edges[0][0], edges[1][0], edges[0][1], edges[1][1]


def _place(found: Mapping[str, Any]) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = (float(v) for v in found["box"])
    return x1, y1, x2, y2


def _area(box: tuple[float, float, float, float]) -> float:
    return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])
