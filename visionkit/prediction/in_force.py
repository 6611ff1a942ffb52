"""Which thresholds predictions go by."""

from __future__ import annotations

from collections.abc import Callable

from visionkit.core.errors import UsageError
from visionkit.core.thresholds import Thresholds
from visionkit.prediction.members import Members

__all__ = ["thresholds_in_force"]


def thresholds_in_force(
    members: Members, given: Thresholds | None, min_score: float | None, tell: Callable[[str], None] | None
) -> Thresholds | None:
    """Return what predictions go by: thresholds that are given, else the model's own; none beside a lowest score.

    Args:
        members: What predicts: one model, or several, whose own thresholds say nothing of what they say together.
        given: Those of ``--fitted``, or of a caller.
        min_score: A lowest score that was asked for: it is taken in place of both.
        tell: Is told in one line where thresholds are left aside.

    Raises:
        UsageError: A threshold that is given is of no class of the model.
    """
    found, classes = members.thresholds if given is None else given, members.classes
    if found is not None and (unknown := [name for name in found.values if name not in classes]):
        raise UsageError(f"thresholds: {unknown[0]!r} is no class of the model; it has {', '.join(classes)}")
    line = None
    if found is not None and min_score is not None:
        line = f"--min-score {min_score:g} is taken in place of the thresholds ({found.rule})"
    elif found is None and min_score is None and (alone := members.with_thresholds):
        whose = "each model's" if len(alone) > 1 else "that model's"
        line = (
            f"thresholds in {' and '.join(alone)} are {whose} own and are not used: visionkit evaluate --ckpt A B "
            "--choose RULE makes some for all together, predict --fitted takes them"
        )
    if line is not None and tell is not None:
        tell(line)
    return found if min_score is None else None
