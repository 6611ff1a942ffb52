"""Which checkpoints a run keeps, and how they reach the disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.fabric.plugins import CheckpointIO
from lightning.pytorch.callbacks import ModelCheckpoint

from visionkit import checkpoint as checkpoints

__all__ = ["FOLDER", "BestAndLast", "SafeCheckpointIO"]

FOLDER = "checkpoints"
"""Where a run folder keeps its checkpoints."""


class BestAndLast(ModelCheckpoint):
    """Keep ``best.ckpt`` and ``last.ckpt``, both saved at the end of an epoch, after its validation.

    Args:
        folder: The run folder.
        monitor: Key of the metric that says which epoch is the best.
        mode: Whether a higher ("max") or lower ("min") value is better.
    """

    def __init__(self, folder: Path, *, monitor: str, mode: str) -> None:
        super().__init__(
            dirpath=folder / FOLDER,
            filename="best",
            monitor=monitor,
            mode=mode,
            save_top_k=1,
            save_last=True,
            save_on_train_epoch_end=True,
            enable_version_counter=False,
            auto_insert_metric_name=False,
        )


class SafeCheckpointIO(CheckpointIO):
    """Write checkpoints whole or not at all, and read them without running code from them."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write under a temporary name, then rename."""
        checkpoints.write(checkpoint, path)

    def load_checkpoint(
        self, path: Any, map_location: Any | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint file; see :func:`visionkit.checkpoint.read` for what it refuses."""
        return checkpoints.read(path)

    def remove_checkpoint(self, path: Any) -> None:
        """Remove a checkpoint file that is no longer needed."""
        Path(path).unlink(missing_ok=True)
