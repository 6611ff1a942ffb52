import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.pictures import colour_of
from visionkit.core.errors import DataError, UsageError
from visionkit.data.labels.coco_files import coco_files
from visionkit.tasks.detection.readers.coco import CocoDataset

CATS = [{"id": 3, "name": "cat"}, {"id": 1, "name": "dog"}]


def image(i=1, name="a.png", **more):
    return {"id": i, "file_name": name, "width": 40, "height": 30, **more}


def note(i=1, image_id=1, category_id=3, **more):
    return {"id": i, "image_id": image_id, "category_id": category_id, "bbox": [1, 2, 10, 20], **more}


def write(folder, images, annotations, categories=CATS, *, file="a.json", touch=True):
    file = folder / file
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    for record in images if touch else ():
        path = folder / record["file_name"]
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30), colour_of(path)).save(path)
    return file


def boxes(data, i=0):
    return data.entries[i].target((30, 40)).boxes.tolist()


def test_boxes_names_crowds_and_areas(tmp_path):
    notes = [
        note(7, category_id=1, area=55.5, iscrowd=0),
        note(8, category_id=3, iscrowd=1, area=float("nan"), segmentation={"counts": "x", "size": [30, 40]}),
        note(9, image_id=2, bbox=[0, 0, 5, 5], area=-1),
    ]
    data = CocoDataset(write(tmp_path, [image(), image(2, "b.png"), image(5, "c.png")], notes))
    assert data.classes == ("dog", "cat")
    assert data.labels == [(0,), (1,), ()]
    sample = data[0]
    assert sample.target.boxes.tolist() == [[1, 2, 11, 22]] * 2
    assert sample.target.labels.tolist() == [0, 1]
    assert sample.target.crowd.tolist() == [False, True]
    assert sample.target.areas.tolist() == [55.5, 200]
    assert data[1].target.areas.tolist() == [25]
    assert [data[i].info.extra["image_id"] for i in range(3)] == [1, 2, 5]
    assert [e.key for e in data.entries] == ["a.png", "b.png", "c.png"]
    assert data.problems == []


def test_classes_go_by_name(tmp_path):
    file = write(tmp_path, [image()], [note(category_id=1)])
    assert CocoDataset(file, classes=["eel", "cat", "dog"]).labels == [(2,)]
    assert CocoDataset(file, classes=["dog"]).labels == [(0,)]  # the file's cat has no boxes
    with pytest.raises(DataError) as e:
        CocoDataset(file, classes=["cat", "dogs"])
    assert str(e.value) == (
        f"{file}: annotation 1 (annotations[0]): class 'dog' is not one of cat, dogs; did you mean 'dogs'?; rename the "
        "category or remove its boxes"
    )
    with pytest.raises(UsageError, match="cat comes twice"):
        CocoDataset(file, classes=["cat", "cat"])


def test_supercategory_of_roboflow_is_no_class_where_it_has_no_boxes(tmp_path):
    cats = [{"id": 0, "name": "pets", "supercategory": "none"}, {"id": 1, "name": "cat", "supercategory": "pets"}]
    assert CocoDataset(write(tmp_path, [image()], [note(category_id=1)], cats)).classes == ("cat",)
    used = write(tmp_path, [image()], [note(category_id=1), note(2, category_id=0)], cats)
    assert CocoDataset(used).classes == ("pets", "cat")
    own = [{"id": 0, "name": "person", "supercategory": "person"}, {"id": 1, "name": "cat", "supercategory": "animal"}]
    assert CocoDataset(write(tmp_path, [image()], [note(category_id=1)], own)).classes == ("person", "cat")
    later = [{"id": 5, "name": "pets", "supercategory": "none"}, {"id": 1, "name": "cat", "supercategory": "pets"}]
    assert CocoDataset(write(tmp_path, [image()], [note(category_id=1)], later)).classes == ("cat", "pets")


def test_wrong_boxes_are_reported_with_the_annotation(tmp_path):
    notes = [
        note(11, bbox=[5, 5, 0, 9]), note(12, bbox=[30, 5, 50, 9]), note(13, bbox=[float("nan"), 5, 50, 9]),
        note(14, bbox=[10**400, 5, 5, 9]), note(15, bbox=[], segmentation=[[1, 2, 9, 2, 9, 8], [3, 12, 4, 2, 5, 5]]),
        note(16, bbox=None, segmentation={"counts": [1], "size": [30, 40]}), note(None, bbox=None),
    ]  # fmt: skip
    file = write(tmp_path, [image()], notes)
    data = CocoDataset(file)
    assert boxes(data) == [[30, 5, 40, 14], [1, 2, 9, 12]]
    assert sorted(data.problems) == sorted(
        f"{file}: {text}"
        for text in (
            "annotation 11 (annotations[0]): cat box 5, 5, 5, 14 has no area; dropped",
            "annotation 12 (annotations[1]): cat box 30, 5, 80, 14 reaches out of the picture of 40 x 30; clipped to 30, 5, 40, 14",
            "annotation 13 (annotations[2]): cat box nan, 5, nan, 14 has a coordinate that is no finite number; dropped",
            "annotation 14 (annotations[3]): cat box inf, 5, inf, 14 has a coordinate that is no finite number; dropped",
            "annotation 16 (annotations[5]): no bbox and only a run-length mask; dropped",
            "annotations[6]: no bbox and no polygon either; dropped",
        )
    )


@pytest.mark.parametrize(
    ("images", "notes", "cats", "message"),
    [
        ([image(), image(1, "b.png")], [], CATS, r"images\[1\]: id 1 is that of a\.png too; give each image its own id"),
        ([image(), image(2)], [], CATS, r"images\[1\]: a\.png is the file of another image too"),
        ([{"file_name": "a.png"}], [], CATS, r"images\[0\]: has no id; add it"),
        ([{"id": 1, "file_name": None}], [], CATS, r"images\[0\]: file_name is None"),
        ([image()], [note(image_id=9)], CATS, r"annotation 1 \(annotations\[0\]\): image_id 9 is not the id of one of the images"),
        ([image()], [note(image_id="01")], CATS, r"annotation 1 \(annotations\[0\]\): image_id '01' is not the id"),
        ([image()], [note(image_id=None)], CATS, r"annotation 1 \(annotations\[0\]\): has no image_id; add it"),
        ([image()], [note(category_id=2)], CATS, r"annotation 1 \(annotations\[0\]\): category_id 2 is not the id of one of the cat"),
        ([image()], [note(category_id=[1])], CATS, r"annotation 1 \(annotations\[0\]\): category_id is \[1\]; give a whole number"),
        ([image()], [note(bbox=[1, 2, 3])], CATS, r"annotation 1 \(annotations\[0\]\): bbox is \[1, 2, 3\]; give four numbers"),
        ([image()], [note(bbox=[1, 2, 3, "4x"])], CATS, r"annotation 1 \(annotations\[0\]\): bbox is"),
        ([image()], [note(bbox=None, segmentation=[[1, 2, 3]])], CATS, r"annotation 1 \(annotations\[0\]\): segmentation is no list"),
        ([image()], [], [*CATS, {"id": 9, "name": "cat"}], r"categories\[2\]: 'cat' has id 9 and id 3; keep one"),
        ([image()], [], [*CATS, {"id": 1, "name": "eel"}], r"categories\[2\]: id 1 is that of 'dog' too"),
        ([image()], [], [{"id": 1}], r"categories\[0\]: name is None; give the category a name"),
        ([image()], [], [], "has no categories; list the classes there"),
    ],
)  # fmt: skip
def test_what_disagrees_is_named(tmp_path, images, notes, cats, message):
    file = write(tmp_path, images, notes, cats, touch=False)
    (tmp_path / "a.png").touch()
    with pytest.raises(DataError, match=message) as e:
        CocoDataset(file)
    assert str(e.value).startswith(f"{file}: ")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"images": [],\n"annotations": [', r"a\.json:2: no valid JSON \(Expecting value at column 17\); the file may be cut"),
        (b"", r"a\.json:1: no valid JSON"),
        (b'{"images":\n"\xff"}', r"a\.json:2: is not UTF-8 text"),
        (b"[" * 100_000, r"a\.json:1: no valid JSON \(nested too deep"),
        (b'[{"image_id": 1}]', r"a\.json: holds a list, no COCO data set; give a file with images, annotations, categories"),
        (b'{"images": [], "categories": {}}', r"a\.json: is no COCO data set, it lacks the list\(s\) annotations, categories;"),
        (b'{"images": [1], "categories": [], "annotations": []}', r"a\.json: images\[0\] is 1, no object"),
    ],
)  # fmt: skip
def test_broken_files(tmp_path, content, message):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(DataError, match=message):
        CocoDataset(tmp_path / "a.json")
    with pytest.raises(DataError, match=r"b\.json: no such file"):
        CocoDataset(tmp_path / "b.json")


@pytest.mark.parametrize(
    ("json_at", "image_at", "name"),
    [
        ("train/_annotations.coco.json", "train/a.png", "a.png"),
        ("annotations/instances_train2017.json", "images/train2017/a.png", "a.png"),
        ("annotations/instances_train2017.json", "train2017/a.png", "a.png"),
        ("annotations/train.json", "images/a.png", "a.png"),
        ("annotations/val.json", "images/valid/a.png", "a.png"),
        ("train.json", "images/train/a.png", "a.png"),
        ("train.json", "train/a.png", "a.png"),
        ("a.json", "images/x/a.png", "x/a.png"),
        ("a.json", "images/a.png", "/old/disk/a.png"),
        ("a.json", "images/x/a.png", "x\\a.png"),
        ("a.json", "a.png", "C:\\old\\a.png"),
    ],
)
def test_images_are_found(tmp_path, monkeypatch, json_at, image_at, name):
    file = write(tmp_path, [image(name=name)], [note()], file=json_at, touch=False)
    (tmp_path / image_at).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / image_at).touch()
    assert CocoDataset(file).ids == [str(tmp_path / image_at)]
    monkeypatch.chdir(file.parent)
    assert Path(CocoDataset(file.name).ids[0]).resolve() == tmp_path / image_at
    assert CocoDataset(file.name).entries[0].key == CocoDataset(file).entries[0].key
    elsewhere = CocoDataset(file, (tmp_path / image_at).parent)
    assert (elsewhere.ids, elsewhere.entries[0].key) == ([str(tmp_path / image_at)], "a.png")


def test_missing_images_are_named_and_counted(tmp_path):
    file = write(tmp_path, [image(i, f"{i}.png") for i in range(3)], [], touch=False)
    (tmp_path / "1.png").touch()
    with pytest.raises(DataError) as e:
        CocoDataset(file)
    lines = str(e.value).splitlines()
    assert lines[:2] == ["0.png: no such file", "2.png: no such file"]
    assert lines[2].startswith(f"{file}: 2 image files are missing; looked in {tmp_path}")


def test_image_without_a_size(tmp_path):
    file = write(tmp_path, [{"id": 1, "file_name": "a.png", "width": 0}], [note(bbox=[30, 5, 50, 9])])
    data = CocoDataset(file)
    assert data[0].target.boxes.tolist() == [[30, 5, 40, 14]]
    assert len(data.problems) == 1


def test_image_of_another_size(tmp_path):
    data = CocoDataset(write(tmp_path, [image(width=80, height=60)], [note()]))
    with pytest.raises(DataError, match=r"a\.png: is 40 x 30 pixels, but .*a\.json says 80 x 60"):
        data[0]


def test_json_files_of_a_folder(tmp_path):
    names = ["instances_train2017", "instances_val2017", "captions_train2017", "person_keypoints_val2017", "all_of_it"]
    for n in names:
        write(tmp_path, [], [], file=f"annotations/{n}.json")
    (tmp_path / "annotations" / "test_info.json").write_text("{}")
    assert {k: f.stem for k, f in coco_files(tmp_path).items()} == {"train": names[0], "val": names[1]}
    write(tmp_path, [], [], file="annotations/train_b.json")
    with pytest.raises(
        UsageError, match=r"several COCO JSON files for the same images \(instances_train2017\.json, train_b\.json"
    ):
        coco_files(tmp_path)
    for n in ("train", "valid", "test"):
        write(tmp_path / "r", [], [], file=f"{n}/_annotations.coco.json")
    assert {k: f.parent.name for k, f in coco_files(tmp_path / "r").items()} == {
        "train": "train",
        "val": "valid",
        "test": "test",
    }
    write(tmp_path / "s", [], [], file="labels.json")
    assert coco_files(tmp_path / "s") == {"": tmp_path / "s" / "labels.json"}
    write(tmp_path / "t", [], [], file="annotations/trainval.json")
    write(tmp_path / "t", [], [], file="annotations/test.json")
    assert {k: f.stem for k, f in coco_files(tmp_path / "t").items()} == {"train": "trainval", "test": "test"}


side = st.integers(8, 3000)
share = st.floats(0, 1)


@settings(max_examples=60)
@given(data=st.data())
def test_random_boxes_come_back_whatever_the_ids(data):
    names = data.draw(
        st.lists(st.text("abcdefg ü", min_size=1).map(str.strip).filter(bool), min_size=1, max_size=5, unique=True)
    )
    ids = data.draw(st.lists(st.integers(0, 99), min_size=len(names), max_size=len(names), unique=True))
    cats = data.draw(st.permutations([{"id": i, "name": n} for i, n in zip(ids, names, strict=True)]))
    truth, images, notes = {}, [], []
    for image_id in data.draw(st.lists(st.integers(0, 10**6), min_size=1, max_size=4, unique=True)):
        w, h = data.draw(side), data.draw(side)
        images.append({"id": image_id, "file_name": f"{image_id}.png", "width": w, "height": h})
        truth[image_id] = []
        for a, b, c, d, k in data.draw(
            st.lists(st.tuples(share, share, share, share, st.sampled_from(names)), max_size=5)
        ):
            x, y = a * (w - 2), b * (h - 2)
            bw, bh = 1 + c * (w - x - 1), 1 + d * (h - y - 1)
            truth[image_id].append((k, [x, y, x + bw, y + bh]))
            notes.append(
                {"id": len(notes), "image_id": image_id, "category_id": ids[names.index(k)], "bbox": [x, y, bw, bh]}
            )
    order = data.draw(st.permutations(notes))
    with tempfile.TemporaryDirectory() as folder:
        for record in images:
            (Path(folder) / record["file_name"]).touch()
        read = CocoDataset(write(Path(folder), images, order, cats, touch=False))
    assert read.classes == tuple(n for _, n in sorted(zip(ids, names, strict=True)))
    assert read.problems == []
    for entry, record in zip(read.entries, sorted(images, key=lambda r: r["file_name"]), strict=True):
        target = entry.target((record["height"], record["width"]))
        got = sorted((read.classes[k], b) for k, b in zip(target.labels.tolist(), target.boxes.tolist(), strict=True))
        want = sorted(truth[record["id"]])
        assert sorted(g[0] for g in got) == sorted(w[0] for w in want)
        for name in set(read.classes):
            mine = np.array([b for k, b in got if k == name]).reshape(-1, 4)
            theirs = np.array([b for k, b in want if k == name]).reshape(-1, 4)
            gaps = np.abs(mine[:, None] - theirs[None]).max(-1)
            assert (gaps.min(0, initial=1) < 1e-3).all()
            assert (gaps.min(1, initial=1) < 1e-3).all()


def test_ids_change_nothing_but_the_order_of_the_classes(tmp_path):
    """Ids from 1, with gaps or shuffled, images in any order: the same images and boxes; given classes, the same all."""
    rng = np.random.default_rng(0)
    names = ["dog", "cat", "eel"]
    truth = {
        f"{k}.png": [(names[int(rng.integers(3))], rng.integers(1, 9, 4).tolist()) for _ in range(5)] for k in "cab"
    }
    found = []
    for turn, numbers in enumerate(((1, 2, 3), (4, 17, 90), (7, 2, 5))):
        image_ids = dict(zip(truth, (rng.permutation(50)[:3] + 1).tolist() if turn else (1, 2, 3), strict=True))
        class_ids = dict(zip(names, numbers, strict=True))
        files = list(truth) if turn != 1 else list(truth)[::-1]
        images = [{"id": image_ids[f], "file_name": f, "width": 40, "height": 30} for f in files]
        notes = [
            {"id": 100 * turn + k, "image_id": image_ids[f], "category_id": class_ids[n], "bbox": b}
            for f, boxes in truth.items()
            for k, (n, b) in enumerate(boxes)
        ]
        cats = [{"id": class_ids[n], "name": n} for n in names[:: -1 if turn else 1]]
        file = write(tmp_path, images, notes, cats)
        assert CocoDataset(file).classes == tuple(sorted(names, key=class_ids.get))
        found.append(CocoDataset(file, classes=names))
    for other in found[1:]:
        assert other.ids == found[0].ids
        for a, b in zip(other.entries, found[0].entries, strict=True):
            assert a.objects.tolist() == b.objects.tolist()


@pytest.mark.parametrize(("name", "objects", "crowds"), [("instances_train2017", 939, 10), ("boxes_val2017", 898, 0)])
def test_real_photos_agree_with_pycocotools(data_root, capsys, name, objects, crowds):
    pytest.importorskip("pycocotools")
    from pycocotools.coco import COCO

    file = data_root / "coco128" / "annotations" / f"{name}.json"
    data, other = CocoDataset(file), COCO(str(file))
    assert len(data) == 128
    assert data.problems == []
    assert sum(len(e.objects) for e in data.entries) == objects
    assert sum(int(e.objects[:, 5].sum()) for e in data.entries) == crowds
    for entry in data.entries:
        record = other.loadImgs(entry.extra["image_id"])[0]
        assert Path(entry.id).name == record["file_name"]
        assert entry.size == (record["height"], record["width"])
        notes = other.loadAnns(other.getAnnIds(imgIds=record["id"]))
        target = entry.target(entry.size)
        assert [data.classes[k] for k in target.labels] == [other.loadCats(n["category_id"])[0]["name"] for n in notes]
        assert target.crowd.tolist() == [bool(n["iscrowd"]) for n in notes]
        want = np.array([n["bbox"] for n in notes]).reshape(-1, 4)
        want[:, 2:] += want[:, :2]
        assert np.abs(target.boxes.numpy() - want).max(initial=0) < 0.02  # COCO's boxes reach out by rounding
        assert np.allclose(target.areas, [n["area"] for n in notes])


def test_photos_without_objects_are_part_of_it(data_root):
    data = CocoDataset(data_root / "coco128" / "annotations" / "instances_train2017.json")
    empty = [i for i, e in enumerate(data.entries) if e.extra["image_id"] in (250, 508)]
    assert [len(data.entries[i].objects) for i in empty] == [0, 0]
    assert [len(data[i].target) for i in empty] == [0, 0]
    assert [i for i, e in enumerate(data.entries) if not len(e.objects)] == empty


SQUARE = [[20, 20, 30, 20, 30, 28, 20, 28]]


@pytest.mark.parametrize("masks", [False, True])
def test_what_is_apart_from_its_outline_is_ignored_in_both_places(tmp_path, masks):
    fits = note(2, segmentation=[[1, 2, 11, 2, 11, 22, 1, 22]])
    file = write(
        tmp_path,
        [image()],
        [note(1, segmentation=SQUARE), fits, note(3, image_id=1, segmentation=SQUARE, bbox=[20, 20, 9, 9])],
    )
    data = CocoDataset(file, masks=masks)
    target = data[0].target
    assert target.crowd.tolist() == [True, True, False, False]
    assert target.boxes.tolist() == [[1, 2, 11, 22], [20, 20, 30, 28], [1, 2, 11, 22], [20, 20, 29, 29]]
    assert [p.partition("; ")[2] for p in data.problems] == ["correct it; ignored"]
    with pytest.raises(DataError, match=r"annotation 1 .*do not touch.*, as it is with 1 of 1 annotations"):
        CocoDataset(write(tmp_path, [image()], [note(1, segmentation=SQUARE)]), masks=masks)


def test_repeated_annotations_are_told(tmp_path):
    data = CocoDataset(write(tmp_path, [image()], [note(), note()]))
    assert len(data[0].target) == 1
    assert "the same annotation as" in data.problems[0]


@pytest.mark.parametrize(("degrees", "box"), [(0, [1, 2, 11, 22]), (90.0, [-4, 7, 16, 17]), ("90", [-4, 7, 16, 17])])
def test_a_turned_box_becomes_the_one_around_it(tmp_path, degrees, box):
    turned = note(attributes={"occluded": False, "rotation": degrees}, segmentation=[])
    found = boxes(CocoDataset(write(tmp_path, [image()], [turned])))
    assert np.allclose(found, [np.clip(box, 0, None)])
