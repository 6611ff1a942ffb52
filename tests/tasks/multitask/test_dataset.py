"""A picture that several data sets hold is one picture with all their labels, and is held out for all."""

import os
from collections import Counter

import pytest
import torch

from visionkit.core.sample import ImageInfo, Sample
from visionkit.data.dataset import DataSplits, VisionDataset
from visionkit.tasks.classification.readers.shapes import ShapesClassification
from visionkit.tasks.detection.readers.shapes import ShapesDetection
from visionkit.tasks.multitask.dataset import MultiTaskDataset, put_together


class Labelled(VisionDataset):
    """Files with a word each for a target."""

    def __init__(self, word, files, classes=("a", "b"), wrong=()):
        self.word, self.paths, self.classes, self.wrong = word, list(files), tuple(classes), set(wrong)
        self.ids = [str(f) for f in self.paths]
        self.problems = [f"{word}: a faulty label"]

    def __getitem__(self, index):
        image = torch.full((3, 4, 4), len(self.word), dtype=torch.uint8)
        return Sample(image, f"{self.word} {self.paths[index].name}", ImageInfo(self.ids[index], (4, 4)))

    def mismatch(self, index):
        name = self.paths[index].name
        return f"{name}: does not fit {self.word}" if name in self.wrong else None


@pytest.fixture
def files(tmp_path):
    made = {}
    for name in "abcdefgh":
        made[name] = tmp_path / f"{name}.png"
        made[name].write_bytes(name.encode())
    return made


def data(word, files, train="", val="", test="", **more):
    parts = [Labelled(word, [files[n] for n in names], **more) if names else None for names in (train, val, test)]
    return DataSplits(*parts, f"from {word}")


def labels(dataset):
    """Return the labels of each picture, by the name of its file."""
    found = {}
    for index in range(len(dataset)):
        parts = dataset[index].target.parts
        (name,) = {target.partition(" ")[2].partition(".")[0] for target in parts.values()}
        assert dataset.ids[index].endswith(f"{name}.png")
        found[name] = sorted(parts)
    return found


def test_one_file_is_one_picture_with_all_labels(files):
    made, sources = put_together({"x": data("ex", files, "abc", "de"), "y": data("why", files, "cbf", "eg")})
    assert labels(made.train) == {"a": ["x"], "b": ["x", "y"], "c": ["x", "y"], "f": ["y"]}
    assert labels(made.val) == {"d": ["x"], "e": ["x", "y"], "g": ["y"]}
    assert made.test is None
    assert sources == [("x", "y")]
    both = made.train[1]
    assert both.target.parts == {"x": "ex b.png", "y": "why b.png"}
    assert both.info.id == str(files["b"])
    assert (both.image == 2).all(), "the first reader's picture"


@pytest.mark.parametrize("kind", ["hard link", "symlink", "other spelling"])
def test_a_file_under_another_path_is_the_same_picture(files, tmp_path, kind, monkeypatch):
    other = tmp_path / "elsewhere" / "z.png"
    other.parent.mkdir()
    if kind == "hard link":
        os.link(files["a"], other)
    elif kind == "symlink":
        other.symlink_to(files["a"])
    else:
        monkeypatch.chdir(tmp_path)
        other = type(other)("elsewhere") / ".." / "a.png"
    made, _ = put_together({"x": data("ex", files, "ab"), "y": DataSplits(Labelled("why", [other, files["c"]]), None)})
    assert [sorted(made.train[i].target.parts) for i in range(3)] == [["x", "y"], ["x"], ["y"]]


def test_files_of_equal_content_are_different_pictures(files):
    files["b"].write_bytes(files["a"].read_bytes())
    made, sources = put_together({"x": data("ex", files, "a"), "y": data("why", files, "b")})
    assert len(made.train) == 2
    assert sources == [("x",), ("y",)]


def test_a_picture_that_validates_or_tests_one_head_trains_none(files):
    made, sources = put_together({"x": data("ex", files, "abcd", "ef"), "y": data("why", files, "efg", "ab", "h"), "z": data("zet", files, "hg")})  # fmt: skip
    assert labels(made.train) == {"c": ["x"], "d": ["x"], "g": ["y", "z"]}
    assert labels(made.val) == {"e": ["x"], "f": ["x"], "a": ["y"], "b": ["y"]}
    assert labels(made.test) == {"h": ["y"]}
    assert sources == [("x", "y", "z")]
    assert "5 pictures that validate or test one head train none" in made.source, "a and b of x, e and f of y, h of z"
    assert all(f"{name}: from {word}" in made.source for name, word in (("x", "ex"), ("y", "why"), ("z", "zet")))


def test_nothing_is_said_of_pictures_that_are_not_held_out(files):
    made, _ = put_together({"x": data("ex", files, "a", "b"), "y": data("why", files, "c", "d")})
    assert "train none" not in made.source


def test_a_file_that_one_data_set_lists_twice_stays_two_pictures(files):
    made, _ = put_together({"x": data("ex", files, "aab"), "y": data("why", files, "aca")})
    assert [sorted(m.items()) for m in made.train.members] == [
        [("x", 0), ("y", 0)], [("x", 1), ("y", 2)], [("x", 2)], [("y", 1)]
    ]  # fmt: skip


def test_sources_are_grouped_through_others_in_the_order_of_the_heads(files):
    parts = {
        "p": data("p", files, "a"),
        "q": data("q", files, "b"),
        "r": data("r", files, "c", "b"),
        "s": data("s", files, "d"),
        "t": data("t", files, "ac"),
    }
    assert put_together(parts)[1] == [("p", "q", "r", "t"), ("s",)]
    assert put_together({k: parts[k] for k in ("s", "t", "q", "p")})[1] == [("s",), ("t", "p"), ("q",)]


def test_drawn_pictures_are_never_the_same():
    drawn = {
        "x": DataSplits(ShapesDetection(3, size=32), ShapesDetection(2, size=32)),
        "y": DataSplits(ShapesClassification(3, size=32), ShapesClassification(2, size=32)),
    }
    made, sources = put_together(drawn)
    assert (len(made.train), len(made.val)) == (6, 4), "validation has the same names"
    assert [list(m) for m in made.train.members] == [["x"]] * 3 + [["y"]] * 3
    assert sources == [("x",), ("y",)]
    assert list(made.train.files()) == [None] * 6
    assert torch.equal(made.train[4].image, drawn["y"].train[1].image)


def test_a_missing_file_is_left_to_the_check_of_the_images(files, tmp_path):
    gone = tmp_path / "gone.png"
    parts = {"x": DataSplits(Labelled("ex", [gone, files["a"]]), None), "y": DataSplits(Labelled("why", [gone]), None)}
    made, sources = put_together(parts)
    assert [list(m) for m in made.train.members] == [["x", "y"], ["x"]]
    assert sources == [("x", "y")]


def test_classes_are_those_of_all_heads_in_order(files):
    made, _ = put_together({"y": data("why", files, "a", classes=("q", "p")), "x": data("ex", files, "", "b")})
    assert made.train.classes == made.val.classes == ("y/q", "y/p", "x/a", "x/b")
    assert list(made.train.parts) == ["y"]


@pytest.fixture
def dataset(files):
    parts = {"x": Labelled("ex", [files[n] for n in "abc"], wrong=["b.png"]),
             "y": Labelled("why", [files[n] for n in "cbd"], wrong=["b.png", "d.png"])}  # fmt: skip
    return MultiTaskDataset(parts, [{"x": 0}, {"x": 1, "y": 1}, {"x": 2, "y": 0}, {"y": 2}], ("x/a", "y/a"))


def test_it_is_a_reader(dataset, files):
    assert len(dataset) == 4
    assert list(dataset.files()) == [files[n] for n in "abcd"]
    assert dataset.ids == [str(files[n]) for n in "abcd"]
    assert list(dataset.problems) == ["ex: a faulty label", "why: a faulty label"]


def test_what_does_not_fit_for_one_head_does_not_fit(dataset):
    assert [dataset.mismatch(i) for i in range(4)] == [
        None, "b.png: does not fit ex", None, "d.png: does not fit why"
    ]  # fmt: skip


def test_subset_keeps_labels_and_order(dataset, files):
    part = dataset.subset([3, 1])
    assert [sorted(part[i].target.parts) for i in range(2)] == [["y"], ["x", "y"]]
    assert list(part.files()) == [files["d"], files["b"]]
    assert part.mismatch(0) == "d.png: does not fit why"
    assert part.classes == dataset.classes
    assert len(dataset) == 4
    assert len(part.subset([1])) == 1


def test_copies_in_splits_of_different_heads_are_a_leak(files):
    files["b"].write_bytes(files["e"].read_bytes())
    files["f"].write_bytes(files["h"].read_bytes())
    made, _ = put_together({"x": data("ex", files, "abf", "dh"), "y": data("why", files, "cg", "e")})
    leaks = [line.strip() for line in made.source.splitlines() if "leak" in line]
    assert leaks == [  # f and h are both of x, which tells of them
        f"leak: 1 images are in both train of x and val of y, byte for byte, so the score flatters; remove them from "
        f"one (first: {files['e']} = {files['b']})"
    ]
    made, _ = put_together({"x": data("ex", files, "ac", "d"), "y": data("why", files, "cg", "e")})
    assert "leak" not in made.source


def test_remarks_of_all_data_sets_are_one(files):
    parts = [Labelled("ex", [files["a"]]), Labelled("why", [files["a"]])]
    parts[0].remarks = lambda: Counter(one=2)
    parts[1].remarks = lambda: Counter(one=1, other=3)
    made = MultiTaskDataset(dict(zip("xy", parts, strict=True)), [{"x": 0, "y": 0}], ("x/a", "y/a"))
    assert made.remarks() == {"one": 3, "other": 3}
