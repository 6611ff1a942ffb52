import errno
import os
import re
import socket
import sys
from pathlib import Path

import pytest
import torch

from visionkit.core.errors import DataError
from visionkit.core.files import open_binary, read_bytes, read_text, remove_left_over, replacing, write_text, writing
from visionkit.core.text import printable


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
    with pytest.raises(DataError, match="a: cannot be written"), replacing(tmp_path / "a") as temporary:
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


class TestTheDoor:
    READERS = (open_binary, read_bytes, read_text)

    def test_content_comes_back(self, tmp_path):
        (tmp_path / "a").write_bytes(b"a\r\nb\0")
        os.symlink(tmp_path / "a", tmp_path / "link")
        for path in (tmp_path / "a", str(tmp_path / "link")):
            assert read_bytes(path) == read_bytes(path, limit=5) == b"a\r\nb\0"
            assert read_text(path) == "a\nb\0", "lines end alike, as open does it"
            with open_binary(path) as file:
                assert file.seek(3) == 3
                assert file.read() == b"b\0"

    @pytest.mark.parametrize("read", READERS)
    def test_what_is_no_file_is_refused_at_once(self, tmp_path, read, monkeypatch):
        monkeypatch.chdir(tmp_path)  # names of sockets are short
        os.mkfifo("pipe")
        os.symlink("pipe", "link.jpg")
        os.symlink("/dev/zero", "zero.jpg")
        with socket.socket(socket.AF_UNIX) as there:
            there.bind("socket")
            for name, kind in (("pipe", "pipe"), ("link.jpg", "pipe"), ("zero.jpg", "device"), ("socket", "socket")):
                with pytest.raises(DataError, match=f"^{name}: is a {kind}, not a file; give a file, or remove it$"):
                    read(name)
        with pytest.raises(DataError, match=r"^\.: is a folder, not a file; give a file in it$"):
            read(".")

    @pytest.mark.parametrize("read", READERS)
    def test_what_cannot_be_opened_is_named(self, tmp_path, read, monkeypatch):
        monkeypatch.chdir(tmp_path)
        Path("a").touch()
        os.symlink("loop", "loop")
        cases = {"b": "no such file", "a/b": "cannot be read", "loop": "cannot be read", "a\0": "cannot be read"}
        for name, words in cases.items():
            with pytest.raises(DataError, match=f"^{re.escape(printable(name))}: {words}"):
                read(name)

    @pytest.mark.parametrize("read", READERS)
    def test_limit(self, tmp_path, read):
        (tmp_path / "a").write_bytes(bytes(1001))
        with pytest.raises(DataError, match=r"a: has more than 1,000 bytes, the most for such a file"):
            read(tmp_path / "a", limit=1000)

    def test_a_file_that_says_no_size_is_limited_too(self):
        if not Path("/proc/self/status").exists():
            pytest.skip("Linux alone has such files")
        assert len(read_bytes("/proc/self/status")) > 100
        with pytest.raises(DataError, match="more than 100 bytes"):
            read_bytes("/proc/self/status", limit=100)

    def test_no_handle_stays_open(self, tmp_path):
        os.mkfifo(tmp_path / "pipe")
        before = os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else []
        for path in (tmp_path, tmp_path / "pipe"):
            with pytest.raises(DataError):
                read_bytes(path)
        assert (os.listdir("/proc/self/fd") if before else []) == before


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "no space left on the disk (4.6 MB needed); free some or choose another folder"),
        (errno.EROFS, "cannot be written (the disk is read-only)"),
        (errno.EACCES, "cannot be written (no permission)"),
        (errno.EMFILE, "too many files are open; raise the limit (ulimit -n 4096)"),
        (errno.EFBIG, "larger than files may be here"),
    ],
)
def test_what_cannot_be_written_is_one_line_and_what_was_there_stays(tmp_path, number, words):
    (tmp_path / "a.bin").write_bytes(b"old")

    def write():
        with replacing(tmp_path / "a.bin", needed=4_600_000) as temporary:
            temporary.write_bytes(b"half")
            raise OSError(number, os.strerror(number))

    with pytest.raises(DataError, match=re.escape(f"{tmp_path / 'a.bin'}: {words}")):
        write()
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("a.bin", b"old")]


def test_a_folder_that_is_a_file_is_named(tmp_path):
    (tmp_path / "a").touch()
    with pytest.raises(DataError, match=r"a/b: a file has the name of this folder"):
        write_text(tmp_path / "a" / "b" / "c.txt", "x")


@pytest.mark.skipif(sys.platform == "win32", reason="no such limit")
def test_the_cause_is_said_whatever_a_writer_makes_of_it(tmp_path):
    """torch says 'unexpected pos 64 vs 0' of a file that must not grow."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(DataError, match="a: larger than files may be here"), writing(tmp_path / "a") as file:
            torch.save(torch.zeros(100_000), file)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(tmp_path.iterdir())


def test_only_temporary_names_are_left_over(tmp_path):
    names = [".last.abcd_123.ckpt", ".lastly.abcd1234.ckpt", ".last.ABCD1234.ckpt", ".last.ckpt", "last.ckpt", ".a"]
    for name in names:
        (tmp_path / name).touch()
    assert remove_left_over(tmp_path, "last.ckpt", "*.png") == [tmp_path / ".last.abcd_123.ckpt"]
    assert {p.name for p in tmp_path.iterdir()} == set(names[1:])


@pytest.mark.parametrize(
    "path", ["https://a.b/c d.jpg?x=1", "s3://b/x.png", Path("http://a.b/c.jpg"), "file:///tmp/x.jpg"]
)
def test_an_address_is_no_path(path):
    with pytest.raises(
        DataError, match=r"^\w+://.*: is an address, and only files of this machine are read here; download"
    ):
        open_binary(path)


@pytest.mark.parametrize("path", ["nowhere/x.jpg", "C:/x.jpg", "data:image/png;base64,AA", "a: b"])
def test_a_path_is_no_address(path):
    with pytest.raises(DataError, match="no such file; check the path"):
        open_binary(path)
