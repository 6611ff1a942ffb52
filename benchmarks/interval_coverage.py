"""How often 95 % intervals hold the true value, and how often equal models are told apart, on simulated data sets.

Each set is drawn anew; an image has a difficulty of its own, so that its mistakes come together. The true value is that
of 20,000 images (of top-1 it is known). "percentile" is the plain bootstrap over images, "visionkit" what its
``measure`` or ``compare`` say. ``--what top1|miou|map`` counts how often the interval holds the true value and how wide
it is on average; ``--what equal`` how often two models of the same quality are said to differ, by mean average
precision on the same images; ``--what better`` the same where the second one is better by ``--gain``. The
``percentile`` case of the last two takes the two intervals that do not overlap for a difference.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

from measuring.figures import report

KEY = "share"
REFERENCES = ["percentile"]
CLASSES = {"top1": ["a", "b"], "miou": list("abcde"), "map": ["common", "rare"]}
POPULATION = 20_000
"""Images whose value is taken for the true one."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this comparison's options."""
    parser.add_argument("--what", choices=("top1", "miou", "map", "equal", "better"), default="miou")
    parser.add_argument("--images", type=int, default=50, help="of each set")
    parser.add_argument("--sets", type=int, default=1000)
    parser.add_argument("--draws", type=int, default=400, help="resamples of each interval")
    parser.add_argument("--right", type=float, default=0.95, help="true top-1")
    parser.add_argument("--gain", type=float, default=0.05, help="share of the missed objects that it finds")


def cases(options: argparse.Namespace) -> dict[str, list[str]]:
    """Return the command of each case."""
    given = [f"--{name}={value}" for name, value in vars(options).items() if name not in ("rounds", "json")]
    return {case: [sys.executable, __file__, case, *given] for case in ("visionkit", "percentile")}


def top1(rng: Any, images: int, right: float) -> dict[str, Any]:
    """Return what images of a classifier add, each right with the same chance."""
    import numpy as np

    truth = rng.integers(2, size=images)
    answers = 2 * truth + np.where(rng.random(images) < right, truth, 1 - truth)
    probabilities = rng.uniform(0.5, 1, images).astype(np.float32)
    return {"bins": np.array(15), "probabilities": probabilities, "answers": answers, "top5": np.zeros(0, bool)}


def miou(rng: Any, images: int) -> dict[str, Any]:
    """Return what images of a segmentation of five classes add; one of the classes is rare."""
    import numpy as np

    k = len(CLASSES["miou"])
    parts = rng.dirichlet([4, 2, 1, 0.6, 0.2], images)  # share of each class
    pixels = (parts * rng.uniform(0.5, 1, (images, 1)) * 10_000).astype(np.int64)
    wrong = rng.beta(1.2, 5, images)[:, None] * rng.uniform(0.5, 1.5, (images, k))
    confusion = np.zeros((images, k, k), np.int64)
    missed = (pixels * wrong.clip(0, 1)).astype(np.int64)
    spread = rng.dirichlet(np.ones(k), (images, k))
    confusion[:] = (missed[:, :, None] * spread).astype(np.int64)
    confusion[:, range(k), range(k)] += pixels - missed
    image, cell = np.nonzero(confusion.reshape(images, -1))
    cells = np.stack([cell, confusion.reshape(images, -1)[image, cell]], 1).astype(np.int32)
    return {"boundary_tolerance": np.array(0.0075), "cells": cells, "lengths": np.bincount(image, minlength=images)}


def objects(rng: Any, images: int) -> tuple[Any, ...]:
    """Return the true boxes, float [M, 4], their labels and images, and the difficulty of each image."""
    import numpy as np

    number = rng.poisson(3, images) + 1
    image = np.repeat(np.arange(images), number)
    labels = (rng.random(len(image)) < 0.12).astype(np.int64)
    place = np.arange(len(image)) - np.repeat(number.cumsum() - number, number)
    side = np.exp(rng.normal(np.log(60), 0.7, (len(image), 2))).clip(8, 200)
    corner = np.stack([place * 300, np.zeros(len(image))], 1)  # far from each other
    return np.concatenate([corner, corner + side], 1), labels, image, rng.beta(2, 4, images)


def found_of(rng: Any, world: tuple[Any, ...], gain: float = 0.0) -> dict[str, Any]:
    """Return what images of a detector add: boxes near some of the objects, and boxes of nothing."""
    import numpy as np

    truth, labels, image, difficulty = world
    images = len(difficulty)
    chance = 1 - difficulty[image] * (1 - gain)
    seen = np.flatnonzero(rng.random(len(image)) < chance)
    sides = np.tile(truth[seen, 2:] - truth[seen, :2], 2)
    noise = (0.03 + 0.12 * difficulty[image[seen]])[:, None] * (1 - gain)
    near = truth[seen] + noise * sides * rng.normal(size=(len(seen), 4))
    extra = np.repeat(np.arange(images), rng.poisson(2 * difficulty))
    corner = np.stack([rng.uniform(0, 3000, len(extra)), np.full(len(extra), 2000.0)], 1)
    boxes = np.concatenate([near, np.concatenate([corner, corner + 50], 1)])
    scores = np.concatenate([rng.beta(4, 2, len(seen)), rng.beta(2, 4, len(extra))])
    kinds = np.concatenate([labels[seen], (rng.random(len(extra)) < 0.3).astype(np.int64)])
    place = np.concatenate([image[seen], extra])
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
    order = np.lexsort((-scores, place))
    found = np.column_stack([boxes, scores, kinds])[order].astype(np.float32)
    areas = (truth[:, 2:] - truth[:, :2]).prod(1)
    known = np.column_stack([truth, labels, np.zeros(len(truth)), areas]).astype(np.float32)
    return {
        "thresholds": np.array([0.3, 0.5]),
        "found": found, "found_counts": np.bincount(place, minlength=images),
        "truth": known, "truth_counts": np.bincount(image, minlength=images),
    }  # fmt: skip


def metric_of(what: str, images: int, arrays: dict[str, Any]) -> Any:
    """Return a metric that holds these arrays."""
    import numpy as np

    from visionkit.evaluation.folder import new_metric

    task = {"top1": "classification", "miou": "segmentation", "map": "detection"}[what]
    metric = new_metric(task, CLASSES[what])
    metric.take_arrays({"images": np.array(images), **arrays})
    return metric


def drawn(what: str, rng: Any, images: int, right: float) -> Any:
    """Return a metric of a new data set."""
    if what == "top1":
        return metric_of(what, images, top1(rng, images, right))
    return metric_of(what, images, miou(rng, images) if what == "miou" else found_of(rng, objects(rng, images)))


def interval(case: str, what: str, metric: Any, draws: int, seed: int) -> tuple[float, float]:
    """Return the interval of a metric's main value."""
    import numpy as np

    from visionkit.evaluation.measures import measure
    from visionkit.evaluation.resampling import bootstrap_weights, resample

    if case == "visionkit":
        found = measure(metric, draws=2 if what == "top1" else draws, seed=seed)[what].interval
        return found.low, found.high
    values = resample(metric, bootstrap_weights(range(metric.images), draws, seed))[what]
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


def coverage(options: argparse.Namespace, case: str) -> dict[str, float]:
    """Return how often the interval holds the true value, its mean width and the true value."""
    import numpy as np

    what, hits, widths = options.what, 0, []
    true = options.right
    if what != "top1":
        metric = drawn(what, np.random.default_rng(10**6), POPULATION, 0.0)
        true = float(metric.compute()[what])
    for seed in range(options.sets):
        metric = drawn(what, np.random.default_rng(seed), options.images, options.right)
        low, high = interval(case, what, metric, options.draws, seed)
        hits += low <= true <= high
        widths.append(high - low)
    return {KEY: hits / options.sets, "width": float(np.mean(widths)), "true": true}


def alarms(options: argparse.Namespace, case: str) -> dict[str, float]:
    """Return how often two models are said to differ, and how much better the second one is in truth."""
    import numpy as np

    from visionkit.evaluation.comparison import difference_interval
    from visionkit.evaluation.resampling import bootstrap_weights, resample_together

    gain, said = (options.gain if options.what == "better" else 0.0), 0
    world = objects(np.random.default_rng(10**6), POPULATION)
    values = [
        float(metric_of("map", POPULATION, found_of(np.random.default_rng(1), world, g)).compute()["map"])
        for g in (0.0, gain)
    ]
    for seed in range(options.sets):
        rng = np.random.default_rng(seed)
        world = objects(rng, options.images)
        metrics = [metric_of("map", options.images, found_of(rng, world, g)) for g in (0.0, gain)]
        if case == "percentile":
            ends = [interval(case, "map", m, options.draws, seed) for m in metrics]
            said += ends[0][1] < ends[1][0] or ends[1][1] < ends[0][0]
            continue
        weights = bootstrap_weights(range(options.images), options.draws, seed)
        both = resample_together([(m.drawing(), slice(None)) for m in metrics], weights)
        found = difference_interval(both[1]["map"] - both[0]["map"], options.images)
        said += found.low > 0 or found.high < 0
    return {KEY: said / options.sets, "gain": values[1] - values[0], "map": values[0]}


def figures(options: argparse.Namespace, case: str) -> dict[str, float]:
    """Return the figures of one case."""
    return (alarms if options.what in ("equal", "better") else coverage)(options, case)


def main() -> None:
    """Run one case and print its figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("case", choices=("visionkit", "percentile"))
    add_arguments(parser)
    options = parser.parse_args()
    start = time.process_time()
    found = figures(options, options.case)
    report({**found, "images": options.images, "sets": options.sets, "cpu_s": time.process_time() - start})


if __name__ == "__main__":
    main()
