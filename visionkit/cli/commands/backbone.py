"""backbone: list and fetch weights, look into a file of them, or write the backbone of a checkpoint alone into one."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visionkit.cli.commands.backbone_weights import add_parsers, get_weights, list_weights
from visionkit.cli.commands.predict import Parser
from visionkit.cli.config.short_names import first_positional
from visionkit.core.errors import UsageError
from visionkit.core.text import say

if TYPE_CHECKING:
    from visionkit.models.backbones.inspect import Inspection

__all__ = ["main", "parser"]


def parser() -> Parser:
    """Return the parser of ``visionkit backbone``."""
    p = Parser(
        prog="visionkit backbone",
        description="List and fetch pretrained weights, look into a file of weights, or write the backbone of a "
        "checkpoint alone into a file. FILE or CKPT may be written --ckpt FILE, or --ckpt_path FILE.",
        allow_abbrev=False,
    )
    verbs = p.add_subparsers(dest="verb", metavar="list|get|inspect|export", required=True)
    known = add_parsers(verbs)
    look = verbs.add_parser(
        "inspect",
        help="say what a file of weights holds",
        description="Say what a file of weights holds: the network and the arguments that ask for it, its stages with "
        "their tensors and parameters, classes, pixel statistics, averaging (EMA), and where the weights come from.",
        allow_abbrev=False,
    )
    look.add_argument("file", metavar="FILE",
                      help=".pth, .pt, .ckpt or .safetensors file of any program, or a hub name (timm/NAME, "
                      "hf-hub:OWNER/NAME)")  # fmt: skip
    look.add_argument("--json", action="store_true", help="print JSON")
    write = verbs.add_parser(
        "export",
        help="write the backbone of a checkpoint alone, for visionkit, torchvision and timm",
        description="Write the backbone of a visionkit checkpoint alone, under torchvision's or timm's own names, as "
        "float32 safetensors. visionkit, torchvision and timm load it; its header holds the settings, the pixel "
        "statistics and the passport.",
        allow_abbrev=False,
    )
    write.add_argument("ckpt", metavar="CKPT", help="checkpoint of visionkit fit or visionkit.save")
    write.add_argument("out", metavar="OUT.safetensors", help="file to write; its folder is made if need be")
    write.add_argument("--overwrite", action="store_true", help="replace OUT where it exists")
    write.add_argument("--trust", action="append", default=[], metavar="PACKAGE",
                       help="a package beside visionkit whose backbone the checkpoint may name "
                       "(repeatable)")  # fmt: skip
    for verb in (*known, look, write):
        verb.set_defaults(parser=verb)  # it knows the options that an unknown one may mean
    return p


def main(command: str, arguments: Sequence[str]) -> int:
    """Run the command."""
    options, unknown = parser().parse_known_args(first_positional(arguments))
    if unknown:
        options.parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    if options.verb == "list":
        list_weights(as_json=options.json)
        return 0
    if options.verb == "get":
        get_weights(options.name, options.out, overwrite=options.overwrite)
        return 0
    if options.verb == "inspect":
        from visionkit.models.backbones.inspect import inspect_weights

        found = inspect_weights(options.file)
        say(*json.dumps(found.plain(), indent=2).splitlines() if options.json else _lines(found))
        return 0
    out = new_file(options.out, ".safetensors", "written as safetensors", overwrite=options.overwrite)

    from visionkit.models.backbone_file import export_backbone

    passport = export_backbone(options.ckpt, out, trust=options.trust)
    say(*str(passport).splitlines())
    say(f"written  {out}")
    return 0


def new_file(path: str, suffix: str, what: str, *, overwrite: bool) -> Path:
    """Return where a command writes a file, once it may.

    Args:
        path: As given.
        suffix: How its name must end.
        what: What the file is, for messages.
        overwrite: Whether it may replace one.

    Raises:
        UsageError: It has another ending, or is there already.
    """
    out = Path(path)
    if out.suffix != suffix:
        raise UsageError(f"{out}: the file is {what}: give it a name that ends in {suffix}")
    if out.is_dir() or (out.exists() and not overwrite):
        raise UsageError(f"{out} exists: choose another name" + ("" if out.is_dir() else ", or add --overwrite"))
    return out


def _lines(found: Inspection) -> list[str]:
    """Return what was found in words."""
    facts: dict[str, Any] = {
        "file": f"{found.source}, {found.bytes / 1e6:.1f} MB, sha256 {found.sha256[:12]}",
        "kind": found.kind,
        "network": found.network + ("" if found.certain or not found.options else ", perhaps"),
        "alike": ", ".join(found.alike) + " (the same names and shapes)" if found.alike else "",
        "use": f"{found.options} --model.backbone.weights {shlex.quote(found.source)}" if found.options else "",
        "where": ", ".join(filter(None, (found.container, f"prefix {found.prefix!r}" if found.prefix else ""))),
        "average": "averaged weights (EMA) are taken" if found.averaged else "",
        "beside": ", ".join(f"{name} ({count} tensors)" for name, count in found.others.items()),
        "numbers": ", ".join(f"{name} ({count})" for name, count in found.dtypes.items()),
        "task": found.task,
        "classes": _classes(found),
        "input": found.statistics or "no pixel statistics in the file",
    }
    lines = [f"{name:<9}{value}" for name, value in facts.items() if value]
    width = max(len("stage"), *(len(s.name) for s in found.stages))
    lines.append(f"{'stage':<{width}}  {'tensors':>7}  {'parameters':>11}")
    lines += [f"{s.name:<{width}}  {s.tensors:>7}  {s.parameters:>11,}" for s in found.stages]
    if found.left_over:
        lines.append(f"beside the backbone: {', '.join(f'{k} ({n})' for k, n in found.left_over.items())}")
    return lines + [f"itself from {g.source} ({g.kind}), {g.coverage:.1%}" for g in found.lineage]


def _classes(found: Inspection) -> str:
    if found.classes:
        names = ", ".join(found.classes[:8]) + (", ..." if len(found.classes) > 8 else "")
        return f"{len(found.classes)}: {names}"
    return f"{found.outputs} (outputs of the classifier)" if found.outputs else ""
