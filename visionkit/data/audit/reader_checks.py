"""What the readers of labels found by themselves: the same code as in training, gathered instead of refused."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from visionkit.data.audit.findings import Example, Finding, Severity, located
from visionkit.data.audit.snapshot import Snapshot
from visionkit.data.labels.faults import Fault

__all__ = ["CHECKS"]

_MENDED = ("box-degenerate", "box-outside", "box-missing", "box-repeated", "image-missing", "mask-unreadable")


def faults(s: Snapshot) -> list[Finding]:
    """What they would refuse, and what they put right by themselves."""
    units = any(f.kind == "label-units" for f in s.faults)
    corrected = [c for c in s.corrections if not (units and c.kind.startswith("box-"))]  # follows from units
    refused = _findings(s, s.faults, "error")  # whatever it is as a rule: training stops at it
    return [*refused, *_findings(s, corrected, None)]


def _findings(s: Snapshot, faults: Iterable[Fault], severity: Severity | None) -> list[Finding]:
    found: dict[str, list[Fault]] = {}
    for f in dict.fromkeys(faults):
        found.setdefault(f.kind, []).append(f)
    return [
        f for kind, each in found.items() for f in Finding.of(kind, (_example(s, e) for e in each), severity=severity)
    ]


def _example(s: Snapshot, f: Fault) -> Example:
    file, line = located(f.message)
    splits = (f.split,) if f.split else s.split_of.get(file, ())
    shown = (file,) if file in s.pictures else s.image_of.get(file, ())
    return Example(f.message, file, line, shown, splits, mended=f.kind in _MENDED)


def orphans(s: Snapshot) -> list[Finding]:
    """Label files of no image."""
    return Finding.of("label-orphan", (Example(f"{f}: no image has this name", f) for f in s.orphans))


def unlabelled(s: Snapshot) -> list[Finding]:
    """Images that were left out, and images without any object."""
    left_out = [Example(f"{path}: no label, left out", path, None, (path,), (split,)) for path, split in s.unlabelled]
    empty = [
        Example(f"{i.path}: no object", i.path, None, (i.path,), (i.split,))
        for i in s.images
        if i.boxes is not None and not len(i.boxes)
    ]
    share = len(empty) / max(1, len(s.images))
    many = "warning" if share > 0.5 or left_out else None
    return Finding.of("image-unlabelled", [*left_out, *empty], severity=many)  # type: ignore[arg-type]


def masks(s: Snapshot) -> list[Finding]:
    """Masks in which nothing but background is left."""
    background = next((i for i, name in enumerate(s.classes) if name.lower() == "background"), None)

    def empty(counts: Iterable[int]) -> bool:
        return not any(n for i, n in enumerate(counts) if i != background)

    found = [
        Example(f"{i.source or i.path}: shows no class", i.source or i.path, None, (i.path,), (i.split,))
        for i in s.images
        if i.pixels is not None and empty(i.pixels.tolist())
    ]
    return Finding.of("mask-empty", found)


CHECKS: tuple[Callable[[Snapshot], list[Finding]], ...] = (faults, orphans, unlabelled, masks)
"""All of this file."""
