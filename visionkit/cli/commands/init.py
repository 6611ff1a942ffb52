"""init: look at a folder and write a config for it, each number with its reason."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from visionkit.cli.commands.predict import Parser
from visionkit.core.errors import UsageError
from visionkit.core.text import say

__all__ = ["TASKS", "main"]

TASKS = ("classification", "detection", "instance", "segmentation")


def parser() -> Parser:
    """Return the parser of ``visionkit init``."""
    p = Parser(
        prog="visionkit init",
        description="Look at a folder of pictures with labels and write a config for it: task and format are "
        "recognised, sizes, epochs and rates are chosen from the data, each with its reason beside it. Where the data "
        "has no validation pictures, some are chosen and listed in a file: by class, near duplicates kept together.",
        allow_abbrev=False,
    )
    p.add_argument("root", metavar="FOLDER", help="a data set: a folder, or the file that lists it")
    p.add_argument("--out", default=".", metavar="DIR", help="where to write NAME.yaml (default: here)")
    p.add_argument("--task", choices=TASKS, help="what to learn, where the labels serve several tasks")
    p.add_argument("--overwrite", action="store_true", help="replace files of before")
    return p


def main(command: str, arguments: Sequence[str]) -> int:
    """Run the command."""
    options = parser().parse_args(arguments)
    root, out = Path(options.root), Path(options.out)
    name = name_of(root)
    config = out / f"{name}.yaml"
    if config.exists() and not options.overwrite:
        raise UsageError(f"{config} is there already: --overwrite replaces it, --out DIR writes elsewhere")

    from visionkit.cli.starting import start

    started = start(root, out, name, options.task)
    started.write()
    say(*started.lines, f"config   {config}", f"next     visionkit fit -c {shlex.quote(str(config))}")
    return 0


def name_of(root: Path) -> str:
    """Return what the files of a data set are called."""
    resolved = root.resolve()
    name = resolved.stem if resolved.is_file() else resolved.name
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in name).strip("-.") or "data"
