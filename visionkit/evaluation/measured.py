"""One number of an evaluation, with how sure it is."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from visionkit.evaluation.intervals import Interval

__all__ = ["METHODS", "Measured"]

METHODS = ("wilson", "bootstrap", "t")
"""How intervals are made."""


@dataclass(frozen=True)
class Measured:
    """A value and its interval.

    Args:
        value: The value over all images.
        interval: Where the true value lies, 95 times of 100; None where that cannot be said.
        n: How many things it rests on.
        unit: What these are: "images", "groups", "objects", "pictures of the class", ...
        few: Why it says little, such as ``too few to say: 12 images``; None where there are enough.
    """

    value: float
    interval: Interval | None
    n: int
    unit: str
    few: str | None = None

    @property
    def method(self) -> str | None:
        """How the interval was made."""
        return None if self.interval is None else self.interval.method

    def record(self) -> dict[str, Any]:
        """Return it as plain values; one that is no number is null."""
        low, high = (None, None) if self.interval is None else (self.interval.low, self.interval.high)
        return {
            "value": self.value if math.isfinite(self.value) else None,
            "low": low, "high": high, "method": self.method, "n": self.n, "unit": self.unit, "few": self.few,
        }  # fmt: skip

    @classmethod
    def recalled(cls, record: Mapping[str, Any]) -> Self:
        """Return what :meth:`record` told.

        Raises:
            ValueError: It is no such record.
        """
        value, low, high = (record.get(key) for key in ("value", "low", "high"))
        method, n, unit, few = (record.get(key) for key in ("method", "n", "unit", "few"))
        if not all(v is None or _is_number(v) for v in (value, low, high)):
            raise ValueError("value, low and high are numbers or null")
        if method is not None and method not in METHODS:
            raise ValueError(f"method is null or one of {', '.join(METHODS)}")
        if (low is None, high is None) != (method is None, method is None):
            raise ValueError("low, high and method go together")
        if type(n) is not int or n < 0 or not isinstance(unit, str) or not (few is None or isinstance(few, str)):
            raise ValueError("n is a whole number, unit a text, few a text or null")
        interval = None if method is None or low is None or high is None else Interval(float(low), float(high), method)
        return cls(math.nan if value is None else float(value), interval, n, unit, few)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
