"""What every reader of masks does the same, and the one of folders of images and masks."""

from __future__ import annotations

import copy
import os
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from visionkit.core.errors import DataError, UsageError
from visionkit.core.sample import ImageInfo
from visionkit.data.dataset import EntryDataset
from visionkit.data.images.decode import RECOLOURED, SEVERAL_MASKS, Array
from visionkit.data.images.reading import read_image
from visionkit.data.labels.checks import header_size, other_size
from visionkit.tasks.segmentation.readers.class_table import find_table, read_table
from visionkit.tasks.segmentation.readers.mask_code import Mask, MaskCode, complete_table, make_code
from visionkit.tasks.segmentation.readers.mask_files import in_threads, read_mask_file
from visionkit.tasks.segmentation.readers.pairing import Pairs, pair_masks
from visionkit.tasks.segmentation.types import MaskTarget

__all__ = ["MaskDataset", "MaskEntry", "MaskFileDataset", "MaskFolderDataset"]


@dataclass(frozen=True)
class MaskEntry:
    """One image of a data set, before its pixels are read.

    Args:
        id: Path of the file, or another unique name.
        key: Name that does not depend on where the data set lies; an automatic split goes by it.
        mask: The file that says the class of each pixel, or "" where there is none.
        problems: A line for each label that was left out: what is wrong and what was done.
        extra: Further facts that come back with the prediction.
    """

    id: str
    key: str
    mask: str = ""
    problems: tuple[str, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)


class MaskDataset(EntryDataset[MaskTarget, MaskEntry]):
    """Images with a class for each pixel, at their original size; subclasses say how a mask is read.

    Args:
        entries: The images, in order.
        classes: Class names; a name's position is its id.
        channels: 3 for RGB, 1 for gray, another number for multi-band files.
    """

    problems: list[str]
    """A line for each label that was left out: file and place, what was wrong, what was done."""
    weights: Tensor | None = None
    """What a pixel of each class counts in the loss, float32 [K], or None for 1 each."""

    def __init__(self, entries: Sequence[MaskEntry], classes: Sequence[str], *, channels: int = 3) -> None:
        super().__init__(entries, classes, channels=channels)
        self._known: dict[str, NDArray[np.int32] | None] = {}  # pixels of each class, by id; None: unreadable

    def _hold(self, entries: Sequence[MaskEntry]) -> None:
        super()._hold(entries)
        self.problems = [p for e in self.entries for p in e.problems]

    def read_mask(self, index: int) -> Mask:
        """Read the mask of image ``index`` alone, uint8 [H, W], 255 for pixels that are ignored.

        Raises:
            DataError: It cannot be read, or holds what no class is known for.
        """
        raise NotImplementedError

    def target_of(self, index: int, size: tuple[int, int]) -> tuple[MaskTarget, ImageInfo]:
        """Return target and info of image ``index``, whose height and width are given; reads its mask.

        Raises:
            DataError: The mask cannot be read, or has another size.
        """
        entry = self.entries[index]
        mask = self.read_mask(index)
        if size != mask.shape:
            raise DataError(other_size(entry.id, size, _size(mask), entry.mask))
        target = MaskTarget(torch.from_numpy(mask), self.weights)
        return target, ImageInfo(entry.id, size, extra=entry.extra)

    def mismatch(self, index: int) -> str | None:
        """Return why a mask cannot be read or is not that of its image; reads the mask and the head of the image."""
        entry = self.entries[index]
        try:
            mask = self.read_mask(index)
        except DataError as e:
            return str(e)
        if self._known.get(entry.id) is None:
            self._known[entry.id] = self._count(mask)
        size = header_size(entry.id)
        if size is None or size == mask.shape:
            return None
        if size == mask.shape[::-1]:  # the orientation may stand behind the pixels, where the head does not show it
            try:
                size = _size(read_image(entry.id, channels=self.channels))
            except DataError:  # the check of the images says what is wrong
                return None
        return None if size == mask.shape else other_size(entry.id, size, _size(mask), entry.mask)

    def groups_and_labels(self) -> tuple[Sequence[str], Sequence[Collection[int]]]:
        """Return what an automatic split goes by; reads the masks on first use."""
        return [e.key for e in self.entries], self.labels

    def with_weights(self, weights: Tensor | None) -> Self:
        """Return the same data set with targets that say what a pixel of each class counts in the loss.

        Args:
            weights: Float [K], 0 or more, or None for 1 each.

        Raises:
            UsageError: They are not one number a class.
        """
        if weights is not None and weights.shape != (len(self.classes),):
            raise UsageError(
                f"weights: shape {list(weights.shape)} for {len(self.classes)} classes; give one number for each class"
            )
        other = copy.copy(self)
        other.weights = None if weights is None else weights.to(torch.float32)
        return other

    @property
    def labels(self) -> list[tuple[int, ...]]:
        """Class ids that each mask shows; reads the masks on first use. A mask that cannot be read shows none."""
        counts = self._counts()
        return [() if c is None else tuple(np.flatnonzero(c).tolist()) for c in counts]

    def pixel_counts(self) -> NDArray[np.int64]:
        """Return the number of pixels of each class in all masks, int64 [K]; reads the masks on first use.

        A mask that cannot be read counts nothing: the check before training names it.
        """
        known = [c for c in self._counts() if c is not None]
        return np.sum(known, 0, np.int64) if known else np.zeros(len(self.classes), np.int64)

    def _counts(self) -> list[NDArray[np.int32] | None]:
        new = [i for i, id in enumerate(self.ids) if id not in self._known]

        def count(index: int) -> NDArray[np.int32] | None:
            try:
                return self._count(self.read_mask(index))
            except DataError:
                return None

        self._known.update(zip((self.ids[i] for i in new), in_threads(count, new), strict=True))
        return [self._known[id] for id in self.ids]

    def _count(self, mask: Mask) -> NDArray[np.int32]:
        return np.bincount(mask.ravel(), minlength=256)[: len(self.classes)].astype(np.int32)


class MaskFileDataset(MaskDataset):
    """Images with a mask file each.

    Args:
        pairs: Images and masks.
        code: How the pixels of the masks become classes.
        channels: 3 for RGB, 1 for gray, another number for multi-band files.
    """

    def __init__(self, pairs: Pairs, code: MaskCode, *, channels: int = 3) -> None:
        entries = [MaskEntry(p.image, p.key, p.mask) for p in pairs.found]
        super().__init__(entries, code.classes, channels=channels)
        self.code = code
        self._several: set[str] = set()  # masks with further frames or pages, of those that were read
        self._shown: dict[str, dict[int, int]] = {}  # the colour of each id that a mask with a palette holds
        self.unmasked = pairs.unmasked

    def read_mask(self, index: int) -> Mask:
        """Read the mask of image ``index`` alone, uint8 [H, W], 255 for pixels that are ignored.

        Raises:
            DataError: It cannot be read, or holds ids or colours that the table does not know.
        """
        path = self.entries[index].mask
        mask = read_mask_file(path)
        if mask.several:
            self._several.add(path)
        if mask.ids is not None and mask.palette is not None and not self.code.colours and path not in self._shown:
            held = np.flatnonzero(np.bincount(mask.ids.ravel()))
            self._shown[path] = dict(zip(held.tolist(), mask.palette[held].tolist(), strict=True))
        return self.code.decode(mask, path)

    def remarks(self) -> Counter[str]:
        """Return the number of masks whose further frames or pages are not read, and of those of other colours."""
        first: dict[int, int] = {}
        shown = [self._shown.get(e.mask, {}) for e in self.entries]
        recoloured = sum(any(first.setdefault(i, c) != c for i, c in colours.items()) for colours in shown)
        several = sum(e.mask in self._several for e in self.entries)
        return Counter({SEVERAL_MASKS: several, RECOLOURED: recoloured})


class MaskFolderDataset(MaskFileDataset):
    """A folder of images and a folder of masks, paired by name; subfolders are mirrored.

    A mask is called like its image, or ends in ``_mask``, ``_L``, ``_labelIds``, ``_segmentation`` or the like. It
    holds ids (with a palette too: the index counts) or, where the table has colours, red, green and blue. 255 is
    ignored unless the table names it. Images without a mask are left out.

    Args:
        images: Folder of images.
        masks: Folder of masks.
        table: File of class names (see ``read_table``); None looks for classes.txt, label_colors.txt, class_dict.csv,
            ... in the folder of masks and above it. Masks of 0 and 1, or of 0 and 255, need none: they are background
            and foreground.
        classes: Class names in order (of a checkpoint); None takes those of the table by id. Without a table a name's
            position is the id in the masks.
        ignore: Names whose pixels are ignored; None for void, unlabeled, ignore and the like.
        channels: 3 for RGB, 1 for gray, another number for multi-band files.

    Raises:
        DataError: Files are missing, wrong or without a partner, or the masks hold ids that nothing names.
        UsageError: ``classes`` is empty or has a name twice, or ``ignore`` names what the table lacks.
    """

    def __init__(
        self,
        images: str | os.PathLike[str],
        masks: str | os.PathLike[str],
        *,
        table: str | os.PathLike[str] | None = None,
        classes: Sequence[str] | None = None,
        ignore: Sequence[str] | None = None,
        channels: int = 3,
    ) -> None:
        folder = Path(masks)
        pairs = pair_masks(Path(images), folder, channels=channels)
        found = find_table([folder, folder.parent]) if table is None else read_table(table)
        files = [p.mask for p in pairs.found]
        full, self.understood = complete_table(found, files, str(folder), ignore=ignore, classes=classes)
        super().__init__(pairs, make_code(full, ignore=ignore, classes=classes), channels=channels)


def _size(pixels: Array) -> tuple[int, int]:
    return pixels.shape[0], pixels.shape[1]
