import tempfile
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.pictures import colour_of
from visionkit.core.errors import DataError, UsageError
from visionkit.tasks.detection.readers.coco import CocoDataset
from visionkit.tasks.detection.readers.yolo import YoloDataset

LINE = "0 0.5 0.5 0.5 0.5\n"


def write(folder, *, images="images/train", labels="labels/train", **contents):
    for name, content in contents.items():
        (folder / images).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30), colour_of(folder / images / name)).save(folder / images / f"{name}.png")
        if content is not None:
            (folder / labels).mkdir(parents=True, exist_ok=True)
            (folder / labels / f"{name}.txt").write_text(content)
    return folder


def config(folder, name="data.yaml", **keys):
    (folder / name).write_text(yaml.safe_dump(keys))
    return folder / name


def test_boxes_polygons_and_images_without_objects(tmp_path):
    lines = "1 0.5 0.5 0.5 0.2\n\n0 0.1 0.2 0.4 0.2 0.3 0.6\r\n2.0 0.125 0.5 .25 1 \n"
    data = YoloDataset(write(tmp_path, a=lines, b="", c=None))
    assert data.classes == ("0", "1", "2")
    assert data.labels == [(0, 1, 2), (), ()]
    assert [e.key for e in data.entries] == [f"images/train/{n}.png" for n in "abc"]
    sample = data[0]
    assert np.allclose(sample.target.boxes, [[10, 12, 30, 18], [4, 6, 16, 18], [0, 0, 10, 30]])
    assert np.allclose(sample.target.areas, [120, 144, 300])
    assert sample.target.labels.tolist() == [1, 0, 2]
    assert not sample.target.crowd.any()
    assert len(data[1].target) == len(data[2].target) == 0
    assert data.problems == []


def test_wrong_boxes_are_reported_with_their_line(tmp_path):
    lines = [
        "0 0.5 0.5 0.5 0.5",
        "0 0.9 0.5 0.4 0.5",
        "0 0.5 0.5 0.5 0.5",
        "0 0.5 0.5 0 0.5",
        "0 nan 0.5 0.1 0.1",
        "0 0.99 0.5 0.04 0.5",
    ]
    data = YoloDataset(write(tmp_path, a="\n".join(lines)), classes=["cat"])
    file = tmp_path / "labels" / "train" / "a.txt"
    assert data.problems == [
        f"{file}:3: the same object as in line 1; dropped",
        f"{file}:2: cat box 28, 7.5, 44, 22.5 reaches out of the picture of 40 x 30; clipped to 28, 7.5, 40, 22.5",
        f"{file}:4: cat box 20, 7.5, 20, 22.5 has no area; dropped",
        f"{file}:5: cat box nan, 13.5, nan, 16.5 has a coordinate that is no finite number; dropped",
    ]
    assert np.allclose(data[0].target.boxes, [[10, 7.5, 30, 22.5], [28, 7.5, 40, 22.5], [38.8, 7.5, 40, 22.5]])


def test_the_picture_is_only_looked_at_where_a_box_is_doubtful(tmp_path):
    write(tmp_path, a=LINE, b="0 0.9 0.5 0.4 0.5\n")
    for name in "ab":
        (tmp_path / "images" / "train" / f"{name}.png").write_bytes(b"damaged")
    data = YoloDataset(tmp_path, classes=["cat"])
    assert [e.relative for e in data.entries] == [True, True]
    assert data.problems == [
        f"{tmp_path}/labels/train/b.txt:1: cat box 0.7, 0.25, 1.1, 0.75 reaches out of the picture; clipped to 0.7, 0.25, 1, 0.75"
    ]
    with pytest.raises(DataError, match=r"a\.png: not an image"):
        data[0]


@pytest.mark.parametrize(
    ("content", "line", "message"),
    [
        (LINE + "0 0.5 0.5 0.5 0.5 0.9", 2, "6 columns, as predictions with a confidence have them; labels have 5: class cx cy w h"),
        ("0 0.5 0.5", 1, "3 columns; write class cx cy w h, or a class and the points of a polygon"),
        ("0 " + "0.5 " * 7, 1, "8 columns"),
        (LINE + "\ncat 0.5 0.5 0.5 0.5", 3, "'cat' is no number; write class cx cy w h"),
        ("0 0,5 0.5 0.5 0.5", 1, "holds a comma or semicolon; YOLO parts columns by blanks"),
        ("1.5 0.5 0.5 0.5 0.5", 1, "class 1.5 is no whole number from 0; correct the line"),
        ("-1 0.5 0.5 0.5 0.5", 1, "class -1 is no whole number"),
        ("nan 0.5 0.5 0.5 0.5", 1, "class nan is no whole number"),
        (LINE + "2 0.5 0.5 0.5 0.5", 2, "class 2, but there are 2 names, so 0 to 1; correct the line or the names"),
    ],
)  # fmt: skip
def test_broken_lines(tmp_path, content, line, message):
    with pytest.raises(DataError) as e:
        YoloDataset(write(tmp_path, a=content), classes=["cat", "dog"])
    assert str(e.value).startswith(f"{tmp_path}/labels/train/a.txt:{line}: {message}")


def test_broken_label_files(tmp_path):
    write(tmp_path, a=LINE)
    (tmp_path / "labels" / "train" / "a.txt").write_bytes(b"0 0.5 0.5 0.5 0.5\n\xff")
    with pytest.raises(DataError, match=r"a\.txt:2: is not UTF-8 text"):
        YoloDataset(tmp_path)
    (tmp_path / "labels" / "train" / "a.txt").write_text("999999999 0.5 0.5 0.5 0.5")
    with pytest.raises(DataError, match=r"a\.txt:1: class 999999999, but there are 10000 names"):
        YoloDataset(tmp_path)


def test_no_labels_at_all(tmp_path):
    write(tmp_path, a=None, b=None)
    (tmp_path / "labels").mkdir()
    with pytest.raises(DataError) as e:
        YoloDataset(tmp_path)
    assert str(e.value) == (
        f"{tmp_path}: none of 2 images has a label file; looked in {tmp_path}/images/train, {tmp_path}/labels/train for "
        "files such as a.txt"
    )


# --- folders


def test_folders_of_splits(tmp_path):
    write(tmp_path, a=LINE)
    write(tmp_path, images="images/val2017", labels="labels/val2017", b=LINE)
    assert [e.key for e in YoloDataset(tmp_path, "train").entries] == ["images/train/a.png"]
    assert [e.key for e in YoloDataset(tmp_path, "val").entries] == ["images/val2017/b.png"]
    assert len(YoloDataset(tmp_path)) == 2
    with pytest.raises(UsageError, match="no split 'test'; its splits are: train, val"):
        YoloDataset(tmp_path, "test")
    write(tmp_path, images="images/valid", b=None)
    with pytest.raises(DataError, match="images: has both val2017/ and valid/; keep one"):
        YoloDataset(tmp_path, "val")


def test_folders_of_roboflow_and_flat_ones(tmp_path):
    write(tmp_path / "r", images="train/images", labels="train/labels", a=LINE)
    write(tmp_path / "r", images="valid/images", labels="valid/labels", b=LINE)
    assert [e.key for e in YoloDataset(tmp_path / "r", "val").entries] == ["valid/images/b.png"]
    write(tmp_path / "images", images="images", labels="labels", a=LINE)  # the last `images` is the one
    data = YoloDataset(tmp_path / "images")
    assert [e.key for e in data.entries] == ["images/a.png"]
    with pytest.raises(UsageError, match="its splits are: none"):
        YoloDataset(tmp_path / "images", "train")


def test_nothing_there(tmp_path):
    with pytest.raises(DataError, match=r"no images/ with labels/ and no data\.yaml"):
        YoloDataset(tmp_path)
    with pytest.raises(DataError, match=r"nowhere: no such folder or file; give a data\.yaml"):
        YoloDataset(tmp_path / "nowhere")
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    with pytest.raises(DataError, match="images: no images; add some"):
        YoloDataset(tmp_path)


# --- names and data.yaml


@pytest.mark.parametrize("file", ["classes.txt", "obj.names", "names.txt", "labels/classes.txt"])
def test_names_beside(tmp_path, file):
    write(tmp_path, a="1 0.5 0.5 0.5 0.5")
    (tmp_path / file).write_text("cat\nred dog\n\n")
    assert YoloDataset(tmp_path).classes == ("cat", "red dog")
    assert YoloDataset(tmp_path, classes=["red dog", "eel"]).labels == [(0,)]
    with pytest.raises(DataError) as e:
        YoloDataset(tmp_path, classes=["cat", "dog"])
    assert str(e.value) == (
        f"{tmp_path}/labels/train/a.txt:1: class 'red dog' is not one of cat, dog; did you mean 'dog'?; rename the class "
        "or remove the line"
    )
    (tmp_path / file).write_text("cat\n\ndog\n")
    with pytest.raises(DataError, match=rf"{file}:2: an empty line; write the name of class 1"):
        YoloDataset(tmp_path)
    (tmp_path / file).write_text("cat\ncat\n")
    with pytest.raises(DataError, match=rf"{file}: cat comes twice"):
        YoloDataset(tmp_path)


@pytest.mark.parametrize(
    "keys",
    [
        {"train": "images/train", "names": ["cat", "dog"], "nc": 2},
        {"train": "../images/train", "names": {1: "dog", 0: "cat"}},
        {"path": "..", "train": ["DATA/images/train"], "names": ["cat", "dog"]},
        {"path": "../gone", "train": "list.txt", "names": ["cat", "dog"], "val": None},
        {"train": "images/train/", "names": ["cat", "dog"]},
        {"names": ["cat", "dog"]},
    ],
)
def test_data_yaml(tmp_path, keys):
    root = write(tmp_path / "DATA", a="1 0.5 0.5 0.5 0.5", b=None)
    (root / "list.txt").write_text("./images/train/a.png\n\nimages/train/b.png\nimages\\train\\b.png\n")
    file = config(root, **keys)
    for where in (root, file):
        data = YoloDataset(where, "train")
        assert data.classes == ("cat", "dog")
        assert data.labels == [(1,), ()]
        assert data.ids == [str(root / "images" / "train" / f"{n}.png") for n in "ab"]


def test_data_yaml_of_another_name_and_several_folders(tmp_path):
    write(tmp_path, a=LINE)
    write(tmp_path, images="more/images", labels="more/labels", b=LINE)
    (tmp_path / "other.yaml").write_text("- 1")
    config(tmp_path, "pets.yaml", train=["images/train", "more"], nc=3)
    data = YoloDataset(tmp_path, "train")
    assert data.labels == [(0,), (0,)]
    assert data.classes == ("0", "1", "2")
    config(tmp_path, "pets2.yaml", train="images/train")
    with pytest.raises(UsageError, match=r"several data files \(pets\.yaml, pets2\.yaml\); give one as root"):
        YoloDataset(tmp_path, "train")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("train: images/train\nnames: [a, b", r"data\.yaml:2: no valid YAML"),
        ("- 1", r"data\.yaml: holds no keys; write train:, val: and names:"),
        ("train: images/train\nnames: [yes, no]", r"data\.yaml: names: class 0 is True; put the name into quotes"),
        ("train: images/train\nnames: {0: a, 2: b}", r"data\.yaml: names: no name for class 1; number the classes from 0"),
        ("train: images/train\nnames: a", r"data\.yaml: names: 'a' is no list of names"),
        ("train: images/train\nnames: [a, a]", r"data\.yaml: names: a comes twice"),
        ("train: images/train\nnames: [a, b]\nnc: 3", r"data\.yaml: nc is 3, but there are 2 names; correct one"),
        ("train: 5", r"data\.yaml: train: 5 is no path; give a folder"),
        ("train: images/gone", r"data\.yaml: train: no folder or list images/gone, looked in .*; correct the path"),
        ("train: list.txt", r"list\.txt:2: b\.png: no such image"),
        ("a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\nnames: [*c]\ntrain: images/train", r"names: class 0 is a list; put"),
    ],
)  # fmt: skip
def test_broken_data_yaml(tmp_path, content, message):
    write(tmp_path, a=LINE)
    (tmp_path / "list.txt").write_text("images/train/a.png\nb.png\n")
    (tmp_path / "data.yaml").write_text(content)
    with pytest.raises(DataError, match=message):
        YoloDataset(tmp_path, "train")


def test_data_yaml_that_is_alone(tmp_path):
    with pytest.raises(DataError, match=r"data\.yaml: has no key train or val, and no images/ and labels/ beside it"):
        YoloDataset(config(tmp_path, names=["a"]))


share = st.floats(0, 1)


@settings(max_examples=60)
@given(data=st.data())
def test_random_boxes_come_back(data):
    ids = data.draw(st.lists(st.integers(0, 40), min_size=1, max_size=5, unique=True))
    names = [f"n{i * 7 % 41}" for i in range(41)]
    fixed = data.draw(st.none() | st.permutations(names))
    truth, contents = {}, {}
    for stem in data.draw(st.lists(st.text("xyz1.", min_size=1), min_size=1, max_size=4, unique=True)):
        h, w = data.draw(st.integers(8, 3000)), data.draw(st.integers(8, 3000))
        truth[f"i{stem}"], lines = ((h, w), []), []
        for a, b, c, d, k in set(
            data.draw(st.lists(st.tuples(share, share, share, share, st.sampled_from(ids)), max_size=5))
        ):
            x, y = a * (w - 2), b * (h - 2)
            x2, y2 = x + 1 + c * (w - x - 1), y + 1 + d * (h - y - 1)
            truth[f"i{stem}"][1].append((names[k], [x, y, x2, y2]))
            lines.append(f"{k} {(x + x2) / 2 / w!r} {(y + y2) / 2 / h!r} {(x2 - x) / w!r} {(y2 - y) / h!r}")
        contents[f"i{stem}"] = "\n".join(lines)
    with tempfile.TemporaryDirectory() as folder:
        for part in ("images", "labels"):
            Path(folder, part).mkdir()
        for stem, content in contents.items():
            Path(folder, "images", f"{stem}.png").touch()
            Path(folder, "labels", f"{stem}.txt").write_text(content)
        Path(folder, "classes.txt").write_text("\n".join(names))
        read = YoloDataset(folder, classes=fixed)
    assert read.classes == tuple(fixed or names)
    assert [p for p in read.problems if "the same object" not in p] == []
    for entry in read.entries:
        size, rows = truth[Path(entry.id).name.removesuffix(".png")]
        target = entry.target(size)
        if not read.problems:
            assert [read.classes[k] for k in target.labels] == [k for k, _ in rows]
            assert np.abs(target.boxes.numpy() - np.array([b for _, b in rows]).reshape(-1, 4)).max(initial=0) < 1e-3


@pytest.mark.parametrize(("split", "name"), [("train", "instances_train2017"), ("val", "boxes_val2017")])
def test_real_photos_are_the_same_as_in_coco_json(data_root, split, name):
    folder = data_root / "coco128"
    coco = CocoDataset(folder / "annotations" / f"{name}.json")
    assert YoloDataset(folder, split).classes == tuple(map(str, range(80 if split == "train" else 78)))
    yolo = YoloDataset(folder, split, classes=coco.classes)
    assert yolo.ids == coco.ids
    assert yolo.labels == coco.labels
    assert yolo.problems == []
    for mine, theirs in zip(yolo.entries, coco.entries, strict=True):
        one, two = mine.target(theirs.size), theirs.target(theirs.size)
        two = two.select(~two.crowd)
        assert one.labels.tolist() == two.labels.tolist()
        assert np.abs((one.boxes - two.boxes).numpy()).max(initial=0) < 0.01
        assert not one.crowd.any()
    empty = [Path(e.id).stem[-3:] for e in yolo.entries if not len(e.objects)]
    assert split == "val" or empty == ["250", "508"]
    assert len(yolo[0].target) == len(yolo.entries[0].objects)
