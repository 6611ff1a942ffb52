"""The content of a JSON or JSONL file, or what is wrong with it in one line."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from visionkit.core.errors import DataError
from visionkit.data.labels.checks import RepeatedKeyError, once

__all__ = ["parse_json", "parse_line"]

_LONG_NUMBER = re.compile("[0-9]{1000}")
_WRONG = {ValueError: "a number of thousands of digits", RecursionError: "nested too deep"}


def parse_json(text: str, file: Path) -> Any:
    """Return what a JSON text holds.

    Args:
        text: The content of the file.
        file: For messages.

    Raises:
        DataError: It is no JSON, nested too deep, or a key stands twice in an object; with the line where it is known.
    """
    try:
        return json.loads(text, object_pairs_hook=once)
    except json.JSONDecodeError as e:
        raise DataError(
            f"{file}:{e.lineno}: no valid JSON ({e.msg} at column {e.colno}); the file may be cut off: copy it again"
        ) from None
    except RepeatedKeyError as e:
        raise DataError(f"{file}: no valid JSON (the key {e} in an object); write the file anew") from None
    except (ValueError, RecursionError) as e:
        long = None if isinstance(e, RecursionError) else _LONG_NUMBER.search(text)
        why = "nested too deep" if isinstance(e, RecursionError) else "a number of thousands of digits"
        line = text.count("\n", 0, 0 if long is None else long.start()) + 1
        raise DataError(f"{file}:{line}: no valid JSON ({why}); write the file anew") from None


def parse_line(text: str, where: str, example: str) -> dict[str, Any]:
    """Return the object that a line of a JSONL file holds.

    Args:
        text: The line.
        where: Its place, for messages.
        example: Such an object, for messages.

    Raises:
        DataError: It is no JSON, or no object.
    """
    try:
        content = json.loads(text, object_pairs_hook=once)
    except (ValueError, RecursionError) as e:  # the latter where it is nested by the thousands
        why = f"{e.msg} at column {e.colno}" if isinstance(e, json.JSONDecodeError) else _WRONG.get(type(e), str(e))
        raise DataError(f"{where}: no valid JSON ({why}); each line must be one object such as {example}") from None
    if not isinstance(content, dict):
        raise DataError(f"{where}: no JSON object; write {example}")
    return content
