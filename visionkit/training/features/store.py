"""A folder of numbers: feature maps of pictures, found by the pictures' keys."""

from __future__ import annotations

import json
import os
import re
import shutil
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from visionkit.core.errors import UsageError
from visionkit.core.files import locked, read_bytes, read_text, write_text

__all__ = [
    "KEY_BYTES",
    "CacheError",
    "FeatureStore",
    "Level",
    "make_room",
    "remove_store",
    "remove_with_lock",
]

DATA, INDEX, LAYOUT = "features.bin", "index", "store.json"  # the files of a store
KEY_BYTES = 16
"""Length of a picture's key, which is written as twice as many hexadecimal digits."""
_LINE = re.compile(rb"[0-9a-f]{%d} [0-9a-f]{8}\n" % (2 * KEY_BYTES))


class CacheError(UsageError):
    """Features cannot be kept: there is no room, or no way to write."""


@dataclass(frozen=True)
class Level:
    """How one level of one picture is kept.

    Args:
        shape: Channels, height and width.
        dtype: Name of torch's type, such as "bfloat16".
        channels_last: Whether the channels of a cell lie side by side.
        kept: Whether neck or head read it; others come back as zeros that take no memory.
    """

    shape: tuple[int, int, int]
    dtype: str
    channels_last: bool
    kept: bool

    @classmethod
    def of(cls, level: Tensor, kept: bool) -> Level:
        """Describe a level [B, C, H, W]."""
        channels, height, width = level.shape[1:]
        return cls((channels, height, width), str(level.dtype).removeprefix("torch."), not level.is_contiguous(), kept)

    @property
    def torch_dtype(self) -> torch.dtype:
        """Type of the numbers."""
        dtype: torch.dtype = getattr(torch, self.dtype)
        return dtype

    @property
    def size(self) -> int:
        """Bytes that are kept of a picture."""
        return int(np.prod(self.shape)) * self.torch_dtype.itemsize if self.kept else 0

    def to_bytes(self, level: Tensor) -> NDArray[np.uint8]:
        """Return a level [B, C, H, W] as bytes, [B, size]."""
        ordered = level.permute(0, 2, 3, 1) if self.channels_last else level
        flat = ordered.to("cpu", self.torch_dtype).contiguous().flatten(1)
        array: NDArray[np.uint8] = flat.view(torch.uint8).numpy()
        return array

    def from_bytes(self, data: NDArray[np.uint8], device: torch.device) -> Tensor:
        """Return bytes [B, size] as the level [B, C, H, W] that they were."""
        channels, height, width = self.shape
        flat = torch.from_numpy(data).view(self.torch_dtype).to(device)
        if self.channels_last:
            return flat.view(-1, height, width, channels).permute(0, 3, 1, 2)
        return flat.view(-1, channels, height, width)


class FeatureStore:
    """A folder with features of pictures, in records of one size, to which more can be added.

    ``features.bin`` holds the records, ``index`` the key and the check sum of each, a line a record, written after it,
    and ``store.json`` the layout. What a killed process left behind is used as far as the index goes; files that do not
    fit together are dropped, and so is a record whose check sum is wrong.

    Args:
        folder: Where the files lie; made if need be.
        levels: How a picture's levels are kept.
        limit: Gigabytes that the records may take.
    """

    def __init__(self, folder: Path, levels: Sequence[Level], *, limit: float = float("inf")) -> None:
        self.folder = folder
        self.levels = tuple(levels)
        self.record = sum(level.size for level in levels)
        """Bytes of a picture."""
        self.rows: dict[str, int] = {}
        """Key of a picture -> its record."""
        self.limit = limit
        self.count = 0
        """Records, also those that nobody reads any more."""
        self._unsure: dict[str, int] = {}  # check sums of the records that another process wrote, until they are used
        self._columns: list[NDArray[np.uint8]] = []  # of each kept level, [pictures, size], once mapped
        folder.mkdir(parents=True, exist_ok=True)
        self._open()

    def _open(self) -> None:
        data, index, layout = (self.folder / name for name in (DATA, INDEX, LAYOUT))
        text = json.dumps({"record": self.record, "levels": [asdict(level) for level in self.levels]}, indent=1) + "\n"
        lines: list[bytes] = []
        if all(p.is_file() for p in (data, index, layout)) and read_text(layout) == text:
            lines = read_bytes(index).splitlines(keepends=True)
        entire = [_LINE.fullmatch(line) is not None for line in lines]
        whole = [line.decode("ascii") for line in lines[: sum(entire)]]
        if not all(entire[:-1]) or (whole and data.stat().st_size < len(whole) * self.record):
            whole = []  # a process that was killed tears the end alone
        if not whole:
            for path in (index, data):
                path.unlink(missing_ok=True)  # another process may read the old ones to its end
            data.touch()
        if len(whole) < len(lines) or not index.is_file():
            index.write_text("".join(whole), encoding="ascii", newline="\n")
        if data.stat().st_size > len(whole) * self.record:
            os.truncate(data, len(whole) * self.record)
        write_text(layout, text)  # its time says when the store was used last
        self.count = len(whole)
        told = [line.split() for line in whole]
        self.rows = {key: row for row, (key, _) in enumerate(told)}
        self._unsure = {key: int(check, 16) for key, check in told}

    def holds(self, key: str) -> bool:
        """Return whether the features of a picture are there, and are those that were written."""
        if key in self.rows and (check := self._unsure.pop(key, None)) is not None:
            self.map()
            row = self.rows[key]
            record = np.concatenate([column[row] for column in self._columns])
            if zlib.crc32(record.tobytes()) != check:  # a disk that fails, or another program
                del self.rows[key]
        return key in self.rows

    def append(self, keys: Sequence[str], levels: Sequence[Tensor]) -> None:
        """Add pictures.

        Args:
            keys: Their keys, length B; none is there already.
            levels: One tensor [B, C_l, H_l, W_l] a level.

        Raises:
            CacheError: The limit is reached.
        """
        if (self.count + len(keys)) * self.record > self.limit * 1e9:
            raise CacheError(
                f"{self.folder} is full with features of other pictures: remove it or raise recipe.cache_limit "
                f"{self.limit:g}"
            )
        parts = [spec.to_bytes(level) for spec, level in zip(self.levels, levels, strict=True) if spec.kept]
        with (self.folder / DATA).open("ab") as file:
            records = np.concatenate(parts, axis=1)
            file.write(records.tobytes())
            file.flush()
            os.fsync(file.fileno())
        with (self.folder / INDEX).open("a", encoding="ascii", newline="\n") as lines:
            checks = [zlib.crc32(record.tobytes()) for record in records]
            lines.write("".join(f"{key} {check:08x}\n" for key, check in zip(keys, checks, strict=True)))
        for key in keys:
            self.rows[key] = self.count
            self.count += 1
        self._columns = []

    def map(self) -> None:
        """Map the file of the records as it is now: another process may then remove or replace it."""
        if not self._columns:
            records = np.asarray(np.memmap(self.folder / DATA, np.uint8, "r")).reshape(-1, self.record)
            ends = np.cumsum([level.size for level in self.levels])
            self._columns = [records[:, end - v.size : end] for v, end in zip(self.levels, ends, strict=True)]

    def read(self, rows: NDArray[np.int64], device: torch.device) -> list[Tensor]:
        """Return the features of pictures, [B, C_l, H_l, W_l] a level.

        Args:
            rows: Their records, length B.
            device: Where they are wanted.
        """
        self.map()
        found = []
        for level, column in zip(self.levels, self._columns, strict=True):
            if level.kept:
                found.append(level.from_bytes(column[rows], device))
            else:
                found.append(torch.zeros((), dtype=level.torch_dtype, device=device).expand(len(rows), *level.shape))
        return found


def make_room(folder: Path, name: str, needed: int, limit: float) -> None:
    """Remove the stores of a folder that were used least recently, until another one fits.

    Those that a process fills at the moment stay.

    Args:
        folder: Where the stores lie.
        name: The store that needs room; it stays.
        needed: Bytes that it needs altogether.
        limit: Gigabytes of all stores together.

    Raises:
        CacheError: It does not fit even alone.
    """
    if needed > limit * 1e9:
        raise CacheError(f"they take {needed / 1e9:.3g} GB: raise recipe.cache_limit {limit:g}")
    others = [p.parent for p in folder.glob(f"*/{LAYOUT}") if p.parent.name != name]
    others.sort(key=lambda p: (p / LAYOUT).stat().st_mtime_ns, reverse=True)  # the newest are kept
    used = needed
    for other in others:
        size = _size(other)
        used += size
        if used > limit * 1e9:
            with locked(folder / f"{other.name}.lock", wait=False) as mine:
                if mine:
                    remove_store(other)
                    used -= size
    free = shutil.disk_usage(folder).free + _size(folder / name)
    if needed > free:
        raise CacheError(f"they take {needed / 1e9:.3g} GB, {folder} has {free / 1e9:.3g} GB left")


def remove_store(folder: Path) -> None:
    """Remove a store's files, and its folder where nothing else is in it."""
    for part in (LAYOUT, INDEX, DATA):
        (folder / part).unlink(missing_ok=True)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def remove_with_lock(folder: Path) -> None:
    """Remove a store that no other process uses, with its lock, and the folder above where nothing else is in it."""
    remove_store(folder)
    folder.with_name(f"{folder.name}.lock").unlink(missing_ok=True)
    if folder.parent.is_dir() and not any(folder.parent.iterdir()):
        folder.parent.rmdir()


def _size(folder: Path) -> int:
    return sum((folder / part).stat().st_size for part in (DATA, INDEX, LAYOUT) if (folder / part).is_file())
