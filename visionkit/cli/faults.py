"""What a person reads when the machine is at fault: no space, no memory, no handles, a process that was killed."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Mapping

from visionkit.core.errors import DataError, UsageError, VisionkitError
from visionkit.core.files import MANY_OPEN, unwritable

__all__ = ["as_options", "explained", "lacks_memory"]

_LESS = "lower --data.batch_size (or --batch-size) or --data.size"
_MEMORY = f"{_LESS} or --data.num_workers, or stop other programs that take memory"
_ON_GPU = "CUDA out of memory|CUDA error: out of memory|MPS backend out of memory"
_NO_MEMORY = (
    "can't allocate memory|Cannot allocate memory|not enough memory|Unable to allocate|bad_alloc|bad allocation|"
    "Failed to allocate|Insufficient memory|could not create a (primitive|memory)"
)
_SHARED = "[Ss]hared memory|file </torch|torch_shm"
_WORDS = (
    (
        _ON_GPU,
        f"not enough memory on the GPU; {_LESS}, or stop other programs that use it",
    ),
    (
        _SHARED,
        f"not enough shared memory for the batches; {_LESS} or --data.num_workers (0 needs none), or give the "
        "container more (docker run --shm-size 8g)",
    ),
    (
        "DataLoader worker.*(signal: Bus error|signal: Killed|exited unexpectedly)",
        f"a process that reads pictures was killed, most often because memory ran out; {_MEMORY}",
    ),
    ("DataLoader worker.*killed by signal", "a process that reads pictures was killed; start again"),
    (
        f"{_NO_MEMORY}|can't start new thread",
        f"not enough memory; {_MEMORY}",
    ),
    ("No space left on device|unexpected pos \\d+ vs", "no space left on the disk; free some or choose another folder"),
    ("Too many open files|items of ancdata", MANY_OPEN),
    (
        "Expected more than 1 value per channel when training",
        "a batch of one picture is too small for BatchNorm at this size; use --data.batch_size 2 or more, or a larger "
        "--data.size",
    ),
    (
        "gloo|NCCL|Connection (reset|closed|refused)|Broken pipe",
        "another process of this training has ended or cannot be reached: it says why itself, unless it was killed, "
        "most often because memory ran out; go on with --ckpt_path auto",
    ),
)
"""What messages of torch, NumPy, OpenCV and the system look like -> what they mean. The first that fits counts."""
_EXTRAS = {
    "tensorboard": "track", "openvino": "openvino", "nncf": "int8", "onnxruntime": "onnx", "onnxscript": "onnx",
    "onnx": "onnx", "pi_heif": "heif",
}  # fmt: skip
"""Packages that are not always installed -> what brings them."""
_OF_MACHINE = (RuntimeError, OSError, EOFError, ValueError)


def explained(e: BaseException) -> VisionkitError | None:
    """Return in words what the machine lacks or has done, or None where an error is none of its faults.

    A package that is not installed is a UsageError: what was asked needs it.

    Args:
        e: What was raised, by Python, torch, NumPy, OpenCV or the system.
    """
    for cause in _chain(e):
        if isinstance(cause, ModuleNotFoundError) and (missing := _missing(cause)) is not None:
            return missing
        if isinstance(cause, MemoryError):
            return DataError(f"not enough memory; {_MEMORY}")
        if isinstance(cause, OSError) and isinstance(cause.filename, str | bytes):
            return _of_file(os.fsdecode(cause.filename), cause)
        if isinstance(cause, EOFError) and not str(cause):  # a batch that comes from a reader: its handle does not
            return DataError(MANY_OPEN)
        known = isinstance(cause, _OF_MACHINE) or type(cause).__name__ in ("SafetensorError", "error")  # cv2.error
        words = next((words for pattern, words in _WORDS if known and re.search(pattern, str(cause))), None)
        if words is not None:
            return DataError(words)
    return DataError(" ".join(str(e).split())) if isinstance(e, OSError) and e.errno else None


def lacks_memory(e: BaseException) -> str | None:
    """Return where memory did not suffice for a batch, " on the GPU" or "", or None for any other error."""
    for cause in _chain(e):
        if isinstance(cause, MemoryError):
            return ""
        if isinstance(cause, RuntimeError) and not re.search(_SHARED, str(cause)):
            if re.search(_ON_GPU, str(cause)):
                return " on the GPU"
            if re.search(_NO_MEMORY, str(cause)):
                return ""
    return None


def as_options(values: Mapping[str, int]) -> str:
    """Return options with their values as they stand on a command line."""
    return " ".join(f"{option} {value}" for option, value in values.items())


def _missing(e: ModuleNotFoundError) -> UsageError | None:
    """Say what brings a package of an extra; None for any other."""
    name = (e.name or "").partition(".")[0]
    found = next((p for p in _EXTRAS if p == name or (not name and re.search(rf"\b{p}\b", str(e)))), None)
    if found is None:
        return None
    return UsageError(f"the package {found} is not installed: pip install 'visionkit[{_EXTRAS[found]}]'")


def _of_file(path: str, e: OSError) -> DataError:
    if e.errno in (errno.ENOSPC, errno.EROFS, errno.EFBIG, errno.EMFILE, errno.ENFILE):
        return unwritable(path, e)
    return DataError(f"{path}: {e.strerror or e}; check the path, its permissions and the disk")


def _chain(e: BaseException) -> list[BaseException]:
    """Return an exception and what led to it, the newest first."""
    found: list[BaseException] = []
    cause: BaseException | None = e
    while cause is not None and cause not in found:
        found.append(cause)
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    return found
