"""After which epochs validation pictures are drawn, and how that is said."""

import pytest

from visionkit.cli.main import run
from visionkit.training.pictures.moments import MomentsError, is_moment, read_moments


def test_moments():
    assert [e for e in range(1, 1001) if is_moment(e, "auto")] == [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000]
    assert [e for e in range(1, 10) if is_moment(e, 3)] == [3, 6, 9]


def test_words():
    assert [read_moments(v) for v in ("auto", "none", "null", "3", 4)] == ["auto", "none", "none", 3, 4]
    for wrong in ("0", 0, "-1", "never", "", 1.5):
        with pytest.raises(MomentsError, match="needs auto, none or a whole number from 1 on, got "):
            read_moments(wrong)


def test_the_option_and_the_key(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.yaml").write_text("\npictures: 7\n")
    assert run(["fit", "-c", "classify.yaml", "-c", "own.yaml", "--print_config"]) == 0
    assert "\npictures: 7\n" in capsys.readouterr().out
    (tmp_path / "own.yaml").write_text("\npictures: [1]\n")
    assert run(["fit", "-c", "classify.yaml", "-c", "own.yaml", "--print_config"]) == 2
    assert capsys.readouterr().err.startswith("error: own.yaml:2: pictures: needs auto, none or a whole number")
    assert run(["fit", "-c", "classify.yaml", "--pictures", "never", "--print_config"]) == 2
    assert "--pictures: needs auto, none or a whole number from 1 on, got never" in capsys.readouterr().err
