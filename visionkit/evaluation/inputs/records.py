"""visionkit's own records: predictions.jsonl, as predict and evaluate write it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from visionkit.core.errors import DataError
from visionkit.core.files import read_text
from visionkit.core.prediction import Prediction
from visionkit.data.labels.json_text import parse_line
from visionkit.evaluation.inputs.found import MAX_BYTES, FilePredictions, check_sum, class_of, find_lacking, share_of
from visionkit.evaluation.inputs.images import DataImages
from visionkit.evaluation.inputs.mask_pictures import MaskPictures
from visionkit.prediction.resuming import given_images
from visionkit.prediction.writers import files_beside
from visionkit.tasks.classification.types import ClassPrediction
from visionkit.tasks.detection.instances import InstancePrediction
from visionkit.tasks.detection.types import BoxPrediction

__all__ = ["RECORDS", "KEYS", "read_records"]

RECORDS = "predictions.jsonl"
KEYS = {"classification": "probabilities", "detection": "objects", "instance": "objects", "segmentation": "pixels"}
"""What a record of each task holds."""
_EXAMPLE = '{"image": "a.jpg", ...}, as visionkit predict writes it'
_MASKS = "masks"
_BOUND = 2.0**24  # pixels


class _Record(NamedTuple):
    where: str
    said: Mapping[str, Any]


def read_records(
    file: Path, images: DataImages, classes: Sequence[str], *, task: str, multilabel: bool, allow_missing: bool
) -> FilePredictions:
    """Read ``predictions.jsonl``: a record an image, ``{"image": path, ...}``, as predictions of the task make it.

    The pixels of a segmentation are read from ``masks/`` beside the file.

    Args:
        file: The records.
        images: Those of the data.
        classes: Class names in the order of their ids.
        task: classification, detection, instance or segmentation.
        multilabel: Whether an image can have several classes.
        allow_missing: Whether images of which nothing is said are left out; without objects they are legal.

    Raises:
        DataError: A line is wrong or of another task, two are of one image, or a class or an image is not in the data.
    """
    records = list(_records(file, task))
    first: dict[str, str] = {}
    for where, said in records:
        if (before := first.setdefault(said["image"], where)) != where:
            raise DataError(f"{where}: {said['image']} has a prediction already, {before}; keep one of the lines")
    matched = images.find([r.said["image"] for r in records], str(file))
    places = dict(sorted(zip(matched.positions, records, strict=True), key=lambda pair: pair[0]))
    remarks = list(matched.remarks)
    source = f"{file}: {len(records):,} predictions"
    if task in ("detection", "instance"):
        missing = tuple(id for position, id in enumerate(images.ids) if position not in places)
        if missing:
            count = f"{len(missing)} of {len(images)} images have no record (first: {missing[0]})"
            remarks.append(f"{count}: counted as without objects")
        boxes = _boxes(places, images, classes, masks=task == "instance")
        return FilePredictions(source, range(len(images)), boxes, missing, tuple(remarks))
    read: Callable[[int], Prediction]
    if task == "segmentation":
        read = _pixels(file, places, images, classes)
    else:
        found = {p: _of_classes(r, classes, multilabel=multilabel) for p, r in places.items()}
        read = found.__getitem__
    lacking = find_lacking(places, images, str(file), "prediction", allow_missing=allow_missing)
    remarks += lacking.remarks
    return FilePredictions(source, tuple(places), read, lacking.ids, tuple(remarks))


def _records(file: Path, task: str) -> Iterator[_Record]:
    for number, line in enumerate(read_text(file, limit=MAX_BYTES).split("\n"), 1):
        if not line.strip():
            continue
        where = f"{file}:{number}"
        said = parse_line(line, where, _EXAMPLE)
        if not isinstance(said.get("image"), str) or not said["image"]:
            raise DataError(f'{where}: no "image": give records as visionkit predict writes them')
        if KEYS[task] not in said:
            other = next((f"are of {t}" for t, key in KEYS.items() if key in said), "are of something else")
            raise DataError(
                f"{where}: no {KEYS[task]!r} in it: the predictions {other}, and the data are for {task}; give other "
                "predictions, or the data that these are of"
            )
        yield _Record(where, said)


def _of_classes(record: _Record, classes: Sequence[str], *, multilabel: bool) -> ClassPrediction:
    where, said = record
    found = said["probabilities"]
    if not isinstance(found, dict):
        raise DataError(f"{where}: probabilities are {found!r:.40}; give one a class, by name")
    known = {name: k for k, name in enumerate(classes)}
    shares = {name: share_of(v, f"the probability of {name}", where) for name, v in found.items()}
    for name in shares:
        class_of(name, known, where)
    if absent := [name for name in classes if name not in shares]:
        raise DataError(f"{where}: no probability of {absent[0]}, a class of the data; give one of each class")
    labels = said.get("labels")
    if (labels is not None) != multilabel:
        one, other = ("several classes", "one class") if labels is not None else ("one class", "several classes")
        raise DataError(f"{where}: the prediction gives an image {one}, the data {other}; give others")
    if labels is None:
        check_sum(list(shares.values()), where)
    elif not isinstance(labels, list) or not all(isinstance(n, str) and n in shares for n in labels):
        raise DataError(f"{where}: labels are {labels!r:.40}; give a list of class names")
    return ClassPrediction.from_record(said, classes)


def _boxes(
    places: Mapping[int, _Record], images: DataImages, classes: Sequence[str], *, masks: bool
) -> Callable[[int], Prediction]:
    kind = InstancePrediction if masks else BoxPrediction
    found = {p: _objects(r, images.size(p), classes, kind) for p, r in places.items()}

    def read(position: int) -> Prediction:
        if position in found:
            return found[position]
        height, width = images.size(position)
        return kind.from_record({"width": width, "height": height, "objects": []}, classes)

    return read


def _objects(
    record: _Record, size: tuple[int, int], classes: Sequence[str], kind: type[BoxPrediction]
) -> BoxPrediction:
    where, said = record
    stated = said.get("height"), said.get("width")
    if stated not in (size, (None, None)):
        raise DataError(
            f"{where}: says {stated[1]} x {stated[0]} pixels, the image of the data has {size[1]} x {size[0]}; predict "
            "these images"
        )
    objects = said["objects"]
    if not isinstance(objects, list) or not all(isinstance(o, dict) for o in objects):
        raise DataError(f"{where}: objects are {objects!r:.40}; give a list of label, score and box")
    known = {name: k for k, name in enumerate(classes)}
    for k, o in enumerate(objects):
        place = f"{where}: objects[{k}]"
        class_of(o.get("label"), known, place)
        share_of(o.get("score"), "score", place)
        if kind is InstancePrediction and "mask" not in o:
            raise DataError(f"{place}: a box alone, and masks are compared; give predictions of a model with masks")
        box = o.get("box")
        if isinstance(box, list) and not all(isinstance(v, int | float) and abs(v) <= _BOUND for v in box):
            raise DataError(f"{place}: box is {box!r:.60}; give x1, y1, x2, y2 in pixels")  # NaN is not below
    try:
        found = kind.from_record({**said, "height": size[0], "width": size[1]}, classes)
    except DataError as e:
        raise DataError(f"{where}: {e}") from None
    sides = found.boxes[:, 2:] - found.boxes[:, :2]
    if len(found) and float(sides.min()) < 0:
        k = int((sides < 0).any(1).nonzero()[0])
        raise DataError(f"{where}: objects[{k}]: box is {objects[k]['box']!r:.60}; give x1, y1, x2, y2 in pixels")
    return found.select(found.scores.argsort(descending=True, stable=True))


def _pixels(
    file: Path, places: Mapping[int, _Record], images: DataImages, classes: Sequence[str]
) -> Callable[[int], Prediction]:
    folder = file.parent / _MASKS
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder: the pixels of {file.name} lie there; give both")
    recorded = [r.said["image"] for r in places.values()]
    given = files_beside(given_images(file.parent, recorded), ".png")
    files = {}
    for position, (where, said) in places.items():
        path = folder / given[said["image"]]
        if not path.is_file():
            raise DataError(f"{where}: no mask {path}; predict anew, or give the folder of masks itself")
        files[position] = path
    return MaskPictures(files, folder, images, classes)
