"""Which images of a data set the names in a file of predictions mean, and how large they are."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from visionkit.core.errors import DataError
from visionkit.core.text import shortened
from visionkit.data.dataset import VisionDataset
from visionkit.data.labels.checks import header_size
from visionkit.data.labels.names import composed, spellings

__all__ = ["DataImages", "Matched"]

_WHOLE, _BELOW, _BY_NAME = 3, 2, 1  # how much of a path agrees


class Matched(NamedTuple):
    """The images that names mean.

    Args:
        positions: Of the image of each name, in the order of the names.
        remarks: Lines to say.
    """

    positions: list[int]
    remarks: list[str]


class _Place(NamedTuple):
    """The path of an image in parts, whole and below the root; with and without the ending of its file."""

    whole: tuple[str, ...]
    below: tuple[str, ...]


class _Index:
    """Images by what their names may tell of their paths: the frames of a thousand videos are all called alike."""

    def __init__(self) -> None:
        self._whole: dict[tuple[str, ...], list[int]] = defaultdict(list)
        self._below: dict[tuple[str, ...], list[int]] = defaultdict(list)
        self._folder: dict[tuple[str, ...], list[tuple[int, _Place]]] = defaultdict(list)  # by the last two parts
        self._name: dict[str, list[int]] = defaultdict(list)

    def add(self, position: int, place: _Place) -> None:
        """Take the path of an image."""
        self._whole[place.whole].append(position)
        self._below[place.below].append(position)
        self._folder[place.whole[-2:]].append((position, place))
        self._name[place.whole[-1]].append(position)

    def find(self, name: str) -> tuple[int, list[int]]:
        """Return how much of a name agrees with the paths of images, and the images with which so much does."""
        parts, here = _parts(name), _parts(os.path.abspath(name))
        exact = {*self._whole.get(here, ()), *self._below.get(parts, ())}
        if exact:
            return _WHOLE, sorted(exact)
        below = [position for position, place in self._folder.get(parts[-2:], ()) if _agrees(parts, place)]
        if below:
            return _BELOW, below
        by_name = self._name.get(parts[-1], [])
        return (_BY_NAME if by_name else 0), by_name


class DataImages:
    """The images of a data set, to be found by the names that other programs give them.

    Args:
        dataset: The data.
        root: The folder that paths count from; None takes the one that holds all images.
    """

    def __init__(self, dataset: VisionDataset[Any], root: str | os.PathLike[str] | None = None) -> None:
        self.dataset = dataset
        self.ids = list(dataset.ids)
        paths = [PurePosixPath(composed(Path(os.path.abspath(id)).as_posix())) for id in self.ids]
        folders = {str(p.parent) for p in paths}
        base = composed(Path(os.path.abspath(root)).as_posix()) if root is not None and os.path.isdir(root) else None
        common = PurePosixPath(base if base is not None else os.path.commonpath(folders) if folders else "/")
        self._places = [
            _Place(p.parts, (p.relative_to(common) if p.is_relative_to(common) else p).parts) for p in paths
        ]
        self._sizes: dict[int, tuple[int, int]] = {}

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.ids)

    def size(self, position: int) -> tuple[int, int]:
        """Return height and width of an image in pixels, upright; from its labels or the head of its file.

        Raises:
            DataError: The image cannot be read.
        """
        if position not in self._sizes:
            entries = getattr(self.dataset, "entries", None)
            stated = None if entries is None else getattr(entries[position], "size", None)
            size = stated or header_size(self.ids[position]) or self.dataset[position].info.size
            self._sizes[position] = size
        return self._sizes[position]

    def find(self, names: Sequence[str], source: str, *, stems: bool = False) -> Matched:
        """Return which image each name means.

        A name is the path of an image as the reader of the data gives it, or a path below the root (or one that ends
        so, of another machine), or the name of a file alone where that is unique on both sides.

        Args:
            names: Each once.
            source: The file or folder that holds the predictions, for messages.
            stems: Whether names lack the ending of the image's file; one that has it counts as well.

        Raises:
            DataError: A name can mean several images, two names mean one image, or a name means none; the first ten.
        """
        index = _Index()
        for position, place in enumerate(self._places):
            index.add(position, place)
            if stems and (stem := os.path.splitext(place.whole[-1])[0]) != place.whole[-1]:
                index.add(position, _Place((*place.whole[:-1], stem), (*place.below[:-1], stem)))
        found = [index.find(name) for name in names]
        owners: dict[int, list[int]] = defaultdict(list)  # names of each image
        for k, (_, positions) in enumerate(found):
            if len(positions) == 1:
                owners[positions[0]].append(k)
        unclear: list[str] = []
        strange: list[str] = []
        by_name: list[int] = []
        for k, (name, (level, positions)) in enumerate(zip(names, found, strict=True)):
            rivals = [j for j in owners[positions[0]] if j != k] if len(positions) == 1 else []
            equal = [j for j in rivals if found[j][0] == level]
            if len(positions) > 1:
                shown = ", ".join(self.ids[p] for p in positions[:3])
                unclear.append(f"{source}: {name} can be {len(positions)} images of the data ({shown}): give its path")
            elif not positions or any(found[j][0] > level for j in rivals):
                strange.append(name)
            elif equal:
                if k < equal[0]:  # each pair once
                    unclear.append(
                        f"{source}: {name} and {names[equal[0]]} both can be {self.ids[positions[0]]}: give paths"
                    )
            elif level == _BY_NAME:
                by_name.append(k)
        if unclear:
            raise DataError(*shortened(unclear))
        if strange:
            raise DataError(*self._strangers(strange, len(names), source))
        return Matched([positions[0] for _, positions in found], self._told(names, found, by_name))

    def _strangers(self, names: Sequence[str], total: int, source: str) -> list[str]:
        if len(names) == total and self.ids:
            return [
                f"{source}: none of its {total} images is in the data: it names {names[0]}, the data have "
                f"{self.ids[0]}; give the predictions of these data"
            ]
        lines = shortened([f"{source}: {name}: no such image in the data" for name in names])
        what = f"{len(names)} of {total} images are not in the data"
        return [*lines, f"{source}: {what}; remove them, or evaluate on the split that they are of"]

    def _told(self, names: Sequence[str], found: Sequence[tuple[int, list[int]]], by_name: Sequence[int]) -> list[str]:
        """Return what to say of images that lie in other folders than their names tell."""
        moved = [k for k in by_name if len(_parts(names[k])) > 1]
        if not moved:
            return []
        first = moved[0]
        where = f"{names[first]} = {self.ids[found[first][1][0]]}"
        return [f"{len(moved)} images lie in another folder than predicted and are taken by their names ({where})"]


def _parts(name: str) -> tuple[str, ...]:
    path = PurePosixPath(composed(spellings(name)[-1].replace("\\", "/")))
    return tuple(p for p in path.parts if p != ".") or ("",)


def _agrees(name: tuple[str, ...], place: _Place) -> bool:
    """Return whether a name ends as the path of an image, or with its path below the root; a file alone does not."""
    if len(name) > 1 and place.whole[-len(name) :] == name:
        return True
    return len(place.below) > 1 and name[-len(place.below) :] == place.below
