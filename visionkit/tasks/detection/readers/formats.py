"""The formats of images with boxes: a line each. Of several in one folder the first is read, which knows most."""

from __future__ import annotations

from visionkit.core.errors import DataError
from visionkit.data.dataset import DataSplits
from visionkit.data.formats import Formats, Request
from visionkit.tasks.detection.readers import coco, voc, yolo
from visionkit.tasks.detection.readers.reader import BoxDataset
from visionkit.tasks.detection.readers.shapes import ShapesDetection

__all__ = ["FORMATS"]


def _draw(count: int, seed: int, request: Request) -> BoxDataset:
    masks = bool(request.options.get("masks"))
    return ShapesDetection(count, seed=seed, channels=request.channels, masks=masks)


def _check(found: DataSplits[BoxDataset], request: Request) -> None:
    if not any(found.get("train").labels):
        raise DataError(f"{request.root}: no training image has a box; label some objects")


FORMATS = Formats[BoxDataset](
    formats=(
        coco.FORMAT,
        voc.FORMAT,
        yolo.FORMAT,
    ),
    labels="boxes",
    draw=_draw,
    drawn=(600, 150),
    check=_check,
)
"""What DetectionData reads; with the option ``masks``, whether to read those of the objects, too."""
