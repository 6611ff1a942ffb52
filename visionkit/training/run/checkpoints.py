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
from visionkit.core.files import replacing
from visionkit.models import checkpoint as checkpoints
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
FOLDER = "checkpoints"
"""Where a run folder keeps its checkpoints."""


class BestAndLast(Checkpoint):
    """Save ``last.ckpt`` at the end of each epoch, after its validation, and keep the best epoch's as ``best.ckpt``.

    A task with several monitors (one a head) has a best epoch, and a file, for each: ``best-NAME.ckpt``.

    Lightning's ModelCheckpoint writes its "last" only when the best improves, which loses epochs when a run is killed.

    Args:
        run: The run folder, which knows the best epoch.
    """

    def __init__(self, run: RunFolder) -> None:
        self.run = run
        self.last_model_path = str(run.folder / FOLDER / "last.ckpt")
        self.best_model_path = str(run.folder / FOLDER / "best.ckpt")

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save the epoch."""
        if trainer.fast_dev_run:  # type: ignore[attr-defined]  # set at run time
            return
        trainer.save_checkpoint(self.last_model_path, weights_only=False)  # optimizer and all: to go on from
        for name, best in self.run.bests.items() if trainer.is_global_zero else ():
            if best["epoch"] != trainer.current_epoch + 1:
                continue
            with replacing(self.run.folder / FOLDER / f"{name}.ckpt") as temporary:
                temporary.unlink()
                try:
                    os.link(self.last_model_path, temporary)  # no second copy: last.ckpt is replaced, never changed
                except OSError:  # a file system without hard links
                    shutil.copyfile(self.last_model_path, temporary)


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
