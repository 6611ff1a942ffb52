"""Which thresholds predictions go by."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from visionkit.core.errors import UsageError
from visionkit.core.thresholds import Thresholds

__all__ = ["thresholds_in_force"]


def thresholds_in_force(
    own: Thresholds | None,
    given: Thresholds | None,
    min_score: float | None,
    classes: Sequence[str],
    tell: Callable[[str], None] | None,
) -> Thresholds | None:
    """Return what predictions go by: thresholds that are given, else the model's own; none beside a lowest score.

    Args:
        own: The model's.
        given: Those of ``--fitted``, or of a caller.
        min_score: A lowest score that was asked for: it is taken in place of both.
        classes: The model's class names.
        tell: Is told in one line where thresholds are left aside.

    Raises:
        UsageError: A threshold that is given is of no class of the model.
    """
    found = own if given is None else given
    if found is not None and (unknown := [name for name in found.values if name not in classes]):
        raise UsageError(f"thresholds: {unknown[0]!r} is no class of the model; it has {', '.join(classes)}")
    if found is None or min_score is None:
        return found
    if tell is not None:
        tell(f"--min-score {min_score:g} is taken in place of the thresholds ({found.rule})")
    return None
