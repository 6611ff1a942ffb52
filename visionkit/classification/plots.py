"""Pictures and tables of classification results."""

from __future__ import annotations

import csv
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["write_average_precision", "write_confusion_matrix"]

TEXT_CLASSES = 25
"""Up to this many classes the cells of a confusion matrix hold their counts."""
TICKS = 80
"""At most this many class names stand along an axis."""


def write_confusion_matrix(confusion: Tensor, classes: Sequence[str], folder: Path, prefix: str) -> list[Path]:
    """Write ``<prefix>confusion_matrix.png``, coloured by share of the row, and ``.csv`` with the counts.

    Args:
        confusion: int64 [K, K] counts, rows truth, columns prediction.
        classes: The K class names.
        folder: Where to write; made if missing.
        prefix: Begin of the file names.
    """
    counts = confusion.cpu().numpy()
    picture, table = folder / f"{prefix}confusion_matrix.png", folder / f"{prefix}confusion_matrix.csv"

    def write_table(path: Path) -> None:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["truth \\ prediction", *classes])
            writer.writerows([name, *row] for name, row in zip(classes, counts.tolist(), strict=True))

    _write(table, write_table)
    _save(_confusion_figure(counts, classes), picture)
    return [picture, table]


def write_average_precision(precisions: Mapping[str, float], folder: Path, prefix: str) -> list[Path]:
    """Write ``<prefix>average_precision.png``: a bar a class, best first.

    Args:
        precisions: Average precision by class name, 0..1.
        folder: Where to write; made if missing.
        prefix: Begin of the file name.
    """
    from matplotlib.figure import Figure

    ranked = sorted(precisions.items(), key=lambda item: -item[1])
    figure = Figure(figsize=(6.4, 1.2 + 0.22 * max(4, min(len(ranked), 200))), dpi=100, layout="constrained")
    axes = figure.subplots()
    axes.barh(range(len(ranked)), [v for _, v in ranked], color="#3b6ea5")
    axes.set_xlim(0, 1)
    axes.set_ylim(len(ranked) - 0.4, -0.6)
    axes.set_xlabel("average precision")
    _name_ticks(axes.yaxis, [f"{_short(n)}  {v:.2f}" for n, v in ranked], limit=200)
    axes.grid(axis="x", alpha=0.3)
    picture = folder / f"{prefix}average_precision.png"
    _save(figure, picture)
    return [picture]


def _confusion_figure(counts: np.ndarray[Any, Any], classes: Sequence[str]) -> Figure:
    from matplotlib.figure import Figure  # the object API alone: no global state, no display

    k = len(classes)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    edge = min(max(4.8, 2.4 + 0.42 * k), 13.0)  # inches
    figure = Figure(figsize=(edge + 0.8, edge), dpi=100, layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    figure.colorbar(image, ax=axes, label="share of the row", fraction=0.046)
    axes.set_xlabel("prediction")
    axes.set_ylabel("truth")
    axes.set_title(f"{counts.sum()} images, {np.trace(counts) / max(counts.sum(), 1):.1%} right")
    names = [_short(n) for n in classes]
    _name_ticks(axes.xaxis, names, limit=TICKS)
    _name_ticks(axes.yaxis, names, limit=TICKS)
    axes.tick_params(axis="x", labelrotation=90)
    if k <= TEXT_CLASSES:
        for (row, column), count in np.ndenumerate(counts):
            if count:
                colour = "white" if shares[row, column] > 0.55 else "black"
                axes.text(column, row, str(count), ha="center", va="center", color=colour, fontsize=8)
    return figure


def _name_ticks(axis: Any, names: Sequence[str], limit: int) -> None:
    """Put names along an axis, every so many if there are more than ``limit``."""
    ticks = range(0, len(names), max(1, -(-len(names) // limit)))
    axis.set_ticks(ticks, [names[i] for i in ticks], fontsize=8 if len(ticks) <= TEXT_CLASSES else 7)
    for label in axis.get_ticklabels():
        label.set_parse_math(False)  # a $ in a class name is a $


def _short(name: str) -> str:
    return name if len(name) <= 24 else f"{name[:23]}…"


def _save(figure: Figure, path: Path) -> None:
    def write(temporary: Path) -> None:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph .* missing")  # names in scripts that the font lacks
            figure.savefig(temporary, format="png")

    _write(path, write)


def _write(path: Path, write: Callable[[Path], None]) -> None:
    """Write a file as a whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
