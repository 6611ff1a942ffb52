"""VisionDataModule: data sets in, loaders out; owns the class names and the preprocessing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from visionkit.core.errors import DataError, UsageError
from visionkit.core.machine import choose_workers
from visionkit.core.sample import Batch, Target
from visionkit.core.text import say
from visionkit.data.caching.images import Cache, CacheSettings, ImageCache
from visionkit.data.dataset import DataSplits, VisionDataset
from visionkit.data.images.decode import DARK, RECOLOURED, SEVERAL, SEVERAL_MASKS
from visionkit.data.images.reading import check_images
from visionkit.data.loading import (
    Combine,
    EvaluationView,
    TrainingLoader,
    TrainingView,
    evaluation_loader,
)
from visionkit.data.samplers import EpochSampler
from visionkit.data.transforms.augmentation import Augmentation
from visionkit.data.transforms.base import setting_without
from visionkit.data.transforms.preprocessing import Preprocessing
from visionkit.training.advice import Advice

__all__ = ["VisionDataModule", "too_few"]

T = TypeVar("T", bound=Target)


class VisionDataModule(L.LightningDataModule, Generic[T]):
    """Loads the data sets of a task. Each task's subclasses it to read files; it also takes data sets made in Python.

    Args:
        splits: The data sets; subclasses read them instead.
        preprocessing: Brings each image to the model's size, in training, validation and prediction alike.
        augment: Changes training images at random; None leaves them as they are.
        combine: Puts several training images into one before they are augmented, such as Mosaic; None leaves them
            alone.
        batch_size: Images a batch and process.
        num_workers: Processes that read images; None takes one for two cores (with a GPU one a core), at most 8.
        check_images: Whether to open every image before training and list all faulty ones at once.
        skip_corrupt: Whether to go on without images that cannot be read or do not fit their labels.
        seed: Seed of the order and of all random changes; the command line takes it from seed_everything.
        cache: "ram" or "disk" keeps decoded pictures for the further epochs, in memory or in a folder; "none" reads the
            files each time. Files of masks are read each time in any case.
        cache_folder: Where "disk" keeps them, for further runs, too; none takes one in the run's folder, which is
            removed after training.
        cache_limit: Gigabytes that they may take; pictures beyond it are read each time.
    """

    linked: ClassVar[Mapping[str, str]] = {"seed": "seed_everything"}
    """Arguments that the command line fills, with the key of the config that it takes them from."""

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
        cache: Cache = "none",
        cache_folder: str | None = None,
        cache_limit: float = 20.0,
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
        self.cache = CacheSettings(cache, cache_folder, cache_limit)
        self.skipped: list[str] = []
        """Messages of the images that were left out: they cannot be read or do not fit their labels."""
        self.ready: Callable[[str], Dataset[Any] | None] | None = None
        """Returns what a training reads of a split in place of its pictures, or None; it makes whole batches, where
        they are wanted. Whoever has such a thing sets it after :meth:`setup`; without it pictures are read."""
        self._splits = splits
        self._checked: set[str] = set()
        self._remarks: Counter[str] = Counter()
        self._pictures: ImageCache | None = None
        self._asked_cache = False

    # ---- what a task says

    def read(self) -> DataSplits[VisionDataset[T]]:
        """Read the data sets' labels, no pixels. Called once."""
        raise UsageError("give VisionDataModule its splits, or subclass it and read them")

    def sample_weights(self, dataset: VisionDataset[T]) -> Tensor | None:
        """Return how often each training image is drawn, float64 [N], or None for each once an epoch."""
        return None

    def notes(self) -> list[str]:
        """Return further lines for the first words of a training."""
        told = []
        if several := self._remarks[SEVERAL]:
            told.append(f"pictures {several} files hold several (animations, pages): the first of each is taken")
        if masks := self._remarks[SEVERAL_MASKS]:
            told.append(f"masks    {masks} files hold several (animations, pages): the first of each is taken")
        if recoloured := self._remarks[RECOLOURED]:
            told.append(
                f"masks    {recoloured} files have other palettes than those before: their ids count, not the colours; "
                "if colours count, name them in label_colors.txt"
            )
        if dark := self._remarks[DARK]:
            told.append(
                f"pictures {dark} of 16 bits hold no value above 4095 of 65535 and are dark: values are not stretched "
                "by a picture's own range; if they have 12 bits, save them multiplied by 16"
            )
        return told

    def advise(self, advice: Advice, key: str = "data") -> None:
        """Choose from the data what a config leaves to ``auto``; without rules of its own, nothing.

        Args:
            advice: What is chosen.
            key: Where the options of this data stand in the config.
        """

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
        self.ready = None
        self._forget_images()
        needed = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",)}.get(stage, ())
        for name in needed:
            self._check(name)

    def teardown(self, stage: str) -> None:
        """Remove the pictures that this run has kept, unless they are for others, too."""
        self.ready = None
        self._forget_images(remove=self.cache.folder is None)

    def train_dataloader(self) -> DataLoader[Any]:
        """Return the loader of augmented training batches, or of what is ready in their place."""
        dataset = self.splits.get("train")
        ready = self._ready("train")
        view = ready or TrainingView(
            dataset,
            self.preprocessing,
            self.augmentation,
            seed=self.seed,
            combine=self.combine,
            epochs=self._epochs(),
            cache=self._image_cache(),
        )
        world, rank = self._processes()
        sampler = EpochSampler(
            view, seed=self.seed, weights=self.sample_weights(dataset), num_replicas=world, rank=rank
        )
        if len(sampler) == 0:
            raise too_few(len(dataset), "training", world)
        workers, pin = (0, False) if ready else (self._workers(len(sampler)), self._pin())
        return TrainingLoader(view, sampler, batch_size=self.batch_size, workers=workers, pin_memory=pin)

    def val_dataloader(self) -> DataLoader[Any]:
        """Return the loader of validation batches, or of what is ready in their place."""
        return self._evaluation_loader("val", self._ready("val"))

    def test_dataloader(self) -> DataLoader[Any]:
        """Return the loader of test batches."""
        return self._evaluation_loader("test")

    def all_images(self, name: str) -> DataLoader[Any]:
        """Return a loader of every picture of a split, preprocessed and in order, on each process.

        Args:
            name: "train", "val" or "test".
        """
        dataset = self.splits.get(name)
        view = EvaluationView(dataset, self.preprocessing)
        return evaluation_loader(view, batch_size=self.batch_size, workers=self._workers(len(dataset)))

    def batch_sizes(self) -> dict[str, int]:
        """Return the options that say how many pictures a training batch holds, with their values."""
        return {"--data.batch_size": self.batch_size}

    def halve_batches(self) -> None:
        """Let training batches hold half of their pictures, one at least."""
        self.batch_size = max(1, self.batch_size // 2)

    def transfer_batch_to_device(self, batch: Batch[T], device: torch.device, dataloader_idx: int) -> Batch[T]:
        """Move a batch, without Lightning's search for tensors in it."""
        return batch.to(device)

    # ---- inside

    def _ready(self, name: str) -> Dataset[Any] | None:
        return None if self.ready is None else self.ready(name)

    def _evaluation_loader(self, name: str, ready: Dataset[Any] | None = None) -> DataLoader[Any]:
        dataset = self.splits.get(name)
        world, rank = self._processes()
        if len(dataset) < world:  # Lightning wants a batch on each
            raise too_few(len(dataset), {"val": "validation"}.get(name, name), world)
        return evaluation_loader(
            ready or EvaluationView(dataset, self.preprocessing, self._image_cache()),
            batch_size=self.batch_size,
            workers=0 if ready else self._workers(len(dataset) // world),
            pin_memory=self._pin() and not ready,
            num_replicas=world,
            rank=rank,
        )

    # ---- decoded pictures, kept

    def _image_cache(self) -> ImageCache | None:
        """Return the decoded pictures of a training, where they are kept; made on first use."""
        trainer = self.trainer
        if self._asked_cache or self.cache.kind == "none" or trainer is None or trainer.state.fn != "fit":
            return self._pictures
        self._asked_cache = True
        splits = (self.splits.train, self.splits.val)
        datasets = [data for data in splits if data is not None and len(data)]
        self._pictures = ImageCache(
            self.cache,
            datasets,
            self.preprocessing,
            whole=datasets[:1] if self._combines() else (),
            folder=Path(self.cache.folder or Path(trainer.default_root_dir) / "cache"),
            processes=max(1, trainer.world_size // trainer.num_nodes),
        )
        self.say(str(self._pictures))
        return self._pictures

    def _combines(self) -> bool:
        """Return whether whole training pictures are read."""
        return setting_without(self.combine) is not None

    def _forget_images(self, *, remove: bool = False) -> None:
        pictures, self._pictures, self._asked_cache = self._pictures, None, False
        if pictures is not None:
            pictures.close(remove=remove)

    def say(self, text: str) -> None:
        """Print a line among those of the run, on the first process alone."""
        if self.trainer is None or self.trainer.is_global_zero:
            say(*text.splitlines())

    # ---- inside

    def _check(self, name: str) -> None:
        if not self.check_images or name in self._checked:
            return
        self._checked.add(name)
        dataset = self.splits.get(name)
        files = dataset.files()
        on_disk = [(i, f) for i, f in enumerate(files) if f is not None]
        paths = [f for _, f in on_disk]
        decoded = ImageCache.decoded(self.cache, self.preprocessing, paths)  # once is enough
        unreadable = check_images(
            [None if done else f for f, done in zip(paths, decoded, strict=True)],
            channels=self.preprocessing.channels,
            remarks=self._remarks,
        )
        found = {on_disk[k][0]: message for k, message in unreadable}
        readable = [i for i, _ in on_disk if i not in found]
        with ThreadPoolExecutor(self.num_workers or 1) as pool:  # reading files leaves Python's lock alone
            messages_of = pool.map(dataset.mismatch, readable)
            found |= {i: message for i, message in zip(readable, messages_of, strict=True) if message is not None}
        self._remarks.update(dataset.remarks())
        problems = sorted(found.items())
        if not problems:
            return
        messages = [m for _, m in problems]
        if not self.skip_corrupt:
            raise DataError(*messages, _summary(name, messages))
        self.skipped += messages
        faulty = {i for i, _ in problems}
        kept = dataset.subset([i for i in range(len(dataset)) if i not in faulty])
        if len(kept) == 0:
            raise DataError(*messages, f"no image of the {name} split can be read")
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


def too_few(images: int, kind: str, processes: int, whose: str = "") -> DataError:
    """Return what to say where there is not an image for each process.

    Args:
        images: Their number.
        kind: What they are for, such as "training".
        processes: Number of processes.
        whose: What else is said of the images.
    """
    return DataError(
        f"{images} {kind} image{'' if images == 1 else 's'}{whose} for {processes} processes, and each needs one: "
        f"lower --trainer.devices to {max(1, images)}"
    )


def _summary(name: str, messages: Sequence[str]) -> str:
    what = "image" if len(messages) == 1 else "images"
    return (
        f"{len(messages)} {what} of the {name} split cannot be used; "
        "repair or remove them, or go on without them with --data.skip_corrupt true"
    )
