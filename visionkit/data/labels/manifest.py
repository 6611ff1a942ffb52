"""The lines of a CSV or JSONL file that lists images."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from visionkit.core.errors import DataError, UsageError
from visionkit.core.files import read_text
from visionkit.data.labels.checks import once
from visionkit.data.labels.faults import fault

__all__ = ["MANIFEST_COLUMNS", "MANIFEST_SUFFIXES", "ManifestRow", "read_rows"]

MANIFEST_SUFFIXES = (".csv", ".jsonl")
MANIFEST_COLUMNS = ("path", "label", "labels", "split", "group")
"""Columns that mean something; all others are passed on."""
_WRONG = {ValueError: "a number of thousands of digits", RecursionError: "nested too deep"}
_NEAR = ("file", "filename", "file_name", "image", "image_path", "img", "filepath", "name")


class ManifestRow(NamedTuple):
    """A line of a manifest: its place (file:line) and its cells by column."""

    where: str
    cells: dict[str, Any]


def read_rows(path: Path) -> Iterator[ManifestRow]:
    """Yield the lines of a manifest with their places; the columns have lower-case known names."""
    if path.suffix.lower() not in MANIFEST_SUFFIXES:
        raise UsageError(f"{path}: is no manifest; give a .csv or .jsonl file")
    text = read_text(path)
    read = _csv_rows if path.suffix.lower() == ".csv" else _jsonl_rows
    for line, cells in read(path, text):
        yield ManifestRow(f"{path}:{line}", {_column(k): v for k, v in cells.items()})


def _column(name: str) -> str:
    name = name.strip()
    return name.lower() if name.lower() in MANIFEST_COLUMNS else name


def _csv_rows(path: Path, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
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
                _check_header(path, header)
            elif len(cells) != len(header):
                what = f"{len(cells)} cells where the header has {len(header)}"
                cure = f'put a text that holds a "{"tab" if delimiter == chr(9) else delimiter}" into double quotes'
                fault("label-syntax", f"{path}:{reader.line_num}: {what}; {cure}")
            else:
                yield reader.line_num, dict(zip(header, cells, strict=True))
    except csv.Error as e:
        raise DataError(f"{path}:{reader.line_num}: no valid CSV ({e}); check the quotes") from None


def _check_header(path: Path, header: list[str]) -> None:
    names = [_column(c) for c in header]
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise DataError(f"{path}:1: column {twice[0]!r} comes twice; rename or remove one")
    if "path" not in names:
        raise DataError(f"{path}:1: {_no_path(header)}")


def _no_path(columns: Sequence[str]) -> str:
    near = next((c for c in columns if c.lower() in _NEAR), None)
    fix = f"rename {near!r} to 'path'" if near else "add it, with the file of each image"
    return f"no column 'path' among {', '.join(columns) or '(none)'}; {fix}"


def _jsonl_rows(path: Path, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    for line, content in enumerate(text.split("\n"), 1):
        if not content.strip():
            continue
        try:
            cells = json.loads(content, object_pairs_hook=once)
        except (ValueError, RecursionError) as e:  # the latter where it is nested by the thousands
            why = f"{e.msg} at column {e.colno}" if isinstance(e, json.JSONDecodeError) else _WRONG.get(type(e), str(e))
            cure = 'each line must be one object such as {"path": "a.jpg", "label": "cat"}'
            fault("label-syntax", f"{path}:{line}: no valid JSON ({why}); {cure}")
            continue
        if not isinstance(cells, dict):
            fault("label-syntax", f'{path}:{line}: no JSON object; write {{"path": "a.jpg", "label": "cat"}}')
        elif "path" not in {_column(k) for k in cells}:
            fault("label-syntax", f"{path}:{line}: {_no_path(list(cells))}")
        else:
            yield line, cells
