"""How long the command runs already."""

from __future__ import annotations

import time

__all__ = ["elapsed", "start"]

_started = time.monotonic()


def start() -> None:
    """Let the clock start anew: a process can run several commands."""
    global _started
    _started = time.monotonic()


def elapsed() -> float:
    """Return the seconds since the command has started."""
    return time.monotonic() - _started
