"""Signals that end a training: the running epoch is saved first."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import lightning as L
import torch
import torch.distributed as dist
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.trainer.connectors.signal_connector import _SignalConnector

from visionkit.training.ema import EMA
from visionkit.training.run.checkpoints import BestAndLast

__all__ = ["Stopped", "Stopping", "end_others"]

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(BaseException):
    """A signal has ended the training.

    Args:
        number: Of the signal.
        saved: What is saved, in words; "" for nothing.
    """

    def __init__(self, number: int, saved: str = "") -> None:
        super().__init__(number, saved)
        self.number = number
        self.saved = saved


class Stopping(Checkpoint):  # that comes after the callbacks that change what is saved
    """End a training after SIGINT (Ctrl-C) or SIGTERM: at the end of the batch, with all of the epoch so far saved.

    Before the training has begun it ends at once, and within a validation, too, which is done anew when the training
    goes on. On several processes all end at the same batch, whichever of them was told to. A second signal ends the
    process there and then.

    Args:
        keep: Saves the epochs, or None where no checkpoints are asked for.
    """

    def __init__(self, keep: BestAndLast | None) -> None:
        self.keep = keep
        self.number = 0
        """The signal that came, or 0."""
        self._trainer: L.Trainer | None = None
        self._within = False  # whether there is something to save
        self._child = False  # whether another process of this run tells this one to stop

    @contextmanager
    def listening(self, trainer: L.Trainer) -> Iterator[None]:
        """Take the two signals while the block runs; Lightning's own answer to SIGTERM saves nothing.

        Args:
            trainer: Whose training they end.
        """
        self._trainer = trainer
        launcher = trainer.strategy.launcher
        self._child = hasattr(launcher, "procs") and trainer.local_rank > 0
        trainer._signal_connector = _Signals(trainer)
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._receive) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _receive(self, number: int, frame: Any) -> None:
        again, self.number = self.number != 0, self.number or number
        if again and not self._child:  # a terminal tells all processes, and the first one tells the others
            self._end_now()
        if not again:
            if hasattr(signal, "SIGCHLD"):  # readers that were told, too, are not to break off the batch that runs
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for process in self._processes():
                with contextlib.suppress(OSError):
                    process.send_signal(number)
            if not self._within:
                raise Stopped(number)

    def _processes(self) -> list[Any]:
        """Return the training processes that this one has started."""
        return list(getattr(self._trainer.strategy.launcher, "procs", ())) if self._trainer is not None else []

    def _end_now(self) -> None:
        for process in (*self._processes(), *multiprocessing.active_children()):
            with contextlib.suppress(OSError):
                process.kill()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                if stream.isatty():
                    os.write(stream.fileno(), b"\x1b[?25h\n")  # the bar has hidden the cursor
        with contextlib.suppress(OSError, ValueError):
            os.write(sys.stderr.fileno(), b"stopped at once\n")
        os._exit(128 + self.number)

    def _agreed(self, trainer: L.Trainer) -> bool:
        """Return whether any process was told to stop; all must ask at the same time."""
        if trainer.world_size > 1 and dist.is_initialized():
            told = torch.tensor([self.number], device=trainer.strategy.root_device)
            dist.all_reduce(told, dist.ReduceOp.MAX)
            self.number = int(told)
        return self.number != 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """From here on there is something to save."""
        self._within = True

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """End here, unless a validation or the end of the epoch comes next, or gradients are being summed up."""
        if not self._agreed(trainer):
            return
        loop = trainer.fit_loop.epoch_loop
        fetcher = trainer.fit_loop._data_fetcher
        assert fetcher is not None
        if loop._num_ready_batches_reached() or loop._should_accumulate() or loop._should_check_val_fx(fetcher):
            return
        done, batches = batch_idx + 1, trainer.num_training_batches
        self._stop(trainer, f"epoch {trainer.current_epoch + 1}, {done} of {batches} batches")

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """End before a validation, which is done when the training goes on."""
        if self._within and not trainer.sanity_checking and self._agreed(trainer):
            self._stop_validation(trainer)

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """End within a validation; several processes, which have unlike numbers of batches, end after it."""
        if self._within and self.number and trainer.world_size == 1:
            self._stop_validation(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """End after an epoch, which has been saved; the last one is followed by the end of the training anyway."""
        epochs = trainer.max_epochs
        last = epochs is not None and 0 < epochs <= trainer.current_epoch + 1
        if self._agreed(trainer) and not last and not trainer.should_stop:
            raise Stopped(self.number, f"{trainer.current_epoch + 1} epochs" if self.keep is not None else "")

    def _stop_validation(self, trainer: L.Trainer) -> None:
        """Save the state before the validation."""
        progress = trainer.fit_loop.epoch_loop.val_loop.batch_progress
        progress.reset()  # as within its first batch: Lightning then does it anew
        progress.increment_ready()
        progress.increment_started()
        for callback in trainer.callbacks:  # type: ignore[attr-defined]  # set at run time
            if isinstance(callback, EMA):
                callback.end_validation(trainer)
        self._stop(trainer, f"epoch {trainer.current_epoch + 1} up to its validation")

    def _stop(self, trainer: L.Trainer, what: str) -> None:
        if self.keep is None or trainer.fast_dev_run:  # type: ignore[attr-defined]  # set at run time
            raise Stopped(self.number)
        trainer.save_checkpoint(self.keep.last_model_path, weights_only=False)
        raise Stopped(self.number, what)


def end_others(trainer: L.Trainer, seconds: float = 10.0) -> None:
    """Wait for the training processes that this one has started, and kill those that do not end.

    Args:
        trainer: What has started them.
        seconds: How long to wait for each.
    """
    for process in getattr(trainer.strategy.launcher, "procs", ()):
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()


class _Signals(_SignalConnector):
    """Lightning's answers to signals, without those to SIGTERM and SIGINT."""

    @staticmethod
    def _register_signal(signum: Any, handlers: Any) -> None:
        if signum not in SIGNALS:
            _SignalConnector._register_signal(signum, handlers)
