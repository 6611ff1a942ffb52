"""Drawing onto images: labels, boxes with labels, masks of objects, and classes of pixels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor

from visionkit.core.errors import UsageError
from visionkit.data.labels.masks import ObjectMasks
from visionkit.prediction.fonts import Font, font_for

__all__ = ["PALETTE", "draw_boxes", "draw_classes", "draw_masks", "draw_text", "is_background", "palette"]

Colour = tuple[int, int, int]

Place = tuple[int, int, int, int]
"""First and last column and row: left, top, right, bottom."""

_BOX = (20, 20, 20, 215)  # almost opaque: the text reads on any picture, the picture still shows
_TEXT = (255, 255, 255, 255)
_EDGE = (0, 0, 0)

PALETTE = (
    (230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167),
    (51, 34, 136), (136, 204, 238), (221, 204, 119), (136, 34, 85), (153, 153, 51), (17, 119, 51), (255, 255, 255),
)  # fmt: skip
"""RGB colours of classes, told apart by colour-blind people too: those of Okabe and Ito (2008), then some of Tol's
"muted" scheme (2021). Classes of boxes beyond them start over; classes of pixels go on, see :func:`palette`."""

MAX_COLOURS = 256
_NO_CLASS = 255
_FILL = 0.45  # opacity of masks of objects
_PLACING = 400  # pixels of the shorter side of the picture in which places for tags are looked for


def draw_text(image: Tensor, text: str) -> Tensor:
    """Write a label on a dark box into the upper left corner of a copy of the image.

    The letters are a fifteenth of the shorter side; a long text is wrapped, then made smaller, then cut.

    Args:
        image: uint8 [3, H, W].
        text: What to write, in any script that a font of this system has; else that is said once.

    Returns:
        uint8 [3, H, W]. Pictures smaller than 12 pixels are returned unchanged.
    """
    height, width = image.shape[1:]
    picture = Image.fromarray(np.ascontiguousarray(image.permute(1, 2, 0).cpu().numpy())).convert("RGBA")
    if min(height, width) >= 12 and text.strip():
        text = text[:300]  # more never fits
        layer = Image.new("RGBA", picture.size)
        canvas = ImageDraw.Draw(layer)
        lines, font, margin = _fit(canvas, text, width, height)
        left, top, right, bottom = canvas.multiline_textbbox((0, 0), lines, font=font, spacing=margin)
        box = (0, 0, right - left + 2 * margin, bottom - top + 2 * margin)
        canvas.rectangle(box, fill=_BOX)
        canvas.multiline_text((margin - left, margin - top), lines, font=font, fill=_TEXT, spacing=margin)
        picture = Image.alpha_composite(picture, layer)
    return torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1)


def draw_boxes(image: Tensor, boxes: Tensor, labels: Tensor, texts: Sequence[str]) -> Tensor:
    """Draw boxes in the colours of their classes, with texts on tags, onto a copy of the image.

    The first boxes are the strongest: they are drawn on top and have the first choice of places for their tags. A tag
    stands above its box, else in its upper corner, else below it, always within the picture; where stronger tags take
    all three places it is left out. A text longer than half the picture's width is cut. Pictures with a side below 100
    pixels get boxes only: tags would hide what there is to see.

    Args:
        image: uint8 [3, H, W].
        boxes: Float [N, 4], xyxy in pixels.
        labels: int64 [N], class ids; they choose the colours.
        texts: The N texts; an empty one makes no tag.

    Returns:
        uint8 [3, H, W].
    """
    height, width = image.shape[1:]
    picture = Image.fromarray(np.ascontiguousarray(image.permute(1, 2, 0).cpu().numpy()))
    canvas = ImageDraw.Draw(picture)
    shorter = min(height, width)
    line = max(1, round(shorter / 200))  # pixels
    places = [_whole(box, width, height) for box in boxes.tolist()]
    colours = [PALETTE[k % len(PALETTE)] for k in labels.tolist()]
    for (left, top, right, bottom), colour in reversed(list(zip(places, colours, strict=True))):
        if line > 1:  # a dark edge: the colour shows on a ground of its own colour
            canvas.rectangle((left - 1, top - 1, right + 1, bottom + 1), outline=_EDGE, width=line + 2)
        canvas.rectangle((left, top, right, bottom), outline=colour, width=line)
    taken: list[Place] = []
    size = max(10, round(shorter / 36))
    for place, colour, text in zip(places, colours, texts, strict=True):
        if shorter >= 100 and text.strip():
            tag = _Tag(canvas, text, size)
            tag.draw(colour, place[0], (place[1] - tag.high, place[1], place[3] + 1), taken)
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)


def draw_masks(image: Tensor, masks: ObjectMasks, labels: Tensor) -> Tensor:
    """Fill objects translucently in the colours of their classes, with outlines, onto a copy of the image.

    The first objects are the strongest: they are drawn on top.

    Args:
        image: uint8 [3, H, W].
        masks: The N masks, of a picture of this size.
        labels: int64 [N], class ids; they choose the colours.

    Returns:
        uint8 [3, H, W].
    """
    pixels = np.array(image.permute(1, 2, 0).cpu().numpy(), order="C")
    line = max(1, round(min(pixels.shape[:2]) / 400))  # pixels
    for k in reversed(range(len(masks))):  # one dense mask at a time
        (mask,) = masks.select([k]).dense()
        x, y, width, height = cv2.boundingRect(mask)
        window = pixels[y : y + height, x : x + width]
        inside = mask[y : y + height, x : x + width].astype(bool)
        colour = np.asarray(PALETTE[int(labels[k]) % len(PALETTE)], np.uint8)
        window[inside] = (window[inside] * (1 - _FILL) + colour * _FILL).astype(np.uint8)
        contours, _ = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        if line > 1:  # a dark edge: the colour shows on a ground of its own colour
            cv2.drawContours(pixels, contours, -1, _EDGE, line + 2)
        cv2.drawContours(pixels, contours, -1, colour.tolist(), line)
    return torch.from_numpy(pixels).permute(2, 0, 1)


def palette(count: int) -> list[Colour]:
    """Return the colours of the first classes: those of ``PALETTE``, then others, as far from all before as can be.

    They are always the same: a class has one colour in all pictures.

    Args:
        count: How many, 0..256.

    Returns:
        RGB, 0..255 each, no two alike.

    Raises:
        UsageError: There are not so many.
    """
    if not 0 <= count <= MAX_COLOURS:
        raise UsageError(f"a palette of {count} colours: from 0 to {MAX_COLOURS}")
    return list(_colours()[:count])


def draw_classes(image: Tensor, labels: Tensor, names: Sequence[str]) -> Tensor:
    """Lay the classes of pixels over a copy of the image: translucent colours, dark lines between classes, and names.

    A class that is called background stays as the image is, without a name.

    The name of a class stands in the middle of its largest region; above or below it where that is smaller than three
    tags; nowhere where it is smaller than a 300th of the picture. Where two would cover each other, that of the larger
    region is written. Pictures with a side below 100 pixels get no names.

    Args:
        image: uint8 [3, H, W].
        labels: uint8 [H, W], class ids 0..K-1; where it is 255, the image stays as it is.
        names: The K class names.

    Returns:
        uint8 [3, H, W].

    Raises:
        UsageError: The labels are of another size than the image, or have more classes than there are names.
    """
    ids, height, width = labels.cpu().numpy(), *image.shape[1:]
    if ids.shape != (height, width):
        raise UsageError(f"labels of {ids.shape[0]} x {ids.shape[1]} pixels for an image of {height} x {width}")
    shorter = min(height, width)
    pixels = np.ascontiguousarray(image.permute(1, 2, 0).cpu().numpy())
    present = [k for k in np.unique(ids).tolist() if k != _NO_CLASS]
    if present and present[-1] >= len(names):
        raise UsageError(f"labels with class id {present[-1]} for {len(names)} class names")
    colours = palette(len(names))
    plain = [k for k in present if is_background(names[k])]
    mixed = _mix(pixels, ids, colours, plain)
    mixed[_lines(ids, max(1, round(shorter / 350)))] //= 3
    picture = Image.fromarray(mixed)
    canvas = ImageDraw.Draw(picture)
    taken: list[Place] = []
    size = max(10, round(shorter / 36))
    regions = [(k, _largest_region(ids, k)) for k in present if shorter >= 100 and names[k].strip() and k not in plain]
    for k, region in sorted(regions, key=lambda item: -item[1].area):
        if region.area * 300 >= height * width:
            tag = _Tag(canvas, names[k], size)
            top = min(max(region.y - tag.high // 2, 0), height - tag.high)
            tops = (top, top - tag.high, top + tag.high)
            if region.area < 3 * tag.wide * tag.high:
                tops = (region.box[1] - tag.high, region.box[3] + 1, top)
            tag.draw(colours[k], region.x - tag.wide // 2, tops, taken)
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)


@dataclass(frozen=True)
class _Region:
    """Pixels of one class that lie together: their number, column and row of the innermost one, and all their place."""

    area: int
    x: int
    y: int
    box: Place


class _Tag:
    """A text on a filled tag; what is longer than half of the picture's width is cut.

    Args:
        canvas: Where it will be drawn.
        text: What it says.
        size: Height of the letters in pixels.
    """

    def __init__(self, canvas: ImageDraw.ImageDraw, text: str, size: int) -> None:
        self.canvas, self.shown, self.margin = canvas, text, max(2, size // 5)
        font = font_for(text, size)
        while canvas.textlength(self.shown, font=font) > canvas.im.size[0] / 2 and len(self.shown) > 2:
            self.shown = f"{self.shown[:-2]}…"
        self.font = font_for(self.shown, size)
        box = canvas.textbbox((0, 0), "Ág", font=self.font)  # equally high for all texts
        self._top, bottom = round(box[1]), round(box[3])
        self.wide = round(canvas.textlength(self.shown, font=self.font)) + 2 * self.margin
        self.high = bottom - self._top + 2 * self.margin

    def draw(self, colour: Colour, left: int, tops: Iterable[int], taken: list[Place]) -> None:
        """Draw it at the first of some rows where it is in the picture and no other is; add its place to ``taken``."""
        width, height = self.canvas.im.size
        x = max(0, min(left, width - self.wide))
        for y in tops:
            place = (x, y, x + self.wide - 1, y + self.high - 1)
            if 0 <= y <= height - self.high and not any(_meet(place, other) for other in taken):
                break
        else:
            return
        taken.append(place)
        self.canvas.rectangle(place, fill=colour, outline=_EDGE)
        light = (299 * colour[0] + 587 * colour[1] + 114 * colour[2]) / 1000 > 110
        where = (x + self.margin, y + self.margin - self._top)
        self.canvas.text(where, self.shown, font=self.font, fill=_EDGE if light else _TEXT)


@cache
def _colours() -> tuple[Colour, ...]:
    """Return ``PALETTE`` and further colours; in whole numbers, so that they are the same on all machines."""
    steps = np.arange(0, 256, 17)
    free = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), -1).reshape(-1, 3)
    free = free[free.max(1) >= 85]  # black is for lines and for pixels without a class
    nearest = np.full(len(free), 2**31)
    chosen = [(0, 0, 0), *PALETTE]
    for i in range(MAX_COLOURS + 1):
        if i == len(chosen):
            r, g, b = free[nearest.argmax()].tolist()
            chosen.append((r, g, b))
        apart = free - np.array(chosen[i])
        red = (free[:, 0] + chosen[i][0]) // 2  # weights of https://www.compuphase.com/cmetric.htm
        weights = np.stack([512 + red, np.full_like(red, 1024), 767 - red], 1)
        nearest = np.minimum(nearest, (weights * apart**2).sum(1))
    return tuple(chosen[1:])


def is_background(name: str) -> bool:
    """Return whether a class is what no other class is; of a joined model its name stands behind that of the head."""
    return name.rpartition("/")[2].strip().lower() == "background"


def _mix(
    pixels: NDArray[np.uint8], ids: NDArray[np.uint8], colours: Sequence[Colour], plain: Sequence[int]
) -> NDArray[np.uint8]:
    """Return the pixels, uint8 [H, W, 3], half and half with the colours of their classes, but of those left plain."""
    table = np.zeros((256, 3), np.uint8)
    table[: len(colours)] = colours
    mixed = (pixels >> 1) + (table >> 1)[ids]
    return np.where(np.isin(ids, [_NO_CLASS, *plain])[..., None], pixels, mixed)


def _lines(ids: NDArray[np.uint8], width: int) -> NDArray[np.bool_]:
    """Return where lines between classes are, bool [H, W]."""
    found = np.zeros(ids.shape, np.uint8)
    found[:, 1:] |= ids[:, 1:] != ids[:, :-1]
    found[1:] |= ids[1:] != ids[:-1]
    return np.asarray(cv2.dilate(found, np.ones((width, width), np.uint8)), np.bool_)


def _largest_region(ids: NDArray[np.uint8], k: int) -> _Region:
    """Return the largest region of a class; of large pictures, as every so many pixels show it."""
    step = max(1, min(ids.shape) // _PLACING)
    whole = (ids[step // 2 :: step, step // 2 :: step] == k).astype(np.uint8)
    count, parts, stats, _ = cv2.connectedComponentsWithStats(whole, connectivity=4)
    if count == 1:  # between those pixels
        return _Region(0, 0, 0, (0, 0, 0, 0))
    largest = 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())
    left, top, wide, high, area = stats[largest].tolist()
    window = (parts[top : top + high, left : left + wide] == largest).astype(np.uint8)
    depth = cv2.distanceTransform(cv2.copyMakeBorder(window, 1, 1, 1, 1, cv2.BORDER_CONSTANT), cv2.DIST_L2, 3)
    row, column = divmod(int(depth.argmax()), wide + 2)
    x, y = (left + column - 1) * step + step // 2, (top + row - 1) * step + step // 2
    box = (left * step, top * step, (left + wide) * step - 1, (top + high) * step - 1)
    return _Region(area * step**2, x, y, box)


def _meet(a: Place, b: Place) -> bool:
    return a[0] <= b[2] and b[0] <= a[2] and a[1] <= b[3] and b[1] <= a[3]


def _whole(box: Sequence[float], width: int, height: int) -> Place:
    """Return the first and last column and row of a box, within the picture."""
    left, top = min(max(round(box[0]), 0), width - 1), min(max(round(box[1]), 0), height - 1)
    right, bottom = min(round(box[2]) - 1, width - 1), min(round(box[3]) - 1, height - 1)
    return left, top, max(left, right), max(top, bottom)


def _fit(canvas: ImageDraw.ImageDraw, text: str, width: int, height: int) -> tuple[str, Font, int]:
    """Return the text in lines, its font and its margin in pixels, so that it fills half of the picture at most."""
    largest = max(11, round(min(height, width) / 15))
    smallest = max(8, largest // 2)
    size = largest
    while True:
        font, margin = font_for(text, size), max(1, size // 5)
        lines = _wrap(canvas, text, font, width - 2 * margin)
        _, top, _, bottom = canvas.multiline_textbbox((0, 0), "\n".join(lines), font=font, spacing=margin)
        if bottom - top + 2 * margin <= height / 2 or (size == smallest and len(lines) == 1):
            return "\n".join(lines), font, margin
        if size > smallest:
            size -= 1
        else:
            room = max(1, int(len(lines) * (height / 2) / (bottom - top + 2 * margin)))
            shown = " ".join(lines[: min(room, len(lines) - 1)])
            text = shown[:-1].rstrip("…") + "…"


def _wrap(canvas: ImageDraw.ImageDraw, text: str, font: Font, room: int) -> list[str]:
    """Return the text in lines no wider than ``room`` pixels; longer words are broken."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if canvas.textlength(longer, font=font) <= room:
            lines[-1] = longer
            continue
        if lines[-1]:
            lines.append("")
        for letter in word:
            if lines[-1] and canvas.textlength(lines[-1] + letter, font=font) > room:
                lines.append("")
            lines[-1] += letter
    return lines
