"""Work done ahead of the one who wants it, by threads of this process."""

from __future__ import annotations

import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any, TypeVar

__all__ = ["prefetch", "prefetch_map"]

T = TypeVar("T")
R = TypeVar("R")


def prefetch_map(function: Callable[[T], R], items: Iterable[T], *, threads: int, depth: int) -> Iterator[R]:
    """Yield ``function(item)`` in order; threads compute the next ones meanwhile.

    Of use for functions that give up Python's lock, as reading and decoding pictures does.

    Args:
        function: What to do, in any thread.
        items: What to do it with.
        threads: How many; 0 does it in this one, when it is asked for.
        depth: Results that may wait, at least 1.
    """
    if threads == 0:
        yield from map(function, items)
        return
    pool = ThreadPoolExecutor(threads, thread_name_prefix="read", initializer=_stand_back)
    waiting: deque[Future[R]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > depth:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def prefetch(items: Generator[T], depth: int) -> Iterator[T]:
    """Yield the items of a generator, which another thread makes meanwhile.

    What the generator raises is raised here, at the same place. When this one is closed, that one is, too.

    Args:
        items: Where they come from.
        depth: Items that may wait, at least 1.
    """
    made: SimpleQueue[tuple[str, Any]] = SimpleQueue()
    room = threading.Semaphore(depth)
    closed = threading.Event()

    def make() -> None:
        try:
            for item in items:
                made.put(("item", item))
                room.acquire()
                if closed.is_set():
                    break
            items.close()
            made.put(("end", None))
        except BaseException as e:  # whatever it is, the other thread wants to know
            made.put(("error", e))

    thread = threading.Thread(target=make, name="prefetch", daemon=True)
    thread.start()
    try:
        while True:
            what, value = made.get()
            room.release()
            if what == "error":
                raise value
            if what == "end":
                return
            yield value
    finally:
        closed.set()
        room.release()
        thread.join()


def _stand_back() -> None:
    """Let other threads go first where they want the same processor; Linux knows priorities of threads."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)
