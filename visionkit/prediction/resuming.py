"""Going on with predictions that stopped: what was asked, and the records that are there."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from visionkit.core.errors import DataError, UsageError
from visionkit.core.files import open_binary, read_bytes, read_text, write_text

__all__ = ["ASKED", "digest", "note", "recorded_images", "refuse_other"]

ASKED = ".predictions.json"
"""File beside the records: what they were made with and from."""


def digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with open_binary(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def note(out: Path, asked: Mapping[str, Any]) -> None:
    """Write down what predictions are made with."""
    write_text(out / ASKED, json.dumps(asked, indent=1) + "\n")


def refuse_other(out: Path, asked: Mapping[str, Any]) -> None:
    """Refuse to go on with predictions that were made with something else.

    Args:
        out: The folder of the predictions.
        asked: What was asked, by the option's name; plain data.

    Raises:
        UsageError: Something differs, or nothing says what they were made with.
    """
    anew = "choose another --out, or predict anew with --overwrite instead of --resume"
    try:
        before = json.loads(read_text(out / ASKED, limit=10_000_000))
    except (DataError, ValueError, RecursionError):
        raise UsageError(f"{out}: nothing there says what its predictions were made with; {anew}") from None
    now = json.loads(json.dumps(asked))
    differ = [key for key in now if not isinstance(before, dict) or before.get(key) != now[key]]
    if differ:
        raise UsageError(f"{out}: its predictions were made with another {' and '.join(differ)}; {anew}")


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
