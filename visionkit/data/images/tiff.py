"""TIFF with any number of bands, which neither Pillow nor cv2 reads: plain and deflate, strips and tiles."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from PIL import TiffImagePlugin

__all__ = ["TiffError", "TiffHead", "check_tags", "read_bands", "read_head"]

Array = np.ndarray[Any, Any]

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _OFFSETS, _BANDS, _ROWS, _SIZES = 256, 257, 258, 259, 273, 277, 278, 279
_PLANAR, _PREDICTOR, _TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS, _TILE_SIZES, _FORMAT = 284, 317, 322, 323, 324, 325, 339
_AGAIN = "copy or download it again, or remove it"


_UNITS = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
"""Bytes of a value of each type of tag."""
_SPARE = 65536  # bytes that tags may claim beyond those of the file


class TiffError(Exception):
    """What is wrong with the data, without the file's name."""


class TiffHead(NamedTuple):
    """What the tags of a TIFF say of its first picture.

    Args:
        size: Height and width in pixels.
        sample_bytes: Of all the samples of a pixel together.
    """

    size: tuple[int, int]
    sample_bytes: int


def check_tags(file: BinaryIO) -> None:
    """Refuse tags that claim more bytes than the file has: each may claim them all, and be read into memory.

    Args:
        file: A TIFF, or the EXIF data of another picture, at its start, where it is left.

    Raises:
        TiffError: They do.
    """
    start = file.tell()
    try:
        head = file.read(16)
        order = "<" if head[:2] == b"II" else ">"
        large = head[2:4] in (b"+\0", b"\0+")
        (offset,) = struct.unpack_from(f"{order}{'Q' if large else 'I'}", head, 8 if large else 4)
        total = file.seek(0, io.SEEK_END) - start
        if offset > total:
            return
        file.seek(start + offset)
        (count,) = struct.unpack(f"{order}{'Q' if large else 'H'}", file.read(8 if large else 2))
        entry = struct.Struct(f"{order}HHQ8x" if large else f"{order}HHI4x")
        listed = file.read(min(count * entry.size, total))
        claimed = 0
        for _, kind, values in entry.iter_unpack(listed[: len(listed) // entry.size * entry.size]):
            claimed += values * _UNITS.get(kind, 0)
        if claimed > total + _SPARE:
            raise TiffError(f"its tags claim {claimed:,} bytes of a file of {total:,}; {_AGAIN}")
    except struct.error:  # cut off, which is said where it is read
        return
    finally:
        file.seek(start)


def read_head(data: bytes) -> TiffHead:
    """Return what the tags of a TIFF say, without reading pixels.

    Args:
        data: The whole content of the file.

    Raises:
        TiffError: They are damaged.
    """
    try:
        tags = _tags(data)
        bits = tags.get(_BITS, (1,))
        samples = max(int(tags.get(_BANDS, 1)), len(bits))
        return TiffHead((int(tags[_HEIGHT]), int(tags[_WIDTH])), samples * -(-max(map(int, bits)) // 8))
    except TiffError:
        raise
    except Exception as e:  # damaged tags can raise anything
        raise TiffError(f"a damaged TIFF ({type(e).__name__}); {_AGAIN}") from None


def _tags(data: bytes) -> TiffImagePlugin.ImageFileDirectory_v2:
    stream = io.BytesIO(data)
    check_tags(stream)
    tags = TiffImagePlugin.ImageFileDirectory_v2(data[:8])
    stream.seek(tags.next)
    tags.load(stream)
    return tags


def read_bands(data: bytes, *, max_pixels: int) -> Array:
    """Return the first picture of a TIFF as stored, uint8 or uint16 [H, W, C].

    Args:
        data: The whole content of the file.
        max_pixels: Larger pictures are refused, before any memory is taken for them.

    Raises:
        TiffError: The file is damaged, too large or of a kind not read here.
    """
    try:
        return _assemble(data, _tags(data), max_pixels)
    except (TiffError, MemoryError):
        raise
    except Exception as e:  # damaged tags can raise anything
        raise TiffError(f"a damaged TIFF ({type(e).__name__}); {_AGAIN}") from None


def _assemble(data: bytes, tags: TiffImagePlugin.ImageFileDirectory_v2, max_pixels: int) -> Array:
    width, height, bands = int(tags[_WIDTH]), int(tags[_HEIGHT]), int(tags.get(_BANDS, 1))
    bits, kinds = set(tags.get(_BITS, (1,))), set(tags.get(_FORMAT, (1,)))
    if bits not in ({8}, {16}) or kinds != {1}:
        raise TiffError("a TIFF of another depth than 8 or 16 bits unsigned; convert it, or save .npy uint8 [H, W, C]")
    if tags.get(_COMPRESSION, 1) not in (1, 8, 32946) or tags.get(_PREDICTOR, 1) not in (1, 2):
        raise TiffError("a multi-band TIFF must be uncompressed or deflate; save it so, or as .npy uint8 [H, W, C]")
    if width < 1 or height < 1 or width * height * bands > 3 * max_pixels:
        raise TiffError(f"{width} x {height} pixels in {bands} bands is too large; cut it into tiles")
    tiled = _TILE_OFFSETS in tags
    block = (
        (int(tags[_TILE_HEIGHT]), int(tags[_TILE_WIDTH]))
        if tiled
        else (min(int(tags.get(_ROWS, height)), height), width)
    )
    if min(block) < 1 or block[0] * block[1] * bands > 3 * max_pixels:
        raise TiffError(f"a damaged TIFF (blocks of {block[1]} x {block[0]} pixels); {_AGAIN}")
    offsets = tags[_TILE_OFFSETS if tiled else _OFFSETS]
    sizes = tags[_TILE_SIZES if tiled else _SIZES]
    dtype = np.dtype(np.uint8 if bits == {8} else f"{'<' if data[:2] == b'II' else '>'}u2")
    planes, depth = (bands, 1) if tags.get(_PLANAR, 1) == 2 else (1, bands)
    pixels = np.zeros((height, width, bands), dtype)
    starts = [(p, y, x) for p in range(planes) for y in range(0, height, block[0]) for x in range(0, width, block[1])]
    for (plane, y, x), offset, size in zip(starts, offsets, sizes, strict=True):
        rows = block[0] if tiled else min(block[0], height - y)
        want = rows * block[1] * depth * dtype.itemsize
        raw = data[offset : offset + size]
        if len(raw) < size:
            raise TiffError(f"the file is cut off; {_AGAIN}")
        if tags.get(_COMPRESSION, 1) != 1:
            raw = zlib.decompressobj().decompress(raw, want)  # never more than the picture needs
        if len(raw) < want:
            raise TiffError(f"the file is cut off; {_AGAIN}")
        part = np.frombuffer(raw, dtype, want // dtype.itemsize).reshape(rows, block[1], depth)
        if tags.get(_PREDICTOR, 1) == 2:
            part = np.cumsum(part, axis=1, dtype=dtype)
        part = part[: height - y, : width - x]
        pixels[y : y + part.shape[0], x : x + part.shape[1], plane : plane + depth] = part
    return pixels.astype(dtype.newbyteorder("="), copy=False)
