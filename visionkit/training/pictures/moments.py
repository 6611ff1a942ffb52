"""After which epochs validation pictures are drawn."""

from __future__ import annotations

from argparse import ArgumentTypeError

__all__ = ["is_moment", "read_moments"]


class MomentsError(ArgumentTypeError, ValueError):
    """Such moments there are not: what argparse wants to be told on the command line, and jsonargparse in a config."""


def read_moments(value: str | int) -> str | int:
    """Return when validation pictures are drawn: "auto", "none", or the number of epochs between them.

    Raises:
        MomentsError: It is none of these.
    """
    number = int(value) if str(value).isdecimal() else 0
    if number < 1 and value not in ("auto", "none", "null"):
        raise MomentsError(f"needs auto, none or a whole number from 1 on, got {value or 'nothing'}")
    return number or ("none" if value == "null" else value)


def is_moment(epoch: int, every: str | int) -> bool:
    """Return whether validation pictures belong to an epoch.

    Args:
        epoch: Counted from 1.
        every: A number of epochs, or "auto" for the epochs 1, 2, 5, 10, 20, 50 and so on.
    """
    if isinstance(every, int):
        return epoch % every == 0
    digits = str(epoch)
    return digits[0] in "125" and not digits[1:].strip("0")
