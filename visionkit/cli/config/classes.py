"""Another class in place of the config's: it starts from its own defaults, not from the values of the former one.

Lightning's parser keeps the values of a class for the one that takes its place, where that has arguments of the same
names. But ``nms_threshold: 0.6`` was said of one detector, not of another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard

import yaml

from visionkit.cli.config import bounded_yaml
from visionkit.cli.config.descriptions import BASES, keys_of_form
from visionkit.cli.config.options import CONFIG, Option, options_of
from visionkit.core.errors import UsageError

__all__ = ["WHOLE", "Place", "classes_in", "drop_replaced", "is_class", "is_same", "place_of", "taken_classes"]

WHOLE = tuple(BASES)
"""Where another class keeps what is said of the former: a task of the user's own with the parts of the config."""
Place = tuple[str, ...]
"""Keys that lead to a class, without ``init_args``."""


def drop_replaced(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with the text of a config in place of its path, where others replace classes of it.

    A class that is not the one taken in the end makes room for that, and its arguments are gone. What a file or an
    option says without naming a class, or beside the right one, counts wherever it stands. So does null for a key of
    one of several classes, such as heads, which goes into the config's text.

    Args:
        arguments: The command line after the command, with paths of configs.
    """
    options = options_of(arguments)
    files = _contents(options)
    taken = taken_classes(options)
    left = [_settled(content, taken) for content in files]
    moved = _move_nulls(options, left)
    dropped: list[str] = []
    for k, (option, content) in enumerate(zip(options, files, strict=True)):
        if k not in moved:
            same = left[k] == content
            dropped += option.words if same else option.with_value(yaml.safe_dump(left[k], sort_keys=False))
    return dropped


def taken_classes(options: Sequence[Option]) -> dict[Place, str]:
    """Return the class that is taken in the end at each place: the last that a config or an option names."""
    taken: dict[Place, str] = {}
    for option, content in zip(options, _contents(options), strict=True):
        taken |= classes_in(content)
        if (place := place_of(option.name)) and (name := _named(option.name, option.value, known=place in taken)):
            taken[place] = name
    return taken


def _contents(options: Sequence[Option]) -> list[Any]:
    return [_load(Path(option.value)) if option.name in CONFIG and option.value else {} for option in options]


def _move_nulls(options: Sequence[Option], files: list[Any]) -> set[int]:
    """Write ``--model.heads.NAME.key null`` into the config that names the class; return the options that go for it.

    The parser takes null for a key of a class under a name of the user's in a config, but not on the command line; nor
    one entry of a mapping there, ``--model.heads.NAME.losses.dice 0.5``.
    """
    moved: set[int] = set()
    named = keys_of_form("named")
    for k, option in enumerate(options):
        place = place_of(option.name)
        if len(place) < 4 or place[1] not in named or not (option.value == "null" or len(place) == 5):
            continue
        owner = place[:-1] if option.value == "null" and len(place) == 4 else place[:3]
        home = next((j for j in range(len(files) - 1, -1, -1) if owner in classes_in(files[j])), None)
        if home is not None and place[:4] not in classes_in(files[home]):
            files[home] = _with_value(files[home], place, bounded_yaml.load_value(option.value, option.name))
            moved |= {j for j in range(k + 1) if place_of(options[j].name)[: len(place)] == place}  # it says last
    return moved


def _with_value(content: Any, place: Place, value: Any) -> dict[str, Any]:
    """Return a config in which a value stands at a place below a class."""
    changed = dict(content) if isinstance(content, Mapping) else {}
    if is_class(content) and place[0] != "class_path":
        return {**changed, "init_args": _with_value(content.get("init_args"), place, value)}
    changed[place[0]] = value if len(place) == 1 else _with_value(changed.get(place[0]), place[1:], value)
    return changed


def is_class(value: Any) -> TypeGuard[Mapping[str, Any]]:
    """Return whether a part of a config is a class with its arguments."""
    return isinstance(value, Mapping) and "class_path" in value


def is_same(name: str, other: str) -> bool:
    """Return whether two names stand for one class: visionkit's have short ones, others where they are imported."""
    (module, _, last), (other_module, _, other_last) = name.rpartition("."), other.rpartition(".")
    ours = all(m.partition(".")[0] == "visionkit" for m in (module, other_module))
    return last == other_last and (module == other_module or not module or not other_module or ours)


def place_of(option: str) -> Place:
    """Return which class an option may name, () for none."""
    if not option.startswith("--") or option.endswith("+") or option in CONFIG:  # + adds to a list
        return ()
    keys = tuple(key for key in option[2:].split(".") if key != "init_args")
    return keys[:-1] if keys[-1] == "class_path" else keys


def _named(option: str, value: str, *, known: bool) -> str | None:
    """Return the class that an option names, None where it names none."""
    if option.endswith(".class_path"):
        return value
    is_file = value.endswith(bounded_yaml.YAML_FILES)
    content: Any = _load(Path(value)) if is_file else bounded_yaml.load_value(value, option)
    if isinstance(content, Mapping) and isinstance(content.get("class_path"), str):
        return str(content["class_path"])
    return content if known and isinstance(content, str) else None  # a class stands in its place: a word is another


def _load(path: Path) -> dict[str, Any]:
    """Return the mapping in a file, {} where there is none; whoever reads it next says what is wrong with it."""
    try:
        content = bounded_yaml.load_file(path)
    except UsageError:
        return {}
    return content if isinstance(content, dict) else {}


def classes_in(value: Any, place: Place = ()) -> dict[Place, str]:
    """Return the classes below a place."""
    found: dict[Place, str] = {}
    if isinstance(value, Mapping):
        for key, entry in value.items():
            if key == "class_path" and isinstance(entry, str):
                found[place] = entry
            else:
                found |= classes_in(entry, place if key == "init_args" else (*place, str(key)))
    return found


def _settled(value: Any, taken: Mapping[Place, str], place: Place = ()) -> Any:
    """Return a part of a config with the classes that are taken."""
    if not isinstance(value, Mapping):
        return value
    cls = value.get("class_path")
    if isinstance(cls, str) and place in taken and ".".join(place) not in WHOLE and not is_same(cls, taken[place]):
        return {"class_path": taken[place]}
    return {
        key: _settled(entry, taken, place if key == "init_args" else (*place, str(key))) for key, entry in value.items()
    }
