"""What the readers of several tasks do alike: sizes from the heads of files, files that are missing, leaks."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from typing import Any

from visionkit.core.errors import DataError
from visionkit.core.files import open_binary
from visionkit.core.text import shortened
from visionkit.data.dataset import DataSplits, VisionDataset
from visionkit.data.images.formats import BadImageError, open_image, orientation
from visionkit.data.images.twins import first_twins

__all__ = [
    *("RepeatedKeyError", "UnlabelledError"),
    *("header_size", "once", "other_size", "refuse_leaks", "refuse_missing", "tell_copies"),
]


class RepeatedKeyError(ValueError):
    """A key stands twice in a mapping of a file."""


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a mapping of a JSON file, for ``json.loads(..., object_pairs_hook=once)``.

    Raises:
        RepeatedKeyError: A key stands twice: the last would win without a word.
    """
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise RepeatedKeyError(f"{next(n for n in names if names.count(n) > 1)!r:.60} comes twice")
    return found


class UnlabelledError(DataError):
    """Images are there and labels of them are not; a test set may be so while a model is trained."""


def header_size(path: str | os.PathLike[str]) -> tuple[int, int] | None:
    """Return the height and width of an upright picture from the head of its file, or None where that fails."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with open_binary(path) as file:
                if (im := open_image(file)) is None:
                    return None
                width, height = im.size
                lazy = im.format == "PNG" and "exif" not in im.info  # to look further would decode it
                turned = not lazy and orientation(im) in (5, 6, 7, 8)
    except Exception:  # a damaged head can raise anything; the check of the images says what is wrong
        return None
    return (width, height) if turned else (height, width)


def other_size(id: str, size: tuple[int, int], labelled: tuple[int, int], source: str) -> str:
    """Return what to say of a picture that its labels were not made for.

    Args:
        id: Path of the picture.
        size: Its height and width in pixels.
        labelled: Height and width that the labels say.
        source: The file that the labels come from.
    """
    sizes = f"{id}: is {size[1]} x {size[0]} pixels, but {source} says {labelled[1]} x {labelled[0]}"
    if labelled == size[::-1] and _stored_size(id) == labelled:
        return (
            f"{sizes}: its labels were drawn on the picture as stored, before its EXIF orientation turns it; save the "
            "picture without EXIF orientation, or label it upright"
        )
    return f"{sizes}: its labels belong to another picture or size; put back the original picture or label it anew"


def _stored_size(path: str) -> tuple[int, int] | None:
    try:
        with open_binary(path) as file:
            im = open_image(file)
    except (DataError, BadImageError):
        return None
    return None if im is None else (im.size[1], im.size[0])  # None: a format that Pillow lacks


def refuse_missing(missing: Sequence[str], source: str, looked: str) -> None:
    """Refuse a data set whose image files are not there.

    Args:
        missing: A line for each image.
        source: The file or folder that lists them.
        looked: Where they were looked for.

    Raises:
        DataError: There are any; the first ten and their number.
    """
    if missing:
        raise DataError(*shortened(missing), f"{source}: {len(missing)} image files are missing; looked in {looked}")


def refuse_leaks(found: DataSplits[VisionDataset[Any]], root: str | os.PathLike[str]) -> list[str]:
    """Refuse images that are in two splits, under whatever name: the same path, or a link to it.

    Returns:
        A line that tells of copies: files of another name with the same bytes. They are in the data as somebody made
        them, often by the thousand, so training goes on; but the score is not what it seems.

    Raises:
        DataError: Some are; the first ten and their number.
    """
    parts = {"train": found.train, "val": found.val, "test": found.test}
    sides = [name for name, data in parts.items() if data is not None for _ in data.ids]
    ids = [id for data in parts.values() if data is not None for id in data.ids]
    if len(set(sides)) < 2:
        return []
    lines: list[str] = []
    copies: list[tuple[int, int]] = []
    for i, k in enumerate(first_twins(ids, sides)):
        if sides[i] == sides[k]:
            continue
        if ids[i] == ids[k] or os.path.samefile(ids[i], ids[k]):
            same = "" if ids[i] == ids[k] else f", the same file as {ids[k]}"
            both = f"is in both {sides[k]} and {sides[i]}, so the score would flatter; keep it in one"
            lines.append(f"{root}: {ids[i]}{same} {both}")
        else:
            copies.append((i, k))
    if lines:
        total = [] if len(lines) == 1 else [f"{root}: {len(lines)} images are in two splits; keep each in one"]
        raise DataError(*shortened(lines), *total)
    return [tell_copies(copies, ids, sides)] if copies else []


def tell_copies(copies: Sequence[tuple[int, int]], ids: Sequence[str], sides: Sequence[str]) -> str:
    """Return the line that tells of copies on both sides of a split.

    Args:
        copies: Positions of the later and the earlier one.
        ids: Paths of all images.
        sides: What the split of each image is called.
    """
    pairs = sorted({(sides[k], sides[i]) for i, k in copies})
    where = ", ".join(f"both {one} and {other}" for one, other in pairs)
    i, k = copies[0]
    return (
        f"leak: {len(copies)} images are in {where}, byte for byte, so the score flatters; remove them from one "
        f"(first: {ids[i]} = {ids[k]})"
    )
