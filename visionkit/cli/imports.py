"""Imports at the start of a command."""

from __future__ import annotations

import atexit
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["uncollected"]


@contextmanager
def uncollected() -> Iterator[None]:
    """Import without the garbage collector, which finds nothing in modules and takes a fifth of the time to look.

    At the start of a process all that there is by then is kept out of later collections, too: it stays to the end.
    """
    enabled, at_start = gc.isenabled(), "torch" not in sys.modules
    gc.disable()
    try:
        yield
    finally:
        if at_start:
            gc.freeze()
            atexit.register(gc.unfreeze)  # libraries complain at the end of what is still there
        if enabled:
            gc.enable()
