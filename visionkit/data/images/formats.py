"""Which image formats are read, how large a picture may be, and what to say of a file that is none."""

from __future__ import annotations

import importlib
import io
from functools import cache
from typing import BinaryIO

from PIL import Image

from visionkit.data.images.listing import reads_heif
from visionkit.data.images.tiff import TiffError, check_tags

__all__ = [
    *("CUT", "DAMAGED", "MAX_BYTES", "MAX_PIXELS"),
    *("BadImageError", "check_size", "not_an_image", "open_image", "orientation"),
]

MAX_PIXELS = 178_956_970
"""Larger pictures are refused before they are decoded (a few kB can claim gigabytes); Pillow's own limit."""
MAX_BYTES = 2**30
"""Pictures whose samples take more are refused before they are decoded: those of 16 bits, of floats, of many bands."""

_FORMATS = (
    "JPEG",
    "MPO",
    "PNG",
    "BMP",
    "DIB",
    "GIF",
    "WEBP",
    "TIFF",
    "PPM",
    "JPEG2000",
    "AVIF",
    "HEIF",
)  # EPS runs a program
CUT = "the file is cut off; copy or download it again, or remove it"
DAMAGED = "the file is damaged; copy or download it again, or remove it"


class BadImageError(Exception):
    """What is wrong with the data and what to do; the caller puts the name before it."""


def open_image(file: BinaryIO) -> Image.Image | None:
    """Open an image with Pillow, which reads no pixels yet; None where its head is none of an image.

    Args:
        file: A file, at its start, of one of the formats that are read; no others are tried, some run programs.

    Raises:
        BadImageError: It claims far too many pixels, or tags of more bytes than it has.
    """
    _init()
    start = file.tell()
    if file.read(4)[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        file.seek(start)
        try:
            check_tags(file)
        except TiffError as e:
            raise BadImageError(f"a damaged TIFF: {e}") from None
    file.seek(start)
    try:
        return Image.open(file, formats=[f for f in _FORMATS if f in Image.OPEN])
    except Image.DecompressionBombError:
        raise BadImageError(_too_large("more than")) from None
    except Exception:  # a damaged header can raise anything; the caller says what it looks like
        return None


@cache
def _init() -> None:
    """Load Pillow's plugins, and that of the extra ``heif`` where it is installed: it decodes and starts nothing."""
    Image.init()
    if reads_heif:
        importlib.import_module("pi_heif").register_heif_opener()


def orientation(im: Image.Image) -> int:
    """Return the EXIF orientation of an opened picture, 1..8; 1 where it has none or damaged EXIF."""
    try:
        exif = im.info.get("exif")
        if isinstance(exif, bytes):
            check_tags(io.BytesIO(exif.removeprefix(b"Exif\0\0")))
        return int(im.getexif().get(0x0112, 1))
    except Exception:  # damaged EXIF can raise anything: the picture itself is fine, and so is its storage order
        return 1


def check_size(width: int, height: int, sample_bytes: int = 1) -> None:
    """Refuse a picture whose head claims no pixels, too many, or more bytes than decoding may take.

    Args:
        width: In pixels.
        height: In pixels.
        sample_bytes: Of all the samples of a pixel together.

    Raises:
        BadImageError: It does.
    """
    if width < 1 or height < 1:
        raise BadImageError(f"the header says {width} x {height} pixels; {DAMAGED}")
    if width * height > MAX_PIXELS:
        raise BadImageError(_too_large(f"{width} x {height} pixels, more than"))
    if width * height * sample_bytes > MAX_BYTES:
        taken = f"{width} x {height} pixels of {sample_bytes} bytes take {width * height * sample_bytes / 1e9:.1f} GB"
        raise BadImageError(
            f"{taken}, more than {MAX_BYTES / 1e9:.1f}; make it smaller, cut it into tiles or save it with 8 bits"
        )


def _too_large(what: str) -> str:
    return f"{what} {MAX_PIXELS // 1_000_000} million pixels; make it smaller or cut it into tiles"


def not_an_image(data: bytes) -> str:
    """Say what data looks like that is no image, and what to do."""
    start = data[:256].lstrip()
    if data[4:12] in (b"ftypheic", b"ftypheix", b"ftypmif1", b"ftypheif", b"ftypmsf1", b"ftyphevc", b"ftypheim"):
        if reads_heif:
            return f"a HEIC picture whose header is unreadable; {DAMAGED}"
        return "a HEIC picture, which cannot be read; pip install 'visionkit[heif]', or convert it to JPEG or PNG"
    if start.startswith(b"%PDF"):
        return "a PDF, not an image; export its pages as PNG"
    if start[:1] == b"<":
        svg = b"<svg" in data[:1024]
        return f"{'an SVG drawing' if svg else 'a web page or XML'}, not an image; save it as PNG or JPEG"
    if not data.strip(b"\0"):
        return "holds nothing but zeros; copy or download it again, or remove it"
    if data.startswith((b"\x89PNG", b"GIF8", b"BM", b"RIFF", b"II*\0", b"MM\0*")) or data[4:12] == b"ftypavif":
        return f"the header is unreadable or of an unknown kind; {DAMAGED}"
    return "not an image of a known kind; convert it to JPEG or PNG, or remove it"
