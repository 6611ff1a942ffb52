"""The part of a complete config that its files and the command line speak of; all else are defaults of the classes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import yaml

from visionkit.cli.config import bounded_yaml, configs
from visionkit.cli.config.classes import Place, is_class
from visionkit.cli.config.options import CONFIG, options_of

__all__ = ["shortened_config"]

AUTO = "auto"
"""The word that leaves a value to the data."""

Tree = dict[str, Any]
"""Keys that are spoken of, with those below each; None for all below."""


def shortened_config(
    config: Mapping[str, Any], arguments: Sequence[str], auto: Collection[Place] = ()
) -> dict[str, Any]:
    """Return a config that means the same with the keys alone that somebody has set.

    Args:
        config: The complete one, plain data, that was made of the arguments.
        arguments: A command line of keys, with paths of configs.
        auto: Keys that were left to the data, and are so again: the config may be meant for others.
    """
    spoken: Tree = {}
    for file in configs.paths(arguments):
        _add(spoken, _tree(configs.content_of(file)))
    for option in options_of(arguments):
        if option.name.startswith("--") and option.name not in CONFIG:
            tree: Tree | None = _tree_of(option.value)
            for key in reversed(option.name.removeprefix("--").removesuffix("+").split(".")):
                tree = tree if key in ("init_args", "class_path") else {key: tree}
            _add(spoken, tree or {})
    kept = {key: _kept(value, spoken[key]) for key, value in config.items() if key in spoken}
    return {key: _with_auto(value, auto, (key,)) for key, value in kept.items()}


def _tree_of(value: str) -> Tree | None:
    """Return what the value of an option speaks of."""
    if value.endswith(bounded_yaml.YAML_FILES):
        return None  # a part of a config
    try:
        read = yaml.safe_load(value) if value.lstrip().startswith("{") else value
    except yaml.YAMLError:
        return None
    return _tree(read)


def _tree(value: Any) -> Tree:
    """Return the keys of a config, classes with their arguments in one."""
    if not isinstance(value, Mapping):
        return {}
    found: Tree = {}
    for key, below in value.items():
        if key == "init_args":
            _add(found, _tree(below))
        elif key != "class_path":
            found[str(key)] = None if str(below).endswith(bounded_yaml.YAML_FILES) else _tree(below)
    return found


def _add(tree: Tree, other: Tree) -> None:
    for key, below in other.items():
        if tree.setdefault(key, below) is not None:
            if below is None:
                tree[key] = None
            elif below is not tree[key]:
                _add(tree[key], below)


def _kept(value: Any, spoken: Tree | None) -> Any:
    if spoken is None or not isinstance(value, Mapping):
        return value
    if is_class(value):
        given = value.get("init_args")
        kept = _below(given, spoken) if isinstance(given, Mapping) else {}
        return {"class_path": value["class_path"], **({"init_args": kept} if kept else {})}
    return _below(value, spoken) if spoken else value  # a mapping that was given as a whole


def _with_auto(value: Any, auto: Collection[Place], place: Place = ()) -> Any:
    """Return a part of a config with ``auto`` at these keys; transforms of a list are keys by their names."""
    if isinstance(value, list):
        return [_with_auto(entry, auto, place) for entry in value]
    if not isinstance(value, Mapping):
        return AUTO if place in auto else value
    return {k: _with_auto(v, auto, place if k == "init_args" else (*place, str(k))) for k, v in value.items()}


def _below(value: Mapping[str, Any], spoken: Tree) -> dict[str, Any]:
    return {key: _kept(below, spoken[str(key)]) for key, below in value.items() if str(key) in spoken}
