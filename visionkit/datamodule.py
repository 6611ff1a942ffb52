"""VisionDataModule: data sets in, loaders out; owns the class names and the preprocessing."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Generic, TypeVar

import lightning as L
from torch import Tensor
from torch.utils.data import DataLoader

from visionkit.dataset import DataSplits, VisionDataset
from visionkit.errors import DataError, UsageError
from visionkit.loading import Combine, EpochSampler, EvaluationView, TrainingLoader, TrainingView, evaluation_loader
from visionkit.ops.machine import choose_workers
from visionkit.sample import Target
from visionkit.transforms.augmentation import Augmentation
from visionkit.transforms.images import check_images
from visionkit.transforms.preprocessing import Preprocessing

__all__ = ["VisionDataModule"]

T = TypeVar("T", bound=Target)


class VisionDataModule(L.LightningDataModule, Generic[T]):
    """Loads the data sets of a task. Rooms subclass it to read files; it also takes data sets made in Python.

    Args:
        splits: The data sets; subclasses read them instead.
        preprocessing: Brings each image to the model's size, in training, validation and prediction alike.
        augment: Changes training images at random; None leaves them as they are.
        combine: Puts several training images into one before they are augmented, such as Mosaic; None leaves them
            alone.
        batch_size: Images a batch and process.
        num_workers: Processes that read images; None takes one for two cores (with a GPU one a core), at
            most 8.
        check_images: Whether to open every image before training and list all faulty ones at once.
        skip_corrupt: Whether to go on without images that cannot be read or do not fit their labels.
        seed: Seed of the order and of the augmentation.
    """

    def __init__(
        self,
        splits: DataSplits[VisionDataset[T]] | None = None,
        *,
        preprocessing: Preprocessing,
        augment: Augmentation | None = None,
        combine: Combine | None = None,
        batch_size: int = 32,
        num_workers: int | None = None,
        check_images: bool = True,
        skip_corrupt: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if batch_size < 1:
            raise UsageError(f"data.batch_size must be at least 1, got {batch_size}")
        if num_workers is not None and num_workers < 0:
            raise UsageError(f"data.num_workers must be at least 0, got {num_workers}")
        self.preprocessing = preprocessing
        self.augmentation = augment if augment is not None else Augmentation(None)
        self.combine = combine
        self.batch_size = batch_size
        self.num_workers = choose_workers() if num_workers is None else num_workers
        self.check_images = check_images
        self.skip_corrupt = skip_corrupt
        self.seed = seed
        self.skipped: list[str] = []
        """Messages of the images that were left out: they cannot be read or do not fit their labels."""
        self._splits = splits
        self._checked: set[str] = set()

    # ---- what a room says

    def read(self) -> DataSplits[VisionDataset[T]]:
        """Read the data sets' labels, no pixels. Called once."""
        raise UsageError("give VisionDataModule its splits, or subclass it and read them")

    def sample_weights(self, dataset: VisionDataset[T]) -> Tensor | None:
        """Return how often each training image is drawn, float64 [N], or None for each once an epoch."""
        return None

    # ---- what the others ask

    @property
    def splits(self) -> DataSplits[VisionDataset[T]]:
        """The data sets; read on first use."""
        if self._splits is None:
            self._splits = self.read()
        return self._splits

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names; a name's position is its id inside tensors."""
        for dataset in (self.splits.train, self.splits.val, self.splits.test):
            if dataset is not None:
                return dataset.classes
        raise DataError("no split holds any data")

    def setup(self, stage: str) -> None:
        """Check that the splits of this stage are there and that their images can be read."""
        needed = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",)}.get(stage, ())
        for name in needed:
            self._check(name)

    def train_dataloader(self) -> DataLoader[Any]:
        """Return the loader of augmented training batches."""
        dataset = self.splits.get("train")
        view = TrainingView(
            dataset,
            self.preprocessing,
            self.augmentation,
            seed=self.seed,
            combine=self.combine,
            epochs=self._epochs(),
        )
        world, rank = self._processes()
        sampler = EpochSampler(
            view, seed=self.seed, weights=self.sample_weights(dataset), num_replicas=world, rank=rank
        )
        if len(sampler) == 0:
            raise DataError(f"{len(dataset)} training images are too few for {world} processes")
        return TrainingLoader(
            view, sampler, batch_size=self.batch_size, workers=self._workers(len(sampler)), pin_memory=self._pin()
        )

    def val_dataloader(self) -> DataLoader[Any]:
        """Return the loader of validation batches."""
        return self._evaluation_loader("val")

    def test_dataloader(self) -> DataLoader[Any]:
        """Return the loader of test batches."""
        return self._evaluation_loader("test")

    # ---- inside

    def _evaluation_loader(self, name: str) -> DataLoader[Any]:
        dataset = self.splits.get(name)
        world, rank = self._processes()
        return evaluation_loader(
            EvaluationView(dataset, self.preprocessing),
            batch_size=self.batch_size,
            workers=self._workers(len(dataset) // world),
            pin_memory=self._pin(),
            num_replicas=world,
            rank=rank,
        )

    def _check(self, name: str) -> None:
        if not self.check_images or name in self._checked:
            return
        self._checked.add(name)
        dataset = self.splits.get(name)
        files = dataset.files()
        on_disk = [(i, f) for i, f in enumerate(files) if f is not None]
        unreadable = check_images([f for _, f in on_disk], channels=self.preprocessing.channels)
        found = {on_disk[k][0]: message for k, message in unreadable}
        readable = [i for i, _ in on_disk if i not in found]
        with ThreadPoolExecutor(self.num_workers or 1) as pool:  # reading files leaves Python's lock alone
            messages_of = pool.map(dataset.mismatch, readable)
            found |= {i: message for i, message in zip(readable, messages_of, strict=True) if message is not None}
        problems = sorted(found.items())
        if not problems:
            return
        messages = [m for _, m in problems]
        if not self.skip_corrupt:
            raise DataError("\n".join([*messages, _summary(name, messages)]))
        self.skipped += messages
        faulty = {i for i, _ in problems}
        kept = dataset.subset([i for i in range(len(dataset)) if i not in faulty])
        if len(kept) == 0:
            raise DataError("\n".join([*messages, f"no image of the {name} split can be read"]))
        self._splits = replace(self.splits, **{name: kept})  # type: ignore[arg-type]  # name is a split's, not source

    def _processes(self) -> tuple[int, int]:
        return (1, 0) if self.trainer is None else (self.trainer.world_size, self.trainer.global_rank)

    def _epochs(self) -> int | None:
        """Return the number of epochs of the training, or None where only steps or time limit it."""
        epochs = None if self.trainer is None else self.trainer.max_epochs
        return epochs if epochs is not None and epochs > 0 else None

    def _workers(self, samples: int) -> int:
        return min(self.num_workers, -(-samples // self.batch_size))  # never more workers than batches

    def _pin(self) -> bool:
        return self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"


def _summary(name: str, messages: Sequence[str]) -> str:
    what = "image" if len(messages) == 1 else "images"
    return (
        f"{len(messages)} {what} of the {name} split cannot be used; "
        "repair or remove them, or go on without them with --data.skip_corrupt true"
    )
