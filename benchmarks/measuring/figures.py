"""The figures that each case of a benchmark prints."""

from __future__ import annotations

import json
import os
import resource
import sys
from collections.abc import Sequence
from typing import Any


def workers(default: int) -> int:
    """Return how many loader processes a peer gets: its own default, at most one a core."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(default, cores)


def speed(ends: Sequence[float], *, images: int, warmup: int) -> float:
    """Return the images per second between the end of the warm-up and the end of the last step.

    What lies between two steps counts: waiting for data, schedule, logging, callbacks.

    Args:
        ends: When each step ended, in seconds.
        images: Images a step.
        warmup: First steps that are not counted, >= 1.
    """
    counted = len(ends) - warmup
    if counted < 1:
        sys.exit(f"{len(ends)} steps, {warmup} of them warm-up: the data has too few pictures for this batch size")
    return images * counted / (ends[-1] - ends[warmup - 1])


def report(figures: dict[str, Any], *, workers: bool = False) -> None:
    """Print the figures as a line of JSON, with the most memory that was in use in MiB, ``peak_mib``.

    Args:
        figures: Name -> value.
        workers: Whether loader processes have read the data: then ``workers_mib`` is what the largest of them had in
            use, the pages that it shares with this process included.
    """
    peaks = {"peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}
    if workers:
        peaks["workers_mib"] = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    rounded = {k: round(v, 4) if isinstance(v, float) else v for k, v in figures.items()}
    print(json.dumps(rounded | {k: round(v) for k, v in peaks.items()}), flush=True)
