"""The word ``auto`` in a config: values that the data choose, put in its place before the parser sees it."""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml

import visionkit
from visionkit.cli.config import bounded_yaml
from visionkit.cli.config.classes import Place, place_of
from visionkit.cli.config.descriptions import BASES, import_class
from visionkit.cli.config.options import CONFIG, Option, options_of, value_of
from visionkit.core.errors import DataError, UsageError, VisionkitError
from visionkit.models import checkpoint as checkpoints
from visionkit.training.advice import AUTO, Advice, Choice
from visionkit.training.datamodule import VisionDataModule

__all__ = [
    "asked_places",
    "flattened",
    "last_value",
    "make_advice",
    "make_data",
    "processes_of",
    "resolve",
    "values_of",
]

READING = ("root", "classes", "val_fraction", "split_seed", "split", "multilabel", "channels", "masks", "ignore")
"""Options of data that say what is read."""
OF_OTHERS = (
    "trainer.accelerator",
    "trainer.devices",
    "trainer.strategy",
    "ckpt_path",
    "pictures",
)
"""Keys for which ``auto`` means something else."""
NAMES = ("root", "split", "weights", "cache_folder", "default_root_dir", "teacher")
"""Last parts of keys whose values are names, of files mostly: ``auto`` can be one."""
CHOSEN = "VISIONKIT_CHOSEN"
"""Tells the processes that Lightning starts what the first one chose."""


def resolve(
    command: str, arguments: Sequence[str], *, scale: float = 1.0, known: Sequence[Choice] | None = None
) -> tuple[list[str], list[Choice]]:
    """Return the arguments with values where ``auto`` stood, and what was chosen.

    To train, the data are read for it. To evaluate, the checkpoint's own values are taken.

    Args:
        command: fit, validate or test.
        arguments: The command line after the command; configs by path or by their text.
        scale: What the time that there is makes of the usual size of images, > 0.
        known: What was chosen before, which is then taken; None asks the data.

    Raises:
        DataError: The data cannot be read.
        UsageError: The options of the data are wrong.
    """
    options = options_of(arguments)
    contents = [_content(option) for option in options]
    values = _flat(contents)
    said = {place for content in contents for place, value in flattened(content) if value == AUTO}
    said = set(filter(_is_left, said))
    asked = {place for place in said if values[place] == AUTO}
    if not said:
        return list(arguments), []
    if not asked:
        choices, found = [], {}
    elif command == "fit":
        told = os.environ.get(CHOSEN) if int(os.environ.get("LOCAL_RANK", 0)) > 0 else None
        if told:
            known = [Choice(**c) for c in json.loads(told)]
        choices = _chosen(values, asked, scale) if known is None else list(known)
        os.environ[CHOSEN] = json.dumps([vars(choice) for choice in choices])
        found = {tuple(choice.key.split(".")): choice.value for choice in choices}
    else:
        choices, found = [], _of_checkpoint(value_of(arguments, "--ckpt_path"))
    dropped = said - asked if choices else said  # others say it, or the constructors
    left = [_substituted(content, found, dropped) for content in contents]
    resolved: list[str] = []
    for option, before, after in zip(options, contents, left, strict=True):
        if after == before:
            resolved += option.words
        elif option.name in CONFIG:
            resolved += option.with_value(yaml.safe_dump(after, sort_keys=False, allow_unicode=True))
        elif (value := _at(after, place_of(option.name))) is not None:
            resolved += option.with_value(value if isinstance(value, str) else json.dumps(value))
    return resolved, choices


def asked_places(arguments: Sequence[str]) -> set[Place]:
    """Return the keys that stand at ``auto`` in the end, transforms of a list by their names.

    Args:
        arguments: As in :func:`resolve`.
    """
    return {place for place, value in values_of(arguments).items() if value == AUTO and _is_left(place)}


def values_of(arguments: Sequence[str]) -> dict[Place, Any]:
    """Return the value of each key that a command line speaks of, transforms of a list by their names.

    Args:
        arguments: As in :func:`resolve`.
    """
    return _flat([_content(option) for option in options_of(arguments)])


def last_value(arguments: Sequence[str], key: str) -> Any:
    """Return what the last option or config says of a key, a mapping where it says one; None where none does.

    Args:
        arguments: As in :func:`resolve`.
        key: Its dotted name, without ``init_args``.
    """
    found, missing = None, object()
    for option in options_of(arguments):
        content = _content(option)
        for part in key.split("."):
            content = content.get(part, missing) if isinstance(content, Mapping) else missing
        found = found if content is missing else content
    return found


def processes_of(values: Mapping[Place, Any]) -> int:
    """Return how many processes train together.

    Args:
        values: Of the keys of a config, as :func:`flattened` yields them.
    """
    settings = {".".join(place): value for place, value in values.items()}
    devices = settings.get("trainer.devices", 1)
    number = len(devices) if isinstance(devices, list) else devices
    if not isinstance(number, int) or number < 1:
        number = torch.cuda.device_count() if _on_gpu(settings) else 1
    nodes = settings.get("trainer.num_nodes", 1)
    return number * nodes if isinstance(nodes, int) and nodes > 0 else number


def _on_gpu(settings: Mapping[str, Any]) -> bool:
    accelerator = settings.get("trainer.accelerator", AUTO)
    return accelerator in ("gpu", "cuda") or (accelerator == AUTO and torch.cuda.is_available())


def _flat(contents: Iterable[Any]) -> dict[Place, Any]:
    return {place: value for content in contents for place, value in flattened(content)}


def _is_left(place: Place) -> bool:
    """Return whether ``auto`` at a place leaves it to the data."""
    return ".".join(place) not in OF_OTHERS and place[-1] not in NAMES


def _chosen(values: Mapping[Place, Any], asked: Collection[Place], scale: float) -> list[Choice]:
    """Return what the data choose; nothing where an option of theirs is no value at all, which the parser says."""
    data = None
    try:
        data = make_data(values, ("data",))
        if data is not None and data.splits.train is None:
            return []  # whoever trains on it says so
    except (TypeError, ValueError, AttributeError) as e:
        if isinstance(e, VisionkitError):
            raise
        return []
    name = str(values.get(("data", "class_path"), "the data"))
    if data is None and name.rpartition(".")[2] in visionkit.PUBLIC:
        return []
    choices = [] if data is None else list(make_advice(values, data, scale).choices.values())
    known = {".".join(place) for place in asked if place[0] in ("trainer", *BASES)}  # the parser names others
    if left := sorted(known - {choice.key for choice in choices}):
        raise UsageError(f"{', '.join(left)}: auto, for which {name} chooses nothing: give a value")
    return choices


def make_advice(values: Mapping[Place, Any], data: VisionDataModule[Any] | None = None, scale: float = 1.0) -> Advice:
    """Return what the data of a config choose.

    Args:
        values: Of the keys of a config, as :func:`flattened` yields them.
        data: Its data; None makes them.
        scale: What the time that there is makes of the usual size of images, > 0.
    """
    settings = {".".join(place): value for place, value in values.items()}
    advice = Advice(settings, gpu=_on_gpu(settings), processes=processes_of(values), scale=scale)
    data = make_data(values, ("data",)) if data is None else data
    if data is not None:
        data.advise(advice)
    return advice


def flattened(value: Any, place: Place = ()) -> Iterator[tuple[Place, Any]]:
    """Yield place and value of each key of a config; transforms of a list are keys by their names."""
    if isinstance(value, Mapping) and (value or not place):
        for key, entry in value.items():
            yield from flattened(entry, place if key == "init_args" else (*place, str(key)))
    elif isinstance(value, list) and any(isinstance(entry, Mapping) for entry in value):
        for entry in value:
            yield from flattened(entry, place) if isinstance(entry, Mapping) else iter(((place, entry),))
    else:
        yield place, value


def _content(option: Option) -> Any:
    if option.name in CONFIG:
        path = Path(option.value) if "\n" not in option.value else None
        return bounded_yaml.load_file(path) if path is not None else bounded_yaml.load(option.value, "a config")
    place = place_of(option.name)
    if not place or option.name.endswith(".class_path"):
        return {place[0]: _nested(place[1:], {"class_path": option.value})} if place else {}
    plain = place[-1] == "root" and option.value != "null"  # a path, not YAML
    value: Any = option.value if plain else bounded_yaml.load_value(option.value, option.name)
    return {place[0]: _nested(place[1:], value)}


def _nested(place: Place, value: Any) -> Any:
    for key in reversed(place):
        value = {key: value}
    return value


def _at(content: Any, place: Place) -> Any:
    for key in place:
        content = content[key]
    return content


def _substituted(value: Any, found: Mapping[Place, Any], dropped: Collection[Place], place: Place = ()) -> Any:
    """Return a part of a config with what was found in place of ``auto``, without it where it is dropped."""
    if isinstance(value, Mapping):
        kept = {}
        for key, entry in value.items():
            below = place if key == "init_args" else (*place, str(key))
            if entry == AUTO and below in dropped and below not in found:
                continue
            kept[key] = _substituted(entry, found, dropped, below)
        return kept
    if isinstance(value, list):
        return [_substituted(entry, found, dropped, place) for entry in value]
    return found[place] if value == AUTO and place in found else value


def make_data(values: Mapping[Place, Any], place: Place) -> VisionDataModule[Any] | None:
    """Make the data that a config names, with the options that say what is read; None where it cannot be asked."""
    cls = import_class(str(values.get((*place, "class_path"), "")))
    if cls is None or not issubclass(cls, VisionDataModule):
        return None
    given: dict[str, Any] = {}
    accepted = inspect.signature(cls).parameters
    names = dict.fromkeys(p[len(place) + 1] for p in values if p[: len(place) + 1] == (*place, "datasets"))
    if names:
        parts = {name: make_data(values, (*place, "datasets", name)) for name in names}
        if any(part is None for part in parts.values()):
            return None
        given["datasets"] = parts
    for name in READING:
        own = (*place, name)
        if own in values and (name in accepted or "common" in accepted) and not (values[own] == AUTO and _is_left(own)):
            given[name] = values[own]
    return cls(**given)


def _of_checkpoint(path: str | None) -> dict[Place, Any]:
    """Return the values of keys that a checkpoint's model says."""
    if path is None or not Path(path).is_file():
        return {}
    try:
        model = checkpoints.read(path)[checkpoints.KEY]["model"]
    except DataError:  # whoever takes it says what is wrong with it
        return {}
    parts = {name: model[name] for name in ("backbone", "neck", "head") if isinstance(model.get(name), Mapping)}
    seen = model.get("preprocessing")
    data = seen.get("init_args", {}) if isinstance(seen, Mapping) else {}
    return dict(flattened({"model": parts, "data": data}))
