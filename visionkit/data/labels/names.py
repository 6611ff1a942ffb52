"""Names that are the same to a reader and not to a computer: Unicode writes an umlaut as one character or as two."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

__all__ = ["composed", "only_composed"]


def composed(name: str) -> str:
    """Return a name in Unicode's composed form (NFC), as most tools write it; a Mac's archive holds the other one."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def only_composed(names: Iterable[str]) -> dict[str, str]:
    """Return names by their composed form, without those forms that several of the names have.

    Args:
        names: Such as the files of a folder.
    """
    found: dict[str, str] = {}
    twice: set[str] = set()
    for name in names:
        key = composed(name)
        if found.setdefault(key, name) != name:
            twice.add(key)
    return {key: name for key, name in found.items() if key not in twice}
