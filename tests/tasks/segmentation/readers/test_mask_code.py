import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from visionkit.core.errors import DataError, UsageError
from visionkit.tasks.segmentation.readers.class_table import ClassRow, ClassTable, read_table
from visionkit.tasks.segmentation.readers.mask_code import VOID_NAMES, complete_table, make_code
from visionkit.tasks.segmentation.readers.mask_files import MaskFile, pack, read_mask_file

tables = st.dictionaries(
    st.integers(0, 65535), st.text("abcdefg ", min_size=1, max_size=8).filter(str.strip), min_size=2, max_size=40
).map(lambda d: {i: f"{n.strip()}{i}" for i, n in d.items()})  # fmt: skip


def table(*names, form="names", source="classes.txt"):
    return ClassTable(tuple(ClassRow(i, n) for i, n in enumerate(names)), source, form)


def ids(*values, dtype=np.uint8):
    return MaskFile(np.array([values], dtype))


def masks(folder, *rows):
    for i, values in enumerate(rows):
        Image.fromarray(np.array([values], np.uint8)).save(folder / f"{i}.png")
    return [str(folder / f"{i}.png") for i in range(len(rows))]


# --- by name


@settings(max_examples=40)
@given(tables, st.randoms(use_true_random=False))
def test_masks_of_sparse_ids_come_back_by_name(tmp_path_factory, named, random):
    folder = tmp_path_factory.mktemp("t")
    lines = [f"{i} {n}" for i, n in named.items()]
    random.shuffle(lines)
    (folder / "classes.txt").write_text("\n".join(lines))
    values = np.array([random.choice(list(named)) for _ in range(30)]).reshape(5, 6)
    Image.fromarray(values.astype(np.uint16)).save(folder / "m.png")
    code = make_code(read_table(folder / "classes.txt"))
    mask = code.decode(read_mask_file(folder / "m.png"), "m.png")
    assert code.classes == tuple(named[i] for i in sorted(named))
    assert mask.dtype == np.uint8
    for value, got in zip(values.ravel().tolist(), mask.ravel().tolist(), strict=True):
        assert code.classes[got] == named[value]
    # the names of a checkpoint, in another order and with more of them
    fixed = [*sorted(code.classes, reverse=True), "more"]
    other = make_code(read_table(folder / "classes.txt"), classes=fixed).decode(read_mask_file(folder / "m.png"), "m")
    assert [fixed[i] for i in other.ravel()] == [code.classes[i] for i in mask.ravel()]


@settings(max_examples=40)
@given(tables, st.integers(0, 65535), st.randoms(use_true_random=False))
def test_a_mask_with_an_unknown_id_is_always_refused(named, stranger, random):
    named.pop(stranger, None)
    if not named or stranger == 255:
        return
    code = make_code(ClassTable(tuple(ClassRow(i, n) for i, n in named.items()), "t"))
    values = [random.choice(list(named)) for _ in range(20)]
    values[random.randrange(20)] = stranger
    with pytest.raises(DataError, match=rf"m\.png: holds id {stranger} \(1 pixel\), which t does not name"):
        code.decode(ids(*values, dtype=np.uint16), "m.png")


colour_tables = st.lists(st.tuples(*[st.integers(0, 255)] * 3), min_size=1, max_size=30, unique=True)


@settings(max_examples=40)
@given(colour_tables, st.randoms(use_true_random=False))
def test_colours_come_back_by_name(tmp_path_factory, colours, random):
    folder = tmp_path_factory.mktemp("t")
    stranger = colours.pop() if len(colours) > 1 else None
    (folder / "label_colors.txt").write_text(
        "\n".join(f"{r} {g} {b}\tclass {k}" for k, (r, g, b) in enumerate(colours))
    )
    truth = np.array([random.randrange(len(colours)) for _ in range(30)]).reshape(5, 6)
    pixels = np.array(colours, np.uint8)[truth]
    Image.fromarray(pixels).save(folder / "m.png")
    code = make_code(read_table(folder / "label_colors.txt"))
    assert (code.decode(read_mask_file(folder / "m.png"), "m.png") == truth).all()
    if stranger is not None:
        pixels[2, 3] = stranger
        with pytest.raises(DataError, match=f"m.png: holds colour {' '.join(map(str, stranger))} \\(1 pixel\\), which"):
            code.decode(MaskFile(None, pack(pixels)), "m.png")


def test_unknown_ids_and_colours_are_named_with_what_to_do():
    with pytest.raises(DataError) as e:
        make_code(table("cat", "dog", "cow", form="ids")).decode(ids(0, 12, 12), "masks/a.png")
    assert str(e.value) == (
        "masks/a.png: holds id 12 (2 pixels), which classes.txt does not name; add a line `12 NAME` or correct the mask"
    )
    with pytest.raises(DataError) as e:
        make_code(table("cat", "dog", "cow")).decode(ids(*range(3, 10)), "a.png")
    assert str(e.value) == (
        "a.png: holds ids 3 (1 pixel), 4 (1 pixel), 5 (1 pixel), 6 (1 pixel), 7 (1 pixel) and 2 more, which classes.txt "
        "does not name; add its name as line 4 or correct the mask"
    )
    coloured = ClassTable((ClassRow(0, "cat", (1, 2, 3)),), "class_dict.csv", "csv")
    with pytest.raises(DataError) as e:
        make_code(coloured).decode(MaskFile(None, pack(np.array([[[1, 2, 3], [9, 8, 7]]], np.uint8))), "a.png")
    assert str(e.value) == (
        "a.png: holds colour 9 8 7 (1 pixel), which class_dict.csv does not name; add a line `NAME,9,8,7` or correct the mask"
    )


def test_coloured_masks_need_colours_and_gray_ones_are_ids():
    code = make_code(table("cat", "dog", "cow"))
    assert code.decode(MaskFile(None, pack(np.array([[[2, 2, 2], [0, 0, 0]]], np.uint8))), "a.png").tolist() == [[2, 0]]
    with pytest.raises(DataError) as e:
        code.decode(MaskFile(None, pack(np.array([[[2, 2, 1]]], np.uint8))), "a.png")
    assert str(e.value) == (
        "a.png: is a coloured mask, but classes.txt has no colours; write label_colors.txt with lines such as "
        "`128 64 128 road`, or save masks of ids"
    )


def test_palettes_count_by_index_unless_only_the_colour_is_known():
    rows = (ClassRow(0, "cat", (1, 0, 0)), ClassRow(1, "dog", (2, 0, 0)), ClassRow(2, "cow", (3, 0, 0)))
    code = make_code(ClassTable(rows, "label_colors.txt", "colours"))

    def decode(values, *colours):
        palette = np.zeros((256, 3), np.uint8)
        palette[: len(colours)] = np.reshape(colours, (-1, 3))
        return code.decode(MaskFile(np.array([values], np.uint8), None, pack(palette)), "a.png").tolist()

    assert decode([0, 1, 2], (1, 0, 0), (2, 0, 0), (3, 0, 0)) == [[0, 1, 2]]
    assert decode([0, 1, 2, 255], (9, 9, 9), (8, 8, 8)) == [[0, 1, 2, 255]]
    assert decode([3, 1], (0, 0, 0), (1, 0, 0), (0, 0, 0), (3, 0, 0)) == [[2, 0]]
    assert decode([3, 255], (0, 0, 0), (1, 0, 0), (0, 0, 0), (3, 0, 0)) == [[2, 255]]
    with pytest.raises(DataError) as e:
        decode([0, 1], (2, 0, 0), (1, 0, 0))
    assert str(e.value) == (
        "a.png: pixels of id 0 have the colour 2 0 0, and label_colors.txt gives the id to cat but the colour to dog; "
        "save the mask as ids without a palette, or as red, green, blue"
    )
    with pytest.raises(
        DataError, match=r"holds id 7 \(1 pixel\), which label_colors\.txt does not name; add its colour"
    ):
        decode([0, 7])


# --- what is ignored


@pytest.mark.parametrize(
    "name", [*VOID_NAMES, "Void", "Don't_Care", "dont care", "IGNORE LABEL", "Ignore-Label", "__ignore__"]
)
def test_void_names_are_ignored(name):
    code = make_code(table("cat", name, "dog"))
    assert code.classes == ("cat", "dog")
    assert code.ignored == (name,)
    assert code.decode(ids(0, 1, 2, 255), "a").tolist() == [[0, 255, 1, 255]]
    assert make_code(table("cat", name, "dog"), ignore=()).classes == ("cat", name, "dog")


def test_names_to_ignore():
    code = make_code(table("cat", "void", "dog"), ignore=["Cat"])
    assert code.classes == ("void", "dog")
    assert code.decode(ids(0, 1, 2), "a").tolist() == [[255, 0, 1]]
    with pytest.raises(UsageError) as e:
        make_code(table("cat", "void", "dog"), ignore=["cats"])
    assert str(e.value) == "ignore: class 'cats' is not one of cat, void, dog; did you mean 'cat'?; correct the list"
    with pytest.raises(UsageError, match=r"ignore: 'void' is not a list of class names; give one such as \[void\]"):
        make_code(table("cat", "void"), ignore="void")
    with pytest.raises(DataError, match=r"classes\.txt: all its classes are ignored \(void, ignore\); name some that"):
        make_code(table("void", "ignore"))


def test_a_named_255_counts():
    rows = (ClassRow(0, "cat"), ClassRow(255, "dog"), ClassRow(256, "cow"))
    assert make_code(ClassTable(rows, "t")).decode(ids(0, 255, 256, dtype=np.uint16), "a").tolist() == [[0, 1, 2]]


# --- names of a checkpoint


def test_fixed_classes():
    code = make_code(table("cat", "void", "dog"), classes=["dog", "bird", "cat"])
    assert code.classes == ("dog", "bird", "cat")
    assert code.decode(ids(0, 1, 2), "a").tolist() == [[2, 255, 0]]
    assert make_code(table("cat", "void"), classes=["void", "cat"]).decode(ids(0, 1), "a").tolist() == [[1, 0]]
    with pytest.raises(DataError) as e:
        make_code(table("cat", "dogs"), classes=["cat", "dog"])
    assert str(e.value) == (
        "classes.txt: class 'dogs' is not one of cat, dog; did you mean 'dog'?; rename it, or ignore its pixels with "
        "--data.ignore [dogs]"
    )
    assert make_code(table("cat", "dogs"), classes=["cat", "dog"], ignore=["dogs"]).decode(ids(1), "a").tolist() == [
        [255]
    ]
    with pytest.raises(UsageError, match="classes: cat comes twice"):
        make_code(table("cat"), classes=["cat", "cat"])


def test_tables_that_are_wrong():
    rows = (ClassRow(0, "cat", (1, 2, 3)), ClassRow(4, "dog", (1, 2, 3)))
    with pytest.raises(DataError, match="^t: 'cat' and 'dog' have the same colour 1 2 3; give each its own$"):
        make_code(ClassTable(rows, "t"))
    with pytest.raises(DataError, match="^classes.txt: 'cat' has id 0 and id 2; give each class its own name$"):
        make_code(table("cat", "dog", "cat"))
    assert len(make_code(table(*map(str, range(255)))).classes) == 255
    with pytest.raises(DataError, match="^classes.txt: 256 classes, a mask can tell 255 apart; leave some out$"):
        make_code(table(*map(str, range(256))))


# --- masks that need no table


@pytest.mark.parametrize(
    ("found", "rows", "classes", "values", "understood"),
    [
        (None, ([0, 1], [0, 0]), ("background", "foreground"), {0: 0, 1: 1}, "masks of 0 and 1: background and foreground"),
        (None, ([0, 0], [255, 0]), ("background", "foreground"), {0: 0, 255: 1}, "masks of 0 and 255: background and foreground"),
        (None, ([1, 1],), ("background", "foreground"), {0: 0, 1: 1}, "masks of 0 and 1: background and foreground"),
        (["crack"], ([0, 1],), ("background", "crack"), {0: 0, 1: 1}, "1 in masks is crack, 0 is background"),
        (["crack"], ([0, 255],), ("background", "crack"), {0: 0, 255: 1}, "255 in masks is crack, 0 is background"),
        (["unlabeled", "crack"], ([0, 1],), ("background", "crack"), {0: 0, 1: 1}, "1 in masks is crack, 0 is background"),
        (["sky", "crack"], ([0, 255],), ("sky", "crack"), {0: 0, 255: 1}, "255 in masks is crack"),
        (["sky", "crack"], ([0, 1],), ("sky", "crack"), {0: 0, 1: 1, 255: 255}, ""),
        (["sky", "crack"], ([0, 1, 255],), ("sky", "crack"), {0: 0, 1: 1, 255: 255}, ""),
        (["sky", "crack", "cow"], ([0, 255],), ("sky", "crack", "cow"), {0: 0, 1: 1, 2: 2, 255: 255}, ""),
    ],
)  # fmt: skip
def test_masks_of_two_values(tmp_path, found, rows, classes, values, understood):
    given_table = None if found is None else table(*found)
    full, note = complete_table(given_table, masks(tmp_path, *rows), "folder")
    assert note == understood
    code = make_code(full)
    assert code.classes == classes
    assert code.decode(ids(*values), "a").ravel().tolist() == list(values.values())
    if 255 not in rows[0] + rows[-1] or len(classes) == 3:
        return
    with pytest.raises(DataError, match="holds id 7"):
        code.decode(ids(0, 7), "a")


def test_what_was_asked_to_be_ignored_is_no_background(tmp_path):
    paths = masks(tmp_path, [0, 1])
    full, _ = complete_table(table("unlabeled", "crack"), paths, "folder", ignore=["unlabeled"])
    assert make_code(full, ignore=["unlabeled"]).decode(ids(0, 1), "a").tolist() == [[255, 0]]
    full, _ = complete_table(table("crack"), paths, "folder", ignore=[])
    assert make_code(full, ignore=[]).classes == ("background", "crack")


@pytest.mark.parametrize("rows", [([0, 1, 255],), ([0, 1], [0, 255]), ([0, 2],), ([0, 254],), ([3, 3],)])
def test_other_ids_need_names(tmp_path, rows):
    with pytest.raises(DataError) as e:
        complete_table(None, masks(tmp_path, *rows), "folder")
    held = sorted({v for r in rows for v in r})
    lines = ", ".join("`0 background`" if i == 0 else f"`{i} NAME`" for i in held[:2])
    assert str(e.value) == (
        f"folder: no file says what the ids in its masks are called, {', '.join(map(str, held))} (in {len(rows)} masks); "
        f"write classes.txt there with a line for each: {lines}, ..."
    )


def test_many_ids_are_not_all_listed(tmp_path):
    with pytest.raises(DataError, match=r" 0, 1, .*, 19, \.\.\. 40, 41 in all \(in 1 masks\)"):
        complete_table(None, masks(tmp_path, range(41)), "folder")


def test_coloured_or_unreadable_masks_without_a_table(tmp_path):
    Image.fromarray(np.array([[[1, 2, 3]]], np.uint8)).save(tmp_path / "c.png")
    with pytest.raises(DataError) as e:
        complete_table(None, [str(tmp_path / "c.png")], "folder")
    assert str(e.value) == (
        f"folder: no file says what the colours of the masks are ({tmp_path}/c.png is one); write label_colors.txt there "
        "with a line for each, such as `128 64 128 road`"
    )
    Image.new("L", (2, 2)).save(tmp_path / "d.jpg")
    with pytest.raises(DataError, match=r"d\.jpg: is a JPEG, which blurs the ids of a mask"):
        complete_table(None, [str(tmp_path / "d.jpg")], "folder")


def test_given_classes_stand_for_a_table(tmp_path):
    full, note = complete_table(None, masks(tmp_path, [0, 2]), "folder", classes=["cat", "dog", "cow"])
    assert note == "ids are positions in the given classes"
    code = make_code(full, classes=["cat", "dog", "cow"])
    assert code.decode(ids(2, 0, 255), "a").tolist() == [[2, 0, 255]]
    with pytest.raises(DataError, match=r"holds id 3 \(1 pixel\), which the list of classes does not name"):
        code.decode(ids(3), "a")
    full, note = complete_table(None, masks(tmp_path, [0, 255]), "folder", classes=["sky", "crack"])
    assert note == "ids are positions in the given classes, 255 in masks is crack"
    assert make_code(full, classes=["sky", "crack"]).decode(ids(255, 0), "a").tolist() == [[1, 0]]
    full, _ = complete_table(table("crack"), masks(tmp_path, [0, 255]), "folder", classes=["crack", "background"])
    assert make_code(full, classes=["crack", "background"]).decode(ids(255, 0), "a").tolist() == [[0, 1]]
