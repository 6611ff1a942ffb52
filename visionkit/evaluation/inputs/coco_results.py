"""COCO's results: a list of detections, boxes or masks, whose ids an annotation file explains."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from visionkit.core.errors import DataError
from visionkit.core.files import read_text
from visionkit.core.text import shortened
from visionkit.data.labels.coco_json import coco_ids, read_id
from visionkit.data.labels.coco_units import Drawn, refuse_other_units
from visionkit.data.labels.json_text import parse_json
from visionkit.data.labels.masks import Outline, read_segmentation
from visionkit.data.labels.numbers import number
from visionkit.evaluation.inputs.found import (
    MAX_BYTES,
    FilePredictions,
    FoundObject,
    class_of,
    object_prediction,
    share_of,
)
from visionkit.evaluation.inputs.images import DataImages

__all__ = ["LEGEND", "read_coco_results"]

LEGEND = "predictions.coco_images.json"
"""What visionkit writes beside its own results, where nobody gave an annotation file: what their ids mean."""
RESULTS = "predictions.coco.json"
_MAX_COORDINATE = 2.0**24
_FORM = "give a list of {image_id, category_id, bbox or segmentation, score}"


def read_coco_results(
    file: Path, images: DataImages, classes: Sequence[str], *, masks: bool, annotations: Path | None = None
) -> FilePredictions:
    """Read COCO's results: a list of ``{image_id, category_id, bbox, segmentation, score}``.

    ``bbox`` is x, y, width, height in pixels; without one the box is that around the mask. ``segmentation`` is run
    lengths or polygons. What the ids mean is told by the annotation file that is given; else by the file that visionkit
    writes beside its own results; else by that of the data, where these are COCO's. Ids of
    images that are told nowhere and are texts are names of files, with or without ending.

    Args:
        file: The results.
        images: Those of the data.
        classes: Class names in the order of their ids.
        masks: Whether masks are wanted, too; then each object must have one.
        annotations: A file with the lists ``images`` and ``categories``, or None.

    Raises:
        DataError: The file or an object in it is wrong, names an image or class that the data lack, or nothing tells
            which class an id is.
    """
    content = parse_json(read_text(file, limit=MAX_BYTES), file)
    if not isinstance(content, list):
        raise DataError(_no_results(file, content))
    wheres = [f"{file}: [{i}]" for i in range(len(content))]
    for where, record in zip(wheres, content, strict=True):
        if not isinstance(record, dict):
            raise DataError(f"{where} is {record!r:.40}, no object; {_FORM}")
    legend = file.with_name(LEGEND)
    if annotations is None and file.name == RESULTS and legend.is_file():
        annotations = legend
    image_ids = [read_id(r, "image_id", w) for r, w in zip(content, wheres, strict=True)]
    category_ids = [read_id(r, "category_id", w) for r, w in zip(content, wheres, strict=True)]
    told = _told(file, images, annotations)
    places, remarks = _places(image_ids, told, images, str(file))
    labels = _labels(category_ids, told.categories, classes, wheres)
    drawn = [
        Drawn(where, record, images.size(places[image]))
        for where, record, image in zip(wheres, content, image_ids, strict=True)
    ]
    refuse_other_units(drawn)
    found: dict[int, list[FoundObject]] = defaultdict(list)
    for one, image, category in zip(drawn, image_ids, category_ids, strict=True):
        found[places[image]].append(_object(one, labels[category], masks=masks))
    missing = [id for position, id in enumerate(images.ids) if position not in found]
    if missing:
        count = f"{len(missing)} of {len(images)} images have no detection (first: {missing[0]})"
        remarks.append(f"{count}: counted as without objects")
    what = "masks" if masks else "boxes"
    return FilePredictions(
        f"COCO results of {file}: {len(content):,} {what} in {len(found):,} images",
        range(len(images)),
        _reader(found, images, masks=masks),
        tuple(missing),
        tuple(remarks),
    )


def _reader(found: Mapping[int, Sequence[FoundObject]], images: DataImages, *, masks: bool) -> Callable[[int], Any]:
    def read(position: int) -> Any:
        return object_prediction(found.get(position, ()), images.size(position), masks=masks)

    return read


def _no_results(file: Path, content: Any) -> str:
    if isinstance(content, dict) and isinstance(content.get("annotations"), list):
        return f"{file}: is a COCO data set (images, annotations, categories), no results; {_FORM}"
    kind = "one JSON object" if isinstance(content, dict) else f"a {type(content).__name__}"
    return f"{file}: holds {kind}, no COCO results; {_FORM}"


class _Ids(NamedTuple):
    """What ids mean.

    Args:
        positions: Of images in the data, where that is known at once.
        names: File names of images.
        categories: Names of classes.
        source: The file that tells.
    """

    positions: dict[Any, int]
    names: dict[Any, str]
    categories: dict[Any, str]
    source: Path


def _told(file: Path, images: DataImages, annotations: Path | None) -> _Ids:
    """Return what the ids of a file mean."""
    positions: dict[Any, int] = {}
    if annotations is None:
        own = getattr(images.dataset, "file", None)
        facts = [e.extra.get("image_id") for e in getattr(images.dataset, "entries", ())]
        if not isinstance(own, Path) or None in facts:
            raise DataError(
                f"{file}: nothing tells which class a category_id is, since the data are no COCO JSON; give a file "
                "with the lists images and categories as --coco-annotations"
            )
        positions = {_plain(id): position for position, id in enumerate(facts)}
        annotations = own
    pictures, categories = coco_ids(annotations)
    return _Ids(
        positions, {_plain(id): name for name, id in pictures}, {_plain(id): n for n, id in categories}, annotations
    )


def _plain(id: Any) -> Any:
    return read_id({"id": id}, "id", "")


def _places(ids: Sequence[Any], told: _Ids, images: DataImages, source: str) -> tuple[dict[Any, int], list[str]]:
    """Return the position of the image of each id, and lines to say."""
    every = list(dict.fromkeys(ids))
    places = {i: told.positions[i] for i in every if i in told.positions}
    left = [i for i in every if i not in places]
    if told.positions and (others := [i for i in left if i in told.names]):
        lines = shortened([f"{source}: image_id {i!r} ({told.names[i]}): not among these images" for i in others])
        what = f"{len(others)} of {len(every)} images of {told.source} are not in the data"
        raise DataError(*lines, f"{source}: {what}; remove them, or evaluate on the split that they are of")
    if strange := [i for i in left if i not in told.names and not isinstance(i, str)]:
        known = ", ".join(map(str, list(told.names)[:5]))
        raise DataError(
            f"{source}: image_id {strange[0]!r} is none of the images of {told.source} (of ids {known}, ...), as are "
            f"{len(strange)} of {len(every)} ids; give the annotation file that the results were made with as "
            "--coco-annotations"
        )
    named = [i for i in left if i in told.names]
    plain = [i for i in left if i not in told.names]  # names themselves, as ultralytics writes them
    remarks: list[str] = []
    for some, stems in ((named, False), (plain, True)):
        if some:
            matched = images.find([told.names.get(i, i) for i in some], source, stems=stems)
            places |= dict(zip(some, matched.positions, strict=True))
            remarks += matched.remarks
    return places, remarks


def _labels(
    ids: Sequence[Any], categories: Mapping[Any, str], classes: Sequence[str], wheres: Sequence[str]
) -> dict[Any, int]:
    """Return the class id of each category id that occurs."""
    known = {name: k for k, name in enumerate(classes)}
    labels: dict[Any, int] = {}
    for id, where in zip(ids, wheres, strict=True):
        if id in labels:
            continue
        if id not in categories:
            told = ", ".join(f"{i} {name}" for i, name in list(categories.items())[:5])
            raise DataError(
                f"{where}: category_id {id!r} is none of the categories ({told}, ...); give the annotation "
                "file that the results were made with as --coco-annotations, or correct it"
            )
        labels[id] = class_of(categories[id], known, where)
    return labels


def _object(one: Drawn, label: int, *, masks: bool) -> FoundObject:
    where, record, size = one
    assert size is not None
    if "score" not in record:
        raise DataError(f"{where} has no score: these are labels, or results without their scores; {_FORM}")
    score = share_of(record["score"], "score", where)
    box = _box(record["bbox"], where) if record.get("bbox") else None
    outline: Outline | None = None
    if masks or box is None:
        if record.get("segmentation") is None:
            what = "a box alone, and masks are compared" if box is not None else "neither bbox nor segmentation"
            raise DataError(f"{where} has {what}; give results with segmentation{'' if masks else ' or bbox'}")
        outline = read_segmentation(record["segmentation"], size, where)[0]
    return FoundObject(box, score, label, outline)


def _box(value: Any, where: str) -> tuple[float, float, float, float]:
    numbers = [n for v in value if (n := number(v)) is not None] if isinstance(value, list) else []
    if not isinstance(value, list) or len(value) != 4 or len(numbers) != 4:
        raise DataError(f"{where}: bbox is {value!r:.60}; give four numbers: x, y, width, height")
    if not all(math.isfinite(n) and abs(n) <= _MAX_COORDINATE for n in numbers):
        raise DataError(f"{where}: bbox is {value!r:.60}; give finite numbers, in pixels")
    x, y, w, h = numbers
    if w < 0 or h < 0:
        raise DataError(f"{where}: bbox has the width {w:.7g} and the height {h:.7g}; give x, y, width, height")
    return x, y, x + w, y + h
