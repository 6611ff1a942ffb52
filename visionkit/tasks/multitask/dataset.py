"""Data sets of several tasks as one: a picture that several of them hold is one picture with all their labels."""

from __future__ import annotations

import copy
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from visionkit.core.sample import ImageInfo, Sample
from visionkit.core.text import printable
from visionkit.data.dataset import DataSplits, ReadWhole, VisionDataset, knows_targets, load_sample
from visionkit.data.images.decode import Scale
from visionkit.data.images.twins import first_twins
from visionkit.data.labels.checks import tell_copies
from visionkit.tasks.multitask.types import MultiTaskTarget, flat_classes

__all__ = ["Member", "MultiTaskDataset", "Source", "put_together"]

Member = Mapping[str, int]
"""A picture: its position in the data set of each head that it is labelled for."""
Source = tuple[str, ...]
"""Heads whose data sets share pictures: these are shown with the labels of all of them."""
SPLITS = ("train", "val", "test")


class MultiTaskDataset(VisionDataset[MultiTaskTarget]):
    """Pictures of several data sets.

    Args:
        parts: The data set of each head, by its name.
        members: The pictures, in order.
        classes: Class names of all heads, as ``head/class``.
    """

    def __init__(
        self, parts: Mapping[str, VisionDataset[Any]], members: Sequence[Member], classes: Sequence[str]
    ) -> None:
        self.parts = dict(parts)
        self.classes = tuple(classes)
        self._hold(members)

    def _hold(self, members: Sequence[Member]) -> None:
        self.members = list(members)
        first = [next(iter(member.items())) for member in self.members]
        self.ids = [self.parts[name].ids[index] for name, index in first]
        self.problems = [problem for part in self.parts.values() for problem in part.problems]

    def __getitem__(self, index: int) -> Sample[MultiTaskTarget]:
        """Read picture ``index``, uint8 [C, H, W], with the target of each task that it is labelled for."""
        return self.load(index)

    def load(self, index: int, scale: Scale | None = None) -> Sample[MultiTaskTarget]:
        """Read picture ``index`` once, with all its targets; see :meth:`VisionDataset.load`."""
        (name, k), *others = self.members[index].items()
        first = load_sample(self.parts[name], k, scale)
        targets = {name: first.target}
        for name, k in others:
            part = self.parts[name]
            if knows_targets(part):
                targets[name], _ = part.target_of(k, first.info.size)
            else:
                targets[name] = load_sample(part, k, scale).target
        return first.replace(target=MultiTaskTarget(targets))

    def target_of(self, index: int, size: tuple[int, int]) -> tuple[MultiTaskTarget, ImageInfo]:
        """Return the targets and the info of picture ``index``, whose height and width are given."""
        found = {name: self.parts[name].target_of(k, size) for name, k in self.members[index].items()}
        return MultiTaskTarget({name: target for name, (target, _) in found.items()}), next(iter(found.values()))[1]

    def with_originals(self, read: ReadWhole) -> Self:
        """Return the same data set, which reads the files of whole images this way."""
        other = copy.copy(self)
        other.parts = {name: part.with_originals(read) for name, part in self.parts.items()}
        return other

    def files(self) -> Sequence[Path | None]:
        """Return the image file of each picture, or None where it comes from elsewhere."""
        files = {name: part.files() for name, part in self.parts.items()}
        return [next(files[name][k] for name, k in member.items()) for member in self.members]

    def mismatch(self, index: int) -> str | None:
        """Return in one line why picture ``index`` and its labels do not belong together, or None."""
        found = (self.parts[name].mismatch(k) for name, k in self.members[index].items())
        return next((message for message in found if message is not None), None)

    def remarks(self) -> Counter[str]:
        """Return what the data sets say together."""
        return sum((part.remarks() for part in self.parts.values()), Counter())

    def subset(self, indices: Sequence[int]) -> Self:
        """Return the same data set with these pictures only, in this order."""
        other = copy.copy(self)
        other._hold([self.members[i] for i in indices])
        return other


def put_together(
    splits: Mapping[str, DataSplits[VisionDataset[Any]]],
) -> tuple[DataSplits[MultiTaskDataset], list[Source]]:
    """Make one data set a split of those of several heads.

    Pictures that are one file are one picture. One that validates or tests one head trains none; copies of it, which
    are other files, do, and the source says so.

    Args:
        splits: The data sets of each head, by its name.

    Returns:
        The data sets, and the heads in groups that share pictures, in the order of the heads.
    """
    classes = flat_classes({name: _any(found).classes for name, found in splits.items()})
    files = {
        name: {split: _keys((name, split), _get(found, split)) for split in SPLITS} for name, found in splits.items()
    }
    held_out = {key for found in files.values() for split in ("val", "test") for key in found[split]}
    made: dict[str, MultiTaskDataset | None] = {}
    dropped = 0
    for split in SPLITS:
        members: dict[Any, dict[str, int]] = {}
        for name in splits:
            for position, key in enumerate(files[name][split]):
                if split == "train" and key in held_out:
                    dropped += 1
                else:
                    number = 0  # a file that a data set lists twice is two pictures
                    while name in (member := members.setdefault((key, number), {})):
                        number += 1
                    member[name] = position
        parts = {name: data for name, found in splits.items() if (data := _get(found, split)) is not None}
        made[split] = MultiTaskDataset(parts, list(members.values()), classes) if parts else None
    lines = [f"{name}: {found.source}" for name, found in splits.items()]
    if dropped:
        lines.append(f"{dropped} pictures that validate or test one head train none")
    lines += map(printable, _leaks(made))
    source = "\n         ".join(lines)
    return DataSplits(made["train"], made["val"], made["test"], source), _sources(files)


def _leaks(made: Mapping[str, MultiTaskDataset | None]) -> list[str]:
    """Return a line that tells of copies of a picture in splits of different heads; each head tells of its own."""
    parts = [(split, data) for split, data in made.items() if data is not None]
    ids = [id for _, data in parts for id in data.ids]
    sides = [split for split, data in parts for _ in data.ids]
    heads = [tuple(member) for _, data in parts for member in data.members]
    copies = [
        (i, k)
        for i, k in enumerate(first_twins(ids, sides))
        if sides[i] != sides[k] and set(heads[i]).isdisjoint(heads[k])
    ]
    whole = [f"{split} of {' and '.join(names)}" for split, names in zip(sides, heads, strict=True)]
    return [tell_copies(copies, ids, whole)] if copies else []


def _sources(files: Mapping[str, Mapping[str, Sequence[Any]]]) -> list[Source]:
    """Return the heads in groups that share files."""
    groups: list[tuple[list[str], set[Any]]] = []
    for name, splits in files.items():
        heads, keys = [name], {key for found in splits.values() for key in found}
        apart = []
        for group in groups:
            if keys & group[1]:
                heads, keys = [*group[0], *heads], keys | group[1]
            else:
                apart.append(group)
        groups = [*apart, (heads, keys)]
    order = list(files)
    return sorted(
        (tuple(sorted(heads, key=order.index)) for heads, _ in groups), key=lambda heads: order.index(heads[0])
    )


def _keys(owner: tuple[str, str], dataset: VisionDataset[Any] | None) -> list[Any]:
    """Return what tells each picture from all others, whatever its path: its file, or its place in its split."""
    keys: list[Any] = []
    for position, (id, file) in enumerate(zip(dataset.ids, dataset.files(), strict=True) if dataset else ()):
        try:
            stat = os.stat(file) if file is not None else None
        except OSError:  # the check of the images says what is wrong
            stat = None
        known = (stat.st_dev, stat.st_ino) if stat is not None and stat.st_ino else None
        keys.append(known or (os.path.abspath(file) if file is not None else (owner, id, position)))
    return keys


def _get(splits: DataSplits[VisionDataset[Any]], name: str) -> VisionDataset[Any] | None:
    found: VisionDataset[Any] | None = getattr(splits, name)
    return found


def _any(splits: DataSplits[VisionDataset[Any]]) -> VisionDataset[Any]:
    return next(data for data in (splits.train, splits.val, splits.test) if data is not None)
