"""What a person sees while a model trains: one line an epoch, and a bar on a terminal."""

from __future__ import annotations

import math
import statistics

import lightning as L
from lightning.pytorch.callbacks import Callback, RichProgressBar

from visionkit.core.text import say
from visionkit.training.datamodule import VisionDataModule
from visionkit.training.run.folder import RunFolder
from visionkit.training.task import Task

__all__ = ["EpochLines", "QuietBar"]


NOTABLE_WAIT = 0.2  # share of a training


class EpochLines(Callback):
    """Print one line an epoch: losses, the monitored metric, learning rate and speed.

    Args:
        run: The run folder, which has the numbers.
    """

    def __init__(self, run: RunFolder) -> None:
        self.run = run

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Print the epoch's line."""
        assert isinstance(pl_module, Task)
        if not trainer.is_global_zero:
            return
        row = self.run.rows[-1]
        total = trainer.max_epochs if trainer.max_epochs and trainer.max_epochs > 0 else "?"
        parts = [f"epoch {row['epoch']:>3}/{total}", f"loss {row.get('train/loss', float('nan')):.4f}"]
        if "val/loss" in row:
            parts.append(f"val/loss {row['val/loss']:.4f}")
        if pl_module.monitor in row:
            best = "*" if self.run.best.get("epoch") == row["epoch"] else " "
            parts.append(f"{pl_module.monitor} {row[pl_module.monitor]:.4f}{best}")
        parts += [f"lr {row['lr']:.2e}", f"{row['images_per_second']:.0f} img/s", f"{row['seconds']:.1f} s"]
        say("  ".join(parts))
        wrong = [key for key in ("val/loss", pl_module.monitor) if not math.isfinite(row.get(key, 0.0))]
        if wrong:
            say(
                f"note     {' and '.join(dict.fromkeys(wrong))} of epoch {row['epoch']} is no finite number: if it "
                "stays so, lower the learning rate (--model.recipe.optimizer.lr) or set --trainer.gradient_clip_val 1"
            )

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Say what would make the next training faster, where this one waited for its pictures."""
        later = self.run.rows[1:]  # in the first epoch the workers start
        shares = [float(row["seconds_waiting"]) / float(row["seconds"]) for row in later if "seconds_waiting" in row]
        if trainer.is_global_zero and shares and (share := statistics.median(shares)) > NOTABLE_WAIT:
            advice = ["--data.num_workers N reads with more processes"]
            if _decodes_anew(trainer):
                advice.insert(0, "--data.cache ram (or disk) decodes each only once")
            say(f"speed    {share:.0%} of the time was spent waiting for pictures: {', '.join(advice)}")


def _decodes_anew(trainer: L.Trainer) -> bool:
    """Return whether pictures are files that each epoch reads again."""
    data = getattr(trainer, "datamodule", None)
    if not isinstance(data, VisionDataModule) or data.cache.kind != "none":
        return False
    return any(file is not None for file in data.splits.get("train").files())


class QuietBar(RichProgressBar):
    """Lightning's rich bar, which leaves nothing behind when an epoch ends and no line in pieces.

    While it is shown, rich writes what is printed: it would end lines at the terminal's width, so that paths in them
    can no longer be copied.
    """

    def __init__(self) -> None:
        super().__init__(leave=False, console_kwargs={"soft_wrap": True})

    def get_metrics(
        self, trainer: L.Trainer, pl_module: L.LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        """Show no metrics in the bar: the epoch's line has them."""
        return {}

    def _get_train_description(self, current_epoch: int) -> str:
        """Count epochs from 1, as the lines do: Lightning's bar says ``Epoch 0/9`` beside a line ``1/10``."""
        epochs = self.trainer.max_epochs
        text = f"Epoch {current_epoch + 1}" + (f"/{epochs}" if epochs and epochs > 0 else "")
        return text.ljust(len(self.validation_description))
