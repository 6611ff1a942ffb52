"""The plan of a training that ends in time: how many epochs, of how many steps, validated how often."""

from __future__ import annotations

import math
from dataclasses import dataclass

from visionkit.core.errors import UsageError
from visionkit.training.run.trial import duration

__all__ = ["Pace", "Plan", "plan"]

FEWEST_EPOCHS = 5  # that a training is divided into, where validations allow it
SHARE_OF_VALIDATION = 0.1  # of an epoch's time, on the average
SHARE_OF_FEW = 0.2  # of all time, where a training has less than ``FEWEST_EPOCHS``


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


def plan(seconds: float, pace: Pace, batches: int, *, epochs: int | None = None, most: int | None = None) -> Plan:
    """Divide a time into epochs.

    Epochs are a little shorter than the data are long, so that they fill the time: each shows other pictures, drawn at
    random. A validation takes a tenth of the time at most, where it can be left out so often.

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
    whole = batches * pace.step + pace.checkpoint
    every = max(1, math.ceil(pace.validation / max(SHARE_OF_VALIDATION * whole, 1e-9)))
    if epochs is None:
        saved = max(pace.validation + pace.checkpoint, 1e-9)
        few = min(FEWEST_EPOCHS, max(1, int(SHARE_OF_FEW * left / saved)))
        number = max(few, math.ceil(left / max(whole + pace.validation / every, 1e-9)))
        every = min(every, max(1, number // few))
        number = every * math.ceil(number / every)
        if most is not None:
            number = min(number, every * max(1, most // every))
        while number > every and _fitting(left, pace, number, every) < 1:
            number -= every
    else:
        number = epochs
        every = next(n for n in range(min(every, number), 0, -1) if number % n == 0)
    shortened = min(_fitting(left, pace, number, every), batches)
    if shortened < 1:
        least = pace.once + number * (pace.step + pace.checkpoint) + number // every * pace.validation
        what = f"{number} epochs of one step" if epochs else "one step"
        raise UsageError(
            f"--minutes: {duration(max(seconds, 0.0))} are left once the data are there, and {what} with start, "
            f"validation and checkpoint take {duration(least)}"
        )
    used = pace.once + number * (shortened * pace.step + pace.checkpoint) + number // every * pace.validation
    return Plan(number, shortened, every, used)


def _fitting(left: float, pace: Pace, epochs: int, every: int) -> int:
    """Return how many steps an epoch has room for."""
    rest = left - epochs * pace.checkpoint - epochs // every * pace.validation
    return int(rest / (epochs * max(pace.step, 1e-9)) + 1e-9)
