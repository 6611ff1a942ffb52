"""How far a command is, in one line of a terminal that is overwritten and goes at the end."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

__all__ = ["Counter", "counting"]

INTERVAL = 0.2  # seconds between two looks of it
WIDTH = 79


class Counter:
    """Shows how many pictures are done, how many that is a second, and how long the rest takes.

    Args:
        stream: A terminal.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self._start = self._shown = time.monotonic()
        self._first: int | None = None
        self._wrote = False

    def __call__(self, done: int, total: int) -> None:
        """Show it, unless that was a moment ago.

        Args:
            done: Pictures that are done.
            total: All of them.
        """
        now = time.monotonic()
        if self._first is None:  # before it models are loaded
            self._first, self._start = done, now
        if now - self._shown < INTERVAL:
            return
        self._shown = now
        rate = (done - self._first) / max(now - self._start, 1e-6)
        line = f"{done:,} of {total:,} pictures"
        if rate:
            minutes, seconds = divmod(round((total - done) / rate), 60)
            line += f", {rate:.{1 if rate < 10 else 0}f} a second, {minutes}:{seconds:02d} left"
        self._wrote = True
        self.stream.write(f"\r{line[:WIDTH]:<{WIDTH}}")
        self.stream.flush()

    def clear(self) -> None:
        """Take the line away, where there is one."""
        if self._wrote:
            self.stream.write(f"\r{' ' * WIDTH}\r")
            self.stream.flush()


@contextmanager
def counting() -> Iterator[Counter | None]:
    """Yield what shows the progress on standard error, or None where that is no terminal."""
    counter = Counter(sys.stderr) if sys.stderr.isatty() else None
    try:
        yield counter
    finally:
        if counter is not None:
            counter.clear()
