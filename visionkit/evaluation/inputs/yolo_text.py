"""YOLO's text files of predictions: one an image, a line an object, with its confidence at the end."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from visionkit.core.errors import DataError
from visionkit.core.files import read_text
from visionkit.data.labels.names import same_folder
from visionkit.evaluation.inputs.found import FilePredictions, FoundObject, class_of, object_prediction, share_of
from visionkit.evaluation.inputs.images import DataImages
from visionkit.tasks.detection.readers.yolo_lines import read_numbers, refuse_commas
from visionkit.tasks.detection.readers.yolo_names import NAME_FILES, load_data, names_beside, names_of

__all__ = ["label_files", "read_yolo_text"]

_MAX_BYTES = 2**26  # of the predictions of one image
_FORM = "class cx cy w h confidence"
_FAR = 2.0  # shares of the picture; what reaches this far is in pixels
_DATA_FILES = ("data.yaml", "data.yml", "dataset.yaml")


class _Names(NamedTuple):
    """Class names by number, and where they come from."""

    names: tuple[str, ...]
    source: str
    remark: str = ""


def label_files(folder: Path) -> list[Path]:
    """Return the text files of predictions below a folder, sorted: those of its ``labels/`` where it has one."""
    place = same_folder(folder, "labels") or folder
    files = (f for f in place.rglob("*.txt") if f.name not in NAME_FILES and not f.name.startswith(".") and f.is_file())
    return sorted(files)


def read_yolo_text(folder: Path, images: DataImages, classes: Sequence[str], *, masks: bool) -> FilePredictions:
    """Read a folder of YOLO's predictions, as ultralytics (``save_txt=True save_conf=True``) and visionkit write them.

    A line is ``class cx cy w h confidence``, or with a mask ``class x y x y x y ... confidence``; lengths are shares of
    the picture. Files are called like their images and lie as these do. An image without a file has no object. Class
    numbers are lines of classes.txt (obj.names, names.txt) in the folder, or names of a data.yaml there or above; else
    positions in the classes of the data.

    Args:
        folder: With the files, or with ``labels/``.
        images: Those of the data.
        classes: Class names in the order of their ids.
        masks: Whether masks are wanted, too; then each line must be a polygon.

    Raises:
        DataError: A line is wrong, with file and line; a class or an image is not in the data.
    """
    place = same_folder(folder, "labels") or folder
    files = label_files(folder)
    names = _names(place, classes)
    matched = images.find([f.relative_to(place).with_suffix("").as_posix() for f in files], str(place), stems=True)
    known = {name: k for k, name in enumerate(classes)}
    found = {
        position: _objects(file, names, known, images.size(position), masks=masks)
        for file, position in zip(files, matched.positions, strict=True)
    }
    missing = [id for position, id in enumerate(images.ids) if position not in found]
    remarks = [*matched.remarks, *([names.remark] if names.remark else [])]
    if missing:
        count = f"{len(missing)} of {len(images)} images have no file (first: {missing[0]})"
        remarks.append(f"{count}: counted as without objects")

    def read(position: int) -> Any:
        return object_prediction(found.get(position, ()), images.size(position), masks=masks)

    total = sum(map(len, found.values()))
    source = f"YOLO text of {place}: {total:,} {'masks' if masks else 'boxes'} in {len(found):,} files"
    return FilePredictions(source, range(len(images)), read, tuple(missing), tuple(remarks))


def _names(place: Path, classes: Sequence[str]) -> _Names:
    """Return the class names that numbers stand for."""
    beside = names_beside(place)
    if beside is not None:
        return _Names(beside, f"the file of names in {place}")
    for folder in (place, place.parent):
        for name in _DATA_FILES:
            file = folder / name
            names = names_of(file, load_data(file)) if file.is_file() else None
            if names is not None:
                return _Names(names, str(file))
    shown = ", ".join(f"{k} {name}" for k, name in enumerate(classes[:4])) + (", ..." if len(classes) > 4 else "")
    remark = f"class numbers are taken in the order of the data's classes ({shown}): no classes.txt lies in {place}"
    return _Names(tuple(classes), "the list of the data's classes", remark)


def _objects(
    file: Path, names: _Names, known: dict[str, int], size: tuple[int, int], *, masks: bool
) -> list[FoundObject]:
    height, width = size
    found = []
    for line, text in enumerate(read_text(file, limit=_MAX_BYTES).split("\n"), 1):
        cells = text.split()
        if not cells:
            continue
        where = f"{file}:{line}"
        values = _values(cells, where)
        number = int(values[0])
        if number >= len(names.names):
            known_to = len(names.names) - 1
            raise DataError(
                f"{where}: class {number}, and {names.source} names the classes 0 to {known_to}; correct the line or "
                "the names"
            )
        label = class_of(names.names[number], known, where)
        score = share_of(values[-1], "the confidence, the last column,", where)
        if len(values) == 6:
            if masks:
                raise DataError(f"{where}: a box alone, and masks are compared; write the points of a polygon and the "
                                "confidence (a segmentation model with save_txt=True save_conf=True)")  # fmt: skip
            cx, cy, w, h = values[1:5]
            box = ((cx - w / 2) * width, (cy - h / 2) * height, (cx + w / 2) * width, (cy + h / 2) * height)
            found.append(FoundObject(box, score, label))
            continue
        points = np.array(values[1:-1]).reshape(-1, 2) * (width, height)
        (x1, y1), (x2, y2) = points.min(0).tolist(), points.max(0).tolist()
        found.append(FoundObject((x1, y1, x2, y2), score, label, (points,)))
    return found


def _values(cells: Sequence[str], where: str) -> tuple[float, ...]:
    """Return the numbers of a line: six of a box, an even number from eight on of a polygon."""
    refuse_commas(cells, where, _FORM)
    if len(cells) == 5 or (len(cells) >= 7 and len(cells) % 2):
        what = "a box" if len(cells) == 5 else "a polygon"
        raise DataError(f"{where}: {len(cells)} columns: {what} without a confidence, as labels have it, and without "
                        "confidences nothing can be ranked; predict with save_conf=True, which writes it "
                        "last")  # fmt: skip
    if len(cells) < 6:
        raise DataError(f"{where}: {len(cells)} columns; write {_FORM}")
    values = read_numbers(cells, where, _FORM)
    if not all(map(math.isfinite, values)):
        raise DataError(f"{where}: holds {next(v for v in values if not math.isfinite(v))}; write finite numbers")
    far = max(map(abs, values[1:-1]))
    if far > _FAR:
        raise DataError(f"{where}: holds {far:.7g}: this looks like pixels, and YOLO counts in shares (0..1); divide x "
                        "and width by the width of the picture, y and height by its height")  # fmt: skip
    if len(values) == 6 and min(values[3:5]) < 0:
        raise DataError(f"{where}: a side of the box is below 0; write {_FORM}")
    return values
