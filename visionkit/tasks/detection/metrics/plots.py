"""Pictures of detection results."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from torch import Tensor

from visionkit.prediction.draw import PALETTE
from visionkit.training.plots import save_figure, short

__all__ = ["write_curves", "write_errors"]

MAX_CURVES = 12
"""At most this many classes have a curve."""
EXPLANATIONS = {
    "missed": "no detection of it",
    "confused": "right place, wrong class",
    "poorly_localised": "right class, box not close enough",
    "both": "wrong class and box not close enough",
    "duplicate": "found already",
    "background": "nothing there",
}


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
    shown = sorted(curves, key=lambda name: -frequency[name])[:MAX_CURVES]
    for i, name in enumerate(shown):
        colour = tuple(c / 255 for c in PALETTE[i])  # its last, white, is beyond MAX_CURVES
        axes.plot(recall, curves[name], color=colour, linewidth=1.5, label=f"{short(name)}  {precisions[name]:.3f}")
    if len(curves) > 1:
        mean = np.mean([c.numpy() for c in curves.values()], axis=0)
        average = np.mean(list(precisions.values()))
        axes.plot(recall, mean, color="black", linewidth=2.5, label=f"all {len(curves)} classes  {average:.3f}")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("recall")
    axes.set_ylabel("precision")
    axes.set_title("IoU ≥ 0.5" + (f", the {MAX_CURVES} most frequent classes" if len(curves) > MAX_CURVES else ""))
    axes.grid(alpha=0.3)
    legend = figure.legend(loc="outside right upper", title="average precision", frameon=False)
    for text in legend.get_texts():
        text.set_parse_math(False)  # a $ in a class name is a $
    picture = folder / f"{prefix}pr_curves.png"
    save_figure(figure, picture)
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
    save_figure(figure, picture)
    return [picture]
