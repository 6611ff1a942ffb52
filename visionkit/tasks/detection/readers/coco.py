"""COCO JSON: boxes."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from visionkit.core.errors import DataError
from visionkit.data.dataset import DataSplits
from visionkit.data.formats import Format, Part, Request
from visionkit.data.labels.checks import header_size
from visionkit.data.labels.coco_files import coco_files
from visionkit.data.labels.coco_json import read_coco
from visionkit.data.labels.coco_objects import CocoObject, find_apart, read_outline
from visionkit.data.labels.masks import read_polygons
from visionkit.data.labels.numbers import number
from visionkit.tasks.detection.readers.box_cleaning import Correction, RawBox, around_turned, clean, without_mask
from visionkit.tasks.detection.readers.parts import read_boxes, told_place
from visionkit.tasks.detection.readers.reader import BoxDataset, BoxEntry, present, refuse_no_masks

__all__ = ["FORMAT", "CocoDataset"]


class CocoDataset(BoxDataset):
    """Images with boxes, and masks where asked for, from a COCO JSON file.

    What counts is the name of a category, never its id.
    Images are ordered by file name, classes by category id as in YOLO's files of the same data.
    Boxes without ``bbox`` take the box around their polygons. ``iscrowd`` makes a crowd. ``area`` is that of the file,
    else that of the box. The ``id`` of an image comes back with its prediction as ``image_id``. An object whose
    ``segmentation`` is missing or wrong is ignored where masks are asked for: neither learnt nor counted. So is one
    with ``ignore``, and one whose box and outline do not touch. A box that CVAT turned (``rotation`` among its
    attributes) becomes the box around it.

    Args:
        annotations: The JSON file.
        images: The folder that its file names count from; None looks beside the JSON file: in its folder, and in
            images/ and the folders of its split (``instances_train2017.json``: train2017/) there and one level up.
        classes: Class names in order; None takes those of the categories, by category id. An unused category with id 0
            that is the supercategory of others, as Roboflow writes it, is no class.
        channels: 3 for RGB, 1 for gray, another number for multi-band files.
        masks: Whether to read the masks: polygons, or run lengths as numbers or text.

    Raises:
        DataError: The file or something in it is wrong, with line or annotation id; image files are missing; or masks
            are asked for and there are none.
        UsageError: ``classes`` is empty or has a name twice.
    """

    def __init__(
        self,
        annotations: str | os.PathLike[str],
        images: str | os.PathLike[str] | None = None,
        *,
        classes: Sequence[str] | None = None,
        channels: int = 3,
        masks: bool = False,
    ) -> None:
        self.file = Path(annotations)
        content = read_coco(annotations, images, classes=classes)
        entries = []
        strange: list[str] = []
        for picture in content.pictures:
            raw: list[RawBox] = []
            lost = [Correction(line, True) for line in picture.repeated]
            stated = picture.size or (_mask_size(picture.objects) if masks else None)
            size = stated or header_size(picture.path)
            for o in picture.objects:
                box = _box(o)
                if isinstance(box, Correction):
                    lost.append(box)
                    continue
                found = RawBox(box, o.label, o.where, o.crowd, _area(o.record))
                if masks:
                    try:
                        outline, part = read_outline(o, size or (0, 0))
                        found = found._replace(outline=outline)  # without a size: polygons
                        lost += [] if part is None else [Correction(part, False, part=True)]
                    except DataError as e:
                        found, ignored = without_mask(found, str(e))
                        lost.append(ignored)
                        raw.append(found)
                        continue
                apart = find_apart(o, found.outline, size)
                if apart is not None:  # what is at either place is not known
                    for place in (box, apart.around):
                        found, ignored = without_mask(found._replace(box=place), apart.text)
                        raw.append(found)
                    lost.append(ignored)
                    strange.append(apart.text)
                    continue
                raw.append(found)
            rows, corrections, outlines = clean(raw, size, content.classes)
            entries.append(
                BoxEntry(
                    picture.path, picture.key, rows, present(rows), stated, False, str(self.file),
                    (*lost, *corrections), {"image_id": picture.id}, outlines if masks else None,
                )
            )  # fmt: skip
        total = sum(len(p.objects) for p in content.pictures)
        if len(strange) > total // 2:
            raise DataError(f"{strange[0]}, as it is with {len(strange)} of {total} annotations")
        refuse_no_masks(entries, self.file)
        super().__init__(entries, content.classes, channels=channels)


def _mask_size(objects: Sequence[CocoObject]) -> tuple[int, int] | None:
    """Return height and width of a picture as its run lengths say, or None where there are none."""
    for o in objects:
        mask = o.record.get("segmentation")
        size = mask.get("size") if isinstance(mask, dict) else None
        if isinstance(size, list) and len(size) == 2 and all(type(s) is int and 0 < s < 2**24 for s in size):
            return size[0], size[1]
    return None


def _box(o: CocoObject) -> tuple[float, float, float, float] | Correction:
    """Return the box, xyxy, or what to say where there is none."""
    box = o.record.get("bbox")
    if box:
        numbers = [n for v in box if (n := number(v)) is not None] if isinstance(box, list) else []
        if not isinstance(box, list) or len(box) != 4 or len(numbers) != 4:
            raise DataError(f"{o.where}: bbox is {box!r:.60}; give four numbers: x, y, width, height")
        x, y, w, h = numbers
        attributes = o.record.get("attributes")
        degrees = number(attributes.get("rotation")) if isinstance(attributes, dict) else None
        turned = degrees is not None and math.isfinite(degrees) and not o.record.get("segmentation")
        return around_turned((x, y, x + w, y + h), degrees or 0.0) if turned else (x, y, x + w, y + h)
    polygons = o.record.get("segmentation")
    if isinstance(polygons, list) and polygons:
        points, _ = read_polygons(polygons)
        if not points:
            raise DataError(f"{o.where}: segmentation is no list of polygons; give lists of x, y, x, y, ... or a bbox")
        corners = np.concatenate(points)
        (x1, y1), (x2, y2) = corners.min(0).tolist(), corners.max(0).tolist()
        return x1, y1, x2, y2
    what = "only a run-length mask" if isinstance(polygons, dict) else "no polygon either"
    return Correction(f"{o.where}: no bbox and {what}; dropped", True)


def _area(record: dict[str, Any]) -> float | None:
    return number(record.get("area"))


def _find(root: Path) -> dict[str, Part[BoxDataset]] | None:
    files = coco_files(root) if root.is_dir() else {"": root} if root.suffix.lower() == ".json" else {}
    parts = {
        n: Part[BoxDataset](f.name if f == root else told_place(f, root), partial(CocoDataset, f))
        for n, f in files.items()
    }
    return parts or None


def _read(parts: Mapping[str, Part[BoxDataset]], request: Request) -> DataSplits[BoxDataset]:
    return read_boxes(FORMAT.name, parts, request, masks=bool(request.options.get("masks")))


FORMAT = Format[BoxDataset](
    "COCO JSON",
    "COCO JSON (annotations/instances_train2017.json, train/_annotations.coco.json)",
    _find,
    _read,
    frozenset({"boxes", "masks", "names"}),
)
"""COCO's files, a split each."""
