"""Thresholds of all classes: chosen on one part of the data, told on another."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visionkit.core.errors import DataError
from visionkit.core.thresholds import Thresholds
from visionkit.evaluation.answers import Answers, Evidence
from visionkit.evaluation.measures import share_interval
from visionkit.evaluation.rules import LEVEL, Choice, Rule

__all__ = ["Rule", "choose", "lines_of", "thresholds_of"]

Array = NDArray[Any]


def choose(
    rule: Rule, chosen: Evidence, told: Evidence | None, *, chosen_on: str, told_on: str | None = None
) -> dict[str, Any]:
    """Return the "thresholds" entry of an evaluation: from which score on each class counts, and what that gives.

    Args:
        rule: What they are to do.
        chosen: What the model answered where they are chosen.
        told: What it answered on other pictures, on which precision and recall are told. None where there are none:
            then they are told of halves of the same pictures (whole groups in each), chosen on one half and told on the
            other, both ways; the thresholds are those of all pictures.
        chosen_on: The split that they are chosen on, such as "val".
        told_on: The other split, such as "test".

    Returns:
        ``{"rule", "words", "level", "kind", "chosen_on": {"split", "images", "units"}, "told_on": the same, or null
        where halves tell, "classes": {name: {"threshold", "bound", "why", "more", "precision", "recall"}}}``; "more" is
        ``{"images", "things"}`` or null; precision and recall are ``{"value", "low", "high", "method", "n"}``, or null
        where there is no threshold to tell them of.

    Raises:
        UsageError: Such predictions have no thresholds, as those of pixels.
    """
    answers = chosen.answers()
    others = None if told is None else told.answers()
    halves = _halves(chosen.units)
    classes = {}
    for name, own in answers.items():
        choice = rule.choose(own)
        if others is None:
            counts = np.sum([_count(rule.choose(own.within(half)), own.within(~half)) for half in halves], 0)
        else:
            counts = _count(choice, others[name])
        classes[name] = _entry(choice, own, chosen.images, counts)
    here = {"split": chosen_on, "images": chosen.images, "units": chosen.units}
    there = None if told is None else {"split": told_on, "images": told.images, "units": told.units}
    first = {"rule": str(rule), "words": rule.words, "level": LEVEL if rule.promised else None, "kind": chosen.kind}
    return {**first, "chosen_on": here, "told_on": there, "classes": classes}


def thresholds_of(entry: Any, classes: Collection[str]) -> Thresholds:
    """Return the thresholds of an entry that :func:`choose` made.

    Args:
        entry: From memory, or from a file: anything.
        classes: The model's class names.

    Raises:
        DataError: It is no such entry, or of other classes; the caller puts the file before it.
    """
    told = entry.get("classes") if isinstance(entry, Mapping) else None
    if not isinstance(told, Mapping) or not all(isinstance(v, Mapping) for v in told.values()):
        raise DataError("it holds no thresholds: evaluate with --choose")
    values = {name: facts.get("threshold") for name, facts in told.items()}
    return Thresholds.from_plain({"rule": entry.get("rule"), "values": values}, classes)


def lines_of(entry: Mapping[str, Any]) -> list[str]:
    """Return an entry in words: how thresholds were chosen, then a line a class, most of 80 columns or less."""
    here, there = entry["chosen_on"], entry["told_on"]
    if there is None:
        told = "told of its halves, chosen on one and told on the other: there is no other split"
    else:
        told = f"told on {there['split']} ({_pictures(there)})"
    lines = [f"thresholds {entry['rule']} ({entry['words']}): chosen on {here['split']} ({_pictures(here)}), {told}"]
    longest = max((len(name) for name in entry["classes"]), default=0)
    promised = entry["level"] is not None
    if any(facts["threshold"] is not None for facts in entry["classes"].values()):
        lines.append(
            f"  {'':<{longest}}  from    {'precision':<18}  {'recall':<18}{'  promised' if promised else ''}".rstrip()
        )
    for name, facts in entry["classes"].items():
        start = f"  {name:<{longest}}  "
        if facts["threshold"] is None:
            lines.append(f"{start}none    {_missing(entry, facts)}")
            continue
        shares = "  ".join(f"{_share(facts[key]):<18}" for key in ("precision", "recall"))
        bound = "" if facts["bound"] is None else f"  at least {math.floor(facts['bound'] * 100) / 100:.2f}"
        lines.append(f"{start}{facts['threshold']:<6.4g}  {shares}{bound}".rstrip())
    return lines


def _missing(entry: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
    """Say why a class has no threshold, and what would help."""
    said = f"nothing can be promised: {facts['why']}" if entry["level"] is not None else str(facts["why"])
    more = facts["more"]
    if more is None:
        return said
    images, things = more["images"], more["things"]
    what = "" if entry["kind"] in ("pictures", "labels") else f" ({things:,} more objects of the class)"
    return f"{said}; it would take about {images:,} more pictures like these{what}"


def _share(told: Mapping[str, Any] | None) -> str:
    return "too few to tell" if told is None else f"{told['value']:.2f} [{told['low']:.2f}, {told['high']:.2f}]"


def _pictures(where: Mapping[str, Any]) -> str:
    groups = f" in {where['units']:,} groups" if where["units"] < where["images"] else ""
    return f"{where['images']:,} picture{'' if where['images'] == 1 else 's'}{groups}"


def _halves(units: int) -> list[Array]:
    """Return both halves of the units, as masks [U]; always the same ones."""
    first = np.zeros(units, bool)
    first[np.random.default_rng(0).permutation(units)[: units // 2]] = True
    return [first, ~first]


def _count(choice: Choice, answers: Answers) -> Array:
    """Return how many answers a threshold keeps, how many of them are right, and of how many things; int64 [3, U]."""
    units = len(answers.truths)
    if choice.threshold is None:
        return np.zeros((3, units), np.int64)
    kept = answers.scores >= np.float32(choice.threshold)
    found = (np.bincount(answers.unit[which], minlength=units) for which in (kept, kept & answers.right))
    return np.stack([*found, answers.truths])


def _entry(choice: Choice, answers: Answers, images: int, counts: Array) -> dict[str, Any]:
    kept, right, things = counts
    known = choice.threshold is not None
    more = None
    if choice.times is not None:
        more = {
            "images": _round(images * (choice.times - 1)),
            "things": _round(int(answers.truths.sum()) * (choice.times - 1)),
        }
    return {
        "threshold": choice.threshold,
        "bound": choice.bound,
        "why": choice.why,
        "more": more,
        "precision": _told(right, kept) if known else None,
        "recall": _told(right, things) if known else None,
    }


def _told(hits: Array, of: Array) -> dict[str, Any] | None:
    """Return a share with its interval, from what each unit adds to it, both int64 [U]: what it holds is alike."""
    n = int(of.sum())
    if not n:
        return None
    interval = share_interval(hits, of, np.arange(len(of)))
    return {"value": int(hits.sum()) / n, "low": interval.low, "high": interval.high, "method": interval.method, "n": n}


def _round(number: float) -> int:
    """Return a number of two digits, from 1 on: more are not known."""
    whole = max(1, math.ceil(number))
    step: int = 10 ** max(0, len(str(whole)) - 2)
    return math.ceil(whole / step) * step
