"""COCO JSON, as all tasks read it: one file with images, annotations and categories."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from visionkit.core.errors import DataError
from visionkit.core.files import read_text
from visionkit.data.labels.checks import UnlabelledError, refuse_missing
from visionkit.data.labels.classes import check_class_names, check_classes, unknown_class
from visionkit.data.labels.coco_files import ImageFinder
from visionkit.data.labels.coco_objects import FLAGS, CocoObject
from visionkit.data.labels.coco_units import Drawn, refuse_other_units
from visionkit.data.labels.faults import attempt, fault
from visionkit.data.labels.foreign import foreign_kind
from visionkit.data.labels.json_text import parse_json
from visionkit.data.labels.numbers import flag, number

__all__ = ["CocoFile", "CocoImage", "coco_ids", "read_coco", "read_id"]

_KEYS = ("images", "annotations", "categories")
_PLAIN_FLAGS = (0, 1, None)  # nearly all are
_WHOLE = re.compile(r"0|-?[1-9][0-9]{0,17}")


@dataclass(frozen=True)
class CocoImage:
    """An image with its annotations.

    Args:
        id: Its id in the file.
        path: The image file; it exists.
        key: Path relative to the JSON file or the folder of images, with slashes; an automatic split goes by it.
        size: Height and width as the file says, or None where it does not.
        objects: Its annotations, in their order.
        repeated: A line for each annotation that stands there twice and is taken once.
    """

    id: Any
    path: str
    key: str
    size: tuple[int, int] | None
    objects: tuple[CocoObject, ...]
    repeated: tuple[str, ...] = ()


@dataclass(frozen=True)
class CocoFile:
    """What a COCO JSON file says.

    Args:
        classes: Class names.
        pictures: Images, by ``key``.
    """

    classes: tuple[str, ...]
    pictures: tuple[CocoImage, ...]


def read_coco(
    annotations: str | os.PathLike[str],
    images: str | os.PathLike[str] | None = None,
    *,
    classes: Sequence[str] | None = None,
) -> CocoFile:
    """Read a COCO JSON file; what counts is the name of a category, never its id.

    Args:
        annotations: The JSON file.
        images: The folder that its file names count from; None looks beside the JSON file: in its folder, and in
            images/ and the folders of its split (``instances_train2017.json``: train2017/) there and one level up.
        classes: Class names in order; None takes those of the categories, by category id as YOLO's files of the same
            data do. An unused category with id 0 that is the supercategory of others, as Roboflow writes it, is no
            class.

    Raises:
        DataError: The file or something in it is wrong, with line or annotation id; or image files are missing.
        UsageError: ``classes`` is empty or has a name twice.
    """
    file = Path(annotations)
    content = _load(file)
    annotated = list(_objects(file, content["annotations"]))
    records = _without_root(file, content["categories"], {o.category for o in annotated})
    categories = _categories(file, records)
    pictures = _pictures(file, content["images"])
    attempt("label-units", refuse_other_units, [Drawn(o.where, o.record, _size(o.image, pictures)) for o in annotated])
    annotated, repeated = _each_once(annotated)
    objects: dict[Any, list[_Object]] = {i: [] for i in pictures}
    for o in annotated:
        if o.image not in objects:
            fault("label-orphan", f"{o.where}: image_id {o.image!r} is not the id of one of the images; correct it")
        elif o.category not in categories:
            what = f"category_id {o.category!r} is not the id of one of the categories"
            fault("class-unknown", f"{o.where}: {what}; correct it")
        else:
            objects[o.image].append(o)
    names = _default_classes(file, records) if classes is None else check_classes(classes)
    ids = {name: i for i, name in enumerate(names)}
    finder = ImageFinder(file, None if images is None else Path(images), [p.name for p in pictures.values()])
    found: dict[str, CocoImage] = {}
    missing: list[str] = []
    for image_id, picture in pictures.items():
        path = finder.find(picture.name)
        if path is None:
            missing.append(f"{picture.name}: no such file")
            continue
        if path in found:
            fault("image-twice", f"{picture.where}: {picture.name} is the file of another image too; keep one of them")
            continue
        labelled: list[CocoObject] = []
        for o in objects[image_id]:
            name = categories[o.category]
            if name not in ids:
                what = unknown_class(name, names)
                fault("class-unknown", f"{o.where}: {what}; rename the category or remove its boxes")
                continue
            labelled.append(CocoObject(ids[name], o.record, o.where))
        again = tuple(repeated.get(image_id, ()))
        found[path] = CocoImage(picture.id, path, finder.key(path), picture.size, tuple(labelled), again)
    refuse_missing(missing, str(file), finder.looked())
    return CocoFile(names, tuple(sorted(found.values(), key=lambda p: p.key)))


def coco_ids(annotations: str | os.PathLike[str]) -> tuple[list[tuple[str, Any]], list[tuple[str, Any]]]:
    """Return file name and id of the images, and name and id of the categories; of a list of test images, too.

    Args:
        annotations: The JSON file; it needs no annotations, and its images need not be there.

    Raises:
        DataError: The file or something in it is wrong.
    """
    file = Path(annotations)
    content = _load(file, ("images", "categories"))
    annotated = content.get("annotations")
    used = {o.category for o in _objects(file, annotated)} if isinstance(annotated, list) else set()
    records = _without_root(file, content["categories"], used)
    names = _categories(file, records)
    images = [(picture.name, picture.id) for picture in _pictures(file, content["images"]).values()]
    return images, [(names[read_id(r, "id", str(file))], r["id"]) for r in records]


class _Image(NamedTuple):
    id: Any
    name: str
    size: tuple[int, int] | None
    where: str


class _Object(NamedTuple):
    image: Any
    category: Any
    record: dict[str, Any]
    where: str


def _load(file: Path, keys: Sequence[str] = _KEYS) -> dict[str, Any]:
    text = read_text(file)
    content = parse_json(text, file)
    if not isinstance(content, dict) or not {"images", "annotations"} & set(content):
        foreign = foreign_kind(file)
        if foreign is not None:
            raise DataError(foreign.refusal())
    if not isinstance(content, dict):
        raise DataError(
            f"{file}: holds a {type(content).__name__}, no COCO data set; give a file with {', '.join(_KEYS)}"
        )
    lacking = [k for k in keys if not isinstance(content.get(k), list)]
    if lacking:
        raise (UnlabelledError if lacking == ["annotations"] else DataError)(
            f"{file}: is no COCO data set, it lacks the list(s) {', '.join(lacking)}; give a file with "
            f"{', '.join(_KEYS)}"
        )
    for key in keys:
        for i, record in enumerate(content[key]):
            _refuse_no_object(file, key, i, record)
    return content


def _refuse_no_object(file: Path, key: str, index: int, record: Any) -> None:
    if not isinstance(record, dict):
        raise DataError(f"{file}: {key}[{index}] is {record!r:.40}, no object; write the file anew")


def _categories(file: Path, records: Sequence[dict[str, Any]]) -> dict[Any, str]:
    """Return the name of each category id."""
    found: dict[Any, str] = {}
    for i, record in enumerate(records):
        where = f"{file}: categories[{i}]"
        id, name = read_id(record, "id", where), record.get("name")
        if not isinstance(name, str) or not name.strip():
            raise DataError(f"{where}: name is {name!r}; give the category a name")
        (name,) = check_class_names((name.strip(),), where)
        if id in found:
            raise DataError(f"{where}: id {id!r} is that of {found[id]!r} too; give each category its own id")
        if name in found.values():
            other = next(k for k, v in found.items() if v == name)
            raise DataError(f"{where}: {name!r} has id {id!r} and id {other!r}; keep one of them")
        found[id] = name
    return found


def _without_root(file: Path, records: Sequence[dict[str, Any]], used: set[Any]) -> list[dict[str, Any]]:
    """Return the categories without Roboflow's root: id 0, of no object, and what others are filed under."""
    ids = [read_id(r, "id", f"{file}: categories[{i}]") for i, r in enumerate(records)]
    above = [r.get("supercategory") for r, id in zip(records, ids, strict=True) if id != 0]
    groups = {name.strip() for name in above if isinstance(name, str)}
    root = {
        i
        for i, (r, id) in enumerate(zip(records, ids, strict=True))
        if id == 0 and str(r.get("name")).strip() in groups
    }
    return [r for i, r in enumerate(records) if i not in root or 0 in used]


def _size(image: Any, pictures: dict[Any, _Image]) -> tuple[int, int] | None:
    return pictures[image].size if image in pictures else None


def _each_once(objects: Sequence[_Object]) -> tuple[list[_Object], dict[Any, list[str]]]:
    """Return the annotations without those that stand twice, and what to say of these by image.

    Ids of annotations are no more than names here: where files were put together, those of two images can be the same.

    Raises:
        DataError: Two of one image have the same id, and differ: which one is right, nothing says.
    """
    first: dict[Any, _Object] = {}
    kept: list[_Object] = []
    repeated: dict[Any, list[str]] = {}
    for o in objects:
        id = o.record.get("id")
        before = first.setdefault((o.image, id), o) if isinstance(id, int | str) else o
        if before is o:
            kept.append(o)
        elif before.record == o.record:
            repeated.setdefault(o.image, []).append(f"{o.where}: the same annotation as {before.where}; dropped")
        else:
            what = f"has the id of {before.where}, which says something else of the same image"
            fault("label-syntax", f"{o.where}: {what}; give it an id of its own, or keep one of them")
    return kept, repeated


def _default_classes(file: Path, records: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    ordered = sorted(records, key=lambda r: (isinstance(i := read_id(r, "id", str(file)), str), i))
    names = tuple(r["name"].strip() for r in ordered)
    if not names:
        raise DataError(f"{file}: has no categories; list the classes there")
    return names


def _pictures(file: Path, records: Sequence[dict[str, Any]]) -> dict[Any, _Image]:
    found: dict[Any, _Image] = {}
    for i, record in enumerate(records):
        where = f"{file}: images[{i}]"
        id, name = attempt("label-syntax", read_id, record, "id", where), record.get("file_name")
        if id is None:
            continue
        if not isinstance(name, str) or not name.strip() or "\0" in name:
            fault("label-syntax", f"{where}: file_name is {name!r}; give the name of the image file")
            continue
        if id in found:
            what = f"id {record['id']!r} is that of {found[id].name} too"
            fault("image-twice", f"{where}: {what}; give each image its own id")
            continue
        sides = [s for k in ("height", "width") if (s := number(record.get(k))) is not None]
        known = len(sides) == 2 and all(1 <= s < 2**24 and s == int(s) for s in sides)
        found[id] = _Image(record["id"], name, (int(sides[0]), int(sides[1])) if known else None, where)
    return found


def _objects(file: Path, records: Sequence[dict[str, Any]]) -> Iterable[_Object]:
    for i, record in enumerate(records):
        _refuse_no_object(file, "annotations", i, record)
        id = record.get("id")
        where = f"{file}: annotations[{i}]" if id is None else f"{file}: annotation {id!r:.40} (annotations[{i}])"
        o = attempt("label-syntax", _object, record, where)
        if o is not None:
            yield o


def _object(record: dict[str, Any], where: str) -> _Object:
    for key in FLAGS:
        if record.get(key) not in _PLAIN_FLAGS and flag(record.get(key)) is None:
            raise DataError(f"{where}: {key} is {record.get(key)!r:.40}; write 0 or 1")
    return _Object(read_id(record, "image_id", where), read_id(record, "category_id", where), record, where)


def read_id(record: dict[str, Any], key: str, where: str) -> Any:
    """Return an id of a record, a whole number or a text; a whole number that stands there as text is one.

    Args:
        record: Such as an annotation.
        key: Such as ``image_id``.
        where: Its place in the file, for messages.

    Raises:
        DataError: There is none, or it is something else.
    """
    value = record.get(key)
    if isinstance(value, float) and value.is_integer():  # as spreadsheets write them
        return int(value)
    if isinstance(value, str) and _WHOLE.fullmatch(value):
        return int(value)  # the same id, written as text by another tool
    if value is None:
        raise DataError(f"{where}: has no {key}; add it")
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise DataError(f"{where}: {key} is {value!r:.40}; give a whole number")
    return value
