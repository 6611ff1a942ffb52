"""When the steps of a training end, in one's own loop and in `visionkit fit`."""

from __future__ import annotations

import argparse
import functools
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
    outside: ClassVar[list[float]] = []
    """Processor time that this thread had taken by then outside of what :func:`set_aside` times."""
    done: ClassVar[list[float]] = []
    """End of each training, after the last epoch's validation and checkpoint."""

    def on_train_epoch_start(self, *_: Any) -> None:
        """Note the time."""
        self.epochs.append(time.perf_counter())

    def on_train_batch_end(self, *_: Any) -> None:
        """Note the time."""
        self.ends.append(time.perf_counter())
        self.outside.append(outside())

    def on_train_end(self, *_: Any) -> None:
        """Note the time."""
        self.done.append(time.perf_counter())


def set_aside(owner: Any, name: str) -> None:
    """Time a function or method from now on, and leave its processor time out of :func:`outside`.

    Args:
        owner: The module or class that holds it.
        name: Its name there; it calls no other one that is set aside.
    """
    function = getattr(owner, name)

    @functools.wraps(function)
    def timed(*args: Any, **kwargs: Any) -> Any:
        start = time.thread_time()
        try:
            return function(*args, **kwargs)
        finally:
            _aside[0] += time.thread_time() - start

    setattr(owner, name, timed)


def outside() -> float:
    """Return the seconds of processor time that this thread has taken but for what was set aside."""
    return time.thread_time() - _aside[0]


_aside = [0.0]


def common_settings(options: argparse.Namespace, steps: int) -> dict[str, Any]:
    """Return the keys of ``visionkit fit`` for a training beside a peer's on the same pictures.

    Args:
        options: ``data``, ``size`` (height and width), ``batch_size`` and ``epochs``; 0 for a measurement of speed.
        steps: How long that is.
    """
    settings = {
        "data.root": options.data,
        "data.size": f"[{options.size[0]}, {options.size[1]}]",
        "data.batch_size": options.batch_size,
        "trainer.accelerator": "cpu",
        "trainer.max_epochs": options.epochs or 1,
        "trainer.logger": "false",
    }
    if not options.epochs:
        settings |= {"trainer.limit_train_batches": steps, "trainer.limit_val_batches": 1}
    return settings


def fit(config: str, settings: Mapping[str, Any], further: Sequence[str] = ()) -> Path:
    """Run ``visionkit fit`` with a :class:`StepTimes` in a temporary run folder that stays until the process ends.

    Args:
        config: A shipped config or a file.
        settings: Key -> value of the command line.
        further: Further ``KEY=VALUE``.

    Returns:
        The run folder.
    """
    from visionkit.cli.main import run

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
