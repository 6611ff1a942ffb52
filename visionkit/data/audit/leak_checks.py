"""Checks of images that are there more than once, within a split and across them."""

from __future__ import annotations

from collections.abc import Callable

from visionkit.data.audit.findings import Example, Finding
from visionkit.data.audit.snapshot import Labelled, Snapshot

__all__ = ["CHECKS"]

SERIES = 5  # images that hang together from which they are called a series, such as frames of a video


def exact(s: Snapshot) -> list[Finding]:
    """Images with the same bytes."""
    leaks: list[Example] = []
    copies: list[Example] = []
    conflicts: list[Example] = []
    for members in _identical(s):
        by_split = {n: [m for m in members if m.split == n] for n in ("train", "val", "test")}
        measured = [m for n in ("val", "test") for m in by_split[n]]
        for image in by_split["train"] if measured else ():
            text = "is the same file as" if image.path == measured[0].path else "is byte for byte the same as"
            leaks.append(_pair(image, measured[0], text, mended=True))
        if by_split["val"] and by_split["test"]:
            leaks.append(_pair(by_split["val"][0], by_split["test"][0], "is byte for byte the same as"))
        for one, other in ((m[0], o) for m in by_split.values() for o in m[1:]):
            if _alike(one, other):
                copies.append(_pair(one, other, "is byte for byte the same as", mended=True))
        conflicts += [
            _pair(members[0], m, "is the same picture with other labels than")
            for m in members[1:]
            if not _alike(members[0], m)
        ]
    told = ", ".join(sorted({" and ".join(e.splits) for e in leaks}))
    return [
        *Finding.of("leak-exact", leaks, what=f"images that are in two splits ({told}): {len(leaks)}"),
        *Finding.of("duplicate-exact", copies),
        *Finding.of("duplicate-conflict", conflicts),
    ]


def _identical(s: Snapshot) -> list[list[Labelled]]:
    """Return the images with the same bytes, each of which is paired with the first."""
    found: dict[int, list[int]] = {}
    for twins in s.twins:
        if twins.kind == "identical":
            found.setdefault(twins.one, [twins.one]).append(twins.other)
    return [[s.images[m] for m in members] for members in found.values()]


def _alike(one: Labelled, other: Labelled) -> bool:
    """Return whether two images have the same labels, as far as they are known."""
    if one.path == other.path:
        return True
    if one.boxes is None or other.boxes is None:
        known = one.pixels is not None and other.pixels is not None
        if known and one.pixels is not None and other.pixels is not None:
            return bool((one.pixels == other.pixels).all())
        return one.classes == other.classes
    rows = [
        sorted([int(i), *(round(float(v)) for v in b)] for i, b in zip(x.ids, x.boxes, strict=True))
        for x in (one, other)
        if x.boxes is not None
    ]
    return len(rows[0]) == len(rows[1]) and all(
        a[0] == b[0] and all(abs(p - q) <= 1 for p, q in zip(a, b, strict=True)) for a, b in zip(*rows, strict=True)
    )


def near(s: Snapshot) -> list[Finding]:
    """Images that show nearly the same: by series, not by pairs."""
    series_of = {member: k for k, series in enumerate(s.series) for member in series.members}
    alike: dict[int, list[tuple[int, int]]] = {}
    for t in s.twins:
        if t.kind != "identical" and t.one in series_of:
            alike.setdefault(series_of[t.one], []).append((t.one, t.other))
    across: list[Example] = []
    within: list[Example] = []
    frames: list[Example] = []
    parted = 0
    for k, inside in sorted(alike.items()):
        members = [s.images[m] for m in s.series[k].members]
        crossing = sorted(p for p in inside if s.images[p[0]].split != s.images[p[1]].split)
        if crossing:
            first = (s.images[crossing[0][0]], s.images[crossing[0][1]])
            others = [m for m in members if m not in first]
            across.append(_series([*first, *others], "is nearly the same as"))
            parted += len(members)
        elif len(members) >= SERIES:
            frames.append(_series(members, "is of a series with"))
        else:
            within.append(_series(members, "is nearly the same as"))
    return [
        *Finding.of(
            "leak-near",
            across,
            what=f"groups of nearly the same images in two splits: {len(across)}, with {parted} images",
        ),
        *Finding.of("duplicate-near", within, what=f"groups of images that are nearly the same: {len(within)}"),
        *Finding.of("duplicate-frames", frames, what=f"series of pictures such as frames of a video: {len(frames)}"),
    ]


def _pair(one: Labelled, other: Labelled, text: str, *, mended: bool = False) -> Example:
    """Return an example of two images; within a split it is at the second of them."""
    if one.split == other.split:
        told, file = f"{other.path}: {text} {one.path}", other.path
    else:
        told, file = f"{one.path} ({one.split}): {text} {other.path} ({other.split})", one.path
    splits = tuple(dict.fromkeys((one.split, other.split)))
    paths = (one.path,) if one.path == other.path else (one.path, other.path)
    return Example(told, file, None, paths, splits, mended=mended)


def _series(members: list[Labelled], text: str) -> Example:
    one, other, *rest = members
    more = f", and {len(rest)} more" if rest else ""
    told = f"{one.path} ({one.split}): {text} {other.path} ({other.split}){more}"
    splits = tuple(n for n in ("train", "val", "test") if any(m.split == n for m in members))
    return Example(told, one.path, None, tuple(m.path for m in members), splits)


CHECKS: tuple[Callable[[Snapshot], list[Finding]], ...] = (exact, near)
"""All of this file."""
