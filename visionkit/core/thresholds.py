"""Thresholds: from which score on a class counts, one number a class, and the rule that chose them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Self

from visionkit.core.errors import DataError
from visionkit.core.text import is_printable

__all__ = ["Thresholds"]

MAX_RULE = 1000  # characters


@dataclass(frozen=True)
class Thresholds:
    """From which score on a class counts.

    Args:
        rule: How they were chosen, such as ``precision>=0.95``; where several heads have rules of their own,
            ``head: rule; head: rule``.
        values: Class name -> score, 0..1; None where the rule promises nothing of a class at any score. A class that is
            not named has no threshold.
    """

    rule: str
    values: Mapping[str, float | None]

    def plain(self) -> dict[str, Any]:
        """Return them as plain data, as checkpoints and evaluations hold them."""
        return {"rule": self.rule, "values": dict(self.values)}

    @classmethod
    def from_plain(cls, data: Any, classes: Collection[str]) -> Self:
        """Return the thresholds that :meth:`plain` made this of.

        Args:
            data: From a file: anything.
            classes: Names of all classes.

        Raises:
            DataError: It is no such thing, or names a class that is not there; the caller puts the file before it.
        """
        rule, values = (data.get(key) for key in ("rule", "values")) if isinstance(data, Mapping) else (None, None)
        if not isinstance(rule, str) or not isinstance(values, Mapping):
            raise DataError(f"thresholds are {_words(data)}, not a rule with values")
        if not rule or len(rule) > MAX_RULE or not is_printable(rule):
            raise DataError(f"the rule of its thresholds is {_words(rule)}, no line of text")
        known = set(classes)
        for name, value in values.items():
            if name not in known:
                raise DataError(f"it has a threshold of {_words(name)}, which is none of its classes")
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if value is not None and not (is_number and 0 <= value <= 1):
                raise DataError(f"its threshold of {_words(name)} is {_words(value)}, no number from 0 to 1")
        return cls(rule, {name: None if v is None else float(v) for name, v in values.items()})

    def part(self, head: str) -> Self | None:
        """Return those of one head of several, whose classes are ``head/name`` here; None where it has none."""
        start = f"{head}/"
        values = {name.removeprefix(start): v for name, v in self.values.items() if name.startswith(start)}
        rules = dict(part.partition(": ")[::2] for part in self.rule.split("; "))
        return type(self)(rules.get(head) or self.rule, values) if values else None

    @classmethod
    def joined(cls, parts: Mapping[str, Self | None]) -> Self | None:
        """Return those of several heads in one, by the heads' names; None where no head has any."""
        own = {head: part for head, part in parts.items() if part is not None}
        if not own:
            return None
        rules = {part.rule for part in own.values()}
        rule = rules.pop() if len(rules) == 1 else "; ".join(f"{head}: {part.rule}" for head, part in own.items())
        return cls(rule, {f"{head}/{name}": v for head, part in own.items() for name, v in part.values.items()})

    def words(self) -> list[str]:
        """Return each class with its threshold, in words."""
        return [f"{name} {'none' if v is None else f'{v:.3g}'}" for name, v in self.values.items()]


def _words(value: Any) -> str:
    return f"{value!r:.60}"
