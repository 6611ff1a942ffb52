"""Drawn shapes as a classification data set: nothing to download, the truth is exact."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from visionkit.core.errors import UsageError
from visionkit.data.images.decode import Decoded, Scale
from visionkit.data.shapes import SHAPES, draw_scene
from visionkit.tasks.classification.readers.reader import ClassDataset, Entry

__all__ = ["ShapesClassification"]


class ShapesClassification(ClassDataset):
    """Pictures drawn on demand: one shape each, or one to three different ones to tell apart.

    Args:
        count: Number of pictures, 1 or more. With one label, each class comes equally often.
        seed: 0 or more; another seed draws other pictures (training and validation, for example).
        size: Side in pixels, 32 or more.
        multilabel: Draw one to three shapes a picture (one picture in sixteen shows none).
        channels: 3 for RGB, 1 for gray.

    Raises:
        UsageError: A value is out of range.
    """

    def __init__(
        self, count: int, *, seed: int = 0, size: int = 96, multilabel: bool = False, channels: int = 3
    ) -> None:
        if count < 1 or seed < 0 or size < 32:
            raise UsageError(f"shapes: count {count}, seed {seed}, size {size}; give at least 1, 0 and 32")
        if channels not in (1, 3):
            raise UsageError(f"shapes: pictures of {channels} channels cannot be drawn; give 3 (RGB) or 1 (gray)")
        self.seed = seed
        self.size = size
        self._order: dict[str, list[int]] = {}  # of several objects, from back to front
        entries = []
        for i in range(count):
            name = f"shapes/{i:06d}"
            labels = [i % len(SHAPES)]
            if multilabel:
                rng = np.random.default_rng((seed, i, 1))
                number = 0 if rng.integers(0, 16) == 0 else int(rng.integers(1, 4))
                labels = rng.permutation(len(SHAPES))[:number].tolist()
                self._order[name] = labels
            entries.append(Entry(name, tuple(sorted(labels)), name))
        super().__init__(entries, SHAPES, multilabel=multilabel, channels=channels)

    def _pixels(self, entry: Entry, scale: Scale | None) -> Decoded:
        labels = [SHAPES[i] for i in self._order.get(entry.id, entry.labels)]
        image = draw_scene((self.seed, int(entry.id.rpartition("/")[2])), size=self.size, labels=labels).image
        pixels = image if self.channels == 3 else np.atleast_3d(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))
        return Decoded(pixels, (self.size, self.size))

    def files(self) -> Sequence[Path | None]:
        """Return None for each entry: there are no files."""
        return [None] * len(self)
