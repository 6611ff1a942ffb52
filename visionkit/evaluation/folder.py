"""The folder that an evaluation is kept in: numbers, pictures with their truth, and what each picture adds."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import visionkit
from visionkit.core.errors import DataError, UsageError
from visionkit.core.files import read_text, remove_left_over, unwritable, write_text
from visionkit.core.output import mark_output
from visionkit.data.labels.checks import once
from visionkit.evaluation.archive import read_arrays, write_arrays
from visionkit.evaluation.images import EvaluatedImage, data_sha256, plain
from visionkit.evaluation.measured import Measured
from visionkit.tasks.classification.metric import ClassificationMetric
from visionkit.tasks.detection.metrics.metric import DetectionMetric
from visionkit.tasks.segmentation.metrics.metric import SegmentationMetric
from visionkit.training.redraw import RedrawnMetric

__all__ = ["EvaluatedImage", "Evaluation", "Measured", "data_sha256", "new_metric", "read_evaluation", "start_folder"]

NUMBERS, IMAGES, ARRAYS = "evaluation.json", "images.jsonl", "numbers.npz"
PREDICTIONS = "predictions.jsonl"
"""Names of the files; the last one is written by whoever predicts."""
TASKS = ("classification", "detection", "instance", "segmentation")
FORMAT = 1
_LIMITS = {NUMBERS: 200_000_000, IMAGES: 1_000_000_000}  # bytes
_MAX_CLASSES = 100_000
_MAX_TABLE = 5_000  # classes of which a table of all pairs is made in memory: of one label, and of boxes
_CELL = re.compile(r"(0|[1-9]\d{0,5}),(0|[1-9]\d{0,5})", re.ASCII)  # 'row,column'
_PARTS = ("calibration", "errors", "thresholds", "views", "ensemble")


@dataclass
class Evaluation:
    """How good predictions are on labelled pictures.

    Args:
        task: "classification", "detection", "instance" or "segmentation".
        classes: Class names, in the order of their ids.
        images: The N pictures, in the order of the metric's rows.
        metric: Holds what each of them adds.
        metrics: Each number with its interval, by the key of the metric's ``compute``.
        multilabel: Whether a picture has several labels.
        data: Where the pictures come from: "root", "split", "format", and what :meth:`write` adds: the numbers of
            "images" and "groups", and "sha256" over the pictures and their truth.
        model: What predicted: "checkpoints" or "predictions", "views", "precision", "seconds_per_image", "weights".
        confusion: "names", "columns", "counts" and the "images" of cells, by ``row,column``; None for several labels.
        curves: Points of curves, by kind and class.
        calibration: How far scores are to be believed.
        errors: Kinds of errors and what mending each would gain.
        thresholds: Scores from which predictions count, by class.
        views: What views of a picture gained.
        ensemble: What several models gained.
        worst: Positions of pictures, the worst first.
        version: Of the visionkit that wrote it.
    """

    task: str
    classes: Sequence[str]
    images: Sequence[EvaluatedImage]
    metric: RedrawnMetric[Any, Any]
    metrics: Mapping[str, Measured]
    multilabel: bool = False
    data: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)
    confusion: dict[str, Any] | None = None
    curves: dict[str, Any] = field(default_factory=dict)
    calibration: dict[str, Any] | None = None
    errors: dict[str, Any] | None = None
    thresholds: dict[str, Any] | None = None
    views: dict[str, Any] | None = None
    ensemble: dict[str, Any] | None = None
    worst: Sequence[int] = ()
    version: str = visionkit.__version__

    @property
    def groups(self) -> list[str | int]:
        """The group of each picture, the picture's own position where it has none."""
        return [k if image.group is None else image.group for k, image in enumerate(self.images)]

    def record(self) -> dict[str, Any]:
        """Return ``evaluation.json`` as plain values; what is no number in them is null."""
        data = {
            **self.data,
            "images": len(self.images), "groups": len(set(self.groups)), "sha256": data_sha256(self.images),
        }  # fmt: skip
        told = {
            "format": FORMAT, "version": self.version, "task": self.task, "multilabel": self.multilabel,
            "classes": list(self.classes), "data": data, "model": self.model,
            "metrics": {key: one.record() for key, one in self.metrics.items()},
            "confusion": self.confusion, "curves": self.curves,
            **{name: getattr(self, name) for name in _PARTS},
            "worst": list(self.worst),
        }  # fmt: skip
        record: dict[str, Any] = plain(told)
        return record

    def write(self, folder: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write ``evaluation.json``, ``images.jsonl`` and ``numbers.npz``; the first one at last, once all is whole.

        Args:
            folder: Where to; it is made, and marked as output.
            overwrite: Whether an evaluation that is there may be replaced.

        Raises:
            UsageError: One is there.
            DataError: It cannot be written.
        """
        out = start_folder(folder, overwrite=overwrite)
        write_arrays(out / ARRAYS, self.metric.arrays())
        write_text(out / IMAGES, "".join(_line(image.record()) for image in self.images))
        write_text(out / NUMBERS, json.dumps(self.record(), indent=1, allow_nan=False) + "\n")


def start_folder(folder: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
    """Make a folder ready to hold an evaluation, before the work begins; return it.

    It is marked as output; the numbers of an evaluation that is to be replaced go at once, so that what is half
    replaced is never taken for whole.

    Args:
        folder: Where to.
        overwrite: Whether an evaluation that is there may be replaced.

    Raises:
        UsageError: One is there.
        DataError: It cannot be made.
    """
    out = Path(folder)
    if not overwrite and any((out / name).exists() for name in (NUMBERS, IMAGES, ARRAYS)):
        raise UsageError(f"{out} already holds an evaluation: choose another --out, or replace it with --overwrite")
    own = (NUMBERS, IMAGES, ARRAYS, PREDICTIONS, "masks")
    try:
        mark_output(out, own=own)
        (out / NUMBERS).unlink(missing_ok=True)
        remove_left_over(out, NUMBERS, IMAGES, ARRAYS)
    except (FileExistsError, NotADirectoryError):
        raise DataError(f"{out}: a file has the name of this folder; choose another folder") from None
    except OSError as e:
        raise unwritable(out, e) from e
    return out


def read_evaluation(folder: str | os.PathLike[str]) -> Evaluation:
    """Return what :meth:`Evaluation.write` wrote, from its three files alone.

    Raises:
        DataError: One is missing, damaged, or does not fit the others; in one line.
    """
    path = Path(folder)
    if path.is_file() and path.name == NUMBERS:
        path = path.parent
    if path.is_dir() and not (path / NUMBERS).exists():
        raise DataError(f"{path}: holds no {NUMBERS}; give the --out of an evaluation that has ended")
    told = _parsed(path / NUMBERS, read_text(path / NUMBERS, limit=_LIMITS[NUMBERS]))
    try:
        found = _recalled(told)
    except ValueError as e:
        raise DataError(f"{path / NUMBERS}: {e}; evaluate again") from None
    kind = {"classification": "labels" if found["multilabel"] else "label", "segmentation": "pixels"}
    images = _images(path / IMAGES, frozenset(found["classes"]), kind.get(found["task"], "objects"))
    if len(images) != told["data"]["images"] or data_sha256(images) != told["data"].get("sha256"):
        raise DataError(f"{path / IMAGES}: lists other pictures or labels than {NUMBERS} was made of; evaluate again")
    try:
        _check_places(found, len(images))
    except ValueError as e:
        raise DataError(f"{path / NUMBERS}: {e}; evaluate again") from None
    metric = new_metric(found["task"], found["classes"], multilabel=found["multilabel"])
    arrays = read_arrays(path / ARRAYS)
    try:
        metric.take_arrays(arrays)
    except DataError as e:
        raise DataError(f"{path / ARRAYS}: {e}; evaluate again") from None
    if metric.images != len(images):
        raise DataError(f"{path / ARRAYS}: holds {metric.images} pictures, {IMAGES} {len(images)}; evaluate again")
    return Evaluation(images=images, metric=metric, **found)


def new_metric(task: str, classes: Sequence[str], *, multilabel: bool = False) -> RedrawnMetric[Any, Any]:
    """Return an empty metric of a task.

    Args:
        task: "classification", "detection", "instance" (boxes with masks) or "segmentation".
        classes: Class names, in the order of their ids.
        multilabel: Whether a picture has several labels.

    Raises:
        UsageError: There is no such task.
    """
    if task == "classification":
        return ClassificationMetric(classes, multilabel=multilabel)
    if task in ("detection", "instance"):
        return DetectionMetric(classes, masks=task == "instance")
    if task == "segmentation":
        return SegmentationMetric(classes)
    raise UsageError(f"task {task!r}: one of {', '.join(TASKS)}")


def _line(record: Mapping[str, Any]) -> str:
    return json.dumps(record) + "\n"


def _parsed(place: object, text: str) -> Any:
    """Return what a text of JSON holds; ``place`` is where it stands, for messages."""
    try:
        return json.loads(text, object_pairs_hook=once, parse_constant=_refuse)
    except (ValueError, RecursionError) as e:
        raise DataError(f"{place}: is no JSON that evaluate wrote ({e}); evaluate again") from None


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number")


def _images(path: Path, classes: frozenset[str], kind: str) -> list[EvaluatedImage]:
    images = []
    for number, line in enumerate(read_text(path, limit=_LIMITS[IMAGES]).split("\n"), 1):
        if not line:
            continue
        try:
            images.append(EvaluatedImage.recalled(_parsed(f"{path}:{number}", line), classes, kind))
        except ValueError as e:
            raise DataError(f"{path}:{number}: {e}; evaluate again") from None
    return images


def _recalled(told: Any) -> dict[str, Any]:
    """Return the arguments of an evaluation but for pictures and metric.

    Raises:
        ValueError: Something in it is not what it should be, with what.
    """
    if not isinstance(told, dict) or told.get("format") != FORMAT:
        version = told.get("format") if isinstance(told, dict) else None
        raise ValueError(f"is no evaluation of format {FORMAT}, which this version reads (it says {version!r:.40})")
    classes, task = told.get("classes"), told.get("task")
    if task not in TASKS or not isinstance(told.get("multilabel"), bool):
        raise ValueError(f"task is one of {', '.join(TASKS)}, multilabel true or false")
    if not isinstance(classes, list) or not 1 <= len(classes) <= (255 if task == "segmentation" else _MAX_CLASSES):
        raise ValueError("classes is a list of names")
    if not all(isinstance(name, str) for name in classes) or len(set(classes)) < len(classes):
        raise ValueError("classes are names, each once")
    if not told["multilabel"] and len(classes) > _MAX_TABLE:
        raise ValueError(f"has {len(classes):,} classes, and {_MAX_TABLE:,} can be read at most: join some of them")
    for key in ("data", "model", "metrics", "curves"):
        if not isinstance(told.get(key), dict):
            raise ValueError(f"{key} is a mapping")
    for key in ("confusion", *_PARTS):
        if not (told.get(key) is None or isinstance(told[key], dict)):
            raise ValueError(f"{key} is a mapping or null")
    if type(told["data"].get("images")) is not int or not isinstance(told.get("version"), str):
        raise ValueError("data.images is a whole number, version a text")
    metrics = {}
    for key, record in told["metrics"].items():
        try:
            metrics[key] = Measured.recalled(record if isinstance(record, dict) else {})
        except ValueError as e:
            raise ValueError(f"metrics, {key!r:.60}: {e}") from None
    kept = ("task", "classes", "multilabel", "data", "model", "confusion", "curves", "worst", "version", *_PARTS)
    return {"metrics": metrics, **{key: told.get(key) for key in kept}}


def _check_places(found: Mapping[str, Any], images: int) -> None:
    """Refuse positions of pictures that are not there, and a table that is none."""
    worst, confusion = found["worst"], found["confusion"]
    if not _are_places(worst, images):
        raise ValueError(f"worst is a list of positions below {images}")
    if confusion is None:
        return
    names, columns, counts = (confusion.get(key) for key in ("names", "columns", "counts"))
    cells = confusion.get("images", {})
    if not all(isinstance(v, list) and all(isinstance(name, str) for name in v) for v in (names, columns)):
        raise ValueError("confusion: names and columns are lists of names")
    if not isinstance(counts, list) or len(counts) != len(names) or not all(_is_row(r, len(columns)) for r in counts):
        raise ValueError(f"confusion: counts has {len(names)} rows of {len(columns)} whole numbers")
    if not isinstance(cells, dict) or not all(_is_cell(key, len(names), len(columns)) for key in cells):
        raise ValueError("confusion: images are those of cells, by 'row,column'")
    if not all(_are_places(places, images) for places in cells.values()):
        raise ValueError(f"confusion: images are lists of positions below {images}")


def _is_cell(key: str, rows: int, columns: int) -> bool:
    found = _CELL.fullmatch(key)
    return found is not None and int(found[1]) < rows and int(found[2]) < columns


def _is_row(value: Any, length: int) -> bool:
    return isinstance(value, list) and len(value) == length and all(type(n) is int and n >= 0 for n in value)


def _are_places(value: Any, images: int) -> bool:
    return isinstance(value, list) and all(type(k) is int and 0 <= k < images for k in value)
