"""Faults are refused one at a time, or gathered."""

import pytest

from visionkit.core.errors import DataError, UsageError
from visionkit.data.labels.faults import Fault, attempt, fault, fault_each, gathering, is_gathering, reading_split


def read(value):
    if value < 0:
        raise DataError(f"a.txt:1: {value} is negative; correct it")
    return value


def test_the_first_is_refused():
    with pytest.raises(DataError, match="^a.txt:1: wrong; mend it$"):
        fault("label-syntax", "a.txt:1: wrong; mend it")
    with pytest.raises(DataError) as e:
        fault_each("image-missing", [f"{i}.jpg" for i in range(12)], "12 are missing")
    assert e.value.lines == [*(f"{i}.jpg" for i in range(10)), "... and 2 more", "12 are missing"]
    fault_each("image-missing", [], "none")
    assert attempt("label-syntax", read, 3) == 3
    with pytest.raises(DataError, match="negative"):
        attempt("label-syntax", read, -3)


def test_all_are_gathered():
    with gathering() as found:
        assert is_gathering()
        fault("label-syntax", "a")
        with reading_split("val"):
            fault_each("image-missing", ["b", "c"], "2 are missing")
        assert attempt("label-size", read, -3) is None
        with pytest.raises(UsageError):
            attempt("label-size", int, usage())
    assert not is_gathering()
    assert found == [
        Fault("label-syntax", "a"),
        Fault("image-missing", "b", "val"),
        Fault("image-missing", "c", "val"),
        Fault("label-size", "a.txt:1: -3 is negative; correct it"),
    ]


def usage():
    raise UsageError("not a matter of data")
