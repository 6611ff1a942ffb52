"""One pass over the picture files of a data set: what each file is, if it can be read, what it looks like small."""

from __future__ import annotations

import hashlib
import io
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

from visionkit.core.errors import DataError
from visionkit.core.files import open_binary, read_bytes
from visionkit.core.machine import available_cores
from visionkit.core.prefetch import prefetch_map
from visionkit.data.images.decode import Array, decode
from visionkit.data.images.formats import BadImageError, open_image, orientation
from visionkit.data.images.pixels import luma

__all__ = ["SIDE", "PictureFacts", "survey", "thumbnail"]

SIDE = 32
"""Height and width of a thumbnail, in pixels."""

_ENOUGH = 48  # pixels along the shorter edge, from which a thumbnail is made; a JPEG is decoded no larger than needed
_LARGE = 2**26  # bytes; larger files are read one at a time, whatever the number of threads
_large = threading.Lock()
_BITS = {"1": 1, "I;16": 16, "I;16B": 16, "I;16L": 16, "I": 32, "F": 32}  # of Pillow's modes; 8 in all others


@dataclass(frozen=True, slots=True, eq=False)
class PictureFacts:
    """What is known of a picture file.

    Args:
        path: The file.
        error: What visionkit's own reader says of it, one line with its path; None where it can be read.
        file_size: In bytes.
        content: BLAKE2b digest of the whole file, 16 bytes; empty where it could not be read from the disk.
        format: As Pillow names it (``JPEG``, ``PNG``, ...), or ``NPY``; empty where the head says nothing.
        mode: As Pillow names it (``RGB``, ``L``, ``RGBA``, ``CMYK``, ``P``, ...); empty where Pillow does not know it.
        bits: Of each sample, as stored.
        width: In pixels, as stored; 0 where the head says nothing.
        height: In pixels, as stored.
        orientation: Of EXIF, 1..8; from 2 on the picture is turned or mirrored when it is read.
        frames: Pictures in the file, of which the first one is read.
        thumbnail: Gray values of the upright picture, uint8 [32, 32]; None where it cannot be read.
        mean: Of the gray values, 0..255.
        std: Their standard deviation; 0 for a picture of one colour.
        remarks: ``DARK``, ``SEVERAL``, as ``decode`` gives them.
    """

    path: str
    error: str | None = None
    file_size: int = 0
    content: bytes = b""
    format: str = ""
    mode: str = ""
    bits: int = 0
    width: int = 0
    height: int = 0
    orientation: int = 1
    frames: int = 1
    thumbnail: Array | None = None
    mean: float = 0.0
    std: float = 0.0
    remarks: frozenset[str] = frozenset()


def survey(
    paths: Sequence[str | os.PathLike[str]],
    *,
    channels: int = 3,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[PictureFacts]:
    """Read every picture once and return what is known of it, in the order of ``paths``.

    JPEG files are decoded at a part of their size, for which the whole bit stream is still read: one that is cut short
    or damaged is found. Nothing is raised for a picture that cannot be read.

    Args:
        paths: Picture files.
        channels: As in ``read_image``.
        workers: Threads; None for one a processor, eight at most.
        progress: Called from this thread with (done, total) after each file.
    """
    workers = workers or min(8, available_cores())
    names = (os.fspath(p) for p in paths)
    found = []
    for facts in prefetch_map(lambda name: _look(name, channels), names, threads=workers, depth=4 * workers):
        found.append(facts)
        if progress is not None:
            progress(len(found), len(paths))
    return found


def thumbnail(pixels: Array) -> Array:
    """Return gray values, uint8 [H, W], as uint8 [32, 32], each the mean of a part of the picture."""
    return np.asarray(cv2.resize(pixels, (SIDE, SIDE), interpolation=cv2.INTER_AREA))


def _look(path: str, channels: int) -> PictureFacts:
    try:
        data = _content(path)
    except DataError as e:
        return PictureFacts(path, str(e))
    digest = hashlib.blake2b(data, digest_size=16).digest()
    head = _head(data)
    try:
        decoded = decode(data, channels=channels, scale=lambda size: (_ENOUGH / size[0], _ENOUGH / size[1]))
    except BadImageError as e:
        return PictureFacts(path, f"{path}: {e}", len(data), digest, *head)
    gray = _gray(decoded.pixels)
    mean, std = cv2.meanStdDev(gray)
    if not head.width:  # of a kind that Pillow does not open
        head = head._replace(width=decoded.size[1], height=decoded.size[0], bits=head.bits or 8)
    small = thumbnail(gray)
    return PictureFacts(
        path, None, len(data), digest, *head, small, float(mean[0, 0]), float(std[0, 0]), decoded.remarks
    )


def _content(path: str) -> bytes:
    with open_binary(path) as file:
        size = os.fstat(file.fileno()).st_size
    if size <= _LARGE:
        return read_bytes(path)
    with _large:
        return read_bytes(path)


class _Head(NamedTuple):
    """What the head of a file says; fields as in PictureFacts."""

    format: str = ""
    mode: str = ""
    bits: int = 0
    width: int = 0
    height: int = 0
    orientation: int = 1
    frames: int = 1


def _head(data: bytes) -> _Head:
    if data.startswith(b"\x93NUMPY"):
        return _Head("NPY", bits=8)
    try:
        opened = open_image(io.BytesIO(data))
    except BadImageError:
        return _Head()
    if opened is None:
        return _Head("TIFF") if data[:4] in (b"II*\0", b"MM\0*") else _Head()
    with opened as im:
        bits = _BITS.get(im.mode, 8)
        if im.format == "PNG":
            bits = data[24]
        elif im.format == "TIFF":
            bits = max(getattr(im, "tag_v2", {}).get(258, (1,)), default=bits)
        frames = 1
        if im.format != "MPO":  # its other pictures are previews
            try:
                frames = int(getattr(im, "n_frames", 1))
            except Exception:  # counting them reads on, and a damaged file can raise anything
                frames = 1
        return _Head(im.format or "", im.mode, bits, *im.size, orientation(im), frames)


def _gray(pixels: Array) -> Array:
    """Return uint8 [H, W] of uint8 [H, W, C]."""
    if pixels.shape[2] == 1:
        return np.ascontiguousarray(pixels[:, :, 0])
    if pixels.shape[2] == 3:
        return luma(pixels)[:, :, 0]
    return np.asarray(np.rint(pixels.mean(axis=2)), np.uint8)
