"""Fonts for any script."""

import pytest
from PIL import ImageFont

from visionkit.prediction import fonts
from visionkit.prediction.fonts import font_for


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    monkeypatch.setattr(fonts, "_told", set())
    fonts._path_for.cache_clear()
    yield
    fonts._path_for.cache_clear()


def test_a_font_of_the_system_is_taken_where_it_has_the_letters(monkeypatch, capsys):
    """The second font stands for one of the system's that has what DejaVu lacks."""
    monkeypatch.setattr(fonts, "_installed", lambda: ("damaged.ttf", "cjk.ttf"))
    own = fonts._own()
    have = {own: frozenset(map(ord, "äж")), "damaged.ttf": frozenset(), "cjk.ttf": frozenset(map(ord, "猫ä"))}
    monkeypatch.setattr(fonts, "_letters", have.__getitem__)
    monkeypatch.setattr(ImageFont, "truetype", lambda path, size: path)
    assert font_for("ä ж", 12) == own
    assert font_for("猫", 12) == "cjk.ttf"
    assert capsys.readouterr().err == ""
    assert font_for("猫犬", 12) == own
    assert font_for("犬", 12) == own
    said = capsys.readouterr().err.splitlines()
    assert said == [
        "warning: no font here has the letters 犬猫: they are drawn as boxes; install one, such as Noto Sans CJK"
    ]


def test_real_fonts():
    assert ord("ж") in fonts._letters(fonts._own())
    assert fonts._letters("/none.ttf") == frozenset()
    assert font_for("abc…", 12).getbbox("abc")[2] > 0
    assert font_for("жук", 12).getname()[0] == "DejaVu Sans"
