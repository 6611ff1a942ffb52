"""Bytes of an image file in, uint8 array out: the rules of ``read_image``, format by format."""

from __future__ import annotations

import io
import re
import struct
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import cv2
import numpy as np
from PIL import Image

from visionkit.data.images.formats import (
    CUT,
    DAMAGED,
    MAX_PIXELS,
    BadImageError,
    check_size,
    not_an_image,
    open_image,
    orientation,
)
from visionkit.data.images.pixels import DARK, Array, bands, luma, to_rgb, to_uint8, turn
from visionkit.data.images.tiff import TiffError, read_bands, read_head

__all__ = ["DARK", "RECOLOURED", "SEVERAL", "SEVERAL_MASKS", "Array", "Decoded", "Scale", "decode", "rgb_of"]

Size: TypeAlias = tuple[int, int]
Scale: TypeAlias = Callable[[Size], tuple[float, float]]
"""Height and width of a picture in pixels -> vertical and horizontal factor by which it will be resized."""

SEVERAL = "several"
"""A remark: the file holds several pictures, the first of which was taken."""
SEVERAL_MASKS = "several masks"
"""The same of a file of a mask."""
RECOLOURED = "recoloured"
"""A remark: a mask's palette shows an id in another colour than that of a mask before it."""

_LARGE = 2**25  # pixels; larger pictures are decoded one at a time, whatever the number of threads
_large = threading.Lock()
_NO_MEMORY = (
    "memory does not suffice to decode it; make it smaller, cut it into tiles, read fewer at once (num_workers) or use "
    "a machine with more"
)
_TIFF = (b"II*\0", b"MM\0*")
_SCAN_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # in JPEG pixel data: anything but stuffing, restarts and fill
_REDUCED = {  # gray by themselves, colour together with the flag for it
    1: 0,
    2: cv2.IMREAD_REDUCED_GRAYSCALE_2,
    4: cv2.IMREAD_REDUCED_GRAYSCALE_4,
    8: cv2.IMREAD_REDUCED_GRAYSCALE_8,
}


@dataclass(frozen=True)
class Decoded:
    """A picture as it was decoded.

    Args:
        pixels: uint8 [H, W, C], upright.
        size: Height and width of the picture in the file, upright.
        reduced: 1, or 2, 4 or 8: pixels were decoded at that part of their number along both edges, whose lengths are
            rounded up.
        remarks: What should be said of the file: ``DARK``, ``SEVERAL``.
    """

    pixels: Array
    size: Size
    reduced: int = 1
    remarks: frozenset[str] = frozenset()


def decode(data: bytes, *, channels: int, scale: Scale | None = None) -> Decoded:
    """Return a picture as uint8 [H, W, C].

    Args:
        data: The whole content of an image file.
        channels: 3 for RGB, 1 for gray, another number for exactly that many bands.
        scale: By what the picture will be resized; a JPEG is decoded at a half, a quarter or an eighth of its size
            where that leaves enough pixels in both directions. None decodes at full size.

    Raises:
        BadImageError: The data is empty, cut off, damaged, too large, no image, or memory does not suffice for it.
    """
    remarks: set[str] = set()
    try:
        pixels = _decode(data, channels, scale, remarks)
    except MemoryError:
        raise BadImageError(_NO_MEMORY) from None
    if isinstance(pixels, Decoded):
        return pixels
    return Decoded(pixels, (pixels.shape[0], pixels.shape[1]), remarks=frozenset(remarks))


def _decode(data: bytes, channels: int, scale: Scale | None, remarks: set[str]) -> Array | Decoded:
    if not data:
        raise BadImageError("the file is empty (0 bytes); copy or download it again, or remove it")
    if data.startswith(b"\x93NUMPY"):
        return _from_npy(data, channels)
    if channels not in (1, 3):
        return _from_bands(data, channels, remarks)
    if data.startswith(b"\xff\xd8"):
        head = _check_jpeg(data)
        if head.components in (1, 3) and head.upright:
            return _from_jpeg(data, head, gray=channels == 1, reduced=_reduction(head, scale))
    return _from_pil(data, remarks, gray=channels == 1)


def _in_turn(width: int, height: int) -> AbstractContextManager[object]:
    """Wait until no other thread decodes a large picture, where this is one."""
    return _large if width * height > _LARGE else nullcontext()


class _Head(NamedTuple):
    """What the markers of a JPEG say."""

    components: int  # of colour
    size: Size  # height and width as stored
    upright: bool  # whether cv2 sees the orientation
    exif: bool  # whether there may be one


def _check_jpeg(data: bytes) -> _Head:
    """Walk the JPEG's markers; return what they say.

    cv2 fills a damaged part with gray and says nothing, and takes a file whose tail is zeros for whole. The markers
    tell: pixel data may hold none but restarts, and ends with the end-of-image marker.
    """
    components, size, upright, exif, position = 0, (0, 0), True, False, 2
    while True:
        while data[position : position + 2] == b"\xff\xff":  # fill bytes
            position += 1
        if len(data) < position + 4:
            marker_only = data[position : position + 2] == b"\xff\xd9"
            if marker_only and components:
                return _Head(components, size, upright, exif)
            raise BadImageError(CUT)
        fixed, marker, length = struct.unpack_from(">BBH", data, position)
        if marker == 0xD9 and components:
            return _Head(components, size, upright, exif)
        if fixed != 0xFF or marker < 0xC0 or 0xD0 <= marker <= 0xD9 or (marker >= 0xF0 and marker != 0xFE):
            raise BadImageError(DAMAGED)
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # start of frame
            if components or len(data) < position + 10:
                raise BadImageError(DAMAGED if components else CUT)
            height, width, components = struct.unpack_from(">HHB", data, position + 5)
            check_size(width, height)
            size = (height, width)
        elif marker == 0xE1:
            segment = data[position : position + 2 + length]
            exif |= segment[4:8] == b"Exif"
            upright &= b"tiff:Orientation" not in segment  # in XMP: Pillow reads it, cv2 does not
        position += 2 + length
        if marker == 0xDA:  # start of scan: pixel data until the next marker
            found = _SCAN_MARKER.search(data, position)
            if found is None:
                raise BadImageError(CUT)
            position = found.start()


def _reduction(head: _Head, scale: Scale | None) -> int:
    """Return the largest of 8, 4, 2, 1 that leaves as many pixels as are needed.

    libjpeg makes n/8 of a picture for any n, but for the others than these without vector instructions, which takes
    longer than to decode it whole. An edge that is no multiple ends in a pixel that is the picture's only in part;
    where the picture may have to be turned that one could come first and shift the rest.
    """
    if scale is None:
        return 1
    needed = max(*scale(head.size), *(scale(head.size[::-1]) if head.exif else ()))
    for part in (8, 4, 2):
        if part * needed <= 1 and not (head.exif and any(edge % part for edge in head.size)):
            return part
    return 1


def _from_jpeg(data: bytes, head: _Head, *, gray: bool, reduced: int) -> Decoded:
    if gray and head.components == 1:
        flag = cv2.IMREAD_GRAYSCALE if reduced == 1 else _REDUCED[reduced]
    else:
        flag = cv2.IMREAD_COLOR_RGB | _REDUCED[reduced]
    with _in_turn(*head.size):
        pixels = _cv2(data, flag)
    if pixels is None:
        raise BadImageError(DAMAGED)
    pixels = np.atleast_3d(pixels) if pixels.ndim == 2 else luma(pixels) if gray else np.asarray(pixels)
    edges = (pixels.shape[0], pixels.shape[1])
    turned = edges != (-(-head.size[0] // reduced), -(-head.size[1] // reduced))
    return Decoded(pixels, head.size[::-1] if turned else head.size, reduced)


def _cv2(data: bytes, flag: int) -> Array | None:
    """Return what cv2 makes of a file, or None where it makes nothing of it."""
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flag)
    except cv2.error as e:
        if e.code == cv2.Error.StsNoMem:
            raise MemoryError from None
        return None
    return None if pixels is None else np.asarray(pixels)


def _from_pil(data: bytes, remarks: set[str], *, gray: bool) -> Array:
    opened = open_image(io.BytesIO(data))
    if opened is None:
        pixels = _from_other_tiff(data, remarks) if data[:4] in _TIFF else None
        if pixels is None:
            raise BadImageError(not_an_image(data))
        return luma(pixels) if gray else pixels
    with opened as im:
        deep = _is_deep(im, data)
        check_size(*im.size, len(im.getbands()) * (2 if deep else 4 if im.mode in ("I", "F") else 1))
        if getattr(im, "is_animated", False) and im.format != "MPO":
            remarks.add(SEVERAL)
        try:
            with _in_turn(*im.size):
                im.load()
                way = orientation(im)
                pixels = None
                if deep:
                    pixels = _from_cv2(data, remarks)
                if pixels is None:
                    pixels = rgb_of(im, remarks)
        except (BadImageError, MemoryError):
            raise
        except Exception as e:  # a damaged file can raise anything in a decoder
            cut = "truncated" in str(e) or isinstance(e, EOFError)
            raise BadImageError(CUT if cut else f"{DAMAGED} ({_one_line(e)})") from None
    pixels = turn(pixels, way)
    return luma(pixels) if gray else pixels


def _from_other_tiff(data: bytes, remarks: set[str]) -> Array | None:
    """Read a TIFF of a mode that Pillow lacks, once its tags have said that memory suffices for it."""
    try:
        head = read_head(data)
    except TiffError as e:
        raise BadImageError(str(e)) from None
    check_size(head.size[1], head.size[0], head.sample_bytes)
    with _in_turn(*head.size):
        return _from_cv2(data, remarks)


def _is_deep(im: Image.Image, data: bytes) -> bool:
    """Return whether the file has 16-bit colour, which Pillow cannot hold."""
    if im.format == "PNG":
        return data[24] == 16 and data[25] != 0
    bits = getattr(im, "tag_v2", {}).get(258, ()) if im.format == "TIFF" else ()
    return isinstance(bits, tuple) and len(bits) > 1 and max(bits) > 8


def rgb_of(im: Image.Image, remarks: set[str]) -> Array:
    """Return a loaded Pillow image as uint8 [H, W, 3] by the fixed rules of ``read_image``."""
    if im.mode.startswith(("I", "F")):
        return to_rgb(np.asarray(im)[:, :, None], remarks)
    alpha = im.mode in ("LA", "PA", "La", "RGBA", "RGBa") or "transparency" in im.info
    width, height = im.size
    rgb = np.empty((height, width, 3), np.uint8)
    for rows in bands(height, width):
        band = im if rows == slice(0, height) else im.crop((0, rows.start, width, rows.stop))
        if alpha:
            rgba = band.convert("RGBA")
            band = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
        rgb[rows] = np.asarray(band.convert("RGB"))
    return rgb


def _from_cv2(data: bytes, remarks: set[str]) -> Array | None:
    pixels = _cv2(data, cv2.IMREAD_UNCHANGED)
    if pixels is None:
        return None
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    elif pixels.shape[2] == 3:
        pixels = pixels[:, :, ::-1]  # BGR -> RGB, a view
    elif pixels.shape[2] == 4:
        pixels[:, :, :3] = pixels[:, :, 2::-1].copy()  # BGRA -> RGBA
    return to_rgb(pixels, remarks)


def _from_npy(data: bytes, channels: int) -> Array:
    stream = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(stream)
    except (ValueError, EOFError):
        raise BadImageError(f"a damaged .npy header; {DAMAGED}") from None
    if dtype != np.uint8 or len(shape) != 3 or shape[2] != channels or 0 in shape:
        raise BadImageError(f"an array of {dtype} {list(shape)}; save it as uint8 [H, W, {channels}]")
    check_size(shape[1], shape[0])
    flat = np.frombuffer(data, np.uint8, offset=stream.tell())
    if flat.size < np.prod(shape, dtype=np.int64):
        raise BadImageError(CUT)
    return flat[: np.prod(shape, dtype=np.int64)].reshape(shape, order="F" if fortran else "C").copy(order="C")


def _from_bands(data: bytes, channels: int, remarks: set[str]) -> Array:
    """Read a picture with another number of bands than 1 or 3, exactly as stored."""
    if data[:4] in _TIFF:
        try:
            pixels = read_bands(data, max_pixels=MAX_PIXELS)
        except TiffError as e:
            raise BadImageError(str(e)) from None
        found = pixels.shape[2]
    else:
        im = open_image(io.BytesIO(data))
        if im is None:
            raise BadImageError(not_an_image(data))
        check_size(*im.size)
        try:
            pixels, found = np.array(im), len(im.getbands())
            pixels = turn(np.atleast_3d(pixels), orientation(im))
        except MemoryError:
            raise
        except Exception as e:  # a damaged file can raise anything in a decoder
            raise BadImageError(f"{DAMAGED} ({_one_line(e)})") from None
        if im.mode not in ("RGBA", "LA") and found == channels:
            raise BadImageError(
                f"holds {im.mode}, not plain bands; save it as TIFF or as .npy uint8 [H, W, {channels}]"
            )
    if found != channels:
        raise BadImageError(f"has {found} band(s), not {channels}; set channels to {found} or remove the file")
    return to_uint8(pixels, remarks)(pixels)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
