"""Drawn shapes as a segmentation data set: nothing to download, the truth is exact."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch

from visionkit.core.errors import UsageError
from visionkit.core.sample import ImageInfo, Sample
from visionkit.data.shapes import SHAPES, Scene, draw_scene
from visionkit.tasks.segmentation.readers.mask_code import Mask
from visionkit.tasks.segmentation.readers.reader import MaskDataset, MaskEntry
from visionkit.tasks.segmentation.types import MaskTarget

__all__ = ["ShapesSegmentation"]

_MAX_OBJECTS = 6  # objects a picture


class ShapesSegmentation(MaskDataset):
    """Pictures drawn on demand with one to six shapes each; one picture in sixteen shows background alone.

    Args:
        count: Number of pictures, 1 or more.
        seed: 0 or more; another seed draws other pictures (training and validation, for example).
        size: Side in pixels, 32 or more.
        channels: 3 for RGB, 1 for gray.

    Raises:
        UsageError: A value is out of range.
    """

    def __init__(self, count: int, *, seed: int = 0, size: int = 128, channels: int = 3) -> None:
        if count < 1 or seed < 0 or size < 32:
            raise UsageError(f"shapes: count {count}, seed {seed}, size {size}; give at least 1, 0 and 32")
        if channels not in (1, 3):
            raise UsageError(f"shapes: pictures of {channels} channels cannot be drawn; give 3 (RGB) or 1 (gray)")
        self.seed = seed
        self.size = size
        self._shown: dict[str, list[int]] = {}  # shapes from back to front; pixels are known once it is drawn
        entries = []
        for i in range(count):
            name = f"shapes/{i:06d}"
            rng = np.random.default_rng((seed, i, 2))
            number = 0 if rng.integers(0, 16) == 0 else int(rng.integers(1, _MAX_OBJECTS + 1))
            self._shown[name] = rng.integers(0, len(SHAPES), number).tolist()
            entries.append(MaskEntry(name, name))
        super().__init__(entries, ("background", *SHAPES), channels=channels)

    def __getitem__(self, index: int) -> Sample[MaskTarget]:
        """Draw image, uint8 [C, H, W], and target ``index``."""
        scene = self._scene(index)
        gray = self.channels == 1
        pixels = np.atleast_3d(cv2.cvtColor(scene.image, cv2.COLOR_RGB2GRAY)) if gray else scene.image
        image = torch.from_numpy(pixels).permute(2, 0, 1)  # [C, H, W], a view in channels_last order
        target = MaskTarget(torch.from_numpy(_paint(scene)), self.weights)
        return Sample(image, target, ImageInfo(self.ids[index], (self.size, self.size)))

    def read_mask(self, index: int) -> Mask:
        """Draw the mask of picture ``index`` alone, uint8 [H, W]."""
        return _paint(self._scene(index))

    @property
    def labels(self) -> list[tuple[int, ...]]:
        """Class ids that each picture shows; known without drawing it."""
        return [(0, *sorted({k + 1 for k in self._shown[e.id]})) for e in self.entries]

    def mismatch(self, index: int) -> str | None:
        """Return None: a drawn mask fits its picture."""
        return None

    def files(self) -> Sequence[Path | None]:
        """Return None for each entry: there are no files."""
        return [None] * len(self)

    def _scene(self, index: int) -> Scene:
        name = self.entries[index].id
        labels = [SHAPES[i] for i in self._shown[name]]
        return draw_scene((self.seed, int(name.rpartition("/")[2])), size=self.size, labels=labels)


def _paint(scene: Scene) -> Mask:
    mask = np.zeros(scene.image.shape[:2], np.uint8)
    for label, visible in zip(scene.labels, scene.masks, strict=True):
        mask[visible] = SHAPES.index(label) + 1
    return mask
