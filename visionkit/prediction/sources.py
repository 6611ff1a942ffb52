"""Which pictures are meant by what is asked to be predicted: files, folders, globs, manifests, URLs, bytes."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import BinaryIO, TypeAlias

from visionkit.core.errors import DataError, UsageError
from visionkit.core.files import read_bytes, read_stream
from visionkit.core.web import fetch, is_url
from visionkit.data.images.formats import MAX_BYTES
from visionkit.data.images.listing import list_images, passed_over
from visionkit.data.labels.manifest import MANIFEST_SUFFIXES, read_rows
from visionkit.prediction.pictures import ImageFile

__all__ = ["Source", "find_images", "from_stdin", "read_list"]

Source: TypeAlias = "str | os.PathLike[str] | ImageFile"
"""A picture file, a folder, a glob, a manifest (.csv, .jsonl) or a URL (http, https)."""

MAX_LIST = 2**28  # bytes of a list


def find_images(
    sources: Source | Sequence[Source], *, tell: Callable[[str], None] | None = None, channels: int = 3
) -> list[ImageFile]:
    """Return the pictures that files, folders, globs, manifests and URLs name, each once, in order.

    Only what is given here is ever fetched: a manifest that names a URL names a file that is not there.

    Args:
        sources: One or several.
        tell: Is told in a line each what a folder holds that is not read.
        channels: Of the images; other than 1 or 3 lists ``.npy`` files, too.

    Raises:
        UsageError: A source matches nothing, or is a URL of a kind that is not read.
        DataError: A folder holds no pictures, or a manifest is wrong.
    """
    several = [sources] if isinstance(sources, str | os.PathLike | ImageFile) else sources
    found: dict[str, ImageFile] = {}
    for source in several:
        for picture in _pictures(source, tell, channels):
            key = picture.path if picture.load is not None else os.path.normpath(picture.path)
            if key not in found or picture.extra:  # what a manifest says of a picture is kept
                found[key] = picture
    return list(found.values())


def from_stdin(stream: BinaryIO) -> ImageFile:
    """Return the picture whose bytes a stream holds, named ``stdin``; they are read now.

    Args:
        stream: Standard input.

    Raises:
        UsageError: It is a terminal.
        DataError: It holds nothing, or more than a picture may have.
    """
    if stream.isatty():
        raise UsageError("- reads a picture's bytes from standard input, here a terminal: add, as in: < photo.jpg")
    data = read_stream(stream, "standard input", limit=MAX_BYTES)
    if not data:
        raise DataError("standard input: holds nothing; a picture's bytes are read there, as in: ... - < photo.jpg")
    return ImageFile("stdin", load=lambda: data)


def read_list(name: str, stream: BinaryIO) -> list[ImageFile]:
    """Return the picture files that a list names, a path each line; empty lines are passed over.

    Args:
        name: The file of the list, or ``-`` for the stream.
        stream: Standard input.

    Raises:
        DataError: It cannot be read or names nothing.
    """
    where = "standard input" if name == "-" else name
    data = read_stream(stream, where, limit=MAX_LIST) if name == "-" else read_bytes(name, limit=MAX_LIST)
    lines = [os.fsdecode(line.rstrip(b"\r")) for line in data.split(b"\n")]
    found = [ImageFile(line) for line in lines if line.strip()]
    if not found:
        raise DataError(f"{where}: lists no pictures; write the path of a picture in each line")
    return found


def _pictures(source: Source, tell: Callable[[str], None] | None, channels: int) -> list[ImageFile]:
    if isinstance(source, ImageFile):
        return [source]
    name = os.fspath(source)
    path = Path(name)
    if path.is_dir():
        pictures = [ImageFile(str(p)) for p in list_images(path, channels=channels)]
        others = passed_over([path]).lines()
        if not pictures:
            raise DataError("; ".join([f"{path}: the folder holds no pictures", *others]))
        for line in others if tell is not None else ():
            tell(f"{path}: {line}")  # type: ignore[misc]  # it is none only where there are no lines
        return pictures
    if path.is_file():
        return _from_manifest(path) if path.suffix.lower() in MANIFEST_SUFFIXES else [ImageFile(name)]
    if is_url(name):
        if not name.lower().startswith(("http://", "https://")):
            raise UsageError(f"{name}: of URLs those of http and https are read; download it first")
        return [ImageFile(name, load=partial(fetch, name))]
    matches = sorted(p for p in glob.glob(name, recursive=True) if Path(p).is_file())
    if not matches:
        raise UsageError(f"{name}: no such picture, folder or manifest, and no file matches it as a glob")
    return [ImageFile(p) for p in matches]


def _from_manifest(path: Path) -> list[ImageFile]:
    """Return the pictures of a manifest; its label column, the truth, comes back as ``truth``."""
    pictures = []
    for row in read_rows(path):
        cells = dict(row.cells)
        name = str(cells.pop("path") or "").strip()
        if not name:
            raise DataError(f"{row.where}: no path; write the image's file")
        extra = {"truth" if k in ("label", "labels") else k: v for k, v in cells.items()}
        pictures.append(ImageFile(str(path.parent / name), extra))
    if not pictures:
        raise DataError(f"{path}: lists no images; add a line for each image")
    return pictures
