"""What every reader of boxes does the same: boxes known and put right without pixels, images read one at a time."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visionkit.core.errors import DataError
from visionkit.core.sample import ImageInfo
from visionkit.data.dataset import EntryDataset
from visionkit.data.labels.checks import header_size, other_size
from visionkit.data.labels.faults import fault
from visionkit.data.labels.masks import ObjectMasks, Outline
from visionkit.tasks.detection.readers.box_cleaning import MIN_BOX_SIDE, Correction, RawBox, clean, kept_places
from visionkit.tasks.detection.types import BoxTarget

__all__ = ["BoxDataset", "BoxEntry", "make_entry", "present", "refuse_no_masks"]


@dataclass(frozen=True)
class BoxEntry:
    """One image of a data set, before its pixels are read. The boxes are one array: many tensors are slow to send.

    Args:
        id: Path of the file, or another unique name.
        key: Name that does not depend on where the data set lies; an automatic split goes by it.
        objects: float32 [N, 7], a row an object: x1, y1, x2, y2, class id, 1 for a crowd, area in pixels.
        labels: Ids of the classes that are present, crowds aside.
        size: Height and width in pixels as the labels say, or None where they say nothing.
        relative: Whether the boxes are shares of the picture (0..1) instead of pixels.
        source: The file that the boxes come from.
        corrections: What was wrong with boxes and what was done.
        extra: Further facts that come back with the prediction.
        outlines: The N masks, polygons in the unit of the boxes; None where they are not read.
        places: Where each of the N objects stands (file:line); known only where faults are gathered.
    """

    id: str
    key: str
    objects: NDArray[np.float32]
    labels: tuple[int, ...]
    size: tuple[int, int] | None = None
    relative: bool = False
    source: str = ""
    corrections: tuple[Correction, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)
    outlines: tuple[Outline, ...] | None = None
    places: tuple[str, ...] = ()

    def target(self, size: tuple[int, int]) -> BoxTarget:
        """Return the boxes in pixels of the picture.

        Args:
            size: Its height and width in pixels.
        """
        boxes, areas = self.objects[:, :4], self.objects[:, 6]
        kept = np.ones(len(boxes), bool)
        if self.size is None:  # nothing was known of the picture, or too little
            scale = [size[1], size[0]] * 2 if self.relative else [1, 1, 1, 1]
            whole = boxes * np.array(scale, np.float32)
            boxes = np.clip(whole, 0, np.array([size[1], size[0]] * 2, np.float32))
            sides = boxes[:, 2:] - boxes[:, :2]
            changed = self.relative | (boxes != whole).any(1)
            areas = np.where(changed, sides.prod(1), areas)
            kept = np.asarray((sides >= MIN_BOX_SIDE).all(1))
            rows = np.concatenate([boxes, self.objects[:, 4:6], areas[:, None]], 1)[kept]
        else:
            rows = self.objects
        return BoxTarget.make(
            rows[:, :4].copy(), rows[:, 4].astype(np.int64), rows[:, 5] > 0, rows[:, 6].copy(), self._masks(size, kept)
        )

    def _masks(self, size: tuple[int, int], kept: NDArray[np.bool_]) -> ObjectMasks | None:
        if self.outlines is None:
            return None
        outlines = [o for o, k in zip(self.outlines, kept.tolist(), strict=True) if k]
        if self.relative:
            outlines = [o if isinstance(o, bytes) else tuple(p * size[::-1] for p in o) for o in outlines]
        return ObjectMasks(tuple(outlines), size)


def make_entry(
    id: str,
    key: str,
    raw: Sequence[RawBox],
    classes: Sequence[str],
    *,
    size: tuple[int, int] | None,
    source: str,
    extra: Mapping[str, Any] | None = None,
) -> BoxEntry:
    """Return an entry with boxes that were put right.

    Args:
        id: Path of the image file.
        key: Name that does not depend on where the data set lies.
        raw: Boxes in pixels.
        classes: Class names.
        size: Height and width as the labels say; None reads them from the head of the file where that works.
        source: The file that the boxes come from.
        extra: Further facts that come back with the prediction.
    """
    objects, corrections, _ = clean(raw, size or header_size(id), classes)
    return BoxEntry(
        id, key, objects, present(objects), size, False, source, tuple(corrections), extra or {},
        places=kept_places(raw, corrections),
    )  # fmt: skip


def present(objects: NDArray[np.float32]) -> tuple[int, ...]:
    """Return the ids of the classes in the rows of an entry, crowds aside, sorted."""
    return tuple(sorted({int(row[4]) for row in objects.tolist() if not row[5]}))


def refuse_no_masks(entries: Sequence[BoxEntry], source: str | os.PathLike[str]) -> None:
    """Refuse a data set where masks are asked for and not one object has a mask.

    Raises:
        DataError: It is so; the first object.
    """
    ignored = [c for e in entries for c in e.corrections if c.ignored]
    if ignored and not any(e.labels for e in entries):
        what = f"none of its objects has a mask ({ignored[0].text}); add masks, or leave masks out"
        fault("outline-missing", f"{source}: {what}")


class BoxDataset(EntryDataset[BoxTarget, BoxEntry]):
    """Images with boxes, at their original size. Images without objects are part of it.

    Args:
        entries: The images, in order.
        classes: Class names; a name's position is its id.
        channels: 3 for RGB, 1 for gray, another number for multi-band files.
    """

    labels: list[tuple[int, ...]]
    """Class ids that each entry shows, crowds aside; known without reading pixels."""
    problems: list[str]
    """A line for each object that was clipped, dropped or ignored: file and line, what was wrong, what was done."""

    def _hold(self, entries: Sequence[BoxEntry]) -> None:
        super()._hold(entries)
        self.labels = [e.labels for e in self.entries]
        self.problems = [c.text for e in self.entries for c in e.corrections]

    def target_of(self, index: int, size: tuple[int, int]) -> tuple[BoxTarget, ImageInfo]:
        """Return target and info of image ``index``, whose height and width are given.

        Raises:
            DataError: The labels were made for another size.
        """
        entry = self.entries[index]
        if entry.size is not None and entry.size != size:
            raise DataError(other_size(entry.id, size, entry.size, entry.source))
        return entry.target(size), ImageInfo(entry.id, size, extra=entry.extra)

    def mismatch(self, index: int) -> str | None:
        """Return why the size of an image is not the one that its labels were made for, from the head of its file."""
        entry = self.entries[index]
        size = None if entry.size is None else header_size(entry.id)
        if size is None or entry.size is None or size in (entry.size, entry.size[::-1]):  # turned: reading tells
            return None
        return other_size(entry.id, size, entry.size, entry.source)

    def groups_and_labels(self) -> tuple[Sequence[str], Sequence[Collection[int]]]:
        """Return what an automatic split goes by; see :meth:`VisionDataset.groups_and_labels`."""
        return [e.key for e in self.entries], self.labels
