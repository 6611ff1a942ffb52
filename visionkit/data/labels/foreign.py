"""Labels of tools that are not read: told by name, with what to export instead."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from visionkit.core.errors import DataError
from visionkit.core.files import open_binary
from visionkit.data.images.listing import list_folders

__all__ = ["Foreign", "find_foreign", "foreign_kind"]

_HEAD = 2**16  # bytes of a file that are looked at
_MAX_FOLDERS = 64
_MAX_FILES = 4  # of each ending in a folder


class Foreign(NamedTuple):
    """Labels that are not read.

    Args:
        name: What they are called.
        file: One of their files.
        instead: What to do.
    """

    name: str
    file: Path
    instead: str

    def refusal(self) -> str:
        """Return the line that says so."""
        return f"{self.file}: labels as {self.name}, which are not read; {self.instead}"


_CONVERT = "convert them to COCO JSON, Pascal VOC or YOLO"
_KINDS = {
    "Supervisely JSON": "export the project as COCO JSON, Pascal VOC or YOLO (for pixels: as COCO JSON or masks)",
    "LabelMe JSON": f"{_CONVERT} (LabelMe's labelme2coco.py or labelme2voc.py)",
    "VIA's own format": "export the annotations as COCO JSON (VIA: Annotation, Export Annotations (COCO format))",
    "Label Studio JSON": "export as COCO or YOLO with images (for pixels: COCO)",
    "CreateML JSON": "export as COCO JSON, Pascal VOC or YOLO",
    "Datumaro JSON": "export as COCO 1.0, Pascal VOC or YOLO",
    "BDD100K JSON": f"{_CONVERT} (BDD100K's to_coco)",
    "Darwin JSON": "export as COCO",
    "Labelbox JSON": _CONVERT,
    "CVAT XML": "export as COCO 1.0, Pascal VOC or YOLO (for pixels: COCO or segmentation masks)",
    "TensorFlow CSV": "export as COCO JSON, Pascal VOC or YOLO",
    "Open Images CSV": _CONVERT,
    "CSV of boxes": _CONVERT,
    "KITTI text": _CONVERT,
    "DOTA text": f"{_CONVERT}; turned boxes are learnt as the boxes around them",
}
_MARKS: dict[str, tuple[tuple[str, tuple[bytes, ...]], ...]] = {
    ".json": (
        ("Supervisely JSON", (b'"objects"', b'"exterior"')),
        ("Supervisely JSON", (b'"classTitle"',)),
        ("LabelMe JSON", (b'"shapes"', b'"imagePath"')),
        ("VIA's own format", (b'"shape_attributes"',)),
        ("VIA's own format", (b'"_via_settings"',)),
        ("Label Studio JSON", (b'"from_name"',)),
        ("Label Studio JSON", (b'"original_width"', b'"result"')),
        ("CreateML JSON", (b'"coordinates"', b'"annotations"', b'"image"')),
        ("Datumaro JSON", (b'"items"', b'"categories"')),
        ("BDD100K JSON", (b'"box2d"',)),
        ("Darwin JSON", (b'"bounding_box"', b'"item"')),
        ("Labelbox JSON", (b'"data_row"',)),
    ),
    ".xml": (("CVAT XML", (b"<annotations", b"<image ")),),
    ".csv": (
        ("VIA's own format", (b"region_shape_attributes",)),
        ("TensorFlow CSV", (b"filename", b"class", b"xmin", b"ymax")),
        ("Open Images CSV", (b"ImageID", b"LabelName", b"XMin")),
    ),
}
_MARKS[".ndjson"] = _MARKS[".jsonl"] = _MARKS[".json"]
_NUMBER = rb"-?[0-9]+(?:\.[0-9]+)?"
_CELLS = rb"(?:,%s){4}" % _NUMBER
_LINES = {
    ".txt": (
        ("KITTI text", re.compile(rb"^[A-Za-z][A-Za-z_]*(?:[ \t]+%s){14,15}[ \t]*\r?$" % _NUMBER, re.MULTILINE)),
        ("DOTA text", re.compile(rb"^(?:%s[ \t]+){8}[A-Za-z][\w-]*[ \t]+[0-9][ \t]*\r?$" % _NUMBER, re.MULTILINE)),
    ),
    ".csv": (
        ("CSV of boxes", re.compile(rb"^[^,\n]+\.[A-Za-z]{3,4}%s,[^,\n]+\r?$" % _CELLS, re.MULTILINE)),
        ("CSV of boxes", re.compile(rb"^[^,\n]+%s,[^,\n]+\.[A-Za-z]{3,4},[0-9]+,[0-9]+\r?$" % _CELLS, re.MULTILINE)),
    ),
}
_LOOKED_AT = {*_MARKS, *_LINES}


def foreign_kind(file: Path) -> Foreign | None:
    """Return which labels that are not read a file has, by its first bytes, or None."""
    suffix = file.suffix.lower()
    if suffix not in _LOOKED_AT:
        return None
    try:
        with open_binary(file) as opened:
            head = opened.read(_HEAD)
    except (DataError, OSError):
        return None
    text = head.split(b"\n", 1)[0] if suffix == ".csv" else head
    named = [name for name, marks in _MARKS.get(suffix, ()) if all(mark in text for mark in marks)]
    named += [name for name, line in _LINES.get(suffix, ()) if line.search(head[:2048])]
    return Foreign(named[0], file, _KINDS[named[0]]) if named else None


def find_foreign(root: Path) -> Foreign | None:
    """Return the labels below a folder, or of a file, that are not read; None where there are none.

    A few files of each folder are looked at, two folders deep.
    """
    if root.is_file():
        return foreign_kind(root)
    for number, folder in enumerate(_folders(root)):
        if number == _MAX_FOLDERS:
            break
        looked: dict[str, int] = {}
        for name in sorted(os.listdir(folder)):
            suffix = os.path.splitext(name)[1].lower()
            if name.startswith(".") or suffix not in _LOOKED_AT or looked.get(suffix, 0) == _MAX_FILES:
                continue
            looked[suffix] = looked.get(suffix, 0) + 1
            found = foreign_kind(folder / name)
            if found is not None:
                return found
    return None


def _folders(root: Path) -> Iterator[Path]:
    level = [root]
    for _ in range(3):
        yield from level
        level = [inner for folder in level[:_MAX_FOLDERS] for inner in list_folders(folder)]
