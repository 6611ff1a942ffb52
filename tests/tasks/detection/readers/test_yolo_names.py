import pytest

from visionkit.core.errors import DataError
from visionkit.tasks.detection.readers.yolo_layout import find_yolo
from visionkit.tasks.detection.readers.yolo_names import load_data, names_beside, names_of


def of_yaml(folder, content):
    (folder / "data.yaml").write_text(content)
    return names_of(folder / "data.yaml", load_data(folder / "data.yaml"))


def of_lines(folder, *lines):
    (folder / "classes.txt").write_text("".join(f"{line}\n" for line in lines))
    return names_beside(folder)


WRITTEN = ("010", "1_0", "1:30", "0x1F", "+1", "1e3", "7", "-0")


def test_names_are_as_they_are_written(tmp_path):
    assert of_yaml(tmp_path, f"names: [{', '.join(WRITTEN)}]\nnc: 8") == WRITTEN
    keyed = "".join(f"  {i}: {w}\n" for i, w in enumerate(WRITTEN))
    assert of_yaml(tmp_path, f"names:\n{keyed}") == WRITTEN


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("names: [a, no]", "names: class 1 is False; put the name into quotes"),
        ("names: [1.0, b]", "names: class 0 is 1.0; put the name into quotes"),
        ("names: [2020-01-01]", "names: class 0 is datetime.date"),
        ("names: {00: a, 1: b}", "names: a class is numbered as 00; number the classes from 0 without gaps"),
        ("names: {0: a, 1:30: b}", "names: a class is numbered as 1:30;"),
        ("names: {0: a, 0b1: b}", "names: a class is numbered as 0b1;"),
        ("names: [a]\nnc: many", "nc is 'many', no number of classes; correct it or leave it out"),
        ("names: [a]\nnc: true", "nc is True, no number"),
        ("names: [a]\nnc: '2'", "nc is 2, but there are 1 names; correct one of them"),
    ],
)
def test_what_yaml_reads_as_something_else(tmp_path, content, message):
    with pytest.raises(DataError) as e:
        of_yaml(tmp_path, content)
    assert str(e.value).startswith(f"{tmp_path / 'data.yaml'}: {message}")


@pytest.mark.parametrize("keys", ["{1: a, 01: b}", "{0: a, 0.0: b}", "{0: a, 0: b}"])
def test_a_key_that_stands_twice_in_whatever_form(tmp_path, keys):
    with pytest.raises(DataError, match=r"data\.yaml:1: no valid YAML \(the key '0.*' stands twice\)"):
        of_yaml(tmp_path, f"names: {keys}")


@pytest.mark.parametrize(
    ("lines", "names"),
    [
        (("0 green", "1 red"), ("green", "red")),
        (("1: red", "0: dark green"), ("dark green", "red")),
        (("0,green", "1,red"), ("green", "red")),
        (("green 0", "red 1"), ("green", "red")),
        (("0. green",), ("green",)),
        (("2 doors", "4 doors"), ("2 doors", "4 doors")),
        (("type 0", "type 1"), ("type 0", "type 1")),
        (("boeing 737", "airbus 320"), ("boeing 737", "airbus 320")),
        (("0 green", "red"), ("0 green", "red")),
        (("7", "9"), ("7", "9")),
    ],
)
def test_numbers_of_lines_are_no_part_of_the_names(tmp_path, lines, names):
    assert of_lines(tmp_path, *lines) == names


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (("1 green", "2 red"), ":1: '1 green': the lines are numbered from 1, and YOLO counts from 0;"),
        (("0 green", "2 red"), ": no name for class 1; number the classes from 0 without gaps"),
        (("# classes", "green"), ":1: '# classes' is no plain name (a comment, a list or quotes);"),
    ],
)
def test_lines_that_are_no_names(tmp_path, lines, message):
    with pytest.raises(DataError) as e:
        of_lines(tmp_path, *lines)
    assert str(e.value).startswith(f"{tmp_path / 'classes.txt'}{message}")


def test_a_path_that_is_a_number(tmp_path):
    for folder in ("images/train", "010/images/train"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "data.yaml").write_text("path: 010\ntrain: images/train\nnames: [a]")
    assert find_yolo(tmp_path).splits == {"train": [tmp_path / "010/images/train"]}


def test_two_keys_of_one_split(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "data.yaml").write_text("train: images\nval: images\nvalid: other\nnames: [a]")
    with pytest.raises(DataError, match=r"data\.yaml: has both val and valid; keep one"):
        find_yolo(tmp_path)


def data_yaml(folder, content):
    for name in ("images", "labels"):
        (folder / name).mkdir(exist_ok=True)
    (folder / "data.yaml").write_text(f"train: images\n{content}")
    return folder


def test_names_of_data_yaml_and_of_a_file_beside(tmp_path):
    (tmp_path / "classes.txt").write_text("red\nblue\n")
    assert find_yolo(data_yaml(tmp_path, "nc: 2")).names == ("red", "blue")
    assert find_yolo(data_yaml(tmp_path, "names: [cat, dog]")).names == ("cat", "dog")
    with pytest.raises(DataError, match=r"data\.yaml: nc is 3, but .*classes\.txt has 2 names; correct one of them"):
        find_yolo(data_yaml(tmp_path, "nc: 3"))
    with pytest.raises(DataError, match=r"data\.yaml: names has the classes in another order than .*classes\.txt"):
        find_yolo(data_yaml(tmp_path, "names: [blue, red]"))
    (tmp_path / "obj.names").write_text("blue\nred\n")
    assert find_yolo(data_yaml(tmp_path, "names: [blue, red]")).names == ("blue", "red")
    with pytest.raises(
        DataError, match=r"classes\.txt and .*obj\.names name the classes differently; keep one of them"
    ):
        find_yolo(data_yaml(tmp_path, ""))


def test_keys_of_splits_in_upper_case(tmp_path):
    for name in ("images/a", "images/b", "labels"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "data.yaml").write_text("Train: images/a\nValidation: images/b\nNames: [red]")
    found = find_yolo(tmp_path)
    assert found.splits == {"train": [tmp_path / "images/a"], "val": [tmp_path / "images/b"]}
    assert found.names == ("red",)


def test_names_and_lists_of_obj_data(tmp_path):
    (tmp_path / "obj.names").write_text("cat\ndog\n")
    (tmp_path / "other.names").write_text("red\nblue\n")
    (tmp_path / "Train.txt").write_text("")
    lines = "classes = 2\nTrain = data/Train.txt\nnames = data/{}.names\n"
    for name, names in (("obj", ("cat", "dog")), ("other", ("red", "blue")), ("gone", ("cat", "dog"))):
        (tmp_path / "obj.data").write_text(lines.format(name))
        found = find_yolo(tmp_path)
        assert (found.names, found.splits) == (names, {"train": [tmp_path / "Train.txt"]})
    (tmp_path / "val.txt").write_text("")
    (tmp_path / "obj.data").write_text("train = Train.txt\ntrain = val.txt\n")
    with pytest.raises(DataError, match=r"obj\.data:2: train: a second list of this split; keep one of them"):
        find_yolo(tmp_path)
