import json

import pytest
from PIL import Image

from visionkit import DataError, UsageError
from visionkit.prediction.pictures import ImageFile
from visionkit.prediction.sources import find_images


@pytest.fixture
def folder(tmp_path):
    for name in ("b.png", "a.jpg", "deep/c.PNG", ".hidden.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    (tmp_path / "note.txt").write_text("x")
    return tmp_path


def names(pictures, folder):
    return [p.path.removeprefix(f"{folder}/") for p in pictures]


def test_a_file_is_taken_whatever_its_name(folder):
    (folder / "upload").write_bytes((folder / "b.png").read_bytes())
    (pictures,) = find_images([str(folder / "upload")])
    assert pictures.path == str(folder / "upload")
    assert pictures.extra == {}


def test_a_folder_is_searched_through(folder):
    assert names(find_images([str(folder)]), folder) == ["a.jpg", "b.png", "deep/c.PNG"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [("*.png", ["b.png"]), ("**/*.[pP][nN][gG]", ["b.png", "deep/c.PNG"]), ("d*", None), ("*.[jp]*g", ["a.jpg", "b.png"])],
)  # fmt: skip
def test_a_glob_takes_files_sorted(folder, pattern, expected):
    if expected is None:  # only a folder matches
        with pytest.raises(UsageError, match="no file matches it as a glob"):
            find_images([str(folder / pattern)])
    else:
        assert names(find_images([str(folder / pattern)]), folder) == expected


def test_a_file_whose_name_looks_like_a_glob(folder):
    (folder / "x[1].png").write_bytes((folder / "b.png").read_bytes())
    assert names(find_images([str(folder / "x[1].png")]), folder) == ["x[1].png"]


def test_a_manifest_brings_truth_and_further_columns(folder):
    (folder / "m.csv").write_text("path,label,text\nb.png,cat,hello\nnothere.png,dog,\n")
    pictures = find_images([str(folder / "m.csv")])
    assert names(pictures, folder) == ["b.png", "nothere.png"], "files are looked for when they are read"
    assert pictures[0].extra == {"truth": "cat", "text": "hello"}


def test_a_manifest_without_labels(folder):
    lines = [{"path": "b.png", "n": 3}, {"path": str(folder / "a.jpg"), "labels": ["x", "y"]}]
    (folder / "m.jsonl").write_text("\n".join(map(json.dumps, lines)))
    pictures = find_images([str(folder / "m.jsonl")])
    assert names(pictures, folder) == ["b.png", "a.jpg"]
    assert [p.extra for p in pictures] == [{"n": 3}, {"truth": ["x", "y"]}]


def test_each_picture_comes_once_in_the_order_asked(folder):
    asked = [str(folder / "deep"), str(folder / "b.png"), str(folder), str(folder / "*.png")]
    assert names(find_images(asked), folder) == ["deep/c.PNG", "b.png", "a.jpg"]


def test_what_is_wrong_is_said(folder):
    (folder / "empty").mkdir()
    (folder / "none.csv").write_text("path,label\n")
    (folder / "hole.csv").write_text("path,label\nb.png,x\n,y\n")
    for name, error, words in (
        ("nothere.png", UsageError, r"nothere\.png: no such picture, folder or manifest"),
        ("empty", DataError, "empty: the folder holds no pictures"),
        ("none.csv", DataError, r"none\.csv: lists no images"),
        ("hole.csv", DataError, r"hole\.csv:3: no path"),
    ):
        with pytest.raises(error, match=words):
            find_images([str(folder / "b.png"), str(folder / name)])


def test_urls_are_read_when_they_are_given_and_only_then(folder):
    url = "https://host.test/a/b.jpg?x=1"
    (folder / "m.csv").write_text(f"path\n{url}\n")
    given, listed = find_images([url, str(folder / "m.csv")])
    assert (given.path, given.load.args) == (url, (url,))
    assert listed.load is None, "a manifest names files"
    with pytest.raises(UsageError, match="s3://b/x.jpg: of URLs those of http and https are read"):
        find_images(["s3://b/x.jpg"])


def test_one_source_needs_no_list(folder):
    assert names(find_images(folder / "b.png"), folder) == ["b.png"]
    assert find_images(ImageFile("anything", {"a": 1})) == [ImageFile("anything", {"a": 1})]


def test_what_a_folder_holds_besides_is_told(folder):
    (folder / "raw.cr2").write_bytes(b"x")
    told = []
    find_images(folder, tell=told.append)
    assert told == [f"{folder}: 1 picture of a kind not read is left out (1 .cr2): convert them to JPEG or PNG"]
