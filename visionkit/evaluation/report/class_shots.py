"""Pictures of an evaluation of classes: what they are, and what they were taken for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from visionkit.evaluation.folder import PREDICTIONS
from visionkit.evaluation.report.marks import Number, join, name, pointer, say, short
from visionkit.evaluation.report.shots import SURE, Shot, number_in, size_of, wanted_images
from visionkit.evaluation.report.source import Source

__all__ = ["Suspect", "class_shots", "suspects"]


def class_shots(source: Source, most: int) -> list[Shot]:
    """Return the pictures that the gallery may show, those that are right among them.

    Args:
        source: An evaluation of classes.
        most: How many pictures the page may have.
    """
    ranks = wanted_images(source, most)
    return [
        shot for position, record in source.records(ranks) for shot in _shots(source, position, record, ranks[position])
    ]


class Suspect(NamedTuple):
    """A picture whose label the model contradicts."""

    image: int
    """Its position."""
    truth: str
    said: str
    score: Number
    """Probability of what was predicted."""


def suspects(source: Source, most: int = 20) -> list[Suspect]:
    """Return pictures whose label the model contradicts and is very sure of it, the surest first.

    Args:
        source: An evaluation of classes with one label a picture.
        most: How many.
    """
    assert source.evaluation is not None
    found = []
    for position, record in source.records():
        truth, score = source.evaluation.images[position].truth.get("label"), number_in(record, "score")
        said = record.get("label")
        if isinstance(truth, str) and isinstance(said, str) and said != truth and score is not None and score >= SURE:
            found.append(Suspect(position, truth, said, _sure(record, score)))
    return sorted(found, key=lambda one: -one.score.value)[:most]


def _shots(source: Source, position: int, record: Mapping[str, Any], rank: int) -> Iterator[Shot]:
    assert source.evaluation is not None
    image = source.evaluation.images[position]
    ids = {one: k for k, one in enumerate(source.evaluation.classes)}
    size = size_of(image.size[0] * image.size[1])
    score = number_in(record, "score")
    sure = None if score is None else _sure(record, score)
    if "label" in image.truth:
        truth, said = image.truth["label"], str(record.get("label"))
        right = truth == said
        kinds = ["right"] if right else ["wrong"]
        if not right and score is not None and score >= SURE:
            kinds.append("sure")
        cells = () if right or said not in ids else ((ids[truth], ids[said]),)
        word = "right" if right else "predicted"
        caption = say("labelled <b>{}</b><br>{} <b>{}</b>", name(truth), word, name(said))
        alt = f"labelled {short(truth)}, predicted {short(said)}"
        classes: list[str] = [truth, said]
    else:
        truths, answers = set(image.truth.get("labels", ())), {str(v) for v in record.get("labels") or ()}
        kinds = [kind for kind, which in (("missing", truths - answers), ("false", answers - truths)) if which] or [
            "right"
        ]
        cells = ()
        caption = say("labelled <b>{}</b><br>predicted <b>{}</b>", _several(truths), _several(answers))
        alt = f"labelled {_listed(truths)}, predicted {_listed(answers)}"
        classes, sure = sorted(truths | answers), None
    if sure is not None:
        caption = join((caption, sure), " ")
    numbers = tuple(ids[one] for one in dict.fromkeys(classes) if one in ids)
    yield Shot(position, caption, alt, numbers, tuple(kinds), size, cells, rank, -1.0 if score is None else score)


def _several(names: set[str]) -> object:
    return join([name(one) for one in sorted(names)]) if names else "nothing"


def _sure(record: Mapping[str, Any], score: float) -> Number:
    return Number(score, pointer(record["line"], "score", file=PREDICTIONS), "share")


def _listed(names: set[str]) -> str:
    return ", ".join(map(short, sorted(names))) or "nothing"
