"""Batches of kept features in place of pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, TypeVar

import numpy as np
import torch
from torch.utils.data import Dataset

from visionkit.core.sample import Batch, Sample, Target
from visionkit.data.samplers import Key
from visionkit.training.features.extractor import KeptImages
from visionkit.training.features.store import FeatureStore

__all__ = ["FeatureView"]

T = TypeVar("T", bound=Target)


class FeatureView(Dataset[Sample[T]], Generic[T]):
    """A data set whose pictures' features are kept; makes whole batches of them.

    Args:
        store: Where the features are.
        pictures: What else is known of the pictures.
        channels: Channels of the pictures.
        device: Where the features are wanted.
    """

    def __init__(self, store: FeatureStore, pictures: KeptImages[T], *, channels: int, device: torch.device) -> None:
        self.store = store
        self.pictures = pictures
        self.device = device
        self.empty = torch.empty((1, channels, 0, 0), dtype=torch.uint8)

    def __len__(self) -> int:
        """Return the number of pictures."""
        return len(self.pictures.targets)

    def __getitems__(self, keys: Sequence[Key | int]) -> Batch[T]:
        """Return a batch of the pictures that a training or an evaluation asks for."""
        indices = [key if isinstance(key, int) else key[1] for key in keys]
        targets, infos = self.pictures.targets, self.pictures.infos
        features = self.store.read(self.pictures.rows[np.array(indices, np.int64)], self.device)
        return Batch(
            self.empty.expand(len(indices), -1, -1, -1),
            [targets[i] for i in indices],
            [infos[i] for i in indices],
            features,
        )
