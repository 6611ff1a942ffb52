"""A short trial of a training: how long its steps take and how much memory they need."""

from __future__ import annotations

import math
import statistics
import sys
import time
from collections.abc import Sized
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback

from visionkit.training.run.checkpoints import BestAndLast

__all__ = ["STEPS", "VALIDATION_STEPS", "Stopwatch", "TimedSaving", "duration", "peak_memory"]

STEPS, VALIDATION_STEPS = 6, 3
"""Batches that a trial trains and validates; the first of each, slower than all others, does not count."""


class Stopwatch(Callback):
    """Take the times of the steps of a short epoch, or of several, and end the training after them.

    Args:
        least: Seconds of training steps that are wanted: where an epoch is shorter, others follow, ``MOST`` in all.
    """

    MOST = 8

    def __init__(self, *, least: float = 0.0) -> None:
        self.least = least
        self.batches = {"train": 0, "val": 0}
        """How many batches a whole epoch has."""
        self.judging = 0.0
        """Seconds a validation batch of what comes after them."""
        self.ready: float | None = None
        """When the first training step had ended, on the clock of ``time.perf_counter``."""
        self._times: dict[str, list[list[float]]] = {"train": [], "val": []}  # of the batches of each epoch
        self._waits: list[float] = []  # of the training steps, in order
        self._last = 0.0

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock of the training."""
        self._start("train", trainer, trainer.train_dataloader)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Take the time of the wait for pictures."""
        self._waits.append(_now(trainer) - self._last)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Take the time of a step."""
        self._take("train", trainer)
        if self.ready is None:
            self.ready = self._last

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock of the validation."""
        self._start("val", trainer, trainer.val_dataloaders)

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Take the time of a validation batch."""
        self._take("val", trainer)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take the time of what comes after the last batch: the metrics of all."""
        if self._times["val"] and self._times["val"][-1]:
            self.judging = (_now(trainer) - self._last) / len(self._times["val"][-1])

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Go on while there is too little to go by."""
        epochs = self._times["train"]
        trainer.should_stop = sum(map(sum, epochs)) >= self.least or len(epochs) >= self.MOST

    def seconds(self, stage: str) -> float:
        """Return the median seconds of a batch of a stage, "train" or "val", with the wait for its pictures.

        The first one of all, slower than the others, does not count.
        """
        times = [seconds for epoch in self._times[stage] for seconds in epoch]
        return statistics.median(times[1:] or times or [0.0])

    def steady(self) -> float:
        """Return the seconds of a training step later on: the first ones share the processor with what makes ready.

        They are the mean of the faster half, without the wait for pictures, and what the last ones waited: the first
        find theirs read beforehand.
        """
        times = [seconds for epoch in self._times["train"] for seconds in epoch]
        alone = sorted(seconds - wait for seconds, wait in zip(times, self._waits, strict=True))
        waited = statistics.median(self._waits[-STEPS:] or [0.0])
        return statistics.fmean(alone[: -(-len(alone) // 2)] or [0.0]) + waited

    def validation(self, batches: int) -> float:
        """Return the seconds of a validation of so many batches, from its start to the end of its metrics."""
        last = self._times["val"][-1] if self._times["val"] else []
        if not last or not batches:
            return 0.0
        first = max(0.0, last[0] - statistics.median(last))  # until its pictures are there
        return first + batches * (statistics.median(last) + self.judging)

    def _start(self, stage: str, trainer: L.Trainer, loader: Any) -> None:
        self._times[stage].append([])
        self._last = _now(trainer)
        self.batches[stage] = len(loader) if isinstance(loader, Sized) else 0

    def _take(self, stage: str, trainer: L.Trainer) -> None:
        now = _now(trainer)
        self._times[stage][-1].append(now - self._last)
        self._last = now


class TimedSaving(BestAndLast):
    """Knows how long it took to save an epoch."""

    seconds = 0.0

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save the epoch."""
        start = time.perf_counter()
        super().on_train_epoch_end(trainer, pl_module)
        self.seconds = time.perf_counter() - start


def peak_memory(device: torch.device) -> str:
    """Return in words the most memory that was in use so far: of the GPU, else of this process."""
    if device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
        return f"{torch.cuda.max_memory_reserved(device) / 1e9:.1f} of {total / 1e9:.0f} GB of the GPU"
    if sys.platform == "win32":
        return "not known on this system"
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return f"{peak / 1e9:.1f} GB of this process, without those that read pictures"


def duration(seconds: float) -> str:
    """Return a time in words, in two digits or so."""
    if seconds < 10:
        return f"{seconds:.2g} s"
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = math.ceil(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{seconds / 3600:.1f} h"


def _now(trainer: L.Trainer) -> float:
    """Return the time once the device has done what it was told to."""
    device = trainer.strategy.root_device
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
