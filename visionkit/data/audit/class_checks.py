"""Checks of how often classes come, and of the labels that a model doubts."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from visionkit.data.audit.findings import Example, Finding, located
from visionkit.data.audit.snapshot import Snapshot, Suspicion

__all__ = ["CHECKS"]

FEW = 10  # examples of a class in training
IMBALANCE = 50.0  # most frequent / rarest of the classes
SKEW, SKEW_FROM = 0.1, 30  # difference of shares between splits; examples in each from which it says something
SMALL_SPLIT = 30  # images
UNLIKELY = 0.2  # probability of a label below which it is doubted
LEAST_AGREEMENT = 0.6  # share of the labels that a model must give, too, before it may doubt others


def empty(s: Snapshot) -> list[Finding]:
    """Classes that a split does not show."""
    found = []
    for id, split in (("class-empty", "train"), ("class-unseen", "val")):
        if split in s.splits:
            counts = s.counts(split)
            other = s.counts("train")
            lost = [i for i in np.flatnonzero(counts == 0).tolist() if split == "train" or other[i]]
            found += _named(s, id, lost, split, counts)
    return found


def few(s: Snapshot) -> list[Finding]:
    """Classes with hardly an example in training."""
    if "train" not in s.splits:
        return []
    counts = s.counts("train")
    return _named(s, "class-few", np.flatnonzero((counts > 0) & (counts < FEW)).tolist(), "train", counts)


def _named(s: Snapshot, id: str, classes: list[int], split: str, counts: NDArray[np.int64]) -> list[Finding]:
    classes = sorted(classes, key=lambda i: (counts[i], i))
    names = [f"{s.classes[i]} ({counts[i]})" if counts[i] else s.classes[i] for i in classes]
    examples = [Example(f"{s.root}: {name} in {split}", splits=(split,)) for name in names]
    more = f", and {len(names) - 8} more" if len(names) > 8 else ""
    kind = {"class-empty": "without training images", "class-unseen": "without validation images"}.get(
        id, f"with fewer than {FEW} examples in training"
    )
    what = f"{len(names)} of {len(s.classes)} classes {kind}: {', '.join(names[:8])}{more}"
    return Finding.of(id, examples, what=what)


def imbalance(s: Snapshot) -> list[Finding]:
    """Classes of very different numbers."""
    if "train" not in s.splits or s.task == "segmentation":  # of images that show a class, pixels aside
        return []
    counts = s.counts("train")
    present = np.flatnonzero(counts)
    if len(present) < 2:
        return []
    most, least = (int(present[f(counts[present])]) for f in (np.argmax, np.argmin))
    if counts[most] <= IMBALANCE * counts[least]:
        return []
    what = (
        f"{s.classes[most]} comes {counts[most]} times, {s.classes[least]} {counts[least]} "
        f"({counts[most] / counts[least]:.0f} to 1)"
    )
    return Finding.of("class-imbalance", [Example(f"{s.root}: {what}", splits=("train",))], what=what)


def skew(s: Snapshot) -> list[Finding]:
    """Classes whose share differs between training and validation."""
    if not {"train", "val"} <= set(s.splits):
        return []
    train, val = s.counts("train"), s.counts("val")
    if min(train.sum(), val.sum()) < SKEW_FROM:
        return []
    shares = train / train.sum(), val / val.sum()
    found = [
        Example(
            f"{s.root}: {s.classes[i]} is {shares[0][i]:.0%} of train and {shares[1][i]:.0%} of val", splits=("val",)
        )
        for i in np.flatnonzero(np.abs(shares[0] - shares[1]) > SKEW).tolist()
    ]
    return Finding.of("split-skew", found)


def small_split(s: Snapshot) -> list[Finding]:
    """A validation split that says little."""
    number = len(s.splits.get("val", ()))
    if not number or number >= SMALL_SPLIT:
        return []
    what = f"val has {number} images, too few to tell models apart by a point or two"
    return Finding.of("split-small", [Example(f"{s.root}: {what}", splits=("val",))], what=what)


def suspects(s: Snapshot) -> list[Finding]:
    """Labels that cross-validation expects otherwise."""
    if s.agreement is None:
        return []
    agrees = f"the model agrees with {s.agreement:.0%} of all labels"
    if s.agreement < LEAST_AGREEMENT:
        what = f"{agrees}, too few to doubt any: give weights that know more of such pictures"
        return Finding.of("label-suspect", [Example(f"{s.root}: {what}")], what=what)
    certain = [p for p in s.suspects if p.probability < UNLIKELY]
    milder = len(s.suspects) - len(certain)
    also = f"; {milder} more are doubted a little" if milder else ""
    what = f"labels that a model would give otherwise: {len(certain)} ({agrees}{also})"
    return Finding.of("label-suspect", (_suspect(s, p) for p in certain), what=what)


def _suspect(s: Snapshot, p: Suspicion) -> Example:
    image = s.images[p.image]
    known = p.box is not None and p.box < len(image.places)
    where = image.places[p.box] if known and p.box is not None else image.path
    boxes: tuple[tuple[float, float, float, float], ...] = ()
    if p.box is not None and image.boxes is not None:
        x1, y1, x2, y2 = image.boxes[p.box].tolist()
        boxes = ((x1, y1, x2, y2),)
    text = f"labelled {s.classes[p.given]}, looks like {s.classes[p.likelier]} ({p.probability:.0%} for the label)"
    return Example(f"{where}: {text}", *located(f"{where}: "), (image.path,), (image.split,), boxes)


CHECKS: tuple[Callable[[Snapshot], list[Finding]], ...] = (empty, few, imbalance, skew, small_split, suspects)
"""All of this file."""
