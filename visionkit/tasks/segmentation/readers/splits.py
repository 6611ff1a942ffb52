"""Finding the training, validation and test images with masks below a root."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from visionkit.core.errors import DataError, UsageError
from visionkit.data.dataset import DataSplits
from visionkit.data.images.reading import list_images
from visionkit.data.labels.checks import refuse_leaks
from visionkit.data.labels.coco_files import coco_files
from visionkit.data.shapes import SHAPES
from visionkit.data.split import divide
from visionkit.tasks.segmentation.readers.class_table import ClassTable, find_table
from visionkit.tasks.segmentation.readers.coco import CocoMaskDataset
from visionkit.tasks.segmentation.readers.layouts import MaskLayout, MaskPlace, find_masks
from visionkit.tasks.segmentation.readers.mask_code import complete_table, make_code
from visionkit.tasks.segmentation.readers.pairing import Pairs, pair_masks
from visionkit.tasks.segmentation.readers.reader import MaskDataset, MaskFileDataset
from visionkit.tasks.segmentation.readers.shapes import ShapesSegmentation

__all__ = ["find_mask_splits"]

_SHAPES_TRAIN, _SHAPES_VAL = 600, 150
_UNDERSTOOD = (
    "understood are folders of images and masks (images/train with masks/train, train/images with train/masks, images "
    "with masks, train with trainannot), Pascal VOC (JPEGImages with SegmentationClass), Cityscapes (leftImg8bit with "
    "gtFine) and COCO JSON with polygons (annotations/instances_train2017.json)"
)

Splits = DataSplits[MaskDataset]


def find_mask_splits(
    root: str | os.PathLike[str] | None,
    *,
    val_fraction: float = 0.2,
    seed: int = 0,
    classes: Sequence[str] | None = None,
    ignore: Sequence[str] | None = None,
    channels: int = 3,
    need: Collection[str] = ("train", "val"),
) -> Splits:
    """Find the images with masks below ``root`` and divide them into training, validation and test.

    Where a folder holds both, masks are read before COCO JSON. Where there are training images and no validation
    images, the latter are taken from the former.

    Args:
        root: The folder of a data set, or a COCO JSON file; None for drawn shapes.
        val_fraction: Share of the images for validation where it is split automatically, in (0, 1).
        seed: Of the automatic split and of the drawn shapes.
        classes: Class names in order (of a checkpoint); None takes those of the training images.
        ignore: Names of classes whose pixels are ignored; None for void, unlabeled, ignore and the like.
        channels: 3 for RGB, 1 for gray, another number for multi-band files.
        need: The splits that must be there; to evaluate, ``("val",)`` or ``("test",)`` with ``classes``.

    Raises:
        DataError: Images or masks are missing, wrong or disagree, or a split that is needed is not there.
        UsageError: A value is out of range, or several files or folders can be meant.
    """
    if not 0 < val_fraction < 1:
        raise UsageError(f"val_fraction: {val_fraction} is not between 0 and 1; give a share such as 0.2")
    if root is None:
        found = _from_shapes(seed, classes, ignore, channels)
    else:
        found = _from_root(Path(root), classes, ignore, channels)
        refuse_leaks(found, root)
    if found.train is not None and found.val is None:
        keys = [e.key for e in found.train.entries]
        if len(keys) > 1 and not any(found.train.labels):
            raise DataError(_nothing(found.train, root))
        found = divide(found, keys, found.train.labels, val_fraction, seed)
    for name in need:
        found.get(name)
    if found.train is not None and len(found.train) < 2:
        raise DataError(f"{root}: {len(found.train)} training image(s); give 2 or more")
    return found


def _from_shapes(seed: int, classes: Sequence[str] | None, ignore: Sequence[str] | None, channels: int) -> Splits:
    names = ("background", *SHAPES)
    if classes is not None and tuple(classes) != names:
        raise UsageError(
            f"without a root the data are drawn shapes ({', '.join(names)}), but the classes are "
            f"{', '.join(classes[:6])}; give the root of your images"
        )
    if ignore:
        raise UsageError(f"ignore: {', '.join(ignore)}: drawn shapes ignore nothing; give the root of your images")
    train = ShapesSegmentation(_SHAPES_TRAIN, seed=2 * seed, channels=channels)
    val = ShapesSegmentation(_SHAPES_VAL, seed=2 * seed + 1, channels=channels)
    source = f"drawn shapes: {_SHAPES_TRAIN} for training, {_SHAPES_VAL} for validation (seed {seed})"
    return Splits(train, val, None, source)


def _from_root(path: Path, classes: Sequence[str] | None, ignore: Sequence[str] | None, channels: int) -> Splits:
    if not path.exists():
        raise DataError(f"{path}: no such folder or file; check the path; {_UNDERSTOOD}")
    if path.is_file():
        if path.suffix.lower() != ".json":
            raise UsageError(f"{path}: is neither a folder nor a file of a known format; {_UNDERSTOOD}")
        return _from_coco(path, {"": path}, classes, ignore, channels)
    layout = find_masks(path)
    if layout is not None:
        return _from_masks(path, layout, classes, ignore, channels)
    files = coco_files(path)
    if files:
        return _from_coco(path, files, classes, ignore, channels)
    images = len(list_images(path, channels=channels))
    what = f"holds {images} images but no masks" if images else "holds no images and no masks"
    raise DataError(f"{path}: {what}; {_UNDERSTOOD}")


def _from_masks(
    path: Path, layout: MaskLayout, classes: Sequence[str] | None, ignore: Sequence[str] | None, channels: int
) -> Splits:
    places = {"train": layout.splits[""]} if "" in layout.splits else layout.splits
    _require_train(places, path, classes)
    pairs = {
        n: pair_masks(p.images, p.masks, channels=channels, listed=p.listed, ending=p.ending) for n, p in places.items()
    }
    empty = [n for n in places if not pairs[n].found]  # lists of images whose masks are secret
    notes = [*layout.notes, *(f"the {pairs[n].unmasked} images of {n} have no masks and are left out" for n in empty)]
    pairs = {n: p for n, p in pairs.items() if n not in empty}
    _require_train(pairs, path, classes)
    tables = {n: find_table(_above(places[n].masks, path)) or places[n].table for n in pairs}
    whole: dict[ClassTable | None, tuple[ClassTable, str]] = {}
    for name, table in tables.items():
        if table not in whole:
            alike = [p.mask for n in pairs if tables[n] == table for p in pairs[n].found]
            where = str(path if len(set(tables.values())) == 1 else places[name].masks)
            whole[table] = complete_table(table, alike, where, ignore=ignore, classes=classes)
    read: dict[str, MaskDataset] = {}
    for name in sorted(pairs, key=lambda n: n != "train"):
        table, understood = whole[tables[name]]
        code = make_code(table, ignore=ignore, classes=classes)
        read[name] = MaskFileDataset(pairs[name], code, channels=channels)
        if len(read) == 1:
            notes.append(_named(table, path, code.classes, code.ignored, understood))
        classes = code.classes if classes is None else classes
        notes += _left_out(name, pairs[name])
    if "" in layout.splits:
        told = f"{len(read['train'])} images ({_place(places['train'], path)})"
    else:
        told = ", ".join(
            f"{n} {len(read[n])} images ({_place(places[n], path)})" for n in ("train", "val", "test") if n in read
        )
    if _has_coco(path):
        notes.append("COCO JSON lies there too and is not read")
    return _splits(read, "; ".join([f"{layout.name} of {path}: {told}", *notes]))


def _from_coco(
    path: Path,
    files: Mapping[str, Path],
    classes: Sequence[str] | None,
    ignore: Sequence[str] | None,
    channels: int,
) -> Splits:
    parts = {"train": files[""]} if "" in files else dict(files)
    _require_train(parts, path, classes)
    read: dict[str, MaskDataset] = {}
    told = []
    for name in sorted(parts, key=lambda n: n != "train"):
        data = CocoMaskDataset(parts[name], classes=classes, ignore=ignore, channels=channels)
        classes = data.classes if classes is None else classes
        read[name] = data
        objects = sum(len(data._entry(i).objects) for i in range(len(data)))
        if name == "train" and not objects:
            raise DataError(f"{parts[name]}: no training image has an object; label some")
        lost = f", {len(data.problems)} left out" if data.problems else ""
        what = f"{len(data)} images with {objects} objects{lost} ({parts[name].name})"
        told.append(what if "" in files else f"{name} {what}")
    return _splits(read, f"COCO JSON of {path}: {', '.join(told)}")


def _splits(read: Mapping[str, MaskDataset], source: str) -> Splits:
    return Splits(read.get("train"), read.get("val"), read.get("test"), source)


def _require_train(parts: Collection[str], path: Path, classes: Sequence[str] | None) -> None:
    if classes is None and "train" not in parts:
        raise UsageError(f"{path}: has no train split to take the class names from; add it or give a checkpoint")


def _named(table: ClassTable, root: Path, classes: Sequence[str], ignored: Sequence[str], understood: str) -> str:
    source = _below(Path(table.source), root)
    named = not understood or table.form != "built-in"  # else what was understood says it all
    told = f"{len(classes)} classes" + (f" of {source}" if named else "")
    told += f" ({understood})" if understood else ""
    return told + (f", {', '.join(ignored)} ignored" if ignored else "")


def _left_out(name: str, pairs: Pairs) -> list[str]:
    return [f"{pairs.unmasked} images of {name} have no mask and are left out"] if pairs.unmasked else []


def _nothing(data: MaskDataset, root: str | os.PathLike[str] | None) -> str:
    why = data.mismatch(0)
    return f"{root}: no training mask shows a class; {'all is ignored, label some pixels' if why is None else why}"


def _above(folder: Path, root: Path) -> list[Path]:
    """Return a folder and those above it up to the root."""
    return [f for f in (folder, *folder.parents) if f == root or f.is_relative_to(root)]


def _has_coco(path: Path) -> bool:
    try:
        return bool(coco_files(path))
    except UsageError:  # several: of no matter here
        return True


def _place(place: MaskPlace, root: Path) -> str:
    listed = () if place.listed is None else (place.listed,)
    return ", ".join(_below(p, root) for p in (place.images, place.masks, *listed))


def _below(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(path)
