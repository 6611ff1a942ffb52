"""How a model is trained: optimizer, learning-rate schedule, averaging, stopping."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from visionkit.errors import UsageError

__all__ = ["OptimizerFactory", "Recipe", "learning_rate_factor", "parameter_groups"]

OptimizerFactory = Callable[[Iterable[Any]], Optimizer]
"""Makes an optimizer for parameters or parameter groups."""


@dataclass(frozen=True)
class Recipe:
    """Optimizer, learning-rate schedule, weight averaging and early stopping.

    Args:
        optimizer: A torch optimizer and its settings; None is AdamW with lr 1e-3 and weight_decay 0.05.
            Weight decay is kept off biases and normalisation layers.
        schedule: "cosine" lowers the learning rate to final_lr along half a cosine (Loshchilov & Hutter 2017);
            "constant" keeps it.
        warmup_epochs: Epochs over which the learning rate rises linearly from zero, >= 0.
        final_lr: Learning rate at the end of the cosine, as a part of the full one, 0..1.
        ema: Decay of an exponential moving average of the weights, 0.9..0.9999, which then validates and is saved;
            the decay warms up as (1 + step) / (10 + step). None trains without.
        early_stopping: Epochs without a better value of the monitored metric before training stops; None never stops.
    """

    optimizer: OptimizerFactory | None = None
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup_epochs: float = 1.0
    final_lr: float = 0.01
    ema: float | None = None
    early_stopping: int | None = None

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.warmup_epochs < 0:
            raise UsageError(f"recipe.warmup_epochs must be >= 0, got {self.warmup_epochs}")
        if not 0 <= self.final_lr <= 1:
            raise UsageError(f"recipe.final_lr must lie in 0..1, got {self.final_lr}")
        if self.ema is not None and not 0 < self.ema < 1:
            raise UsageError(f"recipe.ema must lie between 0 and 1, got {self.ema}")
        if self.early_stopping is not None and self.early_stopping < 1:
            raise UsageError(f"recipe.early_stopping must be >= 1 epoch, got {self.early_stopping}")

    def configure(self, model: nn.Module, *, total_steps: int, steps_per_epoch: float) -> tuple[Optimizer, LambdaLR]:
        """Make the optimizer and its schedule.

        Args:
            model: Whose parameters to train; those without gradient are left out.
            total_steps: Optimizer steps of the whole training.
            steps_per_epoch: Optimizer steps of an epoch.

        Raises:
            UsageError: Nothing is left to train, or the optimizer refuses its settings.
        """
        groups = parameter_groups(model)
        if not groups:
            raise UsageError("every parameter of the model is frozen: nothing is left to train")
        if self.optimizer is None:
            optimizer: Optimizer = torch.optim.AdamW(groups, lr=1e-3, weight_decay=0.05)
        else:
            try:
                optimizer = self.optimizer(groups)
            except (TypeError, ValueError) as e:
                raise UsageError(f"recipe.optimizer: {e}") from e
        _fuse(optimizer)
        warmup = min(round(self.warmup_epochs * steps_per_epoch), max(total_steps - 1, 0))
        final = 1.0 if self.schedule == "constant" else self.final_lr
        factor = lambda step: learning_rate_factor(step, warmup=warmup, total=total_steps, final=final)  # noqa: E731
        return optimizer, LambdaLR(optimizer, factor)


def _fuse(optimizer: Optimizer) -> None:
    """Let the optimizer update all weights in one kernel where torch has one and the settings leave it open."""
    devices = {p.device.type for g in optimizer.param_groups for p in g["params"]}
    for group in optimizer.param_groups:
        chosen = group.get("foreach") or group.get("capturable") or group.get("differentiable")
        if "fused" in group and group["fused"] is None and not chosen and devices <= {"cpu", "cuda"}:
            group["fused"] = True


def learning_rate_factor(step: int, *, warmup: int, total: int, final: float) -> float:
    """Return what the learning rate is multiplied with at a step: a linear rise, then half a cosine.

    Args:
        step: Optimizer step, from 0.
        warmup: Steps of the rise; its first step already has a learning rate of 1 / (warmup + 1).
        total: All steps; from there on the factor stays at ``final``.
        final: Factor at the end, 0..1; 1 keeps the learning rate constant after the rise.
    """
    if step < warmup:
        return (step + 1) / (warmup + 1)
    progress = min(1.0, (step - warmup) / max(1, total - warmup))
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * progress))


def parameter_groups(model: nn.Module) -> list[dict[str, Any]]:
    """Split the trainable parameters: those with weight decay, and biases and normalisation layers without.

    A parameter with one dimension is a bias or belongs to a normalisation layer (Goyal et al. 2017, He et al. 2019).
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in parameters if p.ndim > 1]},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return [g for g in groups if g["params"]]
