"""Bytes of an image file in, uint8 array out: the rules of ``read_image``, format by format."""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

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
)
from visionkit.data.images.tiff import TiffError, read_bands

__all__ = ["Array", "Decoded", "Scale", "decode", "pixels_of_picture", "with_channels"]

Array = np.ndarray[Any, Any]
Size: TypeAlias = tuple[int, int]
Scale: TypeAlias = Callable[[Size], tuple[float, float]]
"""Height and width of a picture in pixels -> vertical and horizontal factor by which it will be resized."""

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
    """

    pixels: Array
    size: Size
    reduced: int = 1


def decode(data: bytes, *, channels: int, scale: Scale | None = None) -> Decoded:
    """Return a picture as uint8 [H, W, C].

    Args:
        data: The whole content of an image file.
        channels: 3 for RGB, 1 for gray, another number for exactly that many bands.
        scale: By what the picture will be resized; a JPEG is decoded at a half, a quarter or an eighth of its size
            where that leaves enough pixels in both directions. None decodes at full size.

    Raises:
        BadImageError: The data is empty, cut off, damaged, too large or no image.
    """
    pixels = _decode(data, channels, scale)
    return pixels if isinstance(pixels, Decoded) else Decoded(pixels, (pixels.shape[0], pixels.shape[1]))


def pixels_of_picture(im: Image.Image, *, channels: int) -> Array:
    """Return a Pillow image as ``decode`` returns a file: uint8 [H, W, C], upright.

    Args:
        im: Any mode.
        channels: As in ``decode``.

    Raises:
        BadImageError: It is too large, damaged, or cannot have so many channels.
    """
    check_size(*im.size)
    try:
        im.load()
        orientation = _orientation(im)
        pixels = _rgb(im) if channels in (1, 3) else np.atleast_3d(np.array(im))
    except BadImageError:
        raise
    except Exception as e:  # a damaged file can raise anything in a decoder
        raise BadImageError(f"cannot be decoded ({_one_line(e)})") from None
    return with_channels(_turn(pixels, orientation), channels)


def with_channels(pixels: Array, channels: int) -> Array:
    """Return pixels, uint8 [H, W, C], with so many channels: grey becomes RGB and RGB grey, by ITU-R 601 luma.

    Args:
        pixels: uint8 [H, W, C].
        channels: As in ``decode``.

    Raises:
        BadImageError: They have another number of channels.
    """
    found = pixels.shape[2]
    if found == channels:
        return pixels
    if (found, channels) == (3, 1):
        return _luma(np.ascontiguousarray(pixels))
    if (found, channels) == (1, 3):
        return np.repeat(pixels, 3, axis=2)
    raise BadImageError(f"has {found} channels, the model takes {channels}")


def _decode(data: bytes, channels: int, scale: Scale | None) -> Array | Decoded:
    if not data:
        raise BadImageError("the file is empty (0 bytes); copy or download it again, or remove it")
    if data.startswith(b"\x93NUMPY"):
        return _from_npy(data, channels)
    if channels not in (1, 3):
        return _from_bands(data, channels)
    if data.startswith(b"\xff\xd8"):
        head = _check_jpeg(data)
        if head.components in (1, 3) and head.upright:
            return _from_jpeg(data, head, gray=channels == 1, reduced=_reduction(head, scale))
    return _from_pil(data, gray=channels == 1)


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
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flag)
    except cv2.error:
        pixels = None
    if pixels is None:
        raise BadImageError(DAMAGED)
    pixels = np.atleast_3d(pixels) if pixels.ndim == 2 else _luma(pixels) if gray else np.asarray(pixels)
    edges = (pixels.shape[0], pixels.shape[1])
    turned = edges != (-(-head.size[0] // reduced), -(-head.size[1] // reduced))
    return Decoded(pixels, head.size[::-1] if turned else head.size, reduced)


def _from_pil(data: bytes, *, gray: bool) -> Array:
    opened = open_image(io.BytesIO(data))
    if opened is None:
        pixels = _from_cv2(data) if data[:4] in (b"II*\0", b"MM\0*") else None  # TIFF modes that Pillow lacks
        if pixels is None:
            raise BadImageError(not_an_image(data))
        return _luma(pixels) if gray else pixels
    with opened as im:
        check_size(*im.size)
        deep = _is_deep(im, data)
        try:
            im.load()
            orientation = _orientation(im)
            pixels = _from_cv2(data) if deep else None
            if pixels is None:
                pixels = _rgb(im)
        except BadImageError:
            raise
        except Exception as e:  # a damaged file can raise anything in a decoder
            cut = "truncated" in str(e) or isinstance(e, EOFError)
            raise BadImageError(CUT if cut else f"{DAMAGED} ({_one_line(e)})") from None
    pixels = _turn(pixels, orientation)
    return _luma(pixels) if gray else pixels


def _is_deep(im: Image.Image, data: bytes) -> bool:
    """Return whether the file has 16-bit colour, which Pillow cannot hold."""
    if im.format == "PNG":
        return data[24] == 16 and data[25] != 0
    bits = getattr(im, "tag_v2", {}).get(258, ()) if im.format == "TIFF" else ()
    return isinstance(bits, tuple) and len(bits) > 1 and max(bits) > 8


def _orientation(im: Image.Image) -> int:
    try:
        return int(im.getexif().get(0x0112, 1))
    except Exception:  # damaged EXIF: the picture itself is fine, and so is its storage order
        return 1


def _turn(pixels: Array, orientation: int) -> Array:
    """Undo an EXIF orientation, 1..8."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return pixels.copy() if orientation != 1 else np.ascontiguousarray(pixels)  # the latter may leave a stride negative


def _rgb(im: Image.Image) -> Array:
    """Return a loaded Pillow image as uint8 [H, W, 3] by the fixed rules of ``read_image``."""
    if im.mode.startswith(("I", "F")):
        return _to_rgb(np.array(im)[:, :, None])
    if im.mode in ("LA", "PA", "La", "RGBA", "RGBa") or "transparency" in im.info:
        rgba = im.convert("RGBA")
        im = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    return np.array(im.convert("RGB"))


def _from_cv2(data: bytes) -> Array | None:
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        return None
    if pixels is None:
        return None
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    elif pixels.shape[2] == 3:
        pixels = pixels[:, :, ::-1]  # BGR -> RGB
    elif pixels.shape[2] == 4:
        pixels = pixels[:, :, [2, 1, 0, 3]]  # BGRA -> RGBA
    return _to_rgb(pixels)


def _to_rgb(pixels: Array) -> Array:
    """Return [H, W, 1], [H, W, 3] or RGBA of any depth as uint8 [H, W, 3]."""
    pixels = _to_uint8(pixels)
    if pixels.shape[2] == 4:
        alpha = pixels[:, :, 3:].astype(np.uint32)
        mixed = pixels[:, :, :3] * alpha + 255 * (255 - alpha)
        return ((mixed + 127) // 255).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))


def _to_uint8(pixels: Array) -> Array:
    if pixels.dtype == np.uint8:
        return pixels
    low, high = pixels.min(), pixels.max()
    if np.issubdtype(pixels.dtype, np.integer):
        if low < 0 or high > 65535:
            raise BadImageError(f"holds integers from {low} to {high}; save it with 8 or 16 bits a channel")
        return ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if not (low >= 0 and high <= 1):  # also refuses NaN
        raise BadImageError(f"holds float values from {low:.6g} to {high:.6g}; scale them to 0..1 or save 8 or 16 bits")
    return np.asarray(np.rint(pixels * 255), np.uint8)


def _luma(rgb: Array) -> Array:
    return np.array(Image.fromarray(rgb).convert("L"))[:, :, None]


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


def _from_bands(data: bytes, channels: int) -> Array:
    """Read a picture with another number of bands than 1 or 3, exactly as stored."""
    if data[:4] in (b"II*\0", b"MM\0*"):
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
            pixels = _turn(np.atleast_3d(pixels), _orientation(im))
        except Exception as e:  # a damaged file can raise anything in a decoder
            raise BadImageError(f"{DAMAGED} ({_one_line(e)})") from None
        if im.mode not in ("RGBA", "LA") and found == channels:
            raise BadImageError(
                f"holds {im.mode}, not plain bands; save it as TIFF or as .npy uint8 [H, W, {channels}]"
            )
    if found != channels:
        raise BadImageError(f"has {found} band(s), not {channels}; set channels to {found} or remove the file")
    return _to_uint8(pixels)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
