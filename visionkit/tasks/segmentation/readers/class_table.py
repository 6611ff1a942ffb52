"""Tables of classes: which id and which colour of a mask has which name."""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from visionkit.core.errors import DataError, UsageError
from visionkit.core.files import read_text
from visionkit.data.labels.checks import once
from visionkit.data.labels.classes import check_class_names, check_lines, numbered_names

__all__ = ["MAX_ID", "TABLE_FILES", "ClassRow", "ClassTable", "find_table", "read_table"]

MAX_ID = 65535
TABLE_FILES = (
    *("semantic_classes.txt", "classes.txt", "class_names.txt", "labels.txt", "label_colors.txt", "label_colours.txt"),
    *("labelmap.txt", "class_dict.csv", "classes.csv", "_classes.csv", "classes.json"),
)
"""What files with class names are called; the first one is read before all others."""

Colour: TypeAlias = tuple[int, int, int]
Form: TypeAlias = Literal["ids", "names", "colours", "csv", "json", "built-in"]

_RGB = r"(?P<r>\d{1,9})[\s,]+(?P<g>\d{1,9})[\s,]+(?P<b>\d{1,9})"
_LINES = (
    re.compile(r"(?P<name>[^:]+):(?P<r>\d{1,9}),(?P<g>\d{1,9}),(?P<b>\d{1,9}):[^:]*:[^:]*"),  # CVAT's labelmap.txt
    re.compile(rf"(?P<id>\d{{1,9}})[\s,:]+{_RGB}[\s,]+(?P<name>\D.*)"),
    re.compile(rf"(?P<id>\d{{1,9}})[\s,:]+(?P<name>\D.*?)[\s,]+{_RGB}"),
    re.compile(rf"{_RGB}[\s,]+(?P<name>\D.*)"),
    re.compile(rf"(?P<name>\D.*?)[\s,]+{_RGB}"),
    re.compile(r"(?P<id>\d{1,9})(?:\s*[:,]\s*|\s+)(?P<name>\S.*)"),
)
_NAME_COLUMNS = ("name", "class", "class_name", "label")
_ID_COLUMNS = ("id", "index", "class_id", "label_id", "value", "pixel_value")
_COLOUR_COLUMNS = (("r", "g", "b"), ("red", "green", "blue"))


@dataclass(frozen=True)
class ClassRow:
    """One class of a table.

    Args:
        id: Its value in index masks, 0..65535.
        name: Its name.
        colour: Red, green and blue of its pixels in coloured masks, 0..255 each, or None.
        void: Whether its pixels are ignored whatever its name.
    """

    id: int
    name: str
    colour: Colour | None = None
    void: bool = False


@dataclass(frozen=True)
class ClassTable:
    """The classes of a data set, by id.

    Args:
        rows: One a class.
        source: The file, or what else they come from.
        form: How the file is written.
    """

    rows: tuple[ClassRow, ...]
    source: str
    form: Form = "built-in"

    @property
    def coloured(self) -> bool:
        """Whether any class has a colour."""
        return any(r.colour is not None for r in self.rows)

    def advice_on_id(self, id: int) -> str:
        """Return how to add a class with this id."""
        return {
            "ids": f"add a line `{id} NAME`",
            "names": f"add its name as line {id + 1}",
            "colours": f"add its colour and name as line {id + 1}",
            "csv": f"add a line for class {id}",
            "json": f'add {{"id": {id}, "name": ...}}',
            "built-in": f"write classes.txt with a line for each id, such as `{id} NAME`,",
        }[self.form]

    def advice_on_colour(self, colour: Colour) -> str:
        """Return how to add a class with this colour."""
        r, g, b = colour
        return {
            "csv": f"add a line `NAME,{r},{g},{b}`",
            "json": f'add {{"name": ..., "color": [{r}, {g}, {b}]}}',
            "built-in": f"write label_colors.txt with a line for each colour, such as `{r} {g} {b} NAME`,",
        }.get(self.form, f"add a line `{r} {g} {b} NAME`")


def find_table(folders: Sequence[Path]) -> ClassTable | None:
    """Return the class names that lie in the first of some folders that has any, or None.

    Args:
        folders: Where to look, in this order.

    Raises:
        DataError: A file of class names is wrong.
        UsageError: Several files of one folder say different things.
    """
    for folder in dict.fromkeys(folders):
        there = {name.lower(): folder / name for name in sorted(os.listdir(folder), reverse=True)}
        files = [there[n] for n in TABLE_FILES if n in there and there[n].is_file()]
        if not files:
            continue
        if files[0].name.lower() == TABLE_FILES[0]:
            return read_table(files[0])
        tables = [read_table(f) for f in files]
        if len({tuple((r.id, r.name) for r in t.rows) for t in tables}) > 1:
            named = ", ".join(f.name for f in files)
            raise UsageError(f"{folder}: several files name the classes differently ({named}); keep one of them")
        return next((t for t in tables if t.coloured), tables[0])
    return None


def read_table(path: str | os.PathLike[str]) -> ClassTable:
    """Read a file of class names.

    Understood are text files with a line a class (``name``, ``id name``, ``id: name``, ``name id``,
    ``r g b name``, ``name r g b`` or CVAT's ``name:r,g,b::``; without ids they count from 0), CSV files with a header
    (name,r,g,b) and JSON (a list of names, ``{name: id}``, ``{id: name}``, ``{name: [r, g, b]}`` or a list of objects
    with name and, as far as they are known, id and color).

    Args:
        path: A .txt, .csv or .json file.

    Raises:
        DataError: The file cannot be read or a line is wrong.
    """
    file = Path(path)
    text = read_text(file)
    if file.suffix.lower() == ".json":
        rows, form = _from_json(file, text), "json"
    elif file.suffix.lower() == ".csv" and (header := _header(text)) is not None:
        rows, form = _from_csv(file, text, *header), "csv"
    else:
        rows, form = _from_lines(file, text)
    if not rows:
        raise DataError(f"{file}: names no classes; write a line for each, such as `0 background`")
    seen: dict[int, str] = {}
    for where, row in rows:
        if row.id > MAX_ID:
            raise DataError(f"{where}: id {row.id} of {row.name!r} is above {MAX_ID}; correct it")
        if row.id in seen:
            raise DataError(f"{where}: id {row.id} is that of {seen[row.id]!r} too; give each class its own id")
        if row.colour is not None and max(row.colour) > 255:
            raise DataError(f"{where}: the colour {_spoken(row.colour)} is not within 0..255; correct it")
        seen[row.id] = row.name
        check_class_names((row.name,), where)
    return ClassTable(tuple(sorted((r for _, r in rows), key=lambda r: r.id)), str(file), form)  # type: ignore[arg-type]


_Rows: TypeAlias = list[tuple[str, ClassRow]]  # with the place in the file


def _from_lines(file: Path, text: str) -> tuple[_Rows, Form]:
    lines = [(n, line.strip()) for n, line in enumerate(text.rstrip().split("\n"), 1)]
    lines = [(n, line) for n, line in lines if not line.startswith("#")]
    written = [(n, line) for n, line in lines if line]
    if not written:
        return [], "names"
    for pattern in _LINES:
        found = [(n, pattern.fullmatch(line)) for n, line in written]
        if all(m for _, m in found):
            rows: _Rows = []
            for n, m in found:
                assert m is not None
                parts = m.groupdict()
                rgb = (int(parts["r"]), int(parts["g"]), int(parts["b"])) if "r" in parts else None
                id = int(parts["id"]) if "id" in parts else len(rows)
                rows.append((f"{file}:{n}", ClassRow(id, parts["name"].strip(), rgb)))
            return rows, "ids" if "id" in pattern.groupindex else "colours"
    check_lines(written, file)
    numbered = numbered_names([line for _, line in written])  # id name was found above, so name id
    if numbered is not None:
        pairs = zip(written, numbered.items(), strict=True)
        return [(f"{file}:{n}", ClassRow(id, name)) for (n, _), (id, name) in pairs], "ids"
    for n, line in written:
        alike = next((p for p in _LINES if p.fullmatch(line)), None)
        if alike is not None:
            other, odd = next((k, o) for k, o in written if not alike.fullmatch(o))
            raise DataError(
                f"{file}:{other}: {odd!r:.60} is not written as line {n}, {line!r:.60}; write all lines alike, such as "
                "`0 background`"
            )
    if any(not line for _, line in lines):
        n = next(n for n, line in lines if not line)
        raise DataError(f"{file}:{n}: an empty line; write the name of the class, or `id name` in each line")
    first = -1 if lines and lines[0][1] == "__ignore__" else 0  # labelme's labels.txt counts it as -1
    named = [(f"{file}:{n}", ClassRow(i, line)) for i, (n, line) in enumerate(lines, first) if i >= 0]
    return named, "names"


def _header(text: str) -> tuple[dict[str, int], str] | None:
    """Return the position of each column and the separator, or None where the first line is no header."""
    first = text.split("\n")[0]
    separator = max(",;\t", key=first.count)
    columns = {c.strip().lower().replace(" ", "_"): i for i, c in enumerate(first.split(separator))}
    return (columns, separator) if any(c in columns for c in _NAME_COLUMNS) else None


def _from_csv(file: Path, text: str, columns: dict[str, int], separator: str) -> _Rows:
    name = next(columns[c] for c in _NAME_COLUMNS if c in columns)
    id = next((columns[c] for c in _ID_COLUMNS if c in columns), None)
    rgb = next(([columns[c] for c in cs] for cs in _COLOUR_COLUMNS if all(c in columns for c in cs)), [])
    rows: _Rows = []
    for n, line in enumerate(text.split("\n")[1:], 2):
        where = f"{file}:{n}"
        try:
            cells = [c.strip() for c in next(csv.reader([line], delimiter=separator, skipinitialspace=True), [])]
        except csv.Error as e:
            raise DataError(f"{where}: no line of a CSV file ({e}); correct it") from None
        if not any(cells):
            continue
        if len(cells) <= max(columns.values()):
            raise DataError(f"{where}: has {len(cells)} of {max(columns.values()) + 1} columns; add the others")
        if not cells[name]:
            raise DataError(f"{where}: has no name; add it")
        numbers = [_number(cells[i], where) for i in rgb]
        colour = (numbers[0], numbers[1], numbers[2]) if numbers else None
        rows.append((where, ClassRow(len(rows) if id is None else _number(cells[id], where), cells[name], colour)))
    return rows


def _number(cell: str, where: str) -> int:
    if not re.fullmatch(r"\d{1,9}", cell):
        raise DataError(f"{where}: {cell!r:.40} is no whole number of 0 or more; correct it")
    return int(cell)


def _from_json(file: Path, text: str) -> _Rows:
    try:
        content = json.loads(text, object_pairs_hook=once)
    except json.JSONDecodeError as e:
        raise DataError(f"{file}:{e.lineno}: no valid JSON ({e.msg} at column {e.colno}); correct it") from None
    except (ValueError, RecursionError) as e:
        raise DataError(f"{file}: no valid JSON ({e}); correct it") from None
    if isinstance(content, list):
        return [(f"{file}: [{i}]", _json_row(item, i, f"{file}: [{i}]")) for i, item in enumerate(content)]
    if isinstance(content, dict) and content:
        rows: _Rows = []
        by_id = all(re.fullmatch(r"\d{1,9}", k) and isinstance(v, str) for k, v in content.items())
        for i, (key, value) in enumerate(content.items()):
            where = f"{file}: {key!r:.40}"
            record = {"id": int(key), "name": value} if by_id else {"name": key, "id": value}
            if isinstance(value, list):
                record = {"name": key, "color": value}
            rows.append((where, _json_row(record, i, where)))
        return rows
    raise DataError(f'{file}: holds no class names; write a list such as ["background", "road"]')


def _json_row(item: Any, position: int, where: str) -> ClassRow:
    if isinstance(item, str):
        item = {"name": item}
    if not isinstance(item, dict) or not isinstance(item.get("name"), str) or not item["name"].strip():
        raise DataError(f"{where}: is {item!r:.60}, no name and no object with a name; correct it")
    id = item.get("id", position)
    if isinstance(id, bool) or not isinstance(id, int) or id < 0:
        raise DataError(f"{where}: id is {id!r:.40}; give a whole number of 0 or more")
    colour = item.get("color", item.get("colour"))
    if isinstance(colour, str) and re.fullmatch(r"#[0-9a-fA-F]{6}", colour):
        colour = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    if colour is None:
        return ClassRow(id, item["name"].strip())
    numbers = isinstance(colour, list) and all(isinstance(c, int) and not isinstance(c, bool) for c in colour)
    if not numbers or len(colour) != 3 or min(colour) < 0:
        raise DataError(f"{where}: color is {colour!r:.40}; give [red, green, blue], 0..255 each")
    return ClassRow(id, item["name"].strip(), (colour[0], colour[1], colour[2]))


def _spoken(colour: Colour) -> str:
    return " ".join(map(str, colour))
