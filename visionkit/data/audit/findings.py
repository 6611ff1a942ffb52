"""Findings of a check as data, and the table of all that can be found."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, TypeAlias

__all__ = ["KINDS", "SEVERITIES", "Example", "Finding", "Kind", "Severity", "located", "merge"]

Severity: TypeAlias = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
"""Error: training stops at it, or the validation number is wrong. Warning: training goes on, and learns or measures
something else than you think. Note: worth knowing."""


class Kind(NamedTuple):
    """A line of the table of findings.

    Args:
        id: A word in kebab-case; what stands before its first hyphen is its family.
        severity: How bad it is, as a rule.
        title: What it is, in a few words.
        why: Why it matters, in a sentence.
        cure: What to do.
        mends: What a repaired copy does about it; "" for nothing: it takes a person to decide.
    """

    id: str
    severity: Severity
    title: str
    why: str
    cure: str
    mends: str = ""


_TABLE = (
    Kind("picture-unreadable", "error", "pictures that cannot be read",
         "Training stops at them.", "copy or download them again, or remove them", "leaves them out"),
    Kind("picture-truncated", "error", "pictures that are cut off",
         "Training stops at them; other programs fill the missing part with gray and learn from it.",
         "copy or download them again, or remove them", "leaves them out"),
    Kind("picture-kind", "warning", "pictures of kinds that are not read",
         "They are left out, so there is less to learn from than lies there.", "convert them to JPEG or PNG"),
    Kind("picture-turned", "note", "pictures that are stored turned (EXIF orientation)",
         "They are read upright here; tools that ignore EXIF draw boxes and masks on them sideways.",
         "check that their labels were drawn on the upright picture, or save them upright"),
    Kind("picture-mode", "note", "pictures of an unusual kind (16 bits, CMYK, transparent, several frames)",
         "They become 8-bit RGB by fixed rules, which may lose what matters: transparent parts turn white, 16 bits are "
         "not stretched, of several frames the first counts.",
         "look at a few of them as they are read, and convert them yourself where that is not what you want"),
    Kind("picture-flat", "warning", "pictures of a single colour",
         "There is nothing to see in them: often a failed download or a lens cap.", "look at them, and remove them"),
    Kind("picture-small", "warning", "pictures with a side under 32 pixels",
         "They are enlarged until little is left to see.", "look at them; use larger originals where there are any"),
    Kind("picture-shape", "warning", "pictures more than 20 times as long as wide",
         "Brought to the model's size they are a thin line.", "cut them into parts, or remove them"),
    Kind("label-unreadable", "error", "labels that cannot be read at all",
         "Training stops at them, and nothing more can be said of what they hold.", "correct the file"),
    Kind("label-syntax", "error", "entries of labels that are wrong",
         "Training stops at them.", "correct the line"),
    Kind("label-units", "error", "labels in another unit than the format has",
         "Every box would be in the wrong place.", "convert them"),
    Kind("label-size", "error", "labels that were made for a picture of another size",
         "Every box or mask of these would be in the wrong place; training stops at them.",
         "put back the original picture, or label it anew"),
    Kind("label-missing", "error", "listed images without their labels",
         "Training stops at them.", "add the labels, or remove the line"),
    Kind("label-orphan", "warning", "labels of no image",
         "Somebody labelled pictures that are not here, or under other names: that work is lost.",
         "add the images, correct the names, or remove the labels"),
    Kind("image-missing", "error", "images that the labels name and that are not there",
         "Training stops at them.", "add the images, or remove their labels", "removes their entries"),
    Kind("image-twice", "error", "images that are listed twice",
         "Which of their labels counts is not clear.", "keep one of them"),
    Kind("image-unlabelled", "note", "images without labels",
         "Where objects are to be found they count as empty pictures; if they are just not labelled yet, the model is "
         "taught to see nothing. Without a mask or a class folder they are left out.",
         "make sure that they show nothing, or label them"),
    Kind("split-missing", "error", "splits that are named and not there",
         "Training stops, or goes on without them.", "correct the path"),
    Kind("split-small", "note", "a validation split too small to tell models apart",
         "With so few images one more hit moves the number by points.", "set more images aside"),
    Kind("split-skew", "note", "classes whose share differs between training and validation",
         "The validation number speaks of another mixture than the one that is learnt.",
         "divide the images anew, by class (visionkit does that where there is no val split)"),
    Kind("box-degenerate", "warning", "boxes without an area",
         "They are dropped, so their objects are taught to be background.", "draw the boxes again, or remove them",
         "removes them"),
    Kind("box-outside", "warning", "boxes that reach out of the picture",
         "They are clipped, or dropped where nothing is left; often all boxes of such a picture are shifted.",
         "look at the picture with its boxes", "clips them, or removes what lies outside"),
    Kind("box-missing", "warning", "objects without a box",
         "They are dropped, so their objects are taught to be background.", "add the boxes", "removes them"),
    Kind("box-repeated", "warning", "boxes that are there twice",
         "Two answers are wanted where one is right: one of them counts as missed.", "remove one of each",
         "removes all but one of each"),
    Kind("box-duplicate", "warning", "boxes of one class that nearly cover each other (IoU above 0.9)",
         "Mostly one object that was labelled twice: one of the two counts as missed.",
         "look at them, and remove one where they are one object"),
    Kind("box-contradictory", "warning", "boxes of different classes that nearly cover each other (IoU above 0.9)",
         "Mostly one object with two labels: whatever the model says, one of them is wrong.",
         "decide for one of the classes"),
    Kind("box-shape", "note", "boxes more than 50 times as long as wide",
         "No model finds them well, and a slipped click makes them.", "look at them"),
    Kind("object-small", "note", "objects that are too small at the model's size",
         "What is under 16 pixels there is hard to find, and what is smaller than a step of the feature map (8 pixels "
         "as a rule) cannot be told from its neighbours.",
         "raise data.size, cut the pictures into tiles, or start the neck at a finer level (model.neck.min_level: 2)"),
    Kind("outline-missing", "warning", "objects whose outline is missing or wrong",
         "They are neither learnt nor counted.", "draw the outlines"),
    Kind("mask-unreadable", "error", "masks that cannot be read",
         "Training stops at them.", "export them again as PNG, or remove them with their pictures", "leaves them out"),
    Kind("mask-value", "error", "masks with values that no class has",
         "Training stops at them.", "name the values in the table of classes, or correct the masks"),
    Kind("mask-twice", "error", "images with two masks",
         "Which one counts is not clear.", "keep one of them"),
    Kind("mask-empty", "note", "masks that show no class at all",
         "All their pixels are ignored or background: there is little to learn from them.",
         "make sure that nothing is there"),
    Kind("class-unknown", "error", "labels of classes that nothing names, or that training does not have",
         "Training stops at them.", "correct the labels or the list of classes"),
    Kind("class-alone", "error", "a single class",
         "There is nothing to tell apart: training stops at it.", "add images of another class"),
    Kind("class-empty", "warning", "classes without training images",
         "They cannot be learnt, and lower every average over classes.", "add images, or remove the classes"),
    Kind("class-unseen", "note", "classes without validation images",
         "The validation number says nothing of them.", "set images of each class aside"),
    Kind("class-few", "warning", "classes with fewer than 10 examples in training",
         "They are hardly learnt.", "add images, or join rare classes into one"),
    Kind("class-imbalance", "warning", "some classes are far more frequent than others",
         "The frequent ones rule the loss; accuracy over all looks good while the rare ones are never found.",
         "add images of the rare ones, or set data.balance where the task has it; look at the numbers of each class"),
    Kind("leak-exact", "error", "images that are in two splits",
         "The model has seen the answers: the validation number flatters.", "keep each in one split",
         "removes them from training"),
    Kind("leak-near", "error", "nearly the same image in two splits",
         "The model has seen the answers, shifted or changed a little: the validation number flatters.",
         "look at them, and keep each group in one split"),
    Kind("leak-group", "error", "groups that are in two splits",
         "The model knows the camera, patient or video already: the validation number flatters.",
         "keep each group in one split"),
    Kind("duplicate-exact", "warning", "copies of images within a split",
         "They count double.", "keep one of each", "keeps the first of each"),
    Kind("duplicate-conflict", "error", "copies of one image with different labels",
         "One of the labels is wrong, and whatever the model says counts as a mistake.",
         "look at them, and keep the one that is right"),
    Kind("duplicate-near", "note", "nearly the same image several times within a split",
         "They count several times; an automatic split may part them.", "keep them together when you divide them"),
    Kind("duplicate-frames", "note", "series of pictures such as frames of a video",
         "Neighbouring frames are nearly one picture: divide such sets by series, never by picture.",
         "give each series its own group (a column `group` in a manifest), or its own folder in one split"),
    Kind("label-suspect", "note", "labels that a model would give otherwise",
         "Cross-validation on features of pretrained weights expects another class there; many of the first ones are "
         "mistakes of labelling, and some are pictures that the weights do not understand.",
         "look at them; the likeliest mistakes stand first"),
    Kind("check-failed", "error", "checks that failed themselves",
         "What they look for is not known.", "tell the makers of visionkit, with the message"),
)  # fmt: skip
KINDS: dict[str, Kind] = {kind.id: kind for kind in _TABLE}
"""All that can be found, by id."""


@dataclass(frozen=True)
class Example:
    """One place where something was found.

    Args:
        text: What is there: place, what is wrong and what to do, in a line.
        file: The file, or "" where it is of none.
        line: The line in it, from 1, or None.
        pictures: Image files that show it.
        splits: Splits that it is in; empty where that is not known.
        boxes: What to draw on the first picture, xyxy in pixels.
        mended: Whether a repaired copy is free of it.
    """

    text: str
    file: str = ""
    line: int | None = None
    pictures: tuple[str, ...] = ()
    splits: tuple[str, ...] = ()
    boxes: tuple[tuple[float, float, float, float], ...] = ()
    mended: bool = False


@dataclass(frozen=True)
class Finding:
    """One kind of thing that was found, with all its places.

    Args:
        kind: What it is.
        severity: How bad it is here.
        what: What was found, in a sentence with numbers.
        examples: Every place, in order.
        count: Number of things that it speaks of.
    """

    kind: Kind
    severity: Severity
    what: str
    examples: tuple[Example, ...]
    count: int

    @classmethod
    def of(
        cls, id: str, examples: Iterable[Example], *, what: str = "", count: int = 0, severity: Severity | None = None
    ) -> list[Finding]:
        """Return one finding of a kind, or none where it has no places.

        Args:
            id: The kind.
            examples: The places.
            what: What was found; "" says their number and what the kind is.
            count: Number of things; 0 counts the places.
            severity: How bad it is; None for what the kind says.
        """
        kind, found = KINDS[id], tuple(examples)
        if not found:
            return []
        count = count or len(found)
        return [cls(kind, severity or kind.severity, what or f"{kind.title}: {count}", found, count)]

    @property
    def id(self) -> str:
        """The kind's id."""
        return self.kind.id

    @property
    def mended(self) -> int:
        """Number of places that a repaired copy is free of."""
        return sum(e.mended for e in self.examples)

    def plain(self) -> dict[str, Any]:
        """Return it as plain values, for JSON."""
        return {
            "id": self.id,
            "severity": self.severity,
            "what": self.what,
            "why": self.kind.why,
            "cure": self.kind.cure,
            "fix": self.kind.mends if self.mended else None,
            "count": self.count,
            "places": [
                {
                    "text": e.text,
                    "file": e.file or None,
                    "line": e.line,
                    "pictures": list(e.pictures),
                    "splits": list(e.splits),
                    "fix": e.mended,
                }
                for e in self.examples
            ],
        }


def merge(findings: Iterable[Finding]) -> list[Finding]:
    """Return findings with those of one kind made one, the worst first, then in the order of the table."""
    found: dict[str, Finding] = {}
    for f in findings:
        before = found.get(f.id)
        if before is None:
            found[f.id] = f
            continue
        count = before.count + f.count
        worst = min(before.severity, f.severity, key=SEVERITIES.index)
        found[f.id] = replace(
            before, severity=worst, what=f"{f.kind.title}: {count}", examples=before.examples + f.examples, count=count
        )
    order = list(KINDS)
    return sorted(found.values(), key=lambda f: (SEVERITIES.index(f.severity), order.index(f.id)))


_PLACE = re.compile(r"(.*?)(?::(\d+))?: ", re.DOTALL)


def located(message: str) -> tuple[str, int | None]:
    """Return the file and the line that a message of a reader begins with; "" where it begins with none.

    Args:
        message: Such as ``labels/a.txt:3: 6 columns; ...``.
    """
    for end in (m.start() for m in re.finditer(": ", message)):
        name, colon, line = message[:end].rpartition(":")
        if colon and line.isdigit() and os.path.exists(name):
            return name, int(line)
        if os.path.exists(message[:end]):
            return message[:end], None
    match = _PLACE.match(message)
    return (match[1], int(match[2])) if match and match[2] else ("", None)
