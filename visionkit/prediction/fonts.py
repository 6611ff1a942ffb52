"""Fonts for class names in any script: Pillow's own, DejaVu, else one of the system's that has the letters."""

from __future__ import annotations

from functools import cache

from PIL import ImageFont

from visionkit.core.text import printable, say

__all__ = ["Font", "font_for"]

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def font_for(text: str, size: int) -> Font:
    """Return a font that has the letters of a text; where none has, that is said once and they appear as boxes.

    Args:
        text: What will be written.
        size: Height of the letters in pixels.
    """
    letters = frozenset(c for c in text if not c.isspace() and c.isprintable())
    if all(c.isascii() or c == "…" for c in letters):
        return ImageFont.load_default(size)
    path = _path_for(letters)
    if path is None:
        lacking = "".join(sorted(c for c in letters if ord(c) not in _letters(_own())))
        _tell(lacking)
    return ImageFont.truetype(path or _own(), size)


def _own() -> str:
    """Return the path of DejaVu, which matplotlib brings: Latin, Greek, Cyrillic and more."""
    import matplotlib

    return f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf"


@cache
def _path_for(letters: frozenset[str]) -> str | None:
    wanted = set(map(ord, letters))
    return next((path for path in (_own(), *_installed()) if wanted <= _letters(path)), None)


@cache
def _installed() -> tuple[str, ...]:
    from matplotlib import font_manager

    return tuple(sorted(font_manager.findSystemFonts()))


@cache
def _letters(path: str) -> frozenset[int]:
    """Return the code points that a font has; none where it cannot be read."""
    from matplotlib.ft2font import FT2Font

    try:
        return frozenset(FT2Font(path).get_charmap())
    except Exception:  # a damaged font can raise anything
        return frozenset()


_told: set[str] = set()


def _tell(lacking: str) -> None:
    if not _told:
        _told.add(lacking)
        say(
            f"warning: no font here has the letters {printable(lacking[:20])}: they are drawn as boxes; install one, "
            "such as Noto Sans CJK",
            error=True,
        )
