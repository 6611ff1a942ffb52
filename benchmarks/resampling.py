"""A thousand resamples of average precision, 5,000 images with 80 classes: visionkit's draws beside whole ones.

The data are those of ``mean_ap``. "draws" is what intervals and comparisons use: COCO's twelve numbers, those of each
class, and counts of errors, for images that count more or less often. "whole" is ``redraw`` of as many images, which
tells curves and tables, too; it is measured over fewer resamples. Matching is done before the clock starts, and what
draws work out once is part of their time.
"""

from __future__ import annotations

import argparse
import sys
import time

import mean_ap
from measuring.figures import report

KEY = "cpu_seconds_per_1000"
REFERENCES = ["whole"]
LOWER = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this comparison's options."""
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--classes", type=int, default=80)
    parser.add_argument("--draws", type=int, default=1000)


def cases(options: argparse.Namespace) -> dict[str, list[str]]:
    """Return the command of each case."""
    given = [f"--images={options.images}", f"--classes={options.classes}", f"--draws={options.draws}"]
    return {case: [sys.executable, __file__, case, *given] for case in ("whole", "draws")}


def main() -> None:
    """Run one case and print its figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("case", choices=("whole", "draws"))
    add_arguments(parser)
    options = parser.parse_args()

    from visionkit import BoxPrediction, BoxTarget, DetectionMetric
    from visionkit.evaluation.resampling import bootstrap_weights

    metric = DetectionMetric([f"class {k}" for k in range(options.classes)])
    for p, t in mean_ap.draw(options.images, options.classes):
        prediction = BoxPrediction(*(p[k] for k in ("boxes", "scores", "labels")))
        metric.update([prediction], [BoxTarget(*(t[k] for k in ("boxes", "labels", "iscrowd", "area")))])
    metric.compute()
    draws = options.draws if options.case == "draws" else max(1, options.draws // 50)
    weights = list(bootstrap_weights(range(options.images), draws))
    start, cpu = time.perf_counter(), time.process_time()
    draw = metric.drawing() if options.case == "draws" else metric.redraw_weighted
    for weight in weights:
        draw(weight)
    each = 1000 / draws
    wall, cpu = (time.perf_counter() - start) * each, (time.process_time() - cpu) * each
    report({KEY: cpu, "seconds_per_1000": wall, "draws": draws})


if __name__ == "__main__":
    main()
