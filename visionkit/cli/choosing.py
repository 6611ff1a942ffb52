"""What ``visionkit evaluate --choose`` does: thresholds chosen, and stored where predictions go by them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from visionkit.cli.measured import MeasuredData
from visionkit.cli.predicting import Source
from visionkit.core.errors import DataError
from visionkit.core.text import shortened
from visionkit.evaluation.counting import Count
from visionkit.evaluation.folder import Evaluation
from visionkit.evaluation.rules import Rule
from visionkit.evaluation.thresholds import choose, lines_of, thresholds_of
from visionkit.evaluation.words import folded
from visionkit.models.store_thresholds import store_thresholds

__all__ = ["choose_thresholds", "forget_thresholds", "stored"]

MOST_LINES = 9  # of thresholds, before they are folded


def choose_thresholds(
    rule: Rule, told: Evaluation, counted: Count, chosen: Any, beside: MeasuredData | None, data: MeasuredData
) -> list[str]:
    """Choose thresholds into an evaluation, and return what to say of them.

    Args:
        rule: What they are to do.
        told: The evaluation.
        counted: What was counted for it.
        chosen: What the val split says of thresholds; None where there is no other split.
        beside: That split.
        data: What was measured.
    """
    if chosen is None or beside is None:
        entry = choose(rule, counted.evidence, None, chosen_on=data.split, told_on=None)
    else:
        entry = choose(rule, chosen, counted.evidence, chosen_on=beside.split, told_on=data.split)
    told.thresholds = entry
    return folded(shortened(lines_of(entry), MOST_LINES))


def stored(told: Evaluation, lines: Sequence[str], source: Source) -> tuple[list[str], str | None]:
    """Store an evaluation's thresholds in its checkpoint, where plain predictions have the scores they were chosen by.

    Args:
        told: The evaluation.
        lines: What is said of them already.
        source: What was evaluated.

    Returns:
        What to say, and what went wrong, in a line.
    """
    views = told.model["views"]
    if len(source.ckpts) > 1:
        same = f", with {views} as here" if views else ""
        return [*lines, f"they stand in evaluation.json: visionkit predict --fitted takes them from there{same}"], None
    ckpt = source.ckpts[0]
    other = [str(views)] * bool(views) + ["--precision int8"] * (told.model["precision"] == "int8")
    if other:
        line = (
            f"they stand in evaluation.json, and not in {ckpt}: plain predictions have other scores than those with "
            f"{' and '.join(other)}; evaluate --choose without to store some"
        )
        return [*lines, line], None
    chosen = thresholds_of(told.thresholds, told.classes)
    try:
        file = store_thresholds(ckpt, chosen, head=source.name, digest=source.digests[0])
    except DataError as e:  # the numbers are written all the same
        return [*lines], f"the thresholds stand in evaluation.json, and are not stored: {e}"
    return [*lines, f"stored in {file}: visionkit predict goes by them"], None


def forget_thresholds(source: Source) -> list[str]:
    """Take the thresholds out of a checkpoint, and return what to say of that."""
    return [f"{store_thresholds(source.ckpts[0], None, head=source.name)} holds no thresholds any more"]
