"""Pictures in the run folder and in TensorBoard: a training batch, and validation pictures over the epochs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image
from torch import Tensor

from visionkit.core.files import make_folder, replacing
from visionkit.core.output import mark_output
from visionkit.core.prediction import Prediction
from visionkit.core.sample import Batch
from visionkit.core.text import say
from visionkit.data.dataset import VisionDataset
from visionkit.data.loading import EvaluationView
from visionkit.training.datamodule import VisionDataModule
from visionkit.training.pictures.drawing import draw_prediction, draw_truth
from visionkit.training.pictures.moments import is_moment
from visionkit.training.task import Task

__all__ = ["PICTURES", "Pictures", "Sheet"]

PICTURES = "pictures"
"""Name of the folder of a run that holds them."""
MAX_TRAINING, MAX_VALIDATION = 16, 8  # pictures on a sheet

Sheet = Callable[[Sequence[Sequence[tuple[Tensor, str]]], str], Tensor]
"""Puts groups of pictures, uint8 [3, H, W], with captions onto one under a heading, uint8 [3, H, W]."""


class Pictures(Callback):
    """Draw the first training batch exactly as the network sees it, and truth beside prediction after some epochs.

    Validation pictures are the same each time, spread evenly over the split. What is drawn is what the steps compute
    anyway: nothing is computed, and no random number drawn, for it. What cannot be drawn is said once and left out.

    Args:
        folder: The run folder; the pictures go into ``pictures`` in it.
        sheet: Puts pictures onto one.
        every: Validation pictures after each so many epochs, or "auto" for the epochs 1, 2, 5, 10, 20, 50 and so on;
            in both cases after the last one, too.
    """

    def __init__(self, folder: Path, sheet: Sheet, every: int | str = "auto") -> None:
        self.folder = folder / PICTURES
        self.sheet = sheet
        self.every = every
        self._drawn = 0  # epochs for which nothing more is due
        self._chosen: list[tuple[str, int]] = []  # id and position of the validation pictures
        self._pairs: dict[str, list[tuple[Tensor, str]]] = {}

    # ---- the training batch

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Look at the first batch that is trained."""
        assert isinstance(pl_module, Task)
        self._drawn = trainer.current_epoch
        if trainer.is_global_zero and not trainer.fast_dev_run:  # type: ignore[attr-defined]  # set at run time
            pl_module.watch_training = lambda batch: self._draw_batch(trainer, pl_module, batch)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Look no more."""
        self._stop(pl_module)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Look no more."""
        self._stop(pl_module)

    def _draw_batch(self, trainer: L.Trainer, task: Task, batch: Batch[Any]) -> None:
        task.watch_training = None
        number = min(len(batch), MAX_TRAINING)
        heading = f"training batch of epoch {trainer.current_epoch + 1}, as the network sees it"
        heading += f": {number} of {len(batch)} pictures" if number < len(batch) else ""

        def tiles() -> list[list[tuple[Tensor, str]]]:
            images = self._images(trainer, batch, number)
            names = task.model.classes
            return [
                [(draw_truth(image, target, names), Path(info.id).name)]
                for image, target, info in zip(images, batch.targets[:number], batch.infos[:number], strict=True)
            ]

        self._write(trainer, "train_batch", tiles, heading)

    def _images(self, trainer: L.Trainer, batch: Batch[Any], number: int) -> Sequence[Tensor]:
        """Return the pictures of a batch, uint8 [C, H, W]; of one that holds features alone they are read."""
        data = trainer.datamodule  # type: ignore[attr-defined]  # set at run time
        if batch.images.numel() or not isinstance(data, VisionDataModule):
            return list(batch.images[:number].cpu())
        dataset = data.splits.get("train")
        view, ids = EvaluationView(dataset, data.preprocessing), list(dataset.ids)
        return [view[ids.index(info.id)].image for info in batch.infos[:number]]

    # ---- validation

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Look at the predictions where a picture of them is due."""
        assert isinstance(pl_module, Task)
        self._pairs = {}
        if not trainer.is_global_zero or trainer.sanity_checking or trainer.state.fn != "fit":
            return
        if trainer.fast_dev_run or not self._due(trainer):  # type: ignore[attr-defined]  # set at run time
            return
        dataset = self._dataset(trainer)
        if dataset is not None:
            self._chosen = self._chosen or _choose(trainer, dataset)
            pl_module.watch_validation = lambda found, batch: self._keep(pl_module, dataset, found, batch)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Draw what was seen."""
        assert isinstance(pl_module, Task)
        pl_module.watch_validation = None
        if self._pairs:
            epoch = self._drawn = _epochs(trainer)
            groups = [self._pairs[i] for i, _ in self._chosen if i in self._pairs]
            when = f"after epoch {epoch}" if epoch else "before the first step"
            heading = f"validation {when}: truth | prediction"
            self._write(trainer, f"val_epoch_{epoch:03d}", lambda: groups, heading, tag="val")
            self._pairs = {}

    def _due(self, trainer: L.Trainer) -> bool:
        """Return whether an epoch since the last picture is one of those that are drawn."""
        if (now := _epochs(trainer)) == 0:
            return self._drawn == 0
        epochs = range(self._drawn + 1, now + 1)
        return any(is_moment(e, self.every) or e == trainer.max_epochs for e in epochs)

    def _dataset(self, trainer: L.Trainer) -> VisionDataset[Any] | None:
        data = trainer.datamodule  # type: ignore[attr-defined]  # set at run time
        return data.splits.get("val") if isinstance(data, VisionDataModule) else None

    def _keep(
        self, task: Task, dataset: VisionDataset[Any], predictions: Sequence[Prediction], batch: Batch[Any]
    ) -> None:
        """Draw at once those that were chosen: a prediction may hold the outputs of its whole batch."""
        positions = dict(self._chosen)
        for prediction, info in zip(predictions, batch.infos, strict=True):
            if info.id in positions:
                try:
                    sample = dataset[positions[info.id]]
                    truth = draw_truth(sample.image, sample.target, task.model.classes)
                    guess = draw_prediction(sample.image, prediction, sample.target, info, task.model.classes)
                    name = Path(info.id).name
                    self._pairs[info.id] = [(truth, f"truth   {name}"), (guess, "prediction")]
                except Exception as e:  # of a user's own class, too: no picture is worth a training
                    self._give_up(task, e)
                    return

    # ---- both

    def _write(
        self,
        trainer: L.Trainer,
        name: str,
        groups: Callable[[], Sequence[Sequence[tuple[Tensor, str]]]],
        heading: str,
        tag: str | None = None,
    ) -> None:
        try:
            sheet = self.sheet(groups(), heading)
            make_folder(self.folder)
            mark_output(self.folder)
            with replacing(self.folder / f"{name}.jpg") as temporary:
                Image.fromarray(np.ascontiguousarray(sheet.permute(1, 2, 0).numpy())).save(
                    temporary, format="jpeg", quality=90
                )
            for logger in trainer.loggers:
                if isinstance(logger, TensorBoardLogger):
                    logger.experiment.add_image(f"{PICTURES}/{tag or name}", sheet, trainer.global_step)
        except Exception as e:  # no picture is worth a training
            self._give_up(trainer.lightning_module, e)

    def _give_up(self, task: Any, e: Exception) -> None:
        """Say once why there are no pictures, and go on without."""
        self._stop(task)
        self._drawn = 2**62
        say(f"note     no pictures of this training: {' '.join(str(e).split()) or type(e).__name__}", error=True)

    def _stop(self, task: Any) -> None:
        task.watch_training = task.watch_validation = None
        self._pairs = {}


def _epochs(trainer: L.Trainer) -> int:
    """Return after how many epochs a validation is; 0 for one before the first step."""
    return trainer.current_epoch + 1 if trainer.global_step else 0


def _choose(trainer: L.Trainer, dataset: VisionDataset[Any]) -> list[tuple[str, int]]:
    """Return ids and positions of some of the pictures that this process validates, evenly spread and in order."""
    loader: Any = trainer.val_dataloaders
    sampler = getattr(loader, "sampler", None)
    seen = list(sampler) if sampler is not None else list(range(len(dataset)))
    batches, size = trainer.num_val_batches, getattr(loader, "batch_size", None)
    if isinstance(batches, list) and batches and size:
        seen = seen[: int(min(batches[0] * size, len(seen)))]
    count = min(MAX_VALIDATION, len(seen))
    return [(dataset.ids[i], i) for i in (seen[k * len(seen) // count] for k in range(count))]
