"""Where a data set has its images and masks: by the names of folders."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from visionkit.core.errors import DataError, UsageError
from visionkit.data.images.listing import SUFFIXES, list_folders, list_images
from visionkit.data.labels.names import split_list
from visionkit.data.split import SPLIT_WORDS, split_word
from visionkit.tasks.segmentation.readers.builtin_tables import CITYSCAPES_IDS, CITYSCAPES_TRAIN_IDS, VOC
from visionkit.tasks.segmentation.readers.class_table import ClassTable
from visionkit.tasks.segmentation.readers.pairing import MASK_ENDING

__all__ = ["MaskLayout", "MaskPlace", "find_cityscapes", "find_folders", "find_voc"]

_IMAGES = ("images", "image", "imgs", "img", "img_dir", "image_dir", "jpegimages")
_MASKS = (
    *(
        "masks",
        "mask",
        "masks_machine",
        "mask_dir",
        "semantic_masks",
        "semantic_mask",
        "labels",
        "label",
        "annotations",
        "annotation",
    ),
    *("ann_dir", "ann", "targets", "target", "gt", "ground_truth", "segmentations", "segmentation"),
)
_BESIDE = ("annot", "_annot", "_annotations", "_labels", "_label", "_masks", "_mask", "_gt", "labels", "masks")

_AMONG = "_mask"  # how the names of masks end that lie among their images


class MaskPlace(NamedTuple):
    """Where a split lies.

    Args:
        images: Folder of images.
        masks: Folder of masks.
        listed: Text file with the names that belong to the split, or None for all.
        ending: How the names of its masks end where others lie beside them, or None.
        table: The classes where no file names them, or None.
    """

    images: Path
    masks: Path
    listed: Path | None = None
    ending: str | None = None
    table: ClassTable | None = None


class MaskLayout(NamedTuple):
    """Where things are.

    Args:
        name: What kind of folder it is, in words.
        splits: By split; "" for images of no split.
        notes: What was left out.
    """

    name: str
    splits: dict[str, MaskPlace]
    notes: tuple[str, ...] = ()


def find_voc(root: Path) -> MaskLayout | None:
    """Return the layout of a folder of Pascal VOC with masks, or None where it is none."""
    images = root / "JPEGImages"
    masks = next((root / n for n in ("SegmentationClass", "SegmentationClassPNG") if _holds_images(root / n)), None)
    if masks is None or not images.is_dir():
        return None
    lists = root / "ImageSets" / "Segmentation"
    splits: dict[str, MaskPlace] = {}
    for name, words in SPLIT_WORDS.items():
        file = split_list(lists, words)
        if file is not None:
            splits[name] = MaskPlace(images, masks, file, None, VOC)
    both = split_list(lists, ("trainval",))
    if both is not None and not {"train", "val"} & set(splits):
        splits["train"] = MaskPlace(images, masks, both, None, VOC)
    return MaskLayout("Pascal VOC", splits or {"": MaskPlace(images, masks, None, None, VOC)})


def find_cityscapes(root: Path) -> MaskLayout | None:
    """Return the layout of a folder of Cityscapes, or None where it is none.

    Raises:
        DataError: A split has two folders.
    """
    images, masks = root / "leftImg8bit", root / "gtFine"
    if not images.is_dir() or not masks.is_dir():
        return None
    splits: dict[str, MaskPlace] = {}
    notes: list[str] = []
    for name, folder in _by_split(images).items():
        place = masks / folder.name
        tables = {"_labelIds": CITYSCAPES_IDS, "_labelTrainIds": CITYSCAPES_TRAIN_IDS}
        ending = next((e for e in tables if next(place.rglob(f"*{e}.png"), None) is not None), None)
        if ending is None:
            notes.append(_no_masks(folder, place, root))
        else:
            splits[name] = MaskPlace(folder, place, None, ending, tables[ending])
    return MaskLayout("Cityscapes", splits, tuple(notes)) if splits else None


def find_folders(root: Path) -> MaskLayout | None:
    """Return the layout of folders of images and masks, or None where there are none.

    Raises:
        DataError: Folders of images and of masks do not fit each other.
        UsageError: Several folders can be meant.
    """
    found = _two_folders(root) or _beside(root) or _within_splits(root) or _mixed(root) or _raw(root)
    if found is None and len(inner := list_folders(root)) == 1 and not _stems(root):
        return find_folders(inner[0])  # an archive's own folder, or the one data set of a project
    return found


def _two_folders(root: Path) -> MaskLayout | None:
    """Images in one folder, masks in another, each with the splits below."""
    found = _images_and_masks(root)
    if found is None:
        return None
    images, masks = found
    of_images, of_masks = _by_split(images), _by_split(masks)
    if not of_images and not of_masks:
        return MaskLayout("masks", {"": MaskPlace(images, masks)})
    missing = [f for name, f in of_masks.items() if name not in of_images]
    if missing or not set(of_images) & set(of_masks):
        parent, other = (images, masks) if missing else (masks, images)
        lacking = missing[0] if missing else next(iter(of_images.values()))
        raise DataError(f"{parent}: has no folder {lacking.name}/ as {other} has; divide both alike, or neither")
    notes = [_no_masks(f, masks / f.name, root) for name, f in of_images.items() if name not in of_masks]
    splits = {name: MaskPlace(f, of_masks[name]) for name, f in of_images.items() if name in of_masks}
    return MaskLayout("masks", splits, tuple(notes))


def _beside(root: Path) -> MaskLayout | None:
    """Folders of images with their masks in a folder of a longer name: train/ and trainannot/."""
    folders = {f.name.lower(): f for f in list_folders(root)}
    splits: dict[str, MaskPlace] = {}
    notes: list[str] = []
    for name, folder in folders.items():
        word = split_word(name)
        places = [folders[name + b] for b in _BESIDE if name + b in folders and _holds_images(folders[name + b])]
        if word is None or not places:
            continue
        if word in splits:
            raise DataError(f"{root}: has both {splits[word].images.name}/ and {folder.name}/; keep one")
        splits[word] = MaskPlace(folder, _only(root, places))
    for name, folder in folders.items():
        word = split_word(name)
        taken = any(folder in (p.images, p.masks) for p in splits.values())
        if splits and word is not None and word not in splits and not taken and _holds_images(folder):
            notes.append(_no_masks(folder, root / f"{folder.name}annot", root))
    if splits:
        return MaskLayout("masks", splits, tuple(notes))
    pairs = [(f, folders[n + b]) for n, f in folders.items() for b in _BESIDE if n + b in folders]
    pairs = [(f, masks) for f, masks in pairs if _holds_images(f) and _holds_images(masks)]
    return MaskLayout("masks", {"": MaskPlace(*pairs[0])}) if len(pairs) == 1 else None


def _mixed(root: Path) -> MaskLayout | None:
    """Masks among their images, told by their names: train/a.jpg and train/a_mask.png."""

    def holds_both(folder: Path) -> bool:
        names = _stems(folder)
        masks = {n for n in names if n.endswith(_AMONG)}
        return bool(masks) and all(n.removesuffix(_AMONG) in names for n in masks)

    if holds_both(root):
        return MaskLayout("masks", {"": MaskPlace(root, root, None, _AMONG)})
    splits = {name: f for name, f in _by_split(root).items() if holds_both(f)}
    return MaskLayout("masks", {n: MaskPlace(f, f, None, _AMONG) for n, f in splits.items()}) if splits else None


def _within_splits(root: Path) -> MaskLayout | None:
    """A folder a split, with images and masks below: train/images/ and train/masks/."""
    splits: dict[str, MaskPlace] = {}
    notes: list[str] = []
    for folder in list_folders(root):
        word = split_word(folder.name)
        found = None if word is None else _images_and_masks(folder)
        if word is None or found is None:
            if word is not None and any(f.name.lower() in _IMAGES for f in list_folders(folder)):
                notes.append(f"{folder.name} has no masks and is left out")
            continue
        if word in splits:
            raise DataError(f"{root}: has both {splits[word].images.parent.name}/ and {folder.name}/; keep one")
        splits[word] = MaskPlace(*found)
    return MaskLayout("masks", splits, tuple(notes)) if splits else None


def _raw(root: Path) -> MaskLayout | None:
    """Two folders of any names, masks called like their images and ``_L`` (the original CamVid) or the like."""
    names = {f: _stems(f) for f in list_folders(root)}
    full = [f for f, stems in names.items() if stems]
    found: list[tuple[Path, Path]] = []
    for masks in full:
        bare = {MASK_ENDING.sub("", s) for s in names[masks]}
        if not bare & names[masks]:
            found += [(images, masks) for images in full if images != masks and bare <= names[images]]
    if len(found) > 1:
        named = ", ".join(f"{m.name} for {i.name}" for i, m in found)
        raise UsageError(f"{root}: several folders of masks ({named}); keep one pair")
    return MaskLayout("masks", {"": MaskPlace(*found[0])}) if found else None


def _images_and_masks(folder: Path) -> tuple[Path, Path] | None:
    images = [f for f in list_folders(folder) if f.name.lower() in _IMAGES]
    masks = [f for f in list_folders(folder) if f.name.lower() in _MASKS and _holds_images(f)]
    return (_only(folder, images), _only(folder, masks)) if images and masks else None


def _only(folder: Path, places: list[Path]) -> Path:
    if len(places) > 1:
        named = ", ".join(f"{p.name}/" for p in places)
        raise UsageError(f"{folder}: several folders can be meant ({named}); keep one of them, move the others away")
    return places[0]


def _by_split(folder: Path) -> dict[str, Path]:
    """Return the folders that are called like splits (train, val2017, training, ...)."""
    found: dict[str, Path] = {}
    for f in list_folders(folder):
        word = split_word(f.name)
        if word is None:
            continue
        if word in found:
            raise DataError(f"{folder}: has both {found[word].name}/ and {f.name}/; keep one")
        found[word] = f
    return {name: found[name] for name in SPLIT_WORDS if name in found}


def _no_masks(images: Path, masks: Path, root: Path) -> str:
    place = masks.relative_to(root).as_posix()
    return f"{images.relative_to(root).as_posix()} has no masks ({place}) and is left out"


def _holds_images(folder: Path) -> bool:
    """Return whether any file below a folder is called like an image."""
    return folder.is_dir() and bool(list_images(folder))


def _stems(folder: Path) -> set[str]:
    """Return the names of the images that lie directly in a folder, without their suffixes."""
    return {os.path.splitext(n)[0] for n in os.listdir(folder) if _is_image(n)}


def _is_image(name: str) -> bool:
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in SUFFIXES
