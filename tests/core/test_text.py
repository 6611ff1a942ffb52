"""What reaches a terminal only shows."""

from __future__ import annotations

import pickle

import pytest

from visionkit.core.errors import DataError
from visionkit.core.text import cell, is_printable, printable, say, shortened


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("Füchse 狐 لومړی 🦊", "Füchse 狐 لومړی 🦊"),
        ("a\x1b[2Jb", r"a\x1b[2Jb"),
        ("ok\nerror: forged", r"ok\nerror: forged"),
        ("a\rb\tc\x00", r"a\rb\tc\x00"),
        ("c1\x9b2J", r"c1\x9b2J"),
        ("line\u2028end\u2029", r"line\u2028end\u2029"),
        ("gpj.\u202ephoto", r"gpj.\u202ephoto"),
        ("no text \udcff", r"no text \udcff"),
    ],
)
def test_what_would_act_is_escaped_and_all_else_stays(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert is_printable(text) == (text == shown)
    printable(text).encode("utf-8")


def test_an_error_message_cannot_forge_lines_or_act_on_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    e = DataError("first\nerror: forged", "a\x1b[2J.jpg: damaged")
    assert e.lines == [r"first\nerror: forged", r"a\x1b[2J.jpg: damaged"]
    assert str(e) == "first\\nerror: forged\na\\x1b[2J.jpg: damaged"
    assert pickle.loads(pickle.dumps(e)).lines == e.lines
    say(*e.lines, error=True)
    assert capsys.readouterr().err.count("\n") == 2


def test_an_error_from_a_worker_process_is_its_message_alone() -> None:
    wrapped = "Caught DataError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n  File"
    assert str(DataError(f"{wrapped} x\nvisionkit.core.errors.DataError: a.jpg: is damaged")) == "a.jpg: is damaged"


def test_long_lists_are_shortened() -> None:
    assert shortened(["a", "b"], 2) == ["a", "b"]
    assert shortened(["a", "b", "c"], 2) == ["a", "b", "... and 1 more"]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("=cmd|' /C calc'!A0", "'=cmd|' /C calc'!A0"),
        ("@SUM(1+1)", "'@SUM(1+1)"),
        ("+1+1", "'+1+1"),
        ("-x", "'-x"),
        ("-", "'-"),
        (" =1+1", "' =1+1"),
        ("\t=1+1", "'\t=1+1"),
        ("\r=1", r"\r=1"),
        ("a\nb", "a\nb"),
        ("-3.5", "-3.5"),
        ("+1e-3", "+1e-3"),
        ("a=b", "a=b"),
        ("", ""),
        ("日本", "日本"),
        (-1, -1),
        (-0.5, -0.5),
        (None, None),
        (True, True),
    ],
)
def test_cells_of_tables_are_no_formulas(value, shown):
    assert cell(value) == shown
    assert type(cell(value)) is type(shown)
