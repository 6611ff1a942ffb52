"""The pictures of an evaluation: what they are, and what is true of them."""

from __future__ import annotations

import hashlib
import json
import math
import re
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

__all__ = ["EvaluatedImage", "data_sha256", "plain"]

MAX_SIDE = 2**31 - 1
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class EvaluatedImage:
    """A picture of an evaluation.

    Args:
        id: Its path, or another name.
        sha256: Of the bytes of its file, 64 digits of hex: pictures of two evaluations are joined by it.
        group: What pictures that belong together have in common, such as a video; None where nothing is known.
        size: Height and width in pixels.
        truth: ``{"label": name}``, ``{"labels": [names]}``, ``{"objects": [{"label", "box", "crowd", "area"}]}`` with
            boxes xyxy in pixels, or ``{"pixels": {name: count}}``.
    """

    id: str
    sha256: str
    group: str | None
    size: tuple[int, int]
    truth: Mapping[str, Any]

    def record(self) -> dict[str, Any]:
        """Return it as plain values."""
        height, width = self.size
        first = {"image": self.id, "sha256": self.sha256, "group": self.group}
        return {**first, "height": height, "width": width, "truth": plain(self.truth)}

    @classmethod
    def recalled(cls, record: Any, classes: Collection[str], kind: str) -> Self:
        """Return what :meth:`record` told.

        Args:
            record: What a line holds.
            classes: Names that may be true.
            kind: Which truth there is: "label", "labels", "objects" or "pixels".

        Raises:
            ValueError: It is no such record, with what is wrong.
        """
        if not isinstance(record, dict):
            raise ValueError("a line is a mapping")
        image, digest, group = record.get("image"), record.get("sha256"), record.get("group")
        if not isinstance(image, str) or not image:
            raise ValueError("image is a text")
        if not isinstance(digest, str) or not _SHA256.fullmatch(digest):
            raise ValueError("sha256 is 64 digits from 0 to f")
        if not (group is None or isinstance(group, str)):
            raise ValueError("group is a text or null")
        size = (record.get("height"), record.get("width"))
        height, width = size
        if type(height) is not int or type(width) is not int or not all(1 <= s <= MAX_SIDE for s in (height, width)):
            raise ValueError("height and width are whole numbers from 1 on")
        truth = record.get("truth")
        if not isinstance(truth, dict) or set(truth) != {kind} or not _CHECKS[kind](truth[kind], classes):
            raise ValueError(f"truth is {_WORDS[kind]}, of the classes in evaluation.json")
        return cls(image, digest, group, (height, width), truth)


def data_sha256(images: Sequence[EvaluatedImage]) -> str:
    """Return a hash over pictures and their truth, the same in any order, 64 digits of hex."""
    lines = sorted(json.dumps([image.sha256, plain(image.truth)], sort_keys=True) for image in images)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _is_label(value: Any, classes: Collection[str]) -> bool:
    return isinstance(value, str) and value in classes


def _are_labels(value: Any, classes: Collection[str]) -> bool:
    return isinstance(value, list) and all(_is_label(v, classes) for v in value)


def _are_objects(value: Any, classes: Collection[str]) -> bool:
    return isinstance(value, list) and all(
        isinstance(one, dict)
        and _is_label(one.get("label"), classes)
        and isinstance(one.get("box"), list)
        and len(one["box"]) == 4
        and all(map(_is_finite, [*one["box"], one.get("area")]))
        and isinstance(one.get("crowd"), bool)
        for one in value
    )


def _are_pixels(value: Any, classes: Collection[str]) -> bool:
    return isinstance(value, dict) and all(
        _is_label(name, classes) and type(count) is int and 0 <= count <= MAX_SIDE**2 for name, count in value.items()
    )


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


_CHECKS: dict[str, Callable[[Any, Collection[str]], bool]] = {
    "label": _is_label, "labels": _are_labels, "objects": _are_objects, "pixels": _are_pixels,
}  # fmt: skip
_WORDS = {
    "label": '{"label": name}',
    "labels": '{"labels": [names]}',
    "objects": '{"objects": [{"label", "box", "crowd", "area"}]}',
    "pixels": '{"pixels": {name: count}}',
}


def plain(value: Any) -> Any:
    """Return what JSON holds: mappings, lists, texts and numbers; what is no number is null."""
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if hasattr(value, "tolist"):  # numpy's and torch's numbers and arrays
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
