"""visionkit report from outside: what it writes and says, and how it ends."""

import re

import pytest

from tests import evaluations
from visionkit.cli.main import run


@pytest.fixture
def evaluated(tmp_path):
    evaluations.make("classification", tmp_path / "out", tmp_path / "data")
    return tmp_path / "out"


def test_a_page(evaluated, tmp_path, capsys):
    out = tmp_path / "a.html"
    assert run(["report", str(evaluated), "--out", str(out)]) == 0
    assert re.fullmatch(rf"report   {out} \(0\.\d MB\)\n", capsys.readouterr().out)
    assert out.read_text().count("<img ") == 6
    assert run(["report", str(evaluated), "--out", str(out)]) == 2
    assert "add --overwrite" in capsys.readouterr().err
    assert run(["report", str(evaluated), "--out", str(out), "--overwrite", "--pictures", "1"]) == 0
    assert out.read_text().count("<img ") == 1


def test_what_could_not_be_shown_is_said(evaluated, tmp_path, capsys):
    (tmp_path / "data" / "p000.jpg").unlink()
    assert run(["report", str(evaluated), "--out", str(tmp_path / "a.html")]) == 0
    assert "note     1 picture left out: is not there any more\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["--out", "a.txt"], 2, "ends in .html"),
        (["--out", "a.html", "--pictures", "-1"], 2, "--pictures -1"),
        (["--out", "a.html", "--picture", "1"], 2, "did you mean --pictures"),
        (["--out", "a.html", "--data", "none"], 1, "--data none: no such folder or file"),
        ([], 2, "--out"),
    ],
)
def test_wrongly_asked(evaluated, capsys, arguments, status, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(["report", str(evaluated), *arguments]) == status
    assert words in capsys.readouterr().err


def test_neither_evaluation_nor_run(tmp_path, capsys):
    assert run(["report", str(tmp_path), "--out", str(tmp_path / "a.html")]) == 1
    assert "holds neither evaluation.json of visionkit evaluate nor metrics.csv" in capsys.readouterr().err
    assert not (tmp_path / "a.html").exists()


def test_true_pixels_come_from_the_data(tmp_path):
    pytest.importorskip("visionkit.cli.measured")
    evaluations.make("segmentation", tmp_path / "out", tmp_path / "data")
    out = tmp_path / "a.html"
    assert run(["report", str(tmp_path / "out"), "--out", str(out)]) == 0
    assert out.read_text().count('alt="truth: ') == 3
    assert out.read_text().count('alt="prediction: ') == 3
    (tmp_path / "data").rename(tmp_path / "moved")
    assert (
        run(["report", str(tmp_path / "out"), "--out", str(out), "--overwrite", "--data", str(tmp_path / "moved")]) == 0
    )
    assert out.read_text().count('alt="truth: ') == 3
