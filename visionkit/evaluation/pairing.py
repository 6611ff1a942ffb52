"""Whether two evaluations are of the same pictures, and which picture is which."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visionkit.core.errors import UsageError
from visionkit.core.text import shortened
from visionkit.evaluation.folder import Evaluation
from visionkit.evaluation.images import EvaluatedImage, plain
from visionkit.evaluation.resampling import group_numbers

__all__ = ["groups_of", "place_of"]

Array = NDArray[Any]
Named = tuple[str, Evaluation]
NEAR = 0.02
"""Pixels by which boxes may differ that two formats of labels tell of the same object."""
_NAMED = 5  # pictures or classes that a message names


def place_of(first: Named, second: Named) -> Array:
    """Return where the images of the first evaluation stand in the second, int64 [N]; they are found by their bytes.

    Args:
        first: What the one is called, and the evaluation.
        second: The other.

    Raises:
        UsageError: They are of other tasks, classes, pictures, labels or settings.
    """
    _refuse_others(first, second)
    (name, a), (other, b) = first, second
    _refuse_images(name, a, other, b)
    place = np.empty(len(a.images), np.int64)
    place[_order(a.images)] = _order(b.images)
    differing = [
        (x, y) for x, y in ((x, b.images[place[k]]) for k, x in enumerate(a.images)) if not _same(x.truth, y.truth)
    ]
    if differing:
        x, y = differing[0]
        of = f"{len(differing)} pictures have" if len(differing) > 1 else "a picture has"
        words = [_told(truth) for truth in (y.truth, x.truth)]
        said = f"{words[0]} instead of {words[1]}" if words[0] != words[1] else f"{words[0]} of other places or sizes"
        raise UsageError(
            f"{other}: {of} other labels than in {name} (first {x.id}: {said}); evaluate both on the same labels"
        )
    return place


def groups_of(named: Sequence[Named], places: Sequence[Array]) -> list[Hashable]:
    """Return the group of each image of the first evaluation, N; its own position where it has none.

    Args:
        named: What each evaluation is called, and the evaluation.
        places: int64 [N] each, where the images of the first one stand in it.

    Raises:
        UsageError: Two of them group the pictures in different ways.
    """
    chosen: tuple[str, list[Hashable]] | None = None
    for (name, evaluation), place in zip(named, places, strict=True):
        told = [evaluation.images[k].group for k in place]
        if not any(group is not None for group in told):
            continue
        groups: list[Hashable] = [k if group is None else group for k, group in enumerate(told)]
        if chosen is not None and (group_numbers(groups) != group_numbers(chosen[1])).any():
            raise UsageError(f"{name}: its pictures are grouped otherwise than {chosen[0]}'s; evaluate both again")
        chosen = chosen or (name, groups)
    return list(range(len(places[0]))) if chosen is None else chosen[1]


def _refuse_others(first: Named, second: Named) -> None:
    """Refuse other tasks, classes and settings."""
    (name, a), (other, b) = first, second
    kinds = [f"{e.task} with several labels a picture" if e.multilabel else e.task for e in (a, b)]
    if kinds[0] != kinds[1]:
        raise UsageError(f"{other}: is of {kinds[1]}, {name} of {kinds[0]}; only the same can be compared")
    alone = [[c for c in x.classes if c not in set(y.classes)] for x, y in ((a, b), (b, a))]
    if any(alone):
        said = [f"{_list(some)} in {n} alone" for some, n in zip(alone, (name, other), strict=True) if some]
        raise UsageError(f"{other}: has other classes than {name}: {'; '.join(said)}; evaluate both with the same ones")
    for setting in a.metric.settings:
        values = [getattr(e.metric, setting) for e in (a, b)]
        if values[0] != values[1]:
            raise UsageError(
                f"{other}: was evaluated with {setting} {values[1]:g}, {name} with {values[0]:g}; evaluate both with "
                "the same one"
            )


def _refuse_images(name: str, a: Evaluation, other: str, b: Evaluation) -> None:
    """Refuse other pictures, and say how many both have."""
    counts = [Counter(image.sha256 for image in e.images) for e in (a, b)]
    if counts[0] == counts[1]:
        return
    common = (counts[0] & counts[1]).total()
    said = []
    for e, n, own in ((a, name, counts[0] - counts[1]), (b, other, counts[1] - counts[0])):
        ids = [image.id for image in e.images if image.sha256 in own]
        if own:
            said.append(f"{own.total()} in {n} alone ({_list(ids)})")
    raise UsageError(
        f"{other}: was evaluated on other pictures than {name}: {common} of {len(a.images)} and {len(b.images)} are "
        f"the same by content; {'; '.join(said)}; evaluate both on the same data"
    )


def _order(images: Sequence[EvaluatedImage]) -> Array:
    """Return positions of pictures in an order that two evaluations have in common, int64 [N]."""
    keys = [(image.sha256, json.dumps(plain(image.truth), sort_keys=True), image.id) for image in images]
    return np.array(sorted(range(len(keys)), key=keys.__getitem__), np.int64)


def _same(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    """Return whether two truths are the same; boxes may be rounded in another way."""
    if a == b:
        return True
    if "labels" in a and "labels" in b:
        return sorted(a["labels"]) == sorted(b["labels"])
    if "objects" not in a or "objects" not in b or len(a["objects"]) != len(b["objects"]):
        return False
    left = list(b["objects"])
    for one in a["objects"]:
        match = next((k for k, other in enumerate(left) if _same_object(one, other)), None)
        if match is None:
            return False
        del left[match]
    return True


def _same_object(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    if a["label"] != b["label"] or a["crowd"] != b["crowd"]:
        return False
    near = all(abs(x - y) <= NEAR for x, y in zip(a["box"], b["box"], strict=True))
    return near and abs(a["area"] - b["area"]) <= NEAR * (1 + abs(a["box"][2]) + abs(a["box"][3]))


def _told(truth: Mapping[str, Any]) -> str:
    """Return a truth in a few words."""
    if "label" in truth:
        return str(truth["label"])
    if "labels" in truth:
        return _list(truth["labels"]) if truth["labels"] else "no label"
    counts = Counter(one["label"] for one in truth["objects"]) if "objects" in truth else Counter(truth["pixels"])
    words = [f"{name} {count}" for name, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]
    unit = "objects" if "objects" in truth else "pixels"
    return f"{_list(words)} {unit}" if words else f"no {unit}"


def _list(words: Sequence[str]) -> str:
    return ", ".join(shortened(words, _NAMED))
