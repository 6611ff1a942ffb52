"""Classes as their source describes them: arguments, types, defaults and explanations, with nothing imported.

Help and configs speak of classes whose modules take seconds to import. Here their source is read instead. Where that
does not tell, such as with a decorated class, the class itself has to be imported and asked.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import visionkit
from visionkit.cli.config.names import Definition, UnclearError, Unquoted, docstring_of, evaluate, lookup

__all__ = ["Described", "UnclearError", "describe", "describe_class", "describe_source"]

HARMLESS = ("_defaults_from_env_vars",)  # decorators of constructors that leave the signature alone


@dataclass(frozen=True)
class Described:
    """A class as it stands in its source.

    Args:
        name: Its name.
        module: The module that defines it.
        doc: Its docstring, "" without.
        init_doc: The docstring of its constructor, "" without.
        parameters: The constructor's, without ``self``; annotations are types with stand-ins for classes, or text.
        bases: Its base classes, as dotted paths.
        given: Arguments of the base that its constructor gives itself, beside those that it passes on.
    """

    name: str
    module: str
    doc: str
    init_doc: str
    parameters: Mapping[str, inspect.Parameter]
    bases: tuple[str, ...]
    given: frozenset[str] = frozenset()

    @property
    def path(self) -> str:
        """Module and name."""
        return f"{self.module}.{self.name}"

    @property
    def summary(self) -> str:
        """The docstring's first paragraph, in one line."""
        return self.doc.partition("\n\n")[0].replace("\n", " ")


def describe(path: str) -> Described | None:
    """Describe the class of a path or of a short name of visionkit's; None where there is no such class."""
    try:
        return describe_source(path)
    except UnclearError:
        cls = _imported(path)
        return None if cls is None else describe_class(cls)


@cache
def describe_source(path: str) -> Described:
    """Describe a class from its source.

    Args:
        path: Module and name, or a short name of visionkit's.

    Raises:
        UnclearError: The source is not found or does not tell.
    """
    module, _, name = path.rpartition(".")
    if module in ("", "visionkit") and name in visionkit.PUBLIC:
        module = visionkit.PUBLIC[name]
    found = lookup(module, name)
    if not isinstance(found, Definition) or not isinstance(found.node, ast.ClassDef):
        raise UnclearError(path)
    return _describe(found.module, found.node)


def describe_class(cls: type) -> Described:
    """Describe a class that is imported."""
    try:
        hints = typing.get_type_hints(cls.__init__)  # type: ignore[misc]  # of this very class
    except (NameError, TypeError):
        hints = {}
    parameters = {
        name: p.replace(annotation=hints.get(name, p.annotation))
        for name, p in inspect.signature(cls).parameters.items()
    }
    bases = tuple(f"{b.__module__}.{b.__qualname__}" for b in cls.__mro__[1:2] if b is not object)
    doc, init = inspect.getdoc(cls) or "", cls.__init__  # type: ignore[misc]
    init_doc = inspect.cleandoc(init.__doc__ or "") if inspect.isfunction(init) else ""
    return Described(cls.__name__, cls.__module__, doc, init_doc, parameters, bases)


def _imported(path: str) -> type | None:
    module, _, name = path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module or "visionkit"), name, None)
    except (ImportError, ValueError):
        return None
    return found if isinstance(found, type) else None


def _describe(module: str, node: ast.ClassDef) -> Described:
    constructor = next((n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"), None)
    if any(isinstance(n, ast.FunctionDef) and n.name == "__new__" for n in node.body) or node.keywords:
        raise UnclearError(node.name)
    decorators = [ast.unparse(d).partition("(")[0] for d in node.decorator_list]
    bases = _bases(module, node)
    doc = ast.get_docstring(node) or ""
    doc = doc or docstring_of(module, node.name)
    if constructor is not None and not decorators:
        parameters: Mapping[str, inspect.Parameter] = _parameters(module, constructor)
        init_doc = ast.get_docstring(constructor) or ""
    elif constructor is None and decorators == ["dataclass"] and not bases:
        parameters, init_doc = _fields(module, node), ""
    elif constructor is None and not decorators and bases:
        base = describe_source(bases[0])
        parameters, init_doc = base.parameters, base.init_doc
    else:
        raise UnclearError(node.name)
    if not doc and bases:
        doc = describe_source(bases[0]).doc
    calls = [n for n in ast.walk(node) if isinstance(n, ast.Call) and ast.unparse(n.func) == "super().__init__"]
    given = {k.arg for call in calls for k in call.keywords if k.arg is not None}
    return Described(node.name, module, doc, init_doc, parameters, bases, frozenset(given))


def _bases(module: str, node: ast.ClassDef) -> tuple[str, ...]:
    found = []
    for base in node.bases:
        plain = base.value if isinstance(base, ast.Subscript) else base
        try:
            cls = evaluate(plain, module)
        except (UnclearError, NameError):
            cls = None
        found.append(f"{cls.__module__}.{cls.__name__}" if isinstance(cls, type) else ast.unparse(plain))
    return tuple(found)


def _parameters(module: str, constructor: ast.FunctionDef) -> dict[str, inspect.Parameter]:
    if any(ast.unparse(d) not in HARMLESS for d in constructor.decorator_list):
        raise UnclearError("__init__")
    a = constructor.args
    if a.posonlyargs or a.vararg:
        raise UnclearError("__init__")
    required = [None] * (len(a.args) - len(a.defaults))
    entries = list(zip(a.args, [*required, *a.defaults], strict=True))[1:]
    kinds: dict[str, Any] = {arg.arg: inspect.Parameter.POSITIONAL_OR_KEYWORD for arg, _ in entries}
    entries += zip(a.kwonlyargs, a.kw_defaults, strict=True)
    kinds |= {arg.arg: inspect.Parameter.KEYWORD_ONLY for arg in a.kwonlyargs}
    if a.kwarg is not None:
        entries.append((a.kwarg, None))
        kinds[a.kwarg.arg] = inspect.Parameter.VAR_KEYWORD
    return _typed(module, {arg.arg: (arg.annotation, default, kinds[arg.arg]) for arg, default in entries})


def _fields(module: str, node: ast.ClassDef) -> dict[str, inspect.Parameter]:
    fields = [n for n in node.body if isinstance(n, ast.AnnAssign) and "ClassVar" not in ast.unparse(n.annotation)]
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    return _typed(module, {ast.unparse(n.target): (n.annotation, n.value, kind) for n in fields})


def _typed(module: str, found: Mapping[str, tuple[Any, Any, Any]]) -> dict[str, inspect.Parameter]:
    texts = {name: inspect.Parameter.empty if a is None else ast.unparse(a) for name, (a, _, _) in found.items()}
    try:
        hints = {
            name: evaluate(Unquoted().visit(ast.parse(text, mode="eval").body), module)
            for name, text in texts.items()
            if isinstance(text, str)
        }
    except NameError:  # as of typing.get_type_hints
        hints = {}
    hints = {name: type(None) if hint is None else hint for name, hint in hints.items()}
    parameters = {}
    for name, (_, default, kind) in found.items():
        value = inspect.Parameter.empty
        if default is not None:
            try:
                value = evaluate(default, module)
            except NameError as e:
                raise UnclearError(name) from e
        parameters[name] = inspect.Parameter(name, kind, default=value, annotation=hints.get(name, texts[name]))
    return parameters
