"""The pictures of the page: read, drawn, made small enough, and shown with filters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from markupsafe import Markup
from numpy.typing import NDArray

from visionkit.core.errors import VisionkitError
from visionkit.data.images.decode import Array, Decoded
from visionkit.data.images.reading import load_image
from visionkit.evaluation.report import box_shots, pixel_shots
from visionkit.evaluation.report.class_shots import class_shots
from visionkit.evaluation.report.drawing import draw_cut, draw_pixels, scale_of
from visionkit.evaluation.report.files import PictureFiles
from visionkit.evaluation.report.marks import name, say, short
from visionkit.evaluation.report.shots import Shot, chosen
from visionkit.evaluation.report.source import Source
from visionkit.prediction.thumbnails import address, shrunk, webp

__all__ = ["KINDS", "Gallery", "PixelTruth", "encode", "make_gallery"]

PixelTruth = Callable[[int], NDArray[Any] | None]
"""Position of a picture -> its true class ids, [H, W], 255 for pixels that say nothing; None where they are unknown."""
KINDS: Mapping[str, str] = {
    "wrong": "wrong",
    "sure": "wrong and very sure",
    "right": "right",
    "missing": "a label is missing",
    "false": "a label is false",
    **box_shots.KINDS,
    **pixel_shots.KINDS,
}
"""Kinds of errors in words."""
SIZES = ("small", "medium", "large")
_QUALITIES = (70, 60, 50, 40, 30, 20, 12, 6)
_SIDES = (192, 144, 108, 80)  # pixels; smaller ones where the worst quality is still too large
_LONGEST = 300  # letters of a file's path in the page
IMAGE = '<img src="{}" width="{}" height="{}" alt="{}">'


@dataclass(frozen=True)
class Gallery:
    """What is shown.

    Args:
        shots: Entries, the worst first.
        pictures: The pictures of each, uint8 [h, w, 3], with a word for what each shows, "" where there is but one.
        left_out: In words, what could not be shown, pictures or halves of them, a line each.
    """

    shots: tuple[Shot, ...]
    pictures: tuple[tuple[tuple[str, Array], ...], ...]
    left_out: tuple[str, ...]

    def figures(self, source: Source, addresses: Sequence[str]) -> Markup:
        """Return all entries as HTML.

        Args:
            source: The evaluation.
            addresses: Of all pictures, in order.
        """
        assert source.evaluation is not None
        left = iter(addresses)
        parts = []
        names = sorted({source.evaluation.images[s.image].id for s in self.shots})
        place = {one: k for k, one in enumerate(names)}
        for shot, pictures in zip(self.shots, self.pictures, strict=True):
            id = source.evaluation.images[shot.image].id
            file = id.replace("\\", "/").rpartition("/")[2] or id
            images = [
                say(IMAGE, next(left), str(p.shape[1]), str(p.shape[0]), f"{what}: {shot.alt}" if what else shot.alt)
                for what, p in pictures
            ]
            parts.append(
                say(
                    '<figure data-cells="{}" data-classes="{}" data-kinds="{}" data-sizes="{}" data-worst="{}" '
                    'data-sure="{}" data-file="{}"><div class="shots">{}</div><figcaption>{}<span class="file" '
                    'title="{}">{}</span></figcaption></figure>',
                    " ".join(f"{r},{c}" for r, c in shot.cells), " ".join(map(str, shot.classes)), " ".join(shot.kinds),
                    shot.size, f"{shot.rank:.4f}", f"{-shot.score:.4f}", str(place[id]), Markup("").join(images),
                    shot.caption, id[:_LONGEST], name(file[:_LONGEST]),
                )
            )  # fmt: skip
        return Markup("\n").join(parts)

    def filters(self, classes: Sequence[str]) -> Markup:
        """Return selects for what tells the entries apart: classes, sizes, kinds of errors; and their order."""
        ids = sorted({k for s in self.shots for k in s.classes})
        kinds = [k for k in KINDS if any(k in s.kinds for s in self.shots)]
        sizes = [k for k in SIZES if any(k == s.size for s in self.shots)]
        told = [
            _select("classes", "class", [(str(k), short(classes[k])) for k in ids]),
            _select("kinds", "kind of error", [(k, KINDS[k]) for k in kinds]),
            _select("sizes", "size", [(k, k) for k in sizes]),
        ]
        orders = (("worst", "worst first"), ("sure", "surest first"), ("file", "by file"))
        options = Markup("").join(say('<option value="{}">{}</option>', value, words) for value, words in orders)
        order = say('<label>order<select id="order">{}</select></label>', options)
        return Markup("").join([*told, order])


def _select(by: str, what: str, values: Sequence[tuple[str, str]]) -> Markup:
    if len(values) < 2:
        return Markup("")
    options = Markup("").join(say('<option value="{}">{}</option>', value, words) for value, words in values)
    return say('<label>{}<select data-by="{}"><option value="">all</option>{}</select></label>', what, by, options)


def make_gallery(
    source: Source,
    most: int,
    files: PictureFiles,
    *,
    truth: PixelTruth | None = None,
    found: PixelTruth | None = None,
) -> Gallery:
    """Choose, read and draw the pictures of the page.

    Args:
        source: An evaluation.
        most: Most pictures.
        files: Where they lie.
        truth: For pixels: the true classes.
        found: For pixels: the predicted ones.
    """
    evaluation = source.evaluation
    assert evaluation is not None
    makers = {"classification": class_shots, "segmentation": pixel_shots.pixel_shots}
    shots = chosen(makers.get(evaluation.task, box_shots.box_shots)(source, most), most)
    read: dict[int, bytes | None] = {}  # that are still to be shown once more
    left = Counter(shot.image for shot in shots)
    shown, pictures, damaged, without = [], [], set(), 0
    lacking: Counter[str] = Counter()
    for shot in shots:
        image = evaluation.images[shot.image]
        data = read.pop(shot.image) if shot.image in read else files.read(image)
        left[shot.image] -= 1
        if left[shot.image]:
            read[shot.image] = data
        if data is None:
            continue
        try:
            picture = load_image(image.id, scale=partial(scale_of, shot), data=data)
        except VisionkitError:
            damaged.add(image.id)
            continue
        drawn = _drawn(shot, picture, evaluation.classes, truth, found)
        without += not drawn
        if shot.pixels and drawn:
            lacking.update({"truth", "prediction"} - {what for what, _ in drawn})
        if drawn:
            shown.append(shot)
            pictures.append(drawn)
    counts = (
        (len(files.gone), "is not there any more", "are not there any more"),
        (
            len(files.changed),
            "holds other bytes than when it was measured",
            "hold other bytes than when they were measured",
        ),
        (len(damaged), "cannot be read", "cannot be read"),
        (without, "has no masks that could be read", "have no masks that could be read"),
    )
    left_out = tuple(
        f"{n} picture{'s' if n > 1 else ''} left out: {one if n == 1 else many}" for n, one, many in counts if n
    )
    halves = tuple(
        f"{n} picture{'s' if n > 1 else ''} shown without the {what}: "
        f"{'has' if n == 1 else 'have'} no masks of it that could be read"
        for what, n in sorted(lacking.items())
        if what != "truth" or truth is not None
    )
    if lacking["truth"] and truth is None:
        halves += ("pictures are shown without the truth: nothing says where the data lie",)
    return Gallery(tuple(shown), tuple(pictures), left_out + halves)


def encode(pictures: Sequence[Array], room: int) -> list[str]:
    """Return pictures as addresses that together have no more letters than there is room: the quality goes down.

    Args:
        pictures: uint8 [h, w, 3] each.
        room: Letters.
    """
    best: list[str] = []
    for side in _SIDES:
        small = [shrunk(p, side) for p in pictures]
        for quality in _QUALITIES if side == _SIDES[0] else _QUALITIES[3:]:
            best = [address(webp(p, quality)) for p in small]
            if sum(map(len, best)) <= room:
                return best
    return best


def _drawn(
    shot: Shot, picture: Decoded, classes: Sequence[str], truth: PixelTruth | None, found: PixelTruth | None
) -> tuple[tuple[str, Array], ...]:
    """Return the pictures of a shot; none where its masks are not there."""
    if not shot.pixels:
        return (("", draw_cut(shot, picture)),)
    masks = {what: of(shot.image) for what, of in (("truth", truth), ("prediction", found)) if of is not None}
    return tuple((what, draw_pixels(picture, ids, classes)) for what, ids in masks.items() if ids is not None)
