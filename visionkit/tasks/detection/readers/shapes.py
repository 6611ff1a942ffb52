"""Drawn shapes as a detection data set: nothing to download, the truth is exact."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch

from visionkit.core.errors import UsageError
from visionkit.core.sample import ImageInfo, Sample
from visionkit.data.labels.masks import ObjectMasks
from visionkit.data.shapes import SHAPES, draw_scene
from visionkit.tasks.detection.readers.reader import BoxDataset, BoxEntry
from visionkit.tasks.detection.types import BoxTarget

__all__ = ["ShapesDetection"]

_MAX_OBJECTS = 6  # objects a picture


class ShapesDetection(BoxDataset):
    """Pictures drawn on demand with one to six shapes each; one picture in sixteen shows none.

    Args:
        count: Number of pictures, 1 or more.
        seed: 0 or more; another seed draws other pictures (training and validation, for example).
        size: Side in pixels, 32 or more.
        channels: 3 for RGB, 1 for gray.
        masks: Whether to give the exact masks, too.

    Raises:
        UsageError: A value is out of range.
    """

    def __init__(self, count: int, *, seed: int = 0, size: int = 128, channels: int = 3, masks: bool = False) -> None:
        if count < 1 or seed < 0 or size < 32:
            raise UsageError(f"shapes: count {count}, seed {seed}, size {size}; give at least 1, 0 and 32")
        if channels not in (1, 3):
            raise UsageError(f"shapes: pictures of {channels} channels cannot be drawn; give 3 (RGB) or 1 (gray)")
        self.seed = seed
        self.size = size
        self.masks = masks
        self._shown: dict[str, list[int]] = {}  # class ids from back to front; boxes are known once it is drawn
        entries = []
        for i in range(count):
            name = f"shapes/{i:06d}"
            rng = np.random.default_rng((seed, i, 2))
            number = 0 if rng.integers(0, 16) == 0 else int(rng.integers(1, _MAX_OBJECTS + 1))
            shown = rng.integers(0, len(SHAPES), number).tolist()
            self._shown[name] = shown
            entries.append(BoxEntry(name, name, np.zeros((0, 7), np.float32), tuple(sorted(set(shown)))))
        super().__init__(entries, SHAPES, channels=channels)

    def __getitem__(self, index: int) -> Sample[BoxTarget]:
        """Draw image, uint8 [C, H, W], and target ``index``."""
        entry = self.entries[index]
        shown = self._shown[entry.id]
        labels = [SHAPES[i] for i in shown]
        scene = draw_scene((self.seed, int(entry.id.rpartition("/")[2])), size=self.size, labels=labels)
        gray = self.channels == 1
        pixels = np.atleast_3d(cv2.cvtColor(scene.image, cv2.COLOR_RGB2GRAY)) if gray else scene.image
        masks = ObjectMasks.from_dense(scene.masks) if self.masks else None
        areas = None if masks is None else masks.areas()
        target = BoxTarget.make(scene.boxes, shown, areas=areas, masks=masks)
        image = torch.from_numpy(pixels).permute(2, 0, 1)  # [C, H, W], a view in channels_last order
        return Sample(image, target, ImageInfo(entry.id, (self.size, self.size)))

    def files(self) -> Sequence[Path | None]:
        """Return None for each entry: there are no files."""
        return [None] * len(self)
