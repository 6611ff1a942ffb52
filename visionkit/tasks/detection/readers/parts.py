"""Reading the splits of a data set with boxes, and saying what was read."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from visionkit.data.dataset import DataSplits
from visionkit.data.formats import Part, Request, below, make_splits, read_parts, tell_parts
from visionkit.tasks.detection.readers.reader import BoxDataset

__all__ = ["read_boxes", "told_place"]


def read_boxes(
    name: str, parts: Mapping[str, Part[BoxDataset]], request: Request, **options: Any
) -> DataSplits[BoxDataset]:
    """Read the splits of a data set.

    Args:
        name: What the format is called.
        parts: The splits that were found.
        request: What is asked.
        options: What the reader takes beside classes and channels.

    Raises:
        DataError: Images or labels are missing, wrong or disagree.
        UsageError: Nothing says the class names.
    """
    done = read_parts(parts, request, **options)
    told = tell_parts({n: p.where for n, p in parts.items()}, done, _count)
    return make_splits(done, f"{name} of {request.root}: {told}{_corrected(done.values())}")


def told_place(path: Path, root: Path) -> str:
    """Return where a split is told, beside the root."""
    return "all images" if path == root else below(path, root)


def _count(data: BoxDataset) -> str:
    boxes = sum(len(e.objects) for e in data.entries)
    return f"{len(data)} images with {boxes} boxes"


def _corrected(parts: Collection[BoxDataset]) -> str:
    every = [c for p in parts for e in p.entries for c in e.corrections]
    gone, ignored = sum(c.dropped for c in every), sum(c.ignored for c in every)
    part = sum(c.part for c in every)
    counts = ((gone, "dropped"), (len(every) - gone - ignored - part, "clipped"))
    told = ", ".join(f"{n} {what}" for n, what in counts if n)
    boxes = f"; wrong boxes: {told}" if told else ""
    boxes += f"; without a fitting outline: {ignored} ignored" if ignored else ""
    return boxes + (f"; {part} lost a part of their outline" if part else "")
