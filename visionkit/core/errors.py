"""The two errors that a person sees: what is wrong, where, and what to do."""

from __future__ import annotations

__all__ = ["DataError", "UsageError", "VisionkitError"]


class VisionkitError(Exception):
    """Base of visionkit's own errors. The command line prints the message alone, without a traceback.

    A message is one line (or one line per faulty file): what, where (file, line, key), what to do.
    """

    exit_status = 1


class DataError(VisionkitError):
    """Something is wrong with a file: an image, a label, a checkpoint. Exit status 1."""


class UsageError(VisionkitError):
    """Something is wrong with what was asked: a key, a value, a combination. Exit status 2."""

    exit_status = 2
