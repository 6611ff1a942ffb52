"""The plan of a training that ends in time: how many epochs, of how many steps, validated how often."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from visionkit.core.errors import UsageError
from visionkit.training.run.trial import duration

__all__ = ["Pace", "Plan", "plan", "time_limit"]

FEWEST_EPOCHS = 5  # that a training is divided into, where validations allow it
SHARE_OF_FEW = 0.2  # of all time, that validations may take where there are fewer of them
WORTH = 0.9  # of the steps that fit with the rarest validations: as many must be left with more of them
MOST_EVERY = 200  # epochs between validations


@dataclass(frozen=True)
class Pace:
    """How long the parts of a training take, in seconds.

    Args:
        step: A training step, >= 0.
        validation: A validation of all its pictures.
        checkpoint: Saving an epoch.
        once: What comes before the first step and after the last.
    """

    step: float
    validation: float
    checkpoint: float
    once: float


@dataclass(frozen=True)
class Plan:
    """A training that ends in time.

    Args:
        epochs: Their number, a multiple of ``every``: the last epoch is validated.
        batches: Training batches an epoch.
        every: Epochs from one validation to the next.
        seconds: What all of it takes.
    """

    epochs: int
    batches: int
    every: int
    seconds: float


def time_limit(value: Any) -> float | None:
    """Return the seconds of a ``trainer.max_time``: DD:HH:MM:SS or a mapping of days, hours, minutes, seconds.

    Args:
        value: As it was given; None, and what is no time, which the parser says, gives None.
    """
    if isinstance(value, str) and value.count(":") == 3:
        parts = value.split(":")
        if all(part.strip().isdecimal() for part in parts):
            return float(sum(int(p) * n for p, n in zip(parts, (86400, 3600, 60, 1), strict=True)))
    if isinstance(value, Mapping) and value:
        try:
            return timedelta(**value).total_seconds()
        except (TypeError, OverflowError):
            return None
    return None


def plan(seconds: float, pace: Pace, batches: int, *, epochs: int | None = None, most: int | None = None) -> Plan:
    """Divide a time into epochs.

    Epochs are a little shorter than the data are long, so that they fill the time: each shows other pictures, drawn at
    random. Validations are as many as leave nine tenths of the steps that fit with the fewest.

    Args:
        seconds: From now to the end, with all that belongs to it.
        pace: How long the parts take.
        batches: Training batches of a whole epoch, >= 1.
        epochs: Their number where it is given; they are shortened where they do not fit.
        most: Epochs that are useful, >= 1; a training of more would end earlier. None knows no bound.

    Raises:
        UsageError: Not even one step an epoch fits.
    """
    left = seconds - pace.once
    if epochs is None:
        tried = [
            _divided(left, pace, batches, every, most) for every in range(1, _rarest(left, pace, batches, most) + 1)
        ]
        steps = max(number * fitting for number, fitting, _ in tried)
        number, fitting, every = next(p for p in tried if p[0] * p[1] >= WORTH * steps)
    else:
        number = epochs
        divisors = [n for n in range(1, min(number, MOST_EVERY) + 1) if number % n == 0]
        room = [max(0, min(_fitting(left, pace, number, n), batches)) for n in divisors]
        fitting, every = next((f, n) for f, n in zip(room, divisors, strict=True) if f >= WORTH * max(room))
    if fitting < 1:
        one = epochs or 1
        least = pace.once + one * (pace.step + pace.checkpoint) + pace.validation
        what = f"{number} epochs of one step" if epochs else "one step"
        raise UsageError(
            f"--minutes: {duration(max(seconds, 0.0))} are left once the data are there, and {what} with start, "
            f"validation and checkpoint take {duration(least)}"
        )
    used = pace.once + number * (fitting * pace.step + pace.checkpoint) + number // every * pace.validation
    return Plan(number, fitting, every, used)


def _rarest(left: float, pace: Pace, batches: int, most: int | None) -> int:
    """Return the most epochs from one validation to the next that are looked at."""
    whole = batches * pace.step + pace.checkpoint
    return max(1, min(MOST_EVERY if most is None else most, MOST_EVERY, math.ceil(left / max(whole, 1e-9))))


def _divided(left: float, pace: Pace, batches: int, every: int, most: int | None) -> tuple[int, int, int]:
    """Return how many epochs fill a time, of how many steps (0 where none fits), and the epochs between validations."""
    whole = batches * pace.step + pace.checkpoint
    few = min(FEWEST_EPOCHS, max(1, int(SHARE_OF_FEW * left / max(pace.validation + pace.checkpoint, 1e-9))))
    number = every * max(few, math.ceil(left / max(every * whole + pace.validation, 1e-9)))
    if most is not None:
        number = min(number, every * max(1, most // every))
    while number > every and _fitting(left, pace, number, every) < 1:
        number -= every
    return number, max(0, min(_fitting(left, pace, number, every), batches)), every


def _fitting(left: float, pace: Pace, epochs: int, every: int) -> int:
    """Return how many steps an epoch has room for."""
    rest = left - epochs * pace.checkpoint - epochs // every * pace.validation
    return int(rest / (epochs * max(pace.step, 1e-9)) + 1e-9)
