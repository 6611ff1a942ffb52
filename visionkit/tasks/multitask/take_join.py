"""Taking a head out of a model of several, and putting models of one backbone together."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import nn

from visionkit.core.component import parameters_of, spec_of
from visionkit.core.errors import DataError, UsageError
from visionkit.core.thresholds import Thresholds
from visionkit.data.transforms.preprocessing import Preprocessing
from visionkit.models.backbones.base import Backbone, FeatureSpec
from visionkit.models.head import Head
from visionkit.models.model import VisionModel, teachers_of
from visionkit.models.necks.base import Neck
from visionkit.models.necks.identity import IdentityNeck
from visionkit.tasks.multitask.head import MultiTaskHead
from visionkit.tasks.multitask.neck import MultiTaskNeck
from visionkit.tasks.multitask.types import flat_classes, names_of

__all__ = ["join_heads", "single_heads", "take_head"]


def take_head(model: VisionModel, name: str) -> VisionModel:
    """Return a model of one head of several, with the backbone and, where the head reads it, the neck.

    Its predictions are those of this head in the whole model. Weights are shared with it, not copied.

    Args:
        model: A model of several heads.
        name: Name of the head.

    Raises:
        UsageError: The model has one head alone, or none of this name.
    """
    inner, neck = model.head, model.neck
    if not isinstance(inner, MultiTaskHead) or not isinstance(neck, MultiTaskNeck):
        raise UsageError(f"the model has one head alone, a {type(inner).__name__}: there is none to take out")
    heads = inner.each()
    if name not in heads:
        raise UsageError(f"the model has no head {name!r}; it has {', '.join(heads)}")
    head = heads[name]
    taken: Neck = neck.neck if head.reads == "neck" else IdentityNeck(model.backbone.features)
    made = _put_together(model, names_of(name, model.classes), taken, head)
    made.thresholds = None if model.thresholds is None else model.thresholds.part(name)
    made.teachers = model.teachers
    return made


def join_heads(models: Mapping[str, VisionModel]) -> VisionModel:
    """Return one model with the heads of several models that have the same backbone.

    Such models come from training heads one after the other on a frozen backbone (and neck, for heads that read it).
    Every head's predictions stay what they were. Weights are those of the models, not copied.

    Args:
        models: The models, by the names that their heads shall have; a model of several heads brings the names of its
            own, and its name here has no meaning.

    Raises:
        UsageError: A name comes twice, or fewer than two heads are given.
        DataError: The models differ in backbone, neck, input statistics or preprocessing.
    """
    single = single_heads(models)
    if len(single) < 2:
        raise UsageError("give the models of two heads or more")
    (first_name, first), *others = single.items()
    for name, other in others:
        _refuse_other("backbone", first_name, first.backbone, name, other.backbone)
        for key in parameters_of(Preprocessing):
            ours, theirs = getattr(first.preprocessing, key), getattr(other.preprocessing, key)
            if ours != theirs:
                raise DataError(
                    f"{first_name} was trained with {key} {_words(ours)}, {name} with {_words(theirs)}: one pass "
                    f"cannot serve both; train {name} with --data.{key} {_words(ours)}"
                )
    reading = {name: model for name, model in single.items() if model.head.reads == "neck"}
    neck: Neck = IdentityNeck(first.backbone.features)
    for number, (name, model) in enumerate(reading.items()):
        if number:
            _refuse_other("neck", next(iter(reading)), neck, name, model.neck)
        else:
            neck = model.neck
    classes = {name: model.classes for name, model in single.items()}
    head = MultiTaskHead(
        FeatureSpec(
            first.backbone.features.channels + neck.features.channels,
            first.backbone.features.strides + neck.features.strides,
        ),
        sum(len(names) for names in classes.values()),
        heads={name: partial(_again, model.head) for name, model in single.items()},
        sizes={name: len(names) for name, names in classes.items()},
        levels=len(first.backbone.features.strides),
    )
    whole = MultiTaskNeck(first.backbone.features, lambda features: neck)
    made = _put_together(first, flat_classes(classes), whole, head)
    made.thresholds = Thresholds.joined({name: model.thresholds for name, model in single.items()})
    made.teachers = teachers_of(single.values())
    return made


def single_heads(models: Mapping[str, VisionModel]) -> dict[str, VisionModel]:
    """Return a model of each head, by its name; see :func:`join_heads`."""
    found: dict[str, VisionModel] = {}
    for name, model in models.items():
        several = isinstance(model.head, MultiTaskHead)
        for own in model.head.each() if isinstance(model.head, MultiTaskHead) else (name,):
            if own in found:
                raise UsageError(f"two heads are named {own!r}: give one of them another name")
            found[own] = take_head(model, own) if several else model
    return found


def _put_together(like: VisionModel, classes: tuple[str, ...], neck: Neck, head: Head) -> VisionModel:
    made = VisionModel(like.backbone, lambda *_: head, classes, lambda *_: neck, preprocessing=like.preprocessing)
    return made.to(like.scale.device).train(like.training)


def _again(head: Head, features: FeatureSpec, num_classes: int) -> Head:
    """Return a head as a factory's product, once its place is known to fit."""
    return head


def _refuse_other(part: str, first_name: str, first: nn.Module, name: str, other: nn.Module) -> None:
    """Refuse two backbones or necks that differ in settings or in any number."""
    ours, theirs = _spec(first), _spec(other)
    if ours != theirs:
        pairs = [(k, v, theirs["init_args"].get(k)) for k, v in ours["init_args"].items()]
        what = "; ".join(f"{k} {_words(a)} and {_words(b)}" for k, a, b in pairs if a != b)
        if ours["class_path"] != theirs["class_path"]:
            what = f"{type(first).__name__} and {type(other).__name__}"
        raise DataError(f"the {part}s of {first_name} and {name} are not the same network ({what})")
    state = other.state_dict()
    differ = [k for k, v in first.state_dict().items() if k not in state or not torch.equal(v, state[k])]
    if differ:
        frozen = "--model.recipe.freeze backbone" if part == "backbone" else "--model.recipe.freeze trunk"
        raise DataError(
            f"the {part}s of {first_name} and {name} differ in {len(differ)} tensors, first {differ[0]}: train one "
            f"from the other's checkpoint with the {part} frozen ({frozen})"
        )


def _spec(module: Any) -> dict[str, Any]:
    """Describe a backbone or a neck with all settings, whether they were given or are the defaults."""
    spec = spec_of(module, drop=("features",) if isinstance(module, Neck) else ())
    parameters = parameters_of(type(module))
    settings = {k: p.default for k, p in parameters.items() if p.default is not p.empty} | spec["init_args"]
    own = ("weights", "partial") if isinstance(module, Backbone) else ()  # how its weights came is no matter
    plain = {k: list(v) if isinstance(v, tuple) else v for k, v in settings.items() if k not in own}
    return {**spec, "init_args": plain}


def _words(value: Any) -> str:
    """Return a value as the command line takes it."""
    return "null" if value is None else f'"{list(value)}"' if isinstance(value, list | tuple) else str(value)
