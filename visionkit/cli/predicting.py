"""What evaluate predicts with: one checkpoint, a head of a joint one, or several that speak as one."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from visionkit.cli.recognise import Task
from visionkit.core.errors import UsageError
from visionkit.models import checkpoint
from visionkit.models.content_digest import digest_of
from visionkit.models.head import Head
from visionkit.models.model import VisionModel
from visionkit.models.model_digest import model_digest
from visionkit.models.run_folder import find_checkpoint
from visionkit.prediction.backends.available import BackendName, check_backend, choose_device
from visionkit.prediction.pictures import ImageFile
from visionkit.prediction.stream import make_predictor
from visionkit.prediction.views import Views
from visionkit.tasks.classification.types import ClassPrediction
from visionkit.tasks.detection.instances import InstancePrediction
from visionkit.tasks.detection.types import BoxPrediction
from visionkit.tasks.multitask.head import MultiTaskHead
from visionkit.tasks.multitask.take_join import take_head
from visionkit.tasks.segmentation.types import MaskPrediction

if TYPE_CHECKING:
    from visionkit.evaluation.counting import Predicts

__all__ = ["Source", "open_checkpoints", "told_checkpoint"]

KINDS: tuple[tuple[type, Task], ...] = (
    (ClassPrediction, "classification"),
    (InstancePrediction, "instance"),
    (BoxPrediction, "detection"),
    (MaskPrediction, "segmentation"),
)
"""The task of each kind of predictions, the narrower kinds first."""


@dataclass(frozen=True)
class Source:
    """What predicts, before it is known which pictures and through which views.

    Args:
        ckpts: The checkpoints, as they were given.
        head: The model's, or of several that of the first.
        classes: Class names, in the order of their ids.
        channels: Of the images.
        make: Makes what predicts these pictures through these views.
        digests: Of the models, in hex.
        name: Name of the head, where it is one of several in its checkpoint.
        lines: What should be said.
    """

    ckpts: tuple[str, ...]
    head: Head
    classes: tuple[str, ...]
    channels: int
    make: Callable[[Sequence[ImageFile], Views | None], Predicts]
    digests: tuple[str, ...]
    name: str | None = None
    lines: tuple[str, ...] = ()

    @property
    def task(self) -> Task:
        """What its predictions are for.

        Raises:
            UsageError: They are of none of the tasks.
        """
        for kind, task in KINDS:
            if issubclass(self.head.prediction, kind):
                return task
        raise UsageError(
            f"{self.ckpts[0]}: its head, a {type(self.head).__name__}, predicts {self.head.prediction.__name__}, which "
            f"evaluate cannot count; it knows {', '.join(task for _, task in KINDS)}"
        )


def open_checkpoints(options: Namespace, tell: Callable[[str], None]) -> Source:
    """Return what predicts.

    Args:
        options: Of ``visionkit evaluate``.
        tell: Is told in a line what is to be known.

    Raises:
        DataError: A checkpoint cannot be used.
        UsageError: Options do not fit the checkpoints or the machine.
    """
    device = choose_device(options.device, options.backend)
    check_backend(options.backend, device, options.precision)
    return _one(options, device, tell) if len(options.ckpt) == 1 else _several(options, tell)


def told_checkpoint(path: str | os.PathLike[str], digest: str) -> dict[str, str]:
    """Return how evaluations name a checkpoint: "path", "sha256", its model's digest, and "name", that of its run."""
    file = find_checkpoint(path)
    given = Path(path)
    run = given.name if given.is_dir() else file.parent.parent.name if file.parent.name == "checkpoints" else file.stem
    return {"path": str(file), "sha256": digest, "name": run or file.stem}


def _one(options: Namespace, device: torch.device, tell: Callable[[str], None]) -> Source:
    (ckpt,) = options.ckpt
    file = find_checkpoint(ckpt)
    content = checkpoint.read(file)
    digests = (digest_of(content, file),)  # of what is measured, whatever becomes of the file meanwhile
    model = checkpoint.restore(content, file, trust=options.trust).to(device)
    joint = isinstance(model.head, MultiTaskHead)
    if joint:
        model = _of_head(ckpt, model, options.head)
    elif options.head is not None:
        raise UsageError(f"--head {options.head}: {ckpt} has one head alone: leave --head out")
    make = partial(_predictor, model, options, tell)
    return Source((ckpt,), model.head, model.classes, model.preprocessing.channels, make, digests, options.head)


def _predictor(
    model: VisionModel,
    options: Namespace,
    tell: Callable[[str], None],
    pictures: Sequence[ImageFile],
    views: Views | None,
) -> Any:
    backend: BackendName = options.backend
    return make_predictor(
        model, pictures, backend, options.precision, views, batch_size=options.batch_size, calibrate=None, tell=tell
    )


def _of_head(ckpt: str, model: VisionModel, name: str | None) -> VisionModel:
    """Return the model of one of several heads.

    Raises:
        UsageError: None is named, or one that is not there.
    """
    assert isinstance(model.head, MultiTaskHead)
    heads = list(model.head.each())
    if name not in heads:
        asked = "" if name is None else f" --head {name}: there is no such head;"
        raise UsageError(
            f"{ckpt}:{asked} it has the heads {', '.join(heads)}, and one is evaluated at a time: add --head {heads[0]}"
        )
    return take_head(model, name)


def _several(options: Namespace, tell: Callable[[str], None]) -> Source:
    from visionkit.prediction.ensemble import Ensemble, make_ensemble

    if options.head is not None:
        raise UsageError(
            f"--head {options.head} is of one checkpoint: take it out of each first, with visionkit heads take CKPT "
            f"{options.head} OUT"
        )
    if options.precision == "int8":
        raise UsageError("--precision int8 is evaluated with one checkpoint at a time: take bf16 for several")

    def made(views: Views | None) -> Ensemble:
        return make_ensemble(
            options.ckpt,
            backend=options.backend,
            precision=options.precision,
            views=views,
            device=options.device,
            batch_size=options.batch_size,
            trust=options.trust,
            tell=tell,
        )

    first = made(None)
    digests = tuple(map(model_digest, options.ckpt))

    def make(pictures: Sequence[ImageFile], views: Views | None) -> Predicts:
        return first if views is None else made(views)

    channels = first.preprocessing.channels
    return Source(tuple(options.ckpt), first.head, first.classes, channels, make, digests, lines=tuple(first.lines()))
