"""The one door for files: what is read comes in here, with messages that help; what is written is whole or absent."""

from __future__ import annotations

import errno
import io
import os
import re
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from visionkit.core.errors import DataError

if sys.platform != "win32":
    import fcntl

__all__ = [
    "MANY_OPEN",
    "NO_HANDLES",
    "NO_ROOM",
    "locked",
    "make_folder",
    "missing",
    "open_binary",
    "read_bytes",
    "read_stream",
    "read_text",
    "remove_left_over",
    "replacing",
    "unwritable",
    "write_text",
    "writing",
]

_FLAGS = os.O_RDONLY | sum(getattr(os, name, 0) for name in ("O_BINARY", "O_CLOEXEC", "O_NOCTTY", "O_NONBLOCK"))
_KINDS = ((stat.S_ISDIR, "folder"), (stat.S_ISFIFO, "pipe"), (stat.S_ISSOCK, "socket"), (stat.S_ISCHR, "device"))


def open_binary(path: str | os.PathLike[str], *, limit: int | None = None) -> io.BufferedReader:
    """Open a file for reading; links to files are followed.

    All that is read goes through here. Anything but a regular file is refused at once: a pipe would be waited for, a
    device never ends.

    Args:
        path: The file.
        limit: Bytes that it may have; None for any number.

    Raises:
        DataError: It is not there, no regular file, larger or cannot be read.
    """
    try:
        handle = os.open(path, _FLAGS)  # without waiting for what is no file; a look before opening could be outrun
    except FileNotFoundError:
        raise DataError(missing(path)) from None
    except (OSError, ValueError) as e:  # ValueError: a zero byte in the path
        raise _unreadable(path, e) from None
    try:
        facts = os.fstat(handle)
        if not stat.S_ISREG(facts.st_mode):
            raise DataError(f"{path}: is a {_kind(facts)}, not a file; {_instead(facts)}")
        if limit is not None and facts.st_size > limit:
            raise _too_large(path, limit)
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def read_bytes(path: str | os.PathLike[str], *, limit: int | None = None) -> bytes:
    """Return the content of a file.

    Args:
        path: As in :func:`open_binary`.
        limit: As in :func:`open_binary`.

    Raises:
        DataError: As in :func:`open_binary`.
    """
    try:
        with open_binary(path, limit=limit) as file:
            data = file.read(-1 if limit is None else limit + 1) or b""  # None: nothing there yet, in /proc
    except OSError as e:
        raise _unreadable(path, e) from None
    if limit is not None and len(data) > limit:  # it grew, or says no size
        raise _too_large(path, limit)
    return data


def read_stream(stream: BinaryIO, name: str, *, limit: int) -> bytes:
    """Return what a stream holds, such as standard input, to its end.

    Args:
        stream: Open for reading.
        name: What messages call it.
        limit: Bytes that it may have.

    Raises:
        DataError: It holds more, or cannot be read.
    """
    try:
        data = stream.read(limit + 1)
    except (OSError, ValueError) as e:  # ValueError: it is closed
        raise DataError(f"{name}: cannot be read ({e}); give files instead") from None
    if len(data) > limit:
        raise _too_large(name, limit)
    return data


def read_text(path: str | os.PathLike[str], *, limit: int | None = None) -> str:
    """Return the content of a text file (UTF-8, with or without byte order mark), its lines ending in newlines.

    Args:
        path: As in :func:`open_binary`.
        limit: As in :func:`open_binary`.

    Raises:
        DataError: As in :func:`open_binary`, or it is not UTF-8, with the line.
    """
    try:
        return io.TextIOWrapper(io.BytesIO(read_bytes(path, limit=limit)), encoding="utf-8-sig").read()
    except UnicodeDecodeError as e:
        line = e.object[: e.start].count(b"\n") + 1
        raise DataError(f"{path}:{line}: is not UTF-8 text; save the file with UTF-8 encoding") from None


def missing(path: str | os.PathLike[str], what: str = "file") -> str:
    """Return what to say of a path where nothing is; an address of the net is named as such.

    Args:
        path: What was given.
        what: What is wanted there.
    """
    address = re.fullmatch(r"([A-Za-z][\w+.-]+):/+(.*)", os.fspath(path), re.DOTALL)  # a Path has one slash left
    if address is not None:
        where = f"{address[1]}://{address[2]}"
        return f"{where}: is an address, and only files of this machine are read here; download it first"
    return f"{path}: no such {what}; check the path"


def _too_large(path: str | os.PathLike[str], limit: int) -> DataError:
    return DataError(f"{path}: has more than {limit:,} bytes, the most for such a file; check the path")


def _unreadable(path: str | os.PathLike[str], e: OSError | ValueError) -> DataError:
    """Return what to say of a file that cannot be opened or read."""
    try:
        facts = os.stat(path)
        if not stat.S_ISREG(facts.st_mode):  # where opening it fails already: a socket, or a folder on Windows
            return DataError(f"{path}: is a {_kind(facts)}, not a file; {_instead(facts)}")
    except (OSError, ValueError):
        pass
    why = (e.strerror if isinstance(e, OSError) else None) or e
    return DataError(f"{path}: cannot be read ({why}); check the path, its permissions and the disk")


def _kind(facts: os.stat_result) -> str:
    return next((kind for asks, kind in _KINDS if asks(facts.st_mode)), "device")


def _instead(facts: os.stat_result) -> str:
    return "give a file in it" if stat.S_ISDIR(facts.st_mode) else "give a file, or remove it"


NO_ROOM = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
NO_HANDLES = (errno.EMFILE, errno.ENFILE)
MANY_OPEN = "too many files are open; raise the limit (ulimit -n 4096) or use fewer workers (--data.num_workers 2)"
_TEMPORARY = "abcdefghijklmnopqrstuvwxyz0123456789_"
"""What the random part of a temporary name is made of."""


def unwritable(path: str | os.PathLike[str], e: OSError, needed: int | None = None) -> DataError:
    """Return what to say of a file or folder that cannot be written: where, why and what helps.

    Args:
        path: What was to be written.
        e: What the system said.
        needed: Bytes that it would have, where that is known.
    """
    if e.errno in NO_ROOM:
        size = "" if needed is None else f" ({needed / 1e6:.1f} MB needed)"
        return DataError(f"{path}: no space left on the disk{size}; free some or choose another folder")
    if e.errno == errno.EFBIG:
        return DataError(f"{path}: larger than files may be here; raise the limit (ulimit -f) or choose another folder")
    if e.errno in NO_HANDLES:
        return DataError(f"{path}: {MANY_OPEN}")
    why = {errno.EACCES: "no permission", errno.EPERM: "no permission", errno.EROFS: "the disk is read-only"}
    words = why.get(e.errno or 0) or e.strerror or str(e)
    return DataError(f"{path}: cannot be written ({words}); choose another folder or change its permissions")


def make_folder(path: str | os.PathLike[str], *, mode: int = 0o777) -> None:
    """Make a folder and those above it, where they are not there.

    Args:
        path: The folder.
        mode: Who may do what with it, less what the umask takes.

    Raises:
        DataError: It cannot be made, or a file has its name.
    """
    try:
        Path(path).mkdir(mode, parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise DataError(f"{path}: a file has the name of this folder; choose another folder") from None
    except OSError as e:
        raise unwritable(path, e) from None


@contextmanager
def replacing(path: str | os.PathLike[str], *, needed: int | None = None, mode: int | None = None) -> Iterator[Path]:
    """Yield a temporary name beside ``path``; when the block ends well, it becomes ``path``, else it is removed.

    Args:
        path: File to write; its folder is made.
        needed: Bytes that it will have, for messages, where that is known.
        mode: Who may do what with it; None for what is usual.

    Raises:
        DataError: It cannot be written; what was there before stays.
    """
    path = Path(path)
    make_folder(path.parent)
    name = ""
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}.", suffix=path.suffix)
        os.close(handle)
        yield Path(name)
        os.chmod(name, 0o666 & ~_umask() if mode is None else mode)
        os.replace(name, path)
    except BaseException as e:
        if name:
            Path(name).unlink(missing_ok=True)
        if isinstance(e, OSError):
            raise unwritable(path, e, needed) from e
        raise


@contextmanager
def writing(path: str | os.PathLike[str], *, needed: int | None = None, mode: int | None = None) -> Iterator[BinaryIO]:
    """Yield a binary file under a temporary name; when the block ends well, it reaches the disk and becomes ``path``.

    Where writing fails, that is what is raised, whatever those who wrote into it made of it.

    Args:
        path: As in :func:`replacing`.
        needed: As in :func:`replacing`.
        mode: As in :func:`replacing`.

    Raises:
        DataError: As in :func:`replacing`.
    """
    with replacing(path, needed=needed, mode=mode) as temporary, _Remembering(temporary, "wb") as file:
        try:
            yield file
            file.flush()
            os.fsync(file.fileno())
        except Exception:
            if file.failed is not None:
                raise file.failed from None
            raise


class _Remembering(io.FileIO):
    """A file to write that remembers why it failed: torch's writer says ``unexpected pos 3038464``."""

    failed: OSError | None = None

    def write(self, data: bytes, /) -> int:  # type: ignore[override]  # any buffer
        """Write all of it: on a disk that is nearly full the system takes a part at first."""
        view = memoryview(data).cast("B")
        done = 0
        try:
            while done < len(view):
                done += super().write(view[done:]) or 0
        except OSError as e:
            self.failed = e
            raise
        return done


def remove_left_over(folder: Path, *names: str) -> list[Path]:
    """Remove what a process that was killed has left of files that :func:`replacing` was to make; return them.

    Args:
        folder: Where they lie.
        names: The files, as patterns: ``last.ckpt``, ``*.png``. No other process may be writing them.
    """
    found = []
    for name in names:
        stem, suffix = os.path.splitext(name)
        for path in folder.glob(f".{stem}.{'?' * 8}{suffix}"):
            if set(path.name.removesuffix(suffix)[-8:]) <= set(_TEMPORARY):
                path.unlink(missing_ok=True)
                found.append(path)
    return found


@contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold the lock of a file, which is made, so that no other process does; yield whether it is held.

    Args:
        path: The file; it stays.
        wait: Whether to wait for another process that holds it.
    """
    with path.open("a") as file:
        held = True
        if sys.platform != "win32":  # elsewhere nobody waits: two processes would do the same work twice
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                held = False
            except OSError as e:  # a file system without locks: as where there are none
                if e.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL):
                    raise
        yield held  # closing the file gives the lock back


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file (UTF-8) whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
