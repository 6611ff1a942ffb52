"""What evaluate says: the most important first, 80 columns, too few said so."""

import math

import pytest

from visionkit.evaluation.folder import Evaluation
from visionkit.evaluation.images import EvaluatedImage
from visionkit.evaluation.intervals import Interval
from visionkit.evaluation.measured import Measured
from visionkit.evaluation.words import folded, headline, in_words, number, summary_of
from visionkit.tasks.classification.metric import ClassificationMetric
from visionkit.tasks.detection.metrics.metric import DetectionMetric

NAMES = tuple(f"class {k:02}" for k in range(20))


def measured(value, n=50, few=None, unit="pictures of the class"):
    return Measured(value, Interval(value - 0.05, value + 0.05, "wilson"), n, unit, few)


def classified(names=NAMES, few=()):
    images = [EvaluatedImage(str(k), "0" * 64, None, (1, 1), {"label": names[k % len(names)]}) for k in range(400)]
    metrics = {"top1": measured(0.9125, 400, unit="images"), "top5": measured(0.95), "macro_f1": measured(0.8)}
    metrics |= {f"accuracy/{n}": measured(0.5 + k / 50, few="too few to say: 3" if k in few else None)
                for k, n in enumerate(names)}  # fmt: skip
    return Evaluation("classification", names, images, ClassificationMetric(names), metrics)


def test_the_number_that_counts_comes_first():
    assert headline(classified()) == "top-1 0.912 [0.862, 0.963] of 400 pictures"
    images = [
        EvaluatedImage(
            "a",
            "0" * 64,
            "g",
            (9, 9),
            {
                "objects": [
                    {"label": "x", "box": [0, 0, 1, 1], "crowd": crowd, "area": 1.0} for crowd in (False, False, True)
                ]
            },
        )
    ] * 2
    told = Evaluation("detection", ("x",), images, DetectionMetric(("x",)), {"map": Measured(0.5, None, 2, "images")})
    assert headline(told) == "mAP 0.500 of 2 pictures in 1 groups with 4 objects"
    assert number(Measured(math.nan, None, 0, "images")) == "none"
    assert in_words("map_50") == "mAP at IoU 0.5"
    assert in_words("boundary_f1/road") == "boundary F1 of road"
    assert in_words("new_number") == "new number"


def test_a_table_of_classes_the_worst_first_and_not_all():
    told = classified(few=(0, 1))
    lines = summary_of(told, "out", next_steps=["visionkit report out --out out.html"])
    assert lines[0].startswith("top-1 0.912")
    assert lines[1] == "top-5 0.950 [0.900, 1.000], macro F1 0.800 [0.750, 0.850]"
    table = [line for line in lines if line.endswith(" 50")]
    assert len(table) == 10
    assert table[0].split()[:4] == ["class", "02", "0.54", "[0.49,"]
    assert not any("too few" in line for line in table), "these stand behind the others"
    assert any("and 10 more classes: out/evaluation.json has them all" in line for line in lines)
    assert any("of 2 of these there are too few to say" in line for line in lines)
    assert lines[-1] == "next     visionkit report out --out out.html"
    assert all(len(line) <= 80 for line in lines)
    assert len(lines) < 20


def test_few_pictures_are_said_so():
    told = classified(("a", "b"), few=(1,))
    told.metrics["top1"] = Measured(0.9, Interval(0.6, 0.98, "wilson"), 10, "images", "too few to say: 10 images")
    lines = summary_of(told, "out")
    assert lines[1] == "too few to say: 10 images"
    assert next(line for line in lines if line.endswith("too few to say")).split()[0] == "b"


def test_what_the_other_parts_found_and_names_of_strangers():
    names = ("<script>\x1b[2J", "b" * 70, "c")
    told = classified(names)
    told.images = told.images[:1]
    told.calibration = {"words": "scores can be believed: of pictures with 0.9, 0.89 are right " + "x " * 40}
    told.errors = {"sentence": "the most is lost on pictures of b taken for c: mending that would gain 0.04"}
    told.views = {"views": "--flip", "monitor": "top1", "cost": 2.04, "metrics": {
        "top1": {"plain": 0.9, "several": 0.91, "gain": 0.01, "low": -0.01, "high": 0.03}}}  # fmt: skip
    told.ensemble = {"monitor": "top1", "gain_over_mean": {"value": 0.02, "low": 0.01, "high": 0.03}, "cost": 3.1,
                     "gain_over_best": {"value": 0.001, "low": -0.0001, "high": 0.01, "best": "runs/a"},
                     "reason": "weights of 0.5 each: nothing else was better on val"}  # fmt: skip
    lines = summary_of(told, "out")
    said = " ".join(" ".join(lines).split())
    assert "\x1b" not in said
    assert all(len(line) <= 80 for line in lines)
    assert "views no gain is shown: +0.010 [-0.010, +0.030] in top-1 against one view (0.900)" in said
    assert "together +0.020 [+0.010, +0.030] in top-1 against the mean of its members" in said
    assert "+0.001 [+0.000, +0.010] in top-1 against the best of them, runs/a (no gain is shown)" in said
    assert "scores scores can be believed" in said
    assert "errors the most is lost" in said
    assert "2 of the 3 classes are in none of the pictures" in said


def test_long_lines_are_folded():
    lines = folded(["short", "  cat  " + "word " * 30])
    assert lines[0] == "short"
    assert all(len(line) <= 80 for line in lines)
    assert lines[1].startswith("  cat  word")
    assert lines[2].startswith("      word")


@pytest.mark.parametrize("names", [("a",), ("a", "b")])
def test_one_class_needs_no_table(names):
    told = classified(names) if len(names) > 1 else None
    if told is None:
        images = [EvaluatedImage("a", "0" * 64, None, (9, 9), {"objects": []})]
        metrics = {"map": measured(0.5), "ap/a": measured(0.5)}
        told = Evaluation("detection", names, images, DetectionMetric(names), metrics)
    lines = summary_of(told, "out")
    assert any(line.startswith("classes") for line in lines) == (len(names) > 1)
