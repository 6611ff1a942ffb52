"""Checks of picture files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

from visionkit.core.text import printable
from visionkit.data.audit.findings import Example, Finding
from visionkit.data.audit.pictures import PictureFacts
from visionkit.data.audit.snapshot import Snapshot
from visionkit.data.images.decode import DARK
from visionkit.data.images.formats import CUT

__all__ = ["CHECKS"]

MIN_SIDE = 32  # pixels
MAX_ASPECT = 20.0  # longer side / shorter side
FLAT = 0.5  # standard deviation of gray values, 0..255
_USUAL = ("RGB", "L", "P", "1", "", "YCbCr")


def unreadable(s: Snapshot) -> list[Finding]:
    """Pictures that visionkit's own reader refuses."""
    bad = [f for f in s.pictures.values() if f.error is not None]
    cut = [f for f in bad if CUT in str(f.error)]
    others = [f for f in bad if CUT not in str(f.error)]
    return [
        *Finding.of("picture-truncated", (_example(s, f, str(f.error), mended=True) for f in cut)),
        *Finding.of("picture-unreadable", (_example(s, f, str(f.error), mended=True) for f in others)),
    ]


def kinds(s: Snapshot) -> list[Finding]:
    """Pictures that are passed over since their kind is not read."""
    told = ", ".join(f"{n} {printable(kind)}" for kind, n in sorted(s.kinds.items()))
    total = sum(s.kinds.values())
    examples = [
        Example(f"{s.root}: {n} files that end in {printable(kind)} are left out") for kind, n in s.kinds.items()
    ]
    return Finding.of(
        "picture-kind", examples, what=f"{total} pictures of kinds that are not read ({told})", count=total
    )


def turned(s: Snapshot) -> list[Finding]:
    """Pictures whose EXIF orientation turns or mirrors them."""
    found = [_example(s, f, f"{f.path}: EXIF orientation {f.orientation}") for f in _read(s) if f.orientation > 1]
    return Finding.of("picture-turned", found)


def modes(s: Snapshot) -> list[Finding]:
    """Pictures that become 8-bit RGB by a rule that may lose something."""
    found = [(f, word) for f in _read(s) if (word := _oddity(f))]
    counts = ", ".join(f"{n} {word}" for word, n in Counter(word for _, word in found).most_common())
    return Finding.of(
        "picture-mode",
        (_example(s, f, f"{f.path}: {word}") for f, word in found),
        what=f"{len(found)} pictures of an unusual kind ({counts})",
    )


def _oddity(f: PictureFacts) -> str:
    if f.frames > 1:
        return f"of several frames or pages ({f.format})"
    if DARK in f.remarks:
        return f"of {f.bits} bits and dark"
    if f.bits > 8:
        return f"of {f.bits} bits"
    return "" if f.mode in _USUAL or f.format == "NPY" else f"of mode {f.mode}"


def flat(s: Snapshot) -> list[Finding]:
    """Pictures of one colour."""
    found = [_example(s, f, f"{f.path}: all pixels have one colour") for f in _read(s) if f.std < FLAT]
    return Finding.of("picture-flat", found)


def sizes(s: Snapshot) -> list[Finding]:
    """Pictures of extreme sizes."""
    known = [f for f in _read(s) if f.width and f.height]
    small = [f for f in known if min(f.width, f.height) < MIN_SIDE]
    thin = [f for f in known if max(f.width, f.height) > MAX_ASPECT * min(f.width, f.height)]
    return [
        finding
        for id, found in (("picture-small", small), ("picture-shape", thin))
        for finding in Finding.of(id, (_example(s, f, f"{f.path}: {f.width} x {f.height} pixels") for f in found))
    ]


def _read(s: Snapshot) -> Iterator[PictureFacts]:
    return (f for f in s.pictures.values() if f.error is None)


def _example(s: Snapshot, f: PictureFacts, text: str, *, mended: bool = False) -> Example:
    return Example(text, f.path, None, (f.path,), s.split_of.get(f.path, ()), mended=mended)


CHECKS: tuple[Callable[[Snapshot], list[Finding]], ...] = (unreadable, kinds, turned, modes, flat, sizes)
"""All of this file."""
