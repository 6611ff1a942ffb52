"""What names and expressions of a module mean, found in its source, with nothing imported or run.

Classes are represented by stand-ins of the same module and name, so that types made of them look alike.
"""

from __future__ import annotations

import ast
import builtins
import importlib
import importlib.machinery
import inspect
import sys
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import visionkit
from visionkit.core.errors import DataError
from visionkit.core.files import read_bytes

__all__ = ["Definition", "UnclearError", "Unquoted", "docstring_of", "evaluate", "lookup"]

PLAIN = (
    *(ast.Expression, ast.Load, ast.Constant, ast.Name, ast.Attribute, ast.Subscript, ast.Tuple, ast.List, ast.Dict),
    *(ast.Starred, ast.UnaryOp, ast.USub, ast.BinOp, ast.BitOr, ast.Add, ast.JoinedStr, ast.FormattedValue),
)
"""What an expression may consist of: no calls, so nothing of what is read is run."""
KNOWN = {("torch", "Tensor"): ("torch", "Tensor")}
"""Stand-ins for classes from modules so long that reading them takes a good part of a command's time."""


class UnclearError(Exception):
    """The source alone does not tell."""


@dataclass(frozen=True)
class Definition:
    """A statement that gives a name its value, and the module in which it stands."""

    module: str
    node: ast.ClassDef | ast.expr


class _Module:
    """The names of a module: what defines each, and from where it is imported."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.package, file = _find_file(name)
        try:
            tree = ast.parse(read_bytes(file))
        except (DataError, SyntaxError, ValueError) as e:
            raise UnclearError(name) from e
        self.defined: dict[str, ast.ClassDef | ast.expr] = {}
        self.docs: dict[str, ast.expr] = {}  # NAME.__doc__ = ...
        self.imported: dict[str, tuple[str, str]] = {}  # name -> module and name there, "" for the module itself
        self.unsure: set[str] = set()  # defined in other ways, or in several
        self.for_types: set[str] = set()  # names that type checkers alone see
        self._read(tree.body)

    def _read(self, body: list[ast.stmt], *, for_types: bool = False) -> None:
        for node in body:
            names: list[str] = []
            if isinstance(node, ast.ClassDef):
                self.defined[node.name] = node
                names = [node.name]
            elif isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
                for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                    if isinstance(target, ast.Name):
                        self.defined[target.id] = node.value
                        names.append(target.id)
                    elif isinstance(target, ast.Attribute) and target.attr == "__doc__":
                        self.docs[ast.unparse(target.value)] = node.value
            elif isinstance(node, ast.ImportFrom):
                source = self._absolute(node)
                for alias in node.names:
                    names.append(alias.asname or alias.name)
                    self.imported[names[-1]] = (source, alias.name)
            elif isinstance(node, ast.Import):
                for alias in node.names:
                    top = alias.name.partition(".")[0]
                    names.append(alias.asname or top)
                    self.imported[names[-1]] = (alias.name if alias.asname else top, "")
            elif isinstance(node, ast.If):
                checking = ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")
                self._read(node.body, for_types=for_types or checking)
                self._read(node.orelse, for_types=for_types)
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                self.unsure.add(node.name)
            if for_types:
                self.for_types.update(names)

    def _absolute(self, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        parts = self.package.split(".")
        parts = parts[: len(parts) - node.level + 1]
        return ".".join([*parts, *([node.module] if node.module else [])])


@cache
def _module(name: str) -> _Module:
    return _Module(name)


@cache
def _find_file(name: str) -> tuple[str, Path]:
    """Return the package in which a module's relative imports start, and its file."""
    top, *rest = name.split(".")
    if top == "visionkit":
        places = [str(Path(visionkit.__file__).parent)]
    else:
        spec = importlib.machinery.PathFinder.find_spec(top)
        if spec is None or (rest and not spec.submodule_search_locations):
            raise UnclearError(name)
        if not rest and not spec.submodule_search_locations:
            if spec.origin is None:
                raise UnclearError(name)
            return "", Path(spec.origin)
        places = list(spec.submodule_search_locations or ())
    for place in map(Path, places):
        folder = place.joinpath(*rest)
        if (folder / "__init__.py").is_file():
            return name, folder / "__init__.py"
        if rest and folder.with_suffix(".py").is_file():
            return name.rpartition(".")[0], folder.with_suffix(".py")
    raise UnclearError(name)


def lookup(module: str, name: str) -> Any:
    """Return what a name means in a module: a definition, or, of the standard library, the thing itself.

    Raises:
        NameError: Type checkers alone know it.
        UnclearError: The source does not tell.
    """
    top = module.partition(".")[0]
    if top in sys.stdlib_module_names:
        return getattr(importlib.import_module(module), name) if name else importlib.import_module(module)
    if not name:
        return _Package(module)
    if module == "visionkit" and name in visionkit.PUBLIC:
        return lookup(visionkit.PUBLIC[name], name)
    if (module, name) in KNOWN:
        return _stand_in(*KNOWN[module, name])
    known = _module(module)
    if name in known.for_types:
        raise NameError(name)
    if name in known.unsure:
        raise UnclearError(f"{module}.{name}")
    if name in known.defined:
        return Definition(module, known.defined[name])
    if name in known.imported:
        source, there = known.imported[name]
        if not there:
            return lookup(source, "")
        return _Package(f"{source}.{there}") if _is_module(f"{source}.{there}") else lookup(source, there)
    if hasattr(builtins, name):
        return getattr(builtins, name)
    return _Package(f"{module}.{name}")


def _is_module(name: str) -> bool:
    if name.partition(".")[0] in sys.stdlib_module_names:
        return False
    try:
        _find_file(name)
    except UnclearError:
        return False
    return True


class _Package:
    """Stands in an expression for a module outside the standard library."""

    def __init__(self, name: str) -> None:
        if not _is_module(name):
            raise UnclearError(name)
        self._name = name

    def __getattr__(self, name: str) -> Any:
        return _value(lookup(self._name, name))


# ---- expressions


def _value(found: Any) -> Any:
    if isinstance(found, Definition):
        if isinstance(found.node, ast.ClassDef):
            return _stand_in(found.module, found.node.name)
        if isinstance(found.node, ast.Call) and ast.unparse(found.node.func) == "TypeVar":
            return typing.TypeVar(ast.literal_eval(found.node.args[0]))
        return evaluate(found.node, found.module)
    return found


@cache
def _stand_in(module: str, name: str) -> type:
    """Return a class that looks like another in annotations."""
    generic: Any = classmethod(types.GenericAlias)  # a stand-in has no type variables
    return type(name, (), {"__module__": module, "__class_getitem__": generic})


class _Names(Mapping[str, Any]):
    """The names of a module, for eval."""

    def __init__(self, module: str) -> None:
        self._module = module

    def __getitem__(self, name: str) -> Any:
        return _value(lookup(self._module, name))

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


class Unquoted(ast.NodeTransformer):
    """Replaces the text of annotations by what it says."""

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        """Leave the words of a Literal alone."""
        name = node.value.attr if isinstance(node.value, ast.Attribute) else getattr(node.value, "id", "")
        return node if name == "Literal" else self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        """Read what a text says."""
        return self.visit(ast.parse(node.value, mode="eval").body) if isinstance(node.value, str) else node


def evaluate(node: ast.expr, module: str) -> Any:
    """Return the value of an expression.

    Raises:
        NameError: It holds a name that type checkers alone know.
        UnclearError: It is more than names and plain values.
    """
    expression = ast.fix_missing_locations(ast.Expression(node))
    if not all(isinstance(part, PLAIN) for part in ast.walk(expression)):
        raise UnclearError(ast.unparse(node))
    try:
        return eval(compile(expression, module, "eval"), {"__builtins__": {}}, _Names(module))  # noqa: S307  # no calls
    except (UnclearError, NameError):
        raise
    except Exception as e:
        raise UnclearError(ast.unparse(node)) from e


def docstring_of(module: str, name: str) -> str:
    """Return the text of ``NAME.__doc__ = ...`` in a module, "" without."""
    docs = _module(module).docs
    return inspect.cleandoc(str(evaluate(docs[name], module))) if name in docs else ""
