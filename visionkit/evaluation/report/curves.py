"""Charts of an evaluation and of a training: learning curves, precision over recall, reliability."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from visionkit.evaluation.report.charts import Line, chart
from visionkit.evaluation.report.marks import Facts, is_number, join, pointer
from visionkit.evaluation.report.source import CURVES, Run
from visionkit.evaluation.report.style import LINES

__all__ = ["precision_charts", "reliability_charts", "training_charts"]

METRICS = ("mask_map", "map", "miou", "top1", "combined")
"""What chooses the best epoch of a training, the first that is there."""
WORDS: Mapping[str, str] = {
    "mask_map": "average precision of masks",
    "map": "average precision",
    "miou": "mean IoU",
    "top1": "top-1 accuracy",
    "combined": "mean of the heads",
}


def training_charts(run: Run) -> Markup:
    """Return the curves of a training: losses, and the metric that chooses the best epoch, by epoch."""
    keys = list(dict.fromkeys(key for row in run.rows for key in row))
    losses = [_line(run.rows, key) for key in ("train/loss", "val/loss") if key in keys]
    charts = [chart("loss", losses, x="epoch", y="loss", whole=True)]
    metric = next((m for m in METRICS for part in ("val", "train") if f"{part}/{m}" in keys), None)
    if metric is not None:
        measured = [_line(run.rows, f"{part}/{metric}") for part in ("train", "val") if f"{part}/{metric}" in keys]
        charts.append(chart(WORDS[metric], measured, x="epoch", y=metric, whole=True))
    return join(charts, "")


def precision_charts(facts: Facts) -> Markup:
    """Return precision over recall of the most frequent classes, where the evaluation has such curves."""
    lines = []
    for label, points in facts.mapping("curves", "pr").items():
        drawn = _points(points)
        if drawn:
            lines.append(Line(label, drawn, pointer("curves", "pr", label)))
    frequent = {
        one: sum(row) for one, row in zip(*(facts.rows("confusion", k) for k in ("names", "counts")), strict=False)
    }
    lines.sort(key=lambda line: -frequent.get(line.label, 0))
    title = "precision over recall" + (f" of the {LINES} most frequent classes" if len(lines) > LINES else "")
    return chart(title, lines[:LINES], x="recall", y="precision", spans=((0.0, 1.0), (0.0, 1.0)), dotted=False)


def reliability_charts(facts: Facts) -> Markup:
    """Return how often what is said with a certainty is right, where the evaluation was calibrated."""
    bins = facts.get("calibration", "bins")
    points = []
    for one in bins if isinstance(bins, list) else []:
        if isinstance(one, Mapping):
            pair = next(((one[a], one[b]) for a, b in _AXES if is_number(one.get(a)) and is_number(one.get(b))), None)
        else:
            pair = (one[0], one[1]) if isinstance(one, list) and len(one) > 1 and all(map(is_number, one[:2])) else None
        points += [pair] if pair is not None else []
    if not points:
        return Markup("")
    lines = [
        Line("as measured", sorted(points), pointer("calibration", "bins")),
        Line("as it should be", ((0.0, 0.0), (1.0, 1.0)), plain=True),
    ]
    return chart("reliability", lines, x="how sure", y="how often right", spans=((0.0, 1.0), (0.0, 1.0)))


_AXES = (("confidence", "accuracy"), ("confidence", "right"), ("score", "precision"))


def _line(rows: Sequence[Mapping[str, float]], key: str) -> Line:
    return Line(key, [(row["epoch"], row[key]) for row in rows if key in row], f"{CURVES}#{key}")


def _points(points: Any) -> list[tuple[float, float]]:
    if not isinstance(points, list):
        return []
    return [(p[0], p[1]) for p in points if isinstance(p, list) and len(p) >= 2 and all(map(is_number, p[:2]))]
