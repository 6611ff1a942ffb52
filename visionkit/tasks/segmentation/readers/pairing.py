"""Which mask belongs to which image."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path, PureWindowsPath
from typing import NamedTuple

from visionkit.core.errors import DataError
from visionkit.core.files import read_text
from visionkit.data.images.listing import SUFFIXES, list_images
from visionkit.data.labels.faults import fault, fault_each, is_gathering
from visionkit.data.labels.names import composed

__all__ = ["MASK_ENDING", "Pair", "Pairs", "pair_masks"]

MASK_ENDING = re.compile(
    r"(?:(?:_gt(?:Fine|Coarse))?_label(?:Train)?Ids|[_-](?:masks?|segmentation|seg|labels?|gt|L))$", re.IGNORECASE
)
"""What the name of a mask may have at its end and its image's has not."""
_IMAGE_ENDING = "_leftImg8bit"


class Pair(NamedTuple):
    """An image and its mask.

    Args:
        image: Path of the image file.
        mask: Path of the mask file.
        key: Path of the image relative to its folder, with slashes.
    """

    image: str
    mask: str
    key: str


class Pairs(NamedTuple):
    """The images of a folder that have a mask.

    Args:
        found: By ``key``.
        without: Files of the images that have none.
    """

    found: list[Pair]
    without: tuple[str, ...]

    @property
    def unmasked(self) -> int:
        """Number of images that have none."""
        return len(self.without)


def pair_masks(
    images: Path, masks: Path, *, channels: int = 3, listed: Path | None = None, ending: str | None = None
) -> Pairs:
    """Pair images and masks by folder and name; the mask's name may end in ``_mask``, ``_labelIds``, ...

    Names are the same in either of Unicode's forms, and a mask may keep its image's suffix before its own (a.jpg.png).

    Args:
        images: Folder of images; subfolders too.
        masks: Folder of masks with the same subfolders; that of the images where ``ending`` tells them apart.
        channels: As in ``list_images``.
        listed: A text file with the names of the images that count, or None for all.
        ending: Only masks whose name without suffix ends so, or None for all.

    Raises:
        DataError: A mask has no image, an image has two masks, two images of one folder have the same name, or none
            has a mask.
    """
    shown = list_images(images, channels=channels)
    files = list_images(masks)
    if ending is not None:
        files = [f for f in files if f.stem.endswith(ending)]
        shown = shown if images != masks else [f for f in shown if not f.stem.endswith(ending)]
    pictures = _by_name(shown, images)
    names: dict[str, str] = {}  # the name that a mask may have -> the image's
    for name, picture in pictures.items():
        names[f"{name}{picture.suffix}"] = name
        if name.endswith(_IMAGE_ENDING):
            names[name.removesuffix(_IMAGE_ENDING)] = name
    names |= {name: name for name in pictures}
    found: dict[str, Path] = {}
    lonely: list[Path] = []
    for file in files:
        name = _name(file, masks)
        image = names.get(name) or names.get(MASK_ENDING.sub("", name))
        if image is None:
            lonely.append(file)
        elif image in found:
            fault("mask-twice", f"{pictures[image]}: has two masks, {found[image]} and {file}; keep one of them")
        else:
            found[image] = file
    chosen = sorted(pictures) if listed is None else _listed(listed, pictures, found, images, masks)
    if listed is None and not found:
        looked = f"looked in {masks} for files such as {_expected(sorted(pictures))}"
        raise DataError(f"{images}: none of {len(pictures)} images has a mask; {looked}")
    if listed is None and lonely:
        total = f"{masks}: {len(lonely)} masks have no image in {images}; add the images or remove the masks"
        fault_each("label-orphan", [f"{f}: no image of this name" for f in lonely], total)
    pairs = [
        Pair(str(pictures[n]), str(found[n]), pictures[n].relative_to(images).as_posix()) for n in chosen if n in found
    ]
    without = tuple(str(pictures[n]) for n in chosen if n not in found)
    return Pairs(sorted(pairs, key=lambda p: p.key), without)


def _name(file: Path, folder: Path) -> str:
    return composed(file.relative_to(folder).with_name(file.stem).as_posix())


def _by_name(files: Sequence[Path], folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for file in files:
        name = _name(file, folder)
        if name in found:
            what = f"has the same name as {found[name].name} beside it, so its mask is unclear"
            fault("image-twice", f"{file}: {what}; rename one")
            continue
        found[name] = file
    return found


def _expected(names: Sequence[str]) -> str:
    return f"{names[0]}.png or {names[0]}_mask.png" if names else "x.png or x_mask.png"


def _listed(
    file: Path, pictures: dict[str, Path], masks: dict[str, Path], image_folder: Path, mask_folder: Path
) -> list[str]:
    """Return the names that a list holds, each once; all have masks, or none."""
    places: dict[str, int] = {}
    for number, line in enumerate(read_text(file).split("\n"), 1):
        name = PureWindowsPath(line.strip()).as_posix()
        if not line.strip():
            continue
        stem, suffix = os.path.splitext(name)
        name = composed(stem if suffix.lower() in SUFFIXES else name)
        if name not in pictures:
            what = f"{name}: no such image in {image_folder}"
            fault("image-missing", f"{file}:{number}: {what}; add it or remove the line")
            continue
        places.setdefault(name, number)
    lacking = [n for n in places if n not in masks]
    if lacking and len(lacking) < len(places):
        what = f"no mask in {mask_folder}; add it or remove the line"
        every = lacking if is_gathering() else lacking[:1]
        fault_each("label-missing", [f"{file}:{places[name]}: {name}: {what}" for name in every])
    return list(places)
