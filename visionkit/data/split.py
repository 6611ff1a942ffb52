"""Dividing a data set into training and validation: the same way each time, by class, never through a group."""

from __future__ import annotations

import csv
import hashlib
import heapq
import io
import os
import re
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, TypeVar

from visionkit.core.errors import DataError, UsageError
from visionkit.core.files import read_text
from visionkit.data.dataset import DataSplits, VisionDataset
from visionkit.data.images.twins import first_twins

__all__ = ["SPLIT_WORDS", "divide", "divide_as_listed", "join_groups", "place_below", "split", "split_word"]

SPLIT_WORDS = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test", "testing")}
"""What folders and files of a split are called."""

_NO_CLASS = -1  # images without a class are balanced like a class of their own


D = TypeVar("D", bound=VisionDataset[Any])


def split_word(name: str) -> str | None:
    """Return the split that a name such as ``instances_val2017`` speaks of; None where it is none or several."""
    words = set(re.findall(r"[a-z]+", name.lower()))
    found = {split for split, known in SPLIT_WORDS.items() if words & set(known)}
    return found.pop() if len(found) == 1 else None


def divide(
    found: DataSplits[D], groups: Sequence[str], labels: Sequence[Collection[int]], fraction: float, seed: int
) -> DataSplits[D]:
    """Take validation images from the training images, as :func:`split` chooses them.

    Files that are links to one picture or hold the same bytes stay on one side, with their groups.

    Args:
        found: What is there; it has training images.
        groups: As in :func:`split`.
        labels: Class ids of each training image.
        fraction: As in :func:`split`.
        seed: As in :func:`split`.

    Raises:
        DataError: One side would be empty.
        UsageError: ``fraction`` is not in (0, 1).
    """
    data = found.get("train")
    if len(data) < 2:
        raise DataError(f"{found.source}: cannot be divided into training and validation; add images")
    groups = join_groups(groups, first_twins(data.ids))
    chosen = split(groups, labels, fraction, seed)
    train = data.subset([i for i, v in enumerate(chosen) if not v])
    val = data.subset([i for i, v in enumerate(chosen) if v])
    number = len(set(groups))
    if not len(train) or not len(val):
        why = f"all are in one group ({groups[0]})" if number == 1 else "the classes have too few images"
        raise DataError(
            f"{found.source}: no validation images can be set aside ({fraction:g} of them), {why}; "
            "add images, or give validation images of their own"
        )
    how = f"automatic split: {len(train)} for training, {len(val)} for validation, by class"
    how += f", {number} groups kept whole" if number < len(data) else ""
    return DataSplits(train, val, found.test, f"{found.source}; {how} (seed {seed})", divided=True)


def divide_as_listed(found: DataSplits[D], path: Path, root: Path) -> DataSplits[D]:
    """Take those validation images from the training images that a file of a split lists.

    Args:
        found: What is there; it has training images.
        path: A .csv file with the columns ``image``, a path below the root with ``/`` between its parts, and ``split``,
            ``train`` or ``val``. Images that are not listed train, and are counted.
        root: The folder of the data set, or the file that lists it.

    Raises:
        DataError: The file cannot be read, a line is none of such, or no image would be left on one side.
    """
    data = found.get("train")
    listed = _read_listed(path)
    names = [place_below(id, root) for id in data.ids]
    chosen = [listed.get(name) == "val" for name in names]
    if not any(chosen) or all(chosen):
        side = "validates" if not any(chosen) else "trains"
        raise DataError(
            f"{path}: no image of {root} {side} by this split: was it made for another folder? "
            "visionkit init makes one anew; --data.split null divides without"
        )
    train = data.subset([i for i, v in enumerate(chosen) if not v])
    val = data.subset([i for i, v in enumerate(chosen) if v])
    new, gone = sum(name not in listed for name in names), len(listed.keys() - set(names))
    how = f"split as {path} says: {len(train)} for training, {len(val)} for validation"
    how += f"; {new} images that it does not list train" if new else ""
    how += f"; {gone} that it lists are not there" if gone else ""
    return DataSplits(train, val, found.test, f"{found.source}; {how}", divided=True)


def place_below(id: str, root: Path) -> str:
    """Return the path of an image below the root of its data set, with ``/`` between the parts."""
    folder = root if root.is_dir() else root.parent
    return os.path.relpath(id, folder).replace(os.sep, "/")


def _read_listed(path: Path) -> dict[str, str]:
    rows = list(csv.reader(io.StringIO(read_text(path))))
    if not rows or [cell.strip() for cell in rows[0]] != ["image", "split"]:
        raise DataError(f"{path}:1: the columns of a split are image,split")
    listed: dict[str, str] = {}
    for number, row in enumerate(rows[1:], 2):
        if not row:
            continue
        if len(row) != 2 or row[1] not in ("train", "val"):
            raise DataError(f"{path}:{number}: an image and train or val, got {','.join(row)!r}")
        if listed.setdefault(row[0], row[1]) != row[1]:
            raise DataError(f"{path}:{number}: {row[0]} trains and validates: name it once")
    return listed


def join_groups(groups: Sequence[str], first: Sequence[int]) -> list[str]:
    """Return the group of each image after groups that share a picture were made one, under the first of their names.

    Args:
        groups: As in :func:`split`.
        first: For each image the first one that shows the same; its own position where it is alone.
    """
    leader: dict[str, str] = {}

    def lead(group: str) -> str:
        while (above := leader.get(group, group)) != group:
            group = above
        return group

    for group, k in zip(groups, first, strict=True):
        one, other = sorted((lead(group), lead(groups[k])))
        if one != other:
            leader[other] = one
    return [lead(group) for group in groups]


def split(groups: Sequence[str], labels: Sequence[Collection[int]], fraction: float, seed: int) -> list[bool]:
    """Choose the validation images.

    Follows the iterative stratification of Sechidis, Tsoumakas and Vlahavas (2011), Algorithm 1: the rarest class is
    dealt out first, each time to the side that still wants most of it. It leaves the paper in three points:
    whole groups are dealt instead of images (larger ones first), ties are broken by a hash of seed and group instead of
    at random, and afterwards groups move so that each class has an image on both sides.

    The result depends on the set of (group, labels) and the seed, not on their order. A class with one group stays in
    training. A class with two groups or more has an image on each side wherever its groups hold no other class; where
    groups share classes, training comes first.

    Args:
        groups: What must stay together (camera, patient, video, ...); the image's own name where nothing must.
        labels: Class ids of each image; none is allowed.
        fraction: Share of images for validation, in (0, 1); small classes and large groups move what comes out.
        seed: Another seed makes another split.

    Returns:
        For each image whether it is for validation.

    Raises:
        UsageError: ``fraction`` is not in (0, 1), or the lists differ in length.
    """
    if not 0 < fraction < 1:
        raise UsageError(f"val_fraction: {fraction} is not between 0 and 1; give a share such as 0.2")
    if len(groups) != len(labels):
        raise UsageError(f"split: {len(groups)} groups for {len(labels)} labels; give one of each an image")
    counts: dict[str, Counter[int]] = {}  # group -> class -> images
    sizes: Counter[str] = Counter(groups)
    for group, ids in zip(groups, labels, strict=True):
        counts.setdefault(group, Counter()).update(set(ids) or {_NO_CLASS})
    order = _order(sizes, seed)
    members: dict[int, list[str]] = {}  # class -> groups, in order
    for group in order:
        for c in counts[group]:
            members.setdefault(c, []).append(group)
    val = _deal(order, counts, sizes, members, fraction)
    _cover(val, counts, members)
    return [g in val for g in groups]


def _order(sizes: Counter[str], seed: int) -> list[str]:
    """Return the groups, those of more images first by powers of two, then by hash."""

    def key(group: str) -> tuple[int, bytes, str]:
        digest = hashlib.blake2b(f"{seed}:{group}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
        return -sizes[group].bit_length(), digest, group

    return sorted(sizes, key=key)


def _deal(
    order: Sequence[str],
    counts: dict[str, Counter[int]],
    sizes: Counter[str],
    members: dict[int, list[str]],
    fraction: float,
) -> set[str]:
    totals = {c: sum(counts[g][c] for g in gs) for c, gs in members.items()}
    wants_val = {c: fraction * n for c, n in totals.items()}
    wants_train = {c: n - wants_val[c] for c, n in totals.items()}
    total_val = fraction * sum(sizes.values())
    total_train = sum(sizes.values()) - total_val
    left = dict(totals)  # images not dealt yet
    val: set[str] = set()
    dealt: set[str] = set()
    queue = [(n, c) for c, n in left.items()]
    heapq.heapify(queue)
    while queue:
        n, c = heapq.heappop(queue)
        if n != left[c]:  # an older entry; the class is rarer by now
            continue
        if n == 0:
            continue
        for group in members[c]:
            if group in dealt:
                continue
            dealt.add(group)
            to_val = (wants_val[c], total_val) > (wants_train[c], total_train) and len(members[c]) > 1
            wants = wants_val if to_val else wants_train
            for other, k in counts[group].items():
                wants[other] -= k
                left[other] -= k
                if other != c:
                    heapq.heappush(queue, (left[other], other))
            if to_val:
                val.add(group)
                total_val -= sizes[group]
            else:
                total_train -= sizes[group]
    return val


def _cover(val: set[str], counts: dict[str, Counter[int]], members: dict[int, list[str]]) -> None:
    """Move groups so that each class is in training, then, where that costs no other class, in validation too."""
    in_val = {c: sum(g in val for g in gs) for c, gs in members.items()}

    def move(group: str) -> None:
        step = -1 if group in val else 1
        val.symmetric_difference_update({group})
        for c in counts[group]:
            in_val[c] += step

    rare_first = sorted(members, key=lambda c: (len(members[c]), c))
    for c in rare_first:
        if in_val[c] == len(members[c]):  # nothing in training
            move(min(members[c], key=lambda g: sum(in_val[o] == 1 for o in counts[g])))
    for c in rare_first:
        if c == _NO_CLASS or in_val[c] or len(members[c]) < 2:
            continue
        for group in reversed(members[c]):  # the smallest first
            if all(len(members[o]) - in_val[o] > 1 for o in counts[group]):
                move(group)
                break
