"""The contract of a reader: a data set that knows its class names and its files."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Generic, Protocol, Self, TypeAlias, TypeVar

import torch
from torch.utils.data import Dataset

from visionkit.core.errors import DataError
from visionkit.core.sample import ImageInfo, Sample, Target
from visionkit.data.images.decode import Array, Decoded, Scale
from visionkit.data.images.reading import load_image
from visionkit.data.labels.classes import check_class_names

__all__ = ["DataSplits", "EntryDataset", "ReadWhole", "VisionDataset", "knows_targets", "load_sample"]

T = TypeVar("T", bound=Target)
ReadWhole: TypeAlias = Callable[[str, int], Array]
"""Path of an image file and number of channels -> all its pixels, uint8 [H, W, C]."""


class VisionDataset(Dataset[Sample[T]], Generic[T]):
    """A map-style data set of samples at their original size.

    Subclasses set ``classes`` and ``ids`` in their constructor, which reads labels but no pixels.
    """

    classes: tuple[str, ...]
    """Class names; a name's position is its id inside tensors."""
    ids: Sequence[str]
    """One name an image, unique in the data set: its path where it comes from a file."""
    problems: Sequence[str] = ()
    """One line for each label that had to be changed or left out: file, line, what is wrong and what was done."""
    _read_whole: ReadWhole | None = None  # instead of reading the file: a cache

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample[T]:
        """Read image and target ``index``.

        Raises:
            DataError: The file cannot be read.
        """
        raise NotImplementedError

    def load(self, index: int, scale: Scale | None = None) -> Sample[T]:
        """Read image and target ``index``; the image may be one that was decoded at a part of its size.

        A reader that can do that makes this its way to read, and ``__getitem__`` this without a scale.

        Args:
            index: Which one.
            scale: By what an image of some height and width will be resized; None reads all pixels.

        Raises:
            DataError: The file cannot be read.
        """
        return self[index]

    def target_of(self, index: int, size: tuple[int, int]) -> tuple[T, ImageInfo]:
        """Return target and info of image ``index`` at its original size, without reading the image.

        Only data sets that have this can have their images cached.

        Args:
            index: Which one.
            size: Height and width of the image.

        Raises:
            DataError: The labels were made for an image of another size.
        """
        raise NotImplementedError

    def with_originals(self, read: ReadWhole) -> Self:
        """Return the same data set, which reads the files of whole images this way."""
        other = copy.copy(self)
        other._read_whole = read
        return other

    def _decode(self, path: str, channels: int, scale: Scale | None) -> Decoded:
        """Read an image file, from the cache where all its pixels are wanted and there is one."""
        if scale is None and self._read_whole is not None:
            pixels = self._read_whole(path, channels)
            return Decoded(pixels, (pixels.shape[0], pixels.shape[1]))
        return load_image(path, channels=channels, scale=scale)

    def files(self) -> Sequence[Path | None]:
        """Return the image file of each entry, or None where an image comes from elsewhere."""
        return [Path(i) for i in self.ids]

    def mismatch(self, index: int) -> str | None:
        """Return in one line why image ``index`` and its labels do not belong together, or None.

        Several threads ask. Of the image itself no more than the head of its file is read.
        """
        return None

    def remarks(self) -> Counter[str]:
        """Return what ``mismatch`` has seen that should be said, such as ``SEVERAL_MASKS``, with numbers of images."""
        return Counter()

    def groups_and_labels(self) -> tuple[Sequence[str], Sequence[Collection[int]]]:
        """Return what an automatic split goes by: for each entry what it must stay together with, and its class ids.

        Only data sets that have this can be divided. The group of an entry that stands alone is a name of its own that
        does not depend on where the data set lies.
        """
        raise NotImplementedError

    def subset(self, indices: Sequence[int]) -> Self:
        """Return the same data set with these entries only, in this order."""
        raise NotImplementedError


class Entry(Protocol):
    """What a reader knows of an image before it reads it."""

    @property
    def id(self) -> str:
        """Path of the image file, or another name that is unique in the data set."""
        ...


E = TypeVar("E", bound=Entry)


class EntryDataset(VisionDataset[T], Generic[T, E]):
    """Images that a list of entries tells of, read from files as they are asked for.

    Args:
        entries: What is known of each image, in order.
        classes: Class names; a name's position is its id.
        channels: 3 for RGB, 1 for gray, another number for multi-band files.

    Raises:
        DataError: A class name holds control characters.
    """

    channels: int
    """Number of image channels, C."""

    def __init__(self, entries: Sequence[E], classes: Sequence[str], *, channels: int = 3) -> None:
        self.classes = check_class_names(classes)
        self.channels = channels
        self._hold(entries)

    def _hold(self, entries: Sequence[E]) -> None:
        """Take these entries; a subclass keeps what it knows of them beside."""
        self.entries = tuple(entries)
        self.ids = [e.id for e in self.entries]

    def __getitem__(self, index: int) -> Sample[T]:
        """Read image, uint8 [C, H, W], and target ``index``.

        Raises:
            DataError: A file cannot be read, or its labels were made for an image of another size.
        """
        return self.load(index)

    def load(self, index: int, scale: Scale | None = None) -> Sample[T]:
        """Read image and target ``index``; see :meth:`VisionDataset.load`."""
        decoded = self._pixels(self.entries[index], scale)
        target, info = self.target_of(index, decoded.size)
        image = torch.from_numpy(decoded.pixels).permute(2, 0, 1)  # [C, H, W], a view in channels_last order
        return Sample(image, target, info, decoded.reduced)

    def _pixels(self, entry: E, scale: Scale | None) -> Decoded:
        return self._decode(entry.id, self.channels, scale)

    def subset(self, indices: Sequence[int]) -> Self:
        """Return the same data set with these entries only, in this order."""
        other = copy.copy(self)
        other._hold([self.entries[i] for i in indices])
        return other


def load_sample(dataset: VisionDataset[T], index: int, scale: Scale | None = None) -> Sample[T]:
    """Read a sample by ``load``, or by ``__getitem__`` where a subclass says that alone anew."""
    kind: Any = type(dataset)
    return dataset.load(index, scale) if _newer(kind, "load") else dataset[index]


def knows_targets(dataset: VisionDataset[Any]) -> bool:
    """Return whether targets of a data set are known without its images."""
    parts = getattr(dataset, "parts", None)  # of a data set made of several
    if isinstance(parts, dict):
        return all(knows_targets(part) for part in parts.values())
    kind: Any = type(dataset)
    return kind.target_of is not VisionDataset.target_of and _newer(kind, "target_of")


@cache
def _newer(kind: Any, name: str) -> bool:
    """Return whether a method is of the class that says ``__getitem__``, or of one below it."""
    method, reading = (next(c for c in kind.__mro__ if n in vars(c)) for n in (name, "__getitem__"))
    return issubclass(method, reading)


D = TypeVar("D", bound=VisionDataset[Any], covariant=True)


@dataclass(frozen=True)
class DataSplits(Generic[D]):
    """The data sets of a training; all have the same classes.

    Args:
        train: To learn from, or None where there are none and none were needed.
        val: To choose the best checkpoint by, or None.
        test: To report on, or None.
        source: One sentence that says where they come from and how they were split; a line each for several sets.
        divided: Whether the data brought no validation images and they were taken from the training images.
    """

    train: D | None
    val: D | None
    test: D | None = None
    source: str = "given in Python"
    divided: bool = False

    def get(self, name: str) -> D:
        """Return the split ``train``, ``val`` or ``test``.

        Raises:
            DataError: There is no such split, or it is empty.
        """
        found: D | None = {"train": self.train, "val": self.val, "test": self.test}[name]
        if found is None or len(found) == 0:
            cure = "; visionkit validate measures on the val split" if name == "test" and self.val is not None else ""
            raise DataError(f"there is no {name} split: {'; '.join(map(str.strip, self.source.splitlines()))}{cure}")
        return found
