"""Lists of class names: a name's position is its id."""

from __future__ import annotations

from collections.abc import Sequence

from visionkit.core.errors import UsageError

__all__ = ["check_classes", "unknown_class"]


def check_classes(classes: Sequence[str]) -> tuple[str, ...]:
    """Return fixed class names as a tuple.

    Raises:
        UsageError: There are none, or a name comes twice.
    """
    if isinstance(classes, str) or not classes:
        raise UsageError(f"classes: {classes!r} is not a list of class names; give one such as [cat, dog]")
    twice = sorted({c for c in classes if list(classes).count(c) > 1})
    if twice:
        raise UsageError(f"classes: {', '.join(twice)} comes twice; give each class once")
    return tuple(classes)


def unknown_class(name: str, classes: Sequence[str]) -> str:
    """Return what to say of a class name that is not in the list, with the nearest one that is."""
    import difflib

    near = difflib.get_close_matches(name, classes, n=1, cutoff=0.5)
    listed = ", ".join(classes[:10]) + (f", ... ({len(classes)} in all)" if len(classes) > 10 else "")
    return f"class {name!r} is not one of {listed}" + (f"; did you mean {near[0]!r}?" if near else "")
