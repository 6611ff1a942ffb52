"""When the steps of a training end, in one's own loop and in `visionkit fit`."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from lightning.pytorch.callbacks import Callback


class StepTimes(Callback):
    """Notes when epochs start, steps end and trainings end; as the first callback it hears before all others.

    The lists belong to the class: the command line makes the object, the benchmark reads the lists.
    """

    epochs: ClassVar[list[float]] = []
    """Start of each epoch."""
    ends: ClassVar[list[float]] = []
    """End of each step, those of all epochs in a row."""
    done: ClassVar[list[float]] = []
    """End of each training, after the last epoch's validation and checkpoint."""

    def on_train_epoch_start(self, *_: Any) -> None:
        """Note the time."""
        self.epochs.append(time.perf_counter())

    def on_train_batch_end(self, *_: Any) -> None:
        """Note the time."""
        self.ends.append(time.perf_counter())

    def on_train_end(self, *_: Any) -> None:
        """Note the time."""
        self.done.append(time.perf_counter())


def fit(config: str, settings: Mapping[str, Any], further: Sequence[str] = ()) -> Path:
    """Run ``visionkit fit`` with a :class:`StepTimes` in a temporary run folder that stays until the process ends.

    Args:
        config: A shipped config or a file.
        settings: Key -> value of the command line.
        further: Further ``KEY=VALUE``.

    Returns:
        The run folder.
    """
    from visionkit.cli import run

    folder = tempfile.TemporaryDirectory()
    _folders.append(folder)
    out = Path(folder.name) / "run"
    given = {**settings, "trainer.default_root_dir": out}
    callbacks = f'--trainer.callbacks=[{{"class_path": "{StepTimes.__module__}.StepTimes"}}]'
    pairs = [*(f"--{k}={v}" for k, v in given.items()), *(f"--{pair}" for pair in further)]
    if status := run(["fit", "-c", config, callbacks, *pairs]):
        sys.exit(status)
    return out


_folders: list[tempfile.TemporaryDirectory[str]] = []
