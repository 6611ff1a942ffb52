"""The floor of a training: what a linear head reaches on the features of the backbone as it is, in seconds."""

from __future__ import annotations

import time
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from visionkit.core.errors import UsageError
from visionkit.models.model import VisionModel
from visionkit.training.datamodule import VisionDataModule
from visionkit.training.ema import EMA
from visionkit.training.features.extractor import Extractor

__all__ = ["Probe"]


class Probe(Callback):
    """Solve the head on frozen features before the first step, and validate that as epoch 0.

    The training starts from there (Kumar et al., "Fine-Tuning can Distort Pretrained Features", ICLR 2022), and its
    checkpoints are compared with it as with any epoch. A resumed training has it behind it.
    """

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Do so, unless the training goes on from a checkpoint.

        Raises:
            UsageError: The head is none that can be solved, or the data are none of visionkit's.
        """
        dry = trainer.fast_dev_run  # type: ignore[attr-defined]  # set at run time
        data = trainer.datamodule  # type: ignore[attr-defined]  # set at run time
        if trainer.ckpt_path is not None or dry or trainer.max_epochs == 0:
            return
        if not isinstance(data, VisionDataModule):
            raise UsageError("recipe.probe needs a data module of visionkit's")
        start = time.perf_counter()
        model = pl_module.model
        assert isinstance(model, VisionModel)
        features, targets = _features(model, trainer, data)
        found = time.perf_counter() - start
        said = model.head.fit(features, targets)
        for parameter in model.head.parameters():
            parameter.data.copy_(trainer.strategy.broadcast(parameter.data))
        for callback in trainer.callbacks:  # type: ignore[attr-defined]  # set at run time
            if isinstance(callback, EMA):
                callback.start_from(pl_module)
        data.say(f"probe    {said}; features in {found:.1f} s, solved in {time.perf_counter() - start - found:.1f} s")
        _validate(trainer)
        for callback in trainer.callbacks:  # type: ignore[attr-defined]  # set at run time
            if (take := getattr(callback, "take_start", None)) is not None:
                take(trainer, pl_module)


def _features(model: VisionModel, trainer: L.Trainer, data: VisionDataModule[Any]) -> tuple[list[Tensor], list[Any]]:
    """Return what the backbone makes of the training images, and their truth."""
    extractor = Extractor(
        model,
        size=data.preprocessing.size,
        batch_size=data.batch_size,
        precision=str(trainer.precision),
        context=trainer.precision_plugin.forward_context,
    )
    levels: list[list[Tensor]] = []
    targets: list[Any] = []
    for batch in data.all_images("train"):
        levels.append([level.float().cpu() for level in extractor(batch.images)[-1:]])
        targets += batch.targets
    return [torch.cat(level) for level in zip(*levels, strict=True)], targets


def _validate(trainer: L.Trainer) -> None:
    """Validate before the first step, as Lightning does after an epoch's last."""
    connector = trainer._logger_connector
    first = connector._first_loop_iter
    trainer.validating = True
    trainer.fit_loop.epoch_loop.val_loop.run()
    trainer.training = True
    connector._first_loop_iter = first
