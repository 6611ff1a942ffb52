import pytest
from PIL import Image

from visionkit import UsageError
from visionkit.cli.commands import shapes


def read(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*.png")}


def test_pictures_are_drawn_one_folder_a_class(tmp_path, capsys):
    out = tmp_path / "drawn"
    assert shapes.main("shapes", ["--out", str(out), "--count", "7", "--size", "40"]) == 0
    assert capsys.readouterr().out == f"7 pictures in {out}\n"
    assert len(read(out)) == 7
    assert {name.partition("/")[0] for name in read(out)} == {"circle", "cross", "ring", "square", "star", "triangle"}
    assert Image.open(out / "circle" / "0000.png").size == (40, 40)


def test_a_seed_draws_the_same_and_another_draws_others(tmp_path):
    for name, seed in (("a", "1000"), ("b", "1001"), ("c", None)):
        more = ["--seed", seed] if seed else []
        assert shapes.main("shapes", ["--out", str(tmp_path / name), "--count", "6", "--size", "32", *more]) == 0
    a, b, c = (read(tmp_path / name) for name in "abc")
    assert a == c
    assert a.keys() == b.keys()
    assert all(a[k] != b[k] for k in a)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--count", "0"], "--count must be at least 1"),
        (["--size", "31"], "--size at least 32"),
        (["--seed", "-1"], "negative"),
        (["--count", "few"], "--count: invalid int value: 'few'"),
        (["--cuont", "3"], r"visionkit shapes: .*did you mean --count\?; see visionkit shapes --help"),
    ],
)
def test_wrong_values_draw_nothing(tmp_path, arguments, words):
    with pytest.raises(UsageError, match=words):
        shapes.main("shapes", ["--out", str(tmp_path / "x"), *arguments])
    assert not list(tmp_path.iterdir())


def test_out_is_needed():
    with pytest.raises(UsageError, match="required: --out"):
        shapes.main("shapes", [])
