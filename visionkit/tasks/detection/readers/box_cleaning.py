"""Boxes as files have them in, boxes that can be learnt out: finite, inside the picture, with an area."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from visionkit.data.labels.masks import Outline

__all__ = ["Correction", "RawBox", "around_turned", "clean", "without_mask"]

TOLERANCE = 1.0  # pixels outside that are cut off silently: formats count from 0 or 1 and round
MIN_BOX_SIDE = 1e-3  # pixels; what is thinner is no box
MAX_COORDINATE = float(2**24)  # pixels; stands for the side of a picture of unknown size


class RawBox(NamedTuple):
    """A box as a file has it.

    Args:
        box: x1, y1, x2, y2 in pixels, or in shares of the picture; any floats.
        label: Class id.
        where: Its place (file:line), for messages.
        crowd: Whether it is a crowd or difficult.
        area: Of the object in pixels; what is no finite positive number is replaced by the area of the box.
        outline: The object's mask, in the unit of the box; None where it is not asked for.
    """

    box: tuple[float, float, float, float]
    label: int
    where: str
    crowd: bool = False
    area: float | None = None
    outline: Outline | None = None


class Correction(NamedTuple):
    """What was done to a box, in one line.

    And whether it is gone, or stays but is not learnt, or lost a part of its outline; else it was clipped.
    """

    text: str
    dropped: bool
    ignored: bool = False
    part: bool = False


def without_mask(raw: RawBox, why: str) -> tuple[RawBox, Correction]:
    """Return an object whose mask is not known as a crowd that fills its box, so neither learnt nor counted.

    Args:
        raw: The object.
        why: Its place, what is wrong with its mask and what to do.
    """
    x1, y1, x2, y2 = raw.box
    whole = (np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]], np.float64),)
    return raw._replace(crowd=True, outline=whole), Correction(f"{why}; ignored", False, True)


def around_turned(box: tuple[float, float, float, float], degrees: float) -> tuple[float, float, float, float]:
    """Return the box around a box that is turned about its middle.

    Args:
        box: x1, y1, x2, y2.
        degrees: Clockwise, or against it: the result is the same.
    """
    x1, y1, x2, y2 = box
    c, s = (abs(f(math.radians(degrees))) for f in (math.cos, math.sin))
    width, height = (x2 - x1) * c + (y2 - y1) * s, (x2 - x1) * s + (y2 - y1) * c
    x, y = (x1 + x2) / 2, (y1 + y2) / 2
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2


def clean(
    raw: Sequence[RawBox],
    size: tuple[float, float] | None,
    classes: Sequence[str],
    *,
    tolerance: float = TOLERANCE,
    thinnest: float = MIN_BOX_SIDE,
) -> tuple[NDArray[np.float32], list[Correction], tuple[Outline, ...]]:
    """Clip boxes to the picture and drop those that are none.

    Args:
        raw: The boxes of one picture.
        size: Its height and width, in the unit of the boxes; None where they are unknown.
        classes: Class names, for messages.
        tolerance: A box that reaches out by no more is clipped without a word.
        thinnest: Shortest side of a box.

    Returns:
        float32 [N, 7], a row an object: x1, y1, x2, y2, class id, 1 for a crowd, area. A line for each box that was
        changed or dropped. And the outlines of these N objects as they were, or none where there are none.
    """
    height, width = (MAX_COORDINATE, MAX_COORDINATE) if size is None else size
    limit = np.array([width, height, width, height])
    found = np.array([r.box for r in raw], np.float64).reshape(-1, 4)
    with np.errstate(invalid="ignore", over="ignore"):
        boxes = np.clip(found, 0, limit).astype(np.float32)
        sides = boxes[:, 2:] - boxes[:, :2]
        whole = np.isfinite(found).all(1) & (found[:, 2:] > found[:, :2]).all(1)
        keep = np.asarray(whole & (sides > 0).all(1) & (sides >= thinnest).all(1))
        outside = np.maximum(-found, found - limit).max(1, initial=-math.inf)
    wrong = np.flatnonzero(~keep | (outside > tolerance)).tolist()
    corrections = [_correction(raw[i], boxes[i], bool(keep[i]), size, classes) for i in wrong]
    facts = np.array([(r.label, r.crowd, r.area if _is_area(r.area) else 0) for r in raw], np.float32).reshape(-1, 3)
    facts[:, 2] = np.where(facts[:, 2] > 0, facts[:, 2], sides.prod(1))
    rows = np.concatenate([boxes, facts], 1)
    outlines = tuple(r.outline for r, k in zip(raw, keep.tolist(), strict=True) if k and r.outline is not None)
    return rows[keep], corrections, outlines


def _is_area(area: float | None) -> bool:
    return area is not None and 1e-37 < area < 1e38  # what float32 holds; also refuses NaN


def _correction(
    raw: RawBox, clipped: NDArray[Any], kept: bool, size: tuple[float, float] | None, classes: Sequence[str]
) -> Correction:
    x1, y1, x2, y2 = raw.box
    box = f"{classes[raw.label]} box {_numbers(raw.box)}"
    of = "" if size is None or size == (1, 1) else f" of {size[1]:g} x {size[0]:g}"  # 1: shares of it
    if kept:
        return Correction(
            f"{raw.where}: {box} reaches out of the picture{of}; clipped to {_numbers(clipped.tolist())}", False
        )
    if not all(map(math.isfinite, raw.box)):
        what = "has a coordinate that is no finite number"
    elif not (x1 < x2 and y1 < y2):
        what = "has no area"
    elif clipped[0] >= clipped[2] or clipped[1] >= clipped[3]:
        what = f"lies outside of the picture{of}"
    else:
        what = "is too thin"
    return Correction(f"{raw.where}: {box} {what}; dropped", True)


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{v:.7g}" for v in values)
