"""Mask files as they are stored: ids or colours, before they have names."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from visionkit.core.errors import DataError
from visionkit.core.files import read_bytes
from visionkit.data.images.formats import BadImageError, check_size, not_an_image, open_image

__all__ = ["NO_COLOUR", "FoundIds", "MaskFile", "find_ids", "gray", "in_threads", "pack", "read_mask_file", "unpack"]

Array: TypeAlias = NDArray[Any]
A = TypeVar("A")
B = TypeVar("B")

NO_COLOUR = 2**24
"""What stands in a palette for ids that it has no colour for."""
_INDEXED = ("1", "L", "P", "I;16", "I;16B", "I;16L", "I")
_DEPTHS = {2: 85, 4: 17}  # Pillow stretches gray of 2 and 4 bits to 0..255


@dataclass(frozen=True)
class MaskFile:
    """What a mask file holds.

    Args:
        ids: uint8 or uint16 [H, W], an id a pixel, or None where it is coloured.
        colours: uint32 [H, W], red * 65536 + green * 256 + blue, or None where it holds ids.
        palette: uint32 [256], the colour of each id or ``NO_COLOUR``, or None where it has no palette.
        several: Whether further frames or pages lie behind it, which are not read.
    """

    ids: Array | None
    colours: Array | None = None
    palette: Array | None = None
    several: bool = False


def read_mask_file(path: str | os.PathLike[str]) -> MaskFile:
    """Read a mask as it is stored; its EXIF orientation does not count.

    Args:
        path: A PNG, TIFF, BMP, GIF or PNM file of one band (1 to 16 bits), with a palette, or of red, green, blue.

    Raises:
        DataError: It cannot be read, is a JPEG, or holds something else than ids or colours.
    """
    data = read_bytes(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            im = open_image(io.BytesIO(data))
            if im is None:
                raise BadImageError(not_an_image(data))
            kind, mode = im.format, im.mode
            check_size(*im.size, 4 if mode in ("I", "RGB", "RGBA") else 1)
            stretched = _stretched(data) if kind == "PNG" and mode == "L" else 1
            palette = _palette(im) if mode == "P" else None
            several = bool(getattr(im, "is_animated", False))
            pixels = np.asarray(im)
    except MemoryError:
        raise DataError(f"{path}: memory does not suffice to read the mask; cut picture and mask into tiles") from None
    except Exception as e:  # a damaged file can raise anything
        what = str(e).partition(";")[0]  # without the advice for pictures
        raise DataError(f"{path}: the mask cannot be read ({what}); copy or export it again") from None
    if kind in ("JPEG", "MPO"):
        raise DataError(f"{path}: is a JPEG, which blurs the ids of a mask; export the masks as PNG")
    if mode in ("RGBA", "LA"):
        if pixels[..., -1].min() < 255:
            raise DataError(f"{path}: the mask has transparent pixels, whose class is not clear; save it without alpha")
        pixels = pixels[..., :-1] if mode == "RGBA" else pixels[..., 0]
    elif mode not in (*_INDEXED, "RGB"):
        raise DataError(f"{path}: a mask of mode {mode} holds neither ids nor colours; save it as PNG of 8 or 16 bits")
    if pixels.ndim == 3:
        return MaskFile(None, pack(pixels), None, several)
    if mode == "I" and (pixels.min() < 0 or pixels.max() > 65535):
        raise DataError(f"{path}: holds the value {_outside(pixels)}; ids are 0..65535, correct the mask")
    ids = pixels // stretched if stretched > 1 else pixels
    return MaskFile(
        ids.astype(np.uint8 if pixels.dtype in (np.bool_, np.uint8) else np.uint16, copy=False), None, palette, several
    )


def pack(pixels: Array) -> Array:
    """Return uint8 [..., 3] of red, green, blue as one number each, uint32 [...]."""
    wide = pixels.astype(np.uint32)
    return np.asarray(wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2])


def unpack(colour: int) -> tuple[int, int, int]:
    """Return red, green and blue of a packed colour."""
    return colour >> 16, colour >> 8 & 255, colour & 255


@dataclass(frozen=True)
class FoundIds:
    """The ids that some masks hold.

    Args:
        ids: In how many masks each comes, by id.
        coloured: The first mask of other than gray colours, or "" where there is none.
        masks: Number of masks that could be read.
        problem: Why the first one of the others could not, or "".
    """

    ids: dict[int, int]
    coloured: str
    masks: int
    problem: str


def find_ids(paths: Sequence[str], *, colours: bool) -> FoundIds:
    """Return the ids that masks hold; those that cannot be read are passed over.

    Args:
        paths: Mask files.
        colours: Whether files of red, green and blue are coloured even where they are gray.
    """

    def ids(path: str) -> list[int] | str | None:
        try:
            mask = read_mask_file(path)
        except DataError as e:
            return str(e)
        values = mask.ids if mask.ids is not None or colours else gray(mask)
        return None if values is None else np.flatnonzero(np.bincount(values.ravel())).tolist()

    found: dict[int, int] = {}
    coloured, masks, problem = "", 0, ""
    for path, one in zip(paths, in_threads(ids, paths), strict=True):
        masks += not isinstance(one, str)
        if one is None:
            coloured = coloured or path
        elif isinstance(one, str):
            problem = problem or one
        else:
            for i in one:
                found[i] = found.get(i, 0) + 1
    return FoundIds(dict(sorted(found.items())), coloured, masks, problem)


def gray(mask: MaskFile) -> Array | None:
    """Return the ids of a mask that was saved as red, green and blue of the same value, or None where they differ."""
    colours = mask.colours
    if colours is None or ((colours >> 16 != colours & 255) | (colours >> 8 & 255 != colours & 255)).any():
        return None
    return (colours & 255).astype(np.uint8)


def in_threads(work: Callable[[A], B], items: Iterable[A]) -> list[B]:
    """Return what ``work`` makes of each item, in order, with a thread a processor, eight at most."""
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        return list(pool.map(work, items))


def _stretched(head: bytes) -> int:
    return _DEPTHS.get(head[24], 1) if head[12:16] == b"IHDR" and head[25] == 0 else 1


def _palette(im: Image.Image) -> Array:
    written = 256 if im.palette is None else len(im.palette.palette) // len(im.palette.mode)  # before it is filled up
    flat = (im.getpalette("RGB") or [])[:768]
    flat += [0] * (768 - len(flat))
    colours = pack(np.array(flat, np.uint8).reshape(256, 3))
    colours[written:] = NO_COLOUR
    return colours


def _outside(pixels: Array) -> int:
    return int(pixels.min() if pixels.min() < 0 else pixels.max())
