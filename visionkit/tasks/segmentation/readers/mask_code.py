"""From what masks hold to classes: by name, nothing half understood."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from visionkit.core.errors import DataError, UsageError
from visionkit.data.labels.classes import check_classes, unknown_class
from visionkit.data.labels.masks import IGNORE
from visionkit.tasks.segmentation.readers.class_table import ClassRow, ClassTable, Form
from visionkit.tasks.segmentation.readers.mask_files import FoundIds, MaskFile, find_ids, gray, pack, unpack
from visionkit.tasks.segmentation.types import MAX_CLASSES

__all__ = ["VOID_NAMES", "MaskCode", "MaskValueError", "complete_table", "make_code"]

VOID_NAMES = ("void", "unlabeled", "unlabelled", "ignore", "ignored", "ignore_label", "don't care", "dontcare")
"""Names whose pixels are ignored, however they are written (Void, Don't_Care)."""

Mask: TypeAlias = NDArray[np.uint8]
_UNKNOWN = 256
_MAX_SHOWN_IDS = 5  # unknown ids that a message lists


class MaskValueError(DataError):
    """A mask holds ids or colours that are not known."""


@dataclass(frozen=True)
class MaskCode:
    """How the pixels of mask files become class ids.

    Args:
        classes: Class names; a name's position is its id.
        ids: Class id, or 255, of each id in masks.
        colours: Class id, or 255, of each packed colour.
        table: Where the names come from.
        ignored: The names whose pixels are ignored.
    """

    classes: tuple[str, ...]
    ids: dict[int, int]
    colours: dict[int, int]
    table: ClassTable
    ignored: tuple[str, ...] = ()

    def decode(self, mask: MaskFile, path: str) -> Mask:
        """Return the class of each pixel, uint8 [H, W], 255 for those that are ignored.

        Args:
            mask: What the file holds.
            path: The file, for messages.

        Raises:
            DataError: It holds ids or colours that are not known, or could be read in two ways.
        """
        if mask.ids is not None:
            if mask.palette is not None and self.colours:
                return self._from_palette(mask.ids, mask.palette, path)
            return self._from_ids(mask.ids, path)
        assert mask.colours is not None
        if self.colours:
            return self._from_colours(mask.colours, path)
        values = gray(mask)
        if values is None:
            raise DataError(
                f"{path}: is a coloured mask, but {self.table.source} has no colours; write label_colors.txt with "
                "lines such as `128 64 128 road`, or save masks of ids"
            )
        return self._from_ids(values, path)

    @cached_property
    def _lookup(self) -> NDArray[np.int16]:
        lookup = np.full(65536, _UNKNOWN, np.int16)
        lookup[list(self.ids)] = list(self.ids.values())
        return lookup

    @cached_property
    def _sorted(self) -> tuple[NDArray[np.uint32], NDArray[np.uint8]]:
        keys = sorted(self.colours)
        return np.array(keys, np.uint32), np.array([self.colours[k] for k in keys], np.uint8)

    def _from_ids(self, ids: NDArray[np.uint8 | np.uint16], path: str) -> Mask:
        counts = np.bincount(ids.ravel())
        held = np.flatnonzero(counts)
        unknown = held[self._lookup[held] == _UNKNOWN].tolist()
        if unknown:
            shown = _listed("id", [(str(i), int(counts[i])) for i in unknown])
            raise MaskValueError(
                f"{path}: holds {shown}, which {self.table.source} does not name; "
                f"{self.table.advice_on_id(unknown[0])} or correct the mask"
            )
        return self._lookup[: len(counts)].astype(np.uint8)[ids]

    def _from_colours(self, colours: NDArray[np.uint32], path: str) -> Mask:
        keys, values = self._sorted
        place = np.searchsorted(keys, colours).clip(max=len(keys) - 1)
        unknown = keys[place] != colours
        if unknown.any():
            self._refuse_colours(*np.unique(colours[unknown], return_counts=True), path)
        return np.asarray(values[place])

    def _refuse_colours(self, found: NDArray[np.uint32], counts: NDArray[np.int64], path: str) -> None:
        shown = [(" ".join(map(str, unpack(int(c)))), int(n)) for c, n in zip(found, counts, strict=True)]
        raise MaskValueError(
            f"{path}: holds {_listed('colour', shown)}, which {self.table.source} does not name; "
            f"{self.table.advice_on_colour(unpack(int(found[0])))} or correct the mask"
        )

    def _from_palette(self, ids: Mask, palette: NDArray[np.uint32], path: str) -> Mask:
        """Read a palette by index, or by colour where that alone is possible."""
        held = np.flatnonzero(np.bincount(ids.ravel(), minlength=256))
        by_id = self._lookup[held]
        other = {IGNORE: IGNORE}  # the border of objects, whatever its colour
        by_colour = np.array([self.colours.get(int(palette[i]), other.get(int(i), _UNKNOWN)) for i in held])
        if (by_id == _UNKNOWN).any() and (by_colour == _UNKNOWN).any():
            return self._from_ids(ids, path)  # says what is unknown
        if (by_id == _UNKNOWN).any():
            lookup = np.zeros(256, np.uint8)
            lookup[held] = by_colour
            return np.asarray(lookup[ids])
        differ = held[(by_id != by_colour) & ~(by_colour == _UNKNOWN).any()]
        if len(differ):
            i = int(differ[0])
            names = (*self.classes, *[""] * (IGNORE - len(self.classes)), "ignored")
            rgb = " ".join(map(str, unpack(int(palette[i]))))
            raise DataError(
                f"{path}: pixels of id {i} have the colour {rgb}, and {self.table.source} gives the id to "
                f"{names[self.ids[i]]} but the colour to {names[by_colour[held == i][0]]}; save the mask as ids "
                "without a palette, or as red, green, blue"
            )
        return self._from_ids(ids, path)


def make_code(
    table: ClassTable, *, ignore: Sequence[str] | None = None, classes: Sequence[str] | None = None
) -> MaskCode:
    """Return how masks become classes.

    Args:
        table: The classes by id and colour.
        ignore: Names whose pixels are ignored; None for those of ``VOID_NAMES``.
        classes: Class names in order (of a checkpoint); None takes those of the table by id.

    Raises:
        DataError: The table has a name or colour twice, too many classes, or one that ``classes`` lacks.
        UsageError: ``ignore`` names what the table lacks, or ``classes`` is empty or has a name twice.
    """
    fixed = None if classes is None else check_classes(classes)
    void = _void(table, ignore, fixed or ())
    kept = [r for r in table.rows if r not in void]
    for name in {r.name for r in kept}:
        same = [r.id for r in kept if r.name == name]
        if len(same) > 1:
            raise DataError(f"{table.source}: {name!r} has id {same[0]} and id {same[1]}; give each class its own name")
    names = fixed if fixed is not None else tuple(r.name for r in sorted(kept, key=lambda r: r.id))
    if not names:
        raise DataError(f"{table.source}: all its classes are ignored ({_short(void)}); name some that are not")
    if len(names) > MAX_CLASSES:
        raise DataError(f"{table.source}: {len(names)} classes, a mask can tell {MAX_CLASSES} apart; leave some out")
    ids: dict[int, int] = {IGNORE: IGNORE}
    colours: dict[int, int] = {}
    owner: dict[int, str] = {}
    for row in table.rows:
        if row in void:
            value = IGNORE
        elif row.name in names:
            value = names.index(row.name)
        else:
            raise DataError(
                f"{table.source}: {unknown_class(row.name, names)}; rename it, or ignore its pixels with "
                f"--data.ignore [{row.name}]"
            )
        ids[row.id] = value
        if row.colour is not None:
            packed = int(pack(np.array(row.colour)))
            if colours.setdefault(packed, value) != value:
                rgb = " ".join(map(str, row.colour))
                raise DataError(
                    f"{table.source}: {owner[packed]!r} and {row.name!r} have the same colour {rgb}; give each its own"
                )
            owner.setdefault(packed, row.name)
    return MaskCode(tuple(names), ids, colours, table, tuple(dict.fromkeys(r.name for r in void)))


def complete_table(
    table: ClassTable | None,
    paths: Sequence[str],
    where: str,
    *,
    ignore: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
) -> tuple[ClassTable, str]:
    """Return the table that masks were made for, and what was understood; masks of two values need no table.

    Masks are read only where there is no table, or one of one or two classes.

    Args:
        table: The file of class names, or None where there is none.
        paths: All mask files of the data set.
        where: Its folder, for messages.
        ignore: As in :func:`make_code`.
        classes: As in :func:`make_code`; without a table their positions are the ids.

    Raises:
        DataError: The masks hold ids that nothing names.
        UsageError: ``ignore`` names what the table lacks.
    """
    form: Form = "built-in"
    if table is None and classes is not None:
        table = ClassTable(tuple(ClassRow(i, n) for i, n in enumerate(check_classes(classes))), "the list of classes")
        note = "ids are positions in the given classes"
    elif table is not None:
        note, form = "", table.form
    else:
        note = ""
    kept = [] if table is None else [r for r in table.rows if r not in _void(table, ignore, classes or ())]
    if table is not None and len(kept) > 2:
        return table, note
    found = find_ids(paths, colours=table is not None and table.coloured)
    held = set(found.ids)
    if table is None and found.coloured:
        raise DataError(
            f"{where}: no file says what the colours of the masks are ({found.coloured} is one); write "
            "label_colors.txt there with a line for each, such as `128 64 128 road`"
        )
    high = IGNORE if held <= {0, IGNORE} and IGNORE in held else 1
    if found.coloured or not held or not held <= {0, high}:
        if table is None:
            raise DataError(f"{where}: {_nameless(found)}" if held else found.problem)
        strange = held - {IGNORE} - {r.id for r in table.rows}
        if len(kept) == 1 and strange and not found.coloured:  # else 0 and 255 of other masks would be read as they are
            raise DataError(
                f"{table.source}: names {kept[0].name} alone, but the masks hold the ids {_spoken(found)}; name each "
                "id, such as `0 background`"
            )
        return table, note
    if table is None:
        rows = (ClassRow(0, "background"), ClassRow(high, "foreground"))
        return ClassTable(rows, "masks without a file of names"), f"masks of 0 and {high}: background and foreground"
    named = high == IGNORE and any(r.id == IGNORE for r in table.rows)
    if len(kept) == 2 and high == IGNORE and not named and kept[0].id == 0:
        second = replace(kept[1], id=IGNORE)
        others = tuple(r for r in table.rows if r != kept[1])
        return replace(table, rows=(*others, second)), _also(note, f"255 in masks is {second.name}")
    if len(kept) == 1 and not ignore and not named and kept[0].name.lower() != "background":
        rows = (ClassRow(0, "background"), ClassRow(high, kept[0].name, None))
        return ClassTable(rows, table.source, form), _also(note, f"{high} in masks is {kept[0].name}, 0 is background")
    return table, note


def _also(note: str, more: str) -> str:
    return f"{note}, {more}" if note else more


def _nameless(found: FoundIds) -> str:
    lines = ", ".join("`0 background`" if i == 0 else f"`{i} NAME`" for i in list(found.ids)[:2])
    return (
        f"no file says what the ids in its masks are called, {_spoken(found)}; write classes.txt there with a line for "
        f"each: {lines}, ..."
    )


def _spoken(found: FoundIds) -> str:
    ids = list(found.ids)
    shown = ", ".join(map(str, ids[:20])) + (f", ... {ids[-1]}, {len(ids)} in all" if len(ids) > 20 else "")
    return f"{shown} (in {found.masks} masks)"


def _void(table: ClassTable, ignore: Sequence[str] | None, fixed: Sequence[str]) -> list[ClassRow]:
    """Return the classes whose pixels are ignored; a name of the fixed classes is not, unless that was asked for."""
    if isinstance(ignore, str):
        raise UsageError(f"ignore: {ignore!r} is not a list of class names; give one such as [{ignore}]")
    for name in ignore or ():
        if not any(_plain(r.name) == _plain(name) for r in table.rows):
            names = [r.name for r in table.rows if not r.void]
            raise UsageError(f"ignore: {unknown_class(name, names)}; correct the list")
    words = {_plain(n) for n in (VOID_NAMES if ignore is None else ignore)}
    return [
        r for r in table.rows if r.void or (_plain(r.name) in words and not (ignore is None and r.name in fixed))
    ]  # fmt: skip


def _plain(name: str) -> str:
    return re.sub(r"[\s_'\u2019-]", "", name.lower())


def _short(rows: Sequence[ClassRow]) -> str:
    return ", ".join(r.name for r in rows[:5])


def _listed(what: str, found: Sequence[tuple[str, int]]) -> str:
    shown = ", ".join(f"{value} ({n} pixel{'s' if n != 1 else ''})" for value, n in found[:_MAX_SHOWN_IDS])
    more = f" and {len(found) - _MAX_SHOWN_IDS} more" if len(found) > _MAX_SHOWN_IDS else ""
    return f"{what}{'s' if len(found) > 1 else ''} {shown}{more}"
