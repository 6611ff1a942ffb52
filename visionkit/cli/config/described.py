"""What a class takes, asked of the class and of the parser: each argument with its explanation, type and default."""

from __future__ import annotations

import dataclasses
import inspect
import sys
import types
import typing
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal

__all__ = ["Argument", "Described", "ask", "name_of", "say_default"]

LONGEST_TYPE = 70  # characters


@dataclass(frozen=True)
class Argument:
    """An argument, as help and configs speak of it.

    Args:
        text: What the docstring says of it.
        type: Its type in short, the same with every version of Python.
        default: Its default in words; None where it must be given.
        kind: Name of the class that what it takes derives from; "" for plain data.
        form: How that is written: a class with its arguments, several of them under names of the user's, or settings,
            which are the arguments themselves; "" for plain data.
        passed: How many of the first arguments of the class are passed by whoever makes it.
    """

    text: str = ""
    type: str = "Any"
    default: str | None = None
    kind: str = ""
    form: Literal["", "class", "named", "settings"] = ""
    passed: int = 0

    def explain(self, default: str | None = None) -> str:
        """Return explanation, type and default in a line.

        Args:
            default: What stands in place of the default, such as the value of a config.
        """
        default = self.default if default is None else default
        said = "required" if default is None else f"default: {default}"
        return f"{self.text} ({self.type}, {said})".strip()


@dataclass(frozen=True)
class Described:
    """A class, as help and configs speak of it.

    Args:
        name: Its name.
        summary: The first paragraph of its docstring, in a line.
        arguments: Those that a config can give, its own first, then those that it passes on.
        in_common: Those of them that the classes inside it may not have for themselves.
    """

    name: str
    summary: str = ""
    arguments: Mapping[str, Argument] = field(default_factory=dict)
    in_common: Collection[str] = ()


def ask(cls: type, passed: int = 0) -> Described:
    """Describe a class; which arguments a config can give, the parser says.

    Args:
        cls: Any class.
        passed: How many of its first arguments are passed by whoever makes it.
    """
    from jsonargparse import ArgumentParser

    keys = ArgumentParser().add_class_arguments(cls, skip={passed} if passed else None, fail_untyped=False)
    names = dict.fromkeys(key.partition(".")[0] for key in keys)
    linked = getattr(cls, "linked", {})  # what the command line fills
    summary = (inspect.getdoc(cls) or "").partition("\n\n")[0].replace("\n", " ")
    arguments = {name: _argument(cls, name) for name in names if name not in linked}
    return Described(cls.__name__, summary, arguments, tuple(getattr(cls, "in_common", ())))


def name_of(cls: type) -> str:
    """Return the name by which a config names a class: short for visionkit's, else with its module."""
    import visionkit

    public = visionkit.PUBLIC.get(cls.__name__) == cls.__module__
    return cls.__name__ if public else f"{cls.__module__}.{cls.__qualname__}"


def say_default(value: Any) -> str:
    """Return a value as it is said in help."""
    if isinstance(value, type):
        return value.__name__
    if isinstance(value, list) and len(value) > 2:
        return f"a list of {len(value)}, see the config"
    return "none" if value is None else str(value)


# ---- arguments


def _argument(cls: type, name: str) -> Argument:
    """Describe an argument by the constructor that names it: the class's own or that of a base, passed on to."""
    for base in cls.__mro__:
        parameters, hints, texts = _constructor(base)
        if name in parameters:
            default = parameters[name].default
            hint = hints.get(name, parameters[name].annotation)
            kind, form, passed = _taken(hint)
            said = None if default is inspect.Parameter.empty else say_default(default)
            text = _say_type(hint)
            short = text if len(text) <= LONGEST_TYPE else f"{text[: LONGEST_TYPE - 3]}..."
            return Argument(texts.get(name, ""), short, said, kind, form, passed)
    return Argument(default="unknown")  # passed on to something else than a base


@cache
def _constructor(cls: type) -> tuple[Mapping[str, inspect.Parameter], Mapping[str, Any], Mapping[str, str]]:
    """Return parameters, types and explanations of the constructor that a class itself defines, else nothing."""
    import docstring_parser

    init = vars(cls).get("__init__")
    if not inspect.isfunction(init):
        return {}, {}, {}
    try:
        hints = typing.get_type_hints(init)
    except (NameError, TypeError):  # a name for type checkers alone
        hints = {}
    doc = inspect.getdoc(cls) or ""
    doc = doc if "Args:" in doc else f"{doc}\n\n{inspect.cleandoc(init.__doc__ or '')}"
    texts = {p.arg_name: " ".join((p.description or "").split()) for p in docstring_parser.parse(doc).params}
    return inspect.signature(init).parameters, hints, texts


def _taken(hint: Any) -> tuple[str, Literal["", "class", "named", "settings"], int]:
    """Return kind, form and number of passed arguments of what an argument of this type takes."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return next((found for found in map(_taken, args) if found[0]), ("", "", 0))
    if origin in (dict, Mapping):
        kind, form, passed = _taken(args[1])
        return (kind, "named", passed) if form == "class" else ("", "", 0)
    if origin is Callable and isinstance(args[0], list) and isinstance(args[1], type):
        return name_of(args[1]), "class", len(args[0])
    if isinstance(hint, type) and not origin and hint.__module__.partition(".")[0] not in sys.stdlib_module_names:
        return name_of(hint), "settings" if dataclasses.is_dataclass(hint) else "class", 0
    return "", "", 0


def _say_type(hint: Any) -> str:
    """Return a type in words that are the same in all versions of Python, whatever was asked for before."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint in (None, types.NoneType):
        return "None"
    if hint is inspect.Parameter.empty:
        return "Any"
    if origin in (typing.Union, types.UnionType):  # typing may have kept the order of an equal one
        return " | ".join(sorted(map(_say_type, args), key=lambda said: (said == "None", said)))
    if origin is Literal:
        return f"Literal[{', '.join(map(repr, args))}]"
    if isinstance(hint, list):  # what a Callable takes
        return f"[{', '.join(map(_say_type, hint))}]"
    if hint is ...:
        return "..."
    name = hint if isinstance(hint, str) else getattr(origin or hint, "__name__", str(hint))
    return f"{name}[{', '.join(map(_say_type, args))}]" if args else name
