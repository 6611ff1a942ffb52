"""Masks of objects as COCO writes them: polygons and run lengths. Small, exact, independent of each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from visionkit.core.errors import DataError

__all__ = ["IGNORE", "ObjectMasks", "Outline", "encode_window", "place_mask", "read_polygons", "read_segmentation"]

IGNORE = 255
"""Value of pixels that say nothing: neither learnt nor counted."""
Array: TypeAlias = NDArray[np.uint8]
Outline: TypeAlias = tuple[NDArray[np.float64], ...] | bytes
"""One object: its polygons, each float64 [P, 2] of x, y in pixels; or COCO's compressed run lengths, column by
column."""

_NUMBERS = {int, float, str}  # some tools write numbers as text
MAX_COORDINATE = 2.0**17  # pixels; a corner further out is a mistake
NEAR = 1024  # pixels that outlines may reach out of a picture, however small it is, and are drawn as COCO does
MAX_LENGTH = 2.0**20  # pixels of an outline's edges; COCO's own way to draw takes a hundred bytes for each of them


@dataclass(frozen=True)
class ObjectMasks:
    """The masks of the N objects of a picture; they may overlap.

    Args:
        outlines: One an object.
        size: Height and width of the picture.
    """

    outlines: tuple[Outline, ...]
    size: tuple[int, int]

    def __len__(self) -> int:
        """Return the number of objects, N."""
        return len(self.outlines)

    @classmethod
    def from_dense(cls, masks: NDArray[Any]) -> Self:
        """Make them from arrays [N, H, W]; what is not 0 belongs to the object."""
        from faster_coco_eval.core import mask as coco

        columns = np.asfortranarray(np.asarray(masks != 0, np.uint8).transpose(1, 2, 0))  # [H, W, N]
        encoded = coco.encode(columns) if len(masks) else []
        return cls(tuple(r["counts"] for r in encoded), (masks.shape[1], masks.shape[2]))

    def dense(self) -> Array:
        """Return them as 0 and 1, uint8 [N, H, W]."""
        from faster_coco_eval.core import mask as coco

        if not self.outlines:
            return np.zeros((0, *self.size), np.uint8)
        return np.ascontiguousarray(coco.decode(self.rles()).transpose(2, 0, 1))

    def rles(self) -> list[dict[str, Any]]:
        """Return COCO's run lengths, ``{"size": [H, W], "counts": bytes}`` each."""
        return [{"size": list(self.size), "counts": self._counts(o)} for o in self.outlines]

    def encoded(self) -> Self:
        """Return them all as run lengths."""
        return replace(self, outlines=tuple(map(self._counts, self.outlines)))

    def select(self, which: Sequence[int]) -> Self:
        """Return the objects at these positions, in this order."""
        return replace(self, outlines=tuple(self.outlines[i] for i in which))

    def join(self, others: Sequence[Self]) -> Self:
        """Return the objects of several pictures of one size behind each other."""
        return replace(self, outlines=tuple(o for m in (self, *others) for o in m.outlines))

    def areas(self) -> NDArray[np.float32]:
        """Return the number of pixels of each, float32 [N]."""
        from faster_coco_eval.core import mask as coco

        return np.asarray(coco.area(self.rles()) if self.outlines else [], np.float32)

    def boxes(self) -> NDArray[np.float32]:
        """Return the boxes around them, float32 [N, 4] xyxy in pixels; zeros around nothing."""
        from faster_coco_eval.core import mask as coco

        found = np.asarray(coco.toBbox(self.rles()) if self.outlines else [], np.float32).reshape(-1, 4)
        found[:, 2:] += found[:, :2]
        return found

    def place(self, scale: tuple[float, float], offset: tuple[int, int], size: tuple[int, int]) -> Self:
        """Return them after the picture was resized, shifted and cut or padded, as run lengths.

        Polygons are moved before they become pixels, so nothing is lost; of run lengths each pixel takes the majority
        of those that it covers.

        Args:
            scale: Vertical and horizontal factor.
            offset: Vertical and horizontal shift in pixels.
            size: Height and width of the picture that comes out.
        """
        from faster_coco_eval.core import mask as coco

        moved: list[Outline] = []
        for outline in self.outlines:
            if isinstance(outline, bytes):
                columns = self._columns(outline) * np.uint8(255)
                seen = place_mask(columns, scale[::-1], offset[::-1], size[::-1], fill=0, average=True)
                moved.append(coco.encode((seen >= 128).view(np.uint8).T)["counts"])
            else:
                points = tuple(p * scale[::-1] + np.asarray(offset[::-1], np.float64) for p in outline)
                moved.append(type(self)((points,), size)._counts(points))
        return type(self)(tuple(moved), size)

    def _counts(self, outline: Outline) -> bytes:
        from faster_coco_eval.core import mask as coco

        if isinstance(outline, bytes):
            return outline
        near = [near_picture(p, self.size) for p in outline]
        if sum(map(_length, near)) > MAX_LENGTH:
            return encode_window(_filled(near, self.size), (0, 0), self.size)
        merged: bytes = coco.merge(coco.frPyObjects([p.flatten().tolist() for p in near], *self.size))["counts"]
        return merged

    def _columns(self, outline: bytes) -> Array:
        """Return the columns of a mask as rows, [W, H]: so run lengths lie in memory, and nothing is copied."""
        from faster_coco_eval.core import mask as coco

        columns: Array = coco.decode({"size": list(self.size), "counts": outline}).T
        return columns


def near_picture(polygon: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.float64]:
    """Return the part of a polygon that can be seen: drawing edges that reach far out takes gigabytes.

    A polygon that reaches out by no more than a picture's side, or ``NEAR`` pixels, is returned as it is; of another
    one that frame cuts off the rest (Sutherland and Hodgman, "Reentrant Polygon Clipping", 1974).

    Args:
        polygon: Corners x, y in pixels, [P, 2].
        size: Height and width of the picture.

    Returns:
        Corners, [Q, 2]; three times the same one where nothing is left.
    """
    side = float(max(NEAR, *size))
    if not len(polygon) or (polygon.min() >= -side and polygon.max() <= 2 * side):
        return polygon
    for axis, limit, sign in ((0, -side, 1.0), (0, 2 * side, -1.0), (1, -side, 1.0), (1, 2 * side, -1.0)):
        depth = sign * (polygon[:, axis] - limit)  # below 0 outside
        before, previous = np.roll(depth, 1), np.roll(polygon, 1, axis=0)
        crosses = (depth >= 0) != (before >= 0)
        share = np.divide(before, before - depth, out=np.zeros_like(depth), where=crosses)
        cuts = previous + share[:, None] * (polygon - previous)
        both = np.stack([cuts, polygon], 1).reshape(-1, 2)  # a cut lies before the corner that its edge leads to
        polygon = both[np.stack([crosses, depth >= 0], 1).ravel()]
    return polygon if len(polygon) else np.full((3, 2), -side)


def _length(polygon: NDArray[np.float64]) -> float:
    """Return the length of a polygon's edges, the longer of their two extents each."""
    return float(abs(polygon - np.roll(polygon, 1, axis=0)).max(1, initial=0).sum())


def _filled(polygons: Sequence[NDArray[np.float64]], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Return the pixels of polygons, [H, W], in memory that goes by the picture, whatever the polygons are.

    At borders it can be a pixel more than COCO's.
    """
    pixels = np.zeros(size, np.uint8)
    for polygon in polygons:  # one by one: they add up where they overlap
        corners = np.round((polygon - 0.5) * 16).astype(np.int32)
        cv2.fillPoly(pixels, [corners], 1, shift=4)
    return pixels.astype(np.bool_)


def encode_window(window: NDArray[np.bool_], corner: tuple[int, int], size: tuple[int, int]) -> bytes:
    """Return COCO's compressed run lengths of a mask that is nothing outside of a window; time goes by the window.

    Args:
        window: [h, w], all of it within the picture.
        corner: Row and column of its upper left pixel.
        size: Height and width of the picture.
    """
    from faster_coco_eval.core import mask as coco

    columns = np.zeros((window.shape[1], window.shape[0] + 2), np.int8)  # [w, h + 2]
    columns[:, 1:-1] = window.T
    change = np.diff(columns, axis=1)  # 1 where a run starts, -1 behind its end
    ends = [(x + corner[1]) * size[0] + y + corner[0] for x, y in (np.nonzero(change == c) for c in (1, -1))]
    bounds = np.stack(ends, 1).ravel()  # start, end, start, end, ... within the picture read column by column
    if len(bounds):
        inner = bounds[1:-1].reshape(-1, 2)
        inner = inner[inner[:, 0] != inner[:, 1]]  # a run that ends where the next column's starts goes on
        bounds = np.concatenate([bounds[:1], inner.ravel(), bounds[-1:]])
    last = [] if len(bounds) and bounds[-1] == size[0] * size[1] else [size[0] * size[1]]
    runs = np.diff([0, *bounds.tolist(), *last]).tolist()
    packed: bytes = coco.frPyObjects({"size": list(size), "counts": runs}, *size)["counts"]
    return packed


def place_mask(
    mask: Array,
    scale: tuple[float, float],
    offset: tuple[int, int],
    size: tuple[int, int],
    *,
    fill: int,
    average: bool = False,
) -> Array:
    """Return a mask after its picture was resized, shifted and cut or padded.

    Args:
        mask: uint8 [H, W].
        scale: Vertical and horizontal factor.
        offset: Vertical and horizontal shift in pixels.
        size: Height and width of the picture that comes out.
        fill: Value where it shows nothing of the mask.
        average: Average the values instead of taking the nearest one.

    Returns:
        uint8 [*size].
    """
    (top, left), (height, width) = offset, size
    inner = (max(1, round(mask.shape[0] * scale[0])), max(1, round(mask.shape[1] * scale[1])))
    first = (max(0, -top), max(0, -left))  # of the resized mask, what is seen
    last = (min(inner[0], height - top), min(inner[1], width - left))
    placed = np.full(size, fill, np.uint8)
    if first[0] >= last[0] or first[1] >= last[1]:
        return placed
    seen = mask
    if inner != mask.shape:
        shrinks = inner[0] <= mask.shape[0] and inner[1] <= mask.shape[1]
        kind = (cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR) if average else cv2.INTER_NEAREST_EXACT
        seen = np.asarray(cv2.resize(mask, inner[::-1], interpolation=kind), np.uint8)
    window = seen[first[0] : last[0], first[1] : last[1]]
    placed[first[0] + top : last[0] + top, first[1] + left : last[1] + left] = window
    return placed


def read_polygons(value: Any) -> tuple[list[NDArray[np.float64]], list[int]]:
    """Return the polygons of a COCO annotation's ``segmentation``, [P, 2] each, and the positions of what is none.

    Args:
        value: A list of polygons ``[x, y, x, y, ...]``, or one polygon.
    """
    parts = value if isinstance(value, list) and any(isinstance(v, list) for v in value) else [value]
    corners = [_corners(part) for part in parts]
    return [c for c in corners if c is not None], [i for i, c in enumerate(corners) if c is None]


def read_segmentation(value: Any, size: tuple[int, int], where: str) -> tuple[Outline, str | None]:
    """Return the outline that a COCO annotation's ``segmentation`` describes, and what to say of parts that are none.

    A part that is no polygon (of fewer than three points, for example) is left out; the object keeps its others.

    Args:
        value: A list of polygons ``[x, y, x, y, ...]``, or run lengths ``{"size": [H, W], "counts": ...}``, counts a
            list of numbers or the compressed text.
        size: Height and width of the picture.
        where: Its place in the file, for messages.

    Raises:
        DataError: It is neither, or its run lengths are of another size.
    """
    from faster_coco_eval.core import mask as coco

    if isinstance(value, list) and value:
        points, none = read_polygons(value)
        if not points:
            raise DataError(
                f"{where}: segmentation is no list of polygons; give lists of x, y, x, y, ... of 3 points or more"
            )
        lost = f"{where}: segmentation[{none[0]}] is no polygon of 3 points or more; left out" if none else None
        return tuple(points), lost
    if isinstance(value, dict) and "counts" in value:
        if value.get("size") != list(size):
            raise DataError(f"{where}: segmentation is of size {value.get('size')}, the picture {list(size)} [H, W]")
        counts = value["counts"]
        if isinstance(counts, list):
            if not all(type(c) is int and c >= 0 for c in counts) or sum(counts) != size[0] * size[1]:
                raise DataError(f"{where}: the run lengths of its segmentation do not add up to {size[0]} x {size[1]}")
            packed: bytes = coco.frPyObjects({"size": list(size), "counts": counts}, *size)["counts"]
            return packed, None
        if isinstance(counts, str):
            packed = counts.encode("ascii", "replace")
            if _runs(packed) == size[0] * size[1]:
                return packed, None
        raise DataError(f"{where}: the run lengths of its segmentation do not describe {size[0]} x {size[1]} pixels")
    raise DataError(f"{where}: has no segmentation; give polygons or run lengths")


def _runs(counts: bytes) -> int:
    """Return how many pixels compressed run lengths describe, or -1 where they are none (COCO's rleFrString)."""
    runs: list[int] = []
    k = 0
    while k < len(counts):
        value = shift = 0
        more = True
        while more:
            if k >= len(counts) or not 48 <= counts[k] < 112 or shift > 60:
                return -1
            c = counts[k] - 48
            value |= (c & 0x1F) << shift
            more = bool(c & 0x20)
            k += 1
            shift += 5
            if not more and c & 0x10:
                value |= -1 << shift
        if len(runs) > 2:
            value += runs[-2]
        if value < 0:
            return -1
        runs.append(value)
    return sum(runs)


def _corners(polygon: Any) -> NDArray[np.float64] | None:
    """Return the corners of a polygon, [P, 2], or None where it is none."""
    if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2 or not set(map(type, polygon)) <= _NUMBERS:
        return None
    try:
        corners = np.array([float(v) for v in polygon], np.float64).reshape(-1, 2)
    except (OverflowError, ValueError):  # an int of hundreds of digits, a text that is no number
        return None
    return corners if (abs(corners) <= MAX_COORDINATE).all() else None  # NaN is not
