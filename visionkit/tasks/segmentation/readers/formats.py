"""The formats of images with masks: a line each. Of several in one folder the first is read: masks before outlines."""

from __future__ import annotations

from visionkit.core.errors import DataError, UsageError
from visionkit.data.dataset import DataSplits
from visionkit.data.formats import Formats, Request
from visionkit.tasks.segmentation.readers import coco, mask_folders
from visionkit.tasks.segmentation.readers.reader import MaskDataset
from visionkit.tasks.segmentation.readers.shapes import ShapesSegmentation

__all__ = ["FORMATS"]


def _draw(count: int, seed: int, request: Request) -> MaskDataset:
    ignore = request.options.get("ignore")
    if ignore:
        raise UsageError(f"ignore: {', '.join(ignore)}: drawn shapes ignore nothing; give the root of your images")
    return ShapesSegmentation(count, seed=seed, channels=request.channels)


def _check(found: DataSplits[MaskDataset], request: Request) -> None:
    """Refuse masks that show no class, where they are read in any case to divide the images by class."""
    train = found.get("train")
    if found.val is None and len(train) > 1 and not any(train.labels):
        why = train.mismatch(0) or "all is ignored, label some pixels"
        raise DataError(f"{request.root}: no training mask shows a class; {why}")


FORMATS = Formats[MaskDataset](
    formats=(
        mask_folders.VOC,
        mask_folders.CITYSCAPES,
        mask_folders.FOLDERS,
        coco.FORMAT,
    ),
    labels="masks",
    draw=_draw,
    drawn=(600, 150),
    check=_check,
)
"""What SegmentationData reads; with the option ``ignore``, names of classes whose pixels are ignored."""
