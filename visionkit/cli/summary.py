"""What predict says at its end: how much of what was found, the first pictures, where the files are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePath
from textwrap import wrap
from typing import TYPE_CHECKING

from visionkit.core.tally import Tally, joined
from visionkit.core.text import printable
from visionkit.core.thresholds import Thresholds

if TYPE_CHECKING:
    from visionkit.prediction.files import PredictionRun

__all__ = ["summary_of"]

WIDTH = 80
MOST = 3  # lines of numbers; a model of many heads has more
LONGEST_NAME = 36  # characters of a picture's path


def summary_of(run: PredictionRun, out: str, *, save_images: bool, drawable: bool = True) -> list[str]:
    """Return ten lines at most and what explanations are worth, of 80 columns where names are not longer.

    Args:
        run: What was done.
        out: The folder of the results, as it was given.
        save_images: Whether pictures with predictions were asked for.
        drawable: Whether they could be.
    """
    lines = [f"{run.count} prediction{'' if run.count == 1 else 's'} in {run.seconds:.1f} s: {run.records}"]
    for what, tally in list(run.tallies.items())[:MOST]:
        lines.append(_line(what, _numbers(tally, WIDTH - max(9, len(what) + 1))))
    names = _names([image for image, _ in run.first])
    longest = max(map(len, names), default=0)
    for k, (name, (_, said)) in enumerate(zip(names, run.first, strict=True)):
        start = f"{name:<{longest}}  "
        lines.append(_line("" if k else "first", start + joined(printable(said).split(", "), WIDTH - 9 - len(start))))
    if run.files and run.count:
        lines += _files(run.files, Path(out))
    for k, words in enumerate(wrap(run.explained or "", WIDTH - 9)):
        lines.append(_line("" if k else "maps", words))
    if run.thresholds is not None:
        lines += _chosen(run.thresholds)
    elif run.count and drawable and not save_images:  # ten lines are enough
        lines.append(_line("hint", "--save-images also draws what was found, into images/ there"))
    return lines


def _line(what: str, words: str) -> str:
    return f"{what:<8} {words}"


def _numbers(tally: Tally, width: int) -> str:
    """Return how often each class occurs."""
    words = [printable(word) for word in tally.words()]
    if not tally.which:
        return joined(words, width)
    if not words:
        return f"none {tally.which}"
    total = sum(tally.counts.values())
    end = f" ({total:,.0f} in all, {tally.which})" if len(words) > 1 else f" ({tally.which})"
    return joined(words, width - len(end)) + end


def _chosen(thresholds: Thresholds) -> list[str]:
    """Return by which thresholds things count, in two lines at most."""
    start = f"thresholds ({thresholds.rule}): "
    some = {name: value for name, value in thresholds.values.items() if value is not None}
    words = [printable(word) for word in Thresholds(thresholds.rule, some).words()]
    lines = [start + (joined(words, max(20, WIDTH - len(start))) if words else "none")]
    if left := [printable(name) for name in thresholds.values if name not in some]:
        lines.append(_line("", "nothing is promised of " + joined(left, WIDTH - 32)))
    return lines


def _names(images: Sequence[str]) -> list[str]:
    """Return pictures by what tells them apart: their paths below the folder that holds them all, cut at the left."""
    if not images:
        return []
    paths = [PurePath(image).parts for image in images]
    same = 0
    while all(len(parts) > same + 1 and parts[same] == paths[0][same] for parts in paths):
        same += 1
    names = [printable(PurePath(*parts[same:])) for parts in paths]
    return [name if len(name) <= LONGEST_NAME else f"...{name[3 - LONGEST_NAME :]}" for name in names]


def _files(files: Sequence[Path], out: Path) -> list[str]:
    """Return what lies in the folder of the results beside the records, in two lines at most."""
    tops = {path.relative_to(out).parts[0] if path.is_relative_to(out) else path.name: path for path in files}
    words = [name if path.suffix and path.parent == out else f"{name}/" for name, path in tops.items()]
    words[0] = f"{out}: {words[0]}" if len(str(out)) < WIDTH // 2 else words[0]
    for kept in range(len(words), 0, -1):
        if len(", ".join(words[:kept])) <= WIDTH - 10:
            break
    first = [_line("files", ", ".join(words[:kept]) + ("," if words[kept:] else ""))]
    return [*first, _line("", joined(words[kept:], WIDTH - 9))] if words[kept:] else first
