"""COCO JSON: the class of each pixel from the outlines of objects."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visionkit.core.errors import DataError
from visionkit.data.dataset import DataSplits
from visionkit.data.formats import Format, Part, Request, below, make_splits, read_parts, tell_parts
from visionkit.data.labels.checks import header_size, other_size
from visionkit.data.labels.coco_files import coco_files
from visionkit.data.labels.coco_json import CocoImage, read_coco
from visionkit.data.labels.coco_objects import find_apart, read_outline
from visionkit.data.labels.masks import IGNORE, ObjectMasks, Outline
from visionkit.data.labels.numbers import number
from visionkit.tasks.segmentation.readers.class_table import ClassRow, ClassTable
from visionkit.tasks.segmentation.readers.mask_code import Mask, make_code
from visionkit.tasks.segmentation.readers.reader import MaskDataset, MaskEntry

__all__ = ["FORMAT", "CocoMaskDataset", "CocoMaskEntry"]


@dataclass(frozen=True)
class CocoMaskEntry(MaskEntry):
    """One image of a COCO JSON file.

    Args:
        size: Height and width as the file says, else as the head of the image does; None where neither is known.
        objects: Outline, class id or 255, and whether it is a crowd, of each object.
    """

    size: tuple[int, int] | None = None
    objects: tuple[tuple[Outline, int, bool], ...] = ()


class CocoMaskDataset(MaskDataset):
    """Images of a COCO JSON file whose objects are painted into a mask.

    Class 0 is ``background``, unless a category has that name; then the categories by id. Crowds are painted first,
    then the other objects from the largest to the smallest, so that small ones lie on top. Where the segmentation of an
    object is missing or wrong, its box is ignored (255), and the whole picture where it has no box either: what is
    there is not known, so it is no background. So are objects with ``ignore``, and those whose box and outline do not
    touch. ``problems`` tells them.

    Args:
        annotations: The JSON file.
        images: The folder that its file names count from; None looks beside the JSON file, as ``CocoDataset`` does.
        classes: Class names in order (of a checkpoint); None takes the background and the categories.
        ignore: Categories whose pixels are ignored; None for void, unlabeled, ignore and the like.
        channels: 3 for RGB, 1 for gray, another number for multi-band files.

    Raises:
        DataError: The file or something in it is wrong, or no object has a segmentation; or image files are missing.
        UsageError: ``classes`` is empty or has a name twice, or ``ignore`` names no category.
    """

    def __init__(
        self,
        annotations: str | os.PathLike[str],
        images: str | os.PathLike[str] | None = None,
        *,
        classes: Sequence[str] | None = None,
        ignore: Sequence[str] | None = None,
        channels: int = 3,
    ) -> None:
        self.file = Path(annotations)
        content = read_coco(annotations, images)
        records = [o.record for p in content.pictures for o in p.objects]
        if records and not any(r.get("segmentation") for r in records):
            raise DataError(
                f"{self.file}: none of its {len(records)} annotations has a segmentation, only boxes; give a file with "
                "polygons or run lengths, or train a detector"
            )
        first = next((i for i, n in enumerate(content.classes) if n.lower() == "background"), None)
        names = content.classes if first is not None else ("background", *content.classes)
        used = {names[o.label + (first is None)] for p in content.pictures for o in p.objects} | {names[first or 0]}
        asked = {*used, *(names if classes is None else classes), *(ignore or ())}
        rows = tuple(ClassRow(i, n) for i, n in enumerate(names) if n in asked)
        table = ClassTable(rows, str(self.file), "json")
        self.code = make_code(table, ignore=ignore, classes=classes)
        """What the categories became."""
        self.background = self.code.ids[first or 0]
        labels = [self.code.ids.get(i + (first is None), IGNORE) for i in range(len(content.classes))]
        super().__init__(
            [_entry(p, labels, str(self.file)) for p in content.pictures], self.code.classes, channels=channels
        )

    def read_mask(self, index: int) -> Mask:
        """Paint the mask of image ``index``, uint8 [H, W], 255 for pixels that are ignored.

        Raises:
            DataError: The size of the image is not known.
        """
        entry = self._entry(index)
        if entry.size is None:
            raise DataError(f"{entry.id}: its size is not known; write its width and height into {entry.mask}")
        outlines = ObjectMasks(tuple(o for o, _, _ in entry.objects), entry.size)
        outlines = ObjectMasks(tuple(r["counts"] for r in outlines.rles()), entry.size)  # once for area and pixels
        areas = outlines.areas()
        order = sorted(range(len(outlines)), key=lambda i: (not entry.objects[i][2], -areas[i]))
        mask = np.full(entry.size, self.background, np.uint8)
        for i in order:
            mask[outlines.select([i]).dense()[0] != 0] = entry.objects[i][1]
        return mask

    def mismatch(self, index: int) -> str | None:
        """Return why the size of an image is not the one that its outlines were made for, from the head of its file."""
        entry = self._entry(index)
        size = header_size(entry.id)
        if size is None or entry.size is None or size in (entry.size, entry.size[::-1]):  # turned: reading tells
            return None
        return other_size(entry.id, size, entry.size, entry.mask)

    def count_objects(self) -> int:
        """Return the number of objects that are painted with their class."""
        return sum(label != IGNORE for i in range(len(self)) for _, label, _ in self._entry(i).objects)

    def _entry(self, index: int) -> CocoMaskEntry:
        entry = self.entries[index]
        assert isinstance(entry, CocoMaskEntry)
        return entry


def _entry(picture: CocoImage, labels: Sequence[int], source: str) -> CocoMaskEntry:
    size = picture.size or header_size(picture.path)
    objects: list[tuple[Outline, int, bool]] = []
    problems: list[str] = []
    for o in picture.objects:
        if size is None:
            continue
        try:
            outline, part = read_outline(o, size)
            problems += [] if part is None else [part]
            apart = find_apart(o, outline, size)
            if apart is not None:  # what is at either place is not known
                box, _ = _unknown(o.record.get("bbox"), size)
                objects.append(((box,), IGNORE, o.crowd))
                problems.append(f"{apart.text}; both are ignored")
            objects.append((outline, IGNORE if apart or o.ignored else labels[o.label], o.crowd))
        except DataError as e:
            box, what = _unknown(o.record.get("bbox"), size)
            objects.append(((box,), IGNORE, o.crowd))
            problems.append(f"{e}; {what} is ignored")
    return CocoMaskEntry(
        picture.path, picture.key, source, tuple(problems), {"image_id": picture.id}, size, tuple(objects)
    )


def _unknown(box: Any, size: tuple[int, int]) -> tuple[NDArray[np.float64], str]:
    """Return the corners of where an object lies whose outline is not known, [4, 2], and what that is called."""
    sides = [n for v in box if (n := number(v)) is not None] if isinstance(box, list) else []
    x, y, w, h = sides if len(sides) == 4 and np.isfinite(sides).all() else (0.0, 0.0, 0.0, 0.0)
    known = w > 0 and h > 0
    x1, y1, x2, y2 = (x, y, x + w, y + h) if known else (0.0, 0.0, float(size[1]), float(size[0]))
    x1, y1, x2, y2 = *np.floor((x1, y1)), *np.ceil((x2, y2))  # with the pixels that it touches alone
    corners = np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]], np.float64)
    limit = (float(size[1]), float(size[0]))
    return np.clip(corners, 0, limit), "its box" if known else "the whole picture"


def _find(root: Path) -> dict[str, Part[CocoMaskDataset]] | None:
    files = coco_files(root) if root.is_dir() else {"": root} if root.suffix.lower() == ".json" else {}
    return {
        n: Part(f.name if f == root else below(f, root), partial(_read_split, f, n)) for n, f in files.items()
    } or None


def _read_split(file: Path, name: str, **asked: Any) -> CocoMaskDataset:
    data = CocoMaskDataset(file, **asked)
    if name in ("train", "") and not data.count_objects():
        why = f" that is learnt (first: {data.problems[0]})" if data.problems else ""
        raise DataError(f"{file}: no training image has an object{why}; label some")
    return data


def _read(parts: Mapping[str, Part[CocoMaskDataset]], request: Request) -> DataSplits[MaskDataset]:
    done = read_parts(parts, request, ignore=request.options.get("ignore"))
    told = tell_parts({n: p.where for n, p in parts.items()}, done, _count)
    return make_splits(done, f"COCO JSON of {request.root}: {told}")


def _count(data: CocoMaskDataset) -> str:
    lost = f", {len(data.problems)} without an outline or with a part of it alone" if data.problems else ""
    return f"{len(data)} images with {data.count_objects()} objects{lost}"


FORMAT = Format[MaskDataset](
    "COCO JSON",
    "COCO JSON with polygons (annotations/instances_train2017.json)",
    _find,
    _read,
    frozenset({"pixels", "names"}),
)
"""Outlines of objects, painted."""
