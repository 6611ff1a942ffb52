"""The true class of each pixel of a picture that was measured, read from the data once more."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visionkit.core.errors import VisionkitError
from visionkit.data.dataset import VisionDataset
from visionkit.evaluation.folder import Evaluation
from visionkit.evaluation.report.files import moved_to
from visionkit.evaluation.report.gallery import PixelTruth

__all__ = ["true_pixels"]

_SPLITS = ("val", "test", "train", "all")


def true_pixels(
    evaluation: Evaluation,
    load: Callable[[str], VisionDataset[Any] | None],
    split: str,
    root: str | os.PathLike[str] | None = None,
) -> PixelTruth:
    """Return what finds the truth of a picture.

    It goes by the picture's path, else by its path below the root of the data, else by the name of its file where that
    is one picture's alone.

    Args:
        evaluation: An evaluation of pixels.
        load: Returns the pictures of a split with their labels, class ids in the order of the evaluation; None where
            there is no such split.
        split: Which split was measured; the others are looked at where a picture is not in it.
        root: Where the data lie now; None for where they were measured.
    """
    measured = str(evaluation.data.get("root") or "")
    splits = list(dict.fromkeys((split or "val", *_SPLITS)))
    known: list[tuple[VisionDataset[Any], dict[str, list[int]]]] = []

    def pixels(position: int) -> NDArray[Any] | None:
        image = evaluation.images[position]
        for turn in range(len(known) + len(splits)):
            if turn == len(known):
                found = load(splits.pop(0))
                if found is None:
                    known.append(_nothing())
                    continue
                known.append((found, _places(found)))
            dataset, places = known[turn]
            id = image.id
            keys = (id, moved_to(id, measured, root), os.path.abspath(id), os.path.basename(id))
            at = next((places[key] for key in keys if key in places), [])
            if len(at) == 1:
                ids = _mask(dataset, at[0], image.size)
                if ids is not None:
                    return ids
        return None

    return pixels


def _nothing() -> tuple[Any, dict[str, list[int]]]:
    return None, {}


def _places(dataset: VisionDataset[Any]) -> dict[str, list[int]]:
    """Return the positions of pictures by path and by name."""
    found: dict[str, list[int]] = {}
    for k, id in enumerate(dataset.ids):
        for key in {id, os.path.abspath(id), os.path.basename(id)}:
            found.setdefault(key, []).append(k)
    return found


def _mask(dataset: VisionDataset[Any], index: int, size: tuple[int, int]) -> NDArray[Any] | None:
    """Return the true classes of a picture, [H, W]; None where they cannot be read, or are of another size."""
    try:
        target, _ = dataset.target_of(index, size)
    except (VisionkitError, NotImplementedError):
        return None
    ids = np.asarray(target.mask)
    return ids if ids.shape == size else None
