import csv

import pytest
import torch

from visionkit.prediction.writers import WriterJob, files_beside, open_table, safe_name
from visionkit.tasks.detection.writers import YoloWriter
from visionkit.tasks.segmentation.writers import MaskWriter
from visionkit.training.plots import write_confusion_matrix


@pytest.mark.parametrize(
    ("pictures", "files"),
    [
        ([], []),
        (["a.png"], ["a.txt"]),
        (["/x/a.png", "/x/b.jpg"], ["a.txt", "b.txt"]),
        (["/x/train/1.jpg", "/x/val/1.jpg"], ["train/1.txt", "val/1.txt"]),
        (["/x/1.jpg", "/x/1.png", "/x/2.png"], ["1.jpg.txt", "1.png.txt", "2.png.txt"]),
        (["/x/a.jpg", "/x/A.png"], ["a.jpg.txt", "A.png.txt"]),
        (["/x/classes.jpg", "/x/b.jpg"], ["classes.jpg.txt", "b.jpg.txt"]),
        (["/x/Classes.jpg", "/x/b.jpg"], ["Classes.jpg.txt", "b.jpg.txt"]),
        (["/x/y/classes.jpg", "/x/b.jpg"], ["y/classes.txt", "b.txt"]),
        (["/x/a.jpg", "/x/../x/a.jpg"], ["a.txt", "a.txt"]),
    ],
)
def test_no_two_pictures_share_a_file(pictures, files):
    found = files_beside(pictures, ".txt", reserved=["classes"])
    assert list(found) == pictures
    assert [p.as_posix() for p in found.values()] == files


def test_suffix_and_reserved_names_are_the_callers():
    assert [p.as_posix() for p in files_beside(["/x/classes.jpg"], ".png").values()] == ["classes.png"]
    taken = files_beside(["/x/a.jpg", "/x/b.jpg"], ".png", reserved=["b", "c"])
    assert [p.as_posix() for p in taken.values()] == ["a.jpg.png", "b.jpg.png"]


def test_no_cell_of_a_table_is_a_formula(tmp_path):
    with open_table(tmp_path / "t.csv", ["image"]) as table:
        table.add({"image": "=a.jpg", "score": -0.5, "scores": {"=x": 1}})
        table.add({"image": "b\nc.jpg", "label": "@SUM(1+1)", "=note": "-3", "more": None})  # further columns
        table.add({"image": "+d.jpg"})
    with (tmp_path / "t.csv").open(newline="") as file:
        assert list(csv.reader(file)) == [
            ["image", "score", "scores/=x", "label", "'=note", "more"],
            ["'=a.jpg", "-0.5", "1", "", "", ""],
            ["b\nc.jpg", "", "", "'@SUM(1+1)", "-3", ""],
            ["'+d.jpg", "", "", "", "", ""],
        ]


def test_no_cell_of_a_confusion_matrix_either(tmp_path):
    write_confusion_matrix(torch.eye(2).long(), ["=cmd|' /C calc'!A0", "b"], tmp_path, "", title="")
    with (tmp_path / "confusion_matrix.csv").open(newline="") as file:
        assert list(csv.reader(file)) == [
            ["truth \\ prediction", "'=cmd|' /C calc'!A0", "b"],
            ["'=cmd|' /C calc'!A0", "1", "0"],
            ["b", "0", "1"],
        ]


@pytest.mark.parametrize(("make", "text"), [(YoloWriter, "a\\n0 b\nc\n"), (MaskWriter, "0\ta\\n0 b\n1\tc\n")])
def test_a_name_is_one_line_of_the_class_names(tmp_path, make, text):
    writer = make(WriterJob(tmp_path, ("a\n0 b", "c"), ()))
    writer.finish()
    assert next(tmp_path.glob("*/classes.txt")).read_text() == text


@pytest.mark.parametrize("name", ["a\x1b[31mb", "a\nb", "gpj.\u202eb", "\udcff", "n" * 250, "日" * 80])
def test_names_of_files_are_short_and_only_show(name, tmp_path):
    made = safe_name(name)
    assert made.isprintable()
    assert made != safe_name(name + "x"), "two names stay two"
    (tmp_path / f".{made}.12345678.png").touch()
    assert safe_name("Füchse 狐 1.5") == "Füchse 狐 1.5"


def test_urls_have_files_of_their_own_beside_the_others():
    urls = [
        "https://h.test/a/b.jpg?x=1",
        "https://h.test/a/b.jpg?x=2",
        "http://h.test/",
        "https://h.test/%2e%2e/.%2f?q=/../x",
    ]
    found = files_beside([*urls, "/data/in/b.jpg"], ".png")
    assert str(found["/data/in/b.jpg"]) == "b.png"
    names = [str(found[u]) for u in urls]
    assert len(set(names)) == 4
    assert names[0].startswith("b-")
    assert names[2].startswith("picture-")
    assert all(n.endswith(".png") and "/" not in n and n.isprintable() for n in names)
    assert files_beside(urls[:1], ".txt")[urls[0]].suffix == ".txt", "none but URLs"
