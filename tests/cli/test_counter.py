import io
import sys

import pytest

from visionkit.cli import counter as module
from visionkit.cli.counter import Counter, counting


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def test_it_says_how_far_how_fast_and_how_long(clock):
    terminal = Terminal()
    counter = Counter(terminal)
    clock[0] = 110.0  # the model is loaded
    counter(100, 1100)  # a run that goes on
    clock[0] = 110.1
    counter(101, 1100)
    clock[0] = 112.0
    counter(120, 1100)
    shown = [line.rstrip() for line in terminal.getvalue().split("\r")[1:]]
    assert shown == ["100 of 1,100 pictures", "120 of 1,100 pictures, 10 a second, 1:38 left"]
    assert all(len(line) < 80 for line in terminal.getvalue().split("\r"))


def show_and_fail():
    with counting() as counter:
        counter._shown -= 1
        counter(1, 2)
        raise KeyError


def test_it_goes_at_the_end_and_is_for_terminals_alone(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with counting():
        pass
    assert terminal.getvalue() == "", "nothing was shown"
    with pytest.raises(KeyError):
        show_and_fail()
    assert terminal.getvalue().endswith("\r" + " " * 79 + "\r")
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with counting() as counter:
        assert counter is None
