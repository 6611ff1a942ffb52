"""From data sets to loaders: what each sample is depends on (seed, epoch, index), never on workers or order."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Sequence
from typing import Any, Generic, Protocol, TypeVar

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from visionkit.core.sample import Batch, Loaded, Sample, Target, assemble, collate
from visionkit.core.seeds import derive_seed
from visionkit.data.caching.images import ImageCache, Prepared
from visionkit.data.dataset import VisionDataset
from visionkit.data.images.decode import Array
from visionkit.data.samplers import EpochSampler, EvaluationSampler, Key
from visionkit.data.transforms.augmentation import Augmentation
from visionkit.data.transforms.preprocessing import Preprocessing

__all__ = [
    "Combine",
    "EvaluationView",
    "TrainingLoader",
    "TrainingView",
    "evaluation_loader",
    "loader_settings",
]

T = TypeVar("T", bound=Target)


class Combine(Protocol):
    """Makes one training picture of several images, such as Mosaic."""

    def __call__(
        self,
        dataset: VisionDataset[Any],
        index: int,
        preprocessing: Preprocessing,
        *,
        seed: int,
        epoch: int,
        epochs: int | None,
    ) -> Sample[Any] | None:
        """Return image ``index`` with others, at the model's size, or None where it stays alone.

        Args:
            dataset: Where the images come from, at their original size.
            index: The image that is asked for.
            preprocessing: Knows the model's size.
            seed: What is drawn depends on it alone; it is another one for each epoch and index.
            epoch: Epoch of the training, from 0.
            epochs: Number of epochs, or None where it is not known.
        """
        ...


class TrainingView(Dataset[Sample[T]], Generic[T]):
    """A data set, preprocessed and augmented; asked for by (epoch, index).

    Args:
        dataset: The reader.
        preprocessing: Brings each image to the model's size.
        augmentation: Changes it at random.
        seed: Seed of the random changes.
        combine: Puts several images into one before the augmentation, such as Mosaic; None leaves them alone.
        epochs: Number of epochs of the training, or None where it is not known.
        cache: Decoded pictures that are kept, or None.
    """

    def __init__(
        self,
        dataset: VisionDataset[T],
        preprocessing: Preprocessing,
        augmentation: Augmentation,
        *,
        seed: int,
        combine: Combine | None = None,
        epochs: int | None = None,
        cache: ImageCache | None = None,
    ) -> None:
        self.dataset = dataset
        self.preprocessing = preprocessing
        self.prepared = Prepared(dataset, preprocessing, cache)
        self.originals = dataset if cache is None or combine is None else dataset.with_originals(cache.read_whole)
        self.augmentation = augmentation
        self._whole = type(augmentation).__call__ is not Augmentation.__call__  # one of the user's own takes samples
        self._scratch: Array | None = None  # pixels that are read, to be changed: memory that is near
        self.seed = seed
        self.combine = combine
        self.epochs = epochs

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.dataset)

    def __getitem__(self, key: Key) -> Sample[T]:
        """Return the sample ``index`` as it is in ``epoch``."""
        return self.load(key).sample()

    def __getitems__(self, keys: Sequence[Key]) -> Batch[T]:
        """Return the samples of a batch, put together."""
        return assemble(self.load, keys, self.preprocessing.size, self.preprocessing.channels)

    def load(self, key: Key, out: Array | None = None) -> Loaded[T]:
        """Return the sample ``index`` as it is in ``epoch``.

        Args:
            key: Epoch, index and, where there are several, repeat.
            out: uint8 [H, W, C], where its pixels may lie.
        """
        epoch, index, *repeat = key
        loaded: Loaded[T] | None = None
        if self.combine is not None:
            seed = derive_seed("combine", self.seed, epoch, index, *repeat)
            made = self.combine(self.originals, index, self.preprocessing, seed=seed, epoch=epoch, epochs=self.epochs)
            loaded = None if made is None else Loaded.of(made)
        changes = self._whole or self.augmentation.acts
        if loaded is None:
            if out is not None and changes:  # which makes new pixels of these
                if self._scratch is None or self._scratch.shape != out.shape:
                    self._scratch = np.empty_like(out)
                out = self._scratch
            loaded = self.prepared(index, out, shared=changes and not self._whole)
        if not changes:
            return loaded
        seed = derive_seed("augment", self.seed, epoch, index, *repeat)
        return (
            Loaded.of(self.augmentation(loaded.sample(), seed))
            if self._whole
            else self.augmentation.change(loaded, seed)
        )


class EvaluationView(Dataset[Sample[T]], Generic[T]):
    """A data set, preprocessed and unchanged otherwise.

    Args:
        dataset: The reader.
        preprocessing: Brings each image to the model's size.
        cache: Decoded pictures that are kept, or None.
    """

    def __init__(
        self, dataset: VisionDataset[T], preprocessing: Preprocessing, cache: ImageCache | None = None
    ) -> None:
        self.dataset = dataset
        self.preprocessing = preprocessing
        self.prepared = Prepared(dataset, preprocessing, cache)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.dataset)

    def __getitem__(self, index: int) -> Sample[T]:
        """Return sample ``index``."""
        return self.prepared(index).sample()

    def __getitems__(self, indices: Sequence[int]) -> Batch[T]:
        """Return the samples of a batch, put together."""
        return assemble(self.prepared, indices, self.preprocessing.size, self.preprocessing.channels)


class TrainingLoader(DataLoader[Sample[T]]):
    """Loads training batches and remembers where it is, so that a run resumed within an epoch goes on with the rest.

    Args:
        view: What to load.
        sampler: In which order.
        batch_size: Images a batch; an incomplete last batch is left out unless it is the only one.
        workers: Processes that read and augment; 0 does it in this one.
        pin_memory: Whether to copy batches to page-locked memory, for a GPU.
    """

    def __init__(
        self,
        view: Dataset[Sample[T]],
        sampler: EpochSampler,
        *,
        batch_size: int,
        workers: int,
        pin_memory: bool = False,
    ) -> None:
        self._next = 0
        self._skip = 0
        super().__init__(
            view,
            sampler=sampler,
            batch_size=batch_size,
            drop_last=len(sampler) >= batch_size,
            **loader_settings(workers, pin_memory),
        )

    def __iter__(self) -> Iterator[Batch[T]]:  # type: ignore[override]  # collate makes Batch
        """Yield the batches of the sampler's epoch; after :meth:`skip` those that are still to come, once."""
        sampler = self.sampler
        assert isinstance(sampler, EpochSampler)
        self._next, self._skip = self._skip, 0
        sampler.start = self._next * (self.batch_size or 1)
        for batch in super().__iter__():
            self._next += 1
            yield batch

    def skip(self, batches: int) -> None:
        """Let the next epoch start after this many batches: a resumed run has seen them."""
        self._skip = batches

    def state_dict(self) -> dict[str, int]:
        """Return the place within the epoch."""
        return {"batches": self._next}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go to a place within the epoch."""
        self.skip(state["batches"] % len(self))


def evaluation_loader(
    view: Dataset[Sample[T]],
    *,
    batch_size: int,
    workers: int,
    pin_memory: bool = False,
    num_replicas: int = 1,
    rank: int = 0,
) -> DataLoader[Sample[T]]:
    """Return a loader of every sample once, in order.

    Args:
        view: What to load.
        batch_size: Images a batch; the last one can be smaller.
        workers: Processes that read; 0 does it in this one.
        pin_memory: Whether to copy batches to page-locked memory, for a GPU.
        num_replicas: Number of processes that share the work.
        rank: This process, from 0.
    """
    sampler = EvaluationSampler(view, num_replicas=num_replicas, rank=rank)
    return DataLoader(view, sampler=sampler, batch_size=batch_size, **loader_settings(workers, pin_memory))


def loader_settings(workers: int, pin_memory: bool) -> dict[str, Any]:
    """Return what all loaders have in common."""
    return {
        "num_workers": workers,
        "collate_fn": _collate,
        "pin_memory": pin_memory,
        "worker_init_fn": _start_worker,
        "persistent_workers": workers > 0,
        "generator": torch.Generator().manual_seed(0),  # its own: making an iterator draws from the global one else
    }


def _collate(samples: Sequence[Sample[T]] | Batch[T]) -> Batch[T]:
    """Put samples into a batch, unless the view has made it."""
    return samples if isinstance(samples, Batch) else collate(samples)


def _start_worker(worker_id: int) -> None:
    """Keep a worker to one thread, and let training go first where both want the same processor.

    Not SCHED_IDLE: any other program on the machine would starve the workers, and the training with them. Ctrl-C, which
    a terminal tells to all processes, is the first one's to answer: it still wants pictures.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(0)
    if not torch.cuda.is_available() and hasattr(os, "nice"):
        os.nice(10)
