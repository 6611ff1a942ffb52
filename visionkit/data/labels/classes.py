"""Lists of class names: a name's position is its id."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from visionkit.core.errors import DataError, UsageError
from visionkit.core.text import is_printable

__all__ = ["check_class_names", "check_classes", "check_lines", "numbered_names", "unknown_class"]

_NUMBERED = (
    re.compile(r"(?P<id>[0-9]{1,6})(?:\s*[:=,;]\s*|[.)]?\s+)(?P<name>\S.*)"),
    re.compile(r"(?P<name>\S.*?)(?:\s*[:=,;]\s*|\s+)(?P<id>[0-9]{1,6})"),
)
_MARKS = str.maketrans("", "", "\u061c\u200e\u200f")  # of direction: Arabic and Hebrew names hold them


def check_class_names(classes: Sequence[str], where: object = None) -> tuple[str, ...]:
    """Return class names that were read, once they are known to be one line of text each: all readers' names pass here.

    Args:
        classes: The names.
        where: The file or folder that they were read from, for messages.

    Raises:
        DataError: One holds a line end, another control character or bytes that are no text, which would act on
            terminals, forge lines of tables and lists, and make file names that nobody can type. Or two look the same.
    """
    told = "" if where is None else f"{where}: "
    seen: dict[str, str] = {}
    for name in classes:
        if not is_printable(name.translate(_MARKS)):
            raise DataError(
                f"{told}the class name {name!r} holds characters that are no text (control characters, line ends or "
                "bytes that are not UTF-8); rename the class"
            )
        other = seen.setdefault(_looks(name), name)
        if other != name:
            raise DataError(
                f"{told}the class names {other!a} and {name!a} look the same, but for characters that do not "
                "show or another Unicode form; give them one name"
            )
    return tuple(classes)


def _looks(name: str) -> str:
    """Return what of a name shows: without marks and blanks of no width, in one Unicode form, with single blanks."""
    if name.isascii():
        return " ".join(name.split())
    shown = "".join(c for c in unicodedata.normalize("NFC", name) if unicodedata.category(c) != "Cf")
    return " ".join(shown.split())


def check_classes(classes: Sequence[str]) -> tuple[str, ...]:
    """Return fixed class names as a tuple.

    Raises:
        UsageError: There are none, or a name comes twice or is no line of text.
    """
    if isinstance(classes, str) or not classes:
        raise UsageError(f"classes: {classes!r} is not a list of class names; give one such as [cat, dog]")
    twice = sorted({c for c in classes if list(classes).count(c) > 1})
    if twice:
        raise UsageError(f"classes: {', '.join(twice)} comes twice; give each class once")
    try:
        return check_class_names(classes)
    except DataError as e:
        raise UsageError(f"classes: {e}") from None


def check_lines(lines: Sequence[tuple[int, str]], where: object) -> None:
    """Refuse lines of a file of class names that are written in another way: comments, lists, quotes.

    Args:
        lines: Number and text of each, without outer blanks.
        where: The file, for messages.

    Raises:
        DataError: One is; a comment would be a class and move the ids of all others.
    """
    for number, line in lines:
        inner = line[1:-1]
        quoted = len(line) > 1 and line[0] == line[-1] and line[0] in "\"'"
        if line.startswith(("#", "//", "- ")) or line.endswith(",") or quoted or _listed(line, inner):
            raise DataError(
                f"{where}:{number}: {line!r:.40} is no plain name (a comment, a list or quotes); write one name a line"
            )


def _listed(line: str, inner: str) -> bool:
    return line[:1] + line[-1:] in ("[]", "{}") and any(mark in inner for mark in "\"',")


def numbered_names(lines: Sequence[str]) -> dict[int, str] | None:
    """Return names by their numbers where each line of a file has its own, as ``0 green``, ``0: green`` or ``green 0``.

    None where the lines are names alone: ``type 1``, ``type 2`` are no numbers of one name, and without a class 0
    (``2 doors``, ``4 doors``) the numbers are parts of the names.

    Args:
        lines: Without outer blanks; none is empty.
    """
    for pattern in _NUMBERED:
        found = [m for line in lines if (m := pattern.fullmatch(line))]
        names = {int(m["id"]): m["name"] for m in found}
        if 0 in names and len(lines) == len(found) == len(names) == len(set(names.values())):
            return names
    return None


def unknown_class(name: str, classes: Sequence[str]) -> str:
    """Return what to say of a class name that is not in the list, with the nearest one that is."""
    import difflib

    near = difflib.get_close_matches(name, classes, n=1, cutoff=0.5)
    listed = ", ".join(classes[:10]) + (f", ... ({len(classes)} in all)" if len(classes) > 10 else "")
    return f"class {name!r} is not one of {listed}" + (f"; did you mean {near[0]!r}?" if near else "")
