"""Rules by which thresholds are chosen, as ``--choose`` names them, and the choice for one class."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from visionkit.core.errors import UsageError
from visionkit.evaluation.answers import Answers
from visionkit.evaluation.promises import alikeness, could_be, design_effects, lower_bounds, needed

__all__ = ["LEVEL", "Choice", "Rule"]

Array = NDArray[Any]

LEVEL = 0.95
"""How often a promise holds, for each class."""
STEPS = 100  # thresholds that are tried, at most
STRICTEST = 0.25  # share of the things of a class that the strictest threshold tried finds, about
MOST = 50  # times as much data is the most that is told
SMOOTHED = 20  # F1 is averaged over one in so many right answers, on each side
_FORM = re.compile(r"(precision|recall)\s*(>=|≥|~)\s*(\d*\.?\d+)\s*(%?)")


@dataclass(frozen=True)
class Choice:
    """The threshold of a class.

    Args:
        threshold: Score from which on an answer counts, 0..1; None where there is none that the rule allows.
        bound: What the share is not below, where it is promised.
        why: Why there is none.
        times: By how many times more data it would take; None where that is not the trouble.
    """

    threshold: float | None
    bound: float | None = None
    why: str | None = None
    times: float | None = None


@dataclass(frozen=True)
class Rule:
    """What a threshold is to do: the best F1, or a share that is promised (``>=``) or read off the curve (``~``).

    Args:
        measure: "f1", "precision" or "recall".
        target: The share, above 0 and below 1; of no meaning with "f1".
        promised: Whether it is kept, for each class 19 times of 20.
    """

    measure: Literal["f1", "precision", "recall"]
    target: float = 0.0
    promised: bool = False

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the rule that a text names, such as ``f1``, ``precision>=0.95`` or ``recall~90%``.

        Raises:
            UsageError: It names none.
        """
        words = text.strip().lower()
        if words == "f1":
            return cls("f1")
        forms = 'f1, "precision>=0.95", "recall>=0.9" (promised), "precision~0.95" or "recall~0.9" (plain estimates)'
        if words in ("precision", "recall"):
            raise UsageError(
                f'--choose {text}: which share? Write --choose "{words}>=0.95", with the quotes: else the shell '
                "takes > for a file"
            )
        found = _FORM.fullmatch(words)
        if found is None:
            raise UsageError(f"--choose {text}: write {forms}, or none to take thresholds out")
        measure, sign, number, percent = found.groups()
        target = float(number) / (100 if percent else 1)
        if not 0 < target < 1:
            raise UsageError(
                f"--choose {text}: {number}{percent} is no share above 0 and below 1; "
                f"give one such as {measure}{sign}0.95"
            )
        return cls("precision" if measure == "precision" else "recall", target, sign != "~")

    def __str__(self) -> str:
        """Return it as ``--choose`` takes it."""
        return (
            self.measure if self.measure == "f1" else f"{self.measure}{'>=' if self.promised else '~'}{self.target:g}"
        )

    @property
    def words(self) -> str:
        """What is held of it."""
        if self.measure == "f1":
            return "the best F1, no promise"
        if self.promised:
            return f"kept {LEVEL * 20:.0f} times of 20 for each class"
        return "plain estimates, no promise: about every other one falls short"

    def choose(self, answers: Answers) -> Choice:
        """Return the threshold of a class: of those that the rule allows the one that gives the most of the other."""
        things = int(answers.truths.sum())
        if not things:
            return Choice(None, why="there is none of it in these pictures")
        if not answers.right.any():
            return Choice(None, why="none of it was found" if len(answers.right) else "it is never answered")
        ends = _ends(answers.scores)
        hits = answers.right.cumsum()[ends - 1]
        if self.measure == "f1":
            return Choice(_score(answers, ends[_smooth_best(2 * hits / (ends + things), int(hits[-1]))]))
        if self.measure == "precision":
            if self.promised:
                return self._promise_precision(answers, ends)
            allowed = np.flatnonzero(hits >= self.target * ends)
            return self._plain(answers, ends[allowed[-1:]], float((hits / ends).max()))
        if self.promised:
            return self._promise_recall(answers, ends)
        allowed = np.flatnonzero(hits >= self.target * things)
        return self._plain(answers, ends[allowed[:1]], float(hits[-1] / things))

    def _plain(self, answers: Answers, end: Array, best: float) -> Choice:
        """Return the estimate; ``end`` is empty where no threshold reaches it."""
        if len(end):
            return Choice(_score(answers, int(end[0])))
        return Choice(None, why=f"no threshold reaches it: {best:.3g} at most")

    def _promise_precision(self, answers: Answers, ends: Array) -> Choice:
        """Try thresholds from strict to loose, and keep the last one before the first that fails."""
        things = int(answers.truths.sum())
        least = math.log(1 - LEVEL) / math.log(self.target)  # independent answers that are needed, all of them right
        alike = alikeness(answers.right, answers.unit)
        possible = ends[: max(1, int(np.searchsorted(ends, things / self.target, "right")))]  # of more some are wrong
        first = min(max(least, STRICTEST * things), possible[-1])
        tried = _thinned(possible[possible >= first])
        sizes = design_effects(np.zeros(len(answers.right), bool), answers.unit, tried, alike)  # whatever is right
        enough = np.flatnonzero(tried >= least * sizes)
        if not len(enough):
            n, size = int(tried[-1]), float(sizes[-1])
            why = f"{n} answers{_alike(n, size)}, and {math.ceil(least)} are needed, all of them right"
            return Choice(None, why=why, times=least * size / n)
        tried = tried[enough[0] :]
        hits = answers.right.cumsum()[tried - 1]
        effects = design_effects(answers.right, answers.unit, tried, alike)
        bounds = lower_bounds(hits, tried, effects, LEVEL)
        kept = int(np.argmin(np.append(bounds >= self.target, False)))  # how many pass before one fails
        if kept:
            return Choice(_score(answers, int(tried[kept - 1])), float(bounds[kept - 1]))
        return self._nothing(f"of its {tried[0]} surest answers {hits[0]} are right", hits[0], tried[0], effects[0])

    def _promise_recall(self, answers: Answers, ends: Array) -> Choice:
        """Try thresholds from loose, where recall is safest, to strict."""
        scores, unit = answers.things()
        things = len(scores)
        reached = answers.right.cumsum()[ends - 1]
        hits = np.unique(reached)
        near = min(int(hits[-1]), math.ceil(self.target * things))
        alike = alikeness(np.arange(things) < near, unit, of_scores=False)
        tried = _thinned(hits[hits > 0][::-1])
        every = np.array([things])
        effects = np.array([design_effects(np.arange(things) < k, unit, every, alike)[0] for k in tried])
        bounds = lower_bounds(tried, np.full(len(tried), things), effects, LEVEL)
        kept = int(np.argmin(np.append(bounds >= self.target, False)))
        if kept:
            end = ends[np.searchsorted(reached, tried[kept - 1])]
            return Choice(_score(answers, int(end)), float(bounds[kept - 1]))
        return self._nothing(f"{tried[0]} of {things} are found at any score", tried[0], things, effects[0])

    def _nothing(self, what: str, hits: int, n: int, effect: float) -> Choice:
        """Return that nothing can be promised, with how much more data it would take."""
        if not could_be(hits, n, effect, self.target, LEVEL):
            return Choice(None, why=f"{what}: more data would not do it, a better model would")
        times = float(needed(hits / n, self.target, LEVEL) * effect / n)
        if hits / n <= self.target:
            return Choice(None, why=f"{what}{_alike(n, effect)}, too few to tell whether more data would do it")
        if times > MOST:
            return Choice(None, why=f"{what}, hardly more than is asked for: ask for less, or train a better model")
        return Choice(None, why=f"{what}{_alike(n, effect)}, which could be luck", times=max(times, 1.0))


def _ends(scores: Array) -> Array:
    """Return how many answers each threshold keeps, int64 [T] rising: those of equal score go together."""
    return np.append(np.flatnonzero(scores[1:] < scores[:-1]), len(scores) - 1) + 1


def _thinned(values: Array) -> Array:
    """Return some of the values, evenly spaced, the first and the last among them."""
    if len(values) <= STEPS:
        return values
    return values[np.linspace(0, len(values) - 1, STEPS).round().astype(np.int64)]


def _smooth_best(values: Array, right: int) -> int:
    """Return where values are highest once each is the mean of its neighbours."""
    half = min(max(2, right // SMOOTHED), len(values))
    padded = np.pad(values, half, mode="edge")
    return int(np.convolve(padded, np.ones(2 * half + 1) / (2 * half + 1), "valid").argmax())


def _score(answers: Answers, end: int) -> float:
    """Return a score, of few digits, that keeps the first so many answers alone."""
    kept = float(answers.scores[end - 1])
    if end == len(answers.scores):
        return math.floor(kept * 100) / 100
    below = float(answers.scores[end])
    for digits in range(2, 8):
        middle = round((kept + below) / 2, digits)
        if below < np.float32(middle) <= kept and below < middle <= kept:
            return middle
    return kept


def _alike(n: int, effect: float) -> str:
    """Return as how many things they count, where those of a picture are alike."""
    return "" if effect < 1.05 else f" (they count as {n / effect:.0f}: those of one picture are alike)"
