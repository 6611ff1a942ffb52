"""Numbers and flags as label files write them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

__all__ = ["flag", "mostly_shares", "number"]

_YES = ("1", "1.0", "true", "yes")
_NO = ("", "0", "0.0", "false", "no", "unspecified")
_SHARE = 1.5  # what is smaller is a share of the picture, perhaps of an object that reaches out of it


def number(value: Any) -> float | None:
    """Return a number of a file, also where it is written as text; None for anything else.

    Args:
        value: What the file has; an integer of hundreds of digits becomes infinite.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value) if not isinstance(value, str) or "_" not in value else None  # Python's 1_000
    except ValueError:
        return None
    except OverflowError:
        return float("inf")


def flag(value: Any) -> bool | None:
    """Return whether a flag of a file is set; None where it says neither yes nor no, such as 2.

    Args:
        value: 0, 1, true, "no", "Unspecified" or the like; nothing at all is no.
    """
    word = "" if value is None else str(value).strip().lower()
    return True if word in _YES else False if word in _NO else None


def mostly_shares(found: Iterable[tuple[str, Iterable[float]]]) -> list[str]:
    """Return the places of objects whose numbers are shares of a picture, where most are; one small object is none.

    Args:
        found: Place and coordinates of each object; of most objects no more than the first one is looked at.
    """
    shares: list[str] = []
    pixels = 0
    for where, values in found:
        unsure = True  # 0 and 1 can be both
        for value in values:
            if not -_SHARE < value < _SHARE:  # NaN is not
                pixels += 1
                break
            unsure = unsure and value in (0, 1)
        else:
            shares += [] if unsure else [where]
    return shares if len(shares) > pixels else []
