"""compare: which of several evaluations is better on the same pictures, and whether that is shown."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visionkit.cli.commands.predict import Parser
from visionkit.core.errors import UsageError
from visionkit.core.text import say

if TYPE_CHECKING:
    from visionkit.evaluation.comparison import Comparison, Difference, Drawings, OtherImage
    from visionkit.evaluation.seeds import SeedDifference

__all__ = ["main", "parser"]

LISTED = 5
"""Pictures of each kind that are named; all of them are in the file."""
OF_CLASSES = 8
"""Values of classes that are told of, where a difference is shown."""


def parser() -> Parser:
    """Return the parser of ``visionkit compare``."""
    p = Parser(
        prog="visionkit compare",
        description="Say which of several evaluations is better on the same pictures, by how much, and whether that is "
        "shown: with the 95 %% interval of the difference from a paired bootstrap over the pictures. Reads what "
        "evaluate wrote, and no data. Each folder is compared with the first. Exit status: 0 compared, shown or not; "
        "2 other pictures, labels or classes.",
        allow_abbrev=False,
    )
    p.add_argument("folders", nargs="*", metavar="DIR", help="--out of visionkit evaluate; two or more")
    p.add_argument(
        "--group",
        nargs="+",
        action="append",
        default=[],
        metavar=("NAME", "DIR"),
        help="instead of DIR: the evaluations of several seeds of one recipe, under a name; give it twice or more: "
        "--group old A1 A2 A3 --group new B1 B2 B3",
    )
    p.add_argument("--out", metavar="FILE.json", help="write all differences, and all pictures on which they differ")
    p.add_argument("--overwrite", action="store_true", help="replace FILE.json where it exists")
    return p


def main(command: str, arguments: Sequence[str]) -> int:
    """Run the command."""
    options = parser().parse_args(arguments)
    recipes = _recipes(options.folders, options.group)
    if options.out:
        from visionkit.cli.commands.backbone import new_file

        new_file(options.out, ".json", "all differences", overwrite=options.overwrite)

    from visionkit.evaluation.comparison import draw_together
    from visionkit.evaluation.folder import read_evaluation

    folders = [folder for some in recipes.values() for folder in some]
    drawings = draw_together([(folder, read_evaluation(folder)) for folder in folders])
    say(_head(drawings))
    first, *others = list(recipes)
    place, at = {}, 0
    for name, some in recipes.items():
        place[name] = range(at, at + len(some))
        at += len(some)
    tell = _compare_seeds if options.group else _compare
    told = [tell(drawings, (first, place[first]), (name, place[name])) for name in others]
    if options.out:
        from visionkit.core.files import write_text

        write_text(options.out, json.dumps(_record(drawings, recipes, told), indent=1) + "\n")
        say(f"all differences: {options.out}")
    return 0


def _recipes(folders: Sequence[str], groups: Sequence[Sequence[str]]) -> dict[str, list[str]]:
    """Return the folders of each thing that is compared, by its name."""
    if folders and groups:
        raise UsageError("give folders, or --group NAME DIR DIR twice or more, not both")
    if not groups and len(folders) < 2:
        raise UsageError("give two or more folders that visionkit evaluate wrote: visionkit compare DIR_A DIR_B")
    short = next((group for group in groups if len(group) < 2), None)
    if short is not None:
        raise UsageError(f"--group {short[0]}: a name, then the folders of its seeds: --group old A1 A2 A3")
    if len(groups) == 1:
        raise UsageError(f"--group {groups[0][0]}: give a second --group to compare it with")
    recipes = {group[0]: list(group[1:]) for group in groups} or {folder: [folder] for folder in folders}
    names = [group[0] for group in groups]
    real = [os.path.realpath(folder) for folder in folders or [f for group in groups for f in group[1:]]]
    for what, times in (Counter(names) + Counter(real)).items():
        if times > 1:
            raise UsageError(f"{what} is given {times} times; a comparison with itself says nothing")
    return recipes


def _head(drawings: Drawings) -> str:
    """Return what is compared, in a line."""
    first = drawings.evaluations[0]
    images, groups = len(drawings.groups), len(set(drawings.groups))
    within = f" in {groups:,} groups" if groups < images else ""
    return f"compared on {images:,} pictures{within} ({first.task}, {len(first.classes)} classes)"


def _compare(drawings: Drawings, first: tuple[str, Sequence[int]], second: tuple[str, Sequence[int]]) -> dict[str, Any]:
    """Say how one evaluation differs from the first one, and return it as plain values."""
    from visionkit.evaluation.comparison import compare

    found = compare(drawings, first[1][0], second[1][0])
    told = {"a": first[0], "b": second[0], **found.record()}
    say("", f"A = {first[0]}", f"B = {second[0]}")
    if not found.better and not found.worse and all(one.a == one.b for one in found.differences.values()):
        say("both say the same: no value differs, and no picture tells them apart")
        return told
    say(_sentence(found.main, found.differences[found.main]))
    if found.mcnemar is not None:
        test = found.mcnemar
        say(f"  right in B alone {test.second}, in A alone {test.first}: p = {test.p:.2g} (McNemar's exact test)")
    say(*_table(found.main, found.differences))
    say(*_pictures(found))
    return told


def _compare_seeds(
    drawings: Drawings, first: tuple[str, Sequence[int]], second: tuple[str, Sequence[int]]
) -> dict[str, Any]:
    """Say how the runs of one recipe differ from those of the first one, and return it as plain values."""
    from visionkit.evaluation.comparison import main_of
    from visionkit.evaluation.seeds import compare_seeds

    found = compare_seeds(drawings, first[1], second[1])
    main = main_of(found, drawings.evaluations[0].metric.monitor)
    say("", f"A = {first[0]}, {_runs(len(first[1]))}", f"B = {second[0]}, {_runs(len(second[1]))}")
    one = found[main]
    say(_sentence(main, one.pictures, shown=one.shown))
    for name, values in (("A", one.a), ("B", one.b)):
        say(f"  runs of {name}: {', '.join(f'{v:.4g}' for v in values)}")
    say(*_seed_lines(one))
    say(*_table(main, {key: d.pictures for key, d in found.items()}, {key for key, d in found.items() if d.shown}))
    return {
        "a": first[0], "b": second[0], "main": main, "differences": {key: d.record() for key, d in found.items()},
    }  # fmt: skip


def _seed_lines(one: SeedDifference) -> list[str]:
    """Return what pictures and what seeds leave open."""
    over = one.pictures.interval
    lines = [f"  over pictures {_ends(over.low, over.high)}: other pictures, these very runs"] if over else []
    if one.seeds is None:
        return [
            *lines,
            "  over seeds one run says nothing: an interval over pictures does not hold their spread",
        ]
    return [*lines, f"  over seeds {_ends(one.seeds.low, one.seeds.high)}: other runs, these very pictures; both must "
            "be on one side of 0"]  # fmt: skip


def _sentence(key: str, one: Difference, *, shown: bool | None = None) -> str:
    """Return in words whether B is better."""
    shown = one.shown if shown is None else shown
    values = f"{key} {one.a:.4g} and {one.b:.4g}"
    if one.interval is None:
        return f"{values}: not shown: {one.basis.few or 'nothing is known of how the difference varies'}"
    low, high = one.interval.low, one.interval.high
    if one.gain < 0:
        word, low, high = "worse", *((low, high) if one.lower else (-high, -low))
    else:
        word, low, high = "better", *((-high, -low) if one.lower else (low, high))
    verdict = "shown" if shown else f"not shown: {_why_not(one)}"
    if not one.gain:
        return f"{values}: neither is better {_ends(low, high)}: {verdict}"
    return f"{values}: B is {word} by {abs(one.gain):.4g} {_ends(low, high)}: {verdict}"


def _why_not(one: Difference) -> str:
    """Return why a difference is not shown."""
    if one.basis.few is not None:
        return one.basis.few
    if one.interval is not None and one.interval.low <= 0 <= one.interval.high:
        return "the interval holds 0"
    if not one.sure:
        return "so few pictures differ that the exact test says chance"
    return "another seed might turn it"


def _table(main: str, found: Mapping[str, Difference], shown: set[str] | None = None) -> list[str]:
    """Return the other values in lines; of the classes those alone that are shown to differ."""
    shown = {key for key, one in found.items() if one.shown} if shown is None else shown
    of_classes = [key for key in found if "/" in key]
    plain = [key for key in found if key != main and "/" not in key]
    told = [key for key in of_classes if key in shown]
    width = max(map(len, [*plain, *told[:OF_CLASSES]]), default=0)
    lines = []
    for key in [*plain, *told[:OF_CLASSES]]:
        one = found[key]
        form = ".0f" if "errors/" in key else ".4f"
        over = "" if one.interval is None else f" {_ends(one.interval.low, one.interval.high, form)}"
        verdict = "shown" if key in shown else one.basis.few or "not shown"
        lines.append(f"  {key:<{width}}  {one.a:.4g} -> {one.b:.4g}, {one.b - one.a:+{form}}{over}: {verdict}")
    if of_classes:
        left = len(told) - OF_CLASSES
        more = f" ({left} more of these are not listed)" if left > 0 else ""
        lines.append(f"  of {len(of_classes)} values of classes and kinds {len(told)} are shown to differ{more}; of "
                     "twenty equal ones one does by chance")  # fmt: skip
    return lines


def _pictures(found: Comparison) -> list[str]:
    """Return the pictures on which the two differ, in lines."""
    return [
        f"  B is {word} on {len(some)} pictures{': ' if some else ''}{_list(some)}"
        for word, some in (("better", found.better), ("worse", found.worse))
    ]


def _list(some: Sequence[OtherImage]) -> str:
    more = f", and {len(some) - LISTED} more" if len(some) > LISTED else ""
    return ", ".join(Path(one.image).name for one in some[:LISTED]) + more


def _runs(count: int) -> str:
    return "1 run" if count == 1 else f"{count} runs"


def _ends(low: float, high: float, form: str = ".4f") -> str:
    return f"[{low:{form}}, {high:{form}}]"


def _record(
    drawings: Drawings, recipes: Mapping[str, Sequence[str]], told: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Return all of it as plain values."""
    from visionkit import __version__

    first = drawings.evaluations[0]
    return {
        "format": 1, "version": __version__, "task": first.task, "classes": list(first.classes),
        "images": len(drawings.groups), "groups": len(set(drawings.groups)),
        "evaluations": {name: list(some) for name, some in recipes.items()}, "comparisons": list(told),
    }  # fmt: skip
