"""Names of files as other tools and machines wrote them, and what they are here."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from visionkit.core.errors import DataError

__all__ = [
    "Folders",
    "composed",
    "last_part",
    "only_composed",
    "only_composed_stems",
    "same_folder",
    "spellings",
    "split_list",
]

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_URL_END = re.compile(r"[?#].*", re.DOTALL)
_LOCAL_FILE = re.compile(r"/local-files/\?d=([^&#]+)")  # of Label Studio
_MAX_PATH = 4096  # characters; systems know no longer ones


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


def only_composed_stems(names: Iterable[str]) -> dict[str, str]:
    """Return names of files by their composed form without ending, as it is written before other forms of it."""
    found: dict[str, str] = {}
    for name in names:
        stem = os.path.splitext(name)[0]
        if composed(stem) not in found or stem == composed(stem):
            found[composed(stem)] = name
    return found


def spellings(name: str) -> list[str]:
    r"""Return what a path in a file of labels can mean: as it is, with slashes for backslashes, the path of an address.

    Args:
        name: Such as ``images\a.jpg`` or ``https://host/images/a.jpg?size=2``.
    """
    found = [name, name.replace("\\", "/")]
    if _URL.match(name):
        found.append(unquote(_URL_END.sub("", name).split("/", 3)[-1]))
    return list(dict.fromkeys(found))


class Folders:
    """Looks for files by name, in whichever form of Unicode the disk has it; lists each folder once at most."""

    def __init__(self) -> None:
        self._listed: dict[str, dict[str, str]] = {}

    def find(self, path: str | os.PathLike[str]) -> str | None:
        """Return the path of a file, normalised, or None where it is not there or several can be meant."""
        return self._find(os.path.normpath(path), os.path.isfile)

    def folder(self, path: str | os.PathLike[str]) -> str | None:
        """Return the path of a folder, as :meth:`find` does of a file."""
        return self._find(os.path.normpath(path), os.path.isdir)

    def _find(self, path: str, is_there: Callable[[str], bool]) -> str | None:
        if "\0" in path or len(path) > _MAX_PATH:
            return None
        if is_there(path):
            return path
        above, name = os.path.split(path)
        if not name or path.isascii():  # a decomposed name has characters beyond ASCII
            return None
        parent = self._find(above or ".", os.path.isdir)
        actual = None if parent is None else self._names(parent).get(composed(name))
        found = None if parent is None or actual is None else os.path.normpath(os.path.join(parent, actual))
        return found if found is not None and is_there(found) else None

    def _names(self, folder: str) -> dict[str, str]:
        if folder not in self._listed:
            try:
                self._listed[folder] = only_composed(os.listdir(folder or "."))
            except OSError:
                self._listed[folder] = {}
        return self._listed[folder]


def same_folder(folder: Path, *names: str) -> Path | None:
    """Return the folder of one of these names in a folder, in upper or lower case, or None where there is none.

    Args:
        folder: Where it lies.
        names: Lower case; the first that is there counts, and as it is written before others.
    """
    if not folder.is_dir():
        return None
    here = sorted(p for p in folder.iterdir() if p.name.lower() in names and p.is_dir())
    ordered = sorted(here, key=lambda p: (names.index(p.name.lower()), p.name not in names))
    return ordered[0] if ordered else None


def split_list(folder: Path, words: Iterable[str]) -> Path | None:
    """Return the text file in a folder that lists a split, or None where there is none.

    Args:
        folder: Where it lies.
        words: What it may be called, in lower case; CVAT writes Train.txt.

    Raises:
        DataError: There are several.
    """
    wanted = {f"{w}.txt" for w in words}
    found = sorted(f for f in folder.glob("*.*") if f.name.lower() in wanted and f.is_file())
    if len(found) > 1:
        raise DataError(f"{folder}: has both {found[0].name} and {found[1].name}; keep one")
    return found[0] if found else None


def last_part(name: str) -> str:
    """Return the name of a file without its folders, however they are parted."""
    local = _LOCAL_FILE.search(name)
    whole = spellings(name)[-1] if local is None else unquote(local[1])
    return PurePosixPath(whole.replace("\\", "/")).name
