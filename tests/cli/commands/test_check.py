"""visionkit check from outside: what it prints, how it ends, the page and the copy."""

import json
import re
import shutil
from html.parser import HTMLParser

import pytest
import torch

from tests import corpus, faulty
from visionkit import ResNet
from visionkit.cli.main import run
from visionkit.data.audit import checks


@pytest.fixture
def clean(tmp_path):
    return corpus.yolo(tmp_path / "clean")


@pytest.fixture
def leaky(tmp_path):
    """Class folders with a picture in both splits, and a small picture."""
    root = corpus.class_folders(tmp_path / "leaky")
    (root / "val" / "cat" / "val00.jpg").write_bytes((root / "train" / "cat" / "train00.jpg").read_bytes())
    return root


def test_nothing_serious(clean, capsys):
    assert run(["check", str(clean)]) == 0
    lines = capsys.readouterr().out.splitlines()
    images = "60 images (30 train, 30 val), 60 boxes, 2 classes"
    assert lines[0] == f"checked  detection data, YOLO of {clean}: {images}"
    assert lines[2:] == [
        "found    nothing",
        "Would this change your validation number? No: nothing that was found touches the images that it is measured "
        "on",
    ]


def test_errors_end_with_one(leaky, capsys):
    assert run(["check", str(leaky)]) == 1
    out = capsys.readouterr().out
    assert "error    leak-exact: images that are in two splits (train and val): 1" in out
    assert "train00.jpg (train): is byte for byte the same as" in out
    assert "--fix removes them from training." in out
    assert f"mend     visionkit check {leaky} --fix COPY writes a copy without 1 of these places" in out
    assert "Would this change your validation number? Yes: images that are in two splits" in out
    assert run(["check", str(leaky), "--skip", "leak"]) == 0


def test_warnings_count_where_that_is_asked(clean):
    (clean / "labels" / "val" / "val00.txt").write_text(f"{corpus.yolo_line(0)}\n{corpus.yolo_line(1)}\n")
    assert run(["check", str(clean)]) == 0
    assert run(["check", str(clean), "--strict"]) == 1


def test_json_alone(leaky, capsys):
    assert run(["check", str(leaky), "--json"]) == 1
    said = json.loads(capsys.readouterr().out)
    assert (said["task"], said["format"], said["status"]) == ("classification", "class folders", 1)
    assert (said["images"], said["counts"]) == ({"train": 30, "val": 30}, {"error": 1, "warning": 0, "note": 0})
    assert said["changes_validation"] is True
    (finding,) = said["findings"]
    assert (finding["id"], finding["severity"], finding["fix"]) == ("leak-exact", "error", "removes them from training")
    assert finding["places"][0]["splits"] == ["train", "val"]
    assert finding["places"][0]["pictures"] == [
        str(leaky / "train" / "cat" / "train00.jpg"),
        str(leaky / "val" / "cat" / "val00.jpg"),
    ]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--only", "leeks"], "no finding is called 'leeks'"),
        (["--task", "segmentation"], "--task segmentation: .* holds data for detection"),
        (["--report", "page.txt"], "ends in .html"),
        (["--pictures", "-1"], "--pictures -1"),
        (["--size", "big"], "invalid _size value|--size"),
        (["--fix", "."], "is there already|lies within"),
        (["--fxi", "."], "did you mean --fix"),
    ],
)
def test_wrongly_asked(clean, capsys, arguments, words):
    assert run(["check", str(clean), *arguments]) == 2
    assert re.search(words, capsys.readouterr().err)


def test_no_data(tmp_path, capsys):
    assert run(["check", str(tmp_path / "none")]) == 1
    assert "no such folder or file" in capsys.readouterr().err


def test_a_check_that_fails_ends_with_three(clean, capsys, monkeypatch):
    def broken(s):
        raise KeyError("k")

    monkeypatch.setattr(checks, "CHECKS", (broken,))
    monkeypatch.setattr(checks.run_checks, "__kwdefaults__", {"only": (), "skip": (), "checks": (broken,)})
    assert run(["check", str(clean)]) == 3
    assert "error    check-failed" in capsys.readouterr().out
    monkeypatch.setattr("visionkit.cli.checking.collect.survey", broken)
    assert run(["check", str(clean)]) == 3
    assert "the check itself failed" in capsys.readouterr().err


def test_labels_that_cannot_be_read_at_all(tmp_path, capsys):
    root = corpus.coco(tmp_path / "data")
    (root / "annotations" / "instances_val.json").write_text('{"annotations": [')
    (root / "val" / "val03.jpg").write_bytes(b"nothing")
    assert run(["check", str(root)]) == 1
    out = capsys.readouterr().out
    assert "label-unreadable: labels that cannot be read at all: 1" in out
    assert "instances_val.json:1: no valid JSON" in out
    assert "30 images (30 train)" in out


def test_what_fit_would_refuse_is_an_error(tmp_path, capsys):
    root = corpus.class_folders(tmp_path / "one")
    for split in corpus.COUNTS:
        shutil.rmtree(root / split / "dog")
    assert run(["check", str(root)]) == 1
    assert "error    class-alone: a single class" in capsys.readouterr().out
    root = corpus.mask_folders(tmp_path / "masks")
    (root / "masks" / "val" / "more.png").write_bytes((root / "masks" / "val" / "val00.png").read_bytes())
    assert run(["check", str(root)]) == 1
    assert "error    label-orphan" in capsys.readouterr().out
    root = corpus.yolo(tmp_path / "empty")
    for file in root.glob("labels/train/*.txt"):
        file.write_text("")
    assert run(["check", str(root)]) == 1
    assert "no training image has a box; label some objects" in capsys.readouterr().out


def test_another_unit(tmp_path, capsys):
    root = corpus.yolo(tmp_path / "data")
    for file in root.glob("labels/*/*.txt"):
        file.write_text("0 24 18 32 24\n")
    assert run(["check", str(root)]) == 1
    out = capsys.readouterr().out
    assert "this looks like pixels, and YOLO counts in shares" in out
    assert "box-outside" not in out


def test_a_config_says_size_and_level(tmp_path, capsys):
    root = corpus.yolo(tmp_path / "data")
    file = tmp_path / "c.yaml"
    file.write_text(
        "model: {class_path: Detector, init_args: {neck: {class_path: FPN, init_args: {min_level: 2}}}}\n"
        f"data: {{class_path: DetectionData, init_args: {{root: {root}, size: 32}}}}\n"
    )
    assert run(["check", str(file)]) == 0
    assert "60 of 60 objects are under 16 pixels at size 32, 0 of them under 4" in capsys.readouterr().out
    assert run(["check", str(file), "--size", "64x64", "--strict"]) == 0


def test_a_config_of_several_data_sets(tmp_path, capsys):
    corpus.yolo(tmp_path / "a")
    corpus.mask_folders(tmp_path / "b")
    parts = [
        f"things: {{class_path: DetectionData, init_args: {{root: {tmp_path / 'a'}}}}}",
        f"stuff: {{class_path: SegmentationData, init_args: {{root: {tmp_path / 'b'}}}}}",
    ]
    file = tmp_path / "c.yaml"
    file.write_text(f"data: {{class_path: MultiTaskData, init_args: {{datasets: {{{', '.join(parts)}}}}}}}\n")
    assert run(["check", str(file), "--json"]) == 0
    assert [s["task"] for s in json.loads(capsys.readouterr().out)] == ["detection", "segmentation"]
    assert run(["check", str(file), "--fix", str(tmp_path / "copy")]) == 2
    assert "names several data sets (detection, segmentation)" in capsys.readouterr().err
    assert run(["check", str(file), "--task", "detection", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["task"] == "detection"


class Page(HTMLParser):
    """The tags and addresses of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.sources, self.policy = [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append(tag)
        self.sources += [attrs[k] for k in ("src", "href") if k in attrs]
        if attrs.get("http-equiv") == "Content-Security-Policy":
            self.policy = attrs["content"]


def test_the_page(tmp_path, capsys):
    root = tmp_path / "a<script>alert(1)</script>&'\""
    faulty.make(root, "YOLO")
    out = tmp_path / "out.html"
    assert run(["check", str(root), "--report", str(out), "--pictures", "12"]) == 1
    text = out.read_text()
    page = Page(text)
    assert re.fullmatch(
        r"default-src 'none'; img-src data:; style-src 'sha256-[\w+/=]{44}'; base-uri 'none'; form-action 'none'",
        page.policy,
    )
    assert "script" not in page.tags
    assert "&lt;script&gt;" in text
    assert all(s.startswith(("data:image/webp;base64,", "#")) for s in page.sources)
    assert 8 <= page.tags.count("img") <= 12
    assert "prefers-color-scheme: dark" in text
    assert "more without a picture here" in text
    assert run(["check", str(root), "--report", str(out)]) == 2
    assert "add --overwrite" in capsys.readouterr().err


def test_the_copy(leaky, tmp_path, capsys):
    copy = tmp_path / "copy"
    assert run(["check", str(leaky), "--fix", str(copy)]) == 1
    out = capsys.readouterr().out
    assert "mended   leak-exact: 1 (removes them from training)" in out
    assert f"copy     {copy}: 1 images left out" in out
    assert not (copy / "train" / "cat" / "train00.jpg").exists()
    assert (copy / "val" / "cat" / "val00.jpg").exists()
    assert (leaky / "train" / "cat" / "train00.jpg").exists()
    assert run(["check", str(copy), "--strict"]) == 0
    assert run(["check", str(leaky), "--fix", str(copy)]) == 2
    assert "is there already" in capsys.readouterr().err
    assert run(["check", str(leaky), "--fix", str(leaky / "copy")]) == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["copy", "leaky"]


def test_no_copy_where_nothing_can_be_mended(clean, tmp_path, capsys):
    assert run(["check", str(clean), "--fix", str(tmp_path / "copy")]) == 0
    assert "no copy was written" in capsys.readouterr().out
    assert not (tmp_path / "copy").exists()


def test_a_copy_never_reads_the_original(tmp_path, capsys):
    root = corpus.manifest(tmp_path / "data")
    file = root / "list.csv"
    file.write_text(file.read_text().replace("images/", f"{root}/images/"))
    (root / "images" / "val" / "val00.jpg").write_bytes((root / "images" / "train" / "train00.jpg").read_bytes())
    assert run(["check", str(root), "--fix", str(tmp_path / "copy")]) == 1
    assert "absolute paths" in capsys.readouterr().err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data"]


def test_a_copy_of_lists_and_of_a_path(tmp_path, capsys):
    """A list with an image that is not there; a data.yaml that says where it lies."""
    root = corpus.yolo(tmp_path / "data")
    for split in ("train", "val"):
        names = "".join(f"./images/{split}/{split}{i:02}.jpg\n" for i in range(30))
        (root / f"{split}.txt").write_text(names + f"./images/{split}/gone.jpg\n" * (split == "val"))
    (root / "data.yaml").write_text(f"path: {root}\ntrain: train.txt\nval: val.txt\nnames: [cat, dog]\n")
    (root / "images" / "train" / "train02.jpg").write_bytes(b"nothing")
    copy = tmp_path / "copy"
    assert run(["check", str(root / "data.yaml"), "--fix", str(copy)]) == 1
    assert {"image-missing", "picture-unreadable"} <= set(re.findall(r"mended   (\S+):", capsys.readouterr().out))
    root.rename(tmp_path / "moved")
    assert run(["check", str(copy / "data.yaml"), "--skip", "split-small"]) == 0
    assert "59 images (29 train, 30 val)" in capsys.readouterr().out


def test_help_lists_it(capsys):
    run(["--help"])
    assert "  check      look at a data set first" in capsys.readouterr().out


def test_features_doubt_a_label(photos, tmp_path, capsys):
    """A picture among those of another class; features of random weights tell colours."""
    torch.manual_seed(0)
    weights = tmp_path / "w.pth"
    torch.save(ResNet(18).state_dict(), weights)
    (photos / "blue" / "7.png").rename(photos / "red" / "wrong.png")
    assert run(["check", str(photos), "--only", "label", "--deep", str(weights), "--json"]) == 0
    (finding,) = json.loads(capsys.readouterr().out)["findings"]
    assert (finding["id"], finding["severity"]) == ("label-suspect", "note")
    assert finding["places"][0]["file"] == str(photos / "red" / "wrong.png")
    assert "labelled red, looks like blue" in finding["places"][0]["text"]
    assert run(["check", str(photos), "--deep", str(tmp_path / "none.pth")]) == 2


def test_features_doubt_a_box(tmp_path, capsys):
    weights = tmp_path / "w.pth"
    torch.save(ResNet(18).state_dict(), weights)
    root = corpus.yolo(tmp_path / "data")
    assert run(["check", str(root), "--only", "label-suspect", "--deep", str(weights)]) == 0
    assert "too few to doubt any" in capsys.readouterr().out  # the classes of these pictures say nothing


@pytest.mark.slow
def test_real_boxes(data_root, capsys):
    assert run(["check", str(data_root / "detection" / "bccd"), "--json"]) == 1
    found = {f["id"]: f for f in json.loads(capsys.readouterr().out)["findings"]}
    pairs = [{p.rpartition("/")[2] for p in place["pictures"]} for place in found["leak-near"]["places"]]
    assert {"BloodImage_00037.jpg", "BloodImage_00038.jpg"} in pairs
    places = {(p["file"].rpartition("/")[2], p["line"]) for p in found["box-degenerate"]["places"]}
    assert places == {("BloodImage_00338.xml", 163), ("BloodImage_00343.xml", 55)}
    assert found["box-duplicate"]["count"] == 7
