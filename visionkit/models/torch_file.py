"""Files of PyTorch, read without running the code that they may hold."""

from __future__ import annotations

import argparse
import io
import os
import re
import zipfile
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from visionkit.core.errors import DataError

__all__ = [
    "AGAIN",
    "NOT_FINITE",
    "NO_WEIGHTS",
    "check_tensors",
    "first_line",
    "format_of",
    "no_weights",
    "not_finite",
    "read_torch",
]

MAX_NAME = 1000  # letters of a tensor's name
NOT_FINITE = "holds values that are not finite (NaN or infinity), as after a training that diverged"
NO_WEIGHTS = "holds numbers that are no weights as they are (whole or complex ones, as of a quantised network)"
AGAIN = "download or copy it again"
_OTHER_FORMATS = (  # first bytes, what the file is, what to do
    (b"version https://git-lfs", "a git-LFS pointer: the file itself was not fetched, run `git lfs pull` where it is"),
    (b"\x89HDF", "a Keras (HDF5) file: convert it to PyTorch first"),
    (b"\x1f\x8b", "a gzip archive: unpack it first"),
)


def format_of(file: io.BufferedReader, path: str | os.PathLike[str]) -> Literal["PyTorch", "safetensors"]:
    """Tell the format of a file of tensors by its first bytes, whatever its name.

    Args:
        file: The open file; it stands at its start afterwards.
        path: Its path, for messages.

    Raises:
        DataError: It is empty or of another format.
    """
    file.seek(0)
    head = file.read(512)
    file.seek(0)
    if not head:
        raise DataError(f"{path}: the file is empty (0 bytes): {AGAIN}")
    if head[8:9] == b"{":
        return "safetensors"
    if head[:2] == b"PK" or head[:1] == b"\x80":  # zip (torch >= 1.6) or plain pickle
        return "PyTorch"
    raise DataError(f"{path}: neither a PyTorch (.pth, .pt, .ckpt) nor a safetensors file{_other_format(head)}")


def read_torch(file: io.BufferedReader, path: str | os.PathLike[str]) -> Any:
    """Return what a PyTorch file holds: plain data and tensors alone.

    Args:
        file: The open file.
        path: Its path, for messages.

    Raises:
        DataError: It is damaged, no such file, holds code or would swell.
    """
    file.seek(0)
    is_zip = file.read(2) == b"PK"
    try:
        if is_zip:
            _check_entries(file, path)
        file.seek(0)
        with torch.serialization.safe_globals([argparse.Namespace]):  # timm's and torchvision's scripts save one
            content = torch.load(file, map_location="cpu", weights_only=True)
        check_tensors(content, file.seek(0, os.SEEK_END), path)
        return content
    except (DataError, MemoryError):
        raise
    except Exception as e:  # torch.load raises many kinds for a damaged file
        text = str(e)
        if named := re.search(r"GLOBAL ([\w.]+)", text):
            raise DataError(
                f"{path}: refused, it holds the Python object {named[1]}, which could run code: "
                "save the state dict alone and load that"
            ) from e
        if unknown := re.search(r"Unsupported operand \d+", text):
            raise DataError(
                f"{path}: refused, it holds code and not only data ({unknown[0]}): "
                "save the state dict alone with torch.save and load that"
            ) from e
        raise DataError(f"{path}: damaged or no PyTorch file: {first_line(e)}: {AGAIN}") from e


def check_tensors(content: Any, size: int, path: str | os.PathLike[str]) -> None:
    """Refuse tensors that no weights are: without numbers of their own, or with more than the file has.

    A few bytes can claim to be any number of numbers, which take memory when they are copied.

    Args:
        content: What the file holds: tensors in mappings and lists, to any depth.
        size: Bytes of the file.
        path: Its path, for messages.

    Raises:
        DataError: There is such a tensor, or a name of more than a thousand letters.
    """
    waiting: list[tuple[str, Any]] = [("", content)]
    seen: set[int] = set()
    while waiting:
        name, value = waiting.pop()
        if isinstance(value, Tensor):
            if value.layout != torch.strided or value.is_meta or value.is_quantized or value.is_nested:
                raise DataError(f"{path}: {name} is no plain tensor ({value.layout}, {value.dtype}): save it as one")
            if value.numel() * value.element_size() > max(size, 4096):
                raise DataError(f"{path}: refused, {name} claims more bytes than the file has: {AGAIN}")
        elif isinstance(value, Mapping | list | tuple) and id(value) not in seen:
            seen.add(id(value))
            entries = value.items() if isinstance(value, Mapping) else enumerate(value)
            for key, entry in entries:
                if isinstance(key, str) and len(key) > MAX_NAME:
                    raise DataError(f"{path}: refused, it has a name of {len(key):,} letters: {key:.60}...")
                waiting.append((str(key), entry))


def no_weights(tensors: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> str | None:
    """Return the name of a tensor of whole or complex numbers where fractions belong, or None.

    As they are, whole numbers of 8 bits are no weights: what they were divided by lies elsewhere, if at all.

    Args:
        tensors: What is to be copied, by name.
        targets: Where it goes, by the same names.
    """
    given = ((name, targets[name], tensor) for name, tensor in tensors.items() if name in targets)
    return next((n for n, to, tensor in given if to.is_floating_point() and not tensor.is_floating_point()), None)


def not_finite(tensors: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> str | None:
    """Return the name of a tensor with NaN or infinity, or None; a target that holds such itself may be given them.

    Args:
        tensors: What is to be copied, by name.
        targets: Where it goes, by the same names, as they were made.
    """
    for name, tensor in tensors.items():
        if name in targets and targets[name].is_floating_point():
            as_it_will_be = tensor.to(targets[name].dtype)  # 1e300 is infinite in float32
            if not as_it_will_be.isfinite().all() and targets[name].isfinite().all():
                return name
    return None


def _check_entries(file: io.BufferedReader, path: str | os.PathLike[str]) -> None:
    """Refuse an archive whose entries are damaged, or would take more memory than the file has bytes."""
    size = file.seek(0, os.SEEK_END)
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        for entry in entries:  # torch stores them as they are; a thousandfold packed one would fill the memory
            if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
                raise DataError(f"{path}: refused, its entry {entry.filename} is compressed, which PyTorch never does")
        if sum(entry.file_size for entry in entries) > size:
            raise DataError(f"{path}: refused, its entries claim more bytes than the file has: {AGAIN}")
        if (damaged := archive.testzip()) is not None:
            raise DataError(f"{path}: damaged or tampered with, the check sum of {damaged} is wrong: {AGAIN}")


def _other_format(head: bytes) -> str:
    text = head.lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        return f" but a web page (HTML), perhaps of a login or an error: {AGAIN}"
    return next((f" but {what}" for start, what in _OTHER_FORMATS if head.startswith(start)), "")


def first_line(e: BaseException) -> str:
    """Return the first line of what an exception says, or its name where it says nothing."""
    return (str(e).strip() or type(e).__name__).splitlines()[0].strip()
