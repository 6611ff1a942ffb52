"""A training that learns beside its labels from what bigger models, or several together, say of the same pictures."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from visionkit.core.errors import DataError, UsageError
from visionkit.core.sample import Batch
from visionkit.core.text import printable
from visionkit.data.transforms.scale import resize_batch
from visionkit.models import checkpoint as checkpoints
from visionkit.models.content_digest import digest_of
from visionkit.models.head import Lesson
from visionkit.models.model import VisionModel
from visionkit.models.model_digest import holds_model, model_digest
from visionkit.models.run_folder import find_checkpoint, members_in
from visionkit.training.recipe import Recipe

__all__ = ["TERM", "Teacher", "checksums"]

TERM = "teacher"
"""Name of the loss that a teacher adds."""
MULTIPLE = 32  # pixels: the stride of the usual networks
MOST_NAMES = 8  # classes that are named in a line


class Teacher:
    """Models from checkpoints whose predictions a training imitates: one, or an ensemble of them.

    Hinton et al., "Distilling the Knowledge in a Neural Network", 2015. Teacher and model see the same pictures, after
    augmentation and mixing (Beyer et al., "Knowledge distillation: a good teacher is patient and consistent", CVPR
    2022). Of an ensemble the mean is learnt: the mean of the losses towards each has the slope of the loss towards the
    mean of their probabilities.

    It is no part of the model that is trained: no checkpoint holds it, and it is not trained itself.

    Args:
        paths: A checkpoint, the folder of a run, a folder of members, or several of them.

    Raises:
        UsageError: None is named.
    """

    def __init__(self, paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> None:
        self.paths = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
        if not self.paths or not all(map(os.fspath, self.paths)):
            raise UsageError("model.teacher needs a checkpoint, the folder of a run or a list of them; null is none")
        self.ready: Callable[[VisionModel], VisionModel] | None = None
        """Makes a model faster that only predicts, on its device; None takes it as it is."""
        self.trust: Sequence[str] = ()
        """Names of packages, beside visionkit and those of the model that is trained, whose classes they may name."""
        self._members: list[_Member] = []
        self._device: torch.device | None = None
        self._recipe, self._size, self._unknown = Recipe(), (0, 0), list[str]()
        self._temperature, self._softens = 1.0, False

    def __deepcopy__(self, memo: Any) -> Self:
        """Return itself: it does not change, and copies of what it teaches can share it."""
        return self

    def load(self, model: VisionModel, recipe: Recipe) -> None:
        """Read the checkpoints, once, and refuse those that cannot teach this model.

        Args:
            model: What is trained.
            recipe: How.

        Raises:
            DataError: A checkpoint is missing, damaged or no checkpoint.
            UsageError: A teacher knows none of the classes, sees other channels or is of another kind.
        """
        if self._members:
            return
        if recipe.teacher_temperature is not None and model.head.teacher_temperature is None:
            raise UsageError(
                f"recipe.teacher_temperature: {type(model.head).__name__} imitates scores and boxes as they are: "
                "leave it out"
            )
        parts = (model.backbone, model.neck, model.head)
        trust = {type(part).__module__.partition(".")[0] for part in parts} - {"visionkit"} | set(self.trust)
        found = []
        for path in _files(self.paths):
            content = checkpoints.read(path)
            teacher = checkpoints.restore(content, path, trust=sorted(trust))
            found.append(_Member.of(path, digest_of(content, path), teacher.requires_grad_(False), model))
        unknown = _unknown(model, found)
        if unknown and recipe.teacher_weight == 1:
            raise UsageError(
                f"recipe.teacher_weight 1 leaves {_names(unknown)} nothing to learn from, which no teacher knows: set "
                "it below 1"
            )
        self._members, self._recipe, self._size = found, recipe, model.preprocessing.size
        self._unknown = unknown
        self._temperature = recipe.teacher_temperature or model.head.teacher_temperature or 1.0
        self._softens = model.head.teacher_temperature is not None

    def lines(self) -> list[str]:
        """Return what is known of the loaded teachers, for the first lines of a run."""
        lines = [f"teacher  {member}" for member in self._members]
        if self._unknown:
            lines.append(f"teacher  {_names(self._unknown)}: not known to a teacher, learnt from labels alone")
        weight, softened = self._recipe.teacher_weight, f", temperature {self._temperature:g}" if self._softens else ""
        mean = "" if len(self._members) == 1 else f", the mean of {len(self._members)}"
        return [*lines, f"teacher  weight {weight:g}, labels {1 - weight:.2g}{softened}{mean}"]

    def passport(self) -> list[dict[str, str]]:
        """Return names of the teachers' files and digests of their models, as descriptions of checkpoints hold them."""
        return [{"source": printable(member.path.name), "sha256": member.sha256} for member in self._members]

    def refuse_others(self, passport: Sequence[Mapping[str, str]], path: object) -> None:
        """Refuse to go on with a training that other files have taught.

        Args:
            passport: What :meth:`passport` returned when the checkpoint was saved; nothing for a training without.
            path: The checkpoint, for messages.

        Raises:
            DataError: Naming the files of before and now: one is another, is missing or has come.
        """
        same = len(passport) == len(self._members) and all(self._taught_by(t["sha256"]) for t in passport)
        if passport and not same:
            others = ", ".join(f"{t['source']} ({t['sha256'][:12]})" for t in passport)
            ours = ", ".join(f"{member.path} ({member.sha256[:12]})" for member in self._members)
            raise DataError(
                f"{path}: was taught by {others}, and model.teacher is {ours} now: give the files of before, "
                "go on without (--model.teacher null), or start anew"
            )

    def _taught_by(self, sha256: str) -> bool:
        """Return whether a digest is one of the teachers; checkpoints of before have those of the files."""
        digests = (member.sha256 for member in self._members)
        return sha256 in digests or any(holds_model(member.path, sha256) for member in self._members)

    def blend(
        self, model: VisionModel, losses: Mapping[str, Tensor], outputs: Any, batch: Batch[Any]
    ) -> dict[str, Tensor]:
        """Return the losses of the labels with that of the teacher beside them, each with its weight.

        Args:
            model: What is trained.
            losses: What its head says of the labels.
            outputs: What it computed of the batch.
            batch: The pictures as it saw them, uint8 [B, C, H, W], and their truth.
        """
        weight = self._recipe.teacher_weight
        taught = self._taught(model, outputs, batch)
        return {name: (1 - weight) * value for name, value in losses.items()} | {TERM: weight * taught}

    def _taught(self, model: VisionModel, outputs: Any, batch: Batch[Any]) -> Tensor:
        """Return the mean over the teachers of the losses towards each."""
        device = batch.images.device
        if self._device != device:
            self._bring(device)
        total: list[Tensor] = []
        for member in self._members:
            lesson = member.lesson(batch.images, self._size, self._temperature)
            total += model.head.imitate(outputs, batch.targets, lesson).values()
        return torch.stack(total).sum() / len(self._members)

    def _bring(self, device: torch.device) -> None:
        """Bring the teachers to a device, in the form in which they are fast there."""
        for member in self._members:
            teacher = member.model.to(device)
            if device.type in ("cpu", "cuda"):
                teacher = teacher.to(memory_format=torch.channels_last)
            with torch.autocast(device.type, enabled=False):  # it looks at the network in float32
                member.model = teacher if self.ready is None else self.ready(teacher)
            member.own, member.theirs = member.own.to(device), member.theirs.to(device)
        self._device = device


@dataclass
class _Member:
    """One of the teachers.

    Args:
        path: Its file.
        sha256: Digest of its model, in hex.
        model: In evaluation mode, without gradients.
        own: int64 [S], ids of the classes that both know, in the model that is trained.
        theirs: int64 [S], their ids here.
        remark: What else is to be said of it.
    """

    path: Path
    sha256: str
    model: VisionModel
    own: Tensor
    theirs: Tensor
    remark: str = ""

    @classmethod
    def of(cls, path: Path, sha256: str, teacher: VisionModel, model: VisionModel) -> Self:
        """Compare a teacher with what it is to teach.

        Raises:
            UsageError: It cannot.
        """
        where = f"model.teacher {path}"
        channels, seen = model.backbone.in_channels, teacher.backbone.in_channels
        if channels != seen:
            raise UsageError(f"{where}: it sees pictures of {seen} channels, the model that it is to teach {channels}")
        ids = {name: k for k, name in enumerate(teacher.classes)}
        own = [k for k, name in enumerate(model.classes) if name in ids]
        if not own:
            raise UsageError(
                f"{where}: it knows none of the data's classes ({_names(model.classes)}), its own are "
                f"{_names(teacher.classes)}: names are compared letter by letter"
            )
        try:
            model.head.check_teacher(teacher.head, len(own))
        except UsageError as e:
            raise UsageError(f"{where}: {e.lines[0]}") from None
        theirs = torch.tensor([ids[model.classes[k]] for k in own])
        kinds = [m.preprocessing.resize for m in (teacher, model)]
        remark = f"; was trained with {kinds[0]}, sees pictures of {kinds[1]}" if kinds[0] != kinds[1] else ""
        return cls(path, sha256, teacher, torch.tensor(own), theirs, remark)

    def __str__(self) -> str:
        parts = f"{self.model.backbone.summary()} + {self.model.head.summary()}"
        millions = sum(p.numel() for p in self.model.parameters()) / 1e6
        height, width = self.model.preprocessing.size
        size = f"{millions:.1f} M parameters, {height} x {width} pixels"
        known = f"knows {len(self.own)} of the classes{self.remark}"
        return f"{self.path}: {parts}, {size}, {known}; sha256 {self.sha256[:12]}"

    @torch.no_grad()
    def lesson(self, images: Tensor, whole: tuple[int, int], temperature: float) -> Lesson:
        """Return what it says of pictures, uint8 [B, C, H, W].

        Args:
            images: As the model that is trained saw them.
            whole: Height and width of its pictures at their whole size: where they are smaller at times, they are for
                the teacher, too, by as much.
            temperature: By which logits are divided.
        """
        seen = (images.shape[2], images.shape[3])
        size = _edges(seen, whole, self.model.preprocessing.size)
        shown = images if size == seen else resize_batch(images, size)
        outputs = self.model(shown.contiguous(memory_format=torch.channels_last))
        scale = (size[0] / seen[0], size[1] / seen[1])
        return Lesson(self.model.head, outputs, self.own, self.theirs, temperature, images, scale)


def checksums(paths: Sequence[str | os.PathLike[str]]) -> list[tuple[Path, str]]:
    """Return the checkpoints that paths stand for, and the digest of the model of each in hex.

    Args:
        paths: Checkpoints, folders of runs, or folders of members.

    Raises:
        DataError: There is none, or it cannot be read.
    """
    return [(file, model_digest(file)) for file in _files(paths)]


def _files(paths: Sequence[str | os.PathLike[str]]) -> list[Path]:
    return [find_checkpoint(file) for path in paths for file in members_in(path) or [Path(path)]]


def _edges(seen: tuple[int, int], whole: tuple[int, int], own: tuple[int, int]) -> tuple[int, int]:
    """Return the size at which a teacher of its own whole size sees pictures, of which the model sees some size."""
    if own == whole:
        return seen
    if seen == whole:
        return own
    edges = (o * s / w for o, s, w in zip(own, seen, whole, strict=True))
    height, width = (MULTIPLE * max(1, round(edge / MULTIPLE)) for edge in edges)
    return height, width


def _unknown(model: VisionModel, members: Sequence[_Member]) -> list[str]:
    """Return the classes that no teacher knows."""
    known = {k for member in members for k in member.own.tolist()}
    return [name for k, name in enumerate(model.classes) if k not in known]


def _names(names: Sequence[str]) -> str:
    return printable(", ".join(names[:MOST_NAMES])) + (", ..." if len(names) > MOST_NAMES else "")
