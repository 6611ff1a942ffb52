import numpy as np
import pytest

from visionkit.core.errors import DataError
from visionkit.tasks.detection.readers.voc_objects import read_picture

BOX = "<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>11</xmax><ymax>22</ymax></bndbox>"


def read(folder, *lines):
    file = folder / "a.xml"
    file.write_text("\n".join(("<annotation>", *lines, "</annotation>")), encoding="utf-8")
    return read_picture(file)


def test_tags_are_the_same_in_upper_and_lower_case(tmp_path):
    file = tmp_path / "a.xml"
    box = BOX.replace("xmin", "XMin").replace("bndbox", "BndBox")
    file.write_text(
        f"<Annotation><FileName>b.png</FileName><Size><Width>40</Width><Height>30</Height></Size>"
        f"<Object><Name>cat</Name><Difficult>1</Difficult>{box}</Object></Annotation>"
    )
    found = read_picture(file)
    assert (found.filename, found.size) == ("b.png", (30, 40))
    assert [(o.name, o.box, o.difficult) for o in found.objects] == [("cat", (1, 2, 11, 22), True)]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["<object><name>a</name>", f"<name>b</name>{BOX}</object>"], "3: a second <name> in the same <object>"),
        (["<object><name>a</name>", f"<Name>a</Name>{BOX}</object>"], "3: a second <name> in the same <object>"),
        ([f"<object><name>a</name>{BOX}", f"{BOX}</object>"], "3: a second <bndbox> in the same <object>"),
        (
            [f"<object><name>a</name>{BOX.replace('<ymin>', '<xmin>5</xmin><ymin>')}</object>"],
            "2: a second <xmin> in the same <bndbox>; keep the right one",
        ),
        (
            [f"<object><name>a</name><difficult>0</difficult><difficult>1</difficult>{BOX}</object>"],
            "2: a second <difficult>",
        ),
        (["<size><width>4</width></size>", "<size><width>5</width></size>"], "3: a second <size> in the same <annot"),
        (["<size><height>1</height><height>2</height></size>"], "2: a second <height> in the same <size>"),
        (["<filename>a.png</filename>", "<filename>b.png</filename>"], "3: a second <filename>"),
        (["", f"<objects><object><name>a</name>{BOX}</object></objects>"], "3: objects in <objects>, where Pascal"),
        ([f"<item><name>a</name>{BOX}</item>"], "2: objects in <item>"),
        (["<obj><name>a</name><box>1 2 3 4</box></obj>"], "2: objects in <obj>"),
        ([f"<object><name>a</name>{BOX}", f"<object><name>b</name>{BOX}</object></object>"], "3: an <object> in ano"),
        ([f"<object><name>a</name><difficult>2</difficult>{BOX}</object>"], "2: difficult is '2'; write 0 or 1"),
        ([f"<object><name>a</name>{BOX.replace('>1<', '>1_0<')}</object>"], "2: xmin is '1_0', no number; correct it"),
    ],
)
def test_what_would_be_passed_over_is_refused(tmp_path, lines, message):
    with pytest.raises(DataError) as e:
        read(tmp_path, *lines)
    assert str(e.value).startswith(f"{tmp_path / 'a.xml'}:{message}")


def test_elements_of_tools_stay(tmp_path):
    found = read(
        tmp_path,
        "<source><database>x</database><annotation>y</annotation></source><owner><name>me</name></owner>",
        "<segmented>0</segmented><objects/>",
        "<object><name>a</name><pose>Unspecified</pose><difficult>Unspecified</difficult><polygon><x1>1</x1></polygon>",
        f"{BOX}<part><name>head</name>{BOX}</part><part><name>hand</name>{BOX}</part></object>",
    )
    assert [(o.name, o.box, o.difficult) for o in found.objects] == [("a", (1, 2, 11, 22), False)]


@pytest.mark.parametrize(
    ("degrees", "box"), [("0.0", (1, 2, 11, 22)), ("90.0", (-4, 7, 16, 17)), ("30", (-3.33, 0.84, 15.33, 23.16))]
)
def test_the_box_of_a_turned_box_is_around_it(tmp_path, degrees, box):
    told = "".join(
        f"<attribute><name>{n}</name><value>{v}</value></attribute>" for n, v in (("id", 5), ("rotation", degrees))
    )
    found = read(tmp_path, f"<object><name>a</name>{BOX}<attributes>{told}</attributes></object>")
    assert np.allclose(found.objects[0].box, box, atol=0.01)
