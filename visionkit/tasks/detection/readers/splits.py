"""Finding the training, validation and test images with boxes below a root."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from visionkit.core.errors import DataError, UsageError
from visionkit.data.dataset import DataSplits
from visionkit.data.images.reading import list_images
from visionkit.data.labels.checks import refuse_leaks
from visionkit.data.labels.coco_files import coco_files
from visionkit.data.shapes import SHAPES
from visionkit.data.split import divide
from visionkit.tasks.detection.readers.coco import CocoDataset
from visionkit.tasks.detection.readers.reader import BoxDataset
from visionkit.tasks.detection.readers.shapes import ShapesDetection
from visionkit.tasks.detection.readers.voc import VocDataset, voc_splits
from visionkit.tasks.detection.readers.yolo import YoloDataset
from visionkit.tasks.detection.readers.yolo_layout import YAML_SUFFIXES, find_yolo

__all__ = ["find_box_splits"]

_SHAPES_TRAIN, _SHAPES_VAL = 600, 150
_UNDERSTOOD = (
    "understood are COCO JSON (annotations/instances_train2017.json, train/_annotations.coco.json), Pascal VOC "
    "(Annotations/*.xml with JPEGImages/) and YOLO (data.yaml, or images/ with labels/)"
)

Splits = DataSplits[BoxDataset]


class _Part(NamedTuple):
    """A split that was found: what reads it, given classes, channels and masks, and where it is told."""

    read: Callable[..., BoxDataset]
    where: str


def find_box_splits(
    root: str | os.PathLike[str] | None,
    *,
    val_fraction: float = 0.2,
    seed: int = 0,
    classes: Sequence[str] | None = None,
    channels: int = 3,
    need: Collection[str] = ("train", "val"),
    masks: bool = False,
) -> Splits:
    """Find the images with boxes below ``root`` and divide them into training, validation and test.

    Where a folder holds several formats, COCO JSON is read before Pascal VOC before YOLO: it knows most. Where there
    are training images and no validation images, the latter are taken from the former.

    Args:
        root: A COCO JSON file, a YOLO data.yaml, or the folder of a data set; None for drawn shapes.
        val_fraction: Share of the images for validation where it is split automatically, in (0, 1).
        seed: Of the automatic split and of the drawn shapes.
        classes: Class names in order (of a checkpoint); None takes those of the training images.
        channels: 3 for RGB, 1 for gray, another number for multi-band files.
        need: The splits that must be there; to evaluate, ``("val",)`` or ``("test",)`` with ``classes``.
        masks: Whether to read masks, too: those of COCO JSON, polygons of YOLO, or exact ones of drawn shapes.

    Raises:
        DataError: Images or labels are missing, wrong or disagree, or a split that is needed is not there.
        UsageError: A value is out of range, or the format has no masks.
    """
    if not 0 < val_fraction < 1:
        raise UsageError(f"val_fraction: {val_fraction} is not between 0 and 1; give a share such as 0.2")
    if root is None:
        found = _from_shapes(seed, classes, channels, masks)
    else:
        found = _from_root(Path(root), classes, {"channels": channels, "masks": masks}, need)
        refuse_leaks(found, root)
    if found.train is not None and found.val is None:
        keys = [e.key for e in found.train.entries]
        found = divide(found, keys, found.train.labels, val_fraction, seed)
    for name in need:
        found.get(name)
    if found.train is not None:
        if len(found.train) < 2:
            raise DataError(f"{root}: {len(found.train)} training image(s); give 2 or more")
        if not any(found.train.labels):
            raise DataError(f"{root}: no training image has a box; label some objects")
    return found


def _from_shapes(seed: int, classes: Sequence[str] | None, channels: int, masks: bool) -> Splits:
    if classes is not None and tuple(classes) != SHAPES:
        raise UsageError(
            f"without a root the data are drawn shapes ({', '.join(SHAPES)}), but the classes are "
            f"{', '.join(classes[:6])}; give the root of your images"
        )
    train = ShapesDetection(_SHAPES_TRAIN, seed=2 * seed, channels=channels, masks=masks)
    val = ShapesDetection(_SHAPES_VAL, seed=2 * seed + 1, channels=channels, masks=masks)
    source = f"drawn shapes: {_SHAPES_TRAIN} for training, {_SHAPES_VAL} for validation (seed {seed})"
    return Splits(train, val, None, source)


def _from_root(path: Path, classes: Sequence[str] | None, settings: dict[str, Any], need: Collection[str]) -> Splits:
    formats = _formats(path, need)
    if not formats:
        images = len(list_images(path, channels=settings["channels"]))
        what = f"holds {images} images but no boxes" if images else "holds no images and no boxes"
        raise DataError(f"{path}: {what}; {_UNDERSTOOD}")
    name, *others = formats
    if name == "Pascal VOC":
        if settings["masks"]:
            raise UsageError(f"{path}: Pascal VOC has no masks; give COCO JSON, or leave masks out")
        settings = {"channels": settings["channels"]}  # all that its reader knows
    parts = formats[name]
    if "" in parts:
        parts = {"train": parts[""]}
    read: dict[str, BoxDataset] = {}
    if classes is None:
        if "train" not in parts:
            raise UsageError(f"{path}: has no train split to take the class names from; add it or give a checkpoint")
        train = parts["train"].read(classes=None, **settings)
        read = {"train": train}
        classes = train.classes
    read |= {n: p.read(classes=classes, **settings) for n, p in parts.items() if n not in read}
    if len(formats[name]) == 1 and "" in formats[name]:
        told = f"{_count(read['train'])} ({parts['train'].where})"
    else:
        told = ", ".join(f"{n} {_count(read[n])} ({parts[n].where})" for n in ("train", "val", "test") if n in read)
    also = f"; {' and '.join(others)} labels lie there too and are not read" if others else ""
    source = f"{name} of {path}: {told}{also}{_corrected(read.values())}"
    return Splits(read.get("train"), read.get("val"), read.get("test"), source)


def _formats(path: Path, need: Collection[str]) -> dict[str, dict[str, _Part]]:
    """Return the splits by format, the preferred format first."""
    suffix = path.suffix.lower()
    if not path.exists():
        raise DataError(f"{path}: no such folder or file; check the path; {_UNDERSTOOD}")
    if path.is_file() and suffix not in (".json", *YAML_SUFFIXES):
        raise UsageError(f"{path}: is neither a folder nor a file of a known format; {_UNDERSTOOD}")
    found: dict[str, dict[str, _Part]] = {}
    if suffix == ".json" and path.is_file():
        return {"COCO JSON": {"": _Part(partial(CocoDataset, path), path.name)}}
    if path.is_dir():
        files = coco_files(path)
        found["COCO JSON"] = {n: _Part(partial(CocoDataset, f), _below(f, path)) for n, f in files.items()}
        places = voc_splits(path)
        found["Pascal VOC"] = {
            n: _Part(partial(VocDataset, path, n or None), _below(f, path)) for n, f in places.items()
        }
    found["YOLO"] = _yolo(path, need) if not any(found.values()) else _yolo_or_none(path)
    return {name: parts for name, parts in found.items() if parts}


def _yolo(path: Path, need: Collection[str]) -> dict[str, _Part]:
    layout = find_yolo(path)
    if layout is None:
        return {}
    for name, message in layout.missing.items():
        if name in need:
            raise DataError(message)
    return {
        n: _Part(partial(YoloDataset, path, n or None), ", ".join(_below(p, layout.folder) for p in places))
        for n, places in layout.splits.items()
    }


def _yolo_or_none(path: Path) -> dict[str, _Part]:
    try:
        return _yolo(path, ())
    except (DataError, UsageError):  # of no matter where another format is read
        return {}


def _below(path: Path, folder: Path) -> str:
    if path == folder:
        return "all images"
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(path)


def _count(data: BoxDataset) -> str:
    boxes = sum(len(e.objects) for e in data.entries)
    return f"{len(data)} images with {boxes} boxes"


def _corrected(parts: Collection[BoxDataset]) -> str:
    every = [c for p in parts for e in p.entries for c in e.corrections]
    gone, ignored = sum(c.dropped for c in every), sum(c.ignored for c in every)
    counts = ((gone, "dropped"), (len(every) - gone - ignored, "clipped"))
    told = ", ".join(f"{n} {what}" for n, what in counts if n)
    boxes = f"; wrong boxes: {told}" if told else ""
    return boxes + (f"; without a mask: {ignored} ignored" if ignored else "")
