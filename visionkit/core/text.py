"""Text that comes from files and names: shown so that it cannot act on a terminal or forge a line."""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Sequence
from typing import Any

__all__ = ["cell", "is_printable", "printable", "say", "shortened"]

_ACTING = ("Cc", "Cs", "Zl", "Zp")  # control characters, halves of characters (bytes that are no text), ends of lines
_FORMULA = ("=", "+", "-", "@")
_TURNING = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")  # order of writing


def is_printable(text: str) -> bool:
    """Return whether a text is one line that only shows: no control character, nothing that turns the writing."""
    return text.isprintable() or not any(map(_acts, text))


def printable(text: object) -> str:
    r"""Return a text as one line that only shows; what would act is escaped, as ``\x1b``.

    Letters of any script stay. Bytes of a file name that are no text show as ``\udcff``.

    Args:
        text: Any object; its ``str`` is taken.
    """
    words = str(text)
    return words if is_printable(words) else "".join(_escaped(c) if _acts(c) else c for c in words)


def cell(value: Any) -> Any:
    """Return what stands for a value in a CSV table: numbers as they are, text that no spreadsheet takes for a formula.

    Text that begins with ``=``, ``+``, ``-`` or ``@`` and is no number gets a ``'`` before it, which spreadsheets take
    for "this is text". Control characters are escaped, but for those that text of several lines has.
    """
    if not isinstance(value, str):
        return value
    words = "".join(c if c in "\n\t" else printable(c) for c in value)
    return f"'{words}" if words.lstrip()[:1] in _FORMULA and not _is_number(words) else words


def say(*lines: object, error: bool = False) -> None:
    """Print lines to the user, each one made printable: the one way that words reach a terminal.

    Args:
        lines: One line each; what holds several is cut into them by the caller.
        error: Whether they go to standard error.
    """
    stream = sys.stderr if error else sys.stdout
    for line in lines:
        print(printable(line), file=stream)  # this is what it is for
    stream.flush()


def shortened(lines: Sequence[str], most: int = 10) -> list[str]:
    """Return the first lines and how many more there are.

    Args:
        lines: Any number.
        most: How many are kept.
    """
    more = [f"... and {len(lines) - most} more"] if len(lines) > most else []
    return [*lines[:most], *more]


def _is_number(words: str) -> bool:
    try:
        float(words)
    except ValueError:
        return False
    return True


def _acts(character: str) -> bool:
    return unicodedata.category(character) in _ACTING or character in _TURNING


def _escaped(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")
