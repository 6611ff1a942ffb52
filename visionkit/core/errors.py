"""The two errors that a person sees: what is wrong, where, and what to do."""

from __future__ import annotations

from visionkit.core.text import printable

__all__ = ["DataError", "UsageError", "VisionkitError"]


class VisionkitError(Exception):
    """Base of visionkit's own errors. The command line prints the message alone, without a traceback.

    Args:
        lines: The message, one line (or one line per faulty file): what, where (file, line, key), what to do. Names of
            files and classes in it need no care: what could act on a terminal or forge a line is escaped.
    """

    exit_status = 1

    def __init__(self, *lines: str) -> None:
        super().__init__(*lines)

    @property
    def lines(self) -> list[str]:
        """The message, line by line, safe to show."""
        return [printable(line) for line in _own(self.args, type(self).__name__)]

    def __str__(self) -> str:
        return "\n".join(self.lines)


class DataError(VisionkitError):
    """Something is wrong with a file: an image, a label, a checkpoint. Exit status 1."""


class UsageError(VisionkitError):
    """Something is wrong with what was asked: a key, a value, a combination. Exit status 2."""

    exit_status = 2


def _own(lines: tuple[str, ...], name: str) -> list[str]:
    """Return the message alone: a loader's worker process wraps it into its traceback."""
    if len(lines) == 1 and "Original Traceback" in lines[0]:
        marker = f"{name}: "
        if marker in lines[0]:
            return lines[0].rpartition(marker)[2].strip().splitlines()
    return list(lines)
