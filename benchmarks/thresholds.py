"""How often a threshold breaks its promise: visionkit's rule beside one that is read off the curve.

Sets of detections are drawn from a model whose precision at every threshold is known: the score of a detection says how
often such a one is right, and with --alike the detections of an image share what their score does not say (a normal
number of that deviation is added to the logit of all of them). A threshold is chosen on each set; it misses where the
true precision from it on is below the target. Told are the share of all sets with a miss, of those in which nothing is
promised, and the recall that is left of what the best threshold would give.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
from typing import Any

KEY = "missed"
REFERENCES = ["read off the curve"]
LOWER = True
RULES = {"visionkit": "precision>={}", "read off the curve": "precision~{}"}
POPULATION = 2_000_000  # detections that the true precision is known from


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this comparison's options."""
    parser.add_argument("--detections", type=int, default=1000, help="in a set, on average")
    parser.add_argument("--images", type=int, default=0, help="in a set; 0 for one a detection")
    parser.add_argument("--alike", type=float, default=0.0, help="how much detections of an image share, about 0..2")
    parser.add_argument("--ceiling", type=float, default=0.995, help="share of the surest detections that is right")
    parser.add_argument("--target", type=float, default=0.95)
    parser.add_argument("--sets", type=int, default=500)


def cases(options: argparse.Namespace) -> dict[str, list[str]]:
    """Return the command of each case."""
    given = [f"--{k}={getattr(options, k)}" for k in ("detections", "images", "alike", "ceiling", "target", "sets")]
    return {name: [sys.executable, __file__, name, *given] for name in RULES}


def drawn(random: Any, options: argparse.Namespace, images: int, each: float) -> tuple[Any, Any, Any]:
    """Return scores, whether they are right, and the image of each detection."""
    import numpy as np

    image = np.repeat(np.arange(images), random.poisson(each, images) if each != 1 else np.ones(images, int))
    scores = random.beta(0.9, 0.9, len(image))
    shift = random.normal(0, options.alike, images)[image] if options.alike else 0.0
    right = random.random(len(image)) < options.ceiling / (1 + np.exp(-(9 * (scores - 0.42) + shift)))
    return scores.astype(np.float32).astype(np.float64), right, image


def measured(case: str, options: argparse.Namespace) -> dict[str, float]:
    """Choose a threshold on each set, and compare it with what is true."""
    import numpy as np

    from visionkit.evaluation.answers import Answers
    from visionkit.evaluation.rules import Rule

    random = np.random.default_rng(0)
    images = options.images or options.detections
    each = options.detections / images
    scores, right, _ = drawn(random, options, int(POPULATION / each), each)
    order = np.argsort(-scores)
    scores, hits = scores[order], right[order].cumsum()
    precision, recall = hits / np.arange(1, len(hits) + 1), hits / hits[-1]
    fits = np.flatnonzero(precision >= options.target)
    best = recall[fits[-1]] if len(fits) else 0.0
    rule = Rule.parse(RULES[case].format(options.target))
    missed, nothing, kept = 0, 0, []
    for _ in range(options.sets):
        s, r, image = drawn(random, options, images, each)
        truths = np.bincount(image[r], minlength=images)
        threshold = rule.choose(Answers.make(s, r, image, truths)).threshold
        if threshold is None:
            nothing += 1
            continue
        place = max(0, int(np.searchsorted(-scores, -threshold, "right")) - 1)
        missed += bool(precision[place] < options.target)
        kept.append(recall[place] / best if best else 0.0)
    share = {"missed": missed / options.sets, "nothing_promised": nothing / options.sets}
    return {**share, "recall_kept": float(np.mean(kept)) if kept else 0.0, "best_recall": float(best)}


def main() -> None:
    """Measure one case and print a line of JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("case", choices=RULES)
    add_arguments(parser)
    options = parser.parse_args()
    found = measured(options.case, options)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    print(json.dumps({**found, "cpu_seconds": usage.ru_utime + usage.ru_stime}))


if __name__ == "__main__":
    main()
