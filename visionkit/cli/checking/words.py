"""A check in words, for the terminal, and as JSON."""

from __future__ import annotations

import os
import shlex
import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from visionkit import __version__
from visionkit.core.text import shortened
from visionkit.data.audit.checks import Verdict
from visionkit.data.audit.findings import SEVERITIES, Finding
from visionkit.data.audit.snapshot import Snapshot

__all__ = ["as_json", "counted", "described", "lines_of"]

_SHOWN = 3  # places of a finding
_WIDTH = 110


def described(s: Snapshot) -> str:
    """Return what was looked at, in a line."""
    parts = ", ".join(f"{len(images)} {name}" for name, images in s.splits.items())
    boxes = sum(0 if i.boxes is None else len(i.boxes) for i in s.images)
    what = f"{len(s.images)} images ({parts})" if s.images else f"{len(s.pictures)} pictures without labels"
    what += f", {boxes} boxes" if boxes else ""
    what += f", {len(s.classes)} classes" if s.classes else ""
    return f"{s.task} data, {s.format} of {s.root}: {what}"


def counted(findings: Sequence[Finding]) -> str:
    """Return how many findings of each severity there are."""
    counts = Counter(f.severity for f in findings)
    told = [f"{counts[s]} {s}{'s' if counts[s] > 1 else ''}" for s in SEVERITIES if counts[s]]
    return ", ".join(told) if told else "nothing"


def lines_of(
    s: Snapshot, findings: Sequence[Finding], answer: Verdict, *, others: Sequence[str] = (), asked: str = ""
) -> list[str]:
    """Return a check in words.

    Args:
        s: What was looked at.
        findings: What was found.
        answer: Whether that changes the validation number.
        others: What else the folder can be taken for.
        asked: The folder or file as it was given; "" names no command for a repaired copy.
    """
    lines = [f"checked  {described(s)}"]
    lines += [f"         {other}" for other in others]
    for f in findings:
        lines += ["", *_finding(f)]
    mended = sum(f.mended for f in findings)
    lines += ["", f"found    {counted(findings)}"]
    if mended and asked:
        lines.append(
            f"mend     visionkit check {shlex.quote(asked)} --fix COPY writes a copy without {mended} of these places"
        )
    return [*lines, *textwrap.wrap(answer.sentence, _WIDTH)]


def _finding(f: Finding) -> Iterator[str]:
    yield f"{f.severity:<8} {f.id}: {f.what}"
    said = f.id.startswith(("class-", "split-"))  # what was found names them
    places = [_short(e.text) for e in f.examples if e.file or not said]
    yield from (f"           {line}" for line in shortened(places, _SHOWN))
    mends = f" --fix {f.kind.mends}." if f.mended else ""
    words = f"{f.kind.why} What to do: {f.kind.cure}.{mends}"
    yield from textwrap.wrap(words, _WIDTH, initial_indent="         ", subsequent_indent="         ")


def _short(text: str) -> str:
    """Return a text with paths from here on, where that is shorter."""
    here = os.getcwd() + os.sep
    return text.replace(here, "") if len(here) > 2 else text


def as_json(s: Snapshot, findings: Sequence[Finding], answer: Verdict, *, status: int) -> dict[str, Any]:
    """Return a check as plain values."""
    return {
        "visionkit": __version__,
        "root": s.root,
        "task": s.task,
        "format": s.format,
        "images": {name: len(images) for name, images in s.splits.items()},
        "classes": list(s.classes),
        "size": list(s.size),
        "findings": [f.plain() for f in findings],
        "counts": {severity: sum(f.severity == severity for f in findings) for severity in SEVERITIES},
        "changes_validation": answer.changes,
        "verdict": answer.sentence,
        "status": status,
    }
