"""Checks of boxes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from visionkit.data.audit.findings import Example, Finding, Severity, located
from visionkit.data.audit.snapshot import Labelled, Snapshot

__all__ = ["CHECKS"]

SAME = 0.9  # intersection over union from which two boxes are of one object, most likely
REPEATED = 0.5  # pixels by which the corners of a box that was written twice differ at most
MAX_ASPECT = 50.0
HARD, MANY_HARD = 16.0, 0.1  # pixels at the model's size; share of the objects from which it is a warning
MANY_BLIND = 0.05


def overlaps(s: Snapshot) -> list[Finding]:
    """Pairs of boxes that nearly cover each other."""
    if _units(s):
        return []
    repeated: list[Example] = []
    double: list[Example] = []
    contradictory: list[Example] = []
    for image, boxes in _boxes(s):
        gone: set[int] = set()
        for i, k, iou in _pairs(boxes, image.crowd):
            one, other = (s.classes[image.ids[j]] for j in (i, k))
            if i in gone or k in gone:
                continue
            if one != other:
                text = f"a box of {other} covers one of {one} (IoU {iou:.2f})"
                contradictory.append(_example(image, boxes, text, k, i))
            elif np.abs(boxes[i] - boxes[k]).max() <= REPEATED:
                gone.add(k)
                repeated.append(_example(image, boxes, f"the same box of {one} again", k, i, mended=True))
            else:
                double.append(_example(image, boxes, f"a box of {one} covers another one (IoU {iou:.2f})", k, i))
    return [
        *Finding.of("box-repeated", repeated),
        *Finding.of("box-duplicate", double),
        *Finding.of("box-contradictory", contradictory),
    ]


def _pairs(boxes: NDArray[np.float32], crowd: NDArray[np.bool_]) -> Iterator[tuple[int, int, float]]:
    """Yield pairs of boxes that are of one object, most likely; crowds are of none."""
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    corner = np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    sides = (np.minimum(boxes[:, None, 2:], boxes[None, :, 2:]) - corner).clip(0)
    inner = sides.prod(2)
    iou = inner / np.maximum(areas[:, None] + areas[None] - inner, 1e-9)
    iou[crowd] = iou[:, crowd] = 0
    for i, k in np.argwhere(np.triu(iou, 1) > SAME).tolist():
        yield i, k, float(iou[i, k])


def shapes(s: Snapshot) -> list[Finding]:
    """Boxes that are lines."""
    found = []
    for image, boxes in _boxes(s):
        sides = boxes[:, 2:] - boxes[:, :2]
        thin = sides.max(1) > MAX_ASPECT * np.maximum(sides.min(1), 1e-9)
        for i in np.flatnonzero(thin).tolist():
            text = f"a box of {s.classes[image.ids[i]]}, {sides[i, 0]:.0f} x {sides[i, 1]:.0f} pixels"
            found.append(_example(image, boxes, text, i))
    return [] if _units(s) else Finding.of("box-shape", found)


def small(s: Snapshot) -> list[Finding]:
    """Objects that the model hardly sees."""
    if _units(s):
        return []
    found: list[tuple[float, Example]] = []
    total = 0
    larger = 0
    for image, boxes in _boxes(s):
        height, width = s.edges_of[image.path]
        scale = min(s.size[0] / height, s.size[1] / width)
        sides = np.sqrt((boxes[:, 2:] - boxes[:, :2]).prod(1)) * scale
        sides = np.where(image.crowd, np.inf, sides)
        total += int((~image.crowd).sum())
        larger += int((2 * sides < HARD).sum())
        for i in np.flatnonzero(sides < HARD).tolist():
            text = f"{s.classes[image.ids[i]]} is {sides[i]:.1f} pixels large at the model's size"
            found.append((float(sides[i]), _example(image, boxes, text, i)))
    blind = sum(side < s.stride for side, _ in found)
    height, width = s.size
    size = f"{height}" if height == width else f"{height} x {width}"
    what = (
        f"{len(found)} of {total} objects are under {HARD:.0f} pixels at size {size}, {blind} of them under {s.stride}"
    )
    if height == width:
        what += f" (at size {2 * height}: {larger} under {HARD:.0f})"
    serious = bool(total) and (len(found) > MANY_HARD * total or blind > MANY_BLIND * total)
    severity: Severity = "warning" if serious else "note"
    examples = [e for _, e in sorted(found, key=lambda f: f[0])]
    return Finding.of("object-small", examples, what=what, severity=severity)


def _units(s: Snapshot) -> bool:
    """Return whether boxes are in another unit than they should: all else that is wrong with them follows."""
    return any(f.kind == "label-units" for f in s.faults)


def _boxes(s: Snapshot) -> Iterator[tuple[Labelled, NDArray[np.float32]]]:
    """Yield the images that have boxes and can be read."""
    for image in s.images:
        if image.boxes is not None and len(image.boxes) and image.path in s.edges_of:
            yield image, image.boxes


def _example(
    image: Labelled, boxes: NDArray[np.float32], text: str, at: int, *others: int, mended: bool = False
) -> Example:
    where = image.places[at] if at < len(image.places) else image.source or image.path
    file, line = located(f"{where}: ")
    drawn = tuple((float(x1), float(y1), float(x2), float(y2)) for x1, y1, x2, y2 in boxes[[at, *others]])
    return Example(f"{where}: {text}", file, line, (image.path,), (image.split,), drawn, mended)


CHECKS: tuple[Callable[[Snapshot], list[Finding]], ...] = (overlaps, shapes, small)
"""All of this file."""
