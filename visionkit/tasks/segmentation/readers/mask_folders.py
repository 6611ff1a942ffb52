"""Data sets of images and mask files: Pascal VOC, Cityscapes, and folders of any such kind."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from visionkit.data.dataset import DataSplits
from visionkit.data.formats import Format, Request, below, make_splits, require_train, tell_parts
from visionkit.data.labels.faults import reading_split
from visionkit.tasks.segmentation.readers.class_table import ClassTable, find_table
from visionkit.tasks.segmentation.readers.layouts import (
    MaskLayout,
    MaskPlace,
    find_cityscapes,
    find_folders,
    find_voc,
)
from visionkit.tasks.segmentation.readers.mask_code import complete_table, make_code
from visionkit.tasks.segmentation.readers.pairing import Pairs, pair_masks
from visionkit.tasks.segmentation.readers.reader import MaskDataset, MaskFileDataset

__all__ = ["CITYSCAPES", "FOLDERS", "VOC"]

Tables = dict[ClassTable | None, tuple[ClassTable, str]]
"""What a table that was found, or none, became with the ids in its masks, and what was understood of them."""


def _read(layout: MaskLayout, request: Request) -> DataSplits[MaskDataset]:
    root = request.place
    places = {"train": layout.splits[""]} if "" in layout.splits else layout.splits
    require_train(places, request)
    paired = {n: _pair(n, p, request) for n, p in places.items()}
    empty = [n for n in places if not paired[n].found]  # lists of images whose masks are secret
    notes = [*layout.notes, *(f"the {paired[n].unmasked} images of {n} have no masks and are left out" for n in empty)]
    pairs = {n: p for n, p in paired.items() if n not in empty}
    require_train(pairs, request)
    found = {n: find_table(_above(places[n].masks, root)) or places[n].table for n in pairs}
    tables = _complete(found, pairs, places, request)
    classes = request.classes
    done: dict[str, MaskDataset] = {}
    for name in ("train", "val", "test"):
        if name not in pairs:
            continue
        table, understood = tables[found[name]]
        code = make_code(table, ignore=request.options.get("ignore"), classes=classes)
        done[name] = MaskFileDataset(pairs[name], code, channels=request.channels)
        if len(done) == 1:
            notes.append(_named(table, root, code.classes, code.ignored, understood))
        classes = code.classes if classes is None else classes
        if pairs[name].unmasked:
            notes.append(f"{pairs[name].unmasked} images of {name} have no mask and are left out")
    told = tell_parts({n: _told(p, root) for n, p in layout.splits.items()}, done, lambda d: f"{len(d)} images")
    return make_splits(done, "; ".join([f"{layout.name} of {root}: {told}", *notes]))


def _pair(name: str, place: MaskPlace, request: Request) -> Pairs:
    with reading_split(name):
        return pair_masks(
            place.images, place.masks, channels=request.channels, listed=place.listed, ending=place.ending
        )


def _complete(
    found: dict[str, ClassTable | None], pairs: dict[str, Pairs], places: dict[str, MaskPlace], request: Request
) -> Tables:
    """Return each table with what the ids in all masks that it is for say."""
    done: Tables = {}
    for name, table in found.items():
        if table not in done:
            masks = [p.mask for n in pairs if found[n] == table for p in pairs[n].found]
            where = str(request.root if len(set(found.values())) == 1 else places[name].masks)
            ignore = request.options.get("ignore")
            done[table] = complete_table(table, masks, where, ignore=ignore, classes=request.classes)
    return done


def _named(table: ClassTable, root: Path, classes: Sequence[str], ignored: Sequence[str], understood: str) -> str:
    source = below(Path(table.source), root)
    named = not understood or table.form != "built-in"  # else what was understood says it all
    told = f"{len(classes)} classes" + (f" of {source}" if named else "")
    told += f" ({understood})" if understood else ""
    return told + (f", {', '.join(ignored)} ignored" if ignored else "")


def _above(folder: Path, root: Path) -> list[Path]:
    """Return a folder and those above it up to the root."""
    return [f for f in (folder, *folder.parents) if f == root or f.is_relative_to(root)]


def _told(place: MaskPlace, root: Path) -> str:
    listed = () if place.listed is None else (place.listed,)
    return ", ".join(below(p, root) for p in dict.fromkeys((place.images, place.masks, *listed)))


VOC = Format[MaskDataset](
    "Pascal VOC",
    "Pascal VOC (JPEGImages with SegmentationClass)",
    lambda root: find_voc(root) if root.is_dir() else None,
    _read,
    frozenset({"pixels", "names"}),
)
"""Lists of the splits; the names are built in."""
CITYSCAPES = Format[MaskDataset](
    "Cityscapes",
    "Cityscapes (leftImg8bit with gtFine)",
    lambda root: find_cityscapes(root) if root.is_dir() else None,
    _read,
    frozenset({"pixels", "names"}),
)
"""A folder a split; the names are built in."""
FOLDERS = Format[MaskDataset](
    "mask folders",
    "folders of images and masks (images/train with masks/train, train/images with train/masks, images with masks, "
    "train with trainannot, train with a.jpg and a_mask.png)",
    lambda root: find_folders(root) if root.is_dir() else None,
    _read,
    frozenset({"pixels", "names"}),
)
"""Images and masks paired by name; a file names the classes."""
