"""Components remember how they were made, so that a checkpoint can say it in plain data."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import typing
from collections.abc import Callable, Collection, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any, ClassVar, Self

from visionkit.core.errors import DataError, UsageError
from visionkit.core.hints import fits, in_words

__all__ = ["Component", "Spec", "build", "checked", "parameters_of", "spec_of"]

Spec = dict[str, Any]
"""A component in plain data: ``{"class_path": str, "init_args": {name: plain value or Spec}}``."""


class Component:
    """Mix-in that records the arguments of the outermost constructor call.

    Put it first among the bases of a class that checkpoints describe. Constructors take arguments by name, whose values
    are plain data, dataclasses or other components. Those that a constructor takes as ``**options`` it passes on to its
    base, which declares them; they are recorded as if it declared them itself.

    Raises:
        TypeError: A class is defined whose constructor takes arguments without names, or any that nobody declares.
    """

    weights_arguments: ClassVar[frozenset[str]] = frozenset()
    """Names of arguments that say which other file to start from, and how: a checkpoint, which brings the weights
    itself, has no say in them."""
    _arguments: dict[str, Any]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Refuse a constructor whose arguments a checkpoint could not repeat by name."""
        super().__init_subclass__(**kwargs)
        if "__init__" not in vars(cls):
            return
        declared = any("__init__" in vars(base) and issubclass(base, Component) for base in cls.__mro__[1:])
        for p in list(inspect.signature(cls.__init__).parameters.values())[1:]:
            if p.kind in (p.POSITIONAL_ONLY, p.VAR_POSITIONAL) or (p.kind is p.VAR_KEYWORD and not declared):
                raise TypeError(
                    f"{cls.__name__}.__init__({p}): a checkpoint repeats arguments by their names: declare each, or "
                    "pass **options on to a base that does"
                )

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Record the arguments, then make the object."""
        self = super().__new__(cls)
        try:
            bound = inspect.signature(cls.__init__).bind_partial(self, *args, **kwargs)
            arguments = dict(list(bound.arguments.items())[1:])
            for name, p in bound.signature.parameters.items():
                if p.kind is p.VAR_KEYWORD:
                    arguments |= arguments.pop(name, {})
        except TypeError:  # the constructor itself raises the better message
            arguments = {}
        object.__setattr__(self, "_arguments", arguments)  # works before nn.Module.__init__
        return self

    def recorded_arguments(self) -> dict[str, Any]:
        """Return the constructor arguments that describe this object; override to drop what must not be repeated."""
        return dict(self._arguments)


def spec_of(component: Component, *, drop: Collection[str] = ()) -> Spec:
    """Describe a component in plain data.

    Args:
        component: The object to describe.
        drop: Names of arguments that the one who builds it again passes itself.

    Raises:
        UsageError: An argument is not plain data.
    """
    arguments = {k: v for k, v in component.recorded_arguments().items() if k not in drop}
    path = class_path(type(component))
    return {"class_path": path, "init_args": {k: _plain(v, f"{path}({k}=...)") for k, v in arguments.items()}}


def class_path(cls: type) -> str:
    """Return the import path of a class: the public one where visionkit names it, else module and name."""
    import visionkit

    if visionkit.PUBLIC.get(cls.__name__) == cls.__module__:
        return f"visionkit.{cls.__name__}"
    return f"{cls.__module__}.{cls.__qualname__}"


def build(spec: Mapping[str, Any], *, trust: Collection[str] = (), **given: Any) -> Any:
    """Make the object that a spec describes.

    Args:
        spec: What :func:`spec_of` returned.
        trust: Names of top-level packages, beside visionkit, whose classes may be imported.
        given: Arguments that the spec left out because the caller knows them.

    Raises:
        UsageError: The class lies outside the trusted packages.
        DataError: The class does not exist or is no component.
    """
    return _constructor(spec, trust)(**given)


def checked(spec: Any, *, kind: type[Component] = Component, trust: Collection[str] = ()) -> Spec:
    """Return a spec as :func:`build` may have it, with all that it names looked at before anything of it is made.

    For whoever builds it, or hands it to something else that imports what it names, such as a parser of command
    lines. Arguments that name other files to load (``Component.weights_arguments``) are left out, at any depth. A word
    where an argument takes a component is refused: such a parser would import it. So is a value of another kind than
    an argument of visionkit's classes is declared with.

    Args:
        spec: A spec.
        kind: What it must make.
        trust: Names of top-level packages, beside visionkit, whose classes may be imported.

    Raises:
        UsageError: A class lies outside the trusted packages.
        DataError: A class does not exist, is of another kind or has no such argument, or one of another kind.
    """
    if not isinstance(spec, Mapping) or "class_path" not in spec:
        raise DataError(f"the checkpoint describes no {kind.__name__} with a class_path")
    path, arguments = spec["class_path"], spec.get("init_args", {})
    if set(spec) - {"class_path", "init_args"} or not isinstance(arguments, Mapping):
        raise DataError(f"the checkpoint describes {path} by {', '.join(map(str, spec))}; refused")
    cls = _class(path, trust)
    if not issubclass(cls, kind):
        raise DataError(f"the checkpoint names {path}, which is no {kind.__name__}; refused")
    known = parameters_of(cls)
    kept: dict[str, Any] = {}
    for name, value in arguments.items():
        if name not in known:
            raise DataError(f"the checkpoint gives {path} an argument {name!r}, which it has not")
        if name in cls.weights_arguments and value is not None:
            continue
        if _takes_component(known[name].annotation) and (word := _word(value)) is not None:
            raise DataError(f"the checkpoint gives {path}({name}=...) the word {word!r}; refused")
        if cls.__module__.startswith("visionkit.") and not fits(value, known[name].annotation):
            takes = in_words(known[name].annotation)
            raise DataError(f"the checkpoint gives {path}({name}=...) {value!r:.60}, it takes {takes}; refused")
        kept[name] = _checked(value, trust)
    return {"class_path": path, "init_args": kept}


def _checked(value: Any, trust: Collection[str]) -> Any:
    """Return an argument with the specs in it :func:`checked`."""
    if isinstance(value, list | tuple):
        return [_checked(entry, trust) for entry in value]
    if not isinstance(value, Mapping):
        return value
    if "class_path" in value:
        return checked(value, trust=trust)
    return {key: _checked(entry, trust) for key, entry in value.items()}


def parameters_of(cls: type) -> dict[str, inspect.Parameter]:
    """Return the arguments of a class by name, its own first, then those that it passes on to its base.

    Annotations are types where their names can be found, else text.
    """
    return dict(_parameters(cls))


@cache  # a file may name a class many times
def _parameters(cls: type) -> dict[str, inspect.Parameter]:
    found: dict[str, inspect.Parameter] = {}
    for owner in cls.__mro__:
        if "__init__" not in vars(owner) or owner is object:
            continue
        constructor = vars(owner)["__init__"]
        try:
            hints = typing.get_type_hints(constructor)
        except NameError:  # a type for type checkers alone
            hints = {}
        parameters = list(inspect.signature(constructor).parameters.values())[1:]
        for p in parameters:
            if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD):
                found.setdefault(p.name, p.replace(annotation=hints.get(p.name, p.annotation)))
        if all(p.kind is not p.VAR_KEYWORD for p in parameters):
            break
    return found


def _takes_component(hint: Any) -> bool:
    """Return whether an argument of this type can be a component or what makes one."""
    inner = [part for part in typing.get_args(hint) if not isinstance(part, list)]
    callable_ = typing.get_origin(hint) is Callable or hint in (Any, object, inspect.Parameter.empty)
    return callable_ or (isinstance(hint, type) and issubclass(hint, Component)) or any(map(_takes_component, inner))


def _word(value: Any) -> str | None:
    """Return a word in plain data outside of specs, None where there is none."""
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping) and "class_path" in value:
        return None
    entries = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return next((word for entry in entries if (word := _word(entry)) is not None), None)


def _constructor(spec: Mapping[str, Any], trust: Collection[str]) -> Callable[..., Any]:
    """Return the class of a spec with the spec's arguments bound."""
    cls = _class(spec["class_path"], trust)
    return partial(cls, **{k: _from_plain(v, trust) for k, v in spec["init_args"].items()})


def _class(path: Any, trust: Collection[str]) -> type[Component]:
    """Return the class of a path, imported where it is trusted."""
    module_name, _, name = path.rpartition(".") if isinstance(path, str) else ("", "", "")
    package = module_name.partition(".")[0]
    if not package:
        raise DataError(f"the checkpoint names {path!r:.60}, which is no path of a class")
    if package != "visionkit" and package not in trust:
        raise UsageError(
            f"the checkpoint names the class {path}, outside visionkit: load it with trust=[{package!r}] "
            f"(command line: --trust {package}) if you know where the file comes from"
        )
    try:
        cls = getattr(importlib.import_module(module_name), name)
    except Exception as e:  # a trusted package can raise anything
        error = DataError if package == "visionkit" else UsageError  # what the file says, or what is installed here
        raise error(f"the checkpoint names the class {path}, which cannot be imported: {e}") from e
    if not (isinstance(cls, type) and issubclass(cls, Component)):
        raise DataError(f"the checkpoint names {path}, which is no component of visionkit's kind; refused")
    return cls


def _plain(value: Any, where: str) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Component):
        return spec_of(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name), where) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(k): _plain(v, where) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v, where) for v in value]
    raise UsageError(
        f"{where} holds a {type(value).__name__}, which a checkpoint cannot describe in plain data: "
        "use numbers, strings, lists, dicts or components as constructor arguments"
    )


def _waits(make: Callable[..., Any]) -> bool:
    """Return whether a constructor still wants arguments: a head or a neck inside another's, which passes them."""
    return any(
        p.default is p.empty and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
        for p in inspect.signature(make).parameters.values()
    )


def _from_plain(value: Any, trust: Collection[str]) -> Any:
    if isinstance(value, Mapping):
        if set(value) == {"class_path", "init_args"}:
            make = _constructor(value, trust)
            return make if _waits(make) else make()
        return {k: _from_plain(v, trust) for k, v in value.items()}
    if isinstance(value, list):
        return [_from_plain(v, trust) for v in value]
    return value
