"""Lists of class names: a name's position is its id."""

from __future__ import annotations

from collections.abc import Sequence

from visionkit.core.errors import DataError, UsageError
from visionkit.core.text import is_printable

__all__ = ["check_class_names", "check_classes", "unknown_class"]

_MARKS = str.maketrans("", "", "\u061c\u200e\u200f")  # of direction: Arabic and Hebrew names hold them


def check_class_names(classes: Sequence[str], where: object = None) -> tuple[str, ...]:
    """Return class names that were read, once they are known to be one line of text each: all readers' names pass here.

    Args:
        classes: The names.
        where: The file or folder that they were read from, for messages.

    Raises:
        DataError: One holds a line end, another control character or bytes that are no text, which would act on
            terminals, forge lines of tables and lists, and make file names that nobody can type.
    """
    for name in classes:
        if not is_printable(name.translate(_MARKS)):
            told = "" if where is None else f"{where}: "
            raise DataError(
                f"{told}the class name {name!r} holds characters that are no text (control characters, line ends or "
                "bytes that are not UTF-8); rename the class"
            )
    return tuple(classes)


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


def unknown_class(name: str, classes: Sequence[str]) -> str:
    """Return what to say of a class name that is not in the list, with the nearest one that is."""
    import difflib

    near = difflib.get_close_matches(name, classes, n=1, cutoff=0.5)
    listed = ", ".join(classes[:10]) + (f", ... ({len(classes)} in all)" if len(classes) > 10 else "")
    return f"class {name!r} is not one of {listed}" + (f"; did you mean {near[0]!r}?" if near else "")
