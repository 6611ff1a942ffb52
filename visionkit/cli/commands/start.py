"""train: init and fit in one: a folder becomes a model."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from visionkit.cli.commands.init import TASKS, name_of
from visionkit.cli.commands.predict import Parser
from visionkit.cli.config import configs
from visionkit.cli.config.options import options_of
from visionkit.cli.config.short_names import written_out
from visionkit.cli.members import asked_members, divided
from visionkit.core.errors import UsageError
from visionkit.core.text import say

__all__ = ["main"]

RUNS = Path("runs")
HELP = ("-h", "--help")


def parser() -> Parser:
    """Return the parser of ``visionkit train``."""
    p = Parser(
        prog="visionkit train",
        usage="visionkit train FOLDER [--task TASK] [options of visionkit fit]",
        description="Train a model on a folder of pictures with labels, with nothing set by hand: what `visionkit init "
        "FOLDER` writes, goes into runs/NAME.yaml and is trained. A runs/NAME.yaml of before is used as it stands. All "
        "options of `visionkit fit` can follow: --epochs 50, --model.backbone.depth 34, --members 3.",
        allow_abbrev=False,
    )
    p.add_argument("root", metavar="FOLDER", help="a data set: a folder, or the file that lists it")
    p.add_argument("--task", choices=TASKS, help="what to learn, where the labels serve several tasks")
    return p


def main(command: str, arguments: Sequence[str]) -> int:
    """Run the command."""
    if not arguments or arguments[0] in HELP or arguments[0].startswith("-"):
        parser().parse_args(list(arguments[:1]))
    own = [o for o in options_of(arguments[1:]) if o.name in ("--task", *HELP)]
    options = parser().parse_args([arguments[0], *(word for o in own for word in o.words)])
    further = [word for o in options_of(arguments[1:]) if o.name not in ("--task", *HELP) for word in o.words]
    root, name = Path(options.root), name_of(Path(options.root))
    config = RUNS / f"{name}.yaml"
    if config.is_file():
        say(f"config   {config} of before is used; remove it to choose anew")
        if any(o.name in ("--minutes", "--trainer.max_time") for o in options_of(further)):
            say("note     its numbers stay: sizes and epochs that suit the time are chosen where it says auto")
        if options.task is not None:
            raise UsageError(f"--task {options.task}: {config} of before is used; remove it to choose anew")
    else:
        from visionkit.cli.config.auto import values_of
        from visionkit.cli.starting import start

        kept, members = asked_members("fit", further)
        kept = kept if members is None else divided(kept, members)
        started = start(root, RUNS, name, options.task, values_of(written_out("fit", configs.resolve(kept))))
        started.write()
        say(*started.lines, f"config   {config}")
    say(f"command  visionkit fit -c {' '.join(map(shlex.quote, [str(config), *further]))}")

    from visionkit.cli.commands.train import main as fit

    return fit("fit", ["-c", str(config), *further])
