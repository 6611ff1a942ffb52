"""Lightning's advertisements and notices, kept off the screen."""

from __future__ import annotations

import logging
import warnings

__all__ = ["hide_notices"]

NOISE = (
    *("Tip:", "Loading `train_dataloader`", "GPU available", "TPU available", "HPU available", "Using"),
    *("`Trainer.fit` stopped: `max_epochs", "Restor", "Loaded model weights", "Found current_model_state"),
)
"""Parts of Lightning's notices that mean nothing to a user, or that the first lines of a run say better."""
WARNINGS = (
    ".*does not have many workers.*",
    "The image is already gray.*",  # ToGray of the default augmentation on grey pictures
    ".*Checkpoint directory .* exists.*",
    ".*log_every_n_steps.*",
    ".*callbacks used to create the checkpoint need to be provided.*",  # evaluation needs none of them
    ".*recommended to use `self.log.*sync_dist=True.*",  # metrics are equal on all processes already
)


def _useful(record: logging.LogRecord) -> bool:
    return not any(n in record.getMessage() for n in NOISE)


def hide_notices() -> None:
    """Keep Lightning's advertisements and notices off the screen."""
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.rank_zero"):
        logging.getLogger(name).addFilter(_useful)
    for message in WARNINGS:
        warnings.filterwarnings("ignore", message)
    warnings.filterwarnings("ignore", category=FutureWarning, module="lightning.*")
