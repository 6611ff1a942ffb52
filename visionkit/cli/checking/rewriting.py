"""Labels written again in their own format, without what was found to be certainly wrong."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np

from visionkit.core.files import read_text, write_text
from visionkit.data.labels.coco_files import ImageFinder
from visionkit.data.labels.faults import gathering
from visionkit.data.labels.manifest import read_rows
from visionkit.data.labels.numbers import number
from visionkit.tasks.detection.readers.box_cleaning import RawBox, clean

__all__ = ["Box", "mended_box", "rewrite_coco", "rewrite_list", "rewrite_manifest", "rewrite_voc", "rewrite_yolo"]

Box = tuple[float, float, float, float]
"""xyxy in pixels."""
_SAME = 0.5  # pixels by which the corners of a box that was written twice differ at most
_OBJECT = re.compile(r"[ \t]*<object>.*?</object>[ \t]*\n?", re.DOTALL)


def mended_box(box: Box, size: tuple[int, int] | None, kinds: Collection[str]) -> Box | None:
    """Return a box as the reader corrects it, or None where it drops it.

    Args:
        box: As it is written.
        size: Height and width of the picture, or None.
        kinds: The findings that are mended.
    """
    rows, corrections, _ = clean([RawBox(box, 0, "")], size, ("",))
    if not corrections or corrections[0].kind not in kinds:
        return box
    if corrections[0].dropped:
        return None
    x1, y1, x2, y2 = rows[0, :4].tolist()
    return x1, y1, x2, y2


class _Seen:
    """The boxes of a picture so far, to know one that comes again."""

    def __init__(self, kinds: Collection[str]) -> None:
        self._asked = "box-repeated" in kinds
        self._boxes: dict[Any, list[Box]] = {}

    def again(self, label: Any, box: Box) -> bool:
        before = self._boxes.setdefault(label, [])
        same = self._asked and any(np.abs(np.subtract(b, box)).max() <= _SAME for b in before)
        before.append(box)
        return same


def rewrite_yolo(text: str, size: tuple[int, int] | None, kinds: Collection[str]) -> str:
    """Return a label file of YOLO.

    Args:
        text: As it is.
        size: Height and width of the picture, or None where it cannot be read.
        kinds: The findings that are mended.
    """
    if size is None:
        return text
    scale = np.array([size[1], size[0]] * 2, np.float64)
    seen = _Seen(kinds)
    kept: list[str] = []
    for line in text.splitlines():
        cells = line.split()
        try:
            values = [float(c) for c in cells]
        except ValueError:
            values = []
        if len(values) < 5:
            kept.append(line)
            continue
        polygon = len(values) > 6 and len(values) % 2 == 1
        points = np.array(values[1:], np.float64).reshape(-1, 2) if polygon else np.zeros((0, 2))
        if polygon:
            shares = np.concatenate([points.min(0), points.max(0)])
        else:
            cx, cy, w, h = values[1:5]
            shares = np.array([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2])
        box = _box(shares * scale)
        mended = mended_box(box, size, kinds)
        if mended is None or seen.again(cells[0], mended):
            continue
        if mended != box and polygon:
            line = " ".join([cells[0], *(f"{v:.8g}" for v in np.clip(points, 0, 1).ravel())])
        elif mended != box:
            x1, y1, x2, y2 = np.array(mended) / scale
            line = " ".join([cells[0], *(f"{v:.8g}" for v in ((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1))])
            line = " ".join([line, *cells[5:]])
        kept.append(line)
    return "".join(f"{line}\n" for line in kept)


def rewrite_voc(text: str, size: tuple[int, int] | None, kinds: Collection[str]) -> str:
    """Return an XML file of Pascal VOC; arguments as in :func:`rewrite_yolo`."""
    seen = _Seen(kinds)

    def one(match: re.Match[str]) -> str:
        block = match[0]
        inner = re.search(r"<bndbox>.*?</bndbox>", block, re.DOTALL)
        corners = [_corner(inner[0] if inner else "", tag) for tag in ("xmin", "ymin", "xmax", "ymax")]
        if any(c is None for c in corners) or ">rotation<" in block:  # turned: its corners are not those of the box
            return block
        box = _box([c for c in corners if c is not None])
        mended = mended_box(box, size, kinds)
        name = re.search(r"<name>(.*?)</name>", block, re.DOTALL)
        if mended is None or seen.again(name[1].strip() if name else "", mended):
            return ""
        if mended == box or inner is None:
            return block
        written = inner[0]
        for tag, value in zip(("xmin", "ymin", "xmax", "ymax"), mended, strict=True):
            written = re.sub(rf"(<{tag}>\s*)[^<\s]+", rf"\g<1>{value:.8g}", written, count=1)
        return block.replace(inner[0], written)

    return _OBJECT.sub(one, text)


def _corner(box: str, tag: str) -> float | None:
    found = re.search(rf"<{tag}>\s*([^<\s]+)", box)
    return number(found[1]) if found else None


def _box(values: Sequence[float] | np.ndarray[Any, Any]) -> Box:
    x1, y1, x2, y2 = (float(v) for v in values)
    return x1, y1, x2, y2


def rewrite_coco(
    file: Path, original: Path, dropped: Collection[str], sizes: Mapping[str, tuple[int, int]], kinds: Collection[str]
) -> None:
    """Write a COCO JSON file again.

    Args:
        file: The copy, which is replaced.
        original: The file that it is of: its images are looked for from there.
        dropped: Image files that are left out.
        sizes: Height and width of the image files that can be read.
        kinds: The findings that are mended.
    """
    content = json.loads(read_text(original))
    names = [r["file_name"] for r in content["images"] if isinstance(r.get("file_name"), str)]
    finder = ImageFinder(original, None, names)
    images, kept, size_of = [], set(), {}
    for record in content["images"]:
        name = record.get("file_name")
        path = finder.find(name) if isinstance(name, str) else None
        gone = path in dropped or (isinstance(name, str) and path is None and "image-missing" in kinds)
        if not gone:
            images.append(record)
            kept.add(str(record.get("id")))
            size_of[str(record.get("id"))] = sizes.get(path or "")
    known = {str(r.get("id")) for r in content["images"]}
    seen: dict[str, _Seen] = {}
    notes = []
    for record in content["annotations"]:
        image = str(record.get("image_id"))
        if image in known and image not in kept:
            continue
        mended = _coco_object(record, size_of.get(image), kinds, seen.setdefault(image, _Seen(kinds)))
        if mended is not None:
            notes.append(mended)
    content["images"], content["annotations"] = images, notes
    write_text(file, json.dumps(content, ensure_ascii=False))


def _coco_object(
    record: dict[str, Any], size: tuple[int, int] | None, kinds: Collection[str], seen: _Seen
) -> dict[str, Any] | None:
    bbox = record.get("bbox")
    sides = [n for v in bbox if (n := number(v)) is not None] if isinstance(bbox, list) else []
    if len(sides) != 4:
        lacks = not bbox and not isinstance(record.get("segmentation"), list)
        return None if lacks and "box-missing" in kinds else record
    attributes = record.get("attributes")
    if isinstance(attributes, dict) and attributes.get("rotation"):  # turned: its corners are not those of the box
        return record
    box = _box([sides[0], sides[1], sides[0] + sides[2], sides[1] + sides[3]])
    mended = mended_box(box, size, kinds)
    if mended is None or (not record.get("iscrowd") and seen.again(record.get("category_id"), mended)):
        return None
    if mended == box:
        return record
    x1, y1, x2, y2 = mended
    return {**record, "bbox": [x1, y1, x2 - x1, y2 - y1]}


def rewrite_manifest(file: Path, original: Path, gone: Callable[[str, str], bool]) -> None:
    """Write a manifest again without some of its lines.

    Args:
        file: The copy, which is replaced.
        original: The file that it is of.
        gone: Takes the path of a line as it is written, and its split; returns whether it is left out.
    """
    lines = read_text(original).split("\n")
    left_out: set[int] = set()
    with gathering():  # lines that are wrong stay
        for row in read_rows(original):
            line = int(row.where.rpartition(":")[2])
            broken = sum(str(v).count("\n") for v in row.cells.values()) if original.suffix.lower() == ".csv" else 0
            if gone(str(row.cells.get("path") or "").strip(), str(row.cells.get("split") or "").strip().lower()):
                left_out.update(range(line - broken, line + 1))
    write_text(file, "\n".join(line for n, line in enumerate(lines, 1) if n not in left_out))


def rewrite_list(file: Path, gone: Callable[[str], bool]) -> None:
    """Write a list of images again without some of its lines.

    Args:
        file: The list, which is replaced.
        gone: Takes the name of an image without folders and ending; returns whether it is left out.
    """
    lines = read_text(file).split("\n")
    kept = [line for line in lines if not line.strip() or not gone(_stem(line))]
    if kept != lines:
        write_text(file, "\n".join(kept))


def _stem(line: str) -> str:
    name = PureWindowsPath(line.strip()).name
    stem = PureWindowsPath(name).stem
    return stem if PureWindowsPath(name).suffix else name.split()[0] if name.split() else name
