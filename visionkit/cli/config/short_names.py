"""Short names of keys: the words of other tools, written out before anything else reads the command line."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from visionkit.cli.config import bounded_yaml
from visionkit.cli.config.descriptions import known
from visionkit.cli.config.options import options_of
from visionkit.core.errors import UsageError

__all__ = ["SHORT", "Short", "first_positional", "keys_of", "short_help", "written_out"]


class Short(NamedTuple):
    """A short name.

    Args:
        words: Its spellings, without dashes.
        keys: The keys that it stands for.
        value: What it takes, for help and messages.
        read: Turns what is given into the value of each key, or None where it is no such value.
    """

    words: tuple[str, ...]
    keys: tuple[str, ...]
    value: str
    read: Callable[[str], tuple[str, ...] | None]


def _whole(least: int) -> Callable[[str], tuple[str, ...] | None]:
    return lambda text: (text,) if re.fullmatch(r"-?\d{1,9}", text) and int(text) >= least else None


def _rate(text: str) -> tuple[str, ...] | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return (text,) if 0 <= value < math.inf else None


def _size(text: str) -> tuple[str, ...] | None:
    edges = re.fullmatch(r"\[?\s*([1-9]\d{0,5})\s*(?:[,x]\s*([1-9]\d{0,5})\s*)?\]?", text)
    if edges is None:
        return None
    return (edges[1] if edges[2] is None else f"[{edges[1]}, {edges[2]}]",)


def _minutes(text: str) -> tuple[str, ...] | None:
    try:
        seconds = round(60 * float(text))
    except (ValueError, OverflowError):
        return None
    if not 1 <= seconds < 100 * 86400:
        return None
    return (json.dumps({"seconds": seconds}),)


def _text(text: str) -> tuple[str, ...] | None:
    return (text,) if text else None


def _device(text: str) -> tuple[str, ...] | None:
    kind, _, number = text.partition(":")
    if text in ("cpu", "mps", "auto"):
        return (text, "auto" if text == "auto" else "1")
    if kind in ("cuda", "gpu") and (not number or number.isdecimal()):
        return ("gpu", json.dumps([int(number)]) if number else "1")
    if re.fullmatch(r"\d{1,3}(,\d{1,3})*", text):
        return ("gpu", json.dumps([int(part) for part in text.split(",")]))
    return None


SHORT = (
    Short(("epochs",), ("trainer.max_epochs",), "a whole number", _whole(-1)),
    Short(("batch", "batch-size", "batch_size"), ("data.batch_size",), "a whole number from 1 on", _whole(1)),
    Short(("imgsz", "img-size", "img_size"), ("data.size",), "pixels, such as 224 or 320x480 (height, width)", _size),
    Short(("minutes",), ("trainer.max_time",), "minutes of the whole command, such as 5 or 0.5", _minutes),
    Short(("lr",), ("model.recipe.optimizer.lr",), "a rate, such as 3e-4", _rate),
    Short(("weights",), ("model.backbone.weights",), "auto, a file of weights, or timm/NAME", _text),
    Short(("workers",), ("data.num_workers",), "a whole number", _whole(0)),
    Short(("device",), ("trainer.accelerator", "trainer.devices"), "cpu, cuda, mps, or GPUs: 0,1", _device),
)
DATA = "--data"
CKPT, CKPT_PATH = "--ckpt", "--ckpt_path"
_OF = {f"--{word}": short for short in SHORT for word in short.words}


def keys_of(option: str) -> tuple[str, ...]:
    """Return the keys that an option stands for: several of a short name, else its own."""
    if option in _OF:
        return _OF[option].keys
    return (option.removeprefix("--").replace(".init_args", ""),)


def written_out(command: str, arguments: Sequence[str]) -> list[str]:
    """Return the command line with keys in place of short names, and ``--ckpt_path`` in place of ``--ckpt``.

    Args:
        command: fit, validate or test; for those that measure, ``--weights`` is the checkpoint.
        arguments: The command line after it.

    Raises:
        UsageError: A short name does not take its value, or the key is given with another one.
    """
    written: list[str] = []
    given: dict[str, tuple[str, str, str]] = {}  # key -> option, its value, the value of the key
    for option in options_of(arguments):
        name, short = option.name, _OF.get(option.name)
        values: Mapping[str, str] = {}
        if name in (CKPT, CKPT_PATH) or (name == "--weights" and command != "fit"):
            values = {"ckpt_path": option.value}
            if not option.value:
                raise UsageError(f"{name} needs a checkpoint file or the folder of a run")
        elif name == DATA and _is_source(option.value):
            values = {"data.root": option.value}
        elif short is not None:
            if command != "fit" and "minutes" in short.words:
                raise UsageError(f"{name}: {command} has no time to plan: leave it out")
            read = short.read(option.value)
            if read is None:
                got = f", got {option.value!r}" if option.value else ""
                raise UsageError(f"{name} needs {short.value}{got}")
            values = dict(zip(short.keys, read, strict=True))
        else:
            key = keys_of(name)[0]
            first = given.get(key)
            if first is not None and first[0] != name and option.value not in first[1:]:
                raise UsageError(f"{first[0]} {first[1]} and {name} {option.value} are the same key: give one of them")
            given[key] = (name, option.value, option.value)
            written += option.words
        for key, value in values.items():
            first = given.get(key)
            if first is not None and value != first[2]:
                raise UsageError(f"{first[0]} {first[1]} and {name} {option.value} are the same key: give one of them")
            given[key] = (name, option.value, value)
            written.append(f"--{key}={value}")
    return written


def first_positional(arguments: Sequence[str]) -> list[str]:
    """Return a command line after a verb that takes the checkpoint first, with ``--ckpt FILE`` in that place.

    Args:
        arguments: The verb and what follows; those of ``join``, which takes several after another file, come last.

    Raises:
        UsageError: No file follows, or different ones do where the verb takes one.
    """
    options = options_of(arguments)
    named = [o for o in options if o.name in (CKPT, CKPT_PATH)]
    kept = [word for o in options if o.name not in (CKPT, CKPT_PATH) for word in o.words]
    files = list(dict.fromkeys(o.value for o in named))
    if not all(files):
        raise UsageError(f"{named[0].name} needs a checkpoint file or the folder of a run")
    if kept[:1] == ["join"]:
        return [*kept, *files]
    if len(files) > 1:
        raise UsageError(f"{named[0].name} {files[0]} and {named[-1].name} {files[-1]}: give one of them")
    return [*kept[:1], *files, *kept[1:]]


def _is_source(value: str) -> bool:
    """Return whether what ``--data`` is given is where pictures lie, and neither a class nor a config of one."""
    if not value or value in known().classes or value.startswith(("{", "[")) or value == "null":
        return False
    path = Path(value)
    if path.is_file() and path.suffix in bounded_yaml.YAML_FILES:
        try:
            content = bounded_yaml.load_file(path)
        except UsageError:  # a COCO file is larger than a config
            return True
        return not (isinstance(content, dict) and "class_path" in content)
    return path.exists() or "/" in value or "\\" in value


def short_help() -> list[str]:
    """Return a line of help for each short name."""
    lines = [f"  {', '.join(f'--{w}' for w in s.words):<37}--{', --'.join(s.keys)}: {s.value}" for s in SHORT]
    return [
        *lines,
        f"  {DATA + ' FOLDER_OR_FILE':<37}--data.root",
        f"  {CKPT:<37}{CKPT_PATH}",
        f"  {'--weights (of validate and test)':<37}{CKPT_PATH}",
    ]
