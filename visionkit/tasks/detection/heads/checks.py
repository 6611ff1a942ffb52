"""Checks of what a head's constructor is given."""

from __future__ import annotations

from collections.abc import Collection

from visionkit.core.errors import UsageError

__all__ = ["check_choice", "check_counts", "check_shares", "check_weights"]


def check_choice(name: str, value: str, choices: Collection[str]) -> None:
    """Raise a UsageError unless a value is one of the choices."""
    if value not in choices:
        raise UsageError(f"head.{name}={value!r}: one of {', '.join(choices)}")


def check_counts(most: int = 1_000_000, **values: int) -> None:
    """Raise a UsageError unless all values are 1 or more, and at most ``most``."""
    for name, value in values.items():
        if value < 1:
            raise UsageError(f"head.{name}={value}: a whole number from 1 on")
        if value > most:
            raise UsageError(f"head.{name}={value}: at most {most:,}")


def check_shares(**values: float) -> None:
    """Raise a UsageError unless all values lie in 0..1."""
    for name, value in values.items():
        if not 0 <= value <= 1:
            raise UsageError(f"head.{name}={value}: 0..1")


def check_weights(**values: float) -> None:
    """Raise a UsageError unless all values are 0 or more."""
    for name, value in values.items():
        if not value >= 0:
            raise UsageError(f"head.{name}={value}: a number from 0 on")
