"""The class of each pixel that was predicted, as it lies beside an evaluation."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from visionkit.core.errors import VisionkitError
from visionkit.evaluation.report.gallery import PixelTruth
from visionkit.evaluation.report.source import Source
from visionkit.prediction.resuming import given_images
from visionkit.prediction.writers import files_beside
from visionkit.tasks.segmentation.readers.mask_files import read_mask_file

__all__ = ["predicted_pixels"]

MASKS = "masks"
"""Name of their folder."""


def predicted_pixels(source: Source) -> PixelTruth | None:
    """Return what finds the predicted classes of a picture; None where the evaluation holds none."""
    evaluation, folder = source.evaluation, source.folder
    if evaluation is None or folder is None or evaluation.task != "segmentation" or not (folder / MASKS).is_dir():
        return None
    places = files_beside(given_images(folder, [image.id for image in evaluation.images]), ".png")

    def pixels(position: int) -> NDArray[Any] | None:
        image = evaluation.images[position]
        try:
            ids = read_mask_file(folder / MASKS / places[image.id]).ids
        except VisionkitError:
            return None
        return ids if ids is not None and ids.shape == image.size else None

    return pixels
