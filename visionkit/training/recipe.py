"""How a model is trained: optimizer, learning rates, freezing, averaging, stopping."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from visionkit.core.errors import UsageError
from visionkit.models.backbones.base import Backbone

__all__ = ["OptimizerFactory", "Part", "Recipe", "learning_rate_factor", "parameter_groups", "thaw_factor"]

OptimizerFactory = Callable[[Iterable[Any]], Optimizer]
"""Makes an optimizer for parameters or parameter groups."""


RATE, DECAY = 1e-3, 0.05
"""Learning rate and weight decay of AdamW where no optimizer is given."""
NECK = "neck"
ALL = "all"


@dataclass(frozen=True)
class Part:
    """What a recipe treats as one: a stage of the backbone, the neck, or the head with all the rest.

    Args:
        name: Name of the stage, "neck" or "head".
        parameters: Those that are trained at some time.
        rate: Learning rate relative to the head's, > 0.
        frozen: Whether it is not trained at first.
        thaw: Epoch, from 1, from which on a frozen part is trained; None is never.
    """

    name: str
    parameters: Sequence[nn.Parameter]
    rate: float = 1.0
    frozen: bool = False
    thaw: int | None = None


@dataclass(frozen=True)
class Recipe:
    """Optimizer, learning rates, freezing, weight averaging, early stopping, teaching and compilation.

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
        freeze: What is not trained, weights and BatchNorm statistics alike: "backbone", "trunk" (backbone and neck),
            a number of first stages from the stem up, or a list of stages by name (the first lines of a run with
            "backbone" list them). None trains all.
        thaw: Epoch (from 1, as printed) and the frozen stages that are trained from it on: a name, a list of names,
            or "all"; "neck" is the neck of a frozen trunk. For example {3: layer4, 6: all}. None thaws nothing.
        thaw_warmup: Epochs over which the learning rate of thawed stages rises from zero to what the schedule says,
            >= 0.
        backbone_lr: Learning rate of the backbone relative to that of neck and head, > 0; pretrained weights often
            want 0.1.
        layer_decay: Factor on the learning rate from each stage of the backbone to the one before it, above 0 up to 1
            (Bao et al. 2021, BEiT, with stages for layers).
        progressive: Side of the pictures in the first steps, relative to the whole one, above 0, below 1; it grows over
            the first 60 % of the training. Small pictures take short steps. None shows whole ones throughout.
        probe: Whether a head that is one linear layer is first solved on the features of the backbone as it is: its
            number, of epoch 0, is the floor of the training, which starts from there.
        cache_features: Whether to compute the features of a backbone that is frozen throughout once, not in each epoch;
            training pictures then must not change at random. None does so where it can; true refuses to go without.
        cache_folder: Where to keep them, for this and other runs; None keeps them in the run folder until training
            ends.
        cache_limit: Gigabytes that the folder may take, > 0; features that were used least recently make room.
        teacher_weight: Weight of what model.teacher says, above 0 up to 1; the labels have the rest. 1 learns from the
            teacher alone. For classes of pixels a gain is not shown yet: compare with a training on labels alone.
        teacher_temperature: What logits of both are divided by before they are compared, above 0: at higher ones what
            the teacher thinks of the other classes counts more (Hinton et al. 2015). None is 3 for classes of pictures
            and 1 for those of pixels; boxes have none.
        compile: Whether torch.compile makes code of its own for backbone and neck, which takes a minute at the start.
            It pays on a GPU; on a CPU it is no faster.
    """

    optimizer: OptimizerFactory | None = None
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup_epochs: float = 1.0
    final_lr: float = 0.01
    ema: float | None = None
    early_stopping: int | None = None
    freeze: Literal["backbone", "trunk"] | int | list[str] | None = None
    thaw: dict[int, str | list[str]] | None = None
    thaw_warmup: float = 1.0
    backbone_lr: float = 1.0
    layer_decay: float = 1.0
    progressive: float | None = None
    probe: bool = False
    cache_features: bool | None = None
    cache_folder: str | None = None
    cache_limit: float = 10.0
    teacher_weight: float = 0.7
    teacher_temperature: float | None = None
    compile: bool = False

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
        freeze = self.freeze
        if isinstance(freeze, str) and freeze not in ("backbone", "trunk"):
            raise UsageError(f'recipe.freeze must be backbone, trunk, a number or a list such as ["{freeze}"]')
        if isinstance(freeze, bool) or (isinstance(freeze, int) and freeze < 1):
            raise UsageError(f"recipe.freeze must be at least 1 stage, got {freeze}; null trains all")
        if self.thaw and freeze is None:
            raise UsageError("recipe.thaw needs recipe.freeze: nothing is frozen that could be thawed")
        for epoch in self.thaw or ():
            if epoch < 1:
                raise UsageError(f"recipe.thaw counts epochs from 1, got {epoch}")
        if self.thaw_warmup < 0:
            raise UsageError(f"recipe.thaw_warmup must be >= 0, got {self.thaw_warmup}")
        if not self.backbone_lr > 0:
            raise UsageError(f"recipe.backbone_lr must be > 0, got {self.backbone_lr}; recipe.freeze stops training it")
        if not 0 < self.layer_decay <= 1:
            raise UsageError(f"recipe.layer_decay must lie above 0, up to 1, got {self.layer_decay}")
        if self.progressive is not None and not 0 < self.progressive < 1:
            raise UsageError(f"recipe.progressive must lie between 0 and 1, got {self.progressive}; null is without")
        if not 0 < self.teacher_weight <= 1:
            raise UsageError(f"recipe.teacher_weight must lie above 0, up to 1, got {self.teacher_weight}")
        if self.teacher_temperature is not None and not 0 < self.teacher_temperature < math.inf:
            raise UsageError(
                f"recipe.teacher_temperature must be > 0, got {self.teacher_temperature}; null is the usual"
            )
        if not self.cache_limit > 0:
            raise UsageError(f"recipe.cache_limit must be > 0 gigabytes, got {self.cache_limit}")

    def configure(self, model: nn.Module, *, total_steps: int, steps_per_epoch: float) -> tuple[Optimizer, LambdaLR]:
        """Make the optimizer and its schedule, for all that is trained at some time.

        Args:
            model: Whose parameters to train; those without gradient are left out, unless they are thawed later.
            total_steps: Optimizer steps of the whole training.
            steps_per_epoch: Optimizer steps of an epoch.

        Raises:
            UsageError: Nothing is left to train, the optimizer refuses its settings, or there is no such stage.
        """
        part_of = {id(p): part for part in self.parts(model) for p in part.parameters}
        alike: dict[tuple[float, int | None], list[nn.Parameter]] = {}
        for parameter in model.parameters():
            if part := part_of.get(id(parameter)):
                alike.setdefault((part.rate, part.thaw), []).append(parameter)
        groups = {key: parameter_groups(parameters) for key, parameters in alike.items()}
        if not groups:
            raise UsageError("every parameter of the model is frozen: nothing is left to train")
        optimizer = self.make_optimizer([group for found in groups.values() for group in found])
        warmup = min(round(self.warmup_epochs * steps_per_epoch), max(total_steps - 1, 0))
        final = 1.0 if self.schedule == "constant" else self.final_lr
        rise = round(self.thaw_warmup * steps_per_epoch)

        def factor_from(thaw: int | None) -> Callable[[int], float]:
            start = 0 if thaw is None else round((thaw - 1) * steps_per_epoch)

            def factor(step: int) -> float:
                common = learning_rate_factor(step, warmup=warmup, total=total_steps, final=final)
                return common if thaw is None else common * thaw_factor(step, start=start, rise=rise)

            return factor

        keys = [key for key, found in groups.items() for _ in found]
        for group, (rate, _) in zip(optimizer.param_groups, keys, strict=True):
            if rate != 1:
                group["lr"] = group["lr"] * rate
        return optimizer, LambdaLR(optimizer, [factor_from(thaw) for _, thaw in keys])

    def parts(self, model: nn.Module) -> list[Part]:
        """Say what is trained, from when on and how fast: the stages of the backbone, the neck, the head.

        Args:
            model: Its ``backbone`` and ``neck`` are what can be frozen.

        Raises:
            UsageError: There is no such stage, or it is thawed without being frozen.
        """
        backbone, neck = getattr(model, "backbone", None), getattr(model, "neck", None)
        stages: dict[str, list[nn.Parameter]] = {}
        held: set[int] = set()  # frozen already: what a thaw gives its gradient back
        if isinstance(backbone, Backbone):
            stages = backbone.stage_parameters()
            held |= {id(p) for parameters in backbone._frozen.values() for p in parameters}
        trunk = dict(stages)
        if isinstance(neck, nn.Module) and (parameters := list(neck.parameters())):
            trunk[NECK] = parameters
            held |= {id(p) for p in parameters}
        frozen = self._frozen_names(list(stages))
        thaws = self._thaw_epochs(frozen, [*stages, NECK])
        rates = {name: self.backbone_lr * self.layer_decay**i for i, name in enumerate(reversed(stages))}
        parts = []
        for name, parameters in trunk.items():
            trained = [p for p in parameters if p.requires_grad or (name in thaws and id(p) in held)]
            never = name in frozen and name not in thaws
            parts.append(Part(name, [] if never else trained, rates.get(name, 1.0), name in frozen, thaws.get(name)))
        rest = {id(p) for p in model.parameters()} - {id(p) for parameters in trunk.values() for p in parameters}
        return [*parts, Part("head", [p for p in model.parameters() if p.requires_grad and id(p) in rest])]

    def summary(self, model: nn.Module) -> str:
        """Say in words what is trained, frozen and thawed, and at which learning rates; "" where it is all alike.

        Args:
            model: What is to be trained.
        """
        parts = self.parts(model)
        frozen = [p.name for p in parts if p.frozen]
        trained = [p for p in parts if p.parameters]
        text = _words([p.name for p in trained if not p.frozen]) if frozen else ALL
        if frozen:
            stages = [p.name for p in parts if p.name not in (NECK, "head")]
            whole = set(stages) <= set(frozen)
            named = [f"the backbone ({', '.join(stages)})", *(n for n in frozen if n == NECK)] if whole else frozen
            text += f"; frozen: {_words(named)}"
        if self.thaw:
            listed = ((epoch, [n] if isinstance(n, str) else n) for epoch, n in sorted(self.thaw.items()))
            text += "; thawed: " + ", ".join(f"{_words(names)} from epoch {epoch}" for epoch, names in listed)
        if len({p.rate for p in trained}) > 1:
            full = self.make_optimizer([{"params": [nn.Parameter(torch.zeros(1))]}]).param_groups[0]["lr"]
            runs = [(rate, [p.name for p in run]) for rate, run in itertools.groupby(trained, lambda p: p.rate)]
            text += "; rates " + ", ".join(f"{_span(names)} {full * rate:.1e}" for rate, names in runs)
        return "" if text == ALL else text

    def make_optimizer(self, groups: list[dict[str, Any]]) -> Optimizer:
        """Make the optimizer alone, of parameter groups.

        Raises:
            UsageError: It refuses its settings.
        """
        if self.optimizer is None:
            optimizer: Optimizer = torch.optim.AdamW(groups, lr=RATE, weight_decay=DECAY)
        else:
            try:
                optimizer = self.optimizer(groups)
            except (TypeError, ValueError) as e:
                raise UsageError(f"recipe.optimizer: {e}") from e
        _fuse(optimizer)
        return optimizer

    def _frozen_names(self, stages: list[str]) -> list[str]:
        """Return the names of the frozen stages, and "neck"."""
        if self.freeze is None:
            return []
        if not stages:
            raise UsageError("recipe.freeze needs a model with a backbone")
        if isinstance(self.freeze, str):
            return stages if self.freeze == "backbone" else [*stages, NECK]
        if isinstance(self.freeze, int):
            if self.freeze > len(stages):
                raise UsageError(
                    f"recipe.freeze is {self.freeze}, the backbone has {len(stages)} stages: {', '.join(stages)}"
                )
            return stages[: self.freeze]
        _check_names("recipe.freeze", self.freeze, [*stages, NECK])
        return [name for name in (*stages, NECK) if name in self.freeze]

    def _thaw_epochs(self, frozen: Collection[str], known: Collection[str]) -> dict[str, int]:
        """Return name -> first epoch of what is thawed."""
        epochs: dict[str, int] = {}
        for epoch, value in sorted((self.thaw or {}).items(), reverse=True):  # the first epoch that names it counts
            names = [value] if isinstance(value, str) else value
            _check_names("recipe.thaw", [n for n in names if n != ALL], known)
            for name in frozen if ALL in names else names:
                if name not in frozen:
                    raise UsageError(f"recipe.thaw names {name}, which is not frozen; frozen: {', '.join(frozen)}")
                epochs[name] = epoch
        return epochs


def _check_names(key: str, names: Iterable[str], known: Collection[str]) -> None:
    for name in names:
        if name not in known:
            raise UsageError(f"{key}: there is no stage {name!r}; there are {', '.join(known)}")


def _words(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else "".join(names)


def _span(names: Sequence[str]) -> str:
    return f"{names[0]} to {names[-1]}" if len(names) > 2 else _words(names)


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


def thaw_factor(step: int, *, start: int, rise: int) -> float:
    """Return what the learning rate of a thawed part is multiplied with at a step: zero, a linear rise, one.

    Args:
        step: Optimizer step of the training, from 0.
        start: First step with the part thawed.
        rise: Steps of the rise; its first step already has a factor of 1 / (rise + 1).
    """
    return min(1.0, max(0, step - start + 1) / (rise + 1))


def parameter_groups(parameters: Iterable[nn.Parameter]) -> list[dict[str, Any]]:
    """Split parameters: those with weight decay, and biases and normalisation layers without.

    A parameter with one dimension is a bias or belongs to a normalisation layer (Goyal et al. 2017, He et al. 2019).
    """
    parameters = list(parameters)
    groups: list[dict[str, Any]] = [
        {"params": [p for p in parameters if p.ndim > 1]},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return [g for g in groups if g["params"]]
