from pathlib import Path

import pytest

from visionkit import DataError
from visionkit.data.labels.json_text import parse_json, parse_line

WRONG = {
    "cut off": ('[1,\n{"a": ', r"a\.json:2: no valid JSON \(.* at column 7\); the file may be cut off"),
    "a key twice": ('{"a": 1, "a": 2}', r"a\.json: no valid JSON \(the key 'a' comes twice in an object\)"),
    "nested too deep": ("[" * 200_000, r"a\.json:1: no valid JSON \(nested too deep\)"),
    "a long number": ("[\n\n" + "1" * 5000 + "]", r"a\.json:3: no valid JSON \(a number of thousands of digits\)"),
}


@pytest.mark.parametrize(("text", "words"), WRONG.values(), ids=WRONG)
def test_a_file_that_is_no_json(text, words):
    with pytest.raises(DataError, match=words):
        parse_json(text, Path("a.json"))


@pytest.mark.parametrize(("text", "_"), WRONG.values(), ids=WRONG)
def test_a_line_that_is_no_json(text, _):
    with pytest.raises(DataError, match=r"^a\.jsonl:3: no valid JSON \(.*\); each line must be one object such as X$"):
        parse_line(text, "a.jsonl:3", "X")


def test_what_is_json():
    assert parse_json('[{"a": 1.5}]', Path("a.json")) == [{"a": 1.5}]
    assert parse_line('{"a": null}', "a:1", "X") == {"a": None}
    with pytest.raises(DataError, match="a:1: no JSON object; write X"):
        parse_line("[1]", "a:1", "X")
