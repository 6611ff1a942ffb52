"""Going on with predictions that stopped: what was asked, and the records that are there."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from visionkit.core.errors import DataError, UsageError
from visionkit.core.files import locked, make_folder, open_binary, read_bytes, read_text, unwritable, write_text
from visionkit.prediction.writers import files_beside

__all__ = [
    *("ASKED", "SEEN", "Facts", "GoingOn"),
    *("alone", "digest", "facts_of", "given_images", "note_images", "recorded_images"),
]

ASKED, SEEN = ".predictions.json", ".predictions.pictures.jsonl"
"""Files beside the records: what they were made with, and what they were made from, a line a picture."""
LOCK = ".predictions.lock"
"""Held by the process that writes."""
MAX_NAMED = 3  # pictures, in a line
_LARGEST = 2**30  # bytes of a list of pictures

Facts: TypeAlias = dict[str, Any]
"""What tells whether a picture is still the one that was predicted: its path, its bytes, when they were written, and
what a manifest says of it."""


def facts_of(path: str, extra: Mapping[str, Any]) -> Facts:
    """Return the facts of a picture; of what is no file here, the path alone counts."""
    size: int | None = None
    written: int | None = None
    with contextlib.suppress(OSError, ValueError):
        found = os.stat(path)
        size, written = found.st_size, found.st_mtime_ns
    return {"image": path, "bytes": size, "mtime_ns": written, "extra": json.dumps(dict(extra), sort_keys=True)}


def digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with open_binary(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class GoingOn:
    """What is there of predictions that stopped, and what is left to do for the pictures that are given now.

    Args:
        out: The folder of the predictions.
        asked: What they are made with, by the option's name; plain data.
        known: Of all pictures that were ever given, in order; a picture's place among them is its number.
        numbers: Of the pictures that are given now.
        records: Those that stay.
        changed: Numbers and paths of pictures that have a record of what they are no longer.
        gone: Paths of pictures with a record that are not given any more.
        new: How many pictures were not given before.
        read: How many records were there.
    """

    out: Path
    asked: Mapping[str, Any]
    known: list[Facts]
    numbers: list[int]
    records: list[dict[str, Any]] = field(default_factory=list)
    changed: dict[int, str] = field(default_factory=dict)
    gone: list[str] = field(default_factory=list)
    new: int = 0
    read: int = 0

    @classmethod
    def find(cls, out: Path, records: Path, asked: Mapping[str, Any], now: Sequence[Facts]) -> GoingOn:
        """Return what there is to go on with.

        Args:
            out: The folder of the predictions.
            records: The JSONL file in it; none there is as good as an empty one.
            asked: What is asked now.
            now: The pictures that are given now.

        Raises:
            UsageError: The predictions were made with something else, or of other pictures, or nothing says with what.
            DataError: A line of the records is none.
        """
        before = recorded_images(records)
        if not before:
            return cls.anew(out, asked, now)
        _refuse_other(out, asked)
        known = _seen(out)
        recorded, given = {record["image"] for record in before}, {facts["image"] for facts in now}
        if recorded.isdisjoint(given):
            raise UsageError(f"{out}: its predictions are of other pictures; {ANEW}")
        places: dict[str, deque[int]] = defaultdict(deque)
        for number, facts in enumerate(known):
            places[facts["image"]].append(number)
        numbers, changed, new = [], {}, 0
        for facts in now:
            place = places[facts["image"]]
            if not place:
                place.append(len(known))
                known.append(facts)
                new += 1
            number = place.popleft()
            if known[number] != facts and facts["image"] in recorded:
                changed[number] = facts["image"]
            known[number] = facts
            numbers.append(number)
        other = set(changed.values())
        stays = [record for record in before if record["image"] not in other]
        gone = sorted(recorded - given)
        return cls(out, asked, known, numbers, stays, changed, gone, new, len(before))

    @classmethod
    def anew(cls, out: Path, asked: Mapping[str, Any], now: Sequence[Facts]) -> GoingOn:
        """Return that nothing is there."""
        return cls(out, asked, list(now), list(range(len(now))))

    @property
    def images(self) -> tuple[str, ...]:
        """The paths of all pictures that were ever given, in order."""
        return tuple(facts["image"] for facts in self.known)

    def left(self) -> list[int]:
        """Return the places, among the pictures that are given now, of those without a record."""
        done = Counter(record["image"] for record in self.records)
        left = []
        for place, number in enumerate(self.numbers):
            image = self.known[number]["image"]
            done[image] -= 1
            if done[image] < 0:
                left.append(place)
        return left

    def refuse_renamed(self) -> None:
        """Refuse pictures with which files that lie as the pictures do would lie otherwise than before.

        Raises:
            UsageError: Naming a picture.
        """
        if not self.records or not self.new:
            return
        before = files_beside(self.images[: -self.new], "")
        after = files_beside(self.images, "")
        for record in self.records:
            image = record["image"]
            if before.get(image) != after[image]:
                raise UsageError(
                    f"{self.out}: with the new pictures the files of {image} would be called {after[image]} in place "
                    f"of {before.get(image)}; {ANEW}"
                )

    def drop_changed(self, records: Path, remove: Callable[[int, str], None]) -> None:
        """Drop what was made of pictures that are others now.

        Args:
            records: The JSONL file.
            remove: Removes the files that were made of a picture, by its number and path.
        """
        if self.changed:
            write_text(records, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in self.records))
            for number, image in self.changed.items():
                remove(number, image)

    def note(self) -> None:
        """Write down what predictions are made with and from."""
        write_text(self.out / SEEN, "".join(json.dumps(facts) + "\n" for facts in self.known))
        write_text(self.out / ASKED, json.dumps(self.asked, indent=1) + "\n")

    def lines(self) -> list[str]:
        """Return in words what is new, changed and gone."""
        said = []
        if self.changed:
            which = _counted(list(self.changed.values()), "changed since", "is predicted anew", "are predicted anew")
            said.append(which)
        if self.new and self.records:
            said.append(_count(self.new, "new") + (" is added" if self.new == 1 else " are added"))
        if self.gone:
            said.append(_counted(self.gone, "no longer given", "keeps its record", "keep their records"))
        return said


@contextmanager
def alone(records: Path, read: int | None) -> Iterator[None]:
    """Let no other process write predictions into a folder while the block runs.

    Args:
        records: The JSONL file in it; the folder is made if need be.
        read: How many records there were when somebody looked; None for any number.

    Raises:
        UsageError: Another process does, or has done so since.
        DataError: The folder cannot be written.
    """
    out, lock = records.parent, records.parent / LOCK
    make_folder(out)
    try:
        with locked(lock, wait=False) as held:
            if not held:
                raise UsageError(
                    f"{out}: another visionkit predict writes into it: wait until it has ended, or choose another --out"
                )
            try:
                data = read_bytes(records) if read is not None and records.exists() else b""
                if data.count(b"\n") != (read or 0):
                    raise UsageError(f"{out}: another visionkit predict has written into it just now: start again")
                if data and not data.endswith(b"\n"):  # a process was killed while it wrote
                    os.truncate(records, data.rfind(b"\n") + 1)
                yield
            finally:
                lock.unlink(missing_ok=True)
    except OSError as e:
        raise unwritable(out, e) from e


ANEW = "choose another --out, or predict anew with --overwrite instead of --resume"


def _refuse_other(out: Path, asked: Mapping[str, Any]) -> None:
    try:
        before = json.loads(read_text(out / ASKED, limit=10_000_000))
    except (DataError, ValueError, RecursionError):
        raise _unknown(out) from None
    now = json.loads(json.dumps(asked))
    differ = [key for key in now if not isinstance(before, dict) or before.get(key) != now[key]]
    if differ:
        raise UsageError(f"{out}: its predictions were made with another {' and '.join(differ)}; {ANEW}")


def _seen(out: Path) -> list[Facts]:
    """Return what was noted of the pictures."""
    try:
        found = [json.loads(line) for line in read_text(out / SEEN).splitlines()]
    except (DataError, ValueError, RecursionError):
        raise _unknown(out) from None
    if not found or not all(isinstance(facts, dict) and isinstance(facts.get("image"), str) for facts in found):
        raise _unknown(out)
    return found


def _unknown(out: Path) -> UsageError:
    return UsageError(f"{out}: nothing there says what its predictions were made with; {ANEW}")


def _count(number: int, what: str) -> str:
    return f"{number} {what} picture{'' if number == 1 else 's'}"


def _counted(images: Sequence[str], what: str, one: str, several: str) -> str:
    more = ", ..." if len(images) > MAX_NAMED else ""
    does = one if len(images) == 1 else several
    plural = "" if len(images) == 1 else "s"
    return f"{len(images)} picture{plural} {what} {does}: {', '.join(images[:MAX_NAMED])}{more}"


def note_images(out: Path, images: Sequence[str]) -> None:
    """Write down which pictures were given, for :func:`given_images`: without what they hold, nothing goes on here."""
    write_text(out / SEEN, "".join(json.dumps({"image": image}) + "\n" for image in images))


def given_images(out: Path, recorded: Sequence[str]) -> list[str]:
    """Return all pictures that were given when a folder of predictions was written: files beside them go by these.

    Args:
        out: The folder.
        recorded: Pictures with a record: the answer where nothing says which were given, or something else does.
    """
    try:
        every = [json.loads(line)["image"] for line in read_text(out / SEEN, limit=_LARGEST).splitlines()]
    except (DataError, ValueError, TypeError, KeyError, RecursionError):
        return list(recorded)
    return every if all(isinstance(one, str) for one in every) and set(recorded) <= set(every) else list(recorded)


def recorded_images(records: Path) -> list[dict[str, Any]]:
    """Return the records of a file, without what follows the last whole one.

    Args:
        records: The JSONL file; none there is as good as an empty one.

    Raises:
        DataError: A line before the last is no record.
    """
    if not records.exists():
        return []
    data = read_bytes(records)
    whole = data.rfind(b"\n") + 1
    found: list[dict[str, Any]] = []
    for number, line in enumerate(data[:whole].split(b"\n")[:-1], 1):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            record = None
        if not isinstance(record, dict) or not isinstance(record.get("image"), str):
            raise DataError(f"{records}:{number}: no record of a picture; remove the line, or predict anew")
        found.append(record)
    return found
