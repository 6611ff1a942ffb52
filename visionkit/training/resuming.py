"""What a checkpoint holds of an optimizer, brought into the form that the command line asks for now."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from lightning.pytorch.callbacks import EarlyStopping
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from visionkit.core.component import class_path
from visionkit.core.errors import DataError, UsageError

__all__ = ["KEY", "PatientStopping", "go_on", "told"]

KEY = "visionkit_training"
"""Where a checkpoint tells what its optimizer's state is of."""


class PatientStopping(EarlyStopping):
    """Lightning's, whose patience is that of the recipe after a resume, too."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over all but the settings."""
        patience = self.patience
        super().load_state_dict(state_dict)
        self.patience = patience


def told(model: nn.Module, optimizer: Optimizer, steps_per_epoch: float) -> dict[str, Any]:
    """Return what a later run must know of an optimizer's state.

    Args:
        model: What is trained.
        optimizer: Of its parameters.
        steps_per_epoch: Optimizer steps of an epoch.
    """
    return {
        "optimizer": class_path(type(optimizer)),
        "parameters": _names(model, optimizer),
        "steps_per_epoch": float(steps_per_epoch),
    }


def go_on(
    checkpoint: dict[str, Any],
    model: nn.Module,
    optimizer: Optimizer,
    scheduler: LambdaLR,
    steps_per_epoch: float,
    path: object,
    *,
    make: Callable[[list[dict[str, Any]]], Optimizer],
) -> None:
    """Change what a checkpoint holds of optimizer and schedule so that all settings are those asked for now.

    What was learnt about each parameter, such as its momentum, stays with it, by its name; parameters that were frozen
    and are trained now have none yet. The schedule goes on at the same place of the training.

    Args:
        checkpoint: What the file holds; it is changed.
        model: What is trained.
        optimizer: As the recipe makes it now.
        scheduler: As the recipe makes it now.
        steps_per_epoch: Optimizer steps of an epoch now.
        path: The file, for messages.
        make: Makes another such optimizer, of parameter groups.

    Raises:
        UsageError: The optimizer is another one, or needs what the state does not hold.
        DataError: The state is damaged.
    """
    try:
        state, schedule = checkpoint["optimizer_states"][0], checkpoint["lr_schedulers"][0]
        said = checkpoint.get(KEY)
        step = int(schedule["last_epoch"])
        names = _names(model, optimizer)
        known = [index for group in state["param_groups"] for index in group["params"]]
        if said is None:  # of an earlier version, which tells no names: the order must be the same
            sizes = [[len(g["params"]) for g in groups] for groups in (state["param_groups"], optimizer.param_groups)]
            if sizes[0] != sizes[1]:
                raise UsageError(
                    f"{path} was written by an earlier version, whose training goes on only with the same optimizer, "
                    "freeze, thaw, backbone_lr and layer_decay as before; start anew from its weights with "
                    f"--model.backbone.weights {path}"
                )
            places = dict(zip(names, known, strict=True))
        else:
            _check_class(said["optimizer"], optimizer, path)
            places = dict(zip(said["parameters"], known, strict=True))
            if said["steps_per_epoch"] > 0 and math.isfinite(steps_per_epoch):
                step = round(step * steps_per_epoch / said["steps_per_epoch"])
        kept = {k: state["state"][places[n]] for k, n in enumerate(names) if places.get(n) in state["state"]}
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as e:
        raise DataError(f"{path}: its optimizer's state is damaged: the training cannot go on from this file") from e
    for index in list(kept)[:1]:
        _check_state(kept[index], optimizer, dict(model.named_parameters())[names[index]].ndim, make, path)
    groups = optimizer.state_dict()["param_groups"]
    rates = [base * factor(step) for base, factor in zip(scheduler.base_lrs, scheduler.lr_lambdas, strict=True)]
    for group, rate in zip(groups, rates, strict=True):
        group["lr"] = rate
    checkpoint["optimizer_states"] = [{"state": kept, "param_groups": groups}]
    now = scheduler.state_dict() | {"last_epoch": step, "_step_count": step + 1, "_last_lr": rates}
    checkpoint["lr_schedulers"] = [now]


def _names(model: nn.Module, optimizer: Optimizer) -> list[str]:
    """Return the names of the optimizer's parameters, in the order in which its state counts them."""
    name_of = {id(p): name for name, p in model.named_parameters()}
    return [name_of[id(p)] for group in optimizer.param_groups for p in group["params"]]


def _check_class(theirs: str, optimizer: Optimizer, path: object) -> None:
    ours = class_path(type(optimizer))
    if theirs != ours:
        raise UsageError(
            f"{path} was trained with {theirs.rpartition('.')[2]}, the command asks for {ours.rpartition('.')[2]}, "
            "which cannot go on from its state: name the same one (--model.recipe.optimizer), or start anew from its "
            f"weights with --model.backbone.weights {path}"
        )


def _check_state(
    kept: Mapping[str, Any],
    optimizer: Optimizer,
    ndim: int,
    make: Callable[[list[dict[str, Any]]], Optimizer],
    path: object,
) -> None:
    """Refuse a state that lacks what the optimizer keeps with its present settings, as AdamW does with amsgrad."""
    trial = nn.Parameter(torch.zeros([1] * ndim))
    trial.grad = torch.zeros_like(trial)
    tried = make([{"params": [trial]}])
    tried.step()
    missing = [key for key, value in tried.state[trial].items() if value is not None and key not in kept]
    if missing and not isinstance(optimizer, torch.optim.SGD):  # which begins with a momentum at any time
        raise UsageError(
            f"{path}: its optimizer's state has no {', '.join(missing)}, which the optimizer's settings need now: "
            "go on with those that it was trained with"
        )
