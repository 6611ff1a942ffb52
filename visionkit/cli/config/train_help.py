"""The help of fit, validate and test: every key with its explanation and default."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from visionkit.cli.config import configs
from visionkit.cli.config.classes import WHOLE, is_class, is_same
from visionkit.cli.config.described import Described, say_default
from visionkit.cli.config.descriptions import BASES, TRAINER, describe
from visionkit.cli.config.options import value_of
from visionkit.cli.config.short_names import short_help

__all__ = ["CKPT", "train_help"]

WIDTH = 118

USAGE = """usage: visionkit {command} -c CONFIG [--KEY VALUE ...] [--ckpt_path FILE] [--print_config]

  -c CONFIG            a file, or a config shipped with visionkit; several merge in order. Shipped:
                       {shipped}
  --KEY VALUE          overrides a key of the config; a class is named in place (--model.backbone TimmBackbone
                       --model.backbone.name resnet18d) and starts from its own defaults; `null` stands for none
  --ckpt_path FILE     {ckpt}; or the folder of a run
  --trust PACKAGE      a package beside visionkit whose classes checkpoints may name: that of --ckpt_path
                       without -c, and teachers (repeatable)
  --print_config       prints the config, with comments, and ends; `--print_config full` prints all keys
  --seed_everything N  seed of start weights, order and augmentation (default: 0){fit}

Short names, with the keys that they stand for:
{short}

The command line wins over the config; both win over what a checkpoint says. Keys of this config's classes:"""

FIT = """
  --pictures WHEN      validation pictures, truth beside prediction, in the run's pictures/: auto (epochs 1, 2, 5, 10,
                       20, 50 ... and the last), N (each N epochs), none (no picture of the first batch either)
  --members N          trains N models, 2 to 10, from the same start weights, one after another, each with its own
                       order, augmentation and learning rate (times 1, 0.7, 1.4, 1 ...), in runs/NAME-1/member-1 and
                       so on: for an ensemble or a soup. --minutes is the time of all; --ckpt_path runs/NAME-1 goes on
  --start_seed N       seed of the start weights alone (default: that of seed_everything)
  --dry-run            tries everything for some steps, says memory and time, and leaves nothing behind"""

CKPT = {
    "fit": "go on from a checkpoint; `last` goes on with the run folder's newest",
    "validate": "what to measure; `best` and `last` are those of the run folder",
}


def train_help(command: str, arguments: Sequence[str] = ()) -> str:
    """Return the help text.

    Args:
        command: fit, validate or test.
        arguments: The command line after it, with paths of configs; without one, the first shipped is explained. Of the
            options those count that name a class for a part of the model or the data.
    """
    content: dict[str, Any] = {}
    for file in configs.paths(arguments) or [configs.folder() / configs.shipped()[0]]:
        content = _merged(content, configs.content_of(file))
    ckpt = CKPT.get(command, CKPT["validate"])
    shipped = textwrap.fill(", ".join(configs.shipped()), WIDTH - 23, subsequent_indent=" " * 23)
    lines = [
        USAGE.format(
            command=command,
            shipped=shipped,
            ckpt=ckpt,
            short="\n".join(short_help()),
            fit=FIT if command == "fit" else "",
        )
    ]
    for top in BASES:
        if is_class(content.get(top)):
            lines += _explain_class(_with_named(content[top], f"--{top}", arguments), f"--{top}")
    trainer = describe(TRAINER)
    assert trainer is not None
    lines += ["", "Trainer of Lightning:", *_arguments(trainer, "--trainer", content.get("trainer") or {})]
    return "\n".join(lines)


def _with_named(entry: Mapping[str, Any], prefix: str, arguments: Sequence[str]) -> Mapping[str, Any]:
    """Return a class with the classes that the command line names for its parts."""
    cls = describe(str(entry["class_path"]))
    for part, argument in () if cls is None else cls.arguments.items():
        if argument.form == "class" and (name := value_of(arguments, f"{prefix}.{part}")):
            entry = _merged(entry, {"init_args": {part: {"class_path": name, "init_args": {}}}})
    return entry


def _merged(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Return both as one, the second's leaves before the first's: configs may hold parts."""
    merged = dict(first)
    for key, value in second.items():
        old = merged.get(key)
        merged[key] = value
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            names = [str(entry["class_path"]) for entry in (old, value) if is_class(entry)]
            if key in WHOLE or len(names) < 2 or is_same(*names):  # else another class, with its own defaults
                merged[key] = _merged(old, value)
    return merged


def _explain_class(entry: Mapping[str, Any], prefix: str, skip: Collection[str] = ()) -> list[str]:
    cls = describe(str(entry["class_path"]))
    if cls is None:
        return ["", f"{prefix}: {entry['class_path']}"]
    given = entry.get("init_args") or {}
    head = textwrap.wrap(f"{prefix} {cls.name}: {cls.summary}", WIDTH, subsequent_indent="  ")
    lines = ["", *head, *_arguments(cls, prefix, given, skip)]
    for name, value in given.items():
        if is_class(value):
            lines += _explain_class(value, f"{prefix}.{name}")
        elif name in cls.arguments and cls.arguments[name].form == "named" and isinstance(value, Mapping):
            for k, v in value.items():
                lines += _explain_class(v, f"{prefix}.{name}.{k}", cls.in_common) if is_class(v) else []
    return lines


def _arguments(cls: Described, prefix: str, given: Mapping[str, Any], skip: Collection[str] = ()) -> list[str]:
    lines: list[str] = []
    for name, argument in cls.arguments.items():
        if name in skip:
            continue
        key, value = f"{prefix}.{name}", given.get(name)
        if argument.form == "settings" and (settings := describe(argument.kind)) is not None:
            lines += _arguments(settings, key, value if isinstance(value, Mapping) else {})
            continue
        if is_class(value):
            value = value["class_path"]
        elif argument.form == "named" and isinstance(value, Mapping):
            value = ", ".join(value)
        text = argument.explain(say_default(value) if name in given else None)
        lines += textwrap.wrap(text, WIDTH, initial_indent=f"  {key}  ", subsequent_indent=" " * 6)
    return lines
