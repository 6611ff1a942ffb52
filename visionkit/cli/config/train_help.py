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
import yaml

from visionkit.cli.config import configs
from visionkit.cli.config.classes import WHOLE, is_same
from visionkit.cli.config.source import Described, describe
from visionkit.core.files import read_text

__all__ = ["CKPT", "LINKED", "TRAINER", "explanations", "say_default", "say_type", "train_help"]

TRAINER = "lightning.pytorch.trainer.trainer.Trainer"

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
                       --model.backbone.name resnet18d) and starts from its own defaults; `null` stands for none
  --ckpt_path FILE     {ckpt}
  --trust PACKAGE      a package beside visionkit whose classes the checkpoint may name, without -c (repeatable)
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
        content = _merged(content, yaml.safe_load(read_text(file)))
    for part, name in named.items():
        content = _merged(content, {"model": {"init_args": {part: {"class_path": name, "init_args": {}}}}})
    ckpt = CKPT.get(command, CKPT["validate"])
    shipped = textwrap.fill(", ".join(configs.shipped()), WIDTH - 23, subsequent_indent=" " * 23)
    lines = [USAGE.format(command=command, shipped=shipped, ckpt=ckpt)]
    for part in ("model", "data"):
        if isinstance(content.get(part), Mapping) and "class_path" in content[part]:
            lines += _explain_class(content[part], f"--{part}", skip=LINKED[part])
    lines += ["", "Trainer of Lightning:", *_arguments(_trainer(), "--trainer", content.get("trainer") or {}, set())]
    return "\n".join(lines)


def _merged(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Return both as one, the second's leaves before the first's: configs may hold parts."""
    merged = dict(first)
    for key, value in second.items():
        old = merged.get(key)
        merged[key] = value
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            names = [str(entry["class_path"]) for entry in (old, value) if "class_path" in entry]
            if key in WHOLE or len(names) < 2 or is_same(*names):  # else another class, with its own defaults
                merged[key] = _merged(old, value)
    return merged


def _explain_class(entry: Mapping[str, Any], prefix: str, *, skip: set[str]) -> list[str]:
    cls = describe(str(entry["class_path"]))
    if cls is None:
        return ["", f"{prefix}: {entry['class_path']}"]
    given = entry.get("init_args") or {}
    head = textwrap.wrap(f"{prefix} {cls.name}: {cls.summary}", WIDTH, subsequent_indent="  ")
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


def _arguments(cls: Described, prefix: str, given: Mapping[str, Any], skip: set[str]) -> list[str]:
    lines: list[str] = []
    for name, (text, parameter) in explanations(cls).items():
        if name in GIVEN | skip:
            continue
        key = f"{prefix}.{name}"
        value = given.get(name, None if parameter.default is inspect.Parameter.empty else parameter.default)
        if isinstance(value, Mapping) and "class_path" in value:
            value = value["class_path"]
        if _named_classes(name, value):
            value = ", ".join(value)
        if name == "recipe":
            recipe = describe("Recipe")
            assert recipe is not None
            lines += _arguments(recipe, key, value if isinstance(value, Mapping) else {}, set())
            continue
        text = f"{text} ({say_type(parameter.annotation)}, default: {say_default(value)})".strip()
        lines += textwrap.wrap(text, WIDTH, initial_indent=f"  {key}  ", subsequent_indent=" " * 6)
    return lines


def explanations(cls: Described) -> dict[str, tuple[str, inspect.Parameter]]:
    """Return what is said of each argument of a class, its own first, then those that it passes on to its base."""
    doc = cls.doc if "Args:" in cls.doc else f"{cls.doc}\n\n{cls.init_doc}"
    said = {p.arg_name: " ".join((p.description or "").split()) for p in docstring_parser.parse(doc).params}
    own = {k: p for k, p in cls.parameters.items() if p.kind is not inspect.Parameter.VAR_KEYWORD}
    found = {name: (said.get(name, ""), parameter) for name, parameter in own.items()}
    if len(own) == len(cls.parameters) or (base := describe(cls.bases[0])) is None:
        return found
    return found | {k: v for k, v in explanations(base).items() if k not in {*own, *cls.given}}


def _trainer() -> Described:
    trainer = describe(TRAINER)
    assert trainer is not None
    return trainer


def say_type(hint: Any) -> str:
    """Return a type in short."""
    text = hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else str(hint)
    for long in ("typing.", "collections.abc.", "NoneType", "visionkit."):
        text = text.replace(long, "None" if long == "NoneType" else "")
    return text if len(text) <= 70 else text[:67] + "..."


def say_default(value: Any) -> str:
    """Return a default as it is said in help."""
    if isinstance(value, type):
        return value.__name__
    if isinstance(value, list) and len(value) > 2:
        return f"a list of {len(value)}, see the config"
    return "none" if value is None else str(value)
