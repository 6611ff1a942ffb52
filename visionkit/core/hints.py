"""Whether plain data of a file is of the kind that a constructor's argument is declared with."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, Union

__all__ = ["fits", "in_words"]


def fits(value: Any, hint: Any) -> bool:
    """Return whether a value may be given to an argument of this type.

    Numbers, words, choices, and lists and mappings of such are looked at; whatever else an argument takes is for the
    constructor to say.

    Args:
        value: Plain data.
        hint: The type, as ``typing.get_type_hints`` returns it.
    """
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint is None or hint is type(None):
        return value is None
    if hint is bool:
        return isinstance(value, bool | int) and value in (0, 1)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is str:
        return isinstance(value, str)
    if origin is Literal:
        return any(type(value) is type(choice) and value == choice for choice in inner)
    if origin in (Union, types.UnionType):
        return any(fits(value, choice) for choice in inner)
    if origin is tuple and inner[-1] is not Ellipsis:
        return isinstance(value, list | tuple) and len(value) == len(inner) and all(map(fits, value, inner))
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return isinstance(value, Mapping) and all(fits(entry, inner[1]) for entry in value.values())
    if isinstance(origin, type) and issubclass(origin, typing.Collection):
        return isinstance(value, list | tuple) and all(fits(entry, inner[0]) for entry in value)
    return True


def in_words(hint: Any) -> str:
    """Return a type as a program has it: ``int | None``."""
    return inspect.formatannotation(hint)
