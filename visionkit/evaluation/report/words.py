"""What the numbers say, in words: one sentence, and what to do next."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping

from markupsafe import Markup

from visionkit.evaluation.report.confusion import Pair, pairs
from visionkit.evaluation.report.marks import Facts, Number, counted, join, name, pointer, say

__all__ = ["CLASS_METRICS", "MAIN", "metric_name", "next_steps", "sentence", "worst_class"]

MAIN: Mapping[str, tuple[str, ...]] = {
    "classification": ("top1", "map"),
    "detection": ("map",),
    "instance": ("mask_map", "map"),
    "segmentation": ("miou",),
}
"""By task, the number that counts most: the first that is there."""
CLASS_METRICS: Mapping[str, tuple[str, ...]] = {
    "classification": ("accuracy", "ap"),
    "detection": ("ap",),
    "instance": ("mask_ap", "ap"),
    "segmentation": ("iou",),
}
"""By task, the same of each class."""
_NAMES: Mapping[str, str] = {
    "top1": "right at the first guess (top-1)",
    "top5": "right within five guesses (top-5)",
    "macro_f1": "F1, mean of the classes",
    "micro_f1": "F1 over all labels",
    "ece": "calibration error",
    "map": "average precision (AP)",
    "map_50": "AP at IoU 0.5",
    "map_75": "AP at IoU 0.75",
    "map_small": "AP of small objects",
    "map_medium": "AP of medium objects",
    "map_large": "AP of large objects",
    "mar_1": "recall with 1 box",
    "mar_10": "recall with 10 boxes",
    "mar_100": "recall with 100 boxes",
    "mar_small": "recall of small objects",
    "mar_medium": "recall of medium objects",
    "mar_large": "recall of large objects",
    "precision": "precision",
    "recall": "recall",
    "f1": "F1",
    "miou": "mean IoU",
    "mdice": "mean Dice",
    "pixel_accuracy": "pixels that are right",
    "mean_accuracy": "pixels that are right, mean of the classes",
    "boundary_f1": "F1 of the boundaries",
    "accuracy": "right",
    "ap": "AP",
    "ap_50": "AP at IoU 0.5",
    "iou": "IoU",
    "dice": "Dice",
}


def metric_name(key: str) -> str:
    """Return what a number is called: a key of a metric, or what stands before the ``/`` of a class's."""
    if key in _NAMES:
        return _NAMES[key]
    if key.startswith("mask_"):
        return f"{metric_name(key.removeprefix('mask_'))}, of masks"
    return key.replace("_", " ")


def main_metric(facts: Facts) -> str:
    """Return the key of the number that counts most; "" where it is not there."""
    return next((k for k in MAIN[facts.text("task")] if facts.number("metrics", k, "value") is not None), "")


def worst_class(facts: Facts) -> tuple[str, str] | None:
    """Return the class with the lowest number, and the metric; None where there are not two classes to compare."""
    for prefix in CLASS_METRICS[facts.text("task")]:
        found = [
            (value.value, key.partition("/")[2])
            for key in facts.mapping("metrics")
            if key.startswith(f"{prefix}/") and (value := facts.number("metrics", key, "value")) is not None
        ]
        if len(found) > 1:
            return min(found)[1], prefix
    return None


def sentence(facts: Facts) -> Markup:
    """Return in one sentence or two what is right and what is confused."""
    task = facts.text("task")
    if task == "classification":
        words = _labels(facts) if facts.get("multilabel") else _classes(facts)
    else:
        words = _pixels(facts) if task == "segmentation" else _boxes(facts)
    few = facts.quote("metrics", main_metric(facts), "few")
    return say('{} <span class="few">Beware: {}.</span>', words, few) if few else words


def interval_of(facts: Facts, key: str, form: str) -> Markup:
    """Return the 95 % interval of a number in brackets; nothing where it has none."""
    low, high = (facts.number("metrics", key, end, form=form) for end in ("low", "high"))
    return say(", 95\N{NO-BREAK SPACE}% interval {} to {}", low, high) if low and high else Markup("")


def _classes(facts: Facts) -> Markup:
    total = sum(map(sum, facts.rows("confusion", "counts")))
    hits = sum(row[k] for k, row in enumerate(facts.rows("confusion", "counts")) if k < len(row))
    table = pointer("confusion", "counts")
    top1 = facts.number("metrics", "top1", "value", form="share")
    if not total and top1 is not None:  # so many classes have no table
        return say("{} of the pictures are right{}.", top1, interval_of(facts, "top1", "share"))
    if top1 is None:
        return say("{} were measured.", counted(facts.get("data", "images") or 0, pointer("data", "images"), "picture"))
    whole = Number(total, table)
    right = (
        say("{} of {}", Number(hits, f"{table}@diagonal"), counted(total, whole.key, "picture"))
        if hits
        else say("None of {}", counted(total, whole.key, "picture"))
    )
    verb = "is" if hits == 1 or not hits else "are"
    words = say("{} {} right ({}{}).", right, verb, top1, interval_of(facts, "top1", "share"))
    return say("{} {}", words, _most_confused(facts, lambda p: _taken(p, "pictures")))


def _labels(facts: Facts) -> Markup:
    value = facts.number("metrics", "map", "value")
    if value is None:
        return Markup("No label of these pictures could be measured.")
    value = Number(value.value, value.key, "score")
    worst = worst_class(facts)
    words = say("The labels are found with an average precision of {}{}.", value, interval_of(facts, "map", "score"))
    if worst is None:
        return words
    least = facts.number("metrics", f"{worst[1]}/{worst[0]}", "value", form="score")
    return say("{} Worst is {} with {}.", words, name(worst[0]), least)


def _boxes(facts: Facts) -> Markup:
    key = main_metric(facts)
    value = facts.number("metrics", key, "value", form="score")
    recall, precision = (facts.number("metrics", k, "value", form="share") for k in ("recall", "precision"))
    if value is None:
        return Markup("No object could be measured.")
    of = "of masks " if key.startswith("mask_") else ""
    words = say("The average precision {}is {}{}.", of, value, interval_of(facts, key, "score"))
    if recall is not None and precision is not None:
        table = facts.rows("confusion", "counts")
        objects = sum(sum(row) for row in table[:-1])
        found = sum(sum(row[:-1]) for row in table)
        if objects and not found:
            words = say("{} Nothing was predicted with the score that counts: all objects are missed.", words)
        else:
            words = say("{} {} of the objects are found, and {} of what is marked is right.", words, recall, precision)
    return say("{} {}", words, _most_confused(facts, lambda p: _object(p, facts)))


def _pixels(facts: Facts) -> Markup:
    right = facts.number("metrics", "pixel_accuracy", "value", form="share")
    miou = facts.number("metrics", "miou", "value", form="score")
    if right is None or miou is None:
        return Markup("No pixel could be measured.")
    words = say("{} of the pixels are right; mean IoU {}{}.", right, miou, interval_of(facts, "miou", "score"))
    return say("{} {}", words, _most_confused(facts, lambda p: _taken(p, "its pixels")))


def _most_confused(facts: Facts, told: Callable[[Pair], Markup]) -> Markup:
    if not facts.rows("confusion", "counts"):
        return Markup("")
    found = pairs(facts)
    return told(found[0]) if found else Markup("Nothing is confused.")


def _taken(pair: Pair, what: str) -> Markup:
    if what == "pictures":
        many = say("{}, {} of its pictures", pair.number, pair.share)
    else:
        many = say("{} of {}", pair.share, what)
    return say("Most often {} is taken for {} ({}).", name(pair.truth), name(pair.said), many)


def _object(pair: Pair, facts: Facts) -> Markup:
    nothing = len(facts.rows("classes"))
    if pair.column >= nothing:
        return say(
            "The most frequent error: {} is missed ({}, {} of its objects).", name(pair.truth), pair.number, pair.share
        )
    if pair.row >= nothing:
        return say(
            "The most frequent error: {} is found where nothing is labelled ({} times).", name(pair.said), pair.number
        )
    return say("Most often {} is taken for {} ({} times).", name(pair.truth), name(pair.said), pair.number)


def next_steps(facts: Facts) -> list[Markup]:
    """Return what to do next, three lines: from thresholds, from the worst class, and from what errors cost.

    Args:
        facts: The evaluation.
    """
    return [
        step for step in (_errors_step(facts), _class_step(facts), _threshold_step(facts), _few_step(facts)) if step
    ][:3]


def _errors_step(facts: Facts) -> Markup | None:
    told = facts.quote("errors", "sentence")
    found = pairs(facts)
    if facts.text("task") == "classification" and found:
        look = say(
            "Look at the {} of {} that are taken for {}: is the label right, and do more pictures tell the two apart?",
            counted(int(found[0].number.value), found[0].number.key, "picture"),
            name(found[0].truth), name(found[0].said),
        )  # fmt: skip
        return say("{} {}", told, look)
    return told or None


def _class_step(facts: Facts) -> Markup | None:
    worst = worst_class(facts)
    if worst is None:
        return None
    label, prefix = worst
    key = f"{prefix}/{label}"
    value, n = facts.number("metrics", key, "value", form="score"), facts.number("metrics", key, "n")
    unit = facts.text("metrics", key, "unit") or "things"
    words = say("The worst class is {} ({} {})", name(label), metric_name(prefix), value)
    if facts.text("metrics", key, "few"):
        return say(
            "{}, measured on {} {} alone: label more of it before you believe or mend this number.", words, n, unit
        )
    mistaken = [p for p in pairs(facts) if p.truth == label]
    classes = len(facts.rows("classes"))
    if mistaken and mistaken[0].column < classes:
        return say("{}: mostly taken for {}. More pictures that show both help most.", words, name(mistaken[0].said))
    if mistaken:
        return say("{}: mostly missed. More pictures of it, or a larger input size, help most.", words)
    return say("{}: more pictures of it help most.", words)


def _threshold_step(facts: Facts) -> Markup | None:
    if facts.text("task") == "segmentation":
        return None
    classes = facts.mapping("thresholds", "classes")
    rule = facts.text("thresholds", "rule")
    none = [one for one in classes if facts.get("thresholds", "classes", one, "threshold") is None]
    if none and rule:
        more = " and others" if len(none) > 3 else ""
        return say(
            "The rule <code>{}</code> gives no threshold for {}{}: label more of it, or ask for less.",
            rule, join([name(one) for one in none[:3]]), more,
        )  # fmt: skip
    if classes and rule:
        return say("Thresholds are chosen by <code>{}</code>: predict takes what reaches them.", rule)
    if facts.text("task") == "classification" and not facts.get("multilabel"):
        return None
    return say("No thresholds are chosen: <code>--choose f1</code> (or <code>precision&gt;=0.95</code>) of visionkit "
               "evaluate finds them for each class.")  # fmt: skip


def _few_step(facts: Facts) -> Markup | None:
    few = facts.quote("metrics", main_metric(facts), "few")
    if few:
        return say("Measure on more pictures: {}.", few)
    root = facts.text("data", "root")
    if not root:
        return None
    command = f"visionkit check {shlex.quote(root)} --deep WEIGHTS"
    return say("Wrong labels lower these numbers, too: <code>{}</code> looks for them.", command)
