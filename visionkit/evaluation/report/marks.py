"""What stands in the page's text: numbers that say where they come from, and names that are strangers' text."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

from markupsafe import Markup

from visionkit.core.page import escape

__all__ = ["Facts", "Number", "counted", "is_number", "join", "name", "pointer", "say", "short"]

FORMS = {
    "share": "{:.1%}",
    "percent": "{:.0%}",
    "score": "{:.3f}",
    "count": "{:,.0f}",
    "gain": "{:+.3f}",
    "seconds": "{:.3g}",
}
"""How numbers are shown, by kind."""
EVALUATION = "evaluation.json"
_LONGEST = 100  # letters of a name


@dataclass(frozen=True)
class Number:
    """A number of the page.

    It is an element ``<data>`` that holds the whole value and, as ``data-key``, where it is read: a file and a pointer
    into it (RFC 6901), such as ``evaluation.json#/metrics/top1/value``. A pointer to a list stands for the sum of what
    is in it, of texts for how many there are, ``P@diagonal`` for the sum of a table's diagonal, ``P / Q`` for a
    quotient, ``FILE?class=3&size=small`` for what is counted in a file.

    Args:
        value: The value.
        key: Where it is read.
        form: How it is shown, one of :data:`FORMS`.
    """

    value: float
    key: str
    form: str = "count"

    def __html__(self) -> Markup:
        """Return it as an element."""
        element = f'<data value="{self.value:.12g}" data-key="{escape(self.key)}">{self.shown}</data>'
        return Markup(element)  # noqa: S704  # it is escaped

    @property
    def shown(self) -> str:
        """The number as it is read."""
        text = FORMS[self.form].format(self.value)
        return text.replace("%", "\N{NO-BREAK SPACE}%")


class Facts:
    """The numbers of an evaluation, found by their place; what is not there, or no number, is None.

    Args:
        told: What ``evaluation.json`` holds.
    """

    def __init__(self, told: Mapping[str, Any]) -> None:
        self.told = told

    def get(self, *path: str | int) -> Any:
        """Return what lies at a place, or None."""
        found: Any = self.told
        for part in path:
            if isinstance(found, Mapping):
                found = found.get(str(part))
            elif isinstance(found, list) and isinstance(part, int) and 0 <= part < len(found):
                found = found[part]
            else:
                return None
        return found

    def mapping(self, *path: str | int) -> Mapping[str, Any]:
        """Return the mapping at a place; an empty one where there is none."""
        found = self.get(*path)
        return found if isinstance(found, Mapping) else {}

    def rows(self, *path: str | int) -> list[Any]:
        """Return the list at a place; an empty one where there is none."""
        found = self.get(*path)
        return found if isinstance(found, list) else []

    def number(self, *path: str | int, form: str = "count") -> Number | None:
        """Return the number at a place, or None."""
        found = self.get(*path)
        return Number(found, pointer(*path), form) if is_number(found) else None

    def text(self, *path: str | int) -> str:
        """Return the text at a place, or ""."""
        found = self.get(*path)
        return found if isinstance(found, str) else ""

    def quote(self, *path: str | int) -> Markup:
        """Return the text at a place as it stands there, with the place; nothing where there is none."""
        text = self.text(*path)
        return say('<span data-key="{}">{}</span>', pointer(*path), text) if text else Markup("")


def is_number(value: object) -> TypeGuard[float]:
    """Return whether a value is a finite number, as a float holds it."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def pointer(*path: str | int, file: str = EVALUATION) -> str:
    """Return where a value lies in a file: its name, ``#`` and a pointer (RFC 6901)."""
    return f"{file}#{''.join('/' + str(part).replace('~', '~0').replace('/', '~1') for part in path)}"


def name(text: object) -> Markup:
    """Return a name of somebody else's: escaped, and isolated so that its script turns no other text."""
    return Markup(f"<bdi>{escape(short(text))}</bdi>")  # noqa: S704  # it is escaped


def short(text: object) -> str:
    """Return a name of somebody else's, cut where it is very long."""
    words = str(text)
    return words if len(words) <= _LONGEST else f"{words[: _LONGEST - 1]}…"


def say(words: str, *parts: object, **named: object) -> Markup:
    """Return a sentence; ``{}`` in it takes numbers and marks as they are, and texts escaped.

    Args:
        words: Own words.
        parts: For each ``{}``.
        named: For each ``{name}``.
    """
    return Markup(words).format(*map(_part, parts), **{k: _part(v) for k, v in named.items()})  # noqa: S704  # own words


def join(parts: Sequence[object], between: str = ", ") -> Markup:
    """Return parts one after another."""
    return Markup(between).join(map(_part, parts))  # noqa: S704  # own words


def counted(count: int, key: str, one: str, many: str | None = None) -> Markup:
    """Return a number of things: ``1 picture``, ``12 pictures``.

    Args:
        count: How many.
        key: Where that is read.
        one: What one is called.
        many: What several are called; None for the same with an s.
    """
    return say("{} {}", Number(count, key), one if count == 1 else many or f"{one}s")


def _part(value: object) -> Any:
    return value if hasattr(value, "__html__") else Markup(escape(value))  # noqa: S704  # it is escaped
