"""The help of fit, validate and test: every key with its explanation and default."""

from __future__ import annotations

import inspect
import textwrap
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import docstring_parser
import lightning as L
import yaml

import visionkit
from visionkit.commands import configs
from visionkit.recipe import Recipe

__all__ = ["train_help"]

WIDTH = 118
GIVEN = {"features", "num_classes", "self"}
LINKED = {"model": {"classes", "multilabel", "preprocessing", "seed"}, "data": {"seed"}}
IN_COMMON = {
    "size",
    "resize",
    "denoise",
    "denoise_strength",
    "channels",
    "num_workers",
    "check_images",
    "skip_corrupt",
    "seed",
}
"""Keys of data sets that MultiTaskData has for all of them."""

USAGE = """usage: visionkit {command} -c CONFIG [--KEY VALUE ...] [--ckpt_path FILE] [--print_config]

  -c CONFIG            a file, or a config shipped with visionkit; several merge in order. Shipped:
                       {shipped}
  --KEY VALUE          overrides a key of the config; a class is named in place (--model.backbone TimmBackbone
                       --model.backbone.name resnet18d), `null` stands for none
  --ckpt_path FILE     {ckpt}
  --print_config       prints the complete config with comments, and ends
  --seed_everything N  seed of start weights, order and augmentation (default: 0)

The command line wins over the config; both win over what a checkpoint says. Keys of this config's classes:"""

CKPT = {
    "fit": "go on from a checkpoint; `last` goes on with the run folder's newest",
    "validate": "what to measure; `best` and `last` are those of the run folder",
}


def train_help(command: str, files: Sequence[Path], named: Mapping[str, str] = MappingProxyType({})) -> str:
    """Return the help text.

    Args:
        command: fit, validate or test.
        files: Config files of the command line; without one, the first shipped config is explained.
        named: Classes that the command line names for parts of the model, e.g. ``{"backbone": "TimmBackbone"}``.
    """
    chosen = files or [configs.folder() / configs.shipped()[0]]
    content: dict[str, Any] = {}
    for file in chosen:
        configs.check_syntax(file)
        content = _merged(content, yaml.safe_load(file.read_text(encoding="utf-8")))
    for part, name in named.items():
        content = _merged(content, {"model": {"init_args": {part: {"class_path": name, "init_args": {}}}}})
    ckpt = CKPT.get(command, CKPT["validate"])
    shipped = textwrap.fill(", ".join(configs.shipped()), WIDTH - 23, subsequent_indent=" " * 23)
    lines = [USAGE.format(command=command, shipped=shipped, ckpt=ckpt)]
    for part in ("model", "data"):
        if isinstance(content.get(part), Mapping) and "class_path" in content[part]:
            lines += _explain_class(content[part], f"--{part}", skip=LINKED[part])
    lines += ["", "Trainer of Lightning:", *_arguments(L.Trainer, "--trainer", content.get("trainer") or {}, set())]
    return "\n".join(lines)


def _merged(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Return both as one, the second's leaves before the first's: configs may hold parts."""
    merged = dict(first)
    for key, value in second.items():
        old = merged.get(key)
        merged[key] = _merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def _explain_class(entry: Mapping[str, Any], prefix: str, *, skip: set[str]) -> list[str]:
    cls = _find(str(entry["class_path"]))
    if cls is None:
        return ["", f"{prefix}: {entry['class_path']}"]
    given = entry.get("init_args") or {}
    head = textwrap.wrap(f"{prefix} {cls.__name__}: {_summary(cls)}", WIDTH, subsequent_indent="  ")
    lines = ["", *head, *_arguments(cls, prefix, given, skip)]
    for name, value in given.items():
        for key, entry in {name: value, **_named_classes(name, value)}.items():
            if isinstance(entry, Mapping) and "class_path" in entry:
                lines += _explain_class(entry, f"{prefix}.{key}", skip=IN_COMMON if name == "datasets" else set())
    return lines


def _named_classes(key: str, value: Any) -> dict[str, Any]:
    """Return the classes that stand in a mapping by names of the user's, such as the heads of several tasks."""
    if key not in configs.NAMED or not isinstance(value, Mapping):
        return {}
    return {f"{key}.{k}": v for k, v in value.items() if isinstance(v, Mapping) and "class_path" in v}


def _arguments(cls: Any, prefix: str, given: Mapping[str, Any], skip: set[str]) -> list[str]:
    explained = {p.arg_name: p.description or "" for p in docstring_parser.parse(_doc(cls)).params}
    lines: list[str] = []
    parameters = inspect.signature(cls).parameters
    for name, parameter in parameters.items():
        if name in GIVEN | skip:
            continue
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:  # passed on to the base
            lines += _arguments(cls.__mro__[1], prefix, given, skip | set(parameters))
            continue
        key = f"{prefix}.{name}"
        value = given.get(name, None if parameter.default is inspect.Parameter.empty else parameter.default)
        if isinstance(value, Mapping) and "class_path" in value:
            value = value["class_path"]
        if _named_classes(name, value):
            value = ", ".join(value)
        if name == "recipe":
            nested = value if isinstance(value, Mapping) else {}
            lines += _arguments(Recipe, key, nested, set())
            continue
        text = " ".join(explained.get(name, "").split())
        text = f"{text} ({_type(cls, name, parameter)}, default: {_default(value)})".strip()
        lines += textwrap.wrap(text, WIDTH, initial_indent=f"  {key}  ", subsequent_indent=" " * 6)
    return lines


def _doc(cls: Any) -> str:
    own = inspect.getdoc(cls) or ""
    init = inspect.getdoc(cls.__init__) or ""
    return own if "Args:" in own else f"{own}\n\n{init}"


def _summary(cls: type) -> str:
    return (inspect.getdoc(cls) or "").partition("\n\n")[0].replace("\n", " ")


def _type(cls: Any, name: str, parameter: inspect.Parameter) -> str:
    try:
        hint = typing.get_type_hints(cls.__init__).get(name, parameter.annotation)
    except (NameError, TypeError):
        hint = parameter.annotation
    text = hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else str(hint)
    for long in ("typing.", "collections.abc.", "NoneType", "visionkit."):
        text = text.replace(long, "None" if long == "NoneType" else "")
    return text if len(text) <= 70 else text[:67] + "..."


def _default(value: Any) -> str:
    if isinstance(value, type):
        return value.__name__
    if isinstance(value, list) and len(value) > 2:
        return f"a list of {len(value)}, see the config"
    return "none" if value is None else str(value)


def _find(path: str) -> type | None:
    if path in visionkit.PUBLIC:
        found = getattr(visionkit, path)
        return found if isinstance(found, type) else None
    module, _, name = path.rpartition(".")
    try:
        return getattr(__import__(module, fromlist=[name]), name, None)
    except (ImportError, ValueError):
        return None
