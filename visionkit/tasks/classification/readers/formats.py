"""The formats of images with classes: a line each."""

from __future__ import annotations

from visionkit.core.errors import DataError
from visionkit.data.dataset import DataSplits
from visionkit.data.formats import Formats, Request
from visionkit.tasks.classification.readers import folder, manifest
from visionkit.tasks.classification.readers.reader import ClassDataset
from visionkit.tasks.classification.readers.shapes import ShapesClassification

__all__ = ["FORMATS"]


def _draw(count: int, seed: int, request: Request) -> ClassDataset:
    multilabel = bool(request.options.get("multilabel"))
    return ShapesClassification(count, seed=seed, multilabel=multilabel, channels=request.channels)


def _check(found: DataSplits[ClassDataset], request: Request) -> None:
    """Refuse classes without a training image; a checkpoint may have some."""
    train = found.get("train")
    trained = {i for labels in train.labels for i in labels}
    lost = [c for i, c in enumerate(train.classes) if i not in trained]
    if lost and request.classes is None:
        raise DataError(
            f"{request.root}: no training image of {', '.join(lost[:10])}; add images or another group of them"
        )


FORMATS = Formats[ClassDataset](
    formats=(
        manifest.FORMAT,
        folder.FORMAT,
    ),
    labels="class folders",
    draw=_draw,
    drawn=(1200, 300),
    check=_check,
)
"""What ClassificationData reads; with the option ``multilabel``, which None takes from the manifest."""
