"""What an evaluation says of thresholds, of views of each picture and of several models."""

from __future__ import annotations

from markupsafe import Markup

from visionkit.evaluation.report.marks import Facts, Number, join, name, pointer, say
from visionkit.evaluation.report.tables import fold, plain_table, table
from visionkit.evaluation.report.words import metric_name

__all__ = ["ensemble_part", "thresholds_part", "views_part"]

OPEN_CLASSES = 20


def thresholds_part(facts: Facts) -> Markup:
    """Return from which score on each class counts, what that gives, and where nothing can be promised."""
    classes = facts.mapping("thresholds", "classes")
    if not classes:
        return plain_table(facts, "thresholds")
    rows = []
    for one in classes:
        place = ("thresholds", "classes", one)
        why = facts.quote(*place, "why")
        more = facts.number(*place, "more", "images")
        if more is not None:
            why = say("{}; about {} more pictures would do", why, more)
        cells: list[object] = [
            facts.number(*place, "threshold", form="score") or "none",
            facts.number(*place, "bound", form="score") or "",
            _share(facts, *place, "precision"),
            _share(facts, *place, "recall"),
        ]
        rows.append(
            say(
                "<tr><th scope='row' class='name'>{}</th>{}<td class='name'>{}</td></tr>",
                name(one), join([say("<td>{}</td>", cell) for cell in cells], ""), why,
            )
        )  # fmt: skip
    here, there = facts.text("thresholds", "chosen_on", "split"), facts.text("thresholds", "told_on", "split")
    told = say("told on {}", name(there)) if there else "told of halves, chosen on one and told on the other"
    words = say(
        "<p>Chosen by <code>{}</code> ({}) on {}, {}.</p>",
        facts.text("thresholds", "rule"), facts.quote("thresholds", "words"), name(here or "unknown pictures"), told,
    )  # fmt: skip
    head = ("class", "threshold", "at least", "precision", "recall", "")
    return say(
        "{}{}", words, fold("thresholds by class", table(head, rows, "thresholds"), shut=len(rows) > OPEN_CLASSES)
    )


def views_part(facts: Facts) -> Markup:
    """Return what several views of each picture gained, and what they cost."""
    if not facts.mapping("views"):
        return Markup("")
    key = facts.text("views", "monitor")
    place = ("views", "metrics", key)
    before, after = (facts.number(*place, part, form="score") for part in ("plain", "several"))
    gain = facts.number(*place, "gain", form="gain")
    words: object = ""
    if before is not None and after is not None and gain is not None:
        words = say(
            "<p>{} in place of one view: {} {} in place of {}, a gain of {}{}{}.</p>", facts.quote("views", "views"),
            metric_name(key), after, before, gain, _between(facts, *place), _cost(facts, "views"),
        )  # fmt: skip
    return say("{}{}", words, fold("all numbers with and without views", plain_table(facts, "views")))


def ensemble_part(facts: Facts) -> Markup:
    """Return what several models gained over their mean and over the best of them, and what they cost."""
    if not facts.mapping("ensemble"):
        return Markup("")
    key = facts.text("ensemble", "monitor")
    parts = []
    for what, place in (("the mean of its members", "gain_over_mean"), ("the best of them", "gain_over_best")):
        gain = facts.number("ensemble", place, "value", form="gain")
        if gain is not None:
            parts.append(say("{} over {}{}", gain, what, _between(facts, "ensemble", place)))
    words: object = ""
    if parts:
        count = Number(len(facts.rows("ensemble", "members")), pointer("ensemble", "weights") + "@length")
        words = say(
            "<p>{} models together, {}: {}{}.</p>", count, metric_name(key), join(parts, "; "), _cost(facts, "ensemble")
        )
    return say("{}{}", words, fold("members and weights", plain_table(facts, "ensemble")))


def _share(facts: Facts, *place: str) -> object:
    value, low, high = (facts.number(*place, part, form="score") for part in ("value", "low", "high"))
    n = facts.number(*place, "n")
    if value is None:
        return ""
    between = say(" ({} to {})", low, high) if low is not None and high is not None else ""
    return say("{}{} of {}", value, between, n) if n is not None else say("{}{}", value, between)


def _between(facts: Facts, *place: str) -> Markup:
    low, high = (facts.number(*place, part, form="gain") for part in ("low", "high"))
    return say(" (95\N{NO-BREAK SPACE}% interval {} to {})", low, high) if low and high else Markup("")


def _cost(facts: Facts, part: str) -> Markup:
    cost = facts.number(part, "cost", form="seconds")
    return say(", at {} times the time", cost) if cost is not None else Markup("")
