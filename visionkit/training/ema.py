"""Exponential moving average of the weights."""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor, nn

__all__ = ["EMA"]


class EMA(WeightAveraging):
    """Keep an exponential moving average of weights and BatchNorm statistics; it validates and is saved.

    The decay warms up as min(decay, (1 + n) / (10 + n)) over updates n, so short trainings profit too (Tan & Le 2019
    use the same rule).

    Args:
        decay: Part of the average that each step keeps, 0..1.
    """

    def __init__(self, decay: float) -> None:
        self.decay = decay
        super().__init__()
        self._tensors: list[tuple[list[Tensor], list[Tensor]]] = []  # averages and currents: weights, then counters
        self._updates = 0
        self._validating = False

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Make the averaged model, and forget the tensors of an earlier one."""
        super().setup(trainer, pl_module, stage)
        self._tensors = []

    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Update the average after an optimizer step, in one call for all weights.

        Lightning's own way sorts the tensors anew in each step and asks the device for the number of updates.
        """
        if trainer.global_step <= self._latest_update_step:
            return
        self._latest_update_step = trainer.global_step
        model = self._average_model
        assert model is not None
        if not self._tensors:
            self._tensors = _pairs(model.module, pl_module)
            self._updates = int(model.n_averaged)
        (averages, currents), (counters, counts) = self._tensors
        torch._foreach_lerp_(averages, currents, self.weight(self._updates))
        if counters:
            torch._foreach_copy_(counters, counts)
        model.n_averaged.add_(1)
        self._updates += 1

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Validate the averages."""
        super().on_validation_epoch_start(trainer, pl_module)
        self._validating = self._average_model is not None

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Go on with the weights that are trained."""
        super().on_validation_epoch_end(trainer, pl_module)
        self._validating = False

    def end_validation(self, trainer: L.Trainer) -> None:
        """Put averages and trained weights back in their places within a validation, as its end does."""
        if self._validating:
            self.on_validation_epoch_end(trainer, trainer.lightning_module)

    def start_from(self, pl_module: L.LightningModule) -> None:
        """Take the weights as they are for the average, before the first step."""
        assert self._average_model is not None
        self._average_model.module.load_state_dict(pl_module.state_dict())

    def weight(self, updates: int) -> float:
        """Return the part that the current weights have in an update, after so many before it."""
        return 1.0 - min(self.decay, (1 + updates) / (10 + updates)) if updates else 1.0


def _pairs(average: nn.Module, current: nn.Module) -> list[tuple[list[Tensor], list[Tensor]]]:
    """Return the tensors of both models side by side, those with decimals and the others, in the same memory order."""
    found: list[tuple[list[Tensor], list[Tensor]]] = [([], []), ([], [])]
    both = zip([*average.parameters(), *average.buffers()], [*current.parameters(), *current.buffers()], strict=True)
    for a, c in both:
        if a.stride() != c.stride():  # copied before the model was brought into channels_last: five times as slow
            a.data = torch.empty_like(c).copy_(a)
        averages, currents = found[not a.is_floating_point()]
        averages.append(a)
        currents.append(c)
    return found
