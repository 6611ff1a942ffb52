"""What updates of the metric bring: boxes and masks, predicted and true, image after image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from visionkit.core.errors import DataError
from visionkit.data.labels.masks import ObjectMasks, read_segmentation
from visionkit.tasks.detection.metrics.average_precision import ImageMasks
from visionkit.tasks.detection.metrics.matching import DataSetBoxes
from visionkit.training.redraw import taken

__all__ = ["Batch"]

Array = NDArray[Any]


class Batch(NamedTuple):
    """What one update brought, of B images."""

    found: Array
    """float32 [N, 6]: box, score and label of the predictions."""
    found_counts: Array
    """int64 [B], how many of them belong to each image."""
    truth: Array
    """float32 [M, 7]: box, label, crowd and area of the objects."""
    truth_counts: Array
    """int64 [B]."""
    masks: list[ImageMasks]
    """B, or none where masks are not compared."""

    @classmethod
    def of(cls, parts: Sequence[Self]) -> Self:
        """Return one batch of all."""
        found, found_counts, truth, truth_counts, masks = zip(*parts, strict=True)
        return cls(
            np.concatenate(found),
            np.concatenate(found_counts),
            np.concatenate(truth),
            np.concatenate(truth_counts),
            [m for some in masks for m in some],
        )

    def in_order(self, order: Array) -> tuple[DataSetBoxes, list[ImageMasks]]:
        """Return the images in an order, int64 [B]."""
        place = np.empty_like(order)
        place[order] = np.arange(len(order))  # of each image
        image, truth_image = np.repeat(place, self.found_counts), np.repeat(place, self.truth_counts)
        ways = np.argsort(image, kind="stable"), np.argsort(truth_image, kind="stable")
        found, image = self.found[ways[0]], image[ways[0]]
        truth, truth_image = self.truth[ways[1]], truth_image[ways[1]]
        boxes = DataSetBoxes(
            len(order), found[:, :4], found[:, 4], found[:, 5].astype(np.int64), image,
            truth[:, :4], truth[:, 4].astype(np.int64), truth_image, truth[:, 5] > 0, truth[:, 6],
        )  # fmt: skip
        return boxes, [self.masks[k] for k in order] if self.masks else []

    def arrays(self) -> dict[str, Array]:
        """Return it as plain arrays; masks as their run lengths, one after another."""
        arrays = {
            "found": self.found, "found_counts": self.found_counts,
            "truth": self.truth, "truth_counts": self.truth_counts,
        }  # fmt: skip
        if not self.masks:
            return arrays
        runs = [run for m in self.masks for run in (*_runs(m.found), *_runs(m.truth))]
        return {
            **arrays,
            "mask_sizes": np.array([m.size for m in self.masks], np.int64),
            "mask_lengths": np.array([len(run) for run in runs], np.int64),
            "mask_runs": np.frombuffer(b"".join(runs), np.uint8),
        }

    @classmethod
    def recalled(cls, arrays: Mapping[str, Array], images: int, classes: int, *, masks: bool) -> Self:
        """Return what :meth:`arrays` told of so many images.

        Raises:
            DataError: These are no such arrays, or they do not fit the classes.
        """
        counts = [taken(arrays, name, (images,), "iu", below=2**31) for name in ("found_counts", "truth_counts")]
        found = taken(arrays, "found", (int(counts[0].sum()), 6), "f").astype(np.float32)
        truth = taken(arrays, "truth", (int(counts[1].sum()), 7), "f").astype(np.float32)
        for name, rows, label in (("found", found, 5), ("truth", truth, 4)):
            ids = rows[:, label]
            if not np.isfinite(rows).all() or (ids != ids.round()).any() or not ((ids >= 0) & (ids < classes)).all():
                raise DataError(f"the array {name!r} holds what is no box of one of {classes} classes")
        number = [np.ascontiguousarray(c.astype(np.int64)) for c in counts]
        return cls(found, number[0], truth, number[1], _masks_of(arrays, number) if masks else [])


def _runs(masks: ObjectMasks) -> list[bytes]:
    """Return the run lengths of masks."""
    return [o for o in masks.encoded().outlines if isinstance(o, bytes)]


def _masks_of(arrays: Mapping[str, Array], counts: Sequence[Array]) -> list[ImageMasks]:
    """Return the masks of each image, all of which are looked at: run lengths are not to be trusted."""
    sizes = taken(arrays, "mask_sizes", (len(counts[0]), 2), "iu", below=2**16)
    if not sizes.all():
        raise DataError("the array 'mask_sizes' holds 0")
    lengths = taken(arrays, "mask_lengths", (int(counts[0].sum() + counts[1].sum()),), "iu", below=2**31)
    runs = taken(arrays, "mask_runs", (int(lengths.sum()),), "u", below=256).tobytes()
    ends = lengths.cumsum().tolist()
    texts = (runs[start:end].decode("ascii", "replace") for start, end in zip([0, *ends], ends, strict=False))
    found = []
    for k, (height, width) in enumerate(sizes.tolist()):
        both = []
        for number in (int(counts[0][k]), int(counts[1][k])):
            size = (height, width)
            told = ({"size": [height, width], "counts": next(texts)} for _ in range(number))
            both.append(ObjectMasks(tuple(read_segmentation(one, size, f"image {k}")[0] for one in told), size))
        found.append(ImageMasks(*both))
    return found
