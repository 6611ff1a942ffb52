"""An annotation of COCO JSON, and whether its box and its outline can be those of one object."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from visionkit.core.errors import DataError
from visionkit.data.labels.masks import ObjectMasks, Outline, read_polygons, read_segmentation
from visionkit.data.labels.numbers import flag, number

__all__ = ["FLAGS", "Apart", "Box", "CocoObject", "box_around", "box_of", "find_apart", "read_outline"]

FLAGS = ("iscrowd", "ignore")
"""Keys that take an object from what is learnt and counted; readers know that they are yes or no."""
_TOLERANCE = 1.0  # pixels between a box and its outline that formats round away
Box: TypeAlias = tuple[float, float, float, float]


@dataclass(frozen=True)
class CocoObject:
    """An annotation.

    Args:
        label: Class id, the position of its category's name in the classes.
        record: As in the file; what is in it has not been checked, but for its flags.
        where: Its place in the file, for messages.
    """

    label: int
    record: dict[str, Any]
    where: str

    @property
    def ignored(self) -> bool:
        """Whether ``ignore`` is set, as in sets of people and traffic: neither learnt nor counted."""
        return bool(flag(self.record.get("ignore")))

    @property
    def crowd(self) -> bool:
        """Whether ``iscrowd`` or ``ignore`` is set."""
        return self.ignored or bool(flag(self.record.get("iscrowd")))


class Apart(NamedTuple):
    """An object whose box and outline do not touch.

    Args:
        text: What to say of it.
        around: The box around the outline, x1, y1, x2, y2 in pixels.
    """

    text: str
    around: Box


def box_of(record: dict[str, Any]) -> Box | None:
    """Return the ``bbox`` of an annotation, x1, y1, x2, y2, or None where it is none with an area."""
    box = record.get("bbox")
    numbers = [n for v in box if (n := number(v)) is not None] if isinstance(box, list) and len(box) == 4 else []
    if len(numbers) != 4 or not all(map(math.isfinite, numbers)) or min(numbers[2:]) <= 0:
        return None
    x, y, w, h = numbers
    return x, y, x + w, y + h


def read_outline(o: CocoObject, size: tuple[int, int]) -> tuple[Outline, str | None]:
    """Return the outline of an annotation, as :func:`read_segmentation` does.

    Args:
        o: The annotation.
        size: Height and width of the picture.

    Raises:
        DataError: It has none, or one without a pixel.
    """
    outline, lost = read_segmentation(o.record.get("segmentation"), size, o.where)
    if isinstance(outline, bytes) and not ObjectMasks((outline,), size).areas()[0]:
        raise DataError(f"{o.where}: the run lengths of its segmentation hold no pixel; draw it or remove it")
    return outline, lost


def find_apart(o: CocoObject, outline: Outline | None = None, size: tuple[int, int] | None = None) -> Apart | None:
    """Return what to say of an object whose box and outline do not touch, so that one is another object's; else None.

    Args:
        o: The object.
        outline: What its ``segmentation`` was read as; None looks at its polygons alone.
        size: Height and width of the picture, which run lengths need.
    """
    box = box_of(o.record)
    if box is None or _starts_in(box, o.record.get("segmentation")):
        return None
    around = box_around(o.record.get("segmentation") if outline is None else outline, size)
    if around is None:
        return None
    gaps = (box[0] - around[2], around[0] - box[2], box[1] - around[3], around[1] - box[3])
    if max(gaps) <= _TOLERANCE:
        return None
    sides = [", ".join(f"{v:.7g}" for v in b) for b in (box, around)]
    return Apart(
        f"{o.where}: its bbox (corners {sides[0]}) and its segmentation (corners {sides[1]}) do not touch: one is "
        "another object's; correct it",
        around,
    )


def _starts_in(box: Box, polygons: Any) -> bool:
    """Return whether the first corner lies in the box: of most objects no more than that is looked at."""
    first = polygons
    while isinstance(first, list) and first and isinstance(first[0], list):
        first = first[0]
    if not isinstance(first, list) or len(first) < 2 or {type(first[0]), type(first[1])} - {int, float}:
        return False
    return bool(box[0] <= first[0] <= box[2] and box[1] <= first[1] <= box[3])


def box_around(outline: Any, size: tuple[int, int] | None = None) -> Box | None:
    """Return the box around an outline, x1, y1, x2, y2, or None where it is not known.

    Args:
        outline: What was read; or the polygons of a ``segmentation`` as they are in a file.
        size: Height and width of the picture, which run lengths need.
    """
    if isinstance(outline, bytes):
        x1, y1, x2, y2 = (0, 0, 0, 0) if size is None else ObjectMasks((outline,), size).boxes()[0].tolist()
        return (x1, y1, x2, y2) if x2 > x1 and y2 > y1 else None
    points = outline if isinstance(outline, tuple) else read_polygons(outline)[0]
    if not points:
        return None
    corners = np.concatenate(points)
    (x1, y1), (x2, y2) = corners.min(0).tolist(), corners.max(0).tolist()
    return x1, y1, x2, y2
