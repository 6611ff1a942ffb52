"""Faults of labels: the first one is refused, or all are gathered where somebody wants to know them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple, ParamSpec, TypeVar

from visionkit.core.errors import DataError
from visionkit.core.text import shortened

__all__ = ["Fault", "attempt", "fault", "fault_each", "gathering", "is_gathering", "reading_split"]

P = ParamSpec("P")
R = TypeVar("R")


class Fault(NamedTuple):
    """What is wrong with a file of labels.

    Args:
        kind: The finding that it is, a word such as ``label-syntax``.
        message: Its place (file, line), what is wrong and what to do, in a line.
        split: The split that was being read; "" where that is not known.
    """

    kind: str
    message: str
    split: str = ""


_reading: ContextVar[str] = ContextVar("reading", default="")
_gathered: ContextVar[list[Fault] | None] = ContextVar("gathered", default=None)


@contextmanager
def gathering() -> Iterator[list[Fault]]:
    """Gather what readers in this block would refuse: they go on without it.

    So a check and a training read by the same code and cannot disagree. What makes a whole file unreadable is still
    raised.

    Yields:
        The faults, as they are found.
    """
    found: list[Fault] = []
    token = _gathered.set(found)
    try:
        yield found
    finally:
        _gathered.reset(token)


@contextmanager
def reading_split(name: str) -> Iterator[None]:
    """Note with the faults in this block that they are of a split.

    Args:
        name: ``train``, ``val`` or ``test``.
    """
    token = _reading.set(name)
    try:
        yield
    finally:
        _reading.reset(token)


def is_gathering() -> bool:
    """Return whether faults are gathered."""
    return _gathered.get() is not None


def fault(kind: str, message: str) -> None:
    """Refuse something; where faults are gathered, note it and return, and the caller goes on without it.

    Args:
        kind: The finding that it is.
        message: Its place, what is wrong and what to do, in a line.

    Raises:
        DataError: Faults are not gathered.
    """
    fault_each(kind, [message])


def fault_each(kind: str, messages: Sequence[str], *total: str) -> None:
    """Refuse several things, as :func:`fault` does one.

    Args:
        kind: The finding that they are.
        messages: A line each; none is no fault.
        total: What the error says in the end, behind the first ten.

    Raises:
        DataError: There are any, and faults are not gathered.
    """
    if not messages:
        return
    found = _gathered.get()
    if found is None:
        raise DataError(*shortened(messages), *total)
    found += [Fault(kind, m, _reading.get()) for m in messages]


def attempt(kind: str, read: Callable[P, R], *args: P.args, **options: P.kwargs) -> R | None:
    """Return what a function reads, or None where it refuses something and faults are gathered.

    Args:
        kind: The finding that it is.
        read: Raises DataError in one line for what it refuses.
        args: What it takes.
        options: What it takes by name.

    Raises:
        DataError: It refuses something, and faults are not gathered.
    """
    try:
        return read(*args, **options)
    except DataError as e:
        found = _gathered.get()
        if found is None:
            raise
        found += [Fault(kind, line, _reading.get()) for line in e.lines]
        return None
