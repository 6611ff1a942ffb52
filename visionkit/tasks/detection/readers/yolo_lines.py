"""YOLO's label files: a line an object, a box or a polygon in shares of the picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from visionkit.core.errors import DataError
from visionkit.core.files import read_text
from visionkit.core.text import printable
from visionkit.data.labels.faults import attempt, fault
from visionkit.data.labels.masks import Outline
from visionkit.tasks.detection.readers.box_cleaning import Correction

__all__ = ["YoloObject", "doubt", "read_lines", "read_numbers", "refuse_commas"]

_FAR = 2.0  # shares of the picture; a box that reaches this far is in another unit
_OUT = 0.01  # shares of the picture that a box reaches out by no rounding
_FORM = "class cx cy w h"
_SURE_LINES = 5  # alike in their form, before it is taken for one of key points


class YoloObject(NamedTuple):
    """An object.

    Args:
        id: Class id.
        box: x1, y1, x2, y2 in shares of the picture.
        where: Its place (file:line), for messages.
        outline: Its polygon, in shares; None where the line is a box.
    """

    id: int
    box: tuple[float, float, float, float]
    where: str
    outline: Outline | None = None


Lines = tuple[list[YoloObject], list[Correction]]


def read_lines(files: Sequence[Path | None], points: tuple[int, int] | None) -> list[Lines]:
    """Return the objects of label files, and a line for each that comes twice.

    Args:
        files: The files of a data set; None for none.
        points: Number of key points and of numbers for each, where lines have them behind the box.

    Raises:
        DataError: A line is wrong, with its place; or the lines are no shares, or have key points that nothing tells.
    """
    read = [attempt("label-syntax", _lines, file, points) if file is not None else None for file in files]
    found: list[Lines] = [lines or ([], []) for lines in read]
    objects = [o for os_, _ in found for o in os_]
    if points is None:  # first: their visibilities of 2 are no pixels
        _refuse_points([o for o in objects if o.outline is not None])
    far = [o for o in objects if _FAR <= max(map(abs, o.box)) < math.inf]  # NaN and infinite ones are told one by one
    if len(far) > len(objects) // 2:
        box = ", ".join(f"{v:.6g}" for v in far[0].box)
        fault(
            "label-units",
            f"{far[0].where}: the object's corners are {box}, as are those of {len(far)} of {len(objects)} objects: "
            "this looks like pixels, and YOLO counts in shares (0..1); divide x and width by the width of the picture, "
            "y and height by its height",
        )
    attempt("label-units", _refuse_corners, [o for o in objects if o.outline is None])
    return found


def _refuse_corners(boxes: Sequence[YoloObject]) -> None:
    """Refuse boxes that are two corners each: all of them make sense so, and many of them not as YOLO's."""
    outside: list[YoloObject] = []
    for o in boxes:
        x1, y1, x2, y2 = o.box
        cx, cy, w, h = (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1
        if not (0 <= cx < w <= 1 and 0 <= cy < h <= 1):
            return
        outside += [o] if min(x1, y1) < -_OUT or max(x2, y2) > 1 + _OUT else []
    if len(boxes) >= _SURE_LINES and len(outside) > len(boxes) // 4:
        raise DataError(
            f"{outside[0].where}: the box reaches out of the picture, as do {len(outside)} of {len(boxes)}, and all "
            "fit as two corners x1 y1 x2 y2; YOLO has class cx cy w h: the middle, width and height"
        )


def _lines(file: Path, points: tuple[int, int] | None) -> Lines:
    text = read_text(file)
    first: dict[tuple[float, ...], int] = {}
    found: list[YoloObject] = []
    twice: list[Correction] = []
    for number, line in enumerate(text.split("\n"), 1):
        cells = line.split()
        if not cells:
            continue
        where = f"{file}:{number}"
        values = attempt("label-syntax", _values, cells, where, points)
        if values is None:
            continue
        before = first.setdefault(values, number)
        if before != number:
            twice.append(
                Correction(f"{where}: the same object as in line {before}; dropped", True, kind="box-repeated")
            )
            continue
        if len(values) == 5 or points is not None:
            _, cx, cy, w, h = values[:5]
            found.append(YoloObject(int(values[0]), (cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2), where))
        else:
            xs, ys = values[1::2], values[2::2]
            outline = (np.array(values[1:]).reshape(-1, 2),)
            found.append(YoloObject(int(values[0]), (min(xs), min(ys), max(xs), max(ys)), where, outline))
    return found, twice


def _values(cells: Sequence[str], where: str, points: tuple[int, int] | None) -> tuple[float, ...]:
    refuse_commas(cells, where, _FORM)
    if points is not None and len(cells) not in (5, 5 + points[0] * points[1]):
        raise DataError(
            f"{where}: {len(cells)} columns; with kpt_shape {list(points)} a line has {5 + points[0] * points[1]} "
            "(class cx cy w h and the key points) or 5 (no key points)"
        )
    if points is None and len(cells) == 6:
        raise DataError(
            f"{where}: 6 columns, as predictions with a confidence have them; labels have 5: class cx cy w h"
        )
    if points is None and (len(cells) < 5 or len(cells) % 2 == 0):
        raise DataError(
            f"{where}: {len(cells)} columns; write class cx cy w h, or a class and the points of a polygon; for class "
            "cx cy w h and key points, write kpt_shape: [points, 2 or 3] into data.yaml"
        )
    return read_numbers(cells, where, _FORM)


def refuse_commas(cells: Sequence[str], where: str, form: str) -> None:
    """Refuse a line whose columns or decimals are written with commas, before its columns are counted.

    Args and errors are those of :func:`read_numbers`.
    """
    if any(mark in cell for cell in cells for mark in ",;"):
        raise DataError(f"{where}: holds a comma or semicolon; YOLO parts columns by blanks and writes 0.5: {form}")


def read_numbers(cells: Sequence[str], where: str, form: str) -> tuple[float, ...]:
    """Return the numbers of a line, the first of which is the id of a class.

    Args:
        cells: The columns, at least one.
        where: Its place, for messages.
        form: What to write, for messages.

    Raises:
        DataError: One is no number, or the class is no whole number from 0 on.
    """
    values = []
    for cell in cells:
        try:
            values.append(float(cell.replace("_", "?")))  # Python takes 1_0 for 10
        except ValueError:
            raise DataError(f"{where}: {cell!r:.40} is no number; write {form}") from None
    if not (values[0] >= 0 and values[0].is_integer()):
        raise DataError(f"{where}: class {cells[0]} is no whole number from 0; correct the line")
    return tuple(values)


def _refuse_points(polygons: Sequence[YoloObject]) -> None:
    """Refuse lines that can be polygons by their number of columns, and are boxes with key points by what they say."""
    for dims in (3, 2):
        if not polygons or not all(_has_points(o, dims) for o in polygons):
            continue
        if dims == 3 or len(polygons) >= _SURE_LINES or all(map(_side_is_no_corner, polygons)):
            assert polygons[0].outline is not None
            count = (_flat(polygons[0]).size - 4) // dims
            fault(
                "label-units",
                f"{polygons[0].where}: {count} points lie within the box that the first four numbers make, as in all "
                f"{len(polygons)} such lines: these look like key points, not polygons; write kpt_shape: "
                f"[{count}, {dims}] into data.yaml",
            )
            return


def doubt(lines: Sequence[Lines]) -> str | None:
    """Return what to say where a few lines can be polygons as well as boxes with key points, else None.

    Args:
        lines: As :func:`read_lines` returned them.
    """
    polygons = [o for objects, _ in lines for o in objects if o.outline is not None]
    if not polygons or len(polygons) >= _SURE_LINES or not all(_has_points(o, 2) for o in polygons):
        return None
    return (
        f"all {len(polygons)} lines of more than 5 columns are read as polygons (first: "
        f"{printable(polygons[0].where)}); if they are boxes with key points, write kpt_shape into data.yaml"
    )


def _side_is_no_corner(o: YoloObject) -> bool:
    """Return whether the second corner lies further from the others than these reach: so do width and height of a box.

    Corners that follow each other in a polygon of four or more hardly ever lie so.
    """
    corners = _flat(o).reshape(-1, 2)
    others = np.delete(corners, 1, 0)
    low, high = others.min(0), others.max(0)
    return len(others) > 2 and bool((np.maximum(low - corners[1], corners[1] - high) > high - low).any())


def _has_points(o: YoloObject, dims: int) -> bool:
    flat = _flat(o)
    if flat.size <= 4 or (flat.size - 4) % dims:
        return False
    cx, cy, w, h = flat[:4]
    points = flat[4:].reshape(-1, dims)
    if dims == 3:
        if not np.isin(points[:, 2], (0, 1, 2)).all():
            return False
        points = points[points[:, 2] > 0]
    inside = (abs(points[:, 0] - cx) <= w / 2 + 1e-3) & (abs(points[:, 1] - cy) <= h / 2 + 1e-3)
    whole = w > 0 and h > 0 and w / 2 - 1e-3 <= cx <= 1 + 1e-3 - w / 2 and h / 2 - 1e-3 <= cy <= 1 + 1e-3 - h / 2
    return bool(whole and (inside | (points[:, :2] == 0).all(1)).all())


def _flat(o: YoloObject) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    assert isinstance(o.outline, tuple)
    return o.outline[0].ravel()
