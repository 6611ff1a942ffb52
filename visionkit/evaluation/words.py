"""An evaluation in words that a person understands, in few lines of 80 columns."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from visionkit.core.text import printable
from visionkit.evaluation.folder import Evaluation
from visionkit.evaluation.measured import Measured

__all__ = ["NAMES", "folded", "headline", "in_words", "number", "summary_of", "views_in_words"]

WIDTH = 80
INDENT = 9
MOST_CLASSES = 12
LONGEST_NAME = 28
NAMES = {
    "top1": "top-1", "top5": "top-5", "macro_f1": "macro F1", "micro_f1": "micro F1", "ece": "calibration error",
    "map": "mAP", "map_50": "mAP at IoU 0.5", "map_75": "mAP at IoU 0.75", "map_small": "mAP of small objects",
    "map_medium": "mAP of medium objects", "map_large": "mAP of large objects", "mask_map": "mask mAP",
    "mask_map_50": "mask mAP at IoU 0.5", "miou": "mean IoU", "pixel_accuracy": "pixels right",
    "mean_accuracy": "mean recall", "boundary_f1": "boundary F1", "precision": "precision", "recall": "recall",
    "f1": "F1",
}  # fmt: skip
"""What the numbers are called."""
_SHOWN = {
    "classification": ("top5", "macro_f1"),
    "labels": ("micro_f1", "macro_f1"),
    "detection": ("map_50", "map_small", "map_medium", "map_large", "precision", "recall"),
    "instance": ("mask_map_50", "map", "map_50", "precision", "recall"),
    "segmentation": ("pixel_accuracy", "boundary_f1"),
}
_OF_CLASS = {
    "classification": ("accuracy/", "right"), "labels": ("ap/", "AP"), "detection": ("ap/", "AP"),
    "instance": ("mask_ap/", "mask AP"), "segmentation": ("iou/", "IoU"),
}  # fmt: skip
"""Key of the number of each class, and what it is called."""


def in_words(key: str) -> str:
    """Return what a number is called, such as ``mAP at IoU 0.5`` for ``map_50``."""
    kind, slash, name = key.partition("/")
    return f"{NAMES.get(kind, kind.replace('_', ' '))} of {name}" if slash else NAMES.get(key, key.replace("_", " "))


def number(measured: Measured, digits: int = 3) -> str:
    """Return a value with its interval, such as ``0.912 [0.874, 0.939]``."""
    said = "none" if math.isnan(measured.value) else f"{measured.value:.{digits}f}"
    ends = measured.interval
    return said if ends is None else f"{said} [{ends.low:.{digits}f}, {ends.high:.{digits}f}]"


def headline(evaluation: Evaluation) -> str:
    """Return the number that counts most, in a sentence: ``top-1 0.912 [0.874, 0.939] of 400 pictures``."""
    key = evaluation.metric.monitor
    measured = evaluation.metrics.get(key)
    kind = _kind(evaluation)
    if measured is None:  # of predictions that cannot tell it
        key, measured = next((k, m) for k, m in evaluation.metrics.items())
    name = "mean AP" if kind == "labels" and key == "map" else in_words(key)
    return f"{name} {number(measured)} of {_pictures(evaluation)}"


def summary_of(evaluation: Evaluation, out: str, *, next_steps: Sequence[str] = ()) -> list[str]:
    """Return what an evaluation says, the most important first, in some thirty lines at most.

    Args:
        evaluation: The numbers.
        out: The folder in which they lie, as it was given.
        next_steps: Commands that may come next.
    """
    lines = [headline(evaluation)]
    monitored = evaluation.metrics.get(evaluation.metric.monitor)
    if monitored is not None and monitored.few is not None:
        lines.append(monitored.few)
    shown = [f"{in_words(k)} {number(evaluation.metrics[k])}" for k in _SHOWN[_kind(evaluation)]
             if k in evaluation.metrics and evaluation.metrics[k].n]  # fmt: skip
    lines += _joined(shown)
    lines += _classes(evaluation, out)
    for name, entry, key in (
        ("scores", evaluation.calibration, "words"),
        ("errors", evaluation.errors, "sentence"),
    ):
        said = None if entry is None else entry.get(key)
        if isinstance(said, str) and said:
            lines += _line(name, said)
    if evaluation.views is not None:
        lines += _line("views", views_in_words(evaluation.views))
    if evaluation.ensemble is not None:
        lines += _ensemble(evaluation.ensemble)
    for k, step in enumerate(next_steps):
        lines.append(f"{'' if k else 'next':<{INDENT}}{step}")
    return lines


def views_in_words(entry: Mapping[str, Any]) -> str:
    """Return what several views of each picture gain, and at which cost."""
    key = entry["monitor"]
    told = entry["metrics"].get(key)
    cost = "" if entry.get("cost") is None else f", at {entry['cost']:.1f} times the time of a picture"
    if told is None:
        return f"{entry['views']}{cost}"
    gain, low, high = told["gain"], told["low"], told["high"]
    name = in_words(key)
    if low is None:
        return f"{name} {_signed(gain)} against one view ({told['plain']:.3f}){cost}"
    verb = "gain" if low > 0 else "lose" if high < 0 else ""
    ends = f"{_signed(gain)} [{_signed(low)}, {_signed(high)}] in {name} against one view ({told['plain']:.3f})"
    return f"they {verb} {ends}{cost}" if verb else f"no gain is shown: {ends}{cost}"


def folded(lines: Sequence[str]) -> list[str]:
    """Return lines in 80 columns; what goes on in a further line stands further in."""
    found: list[str] = []
    for line in lines:
        start = " " * (len(line) - len(line.lstrip()))
        found += textwrap.wrap(
            printable(line),
            WIDTH,
            subsequent_indent=f"{start}    ",
            drop_whitespace=True,
            break_long_words=False,
            break_on_hyphens=False,
        )
    return found


def _kind(evaluation: Evaluation) -> str:
    return "labels" if evaluation.multilabel else evaluation.task


def _pictures(evaluation: Evaluation) -> str:
    """Return how many pictures there are, with what is to be found in them."""
    count = len(evaluation.images)
    said = f"{count:,} picture{'' if count == 1 else 's'}"
    groups = len(set(evaluation.groups))
    if groups < count:
        said += f" in {groups:,} groups"
    if evaluation.task in ("detection", "instance"):
        objects = sum(not o["crowd"] for image in evaluation.images for o in image.truth["objects"])
        said += f" with {objects:,} object{'' if objects == 1 else 's'}"
    return said


def _classes(evaluation: Evaluation, out: str) -> list[str]:
    """Return a table of the classes, the worst of those that can be told first; and those that do not occur."""
    start, word = _OF_CLASS[_kind(evaluation)]
    found = {k.removeprefix(start): m for k, m in evaluation.metrics.items() if k.startswith(start)}
    lines: list[str] = []
    order = sorted(found, key=lambda name: (found[name].few is not None, found[name].value, name))
    if len(evaluation.classes) > 1 and order:
        shown = order if len(order) <= MOST_CLASSES else order[: MOST_CLASSES - 2]
        names = {name: _short(printable(name)) for name in shown}
        longest = max(15, *map(len, names.values()))
        unit = found[shown[0]].unit.removesuffix(" of the class")
        lines.append(f"{'classes':<{INDENT}}{'the worst first':<{longest}}  {word:<17} {unit:>8}")
        for name in shown:
            one = found[name]
            few = "  too few to say" if one.few is not None else ""
            lines.append(f"{'':<{INDENT}}{names[name]:<{longest}}  {number(one, 2):<17} {one.n:>8,}{few}")
        if len(order) > len(shown):
            lines += _line("", f"and {len(order) - len(shown)} more classes: {out}/evaluation.json has them all")
        few_left = sum(found[name].few is not None for name in order[len(shown) :])
        if few_left:
            lines += _line("", f"of {few_left} of these there are too few to say")
    absent = _absent(evaluation)
    if absent:
        listed = ", ".join(printable(name) for name in absent[:8]) + (", ..." if len(absent) > 8 else "")
        many = f"{len(absent)} of the {len(evaluation.classes)} classes "
        lines += _line("not here", f"{many}{'is' if len(absent) == 1 else 'are'} in none of the pictures: {listed}")
    return lines


def _absent(evaluation: Evaluation) -> list[str]:
    """Return the classes that no picture shows."""
    seen: set[str] = set()
    for image in evaluation.images:
        truth = image.truth
        seen |= {truth["label"]} if "label" in truth else set(truth.get("labels", ()))
        seen |= {o["label"] for o in truth.get("objects", ()) if not o["crowd"]} | set(truth.get("pixels", ()))
    return [name for name in evaluation.classes if name not in seen]


def _ensemble(entry: Mapping[str, Any]) -> list[str]:
    """Return what several models gain over one."""
    lines: list[str] = []
    for key, against in (("gain_over_mean", "the mean of its members"), ("gain_over_best", "the best of them")):
        told = entry.get(key)
        if isinstance(told, Mapping) and told.get("value") is not None:
            low, high = told.get("low"), told.get("high")
            ends = "" if low is None or high is None else f" [{_signed(low)}, {_signed(high)}]"
            sure = "" if low is not None and (low > 0 or (high is not None and high < 0)) else " (no gain is shown)"
            best = f", {printable(told['best'])}" if told.get("best") else ""
            name = in_words(str(entry.get("monitor", "")))
            lines += _line(
                "" if lines else "together", f"{_signed(told['value'])}{ends} in {name} against {against}{best}{sure}"
            )
    if entry.get("cost") is not None:
        lines += _line("" if lines else "together", f"at {entry['cost']:.1f} times the time of one model")
    if isinstance(entry.get("reason"), str):
        lines += _line("weights", entry["reason"])
    weights, used = entry.get("weights"), entry.get("measured_with")
    if isinstance(used, list) and used:
        same = used == weights
        with_ = "these weights" if same else f"{'equal' if len(set(used)) == 1 else 'other'} weights"
        lines += _line("" if lines else "weights", f"the numbers here are those of {with_}")
    return lines


def _line(what: str, words: str) -> list[str]:
    """Return words behind a heading, in lines of 80 columns."""
    wrapped = textwrap.wrap(printable(words), WIDTH - INDENT, break_long_words=False, break_on_hyphens=False)
    return [f"{what if not k else '':<{INDENT}}{line}".rstrip() for k, line in enumerate(wrapped)]


def _joined(parts: Sequence[str]) -> list[str]:
    """Return parts behind each other, as many in a line as 80 columns hold."""
    lines: list[str] = []
    for part in parts:
        if lines and len(lines[-1]) + len(part) + 2 <= WIDTH:
            lines[-1] += f", {part}"
        else:
            lines.append(part)
    return lines


def _signed(value: float) -> str:
    """Return a difference with its sign; none is +0.000."""
    return f"{round(value, 3) + 0.0:+.3f}"


def _short(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 3]}..."
