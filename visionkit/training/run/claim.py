"""A run folder that belongs to one run at a time."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import sys
from pathlib import Path
from types import TracebackType
from typing import IO

from visionkit.core.errors import DataError, UsageError
from visionkit.core.files import make_folder, read_text, remove_left_over, unwritable
from visionkit.core.output import OUTPUT_MARK, mark_output

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

__all__ = ["Claim"]

LOCK = "run.lock"
WRITTEN = ("config.yaml", "metrics.csv", "metrics.json", "*.png", "*confusion_matrix.csv")
"""What a run writes into its folder, beside checkpoints."""
OWN = (*WRITTEN, LOCK, "checkpoints", "pictures", "tensorboard")
"""All that is in the folder of a run and no data of somebody's."""


class Claim:
    """Holds run folders for this process until it is closed; use it in a ``with`` block.

    A folder is held by the lock of a file in it, which a process that dies gives back, however it dies. It belongs to
    this process alone: those that it starts, to read pictures or to train with it, do not hold it. Where the file
    system knows no locks, the file's words (process and machine) say whether its process still runs.
    """

    def __init__(self) -> None:
        self._files: list[IO[str]] = []
        self._made: list[Path] = []

    def __enter__(self) -> Claim:
        """Start to hold what is taken."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let go of all folders; those that were made and into which nothing was written are removed."""
        for file in self._files:
            with contextlib.suppress(OSError):  # Windows removes no open file
                os.unlink(file.name)
            file.close()
            with contextlib.suppress(OSError):
                os.unlink(file.name)
        for folder in reversed(self._made):
            with contextlib.suppress(OSError):  # something is in it
                if os.listdir(folder) == [OUTPUT_MARK]:
                    (folder / OUTPUT_MARK).unlink()
                folder.rmdir()
        self._files, self._made = [], []

    def take(self, folder: Path) -> None:
        """Make a folder, unless it is there, and hold it; what a killed run has left half written is removed.

        Raises:
            UsageError: Another run holds it.
            DataError: It cannot be made, or nothing can be written into it.
        """
        missing = [path for path in (folder, *folder.parents) if not path.exists()]
        make_folder(folder)
        self._made += reversed(missing)
        self._lock(folder)
        remove_left_over(folder, *WRITTEN)
        remove_left_over(folder / "checkpoints", "*.ckpt")
        remove_left_over(folder / "pictures", "*.jpg")
        mark_output(folder, own=[p.name for pattern in OWN for p in folder.glob(pattern)])

    def take_numbered(self, parent: Path, kind: str) -> Path:
        """Make ``parent/KIND-N`` with a number above all others, hold and return it: making it is the claim."""
        missing = [path for path in (parent, *parent.parents) if not path.exists()]
        make_folder(parent)
        self._made += reversed(missing)
        number = max([0, *numbers(parent, kind)])
        while True:
            number += 1
            folder = parent / f"{kind}-{number}"
            try:
                folder.mkdir()
            except FileExistsError:  # another run was faster
                continue
            except OSError as e:
                raise unwritable(folder, e) from None
            self._made.append(folder)
            self._lock(folder)
            mark_output(folder, own=OWN)
            return folder

    def _lock(self, folder: Path) -> None:
        path = folder / LOCK
        while True:
            try:
                file = path.open("a+", encoding="utf-8")
            except OSError as e:
                raise unwritable(folder, e) from None
            held = _try_lock(file)
            if held is None:  # no locks here
                held = not _runs(path)
            if not held:
                file.close()
                raise UsageError(
                    f"{folder} is in use by another run ({_words(path)}): wait until it has ended, or choose another "
                    "--trainer.default_root_dir"
                )
            if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
                break
            file.close()  # its holder has removed it between the two
        try:
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
            file.flush()
        except OSError as e:
            file.close()
            path.unlink(missing_ok=True)
            raise unwritable(folder, e) from None
        self._files.append(file)


def numbers(parent: Path, kind: str) -> list[int]:
    """Return the numbers of the folders ``parent/KIND-N``, in order."""
    names = [path.name.rpartition("-") for path in parent.glob(f"{kind}-*")]
    return sorted(int(number) for name, _, number in names if name == kind and number.isdecimal())


def _try_lock(file: IO[str]) -> bool | None:
    """Return whether this process holds the file now; None where the file system knows no locks."""
    try:
        if sys.platform == "win32":
            file.seek(1 << 20)  # a byte behind the words, so that others can read them
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # not flock: forked processes would hold it, too
    except OSError as e:
        return False if e.errno in (errno.EACCES, errno.EAGAIN, errno.EDEADLK) else None
    return True


def _words(path: Path) -> str:
    try:
        return read_text(path, limit=1000).strip() or "it has just begun"
    except DataError:
        return "it has just begun"


def _runs(path: Path) -> bool:
    """Return whether the process that wrote the file runs on this machine."""
    match _words(path).split():
        case ["process", number, "on", host] if number.isdecimal() and host == socket.gethostname():
            with contextlib.suppress(OSError, OverflowError):
                os.kill(int(number), 0)
                return int(number) != os.getpid()
    return False
