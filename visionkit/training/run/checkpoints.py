"""Which checkpoints a run keeps, and how they reach the disk."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import lightning as L
from lightning.fabric.plugins import CheckpointIO
from lightning.pytorch.callbacks import Checkpoint

from visionkit.core.errors import DataError
from visionkit.core.files import make_folder, open_binary, replacing
from visionkit.core.text import say
from visionkit.models import checkpoint as checkpoints
from visionkit.models.run_folder import BEST, FOLDER, LAST
from visionkit.training.run.folder import RunFolder

__all__ = ["FOLDER", "BestAndLast", "SafeCheckpointIO"]

_OF_TRAINING = {
    "epoch": int,
    "global_step": int,
    "optimizer_states": list,
    "lr_schedulers": list,
    "loops": dict,
    "callbacks": dict,
}


class BestAndLast(Checkpoint):
    """Save ``last.ckpt`` at the end of each epoch, after its validation, and keep the best epoch's as ``best.ckpt``.

    A task with several monitors (one a head) has a best epoch, and a file, for each: ``best-NAME.ckpt``.

    Lightning's ModelCheckpoint writes its "last" only when the best improves, which loses epochs when a run is killed.

    Args:
        run: The run folder, which knows the best epoch.
    """

    def __init__(self, run: RunFolder) -> None:
        self.run = run
        run.deferred = True
        self._started = False
        self.last_model_path = str(run.folder / FOLDER / LAST)
        self.best_model_path = str(run.folder / FOLDER / BEST)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """After a resume bring the best epochs' files in line with what its checkpoint says of them.

        A run that was killed between last.ckpt and best.ckpt has not linked the latter yet; one that goes on in another
        folder has none there.
        """
        self._started = True
        if trainer.fast_dev_run:  # type: ignore[attr-defined]  # set at run time
            return
        if trainer.is_global_zero:
            make_folder(self.run.folder / FOLDER)
        if trainer.ckpt_path is None:
            if self.run.rows:  # what the training starts from has values, those of epoch 0
                self._save(trainer, 0)
            return
        if trainer.is_global_zero:
            source = Path(trainer.ckpt_path)
            for name, best in list(self.run.bests.items()):
                own = self.run.folder / FOLDER / f"{name}.ckpt"
                candidates = (own, source, source.parent / own.name)
                found = next((path for path in candidates if _epochs(path) == best["epoch"]), None)
                if found is None:
                    say(f"note     {own} of epoch {best['epoch']} is missing: the best epoch from here on is kept")
                    del self.run.bests[name]
                elif found != own:
                    _link(found, own)
            self.run.write()
        self.run.bests = trainer.strategy.broadcast(self.run.bests)

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Finish a run that was killed after its last epoch: nothing is left to train, but to write and draw."""
        if not self._started and trainer.ckpt_path is not None:
            if (self.run.folder / "config.yaml").exists():
                self.run.config = None  # what was trained, was trained with that
            self.run.on_train_start(trainer, pl_module)
            self.on_train_start(trainer, pl_module)
            self.run.on_train_end(trainer, pl_module)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save the epoch: last.ckpt holds all, so that what follows can be made good after a kill at any point."""
        if not trainer.fast_dev_run:  # type: ignore[attr-defined]  # set at run time
            self._save(trainer, trainer.current_epoch + 1)

    def _save(self, trainer: L.Trainer, epoch: int) -> None:
        trainer.save_checkpoint(self.last_model_path, weights_only=False)  # optimizer and all: to go on from
        if not trainer.is_global_zero:
            return
        for name, best in self.run.bests.items():
            if best["epoch"] == epoch:
                _link(Path(self.last_model_path), self.run.folder / FOLDER / f"{name}.ckpt")
        self.run.write()


def _link(source: Path, path: Path) -> None:
    """Let a file be another one's copy."""
    with replacing(path, needed=source.stat().st_size) as temporary:
        temporary.unlink()
        try:
            os.link(source, temporary)  # no second copy: last.ckpt is replaced, never changed
        except OSError:  # a file system without hard links
            with open_binary(source) as old, temporary.open("wb") as new:
                shutil.copyfileobj(old, new, 1 << 20)
                new.flush()
                os.fsync(new.fileno())


def _epochs(path: Path) -> int | None:
    """Return after how many epochs a checkpoint was saved, or None where there is none or within one."""
    try:
        checkpoint = checkpoints.read(path)
        progress = checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]
        return int(progress["processed"]) if progress["processed"] == progress["ready"] else None
    except (DataError, KeyError, TypeError):
        return None


class SafeCheckpointIO(CheckpointIO):
    """Write checkpoints whole or not at all, and read them without running code from them."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write under a temporary name, then rename."""
        checkpoints.write(checkpoint, path)

    def load_checkpoint(
        self, path: Any, map_location: Any | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint file; see :func:`visionkit.models.checkpoint.read` for what it refuses."""
        checkpoint = checkpoints.read(path)
        for key, kind in _OF_TRAINING.items():
            if not isinstance(checkpoint.get(key, kind()), kind):
                raise DataError(f"{path}: its {key} is no {kind.__name__}: the training cannot go on from this file")
        checkpoint.setdefault("pytorch-lightning_version", L.__version__)  # visionkit.save writes none
        return checkpoint

    def remove_checkpoint(self, path: Any) -> None:
        """Remove a checkpoint file that is no longer needed."""
        Path(path).unlink(missing_ok=True)
