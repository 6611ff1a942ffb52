"""What a checkpoint says of its model: plain data of a file from anywhere, checked before it is used."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, NotRequired, TypedDict

from visionkit.core.component import Spec
from visionkit.core.errors import DataError
from visionkit.core.text import is_printable
from visionkit.core.thresholds import Thresholds

__all__ = ["FORMAT", "KEY", "Description", "ModelSpec", "check_description", "is_spec"]

KEY = "visionkit"
"""The entry of a checkpoint file that describes the model."""
FORMAT = 1
_MAX_DEPTH = 30  # of specs within specs; a joint model has about 8
_MAX_ENTRIES = 1_000_000  # values in all; most are class names


class ModelSpec(TypedDict):
    """The model in plain data: what ``VisionModel.spec`` returns."""

    backbone: Spec
    neck: Spec
    head: Spec
    classes: list[str]
    preprocessing: Spec


class Description(TypedDict):
    """What a checkpoint says of its model, in plain data."""

    format: int
    version: str
    task: str | None
    model: ModelSpec
    passport: NotRequired[dict[str, Any] | None]
    thresholds: NotRequired[dict[str, Any]]
    teachers: NotRequired[list[dict[str, str]]]
    """Names ("source") and hashes ("sha256") of the files that taught it."""


def check_description(data: Any, path: str | os.PathLike[str]) -> Description:
    """Return a copy of what a checkpoint says of its model, once it has the right form; nothing is imported.

    Which classes it names is not looked at: see :func:`visionkit.core.component.checked`.

    Args:
        data: The entry ``KEY`` of a checkpoint.
        path: The checkpoint file, for messages.

    Raises:
        DataError: It is of another version, lacks something or holds something else.
    """
    try:
        return _description(_Copy()(data))
    except _FaultError as e:
        raise DataError(f"{path}: {e}") from None


class _FaultError(Exception):
    """What is wrong with a description; the caller puts the file's name before it."""


class _Copy:
    """Copies plain data, and refuses anything else, what is too deep (it may hold itself) and what is too much."""

    def __init__(self) -> None:
        self.entries = 0

    def __call__(self, value: Any, depth: int = 0) -> Any:
        self.entries += 1
        if depth > _MAX_DEPTH or self.entries > _MAX_ENTRIES:
            raise _FaultError("its description is too deep or too large to be one of a model")
        if isinstance(value, Mapping):
            if odd := [key for key in value if not isinstance(key, str)]:
                raise _FaultError(f"its description has the key {_words(odd[0])}, no word")
            return {key: self(entry, depth + 1) for key, entry in value.items()}
        if isinstance(value, list | tuple):
            return [self(entry, depth + 1) for entry in value]
        if isinstance(value, int) and value.bit_length() > 64:
            raise _FaultError("its description holds a number of more than 64 bits")
        if value is None or isinstance(value, bool | int | float | str):
            return value
        raise _FaultError(f"its description holds a {type(value).__name__} beside plain data")


def _description(said: Any) -> Description:
    if not isinstance(said, dict):
        raise _FaultError(f"its description is {_words(said)}")
    if said.get("format") != FORMAT:
        raise _FaultError(
            f"checkpoint format {_words(said.get('format'))} of visionkit {_words(said.get('version'))}, this version "
            f"reads format {FORMAT}: upgrade visionkit"
        )
    model = said.get("model")
    if not isinstance(model, dict):
        raise _FaultError("its description has no model" if model is None else f"its model is {_words(model)}")
    task, passport, version = (said.get(key) for key in ("task", "passport", "version"))
    if not isinstance(version, str):
        raise _FaultError(f"its version is {_words(version)}, no word")
    if not (task is None or _is_path(task)):
        raise _FaultError(f"its task is {_words(task)}, no path of a class")
    if not (passport is None or isinstance(passport, dict)):
        raise _FaultError(f"the passport of its weights is {_words(passport)}")
    made: ModelSpec = {
        "backbone": _spec(model, "backbone"),
        "neck": _spec(model, "neck"),
        "head": _spec(model, "head"),
        "classes": _classes(model.get("classes")),
        "preprocessing": _spec(model, "preprocessing"),
    }
    found: Description = {"format": FORMAT, "version": version, "task": task, "model": made}
    if "passport" in said:  # checkpoints of before have none
        found["passport"] = passport
    if said.get("thresholds") is not None:  # only what `evaluate --choose` has gone over has any
        try:
            found["thresholds"] = Thresholds.from_plain(said["thresholds"], made["classes"]).plain()
        except DataError as e:
            raise _FaultError(str(e)) from None
    if said.get("teachers"):
        found["teachers"] = _teachers(said["teachers"])
    return found


def _spec(model: Mapping[str, Any], part: str) -> Spec:
    spec = model.get(part)
    if spec is None:
        raise _FaultError(f"its description has no {part}")
    if not is_spec(spec):
        raise _FaultError(f"its {part} is {_words(spec)}, no class_path with init_args")
    return dict(spec)


def is_spec(value: Any) -> bool:
    """Return whether a value has the form of a component in plain data."""
    return (
        isinstance(value, Mapping)
        and set(value) == {"class_path", "init_args"}
        and _is_path(value["class_path"])
        and isinstance(value["init_args"], Mapping)
    )


def _classes(names: Any) -> list[str]:
    if not isinstance(names, list) or not names:
        raise _FaultError("its description has no class names" if not names else f"its classes are {_words(names)}")
    seen: set[str] = set()
    for name in names:
        if not isinstance(name, str) or not name:
            raise _FaultError(f"its class names hold {_words(name)}, no name")
        if not is_printable(name):
            raise _FaultError(f"its class name {_words(name)} holds control characters")
        if name in seen:
            raise _FaultError(f"it has the class name {_words(name)} twice")
        seen.add(name)
    return names


def _teachers(said: Any) -> list[dict[str, str]]:
    keys = {"source", "sha256"}
    if not isinstance(said, list) or not all(isinstance(t, dict) and keys <= set(t) for t in said):
        raise _FaultError(f"its teachers are {_words(said)}")
    found = [{key: t[key] for key in sorted(keys)} for t in said]
    if odd := [v for t in found for v in t.values() if not (isinstance(v, str) and is_printable(v))]:
        raise _FaultError(f"its teachers hold {_words(odd[0])}, no name or hash")
    return found


def _is_path(value: Any) -> bool:
    """Return whether a value can be where a class comes from, such as ``visionkit.ResNet``."""
    return isinstance(value, str) and "." in value and is_printable(value)


def _words(value: Any) -> str:
    return f"{value!r:.60}"
