"""The lines of a CSV or JSONL file that lists images."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from visionkit.core.errors import DataError, UsageError
from visionkit.core.files import read_text
from visionkit.data.labels.faults import attempt, fault
from visionkit.data.labels.json_text import parse_line

__all__ = ["MANIFEST_COLUMNS", "MANIFEST_SUFFIXES", "ManifestRow", "read_rows"]

MANIFEST_SUFFIXES = (".csv", ".jsonl")
MANIFEST_COLUMNS = ("path", "label", "labels", "split", "group")
"""Columns that mean something; all others are passed on."""
_NEAR = ("file", "filename", "file_name", "image", "image_path", "img", "filepath", "name")


class ManifestRow(NamedTuple):
    """A line of a manifest: its place (file:line) and its cells by column."""

    where: str
    cells: dict[str, Any]


def read_rows(path: Path, keys: Sequence[str] = ("path",), *, limit: int | None = None) -> Iterator[ManifestRow]:
    """Yield the lines of a manifest with their places; the columns have lower-case known names.

    Args:
        path: A .csv or .jsonl file.
        keys: What the column may be called that says the file of an image; one of them must be there.
        limit: Bytes that the file may have; None for any number.

    Raises:
        DataError: The file cannot be read, or a line of it is wrong.
        UsageError: It is no such file.
    """
    if path.suffix.lower() not in MANIFEST_SUFFIXES:
        raise UsageError(f"{path}: is no manifest; give a .csv or .jsonl file")
    text = read_text(path, limit=limit)
    read = _csv_rows if path.suffix.lower() == ".csv" else _jsonl_rows
    for line, cells in read(path, text, keys):
        yield ManifestRow(f"{path}:{line}", {_column(k, keys): v for k, v in cells.items()})


def _column(name: str, keys: Sequence[str]) -> str:
    name = name.strip()
    return name.lower() if name.lower() in (*MANIFEST_COLUMNS, *keys) else name


def _csv_rows(path: Path, text: str, keys: Sequence[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    head = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=lambda d: len(next(csv.reader([head], delimiter=d), [])))
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    try:
        for cells in reader:
            if not any(c.strip() for c in cells):
                continue
            if header is None:
                header = [c.strip() for c in cells]
                _check_header(path, header, keys)
            elif len(cells) != len(header):
                what = f"{len(cells)} cells where the header has {len(header)}"
                cure = f'put a text that holds a "{"tab" if delimiter == chr(9) else delimiter}" into double quotes'
                fault("label-syntax", f"{path}:{reader.line_num}: {what}; {cure}")
            else:
                yield reader.line_num, dict(zip(header, cells, strict=True))
    except csv.Error as e:
        raise DataError(f"{path}:{reader.line_num}: no valid CSV ({e}); check the quotes") from None


def _check_header(path: Path, header: list[str], keys: Sequence[str]) -> None:
    names = [_column(c, keys) for c in header]
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise DataError(f"{path}:1: column {twice[0]!r} comes twice; rename or remove one")
    if not set(keys) & set(names):
        raise DataError(f"{path}:1: {_no_path(header, keys[0])}")


def _no_path(columns: Sequence[str], key: str) -> str:
    near = next((c for c in columns if c.lower() in _NEAR), None)
    fix = f"rename {near!r} to {key!r}" if near else "add it, with the file of each image"
    return f"no column {key!r} among {', '.join(columns) or '(none)'}; {fix}"


def _jsonl_rows(path: Path, text: str, keys: Sequence[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    for line, content in enumerate(text.split("\n"), 1):
        if not content.strip():
            continue
        where = f"{path}:{line}"
        cells = attempt("label-syntax", parse_line, content, where, f'{{"{keys[0]}": "a.jpg", "label": "cat"}}')
        if cells is None:
            continue
        if not set(keys) & {_column(k, keys) for k in cells}:
            fault("label-syntax", f"{where}: {_no_path(list(cells), keys[0])}")
        else:
            yield line, cells
