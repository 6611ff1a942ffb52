import pytest

from visionkit.cli.config.options import each_checkpoint, options_of, value_of


@pytest.mark.parametrize(
    ("words", "options"),
    [
        ("--a 1 --b=2", [("--a", "1"), ("--b", "2")]),
        ("--flag --a -1", [("--flag", ""), ("--a", "-1")]),
        ("--flag -c file.yaml", [("--flag", ""), ("-c", "file.yaml")]),
        ("--flag --config=file.yaml", [("--flag", ""), ("--config", "file.yaml")]),
        ("--a -crop", [("--a", "-crop")]),
        ("word --a", [("word", ""), ("--a", "")]),
        ("--a=b=c", [("--a", "b=c")]),
        ("--a= -h", [("--a", ""), ("-h", "")]),
        ("", []),
    ],
)
def test_options_with_their_values(words, options):
    found = options_of(words.split())
    assert [(o.name, o.value) for o in found] == options
    assert [word for o in found for word in o.words] == words.split()


def test_an_empty_value_is_one():
    assert [(o.words, o.value) for o in options_of(["--a", "", "--b"])] == [(("--a", ""), ""), (("--b",), "")]


def test_another_value_in_the_same_form():
    two, one = options_of(["-c", "a", "--config=a"])
    assert (two.with_value("b"), one.with_value("b")) == (("-c", "b"), ("--config=b",))


def test_the_last_value_counts():
    asked = ["--ckpt_path", "one", "--ckpt_path=two=2", "--config"]
    assert value_of(asked, "--ckpt_path") == "two=2"
    assert value_of(asked, "--ckpt") is None
    assert value_of(["--ckpt_path"], "--ckpt_path") is None


def test_several_checkpoints_stand_behind_one_option(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("run", "folder"):
        (tmp_path / folder).mkdir()
    for name in ("a.ckpt", "b.pt", "run/best.ckpt", "picture.png"):
        (tmp_path / name).touch()

    def words(line):
        return " ".join(each_checkpoint(line.split(), ("--ckpt", "--weights")))

    assert words("--ckpt a.ckpt b.pt run --out o picture.png") == (
        "--ckpt a.ckpt --ckpt b.pt --ckpt run --out o picture.png"
    )
    assert words("--out o --ckpt a.ckpt picture.png b.pt") == "--out o --ckpt a.ckpt picture.png b.pt"
    assert words("--ckpt=a.ckpt missing.ckpt x.png") == "--ckpt=a.ckpt --ckpt missing.ckpt x.png"
    assert words("--ckpt picture.png picture.png") == "--ckpt picture.png picture.png", "the first is one in any case"
    assert words("--ckpt a.ckpt runs/mistyped --out o") == "--ckpt a.ckpt --ckpt runs/mistyped --out o"
    for picture in ("http://host/a", "missing.png", "*", "folder"):
        assert words(f"--ckpt a.ckpt {picture}") == f"--ckpt a.ckpt {picture}"
    assert words("--weights a.ckpt --ckpt run -") == "--weights a.ckpt --ckpt run -"
    assert words("--ckpt --out o") == "--ckpt --out o"
