"""Image files in, uint8 arrays out: the one loader of the whole project."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from visionkit.core.errors import DataError, UsageError
from visionkit.core.files import read_bytes
from visionkit.data.images.decode import Array, Decoded, Scale, decode
from visionkit.data.images.formats import MAX_PIXELS, BadImageError
from visionkit.data.images.listing import SUFFIXES, list_images

__all__ = ["MAX_PIXELS", "SUFFIXES", "check_images", "decode_image", "list_images", "load_image", "read_image"]


def read_image(path: str | os.PathLike[str], *, channels: int = 3) -> Array:
    """Read an image file upright (EXIF orientation), as uint8 [H, W, C].

    Fixed rules, the same for every file: alpha and transparency are composited on white; 16-bit values are scaled from
    0..65535 to 0..255, never by the picture's own range; float values must lie in 0..1; of animations and multi-page
    files the first picture is taken; colour profiles are not applied.

    Args:
        path: A JPEG, PNG, TIFF, BMP, GIF, WebP, PNM, JPEG 2000 or AVIF file, or a ``.npy`` array uint8 [H, W, C].
        channels: 3 for RGB, 1 for gray (ITU-R 601 luma). Any other number: a ``.npy`` array or TIFF with exactly
            that many bands (4 also reads RGBA files and 2 gray with alpha, as stored).

    Raises:
        DataError: The file is missing, empty, cut off, damaged, too large or no image.
    """
    return _decode_file(Path(path), channels).pixels


def load_image(
    path: str | os.PathLike[str], *, channels: int = 3, scale: Scale | None = None, data: bytes | None = None
) -> Decoded:
    """Read an image file as ``read_image`` does, but a JPEG at a part of its size where it will be made smaller.

    Args:
        path: As in ``read_image``.
        channels: As in ``read_image``.
        scale: Vertical and horizontal factor by which a picture of some height and width will be resized
            (``Preprocessing.scale``). The picture that comes back is the smallest of a half, a quarter or an eighth
            that is not made larger then; None reads all pixels.
        data: The content where it is there already, from elsewhere than a file; ``path`` then is its name in messages.

    Returns:
        The pixels, the size of the picture in the file, and which part of it the pixels are.

    Raises:
        DataError: As in ``read_image``.
    """
    return _decode_file(Path(path), channels, scale) if data is None else _decode(data, str(path), channels, scale)


def decode_image(data: bytes, name: str, *, channels: int = 3) -> Array:
    """Decode the bytes of an image file, as ``read_image`` does.

    Args:
        data: The whole content of an image file.
        name: What error messages call it.
        channels: As in ``read_image``.

    Raises:
        DataError: The data is empty, cut off, damaged, too large or no image.
    """
    return _decode(data, name, channels).pixels


def check_images(
    paths: Sequence[Path | None],
    *,
    channels: int = 3,
    workers: int | None = None,
    remarks: Counter[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[tuple[int, str]]:
    """Decode every file and return what is wrong, one line a bad file, in the order of ``paths``.

    JPEG files are decoded at an eighth of their size: the whole bit stream is still read.

    Args:
        paths: Image files; None (an image that comes from elsewhere) is passed over.
        channels: As in ``read_image``.
        workers: Threads; None for one a processor, eight at most.
        remarks: Counts the files with something to be said of: ``DARK``, ``SEVERAL``.
        progress: Called from this thread with (done, total) after each file.

    Returns:
        Pairs of position in ``paths`` and message.
    """

    def look(path: Path | None) -> str | frozenset[str]:
        if path is None:
            return frozenset()
        try:
            return _decode_file(path, channels, lambda size: (0.0, 0.0)).remarks
        except DataError as e:
            return str(e)

    workers = workers or min(8, os.cpu_count() or 1)
    problems: list[tuple[int, str]] = []
    with ThreadPoolExecutor(workers) as pool:
        for i, found in enumerate(pool.map(look, paths)):
            if isinstance(found, str):
                problems.append((i, found))
            elif remarks is not None:
                remarks.update(found)
            if progress is not None:
                progress(i + 1, len(paths))
    return problems


def _decode_file(path: Path, channels: int, scale: Scale | None = None) -> Decoded:
    return _decode(read_bytes(path), str(path), channels, scale)


def _decode(data: bytes, name: str, channels: int, scale: Scale | None = None) -> Decoded:
    if channels < 1:
        raise UsageError(f"channels: {channels} is not a number of image bands; give 3 (RGB), 1 (gray) or more")
    try:
        return decode(data, channels=channels, scale=scale)
    except BadImageError as e:
        raise DataError(f"{name}: {e}") from None
