"""COCO JSON, as all tasks read it: one file with images, annotations and categories."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from visionkit.core.errors import DataError
from visionkit.core.files import read_text
from visionkit.data.labels.checks import refuse_missing
from visionkit.data.labels.classes import check_classes, unknown_class
from visionkit.data.labels.coco_files import ImageFinder

__all__ = ["CocoFile", "CocoObject", "CocoImage", "read_coco"]

_KEYS = ("images", "annotations", "categories")


@dataclass(frozen=True)
class CocoObject:
    """An annotation.

    Args:
        label: Class id, the position of its category's name in the classes.
        record: As in the file; what is in it has not been checked.
        where: Its place in the file, for messages.
    """

    label: int
    record: dict[str, Any]
    where: str

    @property
    def crowd(self) -> bool:
        """Whether ``iscrowd`` is set."""
        return self.record.get("iscrowd") in (1, True, "1", "true")


@dataclass(frozen=True)
class CocoImage:
    """An image with its annotations.

    Args:
        id: Its id in the file.
        path: The image file; it exists.
        key: Path relative to the JSON file or the folder of images, with slashes; an automatic split goes by it.
        size: Height and width as the file says, or None where it does not.
        objects: Its annotations, in their order.
    """

    id: Any
    path: str
    key: str
    size: tuple[int, int] | None
    objects: tuple[CocoObject, ...]


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
    categories = _categories(file, content["categories"])
    pictures = _pictures(file, content["images"])
    objects: dict[Any, list[_Object]] = {i: [] for i in pictures}
    for o in _objects(file, content["annotations"]):
        if o.image not in objects:
            raise DataError(f"{o.where}: image_id {o.image!r} is not the id of one of the images; correct it")
        if o.category not in categories:
            raise DataError(f"{o.where}: category_id {o.category!r} is not the id of one of the categories; correct it")
        objects[o.image].append(o)
    used = {o.category for os_ in objects.values() for o in os_}
    names = _default_classes(file, content["categories"], used) if classes is None else check_classes(classes)
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
            raise DataError(f"{picture.where}: {picture.name} is the file of another image too; keep one of them")
        labelled: list[CocoObject] = []
        for o in objects[image_id]:
            name = categories[o.category]
            if name not in ids:
                raise DataError(f"{o.where}: {unknown_class(name, names)}; rename the category or remove its boxes")
            labelled.append(CocoObject(ids[name], o.record, o.where))
        found[path] = CocoImage(image_id, path, finder.key(path), picture.size, tuple(labelled))
    refuse_missing(missing, str(file), finder.looked())
    return CocoFile(names, tuple(sorted(found.values(), key=lambda p: p.key)))


class _Image(NamedTuple):
    name: str
    size: tuple[int, int] | None
    where: str


class _Object(NamedTuple):
    image: Any
    category: Any
    record: dict[str, Any]
    where: str


def _load(file: Path) -> dict[str, Any]:
    text = read_text(file)
    try:
        content = json.loads(text)
    except json.JSONDecodeError as e:
        raise DataError(
            f"{file}:{e.lineno}: no valid JSON ({e.msg} at column {e.colno}); the file may be cut off: copy it again"
        ) from None
    except (ValueError, RecursionError) as e:
        raise DataError(f"{file}: no valid JSON ({e}); write the file anew") from None
    if not isinstance(content, dict):
        raise DataError(
            f"{file}: holds a {type(content).__name__}, no COCO data set; give a file with {', '.join(_KEYS)}"
        )
    lacking = [k for k in _KEYS if not isinstance(content.get(k), list)]
    if lacking:
        raise DataError(
            f"{file}: is no COCO data set, it lacks the list(s) {', '.join(lacking)}; give a file with "
            f"{', '.join(_KEYS)}"
        )
    for key in _KEYS:
        for i, record in enumerate(content[key]):
            if not isinstance(record, dict):
                raise DataError(f"{file}: {key}[{i}] is {record!r:.40}, no object; write the file anew")
    return content


def _categories(file: Path, records: Sequence[dict[str, Any]]) -> dict[Any, str]:
    """Return the name of each category id."""
    found: dict[Any, str] = {}
    for i, record in enumerate(records):
        where = f"{file}: categories[{i}]"
        id, name = _id(record, "id", where), record.get("name")
        if not isinstance(name, str) or not name.strip():
            raise DataError(f"{where}: name is {name!r}; give the category a name")
        name = name.strip()
        if id in found:
            raise DataError(f"{where}: id {id!r} is that of {found[id]!r} too; give each category its own id")
        if name in found.values():
            other = next(k for k, v in found.items() if v == name)
            raise DataError(f"{where}: {name!r} has id {id!r} and id {other!r}; keep one of them")
        found[id] = name
    return found


def _default_classes(file: Path, records: Sequence[dict[str, Any]], used: set[Any]) -> tuple[str, ...]:
    ordered = sorted(records, key=lambda r: (isinstance(r["id"], str), r["id"]))
    groups = {r.get("supercategory") for r in ordered if r["id"] != 0}
    names = tuple(
        r["name"].strip() for r in ordered if not (r["id"] == 0 and 0 not in used and r["name"] in groups)
    )  # fmt: skip
    if not names:
        raise DataError(f"{file}: has no categories; list the classes there")
    return names


def _pictures(file: Path, records: Sequence[dict[str, Any]]) -> dict[Any, _Image]:
    found: dict[Any, _Image] = {}
    for i, record in enumerate(records):
        where = f"{file}: images[{i}]"
        id, name = _id(record, "id", where), record.get("file_name")
        if not isinstance(name, str) or not name.strip() or "\0" in name:
            raise DataError(f"{where}: file_name is {name!r}; give the name of the image file")
        if id in found:
            raise DataError(f"{where}: id {id!r} is that of {found[id].name} too; give each image its own id")
        sides = [record.get(k) for k in ("height", "width")]
        known = all(isinstance(s, int | float) and 1 <= s < 2**24 and s == int(s) for s in sides)
        found[id] = _Image(name, (int(sides[0]), int(sides[1])) if known else None, where)  # type: ignore[arg-type]
    return found


def _objects(file: Path, records: Sequence[dict[str, Any]]) -> Iterable[_Object]:
    for i, record in enumerate(records):
        id = record.get("id")
        where = f"{file}: annotations[{i}]" if id is None else f"{file}: annotation {id!r:.40} (annotations[{i}])"
        yield _Object(_id(record, "image_id", where), _id(record, "category_id", where), record, where)


def _id(record: dict[str, Any], key: str, where: str) -> Any:
    value = record.get(key)
    if isinstance(value, float) and value.is_integer():  # as spreadsheets write them
        return int(value)
    if value is None:
        raise DataError(f"{where}: has no {key}; add it")
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise DataError(f"{where}: {key} is {value!r:.40}; give a whole number")
    return value
