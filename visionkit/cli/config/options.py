"""The words of a command line, put together as options with their values."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

from visionkit.models.run_folder import SUFFIXES, is_checkpoint

__all__ = ["CONFIG", "TRUST", "Option", "each_checkpoint", "options_of", "value_of"]

CONFIG = ("-c", "--config")
TRUST = "--trust"
"""Names a package beside visionkit whose classes a checkpoint may name."""


class Option(NamedTuple):
    """An option of a command line, or a word that is none.

    Args:
        words: As they stand there, one or two.
        name: The option with its dashes.
        value: What is given to it; "" for nothing.
    """

    words: tuple[str, ...]
    name: str
    value: str

    def with_value(self, value: str) -> tuple[str, ...]:
        """Return the words with another value."""
        return (self.name, value) if len(self.words) == 2 else (f"{self.name}={value}",)


def options_of(arguments: Sequence[str]) -> list[Option]:
    """Return the options of a command line, in order."""
    found: list[Option] = []
    k = 0
    while k < len(arguments):
        words = tuple(arguments[k : k + 2])
        name, equals, value = words[0].partition("=")
        if equals or not name.startswith("-") or len(words) < 2 or _is_option(words[1]):
            words = words[:1]
        else:
            value = words[1]
        found.append(Option(words, name, value))
        k += len(words)
    return found


def value_of(arguments: Sequence[str], name: str) -> str | None:
    """Return the last value of an option, None without one."""
    return next((o.value for o in reversed(options_of(arguments)) if o.name == name and o.value), None)


def each_checkpoint(arguments: Sequence[str], names: Collection[str]) -> list[str]:
    """Return a command line in which ``--ckpt A B`` is ``--ckpt A --ckpt B``, and pictures may still follow.

    The first word behind the option is a checkpoint, whatever it looks like; further ones are where they are a
    checkpoint or the folder of a run, or are called like one and are nothing else.

    Args:
        arguments: The words.
        names: Of the option.
    """
    words: list[str] = []
    left = list(arguments)
    while left:
        word = left.pop(0)
        name, equals, _ = word.partition("=")
        words.append(word)
        if name not in names:
            continue
        if not equals and left and not _is_option(left[0]):
            words.append(left.pop(0))
        while left and _may_be_checkpoint(left[0]):
            words += [name, left.pop(0)]
    return words


def _may_be_checkpoint(word: str) -> bool:
    """Return whether a word is a checkpoint or the folder of a run, or what is mistyped may have been meant as one."""
    if word.startswith("-") or "=" in word:
        return False
    named = word.endswith(SUFFIXES) or not (Path(word).suffix or any(mark in word for mark in "*?[:"))
    return is_checkpoint(word) or (named and not os.path.lexists(word))


def _is_option(word: str) -> bool:
    return word.startswith("--") or word.partition("=")[0] in CONFIG
