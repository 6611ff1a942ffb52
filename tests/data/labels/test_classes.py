import pytest

from visionkit.core.errors import DataError, UsageError
from visionkit.data.labels.classes import check_class_names, check_classes, check_lines, numbered_names


@pytest.mark.parametrize("other", ["\u200bcat", "\ufeffcat", "c\u00adat", "cat\u200e", "cat "])
def test_names_that_look_the_same_are_refused(other):
    with pytest.raises(DataError, match=r"here: the class names 'cat' and '.*' look the same") as e:
        check_class_names(["dog", "cat", other], "here")
    assert str(e.value).isascii()
    with pytest.raises(UsageError, match="look the same"):
        check_classes(["cat", other])


def test_forms_of_unicode_are_one_name():
    with pytest.raises(DataError, match="another Unicode form"):
        check_class_names(["Kätzchen", "Ka\u0308tzchen"])
    names = ("می‌خورد", "cat", "Cat", "👩‍🌾", "кот", "a b", "ab")
    assert check_class_names(names) == names


@pytest.mark.parametrize("name", ["c\0at", "c\x1bat", "cat\n", "\x07"])
def test_control_characters_are_named_with_their_place(name):
    with pytest.raises(DataError, match=r"m\.csv:2: the class name .* holds characters that are no text"):
        check_class_names([name], "m.csv:2")


def test_numbers_that_are_those_of_the_lines():
    assert numbered_names(["1 b", "0 a"]) == {1: "b", 0: "a"}
    assert numbered_names(["b: 1", "a: 0"]) == {1: "b", 0: "a"}
    assert numbered_names(["1 b", "2 a"]) is None
    assert numbered_names(["0 a", "0 b"]) is None
    assert numbered_names(["0 a", "b 1"]) is None


@pytest.mark.parametrize("line", ["# a", "// a", "- a", "a,", '"a"', "'a'", '["a", "b"]', "[a, b]", "{a: 1, b: 2}"])
def test_lines_that_are_no_plain_names(line):
    with pytest.raises(DataError, match=r"c\.txt:2: .* is no plain name"):
        check_lines([(1, "cat"), (2, line)], "c.txt")


def test_lines_that_are_names():
    check_lines(list(enumerate(["C#", "-1", "a, b", "'", "[unk]", "don't", "a/b", ""])), "c.txt")
