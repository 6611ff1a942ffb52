"""The folder of an evaluation while pictures are predicted: records as ``visionkit predict`` writes them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from visionkit.core.errors import DataError
from visionkit.core.prediction import Prediction
from visionkit.core.sample import Sample
from visionkit.evaluation.counting import Keep
from visionkit.evaluation.folder import NUMBERS, start_folder
from visionkit.models.head import Head
from visionkit.prediction.resuming import ASKED, alone, note_images
from visionkit.prediction.run_output import Results
from visionkit.prediction.writers import WriterJob
from visionkit.tasks.classification.heads import ClassificationHead
from visionkit.tasks.detection.heads.fcos import FCOSHead
from visionkit.tasks.detection.heads.mask_rcnn import MaskRCNNHead
from visionkit.tasks.segmentation.heads.base import SegmentationHead

__all__ = ["records_of", "writing_predictions"]

_HEADS: dict[str, type[Head]] = {
    "classification": ClassificationHead,
    "detection": FCOSHead,
    "instance": MaskRCNNHead,
    "segmentation": SegmentationHead,
}


@contextmanager
def writing_predictions(
    folder: str, head: Head, classes: Sequence[str], images: Sequence[str], *, overwrite: bool
) -> Iterator[Keep]:
    """Yield what writes predictions into the folder of an evaluation.

    Args:
        folder: The folder; it is made.
        head: Knows how the predictions are written.
        classes: Class names, in the order of their ids.
        images: Paths of all pictures.
        overwrite: Whether an evaluation that is there may be replaced.

    Raises:
        UsageError: One is there, or another process writes into the folder.
        DataError: It cannot be written; or the block raised it: it then says, too, that the old evaluation is gone.
    """
    replaced = (Path(folder) / NUMBERS).exists()
    out = start_folder(folder, overwrite=overwrite)
    results = Results(Path(out), head, tuple(classes))
    results.open_writers((), WriterJob(out, tuple(classes), tuple(images)), overwrite=overwrite)
    try:
        with alone(results.records, None):
            (out / ASKED).unlink(missing_ok=True)  # of predictions that were there before
            with results.opened(()) as files:
                note_images(out, images)  # where masks lie goes by all, though some may not be counted

                def keep(sample: Sample[Any], prediction: Prediction, number: int) -> None:
                    files.add(sample, prediction, number)

                yield keep
    except DataError as e:
        if replaced:
            raise DataError(*e.lines, f"{out}: the evaluation that was there is gone, as it was to be replaced") from e
        raise


def records_of(task: str) -> Head:
    """Return what knows how predictions of a task are written, without a network.

    Args:
        task: "classification", "detection", "instance" or "segmentation".
    """
    kind = _HEADS[task]
    told = {name: getattr(kind, name) for name in ("prediction", "writers", "standard", "columns", "scored")}
    made: Head = type("Records", (Head,), told)()
    return made
