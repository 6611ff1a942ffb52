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
    """Take the times of the steps of a short epoch, and end the training after it.

    Args:
        again: Whether to take a second epoch instead where one has too few batches to leave out the first.
    """

    def __init__(self, *, again: bool = False) -> None:
        self.again = again
        self.batches = {"train": 0, "val": 0}
        """How many batches a whole epoch has."""
        self.judging = 0.0
        """Seconds a validation batch of what comes after them."""
        self.ready: float | None = None
        """When the first training step had ended, on the clock of ``time.perf_counter``."""
        self._ends: dict[str, list[float]] = {}
        self._starts: dict[str, float] = {}

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock of the training."""
        self._start("train", trainer, trainer.train_dataloader)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Take the time of a step."""
        self._take("train", trainer)

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
        if self._ends.get("val"):
            self.judging = (_now(trainer) - self._ends["val"][-1]) / len(self._ends["val"])

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """One epoch is enough, or two."""
        few = len(self._ends["train"]) < STEPS or len(self._ends.get("val", ())) < VALIDATION_STEPS
        trainer.should_stop = not (few and self.again) or trainer.current_epoch > 0

    def seconds(self, stage: str) -> float:
        """Return the median seconds of a batch of a stage, "train" or "val", with the wait for its pictures."""
        ends = self._ends.get(stage, [])
        times = [later - earlier for earlier, later in zip([self._starts.get(stage, 0.0), *ends], ends, strict=False)]
        return statistics.median(times[1:] or times or [0.0])

    def _start(self, stage: str, trainer: L.Trainer, loader: Any) -> None:
        self._ends[stage], self._starts[stage] = [], _now(trainer)
        self.batches[stage] = len(loader) if isinstance(loader, Sized) else 0

    def _take(self, stage: str, trainer: L.Trainer) -> None:
        now = _now(trainer)
        self._ends[stage].append(now)
        if stage == "train" and self.ready is None:
            self.ready = now


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
