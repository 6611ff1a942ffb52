"""Plain arrays in one file (``.npz``), read back without trust."""

from __future__ import annotations

import io
import math
import os
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visionkit.core.errors import DataError
from visionkit.core.files import open_binary, writing

__all__ = ["read_arrays", "write_arrays"]

Array = NDArray[Any]
LIMIT = 4_000_000_000
"""Bytes that a file may have: COCO's 118,287 training pictures take about a tenth."""
MEMBERS = 200
"""Arrays that a file may hold."""
_HEADER = 10_000  # bytes of an array's description
_KINDS = "biuf"  # truth values, whole and other numbers


def write_arrays(path: str | os.PathLike[str], arrays: Mapping[str, Array]) -> None:
    """Write arrays of numbers as ``numpy.savez`` does, whole or not at all.

    Args:
        path: The file.
        arrays: By name.

    Raises:
        DataError: It cannot be written.
    """
    with writing(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            if array.dtype.kind not in _KINDS:
                raise TypeError(f"{name}: an array of {array.dtype}, not of numbers")
            member = io.BytesIO()
            np.lib.format.write_array(member, np.asarray(array, order="C"), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), member.getbuffer())


def read_arrays(path: str | os.PathLike[str]) -> dict[str, Array]:
    """Return the arrays of a file; what they take is bounded by what the file has.

    Raises:
        DataError: It cannot be read, or holds anything but plain arrays of numbers.
    """
    with open_binary(path, limit=LIMIT) as file:
        try:
            with zipfile.ZipFile(file) as archive:
                members = archive.infolist()
                size = os.fstat(file.fileno()).st_size
                if len(members) > MEMBERS or sum(m.file_size for m in members) > size:
                    raise ValueError("it holds more than it can")
                found = {m.filename.removesuffix(".npy"): _array(archive, m) for m in members}
        except Exception as e:  # a damaged archive can raise anything
            raise DataError(f"{path}: holds no arrays that evaluate wrote ({e}); evaluate again") from None
    if len(found) < len(members):
        raise DataError(f"{path}: holds no arrays that evaluate wrote (a name comes twice); evaluate again")
    return found


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Array:
    """Return one array, whose description must fit the bytes that there are."""
    if member.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{member.filename} is compressed")
    data = archive.read(member)
    head = io.BytesIO(data)
    version = np.lib.format.read_magic(head)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"{member.filename} is an array of version {version[0]}.{version[1]}")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(head, max_header_size=_HEADER)
    if dtype.kind not in _KINDS or dtype.hasobject:
        raise ValueError(f"{member.filename} holds {dtype}, not numbers")
    if any(n < 0 for n in shape) or math.prod(shape) * dtype.itemsize != len(data) - head.tell():
        raise ValueError(f"{member.filename} is cut short")
    flat = np.frombuffer(data, dtype, offset=head.tell())
    array: Array = flat.reshape(shape, order="F" if fortran else "C").astype(dtype.newbyteorder("="))
    return array
