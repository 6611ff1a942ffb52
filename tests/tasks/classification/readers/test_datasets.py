import json
import os
import shutil
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.pictures import colour_of
from visionkit import FolderDataset, ManifestDataset, ShapesClassification
from visionkit.core.errors import DataError, UsageError
from visionkit.core.output import mark_output
from visionkit.data import formats
from visionkit.data.shapes import SHAPES
from visionkit.tasks.classification.readers.formats import FORMATS
from visionkit.tasks.classification.readers.reader import ClassDataset

find_splits = partial(formats.find_splits, table=FORMATS)

DATA = Path(os.environ.get("VISIONKIT_TEST_DATA", "../shared/data"))


def write(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / name), np.full((4, 5, 3), colour_of(folder / name), np.uint8))
    return folder


def many(folder, **counts):
    return write(folder, *(f"{c}/{i:02d}.png" for c, n in counts.items() for i in range(n)))


def text(path, content):
    path.write_text(content)
    return path


# --- a folder per class


def test_folder_takes_names_of_folders_sorted(tmp_path):
    data = FolderDataset(write(tmp_path, "dog/b.png", "cat/x/a.PNG", "cat/c.jpg", ".hidden/e.png", "dog/.f.png"))
    assert data.classes == ("cat", "dog")
    assert [Path(i).relative_to(tmp_path).as_posix() for i in data.ids] == ["cat/c.jpg", "cat/x/a.PNG", "dog/b.png"]
    assert data.labels == [(0,), (0,), (1,)]
    assert [e.key for e in data.entries] == ["cat/c.jpg", "cat/x/a.PNG", "dog/b.png"]


def test_folder_with_fixed_classes(tmp_path):
    write(tmp_path, "dog/b.png", "cat/a.png")
    data = FolderDataset(tmp_path, classes=["eel", "dog", "cat"])
    assert data.classes == ("eel", "dog", "cat")
    assert dict(zip(data.ids, data.labels, strict=True))[str(tmp_path / "dog/b.png")] == (1,)
    with pytest.raises(DataError, match=r"dog: class 'dog' is not one of cat, dogs; did you mean 'dogs'\?; rename"):
        FolderDataset(tmp_path, classes=["cat", "dogs"])
    with pytest.raises(UsageError, match="cat comes twice"):
        FolderDataset(tmp_path, classes=["cat", "cat", "dog"])
    with pytest.raises(UsageError, match="is not a list of class names"):
        FolderDataset(tmp_path, classes="cat")


def test_folder_of_one_class_is_fine_where_classes_are_fixed(tmp_path):
    (tmp_path / "dog").mkdir()
    assert len(FolderDataset(write(tmp_path, "cat/a.png"), classes=["cat", "dog"])) == 1


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ((), "holds no class folders and no images"),
        (("a.png", "b.png"), "holds 2 images but no class folders; put the images of each class into a folder"),
        (("a.png", "cat/b.png", "dog/c.png"), r"a\.png: an image beside the class folders \(1 in all\)"),
        (("cat/a.png",), r"only one class \(cat\)"),
        (("cat/a.png", "dog/b.txt"), "dog: no images for class dog; add images or remove the folder"),
        (("cat/a.txt", "dog/b.txt"), r"no images in its 2 folders \(cat, dog\)"),
    ],
)
def test_folder_errors_say_what_to_do(tmp_path, files, message):
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(DataError, match=message) as e:
        FolderDataset(tmp_path)
    assert "; " in str(e.value)


def test_missing_folder(tmp_path):
    with pytest.raises(DataError, match="no such folder; give the folder that holds a folder of images per class"):
        FolderDataset(tmp_path / "nowhere")


def test_folders_without_images_are_no_classes_and_are_said(tmp_path):
    many(tmp_path, cat=3, dog=3)
    (tmp_path / "eel").mkdir()
    text(tmp_path / "eel" / "notes.txt", "x")
    found = find_splits(tmp_path)
    assert found.train.classes == ("cat", "dog")
    assert "1 folders without images (eel) are no classes" in found.source
    (tmp_path / "eel" / "a.heic").touch()
    with pytest.raises(DataError, match=r"eel: no images for class eel: 1 picture of a kind .*1 \.heic"):
        find_splits(tmp_path)


def test_output_folders_are_no_classes_and_are_said(tmp_path):
    many(tmp_path, cat=3, dog=3)
    write(tmp_path, "runs/classify/curves.png", "dog/preds/images/d.png")
    mark_output(tmp_path / "runs" / "classify", own=("curves.png",))
    mark_output(tmp_path / "dog" / "preds", own=("images",))
    found = find_splits(tmp_path)
    assert found.train.classes == ("cat", "dog")
    assert len(found.train) + len(found.val) == 6
    assert f"visionkit wrote into it: {tmp_path / 'runs'}, {tmp_path / 'dog' / 'preds'}" in found.source


def test_pictures_that_are_not_read_are_counted_in_the_source(tmp_path):
    many(tmp_path, cat=3, dog=3)
    for i in range(9):
        (tmp_path / "cat" / f"p{i}.heic").touch()
    assert "9 pictures of kinds that are not read are left out (9 .heic)" in find_splits(tmp_path).source


@pytest.mark.parametrize("words", [("training", "validation", "testing"), ("Train", "Valid", "Test")])
def test_other_words_for_splits(tmp_path, words):
    write(tmp_path, *(f"{w}/{c}/{i}.png" for w in words for c in ("cat", "dog") for i in range(2)))
    write(tmp_path, "__MACOSX/cat/a.png", f"{words[0]}/__MACOSX/b.png")
    found = find_splits(tmp_path)
    assert [len(d) for d in (found.train, found.val, found.test)] == [4, 4, 4]
    assert found.train.classes == ("cat", "dog")


def test_a_test_folder_without_labels_is_left_out_unless_it_is_needed(tmp_path):
    many(tmp_path / "train", cat=3, dog=3)
    write(tmp_path, "test/a.png", "test/b.png")
    found = find_splits(tmp_path)
    assert found.test is None
    assert "test/ has no class folders (2 images without labels) and is left out" in found.source
    with pytest.raises(DataError, match="test: holds 2 images but no class folders"):
        find_splits(tmp_path, need=("test",), classes=["cat", "dog"])


def test_class_names_go_by_their_composed_form(tmp_path):
    one, other = "k\xe4se", "ka\u0308se"
    write(
        tmp_path, *(f"{s}/{n}/{i}.png" for s, c in (("train", one), ("val", other)) for n in (c, "brot") for i in "01")
    )
    found = find_splits(tmp_path)
    assert found.train.classes == found.val.classes == ("brot", one)
    assert [len(d) for d in (found.train, found.val)] == [4, 4]
    assert len(FolderDataset(tmp_path / "train", classes=["brot", other])) == 4  # of an older checkpoint
    write(tmp_path, f"train/{other}/2.png")
    with pytest.raises(DataError, match="two folders called k\xe4se, which differ in their Unicode form alone"):
        find_splits(tmp_path)


@pytest.mark.parametrize("name", ["a\x1b[2Jb", "a\nerror: b", "a\udcffb"])
def test_class_names_are_lines_of_text(tmp_path, name):
    many(tmp_path, cat=2, dog=2)
    try:
        (tmp_path / "cat").rename(tmp_path / name)
    except OSError:
        pytest.skip("this file system has no such names")
    with pytest.raises(DataError, match="holds characters that are no text") as e:
        find_splits(tmp_path)
    assert str(e.value).isprintable()
    csv = manifest(tmp_path, "path,label\na.png,x\nb.png,y\n")
    with pytest.raises(DataError, match="holds characters that are no text"):
        ClassDataset(csv.entries, [name, "y"])


@pytest.mark.parametrize("kind", [os.link, shutil.copy])
def test_copies_are_a_leak_and_stay_on_one_side(tmp_path, kind):
    many(tmp_path / "train", cat=4, dog=4)
    many(tmp_path / "val", cat=1, dog=1)
    for i in range(2):
        kind(tmp_path / "train" / "cat" / "00.png", tmp_path / "val" / "cat" / f"x{i}.png")
    if kind is os.link:
        with pytest.raises(DataError, match="the same file as") as e:
            find_splits(tmp_path)
        assert str(e.value).splitlines()[-1] == f"{tmp_path}: 2 images are in two splits; keep each in one"
    else:
        last = find_splits(tmp_path).source.splitlines()[-1].strip()
        assert last.startswith("leak: 2 images are in both train and val, byte for byte, so the score flatters")
    shutil.rmtree(tmp_path / "val")
    for c in ("cat", "dog"):
        for i in range(3):
            kind(tmp_path / "train" / c / "00.png", tmp_path / "train" / c / f"x{i}.png")
    for seed in range(4):
        found = find_splits(tmp_path, seed=seed)
        for c in ("cat", "dog"):
            sides = [sum(f"{c}/x" in i or f"{c}/00" in i for i in d.ids) for d in (found.train, found.val)]
            assert sorted(sides) == [0, 4]


# --- manifests


def manifest(folder, content, name="m.csv", **options):
    write(folder, "a.png", "b.png", "c.png")
    return ManifestDataset(text(folder / name, content), **options)


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_csv_dialects(tmp_path, delimiter, mark, newline):
    rows = [["path", "label", "caption"], ["a.png", "cat", '"a ""b"", c; d"'], ["", "", ""], ["b.png", "dog", ""]]
    write(tmp_path, "a.png", "b.png")
    content = mark + newline.join(delimiter.join(r) for r in rows)
    (tmp_path / "m.csv").write_bytes(content.encode())
    data = ManifestDataset(tmp_path / "m.csv")
    assert data.classes == ("cat", "dog")
    assert data.labels == [(0,), (1,)]
    assert not data.multilabel
    assert [data[i].info.extra for i in (0, 1)] == [{"caption": 'a "b", c; d'}, {"caption": ""}]


def test_several_labels_in_csv_and_jsonl(tmp_path):
    csv = manifest(tmp_path, "path,labels\na.png,dog|cat\nb.png,\nc.png,cat\n")
    lines = [{"path": "a.png", "labels": ["dog", "cat"]}, {"path": "b.png", "labels": []}]
    lines.append({"path": str(tmp_path / "c.png"), "labels": ["cat"], "weight": 1.5, "tags": [1]})
    jsonl = manifest(tmp_path, "\n".join(map(json.dumps, lines)), name="m.jsonl")
    for data in (csv, jsonl):
        assert data.multilabel
        assert data.classes == ("cat", "dog")
        assert data.labels == [(0, 1), (), (0,)]
        assert data.files() == [tmp_path / n for n in ("a.png", "b.png", "c.png")]
    assert jsonl[2].info.extra == {"weight": 1.5, "tags": [1]}


def test_label_kinds(tmp_path):
    content = "path,labels\na.png,dog\nb.png,cat\n"
    assert not manifest(tmp_path, content, multilabel=False).multilabel
    assert manifest(tmp_path, "path,label\na.png,dog\nb.png,\n", multilabel=True).labels == [(0,), ()]
    numbers = '{"path": "a.png", "label": 7}\n{"path": "b.png", "label": "8"}'
    assert manifest(tmp_path, numbers, name="m.jsonl").classes == ("7", "8")
    assert manifest(tmp_path, "path,label\na.png,a|b\nb.png,c\n").classes == ("a|b", "c")
    with pytest.raises(DataError, match=r"m\.csv:2: 2 labels \(dog, cat\)"):
        manifest(tmp_path, "path,labels\na.png,dog|cat\nb.png,cat\n", multilabel=False)


def test_splits_and_groups(tmp_path):
    content = "Path,Label,split,group\na.png,cat,Train,x\nb.png,dog,train,y\nc.png,cat,validation,z\n"
    data = manifest(tmp_path, content)
    assert data.splits == ("train", "val")
    assert data.groups == ["x", "y", "z"]
    val = manifest(tmp_path, content, split="valid")
    assert val.ids == [str(tmp_path / "c.png")]
    assert val.classes == ("cat", "dog")
    with pytest.raises(UsageError, match="no split 'test'; its splits are train, val"):
        manifest(tmp_path, content, split="test")
    plain = "path,label\na.png,cat\nb.png,dog\n"
    assert manifest(tmp_path, plain).splits == ()
    with pytest.raises(UsageError, match="it has no split column"):
        manifest(tmp_path, plain, split="val")


def test_repeated_lines_are_taken_once(tmp_path):
    assert len(manifest(tmp_path, "path,label\na.png,cat\nb.png,dog\na.png,cat\n")) == 2


CSV_ERRORS = [
    ("", "lists no images"),
    ("path,label\n", "lists no images"),
    ("filename,label\na.png,cat\n", r"m\.csv:1: no column 'path' among filename, label; rename 'filename' to 'path'"),
    ("path,class\na.png,cat\n", "no column 'label' or 'labels' among class, path"),
    ("path,label,labels\na.png,cat,cat\n", "both columns"),
    ("path,label,label\na.png,cat,cat\n", "'label' comes twice"),
    ("path,label\na.png,cat\nb.png,\n", r"m\.csv:3: no label for 'b\.png'"),
    ("path,label\n,cat\nb.png,dog\n", r"m\.csv:2: no path"),
    ("path,label\na.png,cat,dog\n", r"m\.csv:2: 3 cells where the header has 2"),
    ('path,label\na.png,"cat\nb.png,dog\n', r"m\.csv:3: no valid CSV"),
    ("path,label\na.png,cat\nb.png,cat\n", r"only one class \(cat\)"),
    ("path,label\na.png,cat\nb.png,dog\na.png,dog\n", r"m\.csv:4: a\.png has other labels than in .*m\.csv:2"),
    ("path,label,split\na.png,cat,train\nb.png,dog,tarin\n", r"m\.csv:3: split 'tarin' is unknown; write train"),
    ("path,label,split\na.png,cat,train\nb.png,dog,\n", r"m\.csv:3: no split"),
    ("path,label,split\na.png,cat,train\nb.png,dog,train\na.png,cat,val\n", r"m\.csv:4: a\.png is in split val"),
    ("path,label,group\na.png,cat,x\nb.png,dog,\n", r"1 images have no group \(b\.png, \.\.\.\)"),
    ("path,labels\na.png,\nb.png,\n", "no image has a class"),
]


@pytest.mark.parametrize(("content", "message"), CSV_ERRORS)
def test_csv_errors_name_file_and_line(tmp_path, content, message):
    with pytest.raises(DataError, match=message):
        manifest(tmp_path, content)


JSONL_ERRORS = [
    ('{"path": "a.png", "label": "cat"}\n{"path": ', r"m\.jsonl:2: no valid JSON"),
    ('["a.png", "cat"]', r"m\.jsonl:1: no JSON object"),
    ('{"image": "a.png", "label": "cat"}', r"m\.jsonl:1: no column 'path' among image, label; rename 'image'"),
    ('{"path": "a.png", "label": null}', r"m\.jsonl:1: no label"),
    ('{"path": "a.png", "label": true}', r"m\.jsonl:1: label True is no text"),
    ('{"path": 3, "label": "cat"}\n{"path": "b.png", "label": "dog"}', r"m\.jsonl:1: no path"),
]


@pytest.mark.parametrize(("content", "message"), JSONL_ERRORS)
def test_jsonl_errors_name_file_and_line(tmp_path, content, message):
    with pytest.raises(DataError, match=message):
        manifest(tmp_path, content, name="m.jsonl")


def test_missing_images_are_listed_at_once(tmp_path):
    lines = "".join(f"gone{i}.png,{'cat' if i % 2 else 'dog'}\n" for i in range(14))
    with pytest.raises(DataError) as e:
        manifest(tmp_path, "path,label\n" + lines)
    lines = str(e.value).splitlines()
    assert len(lines) == 12
    assert lines[0] == f"{tmp_path}/m.csv:2: {tmp_path}/gone0.png: no such file"
    assert lines[10] == "... and 4 more"
    assert "14 image files are missing" in lines[11]


def test_label_that_is_not_in_the_fixed_classes(tmp_path):
    with pytest.raises(DataError, match=r"m\.csv:3: class 'dgo' is not one of cat, dog; did you mean 'dog'\?"):
        manifest(tmp_path, "path,label\na.png,cat\nb.png,dgo\n", classes=["cat", "dog"])


def test_manifest_files_that_are_none(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        ManifestDataset(tmp_path / "m.csv")
    with pytest.raises(UsageError, match=r"give a \.csv or \.jsonl"):
        ManifestDataset(tmp_path / "m.xlsx")
    (tmp_path / "m.csv").write_bytes(b"path,label\na.png,caf\xe9\n")
    with pytest.raises(DataError, match=r"m\.csv:2: is not UTF-8"):
        ManifestDataset(tmp_path / "m.csv")


# --- shapes


def test_shapes_are_balanced_and_seeded():
    data = ShapesClassification(12, size=40)
    assert data.classes == SHAPES
    assert sorted(data.labels) == sorted([(i,) for i in range(6)] * 2)
    assert data.ids[11] == "shapes/000011"
    other = ShapesClassification(12, seed=1, size=40)
    assert not any((data[i].image == other[i].image).all() for i in range(12))


def test_shapes_of_several_labels():
    data = ShapesClassification(60, size=40, multilabel=True)
    assert {len(ids) for ids in data.labels} == {0, 1, 2, 3}
    assert ShapesClassification(2, size=40, channels=1)[0].image.shape == (1, 40, 40)


@pytest.mark.parametrize("options", [{"count": 0}, {"size": 8}, {"seed": -1}, {"channels": 5}])
def test_shapes_out_of_range(options):
    with pytest.raises(UsageError, match="shapes"):
        ShapesClassification(**({"count": 3} | options))


# --- splits


def test_own_split_folders(tmp_path):
    many(tmp_path / "train", cat=3, dog=2)
    many(tmp_path / "valid", dog=2)
    many(tmp_path / "test", cat=1)
    splits = find_splits(tmp_path)
    assert [len(s) for s in (splits.train, splits.val, splits.test)] == [5, 2, 1]
    assert splits.val.classes == ("cat", "dog")
    assert splits.val.labels == [(1,), (1,)]
    assert splits.source == f"train/ (5 images), valid/ (2 images), test/ (1 images) of {tmp_path}"


def test_automatic_split_of_class_folders(tmp_path):
    many(tmp_path, cat=10, dog=20)
    splits = find_splits(tmp_path, seed=3)
    assert splits.test is None
    assert len(splits.train) == 24
    assert sorted(splits.val.labels) == [(0,)] * 2 + [(1,)] * 4
    assert not set(splits.train.ids) & set(splits.val.ids)
    assert "24 for training, 6 for validation" in splits.source
    assert find_splits(tmp_path, seed=3).val.ids == splits.val.ids
    assert find_splits(tmp_path, seed=4).val.ids != splits.val.ids


def test_automatic_split_does_not_depend_on_the_place(tmp_path):
    a, b = many(tmp_path / "a", cat=9, dog=9), many(tmp_path / "b" / "c", cat=9, dog=9)
    assert [e.key for e in find_splits(a).val.entries] == [e.key for e in find_splits(b).val.entries]


def test_train_without_val_is_divided_and_test_stays(tmp_path):
    many(tmp_path / "train", cat=5, dog=5)
    many(tmp_path / "test", cat=1)
    splits = find_splits(tmp_path)
    assert [len(s) for s in (splits.train, splits.val, splits.test)] == [8, 2, 1]


def test_classes_named_like_splits(tmp_path):
    """COCO has a class ``train``."""
    assert find_splits(many(tmp_path, train=5, bus=5)).train.classes == ("bus", "train")


def test_manifest_with_its_own_split(tmp_path):
    rows = ["a.png,cat,train", "b.png,dog,train", "c.png,dog,val"]
    manifest(tmp_path, "path,label,split\n" + "\n".join(rows))
    for root in (tmp_path, tmp_path / "m.csv"):
        splits = find_splits(root)
        assert [len(splits.train), len(splits.val)] == [2, 1]
        assert splits.val.labels == [(1,)]
        assert "the split column of" in splits.source


def test_manifest_is_divided_by_groups(tmp_path):
    many(tmp_path / "images", all=40)
    rows = [f"images/all/{i:02d}.png,{'cat' if i % 2 else 'dog'},camera{i // 4}" for i in range(40)]
    splits = find_splits(text(tmp_path / "m.csv", "path,label,group\n" + "\n".join(rows)))
    assert not set(splits.train.groups) & set(splits.val.groups)
    assert len(splits.val) == 8
    assert "10 groups kept whole" in splits.source


def test_groups_on_both_sides_of_an_own_split_are_refused(tmp_path):
    content = "path,label,split,group\na.png,cat,train,x\nb.png,dog,train,y\nc.png,cat,val,x\n"
    manifest(tmp_path, content)
    with pytest.raises(DataError, match="group 'x' is in both train and val"):
        find_splits(tmp_path)


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_the_same_image_in_two_splits(tmp_path, link):
    many(tmp_path / "train", cat=2, dog=2)
    many(tmp_path / "val", cat=1)
    (tmp_path / "val" / "cat" / "00.png").unlink()
    link(tmp_path / "train" / "cat" / "01.png", tmp_path / "val" / "cat" / "00.png")
    message = (
        r"val/cat/00\.png, the same file as .*train/cat/01\.png is in both train and val, so the score would flatter"
    )
    with pytest.raises(DataError, match=message):
        find_splits(tmp_path)


def test_other_tables_beside_class_folders_are_no_manifest(tmp_path):
    text(many(tmp_path, cat=5, dog=5) / "attribution.csv", "file,author\ncat/00.png,me\n")
    assert len(find_splits(tmp_path).train) == 8


def test_val_classes_that_train_does_not_have(tmp_path):
    many(tmp_path / "train", cat=3, dog=2)
    many(tmp_path / "val", cat=1, eel=1, fox=1)
    with pytest.raises(DataError, match="val has classes that train does not have: eel, fox"):
        find_splits(tmp_path)
    (tmp_path / "m").mkdir()
    manifest(tmp_path / "m", "path,label,split\na.png,cat,train\nb.png,dog,train\nc.png,eel,val\n")
    with pytest.raises(DataError, match="val has classes that train does not have: eel"):
        find_splits(tmp_path / "m")


def test_evaluating_needs_no_training_images(tmp_path):
    many(tmp_path / "test", dog=2)
    splits = find_splits(tmp_path, classes=["cat", "dog"], need=("test",))
    assert splits.train is None
    assert splits.val is None
    assert splits.test.labels == [(1,), (1,)]
    with pytest.raises(
        UsageError, match=r"has no train split to take the class names from; add it or give a checkpoint"
    ):
        find_splits(tmp_path, need=("test",))
    with pytest.raises(DataError, match=r"there is no val split: test/ \(2 images\) of"):
        find_splits(tmp_path, classes=["cat", "dog"], need=("val",))


def test_drawn_shapes():
    splits = find_splits(None, seed=1)
    assert [len(splits.train), len(splits.val), splits.test] == [1200, 300, None]
    assert splits.source.startswith("drawn shapes")
    other = find_splits(None, seed=2)
    assert len({s.seed for s in (splits.train, splits.val, other.train, other.val)}) == 4
    assert find_splits(None, multilabel=True).train.multilabel
    with pytest.raises(UsageError, match="give the root of your images"):
        find_splits(None, classes=["cat", "dog"])


@pytest.mark.parametrize("fraction", [0, 1, -1, 2])
def test_val_fraction_out_of_range(tmp_path, fraction):
    with pytest.raises(UsageError, match="val_fraction"):
        find_splits(tmp_path, val_fraction=fraction)


def test_roots_that_are_none(tmp_path):
    with pytest.raises(DataError, match="no such folder or file"):
        find_splits(tmp_path / "nowhere")
    with pytest.raises(
        UsageError,
        match="is neither a folder nor a file of a known format; understood are a manifest .* and class folders",
    ):
        find_splits(text(tmp_path / "a.zip", "x"))
    with pytest.raises(UsageError, match="class folders give one label"):
        find_splits(many(tmp_path / "a", cat=2, dog=2), multilabel=True)
    both = many(tmp_path / "b" / "train", cat=2, dog=2).parent
    many(both / "val", cat=1)
    many(both / "valid", cat=1)
    with pytest.raises(DataError, match="has both val/ and valid/; keep one"):
        find_splits(both)
    images = write(tmp_path / "c", "a.png", "b.png")
    for name in ("m.csv", "n.csv"):
        text(images / name, "path,label\na.png,x\nb.png,y\n")
    with pytest.raises(UsageError, match=r"several manifests \(m.csv, n.csv\)"):
        find_splits(images)


def test_too_few_images_to_divide(tmp_path):
    with pytest.raises(DataError, match="no validation images can be set aside"):
        find_splits(many(tmp_path, cat=1, dog=1))
    content = "path,label,group\na.png,cat,x\nb.png,dog,x\nc.png,cat,x\n"
    (tmp_path / "m").mkdir()
    manifest(tmp_path / "m", content)
    with pytest.raises(DataError, match=r"all are in one group \(x\)"):
        find_splits(tmp_path / "m")


# --- real photos


def photos(name):
    folder = DATA / "classification" / name
    if not folder.is_dir():
        pytest.skip(f"no photos at {folder}; set VISIONKIT_TEST_DATA to the folder of the test data")
    return folder


def test_real_photos_with_their_own_split():
    splits = find_splits(photos("coco5"))
    assert [len(splits.train), len(splits.val)] == [65, 35]
    assert splits.train.classes == ("bird", "car", "cat", "dog", "person")
    assert all(s.image.shape[0] == 3 for s in (splits.val[i] for i in range(0, 35, 5)))


def test_real_photos_divided_automatically():
    splits = find_splits(photos("imagenette224") / "train")
    assert [len(splits.train), len(splits.val)] == [800, 200]
    assert all(splits.val.labels.count((i,)) == 20 for i in range(10))
    assert {tuple(splits.train[i].image.shape) for i in range(0, 800, 80)} == {(3, 224, 224)}


def test_a_key_that_stands_twice_in_a_line_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"m\.jsonl:1: no valid JSON \('label' comes twice\)"):
        manifest(tmp_path, '{"path": "a.png", "label": "x", "label": "y"}\n', "m.jsonl")


@pytest.mark.parametrize("mark", ["\0", "\x1b", "\x07"])
def test_control_characters_in_labels_are_named_with_their_line(tmp_path, mark):
    write(tmp_path, "a.png", "b.png")
    file = text(tmp_path / "m.csv", f"path,label\na.png,dog\nb.png,c{mark}at\n")
    with pytest.raises(DataError, match=r"m\.csv:3: the class name .* holds characters that are no text"):
        ManifestDataset(file)


@pytest.mark.parametrize("joined", ['"cat,dog"', "cat;dog", "cat | dog"])
@pytest.mark.parametrize("column", ["label", "labels"])
def test_several_labels_in_one_text(tmp_path, column, joined):
    write(tmp_path, "a.png", "b.png", "c.png")
    file = text(tmp_path / "m.csv", f"path,{column}\na.png,dog\nb.png,cat\nc.png,{joined}\n")
    if column == "labels" and "|" in joined:
        assert ManifestDataset(file).labels == [(1,), (0,), (0, 1)]
        return
    with pytest.raises(DataError, match=r"m\.csv:4: label .* is several of the other labels in one; write them into"):
        ManifestDataset(file)
    lonely = text(tmp_path / "m.csv", f"path,{column}\na.png,dog\nb.png,bird\nc.png,{joined}\n")
    assert len(ManifestDataset(lonely).classes) == 3
