import tempfile
from collections import Counter
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.pictures import colour_of
from visionkit.core.errors import DataError, UsageError
from visionkit.tasks.detection.readers.voc import VocDataset, voc_splits


def thing(name="cat", box=(1, 2, 11, 22), **tags):
    corners = "".join(f"<{t}>{v}</{t}>" for t, v in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
    more = "".join(f"<{t}>{v}</{t}>\n" for t, v in tags.items())
    return f"<object>\n<name>{escape(name)}</name>\n{more}<bndbox>{corners}</bndbox>\n</object>\n"


def xml(*objects, filename="a.png", size=(40, 30)):
    told = "" if size is None else f"<size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size>"
    return f"<annotation><filename>{filename}</filename>{told}\n{''.join(objects)}</annotation>\n"


def write(folder, images="JPEGImages", annotations="Annotations", **contents):
    for name, content in contents.items():
        (folder / annotations).mkdir(parents=True, exist_ok=True)
        (folder / images).mkdir(parents=True, exist_ok=True)
        (folder / annotations / f"{name}.xml").write_text(content, encoding="utf-8")
        Image.new("RGB", (40, 30), colour_of(folder / name)).save(folder / images / f"{name}.png")
    return folder


def lists(folder, **names):
    folder.mkdir(parents=True, exist_ok=True)
    for name, stems in names.items():
        (folder / f"{name}.txt").write_text("".join(f"{s}\n" for s in stems))


def test_boxes_names_and_difficult_objects(tmp_path):
    parts = "<part><name>head</name><bndbox><xmin>0</xmin></bndbox></part>"
    a = xml(
        thing(" dog\n", truncated=1, difficult=0),
        thing("cat", (0, 0, 5.5, 5), difficult=1),
        "<object>" + parts + thing()[8:],
    )
    write(tmp_path, a=a, b=xml(filename="b.png"))
    data = VocDataset(tmp_path)
    assert data.classes == ("cat", "dog")
    assert data.labels == [(0, 1), ()]
    assert data.ids == [str(tmp_path / "JPEGImages" / n) for n in ("a.png", "b.png")]
    assert [e.key for e in data.entries] == ["JPEGImages/a.png", "JPEGImages/b.png"]
    target = data[0].target
    assert target.boxes.tolist() == [[1, 2, 11, 22], [0, 0, 5.5, 5], [1, 2, 11, 22]]
    assert target.labels.tolist() == [1, 0, 0]
    assert target.crowd.tolist() == [False, True, False]
    assert target.areas.tolist() == [200, 27.5, 200]
    assert len(data[1].target) == 0


def test_wrong_boxes_are_reported_with_their_line(tmp_path):
    write(
        tmp_path,
        a=xml(
            thing(),
            thing(box=(5, 5, 5, 9)),
            thing(box=(1, 1, 90, 9)),
            thing(box=("nan", 1, 90, 9)),
            thing(box=(0, 0, 41, 31)),
        ),
    )
    data = VocDataset(tmp_path)
    file = tmp_path / "Annotations" / "a.xml"
    assert data.problems == [
        f"{file}:8: cat box 5, 5, 5, 9 has no area; dropped",
        f"{file}:12: cat box 1, 1, 90, 9 reaches out of the picture of 40 x 30; clipped to 1, 1, 40, 9",
        f"{file}:16: cat box nan, 1, 90, 9 has a coordinate that is no finite number; dropped",
    ]
    assert data[0].target.boxes.tolist() == [[1, 2, 11, 22], [1, 1, 40, 9], [0, 0, 40, 30]]


def test_classes_go_by_name(tmp_path):
    write(tmp_path, a=xml(thing("dog")))
    assert VocDataset(tmp_path, classes=["cat", "dog"]).labels == [(1,)]
    with pytest.raises(DataError) as e:
        VocDataset(tmp_path, classes=["cat", "dogs"])
    assert str(e.value) == (
        f"{tmp_path / 'Annotations' / 'a.xml'}:3: class 'dog' is not one of cat, dogs; did you mean 'dogs'?; rename or "
        "remove the object"
    )
    with pytest.raises(UsageError, match="is not a list"):
        VocDataset(tmp_path, classes=[])


BOMB = '<?xml version="1.0"?>\n<!DOCTYPE a [<!ENTITY b "bbbb"><!ENTITY c "&b;&b;&b;">]>\n<annotation>&c;</annotation>'
READS = '<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]>\n<annotation>&b;</annotation>'


@pytest.mark.parametrize(
    ("content", "line", "message"),
    [
        (xml().replace("</filename>", "\n</filenam>"), 2, "no valid XML (mismatched tag); correct the line, or write the file anew"),
        ("", 1, "no valid XML (no element found)"),
        (xml(thing())[:130], 4, "no valid XML (no element found)"),
        ("<annotation>\n<object>&nbsp;</object></annotation>", 2, "no valid XML (undefined entity)"),
        ('<?xml version="1.0" encoding="klingon"?><annotation/>', 1, "no valid XML"),
        (BOMB, 2, "declares a document type (<!DOCTYPE>), which is not read; remove it"),
        (READS, 1, "declares a document type"),
        ("\n<html></html>", 2, "<html> where Pascal VOC has <annotation>; remove the file"),
        (xml("<object>\n<bndbox/></object>"), 2, "an object without a name; write its class into <name>"),
        (xml("<object>\n<name> </name><bndbox/></object>"), 3, "an object without a name"),
        (xml("<object>\n<name>a</name></object>"), 2, "an object without <bndbox>; add its box or remove it"),
        (xml("<object>\n<name>a</name>\n<bndbox><xmin>1</xmin></bndbox></object>"), 4, "a box without <ymin>; add it"),
        (xml(thing(box=(1, "2px", 3, 4))), 4, "ymin is '2px', no number; correct it"),
    ],
)  # fmt: skip
def test_broken_files_are_named_with_their_line(tmp_path, content, line, message):
    write(tmp_path, a=content)
    with pytest.raises(DataError) as e:
        VocDataset(tmp_path)
    assert str(e.value).startswith(f"{tmp_path / 'Annotations' / 'a.xml'}:{line}: {message}")
    assert "\n" not in str(e.value)


def test_other_encodings(tmp_path):
    write(tmp_path, a=xml())
    text = '<?xml version="1.0" encoding="{}"?>' + xml(thing("Müller"))
    for encoding in ("utf-16", "iso-8859-1", "windows-1252", "utf-8-sig"):
        (tmp_path / "Annotations" / "a.xml").write_bytes(text.format(encoding.removesuffix("-sig")).encode(encoding))
        assert VocDataset(tmp_path).classes == ("Müller",)


@pytest.mark.parametrize("size", [None, (0, 0), ("", 30), (40, "x"), (40, "nan"), (40.5, 30)])
def test_size_is_taken_from_the_image_where_the_file_says_none(tmp_path, size):
    write(tmp_path, a=xml(thing(box=(1, 1, 90, 9)), size=size))
    data = VocDataset(tmp_path)
    assert data.entries[0].size is None
    assert len(data.problems) == 1
    assert data[0].target.boxes.tolist() == [[1, 1, 40, 9]]


@pytest.mark.parametrize("filename", ["a.png", "a", "", "other.jpg", "/old/disk/a.png", "C:\\old\\a.png"])
def test_images_are_found(tmp_path, filename):
    write(tmp_path, a=xml(filename=filename))
    assert VocDataset(tmp_path).ids == [str(tmp_path / "JPEGImages" / "a.png")]


def test_an_xml_file_belongs_to_the_image_of_its_own_name_else_to_its_file_name(tmp_path):
    write(tmp_path, a=xml(filename="b.png"))
    images = tmp_path / "JPEGImages"
    Image.new("RGB", (40, 30)).save(images / "b.png")
    assert VocDataset(tmp_path).ids == [str(images / "a.png")], "pictures and files were renamed together"
    Image.new("RGB", (40, 30)).save(images / "a.jpg")
    write(tmp_path, a=xml(filename="a.png"))
    assert VocDataset(tmp_path).ids == [str(images / "a.png")], "of two of its name, the one that it says"
    write(tmp_path, a=xml(filename="b.png"), c=xml(filename="b.png"))
    for name in ("a.png", "a.jpg", "c.png"):
        (images / name).unlink()
    with pytest.raises(DataError, match=r"c\.xml: its image .*b\.png is that of .*a\.xml too; correct <filename>"):
        VocDataset(tmp_path)


def test_missing_images(tmp_path):
    write(tmp_path, a=xml(), b=xml(filename="x.jpg"))
    (tmp_path / "JPEGImages" / "b.png").unlink()
    with pytest.raises(DataError) as e:
        VocDataset(tmp_path)
    assert str(e.value).splitlines() == [
        f"{tmp_path}/Annotations/b.xml: no image x.jpg",
        f"{tmp_path}: 1 image files are missing; looked in {tmp_path}/JPEGImages, {tmp_path}",
    ]


def test_lists_of_splits(tmp_path):
    write(tmp_path, **{n: xml(filename=f"{n}.png") for n in "abcd"})
    lists(
        tmp_path / "ImageSets" / "Main",
        train=["a", "", "b.png", "a"],
        val=["c  1"],
        trainval=["a", "b", "c"],
        cat_train=["x -1"],
    )
    assert set(voc_splits(tmp_path)) == {"train", "val"}
    assert [e.key[-5:] for e in VocDataset(tmp_path, "train").entries] == ["a.png", "b.png"]
    assert len(VocDataset(tmp_path, "val")) == 1
    assert len(VocDataset(tmp_path, "trainval")) == 3
    assert len(VocDataset(tmp_path)) == 4
    with pytest.raises(
        UsageError, match=r"no split 'test'; it needs a list ImageSets/Main/test\.txt or a folder test/"
    ):
        VocDataset(tmp_path, "test")
    lists(tmp_path / "ImageSets" / "Main", val=["c", "nowhere"])
    with pytest.raises(DataError) as e:
        VocDataset(tmp_path, "val")
    assert str(e.value) == (
        f"{tmp_path}/ImageSets/Main/val.txt:2: {tmp_path}/Annotations/nowhere.xml: no such file; add it or remove the line"
    )


def test_lists_beside_the_folders_and_trainval_alone(tmp_path):
    write(tmp_path, images="images", a=xml(), b=xml(filename="b.png"))
    lists(tmp_path, trainval=["a"], test=["images/b.png"])
    assert set(voc_splits(tmp_path)) == {"train", "test"}
    assert [e.key for e in VocDataset(tmp_path, "train").entries] == ["images/a.png"]
    assert [e.key for e in VocDataset(tmp_path, "test").entries] == ["images/b.png"]


def test_xml_files_beside_their_images(tmp_path):
    for name in ("train", "valid", "test"):
        write(tmp_path, images=name, annotations=name, a=xml(thing()))
    assert voc_splits(tmp_path) == {"train": tmp_path / "train", "val": tmp_path / "valid", "test": tmp_path / "test"}
    assert VocDataset(tmp_path, "val").ids == [str(tmp_path / "valid" / "a.png")]
    assert [e.key for e in VocDataset(tmp_path, "val").entries] == ["valid/a.png"]
    assert VocDataset(tmp_path / "train").ids == [str(tmp_path / "train" / "a.png")]
    write(tmp_path, images="val", annotations="val", a=xml(thing()))
    with pytest.raises(DataError, match="has both val/ and valid/; keep one"):
        voc_splits(tmp_path)


def test_folders_that_are_not_voc(tmp_path):
    assert voc_splits(tmp_path) == {}
    with pytest.raises(DataError, match=r"holds no XML files of Pascal VOC; it needs Annotations/\*\.xml"):
        VocDataset(tmp_path)
    with pytest.raises(DataError, match="nowhere: no such folder; give the folder that holds Annotations/"):
        VocDataset(tmp_path / "nowhere")
    (tmp_path / "project.xml").write_text("<project/>")
    assert voc_splits(tmp_path) == {}


side = st.integers(8, 3000)
share = st.floats(0, 1)


@settings(max_examples=60)
@given(data=st.data())
def test_random_boxes_come_back(data):
    names = st.text("abc<&>ü ", min_size=1).map(str.strip).filter(bool)
    truth, contents = {}, {}
    for stem in data.draw(st.lists(st.text("xyz1.", min_size=1), min_size=1, max_size=4, unique=True)):
        w, h = data.draw(side), data.draw(side)
        truth[f"i{stem}"] = rows = []
        for a, b, c, d, k in data.draw(st.lists(st.tuples(share, share, share, share, names), max_size=5)):
            x, y = a * (w - 2), b * (h - 2)
            rows.append((k, [x, y, x + 1 + c * (w - x - 1), y + 1 + d * (h - y - 1)], (h, w)))
        contents[f"i{stem}"] = xml(*(thing(k, box) for k, box, _ in rows), filename=f"i{stem}.png", size=(w, h))
    with tempfile.TemporaryDirectory() as folder:
        for stem, content in contents.items():
            Path(folder, f"{stem}.xml").write_text(content, encoding="utf-8")
            Path(folder, f"{stem}.png").touch()
        read = VocDataset(folder)
    assert read.classes == tuple(sorted({k for rows in truth.values() for k, _, _ in rows}))
    assert read.problems == []
    assert len(read) == len(truth)
    for entry in read.entries:
        rows = truth[Path(entry.id).name.removesuffix(".png")]
        target = entry.target(entry.size)
        assert [read.classes[k] for k in target.labels] == [k for k, _, _ in rows]
        assert np.abs(target.boxes.numpy() - np.array([b for _, b, _ in rows]).reshape(-1, 4)).max(initial=0) < 1e-3


def test_real_blood_cells(data_root):
    folder = data_root / "detection" / "bccd"
    parts = {s: VocDataset(folder, s) for s in ("train", "val", "test")}
    assert {s: len(p) for s, p in parts.items()} == {"train": 205, "val": 87, "test": 72}
    counts = Counter()
    for part in parts.values():
        for e in part.entries:
            counts.update(part.classes[int(k)] for k in e.objects[:, 4])
            assert e.size == (480, 640)
    assert counts == {"RBC": 4155 - 2, "WBC": 372, "Platelets": 361}
    assert [p for part in parts.values() for p in part.problems] == [
        f"{folder}/Annotations/BloodImage_00343.xml:55: RBC box 181, 329, 181, 329 has no area; dropped",
        f"{folder}/Annotations/BloodImage_00338.xml:163: RBC box 504, 337, 504, 337 has no area; dropped",
    ]
    for where in (p.split(": ")[0] for part in parts.values() for p in part.problems):
        file, line = where.rsplit(":", 1)
        assert Path(file).read_text().splitlines()[int(line) - 1].strip() == "<bndbox>"
    sample = parts["val"][0]
    assert sample.image.shape == (3, 480, 640)
    assert len(sample.target) > 0


def test_two_lists_of_one_split_are_refused(tmp_path):
    write(tmp_path, a=xml(thing()), b=xml(thing(), filename="b.png"))
    lists(tmp_path / "ImageSets" / "Main", val=["a", "a"], valid=["b"])
    with pytest.raises(DataError, match=r"Main: has both val\.txt and valid\.txt; keep one"):
        voc_splits(tmp_path)
    (tmp_path / "ImageSets" / "Main" / "valid.txt").unlink()
    assert len(VocDataset(tmp_path, "val")) == 1
