"""Files that are one picture under several names: links to a file, and copies of it."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import TypeVar

from visionkit.core.errors import DataError
from visionkit.core.files import open_binary

__all__ = ["first_twins"]

_BLOCK = 4096  # bytes from the middle that are compared before whole files are
K = TypeVar("K", bound=Hashable)


def first_twins(paths: Sequence[str], sides: Sequence[str] | None = None) -> list[int]:
    """Return for each path the position of the first one that is the same file or holds the same bytes; often its own.

    Of files that no other equals in size nothing is read, of most others one block.

    Args:
        paths: Files; what is none, is empty or cannot be read is nobody's twin.
        sides: A word a path: files of one word alone need not be told apart. None tells all apart.

    Returns:
        As many positions, each at most that of the path itself.
    """
    first = list(range(len(paths)))
    of_file: dict[tuple[int, int] | str, int] = {}
    sizes: dict[int, list[int]] = {}
    words: dict[int, set[str]] = {}  # sides of a file under all its names
    for i, path in enumerate(paths):
        try:
            facts = os.stat(path)
        except (OSError, ValueError):  # the check of the images says what is wrong
            continue
        first[i] = of_file.setdefault((facts.st_dev, facts.st_ino) if facts.st_ino else os.path.abspath(path), i)
        words.setdefault(first[i], set()).add("" if sides is None else sides[i])
        if first[i] == i and stat.S_ISREG(facts.st_mode) and facts.st_size:
            sizes.setdefault(facts.st_size, []).append(i)

    def told_apart(group: Sequence[int]) -> bool:
        return len(group) > 1 and (sides is None or len(set().union(*(words[i] for i in group))) > 1)

    same: dict[int, int] = {}
    for group in filter(told_apart, sizes.values()):
        for near in _alike(group, lambda i: _block(paths[i])):
            for twins in _alike(near, lambda i: _digest(paths[i])) if told_apart(near) else ():
                same.update(dict.fromkeys(twins, twins[0]))
    return [same.get(i, i) for i in first]


def _alike(group: Iterable[int], key: Callable[[int], K | None]) -> list[list[int]]:
    """Return the members of a group by their key, without those that have none."""
    found: dict[K, list[int]] = {}
    for i in group:
        if (k := key(i)) is not None:
            found.setdefault(k, []).append(i)
    return list(found.values())


def _block(path: str) -> bytes | None:
    try:
        with open_binary(path) as file:
            file.seek(max(0, (os.fstat(file.fileno()).st_size - _BLOCK) // 2))
            return file.read(_BLOCK)
    except (OSError, DataError):
        return None


def _digest(path: str) -> bytes | None:
    try:
        with open_binary(path) as file:
            return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).digest()
    except (OSError, DataError):
        return None
