"""The parts of the page, in their order; a part without content is left out."""

from __future__ import annotations

from typing import NamedTuple

from markupsafe import Markup

from visionkit.evaluation.report.charts import swatch
from visionkit.evaluation.report.class_shots import suspects
from visionkit.evaluation.report.confusion import confusion_part, is_listed
from visionkit.evaluation.report.curves import precision_charts, reliability_charts, training_charts
from visionkit.evaluation.report.drawing import FOUND, TRUTH
from visionkit.evaluation.report.gains import ensemble_part, thresholds_part, views_part
from visionkit.evaluation.report.gallery import KINDS, Gallery
from visionkit.evaluation.report.marks import Facts, Number, join, name, say
from visionkit.evaluation.report.shots import SURE
from visionkit.evaluation.report.source import Run, Source
from visionkit.evaluation.report.tables import (
    class_table,
    data_table,
    fold,
    number_cards,
    number_table,
    plain_table,
    table,
)
from visionkit.evaluation.report.words import next_steps
from visionkit.prediction.draw import palette

__all__ = ["Section", "evaluation_sections", "run_sections"]

_LONGEST = 100_000  # letters of a config in the page
_LEGEND = 40  # classes of pixels whose colours are named


class Section(NamedTuple):
    """A part of the page."""

    id: str
    title: str
    content: Markup


def evaluation_sections(
    source: Source, gallery: Gallery, pictures: Markup, evidence: Markup, passport: str
) -> list[Section]:
    """Return the parts of the page of an evaluation.

    Args:
        source: The evaluation.
        gallery: Its pictures.
        pictures: The same as HTML.
        evidence: Maps of what the model goes by.
        passport: Of the weights that the training started from; "" where it is not known.
    """
    facts, evaluation = source.facts, source.evaluation
    assert evaluation is not None
    steps = join([say("<li>{}</li>", step) for step in next_steps(facts)], "")
    parts = [
        Section(
            "numbers",
            "Numbers",
            join((number_cards(facts), fold("all numbers", number_table(facts)), class_table(facts)), ""),
        ),
        Section("next", "What to do next", say('<ol class="next">{}</ol>', steps) if steps else Markup("")),
        Section("training", "Training", _training(source)),
        Section("confusion", "What is taken for what", _confusion(facts, gallery)),
        Section("errors", "Kinds of errors", _errors(facts, gallery)),
        Section("curves", "Precision and reliability", _reliability(facts)),
        Section("pictures", "Pictures", _pictures(source, gallery, pictures)),
        Section("evidence", "What the model goes by", evidence),
        Section("labels", "Suspected labels", _suspects(source, gallery)),
        Section("thresholds", "Thresholds", thresholds_part(facts)),
        Section("gains", "Views and ensemble", join((views_part(facts), ensemble_part(facts)), "")),
        Section("data", "Data", data_table(evaluation, facts)),
        Section("made", "How it was made", _made(facts, source.run, passport)),
    ]
    return [part for part in parts if part.content]


def run_sections(run: Run, plots: Markup, passport: str) -> list[Section]:
    """Return the parts of the page of a training that was not evaluated."""
    rows = [
        say(
            "<tr><th scope='row' class='name'>{}</th><td>{}</td></tr>",
            name(key),
            Number(value, f"metrics.json#{key}", _form(value)),
        )
        for key, value in run.best.items()
    ]
    parts = [
        Section("training", "Training", _charts(training_charts(run))),
        Section("best", "The best epoch", table((), rows, "best values")),
        Section("plots", "Plots of the training", plots),
        Section("made", "How it was made", _made(Facts({}), run, passport)),
    ]
    return [part for part in parts if part.content]


def _training(source: Source) -> Markup:
    """Return the curves of the training; of several models those of the first, which is named."""
    if source.run is None:
        return Markup("")
    several = len(source.facts.rows("model", "checkpoints")) > 1
    first = say("<p class='soft'>of the first model, {}</p>", name(source.run.folder.name)) if several else Markup("")
    charts = _charts(training_charts(source.run))
    return say("{}{}", first, charts) if charts else charts


def _charts(charts: Markup) -> Markup:
    return say('<div class="charts">{}</div>', charts) if charts else Markup("")


def _confusion(facts: Facts, gallery: Gallery) -> Markup:
    shown = {cell for shot in gallery.shots for cell in shot.cells}
    content = confusion_part(facts, shown)
    if not content:
        return content
    if is_listed(facts):
        note = "The most frequent pairs; what is a button shows its pictures below."
    else:
        note = "Rows are what is true, columns what was predicted."
        note += " Underlined numbers are buttons: they show their pictures below." if shown else ""
    return say('<p class="soft">{}</p>{}', note, content)


def _errors(facts: Facts, gallery: Gallery) -> Markup:
    """Return kinds of errors with what mending each would gain, or with their numbers alone."""
    shown = {kind for shot in gallery.shots for kind in shot.kinds}
    labels = bool(facts.get("multilabel"))  # whose errors go by the names of the classes
    rows = []
    for i in range(len(facts.rows("errors", "kinds"))):
        kind = facts.text("errors", "kinds", i, "kind")
        words = name(kind if labels else KINDS.get(kind, kind))
        count = facts.number("errors", "kinds", i, "count")
        gain = facts.number("errors", "kinds", i, "gain", form="gain")
        rows.append(_kind_row(kind, words, count, gain, set() if labels else shown))
    if not rows:
        counts = [key for key in facts.mapping("metrics") if key.startswith("errors/")]
        for key in counts:
            kind = key.partition("/")[2]
            rows.append(
                _kind_row(kind, name(KINDS.get(kind, kind)), facts.number("metrics", key, "value"), None, shown)
            )
    if not rows:
        return Markup("")
    told = facts.quote("errors", "sentence")
    rest = table(("kind", "number", "gain if mended", ""), rows, "kinds of errors")
    return say("<p>{}</p>{}", told, rest) if told else rest


def _kind_row(kind: str, words: Markup, count: Number | None, gain: Number | None, shown: set[str]) -> Markup:
    button = _show_button(kind, "show") if kind in shown else Markup("")
    return say(
        "<tr><th scope='row' class='name'>{}</th><td>{}</td><td>{}</td><td>{}</td></tr>",
        words, "" if count is None else count, "" if gain is None else gain, button,
    )  # fmt: skip


def _show_button(kind: str, words: str) -> Markup:
    """Return a button that shows the pictures of a kind of error."""
    pressed = '<button type="button" data-kind="{}" aria-pressed="false" aria-label="{}">{}</button>'
    return say(pressed, kind, KINDS.get(kind, kind), words)


def _reliability(facts: Facts) -> Markup:
    charts = _charts(join((precision_charts(facts), reliability_charts(facts)), ""))
    words = facts.quote("calibration", "words")
    rest = plain_table(facts, "calibration", without=("bins", "words", "classes"))
    classes = [
        say("<li>{}: {}</li>", name(one), facts.quote("calibration", "classes", one, "words"))
        for one in facts.mapping("calibration", "classes")
    ]
    parts = [
        charts,
        say("<p>Certainty: {}.</p>", words) if words else "",
        fold("sure and right, by class", say("<ul>{}</ul>", join(classes, ""))) if classes else "",
        fold("calibration", rest) if rest else "",
    ]
    return join(parts, "")


def _pictures(source: Source, gallery: Gallery, pictures: Markup) -> Markup:
    assert source.evaluation is not None
    left_out = join([say("<p class='soft'>{}.</p>", line) for line in gallery.left_out], "")
    if not gallery.shots:
        return left_out or Markup("<p>There is nothing to show.</p>")
    task = source.evaluation.task
    legend: object = ""
    if task in ("detection", "instance"):
        legend = say(
            "<p class='soft'>Errors, each cut out of its picture. {} whole lines: truth (thin: other objects); "
            "{} dashed: prediction.</p>", swatch(TRUTH), swatch(FOUND),
        )  # fmt: skip
    elif task == "segmentation":
        classes = list(zip(source.evaluation.classes, palette(len(source.evaluation.classes)), strict=True))
        items = [say("<li>{} {}</li>", swatch(colour), name(one)) for one, colour in classes[:_LEGEND]]
        both = any(len(drawn) > 1 for drawn in gallery.pictures)
        sides = Markup('<p class="soft">Truth on the left, prediction on the right.</p>') if both else Markup("")
        legend = say('{}<ul class="legend">{}</ul>', sides, join(items, ""))
    return say(
        '{}<div id="filters" class="filters" role="group" aria-label="filters" hidden>{}'
        '<button type="button" id="all" hidden>show all</button></div><p class="soft" id="said" role="status"></p>'
        '<div id="gallery" class="gallery{}">{}</div>{}',
        legend, gallery.filters(source.evaluation.classes), " two" if task == "segmentation" else "",
        pictures, left_out,
    )  # fmt: skip


def _suspects(source: Source, gallery: Gallery) -> Markup:
    """Return pictures whose labels the model contradicts and is very sure of it."""
    assert source.evaluation is not None
    show: object = ""
    if any("sure" in shot.kinds for shot in gallery.shots):
        show = _show_button("sure", "show them")
    task = source.evaluation.task
    if task in ("detection", "instance") and show:
        return say(
            "<p>Boxes that the model is very sure of and that no label confirms: objects that are not labelled, or "
            "labelled as something else, may be among them. {}</p>", show,
        )  # fmt: skip
    if task != "classification" or source.evaluation.multilabel:
        return Markup("")
    found = suspects(source)
    if not found:
        return Markup("")
    row = "<tr><td class='name'>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>"
    rows = [say(row, name(_below(source, s.image)), name(s.truth), name(s.said), s.score) for s in found]
    words = say(
        "<p>Labels that the model contradicts and is at least {} sure: look at these first, some may be wrong. {}</p>",
        f"{SURE:.0%}".replace("%", "\N{NO-BREAK SPACE}%"), show,
    )  # fmt: skip
    content = table(("picture", "labelled", "predicted", "sure"), rows, "suspected labels")
    return say("{}{}", words, fold("the list", content, shut=len(found) > 5))


def _below(source: Source, position: int) -> str:
    """Return the path of a picture, below the root of the data where it lies there."""
    assert source.evaluation is not None
    return source.evaluation.images[position].id.removeprefix(f"{source.facts.text('data', 'root')}/")


def _made(facts: Facts, run: Run | None, passport: str) -> Markup:
    """Return model, machine, config and passport, folded away."""
    parts = []
    model = plain_table(facts, "model")
    if model:
        parts.append(fold("model and environment", model))
    if run is not None and run.config:
        cut = "\n... cut off here" if len(run.config) > _LONGEST else ""
        parts.append(fold("config.yaml", _lines(run.config[:_LONGEST] + cut)))
    if passport:
        parts.append(fold("passport of the weights that the training started from", _lines(passport)))
    if run is not None:
        parts.append(say("<p class='soft'>The training: {}</p>", name(run.folder)))
    return join(parts, "")


def _lines(text: str) -> Markup:
    return say("<pre>{}</pre>", join([say("{}", line) for line in text.splitlines()], "\n"))


def _form(value: float) -> str:
    return "count" if float(value).is_integer() and value != 0 else "score"
