"""Boxes and outlines of COCO JSON that are all written in another way than COCO's: refused, with the way named."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

from visionkit.core.errors import DataError
from visionkit.data.labels.coco_objects import Box, box_around, box_of
from visionkit.data.labels.numbers import mostly_shares, number

__all__ = ["Drawn", "refuse_other_units"]

_SURE = 5  # alike in their form, before they are taken for something else
_LOOKED_AT = 200  # objects whose box is compared with its outline: reading all polygons takes a while
_ROUNDED = 2.0  # pixels by which a side of a box and that of its outline may differ


class Drawn(NamedTuple):
    """An annotation: its place, what the file has, and height and width of its picture, or None."""

    where: str
    record: dict[str, Any]
    size: tuple[int, int] | None


def refuse_other_units(found: Sequence[Drawn]) -> None:
    """Refuse a file whose objects are not in pixels, or whose boxes are not x, y, width, height.

    Args:
        found: All annotations; one odd object is none of them.

    Raises:
        DataError: Most are written in another way; the first of them and how it looks.
    """
    _refuse_shares(found)
    _refuse_corners(found)
    _refuse_other_boxes(found)


def _refuse_shares(found: Sequence[Drawn]) -> None:
    if any(d.size is not None and max(d.size) <= 1 for d in found):
        return
    for what, key in (("boxes", "bbox"), ("outlines", "segmentation")):
        drawn = [
            (d.where, _corners(values) if key == "bbox" else values) for d in found if (values := d.record.get(key))
        ]
        shares = mostly_shares((where, _numbers_of(values)) for where, values in drawn)
        if shares:
            raise DataError(
                f"{shares[0]}: {len(shares)} of {len(drawn)} {what} lie within 0..1, as this one: these are shares of "
                "the picture (normalised), and COCO JSON counts in pixels; multiply x and width by its width, "
                "y and height by its height"
            )


def _refuse_corners(found: Sequence[Drawn]) -> None:
    """Refuse boxes that are two corners each: all of them make sense so, and many of them not as COCO's."""
    outside: list[str] = []
    total = 0
    for where, record, size in found:
        box = None if size is None else box_of(record)
        if size is None or box is None:
            continue
        x, y, w, h = box[0], box[1], box[2] - box[0], box[3] - box[1]
        if not (w > x and h > y and w <= size[1] + 1 and h <= size[0] + 1):
            return
        total += 1
        outside += [where] if box[2] > size[1] + 1 or box[3] > size[0] + 1 else []
    if total >= _SURE and len(outside) > total // 4:
        raise DataError(
            f"{outside[0]}: its bbox reaches out of the picture, as do {len(outside)} of {total}, and all fit as two "
            "corners x1, y1, x2, y2; COCO JSON has x, y, width, height: subtract the first corner from the second"
        )


def _refuse_other_boxes(found: Sequence[Drawn]) -> None:
    """Refuse boxes that are not those around their outlines, most of the first ones: the middle first, y before x."""
    boxes = ((d.where, box_of(d.record), d.record.get("segmentation")) for d in found)
    both = ((where, box, box_around(outline)) for where, box, outline in boxes if box and isinstance(outline, list))
    known = [(where, box, around) for where, box, around in islice(both, _LOOKED_AT) if around is not None]
    other = [(where, box, around) for where, box, around in known if not _alike(box, around)]
    if len(other) >= _SURE and len(other) > len(known) // 2:
        where, box, around = other[0]
        told = [", ".join(f"{v:.7g}" for v in b) for b in (box, around)]
        raise DataError(
            f"{where}: its bbox has the corners {told[0]}, but its segmentation {told[1]}, and so differ {len(other)} "
            f"of {len(known)}: one of them is written in another way; bbox is x, y of the upper left corner, width, "
            "height, and segmentation x, y, x, y, ..."
        )


def _alike(one: Box, other: Box) -> bool:
    """Return whether two boxes are the same by and large: sides apart by little, or half of their union shared."""
    if all(abs(a - b) <= _ROUNDED for a, b in zip(one, other, strict=True)):
        return True
    shared = [max(0.0, min(one[i + 2], other[i + 2]) - max(one[i], other[i])) for i in (0, 1)]
    areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in (one, other)]
    return shared[0] * shared[1] * 2 >= sum(areas) - shared[0] * shared[1]


def _corners(box: Any) -> list[float]:
    values = list(_numbers_of(box))
    return [values[0], values[1], values[0] + values[2], values[1] + values[3]] if len(values) == 4 else []


def _numbers_of(value: Any) -> Iterator[float]:
    """Yield the numbers of a list, and of the lists in it."""
    for part in value if isinstance(value, list) else ():
        for v in part if isinstance(part, list) else (part,):
            if (n := number(v)) is not None:
                yield n
