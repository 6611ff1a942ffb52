"""A trial of a training: a few steps of everything with the real data and model, of which nothing is kept."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
from jsonargparse import Namespace

from visionkit.cli.lightning import CLI
from visionkit.core.text import say
from visionkit.training.advice import Choice
from visionkit.training.run.stopping import Stopped
from visionkit.training.run.trial import STEPS, VALIDATION_STEPS, Stopwatch, TimedSaving

__all__ = ["Trial", "whole"]


class Trial(CLI):
    """Trains, validates and saves a few batches on one device.

    Args:
        argv: The command and its arguments.
        given: The same as a person wrote it, for messages.
        choices: What was chosen from the data where ``auto`` stood.
        folder: An empty folder for what a training writes; whoever gives it removes it.
    """

    least = 0.0
    """Seconds of training steps that are wanted: where an epoch of the trial is shorter, others follow."""

    def __init__(
        self, argv: list[str], given: list[str] | None = None, *, folder: Path, choices: Sequence[Choice]
    ) -> None:
        self.scratch = folder
        super().__init__(argv, given, choices=choices)

    def _claim(self) -> Path:
        return self.scratch

    def before_instantiate_classes(self) -> None:
        """Settle what a training would, then cut it short."""
        super().before_instantiate_classes()
        self._cut_short(self.config[self.subcommand])

    def _cut_short(self, config: Namespace) -> None:
        config.ckpt_path = None  # where a training would go on from makes no difference to memory and time
        trainer = config.trainer
        self.epochs, self.steps = trainer.max_epochs, trainer.max_steps
        self.limits = {"train": trainer.limit_train_batches, "val": trainer.limit_val_batches}
        changes = {
            "max_epochs": self.epochs or 1,
            "limit_train_batches": _fewer(trainer.limit_train_batches, STEPS),
            "limit_val_batches": _fewer(trainer.limit_val_batches, VALIDATION_STEPS),
            **dict.fromkeys(("devices", "num_nodes", "check_val_every_n_epoch"), 1),
            **dict.fromkeys(("min_epochs", "min_steps", "max_time", "val_check_interval", "callbacks")),
            "strategy": "auto",  # one process: what several need would stay set for the training
            **dict.fromkeys(("fast_dev_run", "logger"), False),
            "enable_checkpointing": True,
            "max_steps": -1,
        }
        for key, value in changes.items():
            trainer[key] = value

    def _callbacks(self, settings: Any) -> list[L.Callback]:
        self.watch, self.saving = Stopwatch(least=self.least), TimedSaving(self.run)
        return [self.run, self.watch, self.saving]

    def _stopped(self, e: Stopped) -> int:
        """Say what a signal has ended; return the exit status."""
        say(f"stopped by {signal.Signals(e.number).name}; nothing is kept", error=True)
        return 128 + e.number

    def batches(self, stage: str, processes: int = 1) -> int:
        """Return how many batches of a stage, "train" or "val", an epoch of the training has on each process."""
        return whole(self.limits[stage], -(-self.watch.batches[stage] // processes))


def _fewer(limit: float | None, most: int) -> int:
    """Return a limit of batches, as the Trainer takes it, as a number of at most so many."""
    if limit == 0:
        return 0
    return min(limit, most) if isinstance(limit, int) else most


def whole(limit: float | None, batches: int) -> int:
    """Return how many of the batches an epoch takes with a limit, a number or a share.

    Args:
        limit: As the Trainer takes it; None is no limit.
        batches: All of them.
    """
    if limit is None:
        return batches
    return min(limit, batches) if isinstance(limit, int) else int(limit * batches)
