"""Models that predict together: loaded, known to fit each other, their classes joined by name."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self, TypeAlias

import torch

from visionkit.core.errors import UsageError
from visionkit.core.joining import Joining
from visionkit.core.prediction import Prediction
from visionkit.core.text import printable
from visionkit.core.thresholds import Thresholds
from visionkit.models import checkpoint
from visionkit.models.head import Head
from visionkit.models.model import VisionModel
from visionkit.models.run_folder import find_checkpoint

__all__ = ["Checkpoints", "Members", "listed"]

Checkpoints: TypeAlias = "str | os.PathLike[str] | Sequence[str | os.PathLike[str]]"
"""One checkpoint (a file, or the folder of a run), or several."""

MAX_NAMED = 3  # classes, in a line


def listed(checkpoints: Checkpoints) -> list[str]:
    """Return checkpoints, one or several, as a list; one that is given twice counts once.

    Raises:
        UsageError: There is none.
    """
    given = [checkpoints] if isinstance(checkpoints, str | os.PathLike) else list(checkpoints)
    if not given:
        raise UsageError("no checkpoint: give one or several")
    return list(dict.fromkeys(os.fspath(path) for path in given))


@dataclass(frozen=True)
class Members:
    """One model or several that predict as one.

    Args:
        names: What messages call each: its checkpoint as it was given.
        models: In evaluation mode, on one device.
        joining: Their classes and weights.
        files: The checkpoints that they were loaded from; empty where they were not.

    Raises:
        UsageError: They say things of different kinds, take pictures of different channels or have no class in common.
    """

    names: tuple[str, ...]
    models: tuple[VisionModel, ...]
    joining: Joining
    files: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        """Refuse models that cannot predict as one."""
        first, *others = zip(self.names, self.models, strict=True)
        for name, model in others:
            _refuse_other(*first, name, model)

    @classmethod
    def of(cls, names: Sequence[str], models: Sequence[VisionModel], weights: Sequence[float] | None = None) -> Self:
        """Join models.

        Args:
            names: What messages call each.
            models: In evaluation mode, on one device.
            weights: What each counts; None is the same for all.
        """
        return cls(tuple(names), tuple(models), Joining.of([model.classes for model in models], weights))

    @classmethod
    def load(
        cls,
        checkpoints: Checkpoints,
        *,
        weights: Sequence[float] | None = None,
        trust: Collection[str] = (),
        device: torch.device | str = "cpu",
    ) -> Self:
        """Load the models of checkpoints; all of them are held at once.

        Args:
            checkpoints: Files, or folders of runs: their best checkpoints.
            weights: What each counts; None is the same for all.
            trust: Names of top-level packages, beside visionkit, whose classes the files may name.
            device: Where to put the models.

        Raises:
            DataError: A file is missing, damaged, of another kind or holds code.
            UsageError: A file names classes of a package that is not trusted, two are the same, or they do not fit.
        """
        names = listed(checkpoints)
        files = [find_checkpoint(name) for name in names]
        for k, file in enumerate(files):
            if file.exists() and any(file.samefile(other) for other in files[:k] if other.exists()):
                raise UsageError(f"{file}: is given twice, and counts twice in no mean; give it once")
        models = [checkpoint.load(file, trust=trust, device=device) for file in files]
        return replace(cls.of(names, models, weights), files=tuple(files))

    def with_weights(self, weights: Sequence[float]) -> Self:
        """Return the same models with other weights."""
        return replace(self, joining=self.joining.with_weights(weights))

    @property
    def head(self) -> Head:
        """The first model's head, which says how predictions are written, read and measured."""
        return self.models[0].head

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names of all, in the order of the ids of predictions."""
        return self.joining.classes

    @property
    def thresholds(self) -> Thresholds | None:
        """From which score on a class counts: as chosen for one model; of several none was chosen for their mean."""
        return self.models[0].thresholds if len(self.models) == 1 else None

    @property
    def with_thresholds(self) -> tuple[str, ...]:
        """Which of several models have thresholds: they say nothing of the mean of all."""
        pairs = zip(self.names, self.models, strict=True) if len(self.models) > 1 else ()
        return tuple(name for name, model in pairs if model.thresholds is not None)

    @property
    def channels(self) -> int:
        """Channels of the pictures that they take."""
        return self.models[0].backbone.in_channels

    def lines(self) -> list[str]:
        """Return in words what should be known of several: how their classes differ, that weights are not equal."""
        said = []
        first = self.names[0]
        for name, own in zip(self.names[1:], self.joining.names[1:], strict=True):
            more = [c for c in own if c not in self.joining.names[0]]
            less = [c for c in self.joining.names[0] if c not in own]
            if more or less:
                words = [f"knows {_some(more)} too"] * bool(more) + [f"does not know {_some(less)}"] * bool(less)
                said.append(f"classes  {name} {' and '.join(words)}: a class is judged by the models that know it")
            elif own != self.joining.names[0]:
                said.append(f"classes  {name} has those of {first} in another order: they are joined by name")
        weights = self.joining.weights
        if len(set(weights)) > 1:
            told = ", ".join(f"{name} {w:.2f}" for name, w in zip(self.names, weights, strict=True))
            said.append(f"weights  {told}")
        return said


def _refuse_other(first_name: str, first: VisionModel, name: str, other: VisionModel) -> None:
    """Refuse a model that cannot predict together with the first."""
    kinds, theirs = _kinds(first.head), _kinds(other.head)
    if kinds != theirs:
        raise UsageError(
            f"{first_name} gives {_told(kinds)}, {name} gives {_told(theirs)}: models that predict as one say the same "
            "kind of thing"
        )
    if first.backbone.in_channels != other.backbone.in_channels:
        raise UsageError(
            f"{first_name} takes pictures of {first.backbone.in_channels} channels, {name} of "
            f"{other.backbone.in_channels}: models that predict as one take the same pictures"
        )
    if not set(first.classes) & set(other.classes):
        raise UsageError(
            f"{first_name} ({_some(first.classes)}) and {name} ({_some(other.classes)}) have no class in common: they "
            "cannot predict as one"
        )


def _kinds(head: Head) -> dict[str, tuple[type[Prediction], bool]]:
    """Return what a head says, by its name where there are several: the kind, and whether several labels are given."""
    each = getattr(head, "each", None)
    heads: dict[str, Head] = each() if callable(each) else {"": head}
    return {name: (own.prediction, bool(getattr(own, "multilabel", False))) for name, own in heads.items()}


def _told(kinds: dict[str, tuple[type[Prediction], bool]]) -> str:
    words = []
    for name, (kind, several) in kinds.items():
        what = kind.__name__.removesuffix("Prediction").lower()
        words.append(f"{what} predictions{' of several labels' if several else ''}{f' ({name})' if name else ''}")
    return ", ".join(words)


def _some(names: Sequence[str]) -> str:
    more = f", ... {len(names)} in all" if len(names) > MAX_NAMED else ""
    return printable(", ".join(names[:MAX_NAMED]) + more)
