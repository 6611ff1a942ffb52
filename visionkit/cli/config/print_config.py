"""The config that --print_config prints: each key with its explanation, type and default."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from visionkit import __version__
from visionkit.cli.config.classes import is_class
from visionkit.cli.config.configs import TOP
from visionkit.cli.config.described import Described
from visionkit.cli.config.descriptions import TRAINER, describe
from visionkit.cli.config.options import options_of
from visionkit.cli.config.train_help import CKPT, WIDTH
from visionkit.core.errors import UsageError

__all__ = ["PRINT", "asked_to_print", "printed"]


PRINT = "--print_config"


def asked_to_print(arguments: Sequence[str]) -> tuple[list[str], str | None]:
    """Return a command line with ``--print_config`` alone where it is asked for, and how: short, full, or None.

    Raises:
        UsageError: It is given another word.
    """
    asked: str | None = None
    kept: list[str] = []
    for option in options_of(arguments):
        if option.name == PRINT:
            asked = option.value or "short"
            if asked not in ("short", "full"):
                raise UsageError(f"{PRINT} {asked}: short, the keys that are set, or full, all keys")
        else:
            kept += option.words
    return (kept if asked is None else [*kept, PRINT]), asked


def printed(config: Mapping[str, Any], command: str, *, full: bool) -> str:
    """Return a config as YAML with comments.

    Args:
        config: Plain data, as the parser dumps it.
        command: fit, validate or test.
        full: Whether it holds all keys.
    """
    what = "the complete config of a" if full else "the keys that are set (full prints all) of a"
    lines = [f"# visionkit {__version__}: {what} visionkit {command}"]
    comments = {**TOP, "ckpt_path": f"{CKPT.get(command, CKPT['validate']).capitalize()}."}
    for key, value in config.items():
        lines += ["", *_comment(comments.get(key, ""), 0)]
        if key == "trainer" and isinstance(value, Mapping):
            lines += [f"{key}:", *_arguments(value, describe(TRAINER), 1)]
        else:
            lines += _entry(key, value, 0)
    return "\n".join(lines) + "\n"


def _entry(key: Any, value: Any, depth: int) -> list[str]:
    """Return the lines of a key: a class with its arguments, classes under names of the user's, or plain data."""
    indent = "  " * depth
    if is_class(value):
        lines = [f"{indent}{key}:", f"{indent}  class_path: {value['class_path']}"]
        if isinstance(init_args := value.get("init_args"), Mapping) and init_args:
            cls = describe(str(value["class_path"]))
            lines += ["", *_comment("" if cls is None else cls.summary, depth + 1), f"{indent}  init_args:"]
            lines += _arguments(init_args, cls, depth + 2)
        return lines
    if isinstance(value, Mapping) and value and all(map(is_class, value.values())):
        return [f"{indent}{key}:", *(line for name, v in value.items() for line in _entry(name, v, depth + 1))]
    text = yaml.dump({key: value}, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10_000)
    return textwrap.indent(text, indent).splitlines()


def _arguments(given: Mapping[str, Any], cls: Described | None, depth: int) -> list[str]:
    """Return the lines of a class's arguments with their explanations."""
    lines = []
    for name, value in given.items():
        argument = None if cls is None else cls.arguments.get(name)
        lines += ["", *_comment("" if argument is None else argument.explain(), depth)]
        if argument is not None and argument.form == "settings" and isinstance(value, Mapping):
            lines += [f"{'  ' * depth}{name}:", *_arguments(value, describe(argument.kind), depth + 1)]
        else:
            lines += _entry(name, value, depth)
    return lines


def _comment(text: str, depth: int) -> list[str]:
    indent = "  " * depth + "# "
    return textwrap.wrap(text, WIDTH, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)


class _Dumper(yaml.SafeDumper):
    """Writes a value as a person would in a config: lists and mappings below their key."""

    def ignore_aliases(self, data: Any) -> bool:
        """Write a value that stands in two places twice."""
        return True
