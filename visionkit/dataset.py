"""The contract of a reader: a data set that knows its class names and its files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

from torch.utils.data import Dataset

from visionkit.errors import DataError
from visionkit.sample import Sample, Target

__all__ = ["DataSplits", "VisionDataset"]

T = TypeVar("T", bound=Target)


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

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample[T]:
        """Read image and target ``index``.

        Raises:
            DataError: The file cannot be read.
        """
        raise NotImplementedError

    def files(self) -> Sequence[Path | None]:
        """Return the image file of each entry, or None where an image comes from elsewhere."""
        return [Path(i) for i in self.ids]

    def mismatch(self, index: int) -> str | None:
        """Return in one line why image ``index`` and its labels do not belong together, or None.

        Several threads ask. Of the image itself no more than the head of its file is read.
        """
        return None

    def subset(self, indices: Sequence[int]) -> Self:
        """Return the same data set with these entries only, in this order."""
        raise NotImplementedError


D = TypeVar("D", bound=VisionDataset[Any], covariant=True)


@dataclass(frozen=True)
class DataSplits(Generic[D]):
    """The data sets of a training; all have the same classes.

    Args:
        train: To learn from, or None where there are none and none were needed.
        val: To choose the best checkpoint by, or None.
        test: To report on, or None.
        source: One sentence that says where they come from and how they were split; a line each for several sets.
    """

    train: D | None
    val: D | None
    test: D | None = None
    source: str = "given in Python"

    def get(self, name: str) -> D:
        """Return the split ``train``, ``val`` or ``test``.

        Raises:
            DataError: There is no such split, or it is empty.
        """
        found: D | None = {"train": self.train, "val": self.val, "test": self.test}[name]
        if found is None or len(found) == 0:
            raise DataError(f"there is no {name} split: {'; '.join(map(str.strip, self.source.splitlines()))}")
        return found
