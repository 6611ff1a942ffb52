"""Pictures of segmentation results."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from visionkit.training.plots import name_ticks, save_figure, short

__all__ = ["write_class_iou"]

MAX_NAMED_CLASSES = 255
"""At most this many classes are named: all that there can be."""
COLUMNS = ((36, "IoU"), (72, "Dice"), (122, "pixels"))  # right ends in points from the bars' panel


def write_class_iou(
    scores: Mapping[str, tuple[float, float]],
    shares: Mapping[str, float],
    folder: Path,
    prefix: str,
    *,
    mean: float,
) -> list[Path]:
    """Write ``<prefix>class_iou.png``: a bar a class, best first, with a dot for Dice; beside it the numbers.

    Args:
        scores: IoU and Dice by class name, 0..1 each.
        shares: Share of the true pixels by class name, 0..1; other classes may be in it.
        folder: Where to write; made if missing.
        prefix: Begin of the file name.
        mean: IoU of the classes together, drawn as a line.
    """
    from matplotlib.figure import Figure

    ranked = sorted(scores.items(), key=lambda item: -item[1][0])
    rows, height = range(len(ranked)), 1.1 + 0.22 * max(3, len(ranked))  # inches
    figure = Figure(figsize=(8.4, height), dpi=100, layout="constrained")
    axes = figure.subplots()
    bars = axes.barh(rows, [iou for _, (iou, _) in ranked], color="#3b6ea5", label="IoU")
    dices = [dice for _, (_, dice) in ranked]
    (dots,) = axes.plot(dices, rows, "o", color="#d55e00", markersize=4, label="Dice", clip_on=False)
    line = axes.axvline(mean, color="black", linestyle="--", linewidth=1, label=f"mean IoU {mean:.3f}")
    axes.set_xlim(0, 1)
    axes.set_ylim(len(ranked) - 0.4, -0.6)
    name_ticks(axes.yaxis, [short(name) for name, _ in ranked], MAX_NAMED_CLASSES)
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    beside = axes.get_yaxis_transform()  # x in widths of the panel, y in rows
    for row, (name, (iou, dice)) in enumerate(ranked):
        texts = (f"{iou:.3f}", f"{dice:.3f}", _percent(shares[name]))
        for (x, _), text in zip(COLUMNS, texts, strict=True):
            axes.annotate(text, (1, row), (x, 0), beside, "offset points", ha="right", va="center", fontsize=8)
    for x, title in COLUMNS:
        axes.annotate(title, (1, 1), (x, 3), "axes fraction", "offset points", ha="right", fontsize=8, weight="bold")
    figure.legend(handles=[bars, dots, line], loc="outside upper center", ncols=3, frameon=False, fontsize=9)
    picture = folder / f"{prefix}class_iou.png"
    save_figure(figure, picture)
    return [picture]


def _percent(share: float) -> str:
    """Return a share of the true pixels as a text; a class that is predicted alone has none."""
    return "none" if share == 0 else f"{share:.2%}" if share >= 0.0001 else "< 0.01%"
