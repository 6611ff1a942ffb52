"""Small pictures for tests of readers."""

from __future__ import annotations

import os
import zlib


def colour_of(path: str | os.PathLike[str]) -> tuple[int, int, int]:
    """Return a colour that goes by the path: pictures of one colour each are no copies of each other."""
    value = zlib.crc32(os.fsencode(path))
    return value >> 16 & 255, value >> 8 & 255, value & 255
