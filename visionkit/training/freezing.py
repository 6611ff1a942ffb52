"""Parts of a model that are not trained, or not from the first epoch on."""

from __future__ import annotations

import warnings
from typing import Any

import lightning as L
import torch
import torch.distributed as dist
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.strategies import DDPStrategy
from torch import nn

from visionkit.core.errors import UsageError
from visionkit.models.model import VisionModel
from visionkit.training.recipe import NECK, Part, Recipe

__all__ = ["Freezing", "FrozenModule"]


class Freezing(Callback):
    """Freeze what the recipe freezes before training starts, and thaw it when its epoch begins.

    It keeps no state: what is thawed follows from the epoch, after a resume too. When training ends, however it ends,
    nothing stays frozen that was not before.

    Args:
        recipe: Says what is frozen and when it is thawed.
    """

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self._waiting: list[Part] = []  # still frozen, thawed later
        self._late: list[nn.Parameter] = []  # thawed: DDP does not know them
        self._stages: list[str] = []  # that were not frozen before
        self._neck: FrozenModule | None = None

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Freeze, before DDP looks which parameters have a gradient.

        Raises:
            UsageError: There is no such stage, training ends before it is thawed, or the strategy is not DDP.
        """
        if stage != "fit":
            return
        model = _model(pl_module)
        frozen = [part for part in self.recipe.parts(model) if part.frozen]
        self._waiting = [part for part in frozen if part.thaw is not None]
        self._check(trainer)
        names = [part.name for part in frozen if part.name != NECK]
        self._stages = [name for name in names if name not in model.backbone.frozen]
        model.backbone.freeze(names)
        if any(part.name == NECK for part in frozen):
            self._neck = FrozenModule(model.neck)
        warnings.filterwarnings("ignore", ".*in eval mode at the start of training.*")  # they are meant to be

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Thaw what a resumed run has thawed before: within an epoch there is no other start."""
        self._thaw(trainer, pl_module)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Thaw what is due."""
        self._thaw(trainer, pl_module)

    def on_after_backward(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Average the gradients of thawed parameters over the processes, as DDP does for those it knows.

        This comes before a loss scale is taken off and before clipping. With accumulated batches it averages an average
        again, which changes nothing.
        """
        if trainer.world_size == 1 or not self._late:
            return
        flat = [(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in self._late]
        given = flat[0].new_tensor([p.grad is not None for p in self._late])
        message = torch.cat([*flat, given])  # one message
        dist.all_reduce(message)
        *averages, given = (message / trainer.world_size).split([*(f.numel() for f in flat), len(flat)])
        for i, (parameter, average) in enumerate(zip(self._late, averages, strict=True)):
            if parameter.grad is not None:
                parameter.grad.copy_(average.view_as(parameter))
            elif given[i] > 0:  # another process used it; what none did stays without a gradient, as on one process
                parameter.grad = average.view_as(parameter).to(parameter)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Leave nothing frozen."""
        self._release(pl_module)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Leave nothing frozen."""
        self._release(pl_module)

    def _check(self, trainer: L.Trainer) -> None:
        last, epochs = max(self.recipe.thaw or [0]), trainer.max_epochs
        fast_dev_run = trainer.fast_dev_run  # type: ignore[attr-defined]  # set at run time
        if epochs is not None and 0 < epochs < last and not fast_dev_run:
            raise UsageError(
                f"recipe.thaw names epoch {last}, but training ends with epoch {epochs}: "
                "thaw earlier or raise --trainer.max_epochs"
            )
        if self._waiting and trainer.world_size > 1 and not isinstance(trainer.strategy, DDPStrategy):
            raise UsageError("recipe.thaw on several processes needs --trainer.strategy ddp")

    def _thaw(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        due = [part for part in self._waiting if part.thaw is not None and part.thaw <= trainer.current_epoch + 1]
        if not due:
            return
        self._waiting = [part for part in self._waiting if part not in due]
        _model(pl_module).backbone.thaw([part.name for part in due if part.name != NECK])
        if self._neck is not None and any(part.name == NECK for part in due):
            self._neck.thaw()
        self._late += [p for part in due for p in part.parameters if p.requires_grad]

    def _release(self, pl_module: L.LightningModule) -> None:
        _model(pl_module).backbone.thaw(self._stages)
        if self._neck is not None:
            self._neck.thaw()
        self._waiting, self._late, self._stages, self._neck = [], [], [], None


class FrozenModule:
    """Keeps any module frozen until :meth:`thaw`: without gradients, and in evaluation mode when it computes.

    It stays so whatever calls ``train()`` on the module or on what holds it.

    Args:
        module: What to freeze.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.parameters = [p for p in module.parameters() if p.requires_grad]
        self.training = module.training
        self._hook = module.register_forward_pre_hook(_evaluate)
        for parameter in self.parameters:
            parameter.requires_grad_(False)
        module.eval()

    def thaw(self) -> None:
        """Train the module again; what had no gradient before stays so."""
        self._hook.remove()
        for parameter in self.parameters:
            parameter.requires_grad_(True)
        self.module.train(self.training)


def _evaluate(module: nn.Module, inputs: Any) -> None:
    module.eval()


def _model(pl_module: L.LightningModule) -> VisionModel:
    model = pl_module.model
    assert isinstance(model, VisionModel)
    return model
