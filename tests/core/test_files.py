import os
from pathlib import Path

import pytest

from visionkit.core.errors import DataError
from visionkit.core.files import read_text, replacing, write_text


def test_the_file_appears_when_the_block_ends_well(tmp_path):
    path = tmp_path / "deep" / "er" / "a.txt"
    with replacing(path) as temporary:
        assert temporary.parent == path.parent
        assert temporary.suffix == ".txt", "writers choose the format by it"
        assert temporary.name.startswith("."), "folders are listed without hidden files"
        temporary.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"
    assert [p.name for p in path.parent.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_exception_leaves_the_old_file_and_no_temporary(tmp_path, error):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def write():
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(error):
        write()
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_an_exception_makes_no_new_file(tmp_path):
    with pytest.raises(ValueError, match="no"), replacing(tmp_path / "a.txt"):
        raise ValueError("no")
    assert not list(tmp_path.iterdir())


def test_a_failing_rename_leaves_no_temporary(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "kept").touch()
    with pytest.raises(OSError), replacing(tmp_path / "a") as temporary:  # noqa: PT011  # differs between systems
        temporary.write_text("new")
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o002, 0o664)])
def test_permissions_are_those_of_any_new_file(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        write_text(tmp_path / "a.txt", "x")
        assert os.umask(umask) == umask, "reading the mask does not change it"
    finally:
        os.umask(before)
    assert (tmp_path / "a.txt").stat().st_mode & 0o777 == mode


def test_a_temporary_that_the_block_replaced_itself(tmp_path):
    (tmp_path / "source").write_text("linked")
    with replacing(tmp_path / "a.txt") as temporary:
        temporary.unlink()
        os.link(tmp_path / "source", temporary)
    assert (tmp_path / "a.txt").samefile(tmp_path / "source")


def test_text_is_utf8_and_paths_may_be_relative(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_text("a.txt", "Käse → 乳")
    assert Path("a.txt").read_bytes() == "Käse → 乳".encode()


def test_text_that_cannot_be_read_is_named_with_its_line(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfone\ntwo\n")
    assert read_text(tmp_path / "a.txt") == "one\ntwo\n"
    (tmp_path / "b.txt").write_bytes(b"one\n\xff\n")
    with pytest.raises(DataError, match=r"b\.txt:2: is not UTF-8 text"):
        read_text(tmp_path / "b.txt")
    with pytest.raises(DataError, match=r"c\.txt: no such file"):
        read_text(tmp_path / "c.txt")
    with pytest.raises(DataError, match=r"is a folder, not a file; give a file in it"):
        read_text(tmp_path)
