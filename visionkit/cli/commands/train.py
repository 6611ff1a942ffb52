"""fit, validate and test: what the command line asks for, help at once, everything else by Lightning."""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

import visionkit
from visionkit.cli.config import configs
from visionkit.cli.config.classes import drop_replaced
from visionkit.cli.config.descriptions import keys_of_form
from visionkit.cli.config.options import options_of, value_of
from visionkit.cli.config.print_config import printed
from visionkit.cli.config.train_help import train_help
from visionkit.cli.imports import uncollected
from visionkit.core.errors import UsageError
from visionkit.core.files import read_text

__all__ = ["main"]

PRINT = "--print_config"


def main(command: str, arguments: Sequence[str]) -> int:
    """Run ``fit``, ``validate`` or ``test``."""
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # class_path: my_heads.MyHead finds my_heads.py beside the config
    arguments, trust = _trusted(configs.resolve(arguments))
    if "-h" in arguments or "--help" in arguments:
        print(train_help(command, arguments))
        return 0
    arguments = _complete(command, _nulls(arguments), trust)
    for path in configs.paths(arguments):
        configs.check_syntax(path)
    with uncollected():
        from visionkit.cli.lightning import CLI
        from visionkit.cli.notices import hide_notices
        from visionkit.training.run.claim import Claim

        hide_notices()
        _import_named(arguments)
    shown = io.StringIO() if PRINT in arguments else None
    try:
        with contextlib.nullcontext() if shown is None else contextlib.redirect_stdout(shown), Claim() as claim:
            CLI([command, *drop_replaced(arguments)], given=[command, *arguments], claim=claim)
    except SystemExit as e:  # --print_config and the like end so
        if shown is not None and not e.code:
            text = shown.getvalue()  # what modules of the user's print when they are imported comes first
            print(printed(yaml.safe_load(text[text.index("seed_everything:") :]), command), end="")
        return int(e.code or 0)
    return 0


def _import_named(arguments: Sequence[str]) -> None:
    """Import the public classes that the command line or a file of it names: imported ones have short names."""
    files = [Path(o.value) for o in options_of(arguments) if o.value.endswith((".yaml", ".yml", ".json"))]
    texts = [*arguments, *(read_text(f) for f in files if f.is_file())]
    words = {word for text in texts for word in re.findall(r"\w+", text)}
    for name in visionkit.PUBLIC:
        if name in words:
            getattr(visionkit, name)


def _trusted(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the arguments without ``--trust PACKAGE``, and the packages: Lightning's parser does not know it."""
    options = options_of(arguments)
    packages = [option.value for option in options if option.name == "--trust"]
    if not all(packages) or any(package.startswith("-") for package in packages):
        raise UsageError("--trust needs the name of a package whose classes the checkpoint may name")
    return [word for option in options if option.name != "--trust" for word in option.words], packages


def _complete(command: str, arguments: list[str], trust: Sequence[str] = ()) -> list[str]:
    """Without ``-c``, take the shipped config and the model from the checkpoint, where one is named."""
    if configs.paths(arguments):
        return arguments
    checkpoint = value_of(arguments, "--ckpt_path")
    if checkpoint is None or not Path(checkpoint).is_file():
        raise UsageError(
            f"{command} needs -c CONFIG: a file or one of the shipped {', '.join(configs.shipped())}"
            + ("" if command == "fit" else "; or --ckpt_path FILE, which describes its model itself")
        )
    with uncollected():
        from visionkit.models import checkpoint as checkpoints

    described = checkpoints.read(checkpoint)[checkpoints.KEY]
    return [*configs.from_checkpoint(described, checkpoint, trust), *arguments]


def _nulls(arguments: list[str]) -> list[str]:
    """Write ``--model.recipe.ema null`` so that jsonargparse takes it: within a dataclass it reads null as a word."""
    written: list[str] = []
    within = [f"--model.{key}" for key in keys_of_form("settings")]
    for option in options_of(arguments):
        settings, _, key = option.name.rpartition(".")
        null = option.value == "null" and settings in within
        written += [f'{settings}={{"{key}": null}}'] if null else option.words
    return written
