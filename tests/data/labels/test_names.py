"""Names of files as other tools and machines wrote them."""

import pytest

from visionkit.core.errors import DataError
from visionkit.data.labels.names import Folders, composed, last_part, only_composed, same_folder, spellings, split_list

TWO, ONE = "o\u0308", "\xf6"  # one letter, decomposed and composed


def test_both_forms_of_a_name_are_one():
    assert composed("Ba\u0308cker") == composed("B\xe4cker") == "B\xe4cker"
    assert only_composed(["a", TWO]) == {"a": "a", ONE: TWO}
    assert only_composed([TWO, ONE, "b"]) == {"b": "b"}, "which of the two is meant is not clear"


def test_files_and_folders_are_found_in_either_form(tmp_path):
    (tmp_path / TWO).mkdir()
    (tmp_path / TWO / f"{TWO}.txt").write_text("")
    disk = Folders()
    assert disk.find(tmp_path / ONE / f"{ONE}.txt") == str(tmp_path / TWO / f"{TWO}.txt")
    assert disk.folder(tmp_path / ONE) == str(tmp_path / TWO)
    assert disk.find(tmp_path / ONE / "a.txt") is None
    assert disk.find(tmp_path / ONE) is None, "a folder is no file"


def test_the_form_as_written_counts_where_both_are_there(tmp_path):
    for name in (ONE, TWO):
        (tmp_path / name).write_text("")
    if len(list(tmp_path.iterdir())) < 2:
        pytest.skip("the file system takes both forms for one")
    for name in (ONE, TWO):
        assert Folders().find(tmp_path / name) == str(tmp_path / name)


@pytest.mark.parametrize("name", ["a\0b", "\xf6\0", "\xf6/" * 5000 + "a", "\xf6" * 300, "", "/"])
def test_names_that_no_system_knows_are_nowhere(tmp_path, name):
    assert Folders().find(f"{tmp_path}/{name}") is None


@pytest.mark.parametrize(
    ("name", "last"),
    [
        (r"..\media\a b.png", "a b.png"),
        (r"C:\set\a.png", "a.png"),
        ("set/a%20b.png", "a%20b.png"),  # a name, no address
        ("https://host/set/a%20b.png?token=1/2#end", "a b.png"),
        ("s3://bucket/set/a.png", "a.png"),
        ("http://[broken/a.png", "a.png"),
        ("../data/local-files/?d=set%20a/b.png", "b.png"),
        ("/data/local-files/?d=b.png", "b.png"),
        ("https://host/data/local-files/?d=set/b.png", "b.png"),
        ("what?.png", "what?.png"),
    ],
)
def test_the_last_part_of_a_name(name, last):
    assert last_part(name) == last


def test_spellings():
    assert spellings("a/b.png") == ["a/b.png"]
    assert spellings(r"a\b.png") == [r"a\b.png", "a/b.png"]
    assert spellings("https://host/a/b.png?x=1")[-1] == "a/b.png"


def test_folders_in_upper_and_lower_case(tmp_path):
    assert same_folder(tmp_path / "none", "labels") is None
    assert same_folder(tmp_path, "labels") is None
    (tmp_path / "Labels").mkdir()
    assert same_folder(tmp_path, "images", "labels").name == "Labels"


def test_lists_of_splits_in_upper_and_lower_case(tmp_path):
    assert split_list(tmp_path, ("train", "training")) is None
    (tmp_path / "Train.txt").write_text("a")
    (tmp_path / "default.txt").write_text("a")
    assert split_list(tmp_path, ("train", "training")) == tmp_path / "Train.txt"
    (tmp_path / "training.txt").write_text("b")
    with pytest.raises(DataError, match=r"has both Train\.txt and training\.txt; keep one"):
        split_list(tmp_path, ("train", "training"))
