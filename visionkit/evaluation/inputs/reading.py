"""The one way in for predictions of files: what it is, is told by what it holds."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

from visionkit.core.errors import DataError, UsageError
from visionkit.core.files import missing, open_binary
from visionkit.data.dataset import VisionDataset
from visionkit.data.images.listing import list_images
from visionkit.evaluation.inputs.coco_results import RESULTS, read_coco_results
from visionkit.evaluation.inputs.found import FilePredictions
from visionkit.evaluation.inputs.images import DataImages
from visionkit.evaluation.inputs.mask_pictures import read_mask_pictures
from visionkit.evaluation.inputs.records import KEYS, RECORDS, read_records
from visionkit.evaluation.inputs.tables import read_table_of_classes
from visionkit.evaluation.inputs.yolo_text import label_files, read_yolo_text
from visionkit.models.run_folder import is_checkpoint

__all__ = ["FilePredictions", "Task", "read_predictions"]

Task: TypeAlias = Literal["classification", "detection", "instance", "segmentation"]
_HEAD = 2**16  # bytes that tell what a file is
_BOXES = "COCO results (.json), a folder of YOLO text with confidences, or visionkit's predictions.jsonl"
_UNDERSTOOD: dict[Task, str] = {
    "classification": "a table (.csv or .jsonl: image,label,score or a column for each class), or visionkit's "
    "predictions.jsonl",
    "detection": _BOXES,
    "instance": _BOXES,
    "segmentation": "a folder of pictures of class ids, or visionkit's predictions.jsonl with masks/ beside it",
}
_MASKS = "masks"
_PACKED = (b"\x1f\x8b", b"PK\x03\x04", b"BZh", b"\xfd7zXZ")
Read: TypeAlias = Callable[[], FilePredictions]


def read_predictions(
    path: str | os.PathLike[str],
    *,
    task: Task,
    dataset: VisionDataset[Any],
    classes: Sequence[str],
    root: str | os.PathLike[str] | None = None,
    coco_annotations: str | os.PathLike[str] | None = None,
    allow_missing: bool = False,
) -> FilePredictions:
    """Read predictions of the images of a data set, whichever program wrote them.

    Boxes and masks of objects: COCO results, YOLO text, visionkit's records. Pixels: pictures of class ids, visionkit's
    records. Classes: a table, visionkit's records. What it is, is told by what it holds, not by its name. See the
    readers in this folder.

    Args:
        path: The file, or the folder.
        task: What the data are for.
        dataset: The images with their truth; those predicted are to be these.
        classes: Class names in the order of the ids that predictions get.
        root: The folder of the data, from which names of images may count; None takes the one that holds all images.
        coco_annotations: A file that explains the ids of COCO results; None as :func:`read_coco_results` says.
        allow_missing: Whether images without a prediction are left out, where each needs one (classes, pixels).

    Raises:
        DataError: The file is wrong or cannot be read, or speaks of images or classes that the data lack.
        UsageError: It is nothing that holds predictions for this task.
    """
    given = Path(path)
    if not given.exists():
        raise DataError(missing(given, "file or folder of predictions"))
    if is_checkpoint(given):
        raise UsageError(f"{given}: is a checkpoint or the folder of a run, no predictions; give it as --ckpt")
    images = DataImages(dataset, root)
    masks = task == "instance"
    multilabel = bool(getattr(dataset, "multilabel", False))
    annotations = None if coco_annotations is None else Path(coco_annotations)

    def records(file: Path) -> FilePredictions:
        return read_records(file, images, classes, task=task, multilabel=multilabel, allow_missing=allow_missing)

    def results(file: Path) -> FilePredictions:
        return read_coco_results(file, images, classes, masks=masks, annotations=annotations)

    boxes = task in ("detection", "instance")
    if given.is_dir():
        if (given / RECORDS).is_file():
            return records(given / RECORDS)
        if boxes and (given / RESULTS).is_file():
            return results(given / RESULTS)
        if boxes and label_files(given):
            return read_yolo_text(given, images, classes, masks=masks)
        place = given / _MASKS if (given / _MASKS).is_dir() else given
        if task == "segmentation" and list_images(place):
            return read_mask_pictures(place, images, classes, allow_missing=allow_missing)
        raise _not_understood(given, task, "holds no predictions that are understood")
    kind = _kind(given)
    if kind == "records":
        return records(given)
    if kind in ("list", "object") and boxes:
        return results(given)
    if kind == "table" and task == "classification":
        return read_table_of_classes(given, images, classes, multilabel=multilabel, allow_missing=allow_missing)
    raise _not_understood(given, task, _SEEN[kind])


_SEEN = {
    "list": "is a JSON list, as COCO results are",
    "table": "is a table",
    "object": "is one JSON object",
    "text": "is no kind of predictions that is understood",
    "bytes": "is no text",
    "packed": "is compressed (unpack it first)",
    "empty": "is empty",
}


def _not_understood(path: Path, task: Task, what: str) -> UsageError:
    name = {"classification": "classes", "segmentation": "a class for each pixel", "instance": "masks of objects"}
    return UsageError(
        f"{path}: {what}, and the data want {name.get(task, 'boxes')}; understood are {_UNDERSTOOD[task]}"
    )


def _kind(file: Path) -> str:
    """Return what a file holds, by its first bytes."""
    with open_binary(file) as stream:
        head = stream.read(_HEAD)
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if not text:
        return "empty"
    if head.startswith(_PACKED):
        return "packed"
    if b"\0" in text:
        return "bytes"
    if text[:1] == b"[":
        return "list"
    if text[:1] != b"{":
        return "table" if file.suffix.lower() == ".csv" else "text"
    if file.suffix.lower() == ".jsonl":
        return "records" if _is_record(text) else "table"
    return "object"


def _is_record(head: bytes) -> bool:
    """Return whether the first line is a record of predictions; what is wrong with it is its reader's to say."""
    line = head.split(b"\n", 1)[0]
    try:
        said = json.loads(line)
    except (ValueError, RecursionError):
        return any(b'"%s"' % key.encode() in line for key in KEYS.values())
    return isinstance(said, dict) and any(isinstance(said.get(key), dict | list) for key in KEYS.values())
