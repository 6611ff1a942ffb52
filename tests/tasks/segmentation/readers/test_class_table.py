import contextlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from visionkit.core.errors import DataError, UsageError
from visionkit.tasks.segmentation.readers.builtin_tables import CITYSCAPES_IDS, CITYSCAPES_TRAIN_IDS, VOC
from visionkit.tasks.segmentation.readers.class_table import ClassRow, find_table, read_table

PLAIN = [ClassRow(0, "background"), ClassRow(1, "traffic light"), ClassRow(2, "road")]
SPARSE = [ClassRow(0, "background"), ClassRow(7, "traffic light"), ClassRow(300, "road")]
COLOURED = [
    ClassRow(0, "background", (0, 0, 0)),
    ClassRow(1, "traffic light", (1, 2, 3)),
    ClassRow(2, "road", (128, 64, 255)),
]


@pytest.mark.parametrize(
    ("name", "text", "rows"),
    [
        ("classes.txt", "background\ntraffic light\nroad\n", PLAIN),
        ("classes.txt", "\ufeffbackground\r\ntraffic light\r\nroad\r\n\r\n", PLAIN),
        ("labels.txt", "__ignore__\nbackground\ntraffic light\nroad\n", PLAIN),
        ("classes.txt", "0 background\n7 traffic light\n300 road", SPARSE),
        ("classes.txt", "# all of them\n300\troad\n\n0\tbackground\n7\ttraffic light", SPARSE),
        ("classes.txt", "0: background\n7: traffic light\n300 : road", SPARSE),
        ("classes.txt", "0,background\n7, traffic light\n300,road", SPARSE),
        ("classes.csv", "0,background\n7,traffic light\n300,road", SPARSE),
        ("label_colors.txt", "0 0 0\t\tbackground\n1 2 3\ttraffic light\n128 64 255 road", COLOURED),
        ("label_colors.txt", "background 0 0 0\ntraffic light 1 2 3\nroad 128 64 255", COLOURED),
        ("classes.txt", "0 0 0 0 background\n1 1 2 3 traffic light\n2 128 64 255 road", COLOURED),
        ("classes.txt", "0 background 0 0 0\n1 traffic light 1 2 3\n2 road 128 64 255", COLOURED),
        ("labelmap.txt", "# label:color_rgb:parts:actions\nbackground:0,0,0::\ntraffic light:1,2,3::\nroad:128,64,255::", COLOURED),
        ("class_dict.csv", "name,r,g,b\nbackground,0,0,0\ntraffic light,1,2,3\nroad,128,64,255\n", COLOURED),
        ("class_dict.csv", "name, r, g, b\r\nbackground, 0, 0, 0\r\n traffic light ,1,2,3\r\n\r\nroad,128,64,255", COLOURED),
        ("class_dict.csv", "id,Name,Red,Green,Blue\n2,road,128,64,255\n0,background,0,0,0\n1,traffic light,1,2,3", COLOURED),
        ("class_dict.csv", "Class Name;R;G;B\nbackground;0;0;0\n\"traffic light\";1;2;3\nroad;128;64;255", COLOURED),
        ("class_dict.csv", "name,id\nbackground,0\ntraffic light,7\nroad,300", SPARSE),
        ("classes.json", ["background", "traffic light", "road"], PLAIN),
        ("classes.json", {"background": 0, "road": 300, "traffic light": 7}, SPARSE),
        ("classes.json", {"0": "background", "7": "traffic light", "300": "road"}, SPARSE),
        ("classes.json", {"background": [0, 0, 0], "traffic light": [1, 2, 3], "road": [128, 64, 255]}, COLOURED),
        ("classes.json", [{"id": 0, "name": "background", "color": [0, 0, 0]}, {"id": 1, "name": "traffic light", "colour": [1, 2, 3]}, {"id": 2, "name": "road", "color": "#8040ff"}], COLOURED),
        ("classes.json", [{"name": "background"}, {"id": 7, "name": "traffic light"}, {"id": 300, "name": "road"}], SPARSE),
    ],
)  # fmt: skip
def test_every_way_to_write_it(tmp_path, name, text, rows):
    file = tmp_path / name
    file.write_text(text if isinstance(text, str) else json.dumps(text), encoding="utf-8")
    table = read_table(file)
    assert list(table.rows) == rows
    assert table.source == str(file)
    assert table.coloured == (rows == COLOURED)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("classes.txt", "", ": names no classes; write a line for each, such as `0 background`"),
        ("classes.txt", "cat\n\ndog", ":2: an empty line; write the name of the class, or `id name` in each line"),
        ("classes.txt", "cat\n3 wheeler\ndog", ":1: 'cat' is not written as line 2, '3 wheeler'; write all lines alike, such as `0 background`"),
        ("classes.txt", "0 cat\n1 dog\nbird", ":3: 'bird' is not written as line 1, '0 cat'; write all lines alike, such as `0 background`"),
        ("classes.txt", "0 cat\n1 dog\n0 bird", ":3: id 0 is that of 'cat' too; give each class its own id"),
        ("classes.txt", "0 cat\n70000 dog", ":2: id 70000 of 'dog' is above 65535; correct it"),
        ("label_colors.txt", "1 2 3 cat\n1 256 3 dog", ":2: the colour 1 256 3 is not within 0..255; correct it"),
        ("class_dict.csv", "name,r,g,b\ncat,1,2", ":2: has 3 of 4 columns; add the others"),
        ("class_dict.csv", "name,r,g,b\n,1,2,3", ":2: has no name; add it"),
        ("class_dict.csv", "name,r,g,b\ncat,1,x,3", ":2: 'x' is no whole number of 0 or more; correct it"),
        ("class_dict.csv", "name,r,g,b\n", ": names no classes; write a line for each, such as `0 background`"),
        ("classes.json", '["cat",\n"dog" 3]', ":2: no valid JSON (Expecting ',' delimiter at column 7); correct it"),
        ("classes.json", '{"0": "cat", "0": "dog"}', ": no valid JSON ('0' comes twice); correct it"),
        ("classes.json", "3", ': holds no class names; write a list such as ["background", "road"]'),
        ("classes.json", "{}", ': holds no class names; write a list such as ["background", "road"]'),
        ("classes.json", '["cat", 3]', ": [1]: is 3, no name and no object with a name; correct it"),
        ("classes.json", '{"cat": 0, "dog": "x"}', ": 'dog': id is 'x'; give a whole number of 0 or more"),
        ("classes.json", '{"cat": true}', ": 'cat': id is True; give a whole number of 0 or more"),
        ("classes.json", '[{"name": "cat", "color": [1, 2]}]', ": [0]: color is [1, 2]; give [red, green, blue], 0..255 each"),
        ("classes.json", '[{"name": "cat", "color": [1, 2, 300]}]', ": [0]: the colour 1 2 300 is not within 0..255; correct it"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_the_line(tmp_path, name, text, message):
    file = tmp_path / name
    file.write_text(text)
    with pytest.raises(DataError) as e:
        read_table(file)
    assert str(e.value) == f"{file}{message}"


@settings(max_examples=300)
@given(
    st.sampled_from(["a.txt", "a.csv", "a.json"]), st.text('ab1٣²9 ,:;#\t\n"[]{}-.e_\0\r', max_size=60), st.booleans()
)
def test_anything_is_a_table_or_a_data_error(tmp_path_factory, name, text, headed):
    file = tmp_path_factory.mktemp("t") / name
    file.write_bytes((("name,r,g,b\n" if headed else "") + text).encode())
    with contextlib.suppress(DataError):  # nothing else
        table = read_table(file)
        assert len({r.id for r in table.rows}) == len(table.rows) > 0
        assert all(r.name.strip() for r in table.rows)


def test_a_missing_file(tmp_path):
    with pytest.raises(DataError, match="nothing.txt: no such file; check the path"):
        read_table(tmp_path / "nothing.txt")


def test_the_nearest_folder_is_read(tmp_path):
    below = tmp_path / "masks"
    below.mkdir()
    assert find_table([below, tmp_path]) is None
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    assert find_table([below, tmp_path]).source == str(tmp_path / "classes.txt")
    (below / "labels.txt").write_text("bird\n")
    assert find_table([below, tmp_path]).source == str(below / "labels.txt")


def test_several_files_in_one_folder(tmp_path):
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    (tmp_path / "label_colors.txt").write_text("1 2 3 cat\n4 5 6 dog\n")
    assert find_table([tmp_path]).source == str(tmp_path / "label_colors.txt")  # says the same and knows more
    (tmp_path / "classes.txt").write_text("dog\ncat\n")
    with pytest.raises(UsageError) as e:
        find_table([tmp_path])
    assert str(e.value) == (
        f"{tmp_path}: several files name the classes differently (classes.txt, label_colors.txt); keep one of them"
    )
    (tmp_path / "semantic_classes.txt").write_text("3 cat\n")
    assert find_table([tmp_path]).source == str(tmp_path / "semantic_classes.txt")


def test_built_in_tables():
    colours = {r.name: r.colour for r in VOC.rows}
    assert len(VOC.rows) == 22
    assert [r.id for r in VOC.rows] == [*range(21), 255]
    assert colours["background"] == (0, 0, 0)
    assert colours["aeroplane"] == (128, 0, 0)
    assert colours["person"] == (192, 128, 128)
    assert colours["tvmonitor"] == (0, 64, 128)
    assert colours["void"] == (224, 224, 192)
    kept = [(r.id, r.name) for r in CITYSCAPES_IDS.rows if not r.void]
    assert [n for _, n in kept] == [r.name for r in CITYSCAPES_TRAIN_IDS.rows]
    assert len(kept) == 19
    assert kept[0] == (7, "road")
    assert kept[-1] == (33, "bicycle")
    assert dict(kept)[23] == "sky"


@pytest.mark.parametrize(
    ("lines", "rows"),
    [
        ("background 0\nroad 7\n", [(0, "background"), (7, "road")]),
        ("road: 1\nbackground: 0\n", [(0, "background"), (1, "road")]),
        ("background,0\ndark road,1\n", [(0, "background"), (1, "dark road")]),
        ("type 0\ntype 1\n", [(0, "type 0"), (1, "type 1")]),
        ("boeing 737\nairbus 320\n", [(0, "boeing 737"), (1, "airbus 320")]),
    ],
)
def test_ids_behind_the_names(tmp_path, lines, rows):
    (tmp_path / "classes.txt").write_text(lines)
    assert [(r.id, r.name) for r in read_table(tmp_path / "classes.txt").rows] == rows
