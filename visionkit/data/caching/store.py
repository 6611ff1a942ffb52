"""Decoded pictures that are kept, in memory or in a folder, for all processes that load them.

A file of pixels and a file of records, one a picture. Records are found by path, size and times of the picture's file,
so a picture that has changed is read anew. A record is written after its pixels, so what a killed process leaves behind
is never taken for a picture.
"""

from __future__ import annotations

import contextlib
import math
import mmap
import os
import struct
import sys
import tempfile
import weakref
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from visionkit.core.errors import DataError, UsageError
from visionkit.core.files import open_binary, read_bytes, read_text
from visionkit.core.text import say

if sys.platform != "win32":
    import fcntl

__all__ = ["LAYOUT", "Kept", "ImageStore", "available_memory", "filled", "remove_images", "remove_unused", "taken"]

Array = NDArray[np.uint8]

PIXELS, RECORDS, LAYOUT = "pixels.bin", "records.bin", "pictures.json"
RECORD = np.dtype(
    [
        ("key", "V16"),
        ("offset", "<u8"),
        ("shape", "<u4", 3),  # of the pixels
        ("size", "<u4", 2),  # of the original
        ("check", "<u4"),  # of the pixels, then shape and size
    ]
)
"""``offset`` is 1 more than where the pixels lie; 0 says that they are not there (yet). The first record is no
picture's: there it is where free room begins."""
_NUMBERS = struct.Struct("<Q3I2II")  # a record behind its key
_SHAPES = struct.Struct("<3I2I")
_KEY = 16
_STOPPED = 2**62  # where free room begins if nothing shall be written any more


class Kept(NamedTuple):
    """A picture that was kept."""

    pixels: Array
    """uint8 [H, W, C]."""
    size: tuple[int, int]
    """Height and width of the original."""


class _Found(NamedTuple):
    """What a record says of its picture."""

    offset: int
    shape: tuple[int, ...]
    size: tuple[int, int]
    check: int


class ImageStore:
    """Pixels of pictures, to be read and added to by several processes.

    Args:
        folder: Where the files lie; None keeps them in memory, of this process and those that it starts.
        limit: Bytes that the pixels may take.

    Raises:
        UsageError: The system has no way to share files so.
        OSError: The folder cannot be written.
    """

    def __init__(self, folder: Path | None, *, limit: int) -> None:
        if sys.platform == "win32":
            raise UsageError("data.cache: Windows lacks what shared caches need (os.pread): set data.cache none")
        self.folder = folder
        self.limit = limit
        self.rows: dict[bytes, int] = {}
        """Key of a picture -> its record."""
        self._found: dict[int, _Found] = {}  # by record
        self._trusted = bytearray()  # of each record: whether its pixels are known to be whole
        self._full = False
        self._made: Callable[[], Any] = bool  # gives back what was made for this process alone
        if folder is None:
            self._paths, self._made = _memory_files(self)
        else:
            folder.mkdir(parents=True, exist_ok=True)
            self._paths = (str(folder / PIXELS), str(folder / RECORDS))
        self._open()

    def _open(self) -> None:
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0)
        self._pixels, self._records = (os.open(path, flags, 0o666) for path in self._paths)
        self._closed = weakref.finalize(self, _close, self._pixels, self._records)
        in_memory = self.folder is None and hasattr(os, "memfd_create")
        self._memory = _mapped(self._pixels, self.limit) if in_memory else None
        if self.folder is not None:
            with contextlib.suppress(OSError):  # some network file systems have no such locks
                fcntl.flock(self._pixels, fcntl.LOCK_SH)  # in use: nobody removes it

    def __getstate__(self) -> dict[str, Any]:
        """Travel to a worker process, which opens the same files."""
        here = ("_pixels", "_records", "_closed", "_memory")
        return {k: v for k, v in self.__dict__.items() if k not in here} | {"_made": bool}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Open the files that another process has opened."""
        self.__dict__.update(state)
        self._open()

    def close(self) -> None:
        """Give files and memory back; workers keep theirs until they end."""
        self._memory = None
        self._found.clear()
        self._closed()
        self._made()

    def alone(self) -> bool:
        """Return whether no other process uses the store, which then stays so until it is closed."""
        try:
            fcntl.flock(self._pixels, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            with contextlib.suppress(OSError):
                fcntl.flock(self._pixels, fcntl.LOCK_SH)
            return False
        return True

    # ---- which pictures there are

    def plan(self, keys: Iterable[bytes]) -> int:
        """Give each picture a record, before other processes are started; return how many are known already.

        Args:
            keys: Of the pictures, 16 bytes each.
        """
        wanted = dict.fromkeys(keys)
        with self._locked():
            table = self._table()
            self.rows = {key: row for row, key in enumerate(table["key"].tolist(), 1)}
            new = [key for key in wanted if key not in self.rows]
            self.rows |= {key: row for row, key in enumerate(new, 1 + len(table))}
            added = np.zeros(len(new), RECORD)
            added["key"] = np.frombuffer(b"".join(new), "V16")
            ends = table["offset"].astype(np.float64) - 1 + table["shape"].astype(np.float64).prod(1)
            end = int(ends[ends <= os.fstat(self._pixels).st_size].max(initial=0))  # others are damaged
            if not len(table):
                os.pwrite(self._records, b"\0" * RECORD.itemsize, 0)
            if not end <= self._free() < _STOPPED:  # there may be room again; what is there is not overwritten
                self._set_free(end)
            os.pwrite(self._records, added.tobytes(), (1 + len(table)) * RECORD.itemsize)
        filled = table["offset"] > 0
        self._trusted = bytearray(b"\1" + (~filled).tobytes() + b"\1" * len(new))  # what this run adds is whole
        return sum(row <= len(table) and bool(filled[row - 1]) for row in map(self.rows.__getitem__, wanted))

    def _table(self) -> NDArray[Any]:
        """Return all whole records but the first, which is none."""
        count = os.fstat(self._records).st_size // RECORD.itemsize
        data = os.pread(self._records, count * RECORD.itemsize, 0)
        return np.frombuffer(data, RECORD, len(data) // RECORD.itemsize)[1:]

    @property
    def used(self) -> int:
        """Bytes that the pixels of all pictures take."""
        return self._free()

    # ---- pixels

    def read(self, row: int, out: Array | None = None, *, shared: bool = False) -> Kept | None:
        """Return a picture, or None where it is not there.

        Args:
            row: Its record.
            out: uint8 [H, W, C], contiguous: where the pixels shall lie if they have that shape.
            shared: Whether the pixels may be those that are kept: an array that cannot be written.
        """
        try:
            found = self._found.get(row) or self._find(row)
            if found is None:
                return None
            offset, shape, size, check = found
            if self._memory is not None:
                pixels = self._memory[offset : offset + math.prod(shape)].reshape(shape)
                if shared:
                    return Kept(pixels, size)
            if out is None or out.shape != shape:
                out = np.empty(shape, np.uint8)
            if self._memory is not None:
                np.copyto(out, pixels)
            elif os.preadv(self._pixels, [out.data], offset) < out.nbytes:
                return None
        except OSError:  # a disk that fails: the picture itself can still be read
            return None
        if not self._trusted[row]:
            if _check(out.data, shape, size) != check:  # the machine stopped before all of it was on the disk
                del self._found[row]  # a process that reads the file anew writes another record
                return None
            self._trusted[row] = 1
        return Kept(out, size)

    def _find(self, row: int) -> _Found | None:
        """Return what a record says of its picture, once that is there."""
        data = os.pread(self._records, RECORD.itemsize, row * RECORD.itemsize)
        if len(data) < RECORD.itemsize:
            return None
        offset, *shape, height, width, check = _NUMBERS.unpack_from(data, _KEY)
        if not offset:
            return None
        if offset - 1 + math.prod(shape) > os.fstat(self._pixels).st_size:  # damaged
            return None
        self._found[row] = _Found(offset - 1, tuple(shape), (height, width), check)
        return self._found[row]

    def write(self, row: int, pixels: Array, size: tuple[int, int]) -> None:
        """Keep a picture, if there is room.

        Args:
            row: Its record.
            pixels: uint8 [H, W, C].
            size: Height and width of the original.
        """
        if self._full:
            return
        pixels = np.ascontiguousarray(pixels)
        try:
            offset = self._allocate(pixels.nbytes)
            if offset is None:
                return
            view, done = pixels.data.cast("B"), 0
            while done < len(view):
                done += os.pwrite(self._pixels, view[done:], offset + done)
            check = _check(view, pixels.shape, size) if self.folder is not None else 0
            numbers = _NUMBERS.pack(offset + 1, *pixels.shape, *size, check)
            os.pwrite(self._records, numbers, row * RECORD.itemsize + _KEY)
            self._found.pop(row, None)
            self._trusted[row] = 1
        except OSError as e:
            self._end(f"pictures no longer cached: {self.folder or 'memory'} cannot be written ({e.strerror or e})")

    def _allocate(self, count: int) -> int | None:
        """Return where a number of bytes may be written, or None where there is no room."""
        with self._locked():
            free = self._free()
            if free + count > self.limit:
                self._full = True
                return None
            self._set_free(free + count)
            return free

    def _free(self) -> int:
        return int.from_bytes(os.pread(self._records, 8, _KEY), "little")

    def _set_free(self, offset: int) -> None:
        os.pwrite(self._records, offset.to_bytes(8, "little"), _KEY)

    def _end(self, message: str) -> None:
        """Let no process write any more, and say so once."""
        self._full = True
        with contextlib.suppress(OSError), self._locked():
            told = self._free() >= _STOPPED
            self._set_free(_STOPPED)
            if not told:
                say(message)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Let no other process change the records."""
        fcntl.lockf(self._records, fcntl.LOCK_EX, 1)
        try:
            yield
        finally:
            fcntl.lockf(self._records, fcntl.LOCK_UN, 1)


def _check(pixels: memoryview, shape: tuple[int, ...], size: tuple[int, int]) -> int:
    """Return the check sum of a picture and of what its record says of it."""
    return zlib.crc32(_SHAPES.pack(*shape, *size), zlib.crc32(pixels))


def available_memory() -> int:
    """Return how many bytes of memory could be taken without pushing anything out, as far as the system says."""
    found = [2**62]
    with contextlib.suppress(DataError, ValueError, StopIteration):
        lines = read_text("/proc/meminfo").splitlines()
        found.append(1024 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")))
    with contextlib.suppress(DataError, ValueError):  # of a container; "max" is no number
        group = Path("/sys/fs/cgroup")
        used = int(read_text(group / "memory.current"))
        found.append(max(0, int(read_text(group / "memory.max")) - used))
    if len(found) == 1:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2)
    return min(found)


def filled(folder: Path) -> set[bytes]:
    """Return the keys of the pictures that the store of a folder holds; none where there is no store."""
    try:
        data = read_bytes(folder / RECORDS)
    except DataError:
        return set()
    table = np.frombuffer(data, RECORD, len(data) // RECORD.itemsize)[1:]
    return set(table["key"][table["offset"] > 0].tolist())


def taken(folder: Path) -> int:
    """Return the bytes that the store of a folder takes on the disk."""
    found = 0
    for name in (PIXELS, RECORDS, LAYOUT):
        with contextlib.suppress(OSError):
            found += (folder / name).stat().st_blocks * 512
    return found


def remove_images(folder: Path) -> None:
    """Remove the store of a folder, and the folder where nothing else is in it."""
    for name in (LAYOUT, RECORDS, PIXELS):
        (folder / name).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        folder.rmdir()


def remove_unused(folder: Path) -> bool:
    """Remove the store of a folder unless a process uses it; return whether it is gone."""
    try:
        with open_binary(folder / PIXELS) as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            remove_images(folder)
    except (DataError, OSError):
        return False
    return True


def _memory_files(store: ImageStore) -> tuple[tuple[str, str], Callable[[], Any]]:
    """Return the names of two files in memory that live as long as a store, and what removes them earlier."""
    if hasattr(os, "memfd_create"):  # Linux: no place on a disk, no limit but that of the memory
        made = [os.memfd_create(name) for name in (PIXELS, RECORDS)]
        first, second = (f"/proc/{os.getpid()}/fd/{file}" for file in made)
        return (first, second), weakref.finalize(store, _close, *made)
    folder = tempfile.TemporaryDirectory(prefix="visionkit-")  # elsewhere the system keeps what is read in memory
    paths = (os.path.join(folder.name, PIXELS), os.path.join(folder.name, RECORDS))
    return paths, weakref.finalize(store, folder.cleanup)


def _mapped(file: int, limit: int) -> Array | None:
    """Return the pixels of a file in memory as an array to be read, uint8 [limit], or None where that fails.

    Not for files on a disk: where one cannot be read, a process that looks at such an array is killed.
    """
    with contextlib.suppress(OSError, ValueError, OverflowError):
        if os.fstat(file).st_size < limit:
            os.ftruncate(file, limit)  # takes no memory until it is written
        return np.frombuffer(mmap.mmap(file, limit, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ), np.uint8)
    return None


def _close(*files: int) -> None:
    for file in files:
        with contextlib.suppress(OSError):
            os.close(file)
