"""The complete config of a command line, without importing what it names.

Values are checked against the types in the source of each class. Where that settles a command line beyond doubt, the
answer is what Lightning's parser would say, a hundred times sooner; everything else is unclear, wrong values
included: the parser then checks it, and has the words for what is wrong.
"""

from __future__ import annotations

import collections.abc
import inspect
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml

import visionkit
from visionkit.cli.config.classes import files_without_replaced, is_same
from visionkit.cli.config.configs import OPTIONS
from visionkit.cli.config.names import UnclearError
from visionkit.cli.config.source import Described, describe_source
from visionkit.cli.config.train_help import LINKED, TRAINER
from visionkit.core.files import read_text

__all__ = ["TRAINER_DEFAULTS", "complete"]

TRAINER_DEFAULTS = {"num_sanity_val_steps": 0, "use_distributed_sampler": False}
"""Where visionkit's defaults are not Lightning's."""
BASES = {"model": "visionkit.training.task.Task", "data": "visionkit.training.datamodule.VisionDataModule"}
TRAINED_BY = "torch.optim."  # optimizers are named so


def complete(arguments: Sequence[str]) -> dict[str, Any]:
    """Return the config of ``visionkit fit`` with every key.

    Args:
        arguments: The command line after ``fit``, with paths of configs.

    Raises:
        UnclearError: The source alone does not tell, or something is wrong.
    """
    given = _given(arguments)
    if unknown := given.keys() - {"seed_everything", "trainer", "model", "data", "ckpt_path"}:
        raise UnclearError(str(unknown))
    trainer = describe_source(TRAINER)
    return {
        "seed_everything": _fit(given.get("seed_everything", 0), int),
        "trainer": _arguments(trainer, given.get("trainer", {}), defaults=TRAINER_DEFAULTS),
        **{key: _class(given.get(key), base, skip=LINKED[key]) for key, base in BASES.items()},
        "ckpt_path": _fit(given.get("ckpt_path"), str | None),
        "weights_only": None,
    }


# ---- what is asked for


def _given(arguments: Sequence[str]) -> dict[str, Any]:
    """Return files and options merged, later ones before earlier ones."""
    merged: dict[str, Any] = {}
    settled = files_without_replaced(arguments)
    rest = iter(enumerate(arguments))
    for k, argument in rest:
        if argument == "--print_config":
            continue
        option, equals, value = argument.partition("=")
        place, value = (k, value) if equals else next(rest, (k, ""))
        content = _option(option, value) if option not in OPTIONS else None
        if content is None:
            content = settled.get(place) or _load(read_text(Path(value)))
        if not isinstance(content, dict):
            raise UnclearError(argument)
        merged = _merged(merged, content)
    return merged


def _option(option: str, value: str) -> dict[str, Any]:
    """Return what ``--model.head.dropout 0.1`` says as it would stand in a config."""
    if not option.startswith("--") or option.endswith("+"):
        raise UnclearError(option)
    top, *path = option[2:].split(".")
    if top in BASES:  # classes and their arguments take turns
        path = [k for key in path if key != "init_args" for k in ("init_args", key)]
        path = path[:-2] + path[-1:] if path[-1:] == ["class_path"] else path
        for nested in ("recipe", "heads", "datasets"):
            if nested in path[:-1] and (at := path.index(nested)) < len(path) - 1:
                path.pop(at + 1)  # within these, keys stand by themselves
    content = _load(value)
    if (content is None and value != "null") or isinstance(content, dict | list):
        raise UnclearError(option)
    for key in reversed([top, *path]):
        content = {key: content}
    return typing.cast(dict[str, Any], content)


def _load(text: str) -> Any:
    try:
        return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506  # both are safe
    except (yaml.YAMLError, ValueError) as e:
        raise UnclearError(str(e)) from e


def _merged(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(first)
    for key, value in second.items():
        old = merged.get(key)
        if key == "class_path" and old is not None and not is_same(old, value):
            raise UnclearError("another class: which arguments it keeps is for the parser to say")
        if isinstance(value, Mapping) and isinstance(old, Mapping):
            value = _merged(old, value)
        elif isinstance(value, Mapping) and old is not None:
            raise UnclearError(key)
        elif isinstance(value, str) and isinstance(old, Mapping) and "class_path" in old:
            value = _merged(old, {"class_path": value})
        merged[key] = value
    return merged


# ---- classes


def _class(
    given: Any, base: str, *, skip: typing.Collection[str] = (), passed: int = 0, default: Any = None
) -> dict[str, Any]:
    """Return a class with all its arguments.

    Args:
        given: ``{"class_path": ..., "init_args": ...}``.
        base: What it must derive from.
        skip: Arguments that the command line fills.
        passed: How many of its first arguments are passed later.
        default: The class that stands there without one being given.
    """
    if isinstance(default, type) and given is None:
        given = {"class_path": describe_source(f"{default.__module__}.{default.__name__}").name}
    if not isinstance(given, Mapping) or not given.keys() <= {"class_path", "init_args"}:
        raise UnclearError(str(given))
    path, init_args = str(given.get("class_path")), given.get("init_args", {})
    short = path.removeprefix("visionkit.")
    if short in visionkit.PUBLIC:
        path = f"visionkit.{short}"
    elif not (path.startswith(TRAINED_BY) and path.count(".") == 2):
        raise UnclearError(path)  # a class of the user's: it may do anything when it is imported
    cls = describe_source(path)
    if not _derives(cls, base) or not isinstance(init_args, Mapping):
        raise UnclearError(path)
    first = list(cls.parameters)[:passed]
    found = _arguments(cls, init_args, skip={*skip, *first})
    return {"class_path": path, "init_args": found} if found else {"class_path": path}


def _derives(cls: Described, base: str) -> bool:
    while cls.bases:
        if base in cls.bases:
            return True
        cls = describe_source(cls.bases[0])
    return False


def _arguments(
    cls: Described,
    given: Mapping[str, Any],
    *,
    skip: typing.Collection[str] = (),
    defaults: Mapping[str, Any] = types.MappingProxyType({}),
) -> dict[str, Any]:
    """Return all arguments of a class, checked."""
    if not isinstance(given, Mapping):
        raise UnclearError(cls.name)
    found: dict[str, Any] = {}
    known = _all_parameters(cls)
    for name, parameter in known.items():
        if name in skip:
            continue
        if name in given:
            found[name] = _fit(given[name], parameter.annotation, parameter.default)
            continue
        default = defaults.get(name, parameter.default)
        if isinstance(default, type) and default is not parameter.empty:
            found[name] = _fit(None, parameter.annotation, default)
            continue
        found[name] = _plain(default)
        if parameter.annotation is float and type(found[name]) is int:
            raise UnclearError(name)  # whether the parser writes a default as it stands
    if unknown := given.keys() - found.keys():
        raise UnclearError(str(unknown))
    return found


def _all_parameters(cls: Described) -> dict[str, inspect.Parameter]:
    """Return the arguments of a class and those that it passes on to its base."""
    own = {k: p for k, p in cls.parameters.items() if p.kind is not inspect.Parameter.VAR_KEYWORD}
    if len(own) == len(cls.parameters):
        return own
    passed_on = _all_parameters(describe_source(cls.bases[0]))
    return own | {k: p for k, p in passed_on.items() if k not in {*own, *cls.given}}


def _plain(default: Any) -> Any:
    """Return a default as it is written in a config."""
    if isinstance(default, tuple | list):
        return [_plain(v) for v in default]
    if isinstance(default, dict):
        return {k: _plain(v) for k, v in default.items()}
    if default is not None and type(default) not in (bool, int, float, str):
        raise UnclearError(str(default))  # an argument that must be given, or a class with its own defaults
    return default


# ---- values


def _fit(value: Any, hint: Any, default: Any = None) -> Any:
    """Return a value as the parser takes it for a type; ``default`` is the class that is the default, if one is.

    Raises:
        UnclearError: It does not fit, or it is not certain what the parser makes of it.
    """
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return _fit_any(value, args)
    if hint in (int, bool, str, type(None)):
        return _exactly(value, hint)
    if hint is float and type(value) in (int, float):
        return float(value)
    if origin is Literal and any(type(a) is type(value) and a == value for a in args):
        return value
    if hint is Any:
        return _anything(value)
    if origin in (list, collections.abc.Sequence) and isinstance(value, list):
        return [_fit(v, args[0]) for v in value]
    if origin is tuple and isinstance(value, list):
        kinds = [args[0]] * len(value) if args[1:] == (...,) else list(args)
        if len(kinds) == len(value):
            return [_fit(v, kind) for v, kind in zip(value, kinds, strict=True)]
    if origin is dict and isinstance(value, dict) and all(type(k) is str for k in value):
        return {k: _fit(v, args[1]) for k, v in value.items()}
    if origin is collections.abc.Callable and isinstance(args[0], list) and isinstance(args[1], type):
        return _class(value, f"{args[1].__module__}.{args[1].__name__}", passed=len(args[0]), default=default)
    if isinstance(hint, type) and isinstance(value, Mapping):
        path = f"{hint.__module__}.{hint.__name__}"
        if "class_path" not in value and hint.__name__ == "Recipe":
            return _arguments(describe_source(path), value)
        if "class_path" in value:
            return _class(value, path)
    raise UnclearError(f"{value!r} as {hint}")


def _fit_any(value: Any, kinds: Sequence[Any]) -> Any:
    """Fit one of several types, where it is certain which of them takes the value."""
    fitting = []
    for kind in kinds:
        try:
            fitting.append(_fit(value, kind))
        except UnclearError:
            continue
    if isinstance(value, str) and str in kinds:  # a name with a capital may be a class's
        certain = value == value.lower() or not any(_is_class(k) for k in kinds)
    else:
        certain = str not in kinds or value is None or isinstance(value, Mapping | list)
    if not fitting or not certain:
        raise UnclearError(f"{value!r} as one of {kinds}")
    return fitting[0]  # the parser tries them in this order, too


def _is_class(kind: Any) -> bool:
    return isinstance(kind, type) and kind not in (int, float, bool, str, type(None))


def _exactly(value: Any, kind: Any) -> Any:
    if type(value) is not kind:
        raise UnclearError(f"{value!r} as {kind}")
    return _anything(value)


def _anything(value: Any) -> Any:
    """Return plain data as it is, unless the parser's own YAML may read it otherwise."""
    if isinstance(value, dict):
        if not all(type(k) is str for k in value) or "class_path" in value:
            raise UnclearError(str(value))
        return {k: _anything(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_anything(v) for v in value]
    if isinstance(value, str) and any(c.isdigit() for c in value[:2]):
        raise UnclearError(value)  # 1e-3 is text to YAML 1.1 and a number to the parser
    if value is not None and type(value) not in (bool, int, float, str):
        raise UnclearError(str(value))
    return value
