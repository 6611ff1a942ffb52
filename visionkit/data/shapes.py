"""A drawn data set with class names, boxes and masks: the embedded default of every task, no download."""

from __future__ import annotations

import math
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from visionkit.core.errors import UsageError

__all__ = ["SHAPES", "Scene", "draw_scene", "write_shapes"]

Array = np.ndarray[Any, Any]

SHAPES = ("circle", "cross", "ring", "square", "star", "triangle")
"""The classes that can be drawn, sorted."""

_FINE = 4  # objects are drawn this much larger, then averaged
_VISIBLE = 0.6  # share of an object that later objects and the border leave to see, at least
_CONTRAST = 70.0  # distance in RGB between an object and what is behind it, at least
_LIGHTER = 80.0  # an object is so much lighter than what is behind it, 0..255


@dataclass(frozen=True)
class Scene:
    """A drawn picture and all that is true about it.

    Args:
        image: uint8 RGB [H, W, 3].
        labels: Class name of each object, N, from back to front.
        boxes: float32 [N, 4], xyxy in pixels, tight around the visible part of the object: the last column and row
            of the mask end at x2 and y2.
        masks: bool [N, H, W], the visible part: what nearer objects and the border leave; masks do not overlap.
    """

    image: Array
    labels: list[str]
    boxes: Array
    masks: Array


def draw_scene(
    seed: int | Sequence[int],
    *,
    size: int | tuple[int, int] = 96,
    classes: Sequence[str] = SHAPES,
    objects: tuple[int, int] = (1, 4),
    labels: Sequence[str] | None = None,
) -> Scene:
    """Draw objects on a textured background; the same seed gives the same picture, bit by bit.

    Colours, texture, light, size, rotation and noise say nothing about the class: only the outline does.

    Args:
        seed: A number of 0 or more, or several (a data set's seed and an image's position).
        size: Side in pixels, or height and width; 32 or more.
        classes: What to draw, out of ``SHAPES``.
        objects: Smallest and largest number of objects.
        labels: Exactly these objects, from back to front, instead of a random choice; none draws a background alone.

    Raises:
        UsageError: An unknown class, or a seed, size or number out of range.
    """
    height, width = (size, size) if isinstance(size, int) else size
    _check(seed, (height, width), classes if labels is None else labels, objects)
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed)))
    if labels is None:
        count = int(rng.integers(objects[0], objects[1] + 1))
        names = [classes[int(i)] for i in rng.integers(0, len(classes), count)]
    else:
        names = list(labels)
    canvas = _background(rng, height, width)
    alphas = _place(rng, names, height, width)
    for alpha in alphas:
        _paint(rng, canvas, alpha)
    image = _photograph(rng, canvas)
    masks = np.zeros((len(names), height, width), bool)
    boxes = np.zeros((len(names), 4), np.float32)
    for i, visible in enumerate(_visible(alphas)):
        masks[i] = visible
        ys, xs = np.flatnonzero(visible.any(1)), np.flatnonzero(visible.any(0))
        boxes[i] = xs[0], ys[0], xs[-1] + 1, ys[-1] + 1
    return Scene(image, names, boxes, masks)


def write_shapes(
    folder: str | os.PathLike[str], *, count: int, seed: int = 0, size: int = 96, suffix: str = ".png"
) -> None:
    """Write a folder per class of pictures with one object each: ``folder/circle/0000.png``, ...

    The folder appears at once when all is written; a run that is cut off leaves nothing behind under its name.

    Args:
        folder: A new or empty folder.
        count: Number of pictures, 1 or more; picture i shows class i modulo the number of classes.
        seed: A number of 0 or more.
        size: Side in pixels, 32 or more.
        suffix: ``.png`` or ``.jpg``.

    Raises:
        UsageError: The folder exists and is not empty, or a value is out of range.
    """
    target = Path(folder)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UsageError(f"{target}: exists and is not an empty folder; give a new folder, nothing is overwritten")
    if count < 1 or suffix not in (".png", ".jpg"):
        raise UsageError(f"count {count}, suffix {suffix!r}: give 1 picture or more, and .png or .jpg")
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        for i in range(count):
            name = SHAPES[i % len(SHAPES)]
            scene = draw_scene((seed, i), size=size, labels=[name])
            (temporary / name).mkdir(exist_ok=True)
            file = temporary / name / f"{i // len(SHAPES):04d}{suffix}"
            _, data = cv2.imencode(suffix, scene.image[:, :, ::-1])
            file.write_bytes(data.tobytes())
        temporary.chmod(0o755)  # mkdtemp keeps others out
        temporary.replace(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _check(seed: int | Sequence[int], size: tuple[int, int], names: Sequence[str], objects: tuple[int, int]) -> None:
    for name in names:
        if name not in SHAPES:
            raise UsageError(f"{name!r} is no shape; choose from {', '.join(SHAPES)}")
    if min([seed] if isinstance(seed, int) else seed) < 0:
        raise UsageError(f"seed: {seed} is negative; give 0 or more")
    if min(size) < 32:
        raise UsageError(f"size: {size[0]} x {size[1]} is too small to tell shapes apart; give 32 pixels or more")
    if not 0 <= objects[0] <= objects[1] <= 12:
        raise UsageError(f"objects: {objects} is not a range within 0..12; give two numbers such as (1, 4)")


def _background(rng: np.random.Generator, height: int, width: int) -> Array:
    """Return float32 [H, W, 3] of 0..255: two colours blended by gradients, noise, stripes or a checker."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32) / max(height, width)
    angle = rng.uniform(0, 2 * math.pi)
    along = x * np.float32(math.cos(angle)) + y * np.float32(math.sin(angle))
    across = y * np.float32(math.cos(angle)) - x * np.float32(math.sin(angle))
    blend = _noise(rng, height, width, int(rng.integers(2, 6)))
    kind = rng.integers(0, 4)
    period = np.float32(rng.uniform(20, 80))
    if kind == 0:
        blend = blend + along
    elif kind == 1:  # stripes, bent by the noise
        blend = np.sin(along * period + 2 * blend) * np.float32(0.5)
    elif kind == 2:  # checker
        blend = np.float32(0.5) * np.sign(np.sin(along * period) * np.sin(across * period)) + np.float32(0.5) * blend
    fine = _noise(rng, height, width, int(rng.integers(12, 40)))
    blend = np.clip(0.5 + 0.5 * blend + np.float32(rng.uniform(0.03, 0.12)) * fine, 0, 1)[:, :, None]
    muted = rng.uniform(15, 110, (2, 1)) + rng.uniform(-20, 20, (2, 3))  # two dim colours, weakly tinted
    first, second = np.clip(muted, 0, 255).astype(np.float32)
    second = first + (second - first) * np.float32(rng.uniform(0.2, 0.6))
    return np.asarray(first + (second - first) * blend)


def _noise(rng: np.random.Generator, height: int, width: int, cells: int) -> Array:
    """Return float32 [H, W], smooth noise of about -1..1 with ``cells`` bumps a side."""
    grid = rng.uniform(-1, 1, (cells, cells)).astype(np.float32)
    return np.asarray(cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC))


def _place(rng: np.random.Generator, names: Sequence[str], height: int, width: int) -> list[Array]:
    """Return the coverage, float32 [H, W] of 0..1, of each object; every one can be recognised."""
    short = min(height, width)
    largest = {0: 0.48, 1: 0.48, 2: 0.38}.get(len(names), 0.3)
    while True:
        alphas: list[Array] = []
        areas: list[float] = []
        for name in names:
            for _ in range(8):
                radius = short * float(rng.uniform(0.66 * largest, largest))
                centre = rng.uniform(0.9 * radius, (width - 0.9 * radius, height - 0.9 * radius))
                alpha, area = _shape(rng, name, radius, centre, height, width)
                if all(
                    v.sum() >= _VISIBLE * a for v, a in zip(_visible([*alphas, alpha]), [*areas, area], strict=True)
                ):
                    alphas.append(alpha)
                    areas.append(area)
                    break
            else:
                break
        if len(alphas) == len(names):
            return alphas
        largest = max(0.12, largest * 0.9)  # too crowded: start again, smaller


def _visible(alphas: Sequence[Array]) -> list[Array]:
    taken = np.zeros(alphas[0].shape, bool) if alphas else np.zeros((0, 0), bool)
    masks: list[Array] = []
    for alpha in reversed(alphas):
        solid = alpha >= 0.5
        masks.append(solid & ~taken)
        taken = taken | solid
    return masks[::-1]


def _shape(
    rng: np.random.Generator, name: str, radius: float, centre: Array, height: int, width: int
) -> tuple[Array, float]:
    """Return an object's coverage, float32 [H, W], and its whole area in pixels."""
    turn, stretch = float(rng.uniform(-0.4, 0.4)), float(rng.uniform(0.88, 1.0))
    tilt = float(rng.uniform(0, 2 * math.pi))
    side = math.ceil(radius) * 2 + 3  # a window around the object, in pixels
    corner = np.floor(centre).astype(int) - side // 2
    contours = []
    for outline in _outlines(rng, name):
        points = outline @ _rotation(turn) @ _rotation(tilt) * (1.0, stretch) @ _rotation(-tilt)
        contours.append(np.rint(((points * radius + centre - corner) * _FINE - 0.5) * 16).astype(np.int32))
    fine = np.zeros((side * _FINE, side * _FINE), np.uint8)
    cv2.fillPoly(fine, contours, 255, lineType=cv2.LINE_8, shift=4)  # even-odd: a second contour is a hole
    window = cv2.resize(fine, (side, side), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    alpha = np.zeros((height, width), np.float32)
    x0, y0 = max(0, corner[0]), max(0, corner[1])
    x1, y1 = min(width, corner[0] + side), min(height, corner[1] + side)
    alpha[y0:y1, x0:x1] = window[y0 - corner[1] : y1 - corner[1], x0 - corner[0] : x1 - corner[0]]
    return alpha, float((window >= 0.5).sum())


def _outlines(rng: np.random.Generator, name: str) -> list[Array]:
    """Return the outline of a shape within the unit circle, and of its hole, each float64 [P, 2]."""
    if name == "circle":
        return [_polygon(48) * 0.85]
    if name == "ring":
        return [_polygon(48) * 0.9, _polygon(48) * 0.9 * float(rng.uniform(0.45, 0.65))]
    if name == "square":
        return [_polygon(4) @ _rotation(math.pi / 4)]
    if name == "triangle":
        return [_polygon(3) @ _rotation(-math.pi / 2)]
    if name == "star":
        points = _polygon(10)
        points[1::2] *= float(rng.uniform(0.38, 0.5))
        return [points @ _rotation(-math.pi / 2)]
    arm = float(rng.uniform(0.24, 0.36))  # cross: half the width of a bar
    corners = [(1, arm), (arm, arm), (arm, 1), (-arm, 1), (-arm, arm), (-1, arm)]
    half = np.array(corners) * 0.93
    return [np.concatenate([half, -half])]


def _polygon(corners: int) -> Array:
    angles = np.arange(corners) * (2 * math.pi / corners)
    return np.stack([np.cos(angles), np.sin(angles)], 1)


def _rotation(angle: float) -> Array:
    c, s = math.cos(angle), math.sin(angle)
    return np.array([[c, s], [-s, c]])


def _paint(rng: np.random.Generator, canvas: Array, alpha: Array) -> None:
    """Lay an object onto the canvas, in a colour that stands out from what is behind it."""
    ys, xs = np.flatnonzero(alpha.any(1)), np.flatnonzero(alpha.any(0))
    window = slice(ys[0], ys[-1] + 7), slice(xs[0], xs[-1] + 7)  # room for the shadow
    alpha, canvas = alpha[window], canvas[window]
    height, width = alpha.shape
    behind = canvas[alpha >= 0.5].mean(0)
    colour = _colour(rng, behind)
    shade = _noise(rng, height, width, int(rng.integers(2, 6))) * np.float32(rng.uniform(4, 22))
    if rng.random() < 0.4:  # a soft shadow below and beside
        dx, dy = rng.integers(1, 4, 2)
        shadow = np.zeros_like(alpha)
        shadow[dy:, dx:] = alpha[:-dy, :-dx]
        canvas *= 1 - np.float32(rng.uniform(0.2, 0.5)) * cv2.blur(shadow, (5, 5))[:, :, None]
    canvas += alpha[:, :, None] * (colour.astype(np.float32) + shade[:, :, None] - canvas)


def _colour(rng: np.random.Generator, behind: Array) -> Array:
    """Return a colour, float64 [3], at a distance from the one behind it and lighter where that leaves room."""
    lightest = min(float(behind.mean()) + _LIGHTER, 200.0)
    while True:
        colour = rng.uniform(15, 250, 3)
        if np.linalg.norm(colour - behind) >= _CONTRAST and colour.mean() >= lightest:
            return colour


def _photograph(rng: np.random.Generator, canvas: Array) -> Array:
    """Return the canvas under a light from one side, through a lens and with pixel noise, as uint8 [H, W, 3]."""
    height, width = canvas.shape[:2]
    corners = rng.uniform(0.7, 1.15, (2, 2)).astype(np.float32)
    canvas = canvas * cv2.resize(corners, (width, height), interpolation=cv2.INTER_LINEAR)[:, :, None]
    if rng.random() < 0.5:
        canvas = cv2.GaussianBlur(canvas, (3, 3), float(rng.uniform(0.3, 0.8)))
    noise = rng.standard_normal(canvas.shape, dtype=np.float32) * np.float32(rng.uniform(1, 4))
    return np.clip(np.rint(canvas + noise), 0, 255).astype(np.uint8)
