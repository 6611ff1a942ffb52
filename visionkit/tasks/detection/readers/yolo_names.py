"""Class names of a YOLO data set: those of its data.yaml or of a file of names; and the reading of data.yaml."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from visionkit.core.errors import DataError
from visionkit.core.files import read_text
from visionkit.data.labels.classes import check_class_names, check_lines, numbered_names
from visionkit.data.labels.names import same_folder

__all__ = [
    "MAX_CLASSES",
    "NAME_FILES",
    "as_written",
    "load_data",
    "names_beside",
    "names_file",
    "names_of",
    "names_with",
    "read_names",
    "shown",
]

MAX_CLASSES = 10_000  # without names; a larger class id is a broken file
NAME_FILES = ("classes.txt", "obj.names", "names.txt")
_INDEX = re.compile("0|[1-9][0-9]{0,5}")  # a class id that is written as text


class _Written(int):
    """A whole number that YAML makes of other words than its digits: 8 of ``010``, 10 of ``1_0``, 90 of ``1:30``."""

    text: str


def as_written(value: Any) -> str:
    """Return a text or whole number of a data.yaml as it is written there."""
    return value.text if isinstance(value, _Written) else str(value)


def shown(value: Any) -> str:
    """Return a value for a message; aliases of YAML can make a list endless to print."""
    if isinstance(value, list | dict | set):
        return f"a {type(value).__name__}"
    return as_written(value)[:40] if isinstance(value, _Written) else repr(value)[:40]


def load_data(file: Path) -> dict[str, Any]:
    """Return what a data.yaml holds.

    Raises:
        DataError: It is no YAML with keys, or a key stands twice.
    """
    try:
        content = yaml.load(read_text(file), Loader=_Once)  # noqa: S506  # a safe one
    except yaml.YAMLError as e:
        mark = getattr(e, "problem_mark", None)
        where = f"{file}:{mark.line + 1}" if mark is not None else str(file)
        raise DataError(
            f"{where}: no valid YAML ({getattr(e, 'problem', None) or 'see the line'}); correct it"
        ) from None
    except RecursionError:
        raise DataError(f"{file}: no valid YAML (nested too deep); correct it") from None
    except ValueError as e:  # a date that is none, for example
        why = "a number of thousands of digits" if "digits" in str(e) else e
        raise DataError(f"{file}: no valid YAML ({why}); correct it") from None
    if not isinstance(content, dict):
        raise DataError(f"{file}: holds no keys; write train:, val: and names:")
    return content


class _Once(yaml.SafeLoader):
    """Refuses a key that stands twice in a mapping: the last would win without a word. Numbers know how they stood."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Return the mapping."""
        seen: set[Any] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value != "<<":
                value = self.construct_object(key)
                same = (key.tag == "tag:yaml.org,2002:str", value)  # 1, 01 and 1.0 are one key
                if same in seen:
                    raise yaml.constructor.ConstructorError(
                        problem=f"the key {key.value!r} stands twice", problem_mark=key.start_mark
                    )
                seen.add(same)
        return super().construct_mapping(node, deep)

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        """Return a whole number, with its words where they are others than its digits."""
        value = int(super().construct_yaml_int(node))
        if str(value) == node.value:
            return value
        other = _Written(value)
        other.text = node.value
        return other


_Once.add_constructor("tag:yaml.org,2002:int", _Once.construct_yaml_int)


def names_of(file: Path, content: dict[str, Any]) -> tuple[str, ...] | None:
    """Return the class names of a data.yaml by id, as they are written; their numbers where only ``nc`` is there.

    Args:
        file: The data.yaml, for messages.
        content: What it holds.

    Raises:
        DataError: They are no names, YAML reads them as something else, or they are not as many as ``nc``.
    """
    names, count = content.get("names"), content.get("nc")
    if isinstance(count, str) and _INDEX.fullmatch(count):
        count = int(count)
    if count is not None and (isinstance(count, bool) or not isinstance(count, int)):
        raise DataError(f"{file}: nc is {shown(count)}, no number of classes; correct it or leave it out")
    if names is None:
        known = count is not None and 0 < count <= MAX_CLASSES
        return tuple(map(str, range(count))) if known else None  # type: ignore[arg-type]
    if isinstance(names, dict):
        strange = next((k for k in names if isinstance(k, bool | _Written)), None)
        if strange is not None:
            what = f"as {as_written(strange)}" if isinstance(strange, _Written) else "yes or no"
            raise DataError(f"{file}: names: a class is numbered {what}; number the classes from 0 without gaps")
        numbered = [(int(k) if isinstance(k, str) and _INDEX.fullmatch(k) else k, v) for k, v in names.items()]
        if len(dict(numbered)) < len(numbered):
            raise DataError(f"{file}: names: a class has two names, as a number and as text; keep one of them")
        names = dict(numbered)
        absent = [i for i in range(len(names)) if i not in names]
        if absent:
            raise DataError(f"{file}: names: no name for class {absent[0]}; number the classes from 0 without gaps")
        names = [names[i] for i in range(len(names))]
    if not isinstance(names, list) or not names:
        raise DataError(f"{file}: names: {shown(names)} is no list of names; write names: [cat, dog]")
    for i, name in enumerate(names):
        if isinstance(name, bool) or not isinstance(name, str | int) or not str(name).strip():
            raise DataError(f"{file}: names: class {i} is {shown(name)}; put the name into quotes")
    if count is not None and count != len(names):
        raise DataError(f"{file}: nc is {count}, but there are {len(names)} names; correct one of them")
    return _each_once(tuple(as_written(n).strip() for n in names), f"{file}: names")


def names_with(file: Path, content: dict[str, Any], folder: Path) -> tuple[str, ...] | None:
    """Return the class names of a data.yaml, or where it has none those of a file beside.

    Args:
        file: The data.yaml, for messages.
        content: What it holds.
        folder: The folder of the data set.

    Raises:
        DataError: Names are wrong, not as many as ``nc``, or in another order than in the file beside.
    """
    names = names_of(file, content)
    if content.get("names") is None:
        beside = names_beside(folder)
        if names is not None and beside is not None and len(names) != len(beside):
            raise DataError(
                f"{file}: nc is {len(names)}, but {names_file(folder)} has {len(beside)} names; correct one of them"
            )
        return beside or names
    try:
        beside = names_beside(folder)
    except DataError:  # not what counts
        return names
    if names is not None and beside is not None and names != beside and sorted(names) == sorted(beside):
        raise DataError(
            f"{file}: names has the classes in another order than {names_file(folder)}, and labels count in one of "
            "them; keep the right one"
        )
    return names


def names_file(folder: Path) -> Path | None:
    """Return the file of class names in a folder or its labels/, or None."""
    return next(iter(_names_files(folder)), None)


def _names_files(folder: Path) -> list[Path]:
    places = [folder, *filter(None, [same_folder(folder, "labels")])]
    return [f for p in places for n in NAME_FILES if (f := p / n).is_file()]


def names_beside(folder: Path) -> tuple[str, ...] | None:
    """Return the class names of a file in a folder or its labels/, a line each; None where there is none.

    Lines may have the id before or behind the name, all of them alike.

    Raises:
        DataError: A line is no name, a name comes twice, ids are not those from 0 without gaps, or two files differ.
    """
    files = _names_files(folder)
    found = {file: read_names(file) for file in files}
    other = next((f for f in files if found[f] != found[files[0]]), None)
    if other is not None:
        raise DataError(f"{folder}: {files[0]} and {other} name the classes differently; keep one of them")
    return found[files[0]] if files else None


def read_names(file: Path) -> tuple[str, ...]:
    """Return the class names of a file, a line each.

    Raises:
        DataError: As :func:`names_beside`.
    """
    lines = [line.strip() for line in read_text(file).rstrip().split("\n")]
    for number, line in enumerate(lines, 1):
        if not line:
            raise DataError(f"{file}:{number}: an empty line; write the name of class {number - 1}")
    check_lines(list(enumerate(lines, 1)), file)
    numbered = numbered_names(lines)
    if numbered is not None:
        absent = next((i for i in range(len(lines)) if i not in numbered), None)
        if absent is not None:
            raise DataError(f"{file}: no name for class {absent}; number the classes from 0 without gaps")
        lines = [numbered[i] for i in range(len(lines))]
    elif len(lines) > 1 and all(re.match(rf"{i}[\s:=,;.)]", line) for i, line in enumerate(lines, 1)):
        raise DataError(
            f"{file}:1: {lines[0]!r:.40}: the lines are numbered from 1, and YOLO counts from 0; number them so, or "
            "leave the numbers out (those that belong to the names: names: ['1 cent', ...] in data.yaml)"
        )
    return _each_once(tuple(lines), str(file))


def _each_once(names: tuple[str, ...], where: str) -> tuple[str, ...]:
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise DataError(f"{where}: {', '.join(twice)} comes twice; give each class its own name")
    return check_class_names(names, where)
