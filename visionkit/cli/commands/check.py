"""check: look at a data set before anything is trained on it."""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visionkit.cli.commands.predict import Parser
from visionkit.cli.faults import explained
from visionkit.core.errors import UsageError, VisionkitError
from visionkit.core.text import say

if TYPE_CHECKING:
    from visionkit.cli.recognise import Candidate
    from visionkit.data.audit.checks import Verdict
    from visionkit.data.audit.findings import Finding
    from visionkit.data.audit.snapshot import Snapshot

__all__ = ["main"]

TASKS = ("classification", "detection", "instance", "segmentation")
FAILED = 3


def parser() -> Parser:
    """Return the parser of ``visionkit check``."""
    p = Parser(
        prog="visionkit check",
        description="Look at a data set before anything is trained on it: pictures that are damaged, turned or odd; "
        "labels that are wrong, missing, double or contradictory; classes that are rare; images that are in two "
        "splits, and near copies of them; objects too small for the model. It reads with the same code as fit. Exit "
        "status: 0 nothing serious, 1 errors were found, 2 wrongly asked, 3 the check itself failed.",
        allow_abbrev=False,
    )
    p.add_argument("data", metavar="FOLDER_OR_YAML",
                   help="the folder of a data set, the file that lists it (manifest, COCO .json, data.yaml), or a "
                   "config whose data are checked")  # fmt: skip
    p.add_argument(
        "--task",
        choices=TASKS,
        help="what is to be learnt, where the folder can be taken for several (default: the likeliest)",
    )
    p.add_argument("--size", type=_size, metavar="PX",
                   help="side (or HxW) that the model would see, for what is too small (default: data.size of the "
                   "config, else what fit would choose)")  # fmt: skip
    p.add_argument(
        "--only",
        type=_words,
        action="extend",
        default=[],
        metavar="ID,...",
        help="look for these findings alone: ids (leak-near) or families (leak, box, picture, class, ...)",
    )
    p.add_argument("--skip", type=_words, action="extend", default=[], metavar="ID,...",
                   help="leave these findings out")  # fmt: skip
    p.add_argument("--deep", metavar="WEIGHTS",
                   help="also compare pictures by features of these pretrained weights (a file or timm/NAME): finds "
                   "copies that are cut further, and labels of images or boxes that look wrong")  # fmt: skip
    p.add_argument("--strict", action="store_true", help="count warnings as errors")
    p.add_argument("--json", action="store_true", help="print all findings with all their places as JSON, and no words")
    p.add_argument("--report", metavar="OUT.html", help="write one page with pictures of what was found")
    p.add_argument("--pictures", type=int, default=200, metavar="N", help="most pictures in the report (default: 200)")
    p.add_argument("--overwrite", action="store_true", help="replace OUT.html where it exists")
    p.add_argument("--fix", metavar="OUT",
                   help="write a repaired copy of the data set into this folder, which must be empty or not there: "
                   "what is certain is mended, the rest left as it is; the original is never touched")  # fmt: skip
    return p


def main(command: str, arguments: Sequence[str]) -> int:
    """Run the command."""
    options = parser().parse_args(arguments)
    if options.pictures < 0:
        raise UsageError(f"--pictures {options.pictures}: a number from 0 on")
    if options.report:
        from visionkit.cli.commands.backbone import new_file

        new_file(options.report, ".html", "a page", overwrite=options.overwrite)

    from visionkit.data.audit.checks import refuse_unknown

    refuse_unknown([*options.only, *options.skip])
    from visionkit.cli.recognise import recognise

    candidates = recognise(options.data)
    chosen = _choose(candidates, options.task, options.data)
    _refuse_outputs(chosen, options)
    try:
        found = [_check(c, _others(c, candidates), options) for c in chosen]
    except VisionkitError:
        raise
    except Exception as e:  # whatever it is: a check must not be taken for a data set without faults
        if isinstance(e, BrokenPipeError) or explained(e) is not None:  # the reader has gone, or the disk is full
            raise
        traceback.print_exc()
        say("error: the check itself failed; please report this with the lines above", error=True)
        return FAILED
    if options.json:  # for machines: ASCII alone
        print(json.dumps(found[0] if len(found) == 1 else found, indent=1))
    return max(int(f["status"]) for f in found)


def _choose(candidates: Sequence[Candidate], task: str | None, asked: str) -> list[Candidate]:
    """Return what is checked: all data of a config, else the likeliest."""
    fitting = [c for c in candidates if task in (None, c.task)]
    if not fitting:
        there = ", ".join(dict.fromkeys(c.task for c in candidates))
        raise UsageError(f"--task {task}: {asked} holds data for {there}")
    return fitting if fitting[0].config is not None else fitting[:1]


def _refuse_outputs(chosen: Sequence[Candidate], options: Any) -> None:
    """Refuse one page or one copy of several data sets, and a place that holds something."""
    if len(chosen) > 1 and (options.report or options.fix):
        tasks = ", ".join(c.task for c in chosen)
        raise UsageError(f"{options.data}: names several data sets ({tasks}): --report and --fix take one, with --task")
    if options.fix:
        from visionkit.cli.checking.repair import refuse_place

        refuse_place(chosen[0].root, Path(options.fix))


def _others(chosen: Candidate, candidates: Sequence[Candidate]) -> list[str]:
    """Return what else a folder can be taken for, in lines."""
    if chosen.config is not None:
        return []
    others = [c for c in candidates if c.task != chosen.task]
    lines = [chosen.reason] if "not read" in chosen.reason else []
    return lines + [f"can be taken for {c.task} data, too: {c.reason} (--task {c.task})" for c in others]


def _check(candidate: Candidate, others: Sequence[str], options: Any) -> dict[str, Any]:
    """Check one data set, say what was found, and return it as plain values."""
    from visionkit.cli.checking.collect import collect
    from visionkit.cli.checking.words import as_json, lines_of
    from visionkit.data.audit.checks import run_checks, verdict

    snapshot = collect(candidate, size=options.size, weights=options.deep, progress=_progress())
    findings = run_checks(snapshot, only=options.only, skip=options.skip)
    answer = verdict(snapshot, findings)
    status = _status(findings, strict=options.strict)
    if not options.json:
        say(*lines_of(snapshot, findings, answer, others=others, asked="" if options.fix else options.data))
    _write(snapshot, findings, answer, candidate, options)
    return as_json(snapshot, findings, answer, status=status)


def _write(
    snapshot: Snapshot, findings: Sequence[Finding], answer: Verdict, candidate: Candidate, options: Any
) -> None:
    if options.report:
        from visionkit.cli.checking.report import write_report

        write_report(options.report, snapshot, findings, answer, most=options.pictures)
        say(f"report   {options.report}", error=options.json)
    if options.fix:
        from visionkit.cli.checking.repair import repair

        say(*repair(candidate, snapshot, findings, Path(options.fix)), error=options.json)


def _status(findings: Sequence[Finding], *, strict: bool) -> int:
    if any(f.id == "check-failed" for f in findings):
        return FAILED
    serious = ("error", "warning") if strict else ("error",)
    return int(any(f.severity in serious for f in findings))


def _progress() -> Callable[[int, int], None] | None:
    """Return what tells how far the pictures are read, on a terminal."""
    if not sys.stderr.isatty():
        return None

    def tell(done: int, total: int) -> None:
        if done % 50 == 0 or done == total:
            end = "\r\033[K" if done == total else "\r"
            sys.stderr.write(f"\rreading pictures {done}/{total}{end}")
            sys.stderr.flush()

    return tell


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _size(text: str) -> tuple[int, int]:
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(p.isdigit() and int(p) > 0 for p in parts):
        raise ValueError
    return int(parts[0]), int(parts[-1])
