"""Pictures and tables of detection results."""

from __future__ import annotations

import csv
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from visionkit.ops.files import replacing
from visionkit.transforms.draw import PALETTE

if TYPE_CHECKING:
    from matplotlib.figure import Figure  # the object API alone: no global state, no display

__all__ = ["write_confusion_matrix", "write_curves", "write_errors"]

BACKGROUND = "(background)"
TEXT_CLASSES = 25
"""Up to this many classes the cells of a confusion matrix hold their counts."""
TICKS = 100
"""At most this many class names stand along an axis."""
CURVES = 12
"""At most this many classes have a curve."""
EXPLANATIONS = {
    "missed": "no detection of it",
    "confused": "right place, wrong class",
    "poorly_localised": "right class, box not close enough",
    "both": "wrong class and box not close enough",
    "duplicate": "found already",
    "background": "nothing there",
}


def write_confusion_matrix(
    confusion: Tensor, classes: Sequence[str], folder: Path, prefix: str, *, score: float, iou: float
) -> list[Path]:
    """Write ``<prefix>confusion_matrix.png``, coloured by share of the row, and ``.csv`` with the counts.

    Args:
        confusion: int64 [K + 1, K + 1] counts, rows truth, columns prediction, the last of both background.
        classes: The K class names.
        folder: Where to write; made if missing.
        prefix: Begin of the file names.
        score: Lowest score of the detections in it, for the title.
        iou: Lowest overlap of detection and object, for the title.
    """
    counts = confusion.cpu().numpy()
    names = [*classes, BACKGROUND]
    picture, table = folder / f"{prefix}confusion_matrix.png", folder / f"{prefix}confusion_matrix.csv"
    with replacing(table) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["truth \\ prediction", *names])
        writer.writerows([name, *row] for name, row in zip(names, counts.tolist(), strict=True))
    objects, right = counts[:-1].sum(), np.trace(counts[:-1, :-1])
    title = f"{objects} objects, {right / max(objects, 1):.1%} right (score ≥ {score:g}, IoU ≥ {iou:g})"
    _save(_confusion_figure(counts, names, title), picture)
    return [picture, table]


def write_curves(
    curves: Mapping[str, Tensor],
    recall: Tensor,
    precisions: Mapping[str, float],
    frequency: Mapping[str, int],
    folder: Path,
    prefix: str,
) -> list[Path]:
    """Write ``<prefix>pr_curves.png``: precision over recall at IoU 0.5, the mean and the most frequent classes.

    Args:
        curves: Precision of each class that occurs, float32 [R].
        recall: float32 [R].
        precisions: Average precision at IoU 0.5 of these classes.
        frequency: Number of objects of these classes.
        folder: Where to write; made if missing.
        prefix: Begin of the file name.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 4.8), dpi=100, layout="constrained")
    axes = figure.subplots()
    shown = sorted(curves, key=lambda name: -frequency[name])[:CURVES]
    for i, name in enumerate(shown):
        colour = tuple(c / 255 for c in PALETTE[i])  # its last, white, is beyond CURVES
        axes.plot(recall, curves[name], color=colour, linewidth=1.5, label=f"{_short(name)}  {precisions[name]:.3f}")
    if len(curves) > 1:
        mean = np.mean([c.numpy() for c in curves.values()], axis=0)
        average = np.mean(list(precisions.values()))
        axes.plot(recall, mean, color="black", linewidth=2.5, label=f"all {len(curves)} classes  {average:.3f}")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("recall")
    axes.set_ylabel("precision")
    axes.set_title("IoU ≥ 0.5" + (f", the {CURVES} most frequent classes" if len(curves) > CURVES else ""))
    axes.grid(alpha=0.3)
    legend = figure.legend(loc="outside right upper", title="average precision", frameon=False)
    for text in legend.get_texts():
        text.set_parse_math(False)  # a $ in a class name is a $
    picture = folder / f"{prefix}pr_curves.png"
    _save(figure, picture)
    return [picture]


def write_errors(errors: Mapping[str, int], folder: Path, prefix: str, *, score: float) -> list[Path]:
    """Write ``<prefix>error_types.png``: a bar for each kind of error.

    Args:
        errors: Number of errors by kind.
        folder: Where to write; made if missing.
        prefix: Begin of the file name.
        score: Lowest score of the detections, for the title.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(8, 3.6), dpi=100, layout="constrained")
    axes = figure.subplots()
    names = [f"{kind.replace('_', ' ')}\n{EXPLANATIONS[kind]}" for kind in errors]
    bars = axes.barh(names, list(errors.values()), color="#3b6ea5")
    axes.bar_label(bars, padding=3)
    axes.invert_yaxis()
    axes.set_xlim(0, max(1, *errors.values()) * 1.12)  # room for the numbers
    axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
    axes.set_xlabel("number of errors")
    axes.set_title(f"kinds of errors (score ≥ {score:g})")
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    picture = folder / f"{prefix}error_types.png"
    _save(figure, picture)
    return [picture]


def _confusion_figure(counts: np.ndarray[Any, Any], names: Sequence[str], title: str) -> Figure:
    from matplotlib.figure import Figure

    k = len(names)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    edge = min(max(5.2, 2.4 + 0.42 * k), 13.0)  # inches
    figure = Figure(figsize=(edge + 0.8, edge), dpi=100, layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    figure.colorbar(image, ax=axes, label="share of the row", fraction=0.046)
    axes.axhline(k - 1.5, color="grey", linewidth=0.8)
    axes.axvline(k - 1.5, color="grey", linewidth=0.8)
    axes.set_xlabel("prediction (background: missed)")
    axes.set_ylabel("truth (background: nothing there)")
    axes.set_title(title, fontsize=11)
    _name_ticks(axes.xaxis, names)
    _name_ticks(axes.yaxis, names)
    axes.tick_params(axis="x", labelrotation=90)
    if k <= TEXT_CLASSES:
        for (row, column), count in np.ndenumerate(counts):
            if count:
                colour = "white" if shares[row, column] > 0.55 else "black"
                axes.text(column, row, str(count), ha="center", va="center", color=colour, fontsize=8)
    return figure


def _name_ticks(axis: Any, names: Sequence[str]) -> None:
    """Put names along an axis, every so many if there are too many."""
    ticks = range(0, len(names), -(-len(names) // TICKS))
    axis.set_ticks(ticks, [_short(names[i]) for i in ticks], fontsize=8 if len(ticks) <= TEXT_CLASSES else 7)
    for label in axis.get_ticklabels():
        label.set_parse_math(False)


def _short(name: str) -> str:
    return name if len(name) <= 24 else f"{name[:23]}…"


def _save(figure: Figure, path: Path) -> None:
    with replacing(path) as temporary, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # names in scripts that the font lacks
        figure.savefig(temporary, format="png")
