"""YAML of configs and values, bounded before it is built: depth, size with aliases written out, digits, double keys."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from visionkit.core.errors import DataError, UsageError
from visionkit.core.files import read_text

__all__ = ["MAX_BYTES", "YAML_FILES", "check", "fault", "load", "load_file", "load_value", "read"]

MAX_BYTES = 1_000_000  # of a config
MAX_DEPTH = 50  # of lists and mappings in each other
MAX_NODES = 100_000  # values, with those that aliases stand for
MAX_DIGITS = 400  # of a number
YAML_FILES = (".yaml", ".yml", ".json")
"""Endings of files that options and configs may name in place of a mapping."""
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
NUMBER = re.compile(r"[-+0-9][-+0-9_a-fA-FxXoO.:]*")


def load_file(path: Path) -> Any:
    """Return what a YAML file holds.

    Raises:
        UsageError: It cannot be read, is no YAML, or is over a bound; with the line.
    """
    return load(read(path), str(path))


def read(path: Path) -> str:
    """Return the text of a config.

    Raises:
        UsageError: It cannot be read, or is too large for a config.
    """
    try:
        return read_text(path, limit=MAX_BYTES)
    except DataError as e:  # a config is what was asked
        raise UsageError(*e.lines) from e


def load(text: str, name: str) -> Any:
    """Return what a text holds.

    Args:
        text: YAML.
        name: Of the file or option, for messages.

    Raises:
        UsageError: It is no YAML, or over a bound; with the line.
    """
    try:
        check(text, name)
        return yaml.load(text, Loader=LOADER)  # noqa: S506  # both are safe
    except yaml.YAMLError as e:
        raise UsageError(fault(e, text, name)) from e
    except (ValueError, LookupError, AttributeError, TypeError) as e:  # 2024-13-45, or a tag that does not fit
        raise UsageError(f"{name}: not valid YAML: {' '.join(str(e).split())}") from e


def load_value(text: str, name: str) -> Any:
    """Return what is meant by a value on the command line; None for a word that is no YAML.

    Raises:
        UsageError: It is over a bound.
    """
    try:
        check(text, name)
        return yaml.load(text, Loader=LOADER)  # noqa: S506
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError):
        return None


def fault(e: yaml.YAMLError, text: str, name: str) -> str:
    """Return what is wrong with a text that is no YAML, in a line."""
    mark = getattr(e, "problem_mark", None)
    position = getattr(e, "position", None)  # in bytes, of a character that YAML does not have
    line = mark.line + 1 if mark else 1 if position is None else text.encode()[:position].count(b"\n") + 1
    problem = getattr(e, "problem", None) or str(e).splitlines()[0]
    return f"{name}:{line}: not valid YAML: {problem}"


@dataclass
class _Open:
    """A list or mapping that has begun."""

    anchor: str | None
    line: int
    mapping: bool
    nodes: int = 1
    entries: int = 0
    keys: dict[str, int] = field(default_factory=dict)  # with their lines


def check(text: str, name: str) -> None:
    """Refuse a text that would take more time or memory than a config may, from its events, before it is built.

    Args:
        text: YAML.
        name: Of the file or option, for messages.

    Raises:
        UsageError: It is too deep or too large, an alias stands inside of what it names, a number is too long, or a key
            stands twice in a mapping.
        yaml.YAMLError: It is no YAML.
    """
    sizes: dict[str, int] = {}
    opened: list[_Open] = []

    def refuse(line: int, why: str) -> UsageError:
        return UsageError(f"{name}:{line}: {why}" if "\n" in text else f"{name}: {why}")

    for event in _events(text):
        mark = event.start_mark
        line = mark.line + 1 if mark else 1
        if isinstance(event, yaml.CollectionStartEvent):
            if opened:
                opened[-1].entries += 1
            opened.append(_Open(event.anchor, line, isinstance(event, yaml.MappingStartEvent)))
            if len(opened) > MAX_DEPTH:
                raise refuse(line, f"lists and mappings stand in each other more than {MAX_DEPTH} deep")
            continue
        if isinstance(event, yaml.CollectionEndEvent):
            closed = opened.pop()
            nodes = closed.nodes
            if closed.anchor is not None:
                sizes[closed.anchor] = nodes
        elif isinstance(event, yaml.AliasEvent):
            if any(o.anchor == event.anchor for o in opened):
                raise refuse(line, f"*{event.anchor} stands inside of what it names")
            nodes = sizes.get(str(event.anchor), 1)
            _count(opened)
        elif isinstance(event, yaml.ScalarEvent):
            nodes = 1
            if event.anchor is not None:
                sizes[event.anchor] = 1
            if event.implicit[0] and len(event.value) > MAX_DIGITS and NUMBER.fullmatch(event.value):
                raise refuse(line, f"a number of more than {MAX_DIGITS} digits")
            if _count(opened) and event.value != "<<":
                keys = opened[-1].keys
                if event.value in keys:
                    first = keys[event.value]
                    raise refuse(line, f"the key {event.value!r} stands in line {first} already; take one out")
                keys[event.value] = line
        else:
            continue
        if opened:
            opened[-1].nodes += nodes
            nodes = opened[-1].nodes
        if nodes > MAX_NODES:
            raise refuse(line, f"holds more than {MAX_NODES:,} values when its aliases are written out")


def _events(text: str) -> Iterator[yaml.Event]:
    events: Iterator[yaml.Event] = yaml.parse(text, Loader=LOADER)
    return events


def _count(opened: list[_Open]) -> bool:
    """Count an entry of the list or mapping that is open, and return whether it is a key."""
    if not opened:
        return False
    opened[-1].entries += 1
    return opened[-1].mapping and opened[-1].entries % 2 == 1
