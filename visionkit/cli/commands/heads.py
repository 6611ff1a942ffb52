"""heads: list the heads of a checkpoint, take one out, join heads of one backbone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from visionkit.cli.commands.predict import Parser
from visionkit.cli.config.short_names import first_positional
from visionkit.core.errors import UsageError
from visionkit.core.text import say

if TYPE_CHECKING:
    from visionkit.models.model import VisionModel

__all__ = ["main"]


def parser() -> Parser:
    """Return the parser of ``visionkit heads``."""
    p = Parser(
        prog="visionkit heads",
        description="List the heads of a checkpoint, take one out as a checkpoint of its own, or join heads that were "
        "trained on one frozen backbone into one checkpoint. CKPT may be written --ckpt CKPT, or --ckpt_path CKPT.",
        allow_abbrev=False,
    )
    verbs = p.add_subparsers(dest="verb", required=True, metavar="VERB", parser_class=Parser)
    listed = verbs.add_parser("list", help="print each head with its classes", allow_abbrev=False)
    listed.add_argument("ckpt", metavar="CKPT", help="checkpoint of visionkit fit or visionkit.save")
    take = verbs.add_parser("take", help="write one head, with backbone and neck, as a checkpoint", allow_abbrev=False)
    take.add_argument("ckpt", metavar="CKPT", help="checkpoint with several heads")
    take.add_argument("name", metavar="NAME", help="name of the head")
    take.add_argument("out", metavar="OUT", help="file to write")
    join = verbs.add_parser("join", help="write a checkpoint with the heads of several", allow_abbrev=False)
    join.add_argument("out", metavar="OUT", help="file to write")
    join.add_argument("parts", nargs="+", metavar="[NAME=]CKPT",
                      help="a checkpoint of one head and the head's name, or one with several heads")  # fmt: skip
    for verb in (take, join):
        verb.add_argument("--overwrite", action="store_true", help="replace OUT where it exists")
    for verb in (listed, take, join):
        verb.add_argument(
            "--trust",
            action="append",
            default=[],
            metavar="PACKAGE",
            help="a package beside visionkit whose classes a checkpoint may name (repeatable)",
        )
    return p


def main(command: str, arguments: Sequence[str]) -> int:
    """Run the command."""
    options = parser().parse_args(first_positional(arguments))
    if options.verb != "list" and Path(options.out).exists() and not options.overwrite:
        raise UsageError(f"{options.out} exists: choose another file, or replace it with --overwrite")

    from visionkit.models import checkpoint
    from visionkit.tasks.multitask.head import MultiTaskHead
    from visionkit.tasks.multitask.take_join import join_heads, single_heads, take_head

    if options.verb == "list":
        model = checkpoint.load(options.ckpt, trust=options.trust)
        for name, single in single_heads({"(one head)": model}).items():
            say(_line(name, single))
        return 0
    if options.verb == "take":
        made = take_head(checkpoint.load(options.ckpt, trust=options.trust), options.name)
    else:
        named = _named(options.parts)
        models = {name: checkpoint.load(path, trust=options.trust) for name, path in named.items()}
        for name, model in models.items():
            if name == named[name] and not isinstance(model.head, MultiTaskHead):
                raise UsageError(f"{name}: it has one head: name it, NAME={name}")
        made = join_heads(models)
    checkpoint.save(made, options.out, task=_task(made))
    for name, single in single_heads({getattr(options, "name", ""): made}).items():
        say(_line(name, single))
    say(f"written {options.out}")
    return 0


def _named(parts: Sequence[str]) -> dict[str, str]:
    """Return the file of each part by its name, or, where none is given, by its path."""
    found: dict[str, str] = {}
    for part in parts:
        name, equals, path = part.partition("=")
        if not equals or Path(part).exists():  # a path may hold a =
            name, path = part, part
        if name in found:
            raise UsageError(f"two heads are named {name!r}: give one of them another name")
        found[name] = path
    return found


def _line(name: str, model: VisionModel) -> str:
    classes = ", ".join(model.classes[:6]) + (", ..." if len(model.classes) > 6 else "")
    return f"{name:<16} {type(model.head).__name__}, {len(model.classes)} classes: {classes}"


def _task(model: VisionModel) -> str | None:
    """Return the import path of the task whose models predict the like."""
    import visionkit
    from visionkit.cli.config.descriptions import known
    from visionkit.core.component import class_path

    tasks = [getattr(visionkit, name) for name in known().kinds["Task"]]
    return next((class_path(task) for task in tasks if task.trains(model.head)), None)
