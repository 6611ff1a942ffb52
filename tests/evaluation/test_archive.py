"""Arrays in a file that may be anybody's."""

import contextlib
import io
import zipfile

import numpy as np
import pytest

from visionkit import DataError
from visionkit.evaluation.archive import read_arrays, write_arrays

ARRAYS = {
    "whole": np.arange(6).reshape(2, 3),
    "half": np.array([0.5, np.nan, -np.inf], np.float16),
    "flags": np.array([True, False]),
    "one": np.array(7, np.uint8),
    "none": np.zeros((0, 6), np.float32),
}


def test_arrays_come_back_as_they_were_and_numpy_reads_them(tmp_path):
    path = tmp_path / "a.npz"
    write_arrays(path, ARRAYS)
    with np.load(path, allow_pickle=False) as known:
        for found in (read_arrays(path), known):
            assert set(found) == set(ARRAYS)
            for name, array in ARRAYS.items():
                assert found[name].dtype == array.dtype
                np.testing.assert_array_equal(found[name], array)


def test_what_numpy_writes_is_read(tmp_path):
    np.savez(tmp_path / "a.npz", big=np.arange(3, dtype=">i4"), turned=np.asfortranarray(np.arange(6).reshape(2, 3)))
    found = read_arrays(tmp_path / "a.npz")
    assert found["big"].tolist() == [0, 1, 2]
    assert found["turned"].tolist() == [[0, 1, 2], [3, 4, 5]]


def npy(array, **changed):
    file = io.BytesIO()
    np.lib.format.write_array(file, array, allow_pickle=True)
    data = file.getvalue()
    for old, new in changed.get("replace", []):
        assert old in data
        data = data.replace(old, new)
    return data


def archive(path, *members, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, data in members:
            file.writestr(name, data)
    return path


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_anything_else_is_refused_in_a_line(tmp_path):
    path = tmp_path / "a.npz"
    good = npy(np.arange(8))
    cases = {
        "not a zip": lambda: path.write_bytes(b"PK" + b"x" * 100),
        "empty": lambda: path.write_bytes(b""),
        "compressed: a bomb would be": lambda: archive(path, ("a.npy", bytes(10**6)), compression=zipfile.ZIP_DEFLATED),
        "objects": lambda: archive(path, ("a.npy", npy(np.array([{}, []], object)))),
        "text": lambda: archive(path, ("a.npy", npy(np.array(["ab"])))),
        "a huge shape": lambda: archive(path, ("a.npy", npy(np.arange(8), replace=[(b"(8,), }", b"(9**99,), }")]))),
        "more than there is": lambda: archive(path, ("a.npy", npy(np.arange(8), replace=[(b"(8,)", b"(9,)")]))),
        "no array": lambda: archive(path, ("a.npy", b"hello")),
        "code": lambda: archive(path, ("a.npy", npy(np.arange(8), replace=[(b"False", b"exit(")]))),
        "twice": lambda: archive(path, ("a.npy", good), ("a.npy", good)),
        "too many": lambda: archive(path, *((f"{k}.npy", b"") for k in range(500))),
    }
    for what, make in cases.items():
        make()
        with pytest.raises(DataError, match=r"a\.npz: ") as e:
            read_arrays(path)
        assert len(e.value.lines) == 1, what


def test_cut_or_changed_files_are_refused_or_read(tmp_path):
    path = tmp_path / "a.npz"
    write_arrays(path, ARRAYS)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for turn in range(300):
        data = bytearray(whole[: rng.integers(len(whole))] if turn % 3 == 0 else whole)
        for _ in range(turn % 3):
            data[rng.integers(len(data))] = rng.integers(256)
        path.write_bytes(data)
        with contextlib.suppress(DataError):
            read_arrays(path)


def test_only_numbers_are_written(tmp_path):
    with pytest.raises(TypeError, match="an array of <U1, not of numbers"):
        write_arrays(tmp_path / "a.npz", {"a": np.array(["x"])})
    assert not list(tmp_path.iterdir())
