"""All checks of a data set: each a pure function from a snapshot to findings, and the one way to run them."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple, TypeAlias

from visionkit.core.errors import UsageError
from visionkit.data.audit import box_checks, class_checks, leak_checks, picture_checks, reader_checks
from visionkit.data.audit.findings import KINDS, Example, Finding, merge
from visionkit.data.audit.snapshot import Snapshot

__all__ = ["CHECKS", "Verdict", "refuse_unknown", "run_checks", "verdict"]

Check: TypeAlias = Callable[[Snapshot], list[Finding]]

CHECKS: tuple[Check, ...] = (
    *picture_checks.CHECKS,
    *reader_checks.CHECKS,
    *box_checks.CHECKS,
    *class_checks.CHECKS,
    *leak_checks.CHECKS,
)
"""In the order in which they run."""

_OF_VAL = (
    *("picture-unreadable", "picture-truncated", "label-unreadable", "label-syntax", "label-units", "label-size"),
    *("label-missing", "image-missing", "image-twice", "box-degenerate", "box-outside", "box-missing", "box-repeated"),
    *("box-duplicate", "box-contradictory", "outline-missing", "mask-unreadable", "mask-value", "mask-twice"),
    *("class-unknown", "duplicate-exact", "duplicate-conflict", "split-missing"),
)
"""What moves the number where it is in the images that it is measured on."""


def refuse_unknown(words: Sequence[str]) -> None:
    """Refuse words that are neither the id of a finding nor a family of them.

    Raises:
        UsageError: One is.
    """
    families = sorted({id.partition("-")[0] for id in KINDS})
    for word in words:
        if word not in KINDS and word not in families:
            raise UsageError(
                f"no finding is called {word!r}: give an id such as leak-exact, or all of a kind: {', '.join(families)}"
            )


def run_checks(
    snapshot: Snapshot, *, only: Sequence[str] = (), skip: Sequence[str] = (), checks: Sequence[Check] = CHECKS
) -> list[Finding]:
    """Return all that is found, the worst first. A check that fails is itself a finding, never the end.

    Args:
        snapshot: What is known of the data.
        only: Ids of findings or families (what stands before the hyphen); empty for all.
        skip: The same, of those that are left out.
        checks: The checks.

    Raises:
        UsageError: ``only`` or ``skip`` names no finding.
    """
    refuse_unknown([*only, *skip])
    found: list[Finding] = []
    failed: list[Example] = []
    for check in checks:
        try:
            found += check(snapshot)
        except Exception as e:  # whatever it is
            where = traceback.extract_tb(e.__traceback__)[-1]
            name = f"{check.__name__.strip('_')} ({where.name}, line {where.lineno})"
            failed.append(Example(f"the check {name} failed: {type(e).__name__}: {' '.join(str(e).split())}"))
    wanted = [f for f in found if (not only or _named(f.id, only)) and not _named(f.id, skip)]
    return merge([*wanted, *Finding.of("check-failed", failed)])


def _named(id: str, words: Collection[str]) -> bool:
    return id in words or id.partition("-")[0] in words


class Verdict(NamedTuple):
    """Whether the findings change the number that a model is judged by.

    Args:
        changes: Whether they do.
        sentence: The answer in words.
    """

    changes: bool
    sentence: str


def verdict(snapshot: Snapshot, findings: Sequence[Finding]) -> Verdict:
    """Return whether the findings change the validation number.

    Args:
        snapshot: What was looked at.
        findings: What was found in it.
    """
    asked = "Would this change your validation number?"
    has_val = "val" in snapshot.splits or "test" in snapshot.splits
    measured = ("val", "test") if has_val else ("train",)
    reasons = []
    for f in findings:
        if f.id.startswith("leak-"):
            reasons.append(f.what)
        elif f.id in _OF_VAL:
            number = sum(not e.splits or bool({*e.splits} & {*measured}) for e in f.examples)
            if number:
                reasons.append(f"{f.kind.title}: {number}" + (" in validation or test" if has_val else ""))
        elif f.id in ("duplicate-near", "duplicate-frames") and not has_val:
            reasons.append(f"{f.what}, which an automatic split may part")
    if reasons:
        more = f"; and {len(reasons) - 3} more kinds of findings" if len(reasons) > 3 else ""
        return Verdict(True, f"{asked} Yes: {'; '.join(reasons[:3])}{more}")
    return Verdict(False, f"{asked} No: nothing that was found touches the images that it is measured on")
