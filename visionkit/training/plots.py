"""Pictures of a training, and what the pictures of all tasks share."""

from __future__ import annotations

import csv
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from visionkit.core.files import replacing
from visionkit.core.text import cell

if TYPE_CHECKING:
    from matplotlib.figure import Figure  # the object API alone: no global state, no display

__all__ = ["draw_learning_curves", "name_ticks", "save_figure", "short", "write_confusion_matrix"]

BACKGROUND = "(background)"
MAX_TEXT_CLASSES = 25
"""Up to this many classes the cells of a confusion matrix hold their counts, or percents of the row."""
MAX_TEXT_COUNT = 9999
"""Largest count that fits into a cell; where one is larger, all cells hold percents."""
MAX_TICKS = 100
"""At most this many class names stand along an axis of it."""


def draw_learning_curves(rows: Sequence[Mapping[str, float]], path: Path, *, monitor: str) -> None:
    """Draw losses, the monitored metric and the learning rate over the epochs into a PNG file.

    Args:
        rows: One mapping an epoch with "epoch", "train/loss", "val/loss", the monitored key and "lr".
        path: File to write.
        monitor: Key of the metric that chooses the best checkpoint.
    """
    from matplotlib.figure import Figure  # 0.5 s, needed at the end of a run only

    figure = Figure(figsize=(12, 3.6), layout="constrained")
    panels = (("loss", ("train/loss", "val/loss")), (monitor, (monitor,)), ("learning rate", ("lr",)))
    for axes, (title, keys) in zip(figure.subplots(1, len(panels)), panels, strict=True):
        for key in keys:
            points = [(row["epoch"], row[key]) for row in rows if key in row]
            if points:
                axes.plot(*zip(*points, strict=True), marker="." if len(points) < 40 else None, label=key)
        axes.set_title(title)
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        if len(keys) > 1 and axes.lines:
            axes.legend()
    save_figure(figure, path, dpi=110)


def write_confusion_matrix(
    confusion: Tensor, classes: Sequence[str], folder: Path, prefix: str, *, title: str
) -> list[Path]:
    """Write ``<prefix>confusion_matrix.png``, coloured by share of the row, and ``.csv`` with the counts.

    Counts that are too large for the cells of the picture, such as those of pixels, stand there as shares of the row in
    percent; shares below half a percent are left out.

    Args:
        confusion: int64 counts, rows truth, columns prediction: [K, K], or [K + 1, K + 1] with background as the last.
        classes: The K class names.
        folder: Where to write; made if missing.
        prefix: Begin of the file names.
        title: Stands above the picture.
    """
    counts = confusion.cpu().numpy()
    names = [*classes, BACKGROUND] if len(counts) > len(classes) else list(classes)
    picture, table = folder / f"{prefix}confusion_matrix.png", folder / f"{prefix}confusion_matrix.csv"
    with replacing(table) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["truth \\ prediction", *map(cell, names)])
        writer.writerows([cell(name), *row] for name, row in zip(names, counts.tolist(), strict=True))
    save_figure(_confusion_figure(counts, names, title, background=len(counts) > len(classes)), picture)
    return [picture, table]


def name_ticks(axis: Any, names: Sequence[str], limit: int) -> None:
    """Put names along an axis of matplotlib, every so many if there are more than ``limit``."""
    ticks = range(0, len(names), max(1, -(-len(names) // limit)))
    axis.set_ticks(ticks, [names[i] for i in ticks], fontsize=8 if len(ticks) <= MAX_TEXT_CLASSES else 7)
    for label in axis.get_ticklabels():
        label.set_parse_math(False)  # a $ in a class name is a $


def short(name: str) -> str:
    """Return a class name of at most 24 letters."""
    return name if len(name) <= 24 else f"{name[:23]}…"


def save_figure(figure: Figure, path: Path, *, dpi: float | str = "figure") -> None:
    """Write a figure as a PNG file, whole or not at all; its folder is made."""
    with replacing(path) as temporary, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # names in scripts that the font lacks
        figure.savefig(temporary, format="png", dpi=dpi)


def _confusion_figure(counts: np.ndarray[Any, Any], names: Sequence[str], title: str, *, background: bool) -> Figure:
    from matplotlib.figure import Figure

    k = len(names)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    edge = min(max(5.2, 2.4 + 0.42 * k), 13.0)  # inches
    figure = Figure(figsize=(edge + 0.8, edge), dpi=100, layout="compressed")
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    figure.colorbar(image, ax=axes, label="share of the row", fraction=0.046)
    if background:
        axes.axhline(k - 1.5, color="grey", linewidth=0.8)
        axes.axvline(k - 1.5, color="grey", linewidth=0.8)
    axes.set_xlabel("prediction" + (" (background: missed)" if background else ""))
    axes.set_ylabel("truth" + (" (background: nothing there)" if background else ""))
    axes.set_title(title, fontsize=11)
    name_ticks(axes.xaxis, [short(n) for n in names], MAX_TICKS)
    name_ticks(axes.yaxis, [short(n) for n in names], MAX_TICKS)
    axes.tick_params(axis="x", labelrotation=90)
    if k <= MAX_TEXT_CLASSES:
        in_percent = counts.max(initial=0) > MAX_TEXT_COUNT
        for (row, column), count in np.ndenumerate(counts):
            if count:
                colour = "white" if shares[row, column] > 0.55 else "black"
                text = f"{shares[row, column]:.0%}" if in_percent else str(count)
                if text != "0%":
                    axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=8)
    return figure
