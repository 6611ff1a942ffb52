"""A network and batches so small that a training step is mostly Python."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor, nn

from visionkit import Backbone, Batch, ClassTarget, DataSplits, FeatureSpec, Preprocessing, VisionDataModule
from visionkit.core.sample import collate
from visionkit.tasks.classification.readers.shapes import ShapesClassification


class TinyBackbone(Backbone):
    """As many convolutions and normalisations as a ResNet-18, of 8 channels."""

    def __init__(self) -> None:
        super().__init__()
        self.in_channels, self.mean, self.std = 3, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
        self.features = FeatureSpec((8,), (16,))
        blocks: list[nn.Module] = []
        for i in range(20):
            stride = 2 if i in (0, 1, 2, 3) else 1
            blocks += [nn.Conv2d(3 if i == 0 else 8, 8, 3, stride, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU()]
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Compute one level, [B, 8, H/16, W/16]."""
        return [self.blocks(x)]

    def stages(self) -> dict[str, Sequence[nn.Module]]:
        """Return the one stage."""
        return {"blocks": [self.blocks]}


class Prepared:
    """A loader of batches that are in memory, again and again.

    Args:
        batches: What it gives, in turn.
        steps: Batches an epoch.
    """

    def __init__(self, batches: Sequence[Batch[ClassTarget]], steps: int) -> None:
        self.batches = batches
        self.steps = steps

    def __len__(self) -> int:
        """Return the batches an epoch."""
        return self.steps

    def __iter__(self) -> Iterator[Batch[ClassTarget]]:
        """Yield an epoch's batches."""
        return (self.batches[i % len(self.batches)] for i in range(self.steps))


class PreparedData(VisionDataModule[ClassTarget]):
    """Drawn shapes whose batches are made beforehand.

    Args:
        steps: Training batches an epoch.
        size: Side of the pictures in pixels.
        batch_size: Pictures a batch.
        seed: Not used: the pictures are the same ones always.
    """

    multilabel = False

    def __init__(self, *, steps: int = 300, size: int = 32, batch_size: int = 2, seed: int = 0) -> None:
        train, val = (
            ShapesClassification(8 * batch_size, size=size),
            ShapesClassification(batch_size, seed=1, size=size),
        )
        super().__init__(
            DataSplits(train, val),
            preprocessing=Preprocessing(size),
            batch_size=batch_size,
            num_workers=0,
            check_images=False,
            seed=seed,
        )
        self.steps = steps

    def train_dataloader(self) -> Any:
        """Return the loader of prepared batches."""
        train = self.splits.get("train")
        samples = [self.preprocessing(train[i]) for i in range(len(train))]
        pairs = range(0, len(samples), self.batch_size)
        return Prepared([collate(samples[i : i + self.batch_size]) for i in pairs], self.steps)
