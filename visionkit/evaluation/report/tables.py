"""Tables of the page: numbers with their intervals, classes, the data, and whatever else an evaluation holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from markupsafe import Markup

from visionkit.evaluation.folder import IMAGES, Evaluation
from visionkit.evaluation.report.charts import interval
from visionkit.evaluation.report.marks import Facts, Number, is_number, join, name, say
from visionkit.evaluation.report.shots import size_of
from visionkit.evaluation.report.words import CLASS_METRICS, metric_name

__all__ = ["class_table", "data_table", "fold", "number_cards", "number_table", "plain_table", "table"]

OPEN_CLASSES = 20
"""Classes up to which their table is not folded."""
_ROWS = 250  # of a table
_DEEP = 6  # mappings in mappings
_CARDS: Mapping[str, tuple[str, ...]] = {
    "classification": ("top1", "map", "macro_f1", "top5", "micro_f1", "ece"),
    "detection": ("map", "map_50", "recall", "precision"),
    "instance": ("mask_map", "map", "recall", "precision"),
    "segmentation": ("miou", "pixel_accuracy", "mdice", "boundary_f1"),
}
"""By task, the numbers that are shown large: the first four that are there."""


def number_cards(facts: Facts) -> Markup:
    """Return the numbers that count most, large, each with its interval."""
    keys = [key for key in _CARDS[facts.text("task")] if key in facts.mapping("metrics")]
    cards = []
    for key in keys[:4]:
        value, low, high = _measured(facts, key)
        if value is not None:
            between = say("95\N{NO-BREAK SPACE}%: {} to {}", low, high) if low and high else "no interval"
            few = (
                say(' <span class="few">{}</span>', facts.quote("metrics", key, "few"))
                if facts.text("metrics", key, "few")
                else ""
            )
            cards.append(
                say(
                    '<div class="card"><span>{}</span><b>{}</b><span>{}{}</span></div>',
                    metric_name(key),
                    value,
                    between,
                    few,
                )
            )
    return say('<div class="cards">{}</div>', join(cards, "")) if cards else Markup("")


def number_table(facts: Facts) -> Markup:
    """Return all numbers over all classes."""
    keys = [key for key in facts.mapping("metrics") if _is_overall(key)]
    rows = [_row(facts, key, metric_name(key)) for key in keys]
    return table(("", "value", "95\N{NO-BREAK SPACE}% interval", "", "measured on"), rows, "all numbers")


def class_table(facts: Facts) -> Markup:
    """Return the numbers of each class, that of the lowest first; folded where there are many."""
    metrics = facts.mapping("metrics")
    prefixes = CLASS_METRICS[facts.text("task")]
    main = next((p for p in prefixes if any(key.startswith(f"{p}/") for key in metrics)), None)
    if main is None:
        return Markup("")
    keys = [key for key in metrics if key.startswith(f"{main}/")]
    keys.sort(key=lambda key: value.value if (value := facts.number("metrics", key, "value")) is not None else 2.0)
    others = [p for p in _prefixes(metrics) if p != main and p != "errors"][:3]
    rows = []
    for key in keys:
        label = key.partition("/")[2]
        beside = [facts.number("metrics", f"{p}/{label}", "value", form="score") for p in others]
        rows.append(_row(facts, key, name(label), beside))
    head = ("class", metric_name(main), "95\N{NO-BREAK SPACE}% interval", "", "measured on", *map(metric_name, others))
    return fold("classes, the lowest first", _capped(head, rows, "numbers by class"), shut=len(keys) > OPEN_CLASSES)


def data_table(evaluation: Evaluation, facts: Facts) -> Markup:
    """Return how many pictures, objects or pixels of each class and size were measured."""
    counts: Counter[tuple[str, str]] = Counter()
    totals: Counter[str] = Counter()
    for image in evaluation.images:
        for label, size, number in _things(image.truth):
            counts[label, size] += number
            totals[label] += number
    sizes = [size for size in ("small", "medium", "large") if any(s == size for _, s in counts)]
    names = list(evaluation.classes)
    rows = []
    for k, label in enumerate(names):
        cells = [Number(totals[label], f"{IMAGES}?class={k}")]
        cells += [Number(counts[label, size], f"{IMAGES}?class={k}&size={size}") for size in sizes]
        rows.append(
            say(
                "<tr><th scope='row' class='name'>{}</th>{}</tr>",
                name(label),
                join([say("<td>{}</td>", c) for c in cells], ""),
            )
        )
    what = {"classification": "pictures", "segmentation": "pixels"}.get(evaluation.task, "objects")
    content = _capped(("class", what, *sizes), rows, f"{what} by class")
    groups, images = facts.number("data", "groups"), facts.number("data", "images")
    words = say("{} pictures", images)
    if groups is not None and images is not None and groups.value < images.value:
        words = say("{} in {} groups", words, groups)
    about = ((key, facts.text("data", key)) for key in ("split", "format", "root"))
    told = [words, *(say("{}: {}", key, name(text)) for key, text in about if text)]
    line = say("<p>{}</p>", join(told, "; "))
    note = Markup("<p class='soft'>Objects below 32 x 32 pixels are small, from 96 x 96 on large.</p>") if sizes else ""
    return say("{}{}{}", line, fold(f"{what} by class", content, shut=len(rows) > OPEN_CLASSES), note)


def plain_table(facts: Facts, *path: str | int, without: Sequence[str] = ()) -> Markup:
    """Return whatever an evaluation holds at a place, row by row.

    Args:
        facts: The evaluation.
        path: The place.
        without: Keys that are shown elsewhere.
    """
    if facts.get(*path) is None:
        return Markup("")
    rows: list[Markup] = []
    left = 0
    for place, value in _leaves(facts.get(*path), path, without):
        if len(rows) >= _ROWS:
            left += 1
            continue
        label = " / ".join(str(part).replace("_", " ") for part in place[len(path) :])
        shown: object = facts.number(*place, form=_form(value)) if is_number(value) else _word(value)
        rows.append(say("<tr><th scope='row' class='name'>{}</th><td class='name'>{}</td></tr>", name(label), shown))
    more = say("<p class='soft'>and {} more</p>", str(left)) if left else ""
    return say("{}{}", table((), rows, str(path[-1])), more) if rows else Markup("")


def fold(title: str, content: object, *, shut: bool = True) -> Markup:
    """Return something under a title that opens and shuts it."""
    return say("<details{}><summary>{}</summary>{}</details>", Markup() if shut else Markup(" open"), title, content)


def _row(facts: Facts, key: str, label: object, beside: Sequence[Number | None] = ()) -> Markup:
    value, low, high = _measured(facts, key)
    between = say("{} to {}", low, high) if low and high else ""
    few = facts.text("metrics", key, "few")
    n, unit = facts.number("metrics", key, "n"), facts.text("metrics", key, "unit")
    rest = say("{} {}", n, unit) if n is not None else ""
    if few:
        rest = say('{} <span class="few" title="{}">too few to say</span>', rest, few)
    more = join([say("<td>{}</td>", "" if one is None else one) for one in beside], "")
    picture = "" if key.startswith("errors/") else interval(value, low, high)
    return say(
        "<tr><th scope='row' class='name'>{}</th><td>{}</td><td>{}</td><td>{}</td><td>{}</td>{}</tr>",
        label, "not known" if value is None else value, between, picture, rest, more,
    )  # fmt: skip


def _measured(facts: Facts, key: str) -> tuple[Number | None, Number | None, Number | None]:
    """Return a number and the ends of its interval."""
    form = "count" if key.startswith("errors/") else "score"
    value, low, high = (facts.number("metrics", key, part, form=form) for part in ("value", "low", "high"))
    return value, low, high


def table(head: Sequence[str], rows: Sequence[Markup], label: str) -> Markup:
    """Return a table that can be scrolled sideways where it is too wide."""
    if not rows:
        return Markup("")
    top = join([say('<th scope="col">{}</th>', one) for one in head], "")
    thead = say("<thead><tr>{}</tr></thead>", top) if head else ""
    region = '<div class="wide" tabindex="0" role="region" aria-label="{}">{}</div>'
    return say(region, label, say('<table class="numbers">{}<tbody>{}</tbody></table>', thead, join(rows, "")))


def _capped(head: Sequence[str], rows: Sequence[Markup], label: str) -> Markup:
    """Return a table of the first rows, and how many are left out."""
    left = len(rows) - _ROWS
    more = say("<p class='soft'>and {} more, which evaluation.json holds</p>", str(left)) if left > 0 else ""
    return say("{}{}", table(head, rows[:_ROWS], label), more)


def _is_overall(key: str) -> bool:
    return "/" not in key or key.startswith("errors/")


def _prefixes(metrics: Mapping[str, Any]) -> list[str]:
    return list(dict.fromkeys(key.partition("/")[0] for key in metrics if "/" in key))


def _things(truth: Mapping[str, Any]) -> Iterator[tuple[str, str, int]]:
    """Yield class, size and number of what counts in a picture; pictures and pixels have no size."""
    if "objects" in truth:
        yield from ((o["label"], size_of(o["area"]), 1) for o in truth["objects"] if not o["crowd"])
    elif "pixels" in truth:
        yield from ((label, "", count) for label, count in truth["pixels"].items())
    else:
        yield from ((label, "", 1) for label in truth.get("labels", [truth.get("label")]))


def _leaves(
    value: Any, path: tuple[str | int, ...], without: Sequence[str]
) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """Yield place and value of all that is no mapping and no list, in order, as deep as a table may go."""
    if len(path) > _DEEP:
        return
    if isinstance(value, Mapping):
        for key, one in value.items():
            if str(key) not in without:
                yield from _leaves(one, (*path, str(key)), ())
    elif isinstance(value, list):
        for k, one in enumerate(value):
            yield from _leaves(one, (*path, k), ())
    else:
        yield path, value


def _form(value: float) -> str:
    return "count" if isinstance(value, int) or (float(value).is_integer() and abs(value) >= 1) else "score"


def _word(value: object) -> object:
    if value is None:
        return "none"
    return ("yes" if value else "no") if isinstance(value, bool) else name(value)
