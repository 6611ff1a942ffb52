"""What the readers of several tasks do alike."""

import pytest
from PIL import Image

from visionkit.core.errors import DataError
from visionkit.data.labels.checks import header_size, refuse_missing


def picture(path, width=40, height=30, **save):
    Image.new("RGB", (width, height)).save(path, **save)
    return str(path)


def rotated(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_header_size_is_that_of_the_upright_picture(tmp_path, orientation, suffix):
    name = picture(tmp_path / f"a{suffix}", exif=rotated(orientation))
    assert header_size(name) == ((40, 30) if orientation >= 5 else (30, 40))


def test_header_size_of_damaged_files(tmp_path):
    assert header_size(tmp_path / "none.png") is None
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\nrubbish")
    assert header_size(tmp_path / "a.png") is None


def test_missing_files_are_named_and_counted():
    refuse_missing([], "a.json", "x")
    with pytest.raises(DataError) as e:
        refuse_missing([f"{i}.png: no such file" for i in range(12)], "a.json", "x/images")
    lines = str(e.value).splitlines()
    assert lines[0] == "0.png: no such file"
    assert lines[10:] == ["... and 2 more", "a.json: 12 image files are missing; looked in x/images"]
