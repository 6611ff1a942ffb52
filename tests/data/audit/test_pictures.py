import hashlib
import io

import cv2
import numpy as np
import pytest
from PIL import Image

from visionkit.core.errors import DataError
from visionkit.data.audit.pictures import survey, thumbnail
from visionkit.data.images.decode import DARK, SEVERAL
from visionkit.data.images.reading import read_image


def save(path, pixels, **options):
    Image.fromarray(pixels).save(path, **options)
    return path


@pytest.fixture
def pixels():
    ramp = np.linspace(0, 255, 96).astype(np.uint8)
    return np.stack((np.tile(ramp, (64, 1)), np.full((64, 96), 90, np.uint8), np.full((64, 96), 30, np.uint8)), 2)


def test_what_is_known_of_a_jpeg(tmp_path, pixels):
    path = save(tmp_path / "a.jpg", pixels)
    (facts,) = survey([path])
    assert (facts.path, facts.error) == (str(path), None)
    assert (facts.format, facts.mode, facts.bits, facts.width, facts.height) == ("JPEG", "RGB", 8, 96, 64)
    assert (facts.orientation, facts.frames, facts.remarks) == (1, 1, frozenset())
    assert facts.file_size == path.stat().st_size
    assert facts.content == hashlib.blake2b(path.read_bytes(), digest_size=16).digest()
    gray = read_image(path, channels=1)[:, :, 0]
    assert facts.thumbnail.shape == (32, 32)
    assert facts.thumbnail.dtype == np.uint8
    assert np.abs(facts.thumbnail.astype(int) - thumbnail(gray)).max() <= 2
    assert facts.mean == pytest.approx(gray.mean(), abs=1)
    assert facts.std == pytest.approx(gray.std(), abs=1)


def test_a_turned_picture_has_an_upright_thumbnail_and_its_stored_size(tmp_path, pixels):
    turned = Image.Exif()
    turned[0x0112] = 6
    save(tmp_path / "a.jpg", np.ascontiguousarray(np.rot90(pixels)), exif=turned, quality=95)
    save(tmp_path / "b.jpg", pixels, quality=95)
    one, other = survey([tmp_path / "a.jpg", tmp_path / "b.jpg"])
    assert (one.width, one.height, one.orientation) == (64, 96, 6)
    assert np.abs(one.thumbnail.astype(int) - other.thumbnail).max() <= 3


@pytest.mark.parametrize(
    ("name", "mode", "expected"),
    [
        ("a.png", "RGBA", ("PNG", "RGBA", 8)),
        ("a.png", "LA", ("PNG", "LA", 8)),
        ("a.png", "1", ("PNG", "1", 1)),
        ("a.png", "P", ("PNG", "P", 8)),
        ("a.png", "I;16", ("PNG", "I;16", 16)),
        ("a.jpg", "CMYK", ("JPEG", "CMYK", 8)),
        ("a.jpg", "L", ("JPEG", "L", 8)),
        ("a.tif", "F", ("TIFF", "F", 32)),
        ("a.bmp", "RGB", ("BMP", "RGB", 8)),
        ("a.webp", "RGB", ("WEBP", "RGB", 8)),
    ],
)
def test_modes_and_depths(tmp_path, pixels, name, mode, expected):
    image = Image.fromarray(pixels)
    if mode in ("I;16", "F"):
        kind = np.uint16 if mode == "I;16" else np.float32
        image = Image.fromarray((pixels[:, :, 0].astype(np.float32) / (1 if mode == "I;16" else 255)).astype(kind))
    else:
        image = image.convert(mode)
    image.save(tmp_path / name)
    (facts,) = survey([tmp_path / name])
    assert facts.error is None
    assert (facts.format, facts.mode, facts.bits) == expected


def test_colour_of_16_bits(tmp_path, pixels):
    cv2.imwrite(str(tmp_path / "a.png"), pixels.astype(np.uint16) * 257)
    cv2.imwrite(str(tmp_path / "b.png"), pixels.astype(np.uint16))
    one, other = survey([tmp_path / "a.png", tmp_path / "b.png"])
    assert (one.bits, one.remarks, other.bits, other.remarks) == (16, frozenset(), 16, {DARK})


def test_frames_are_counted(tmp_path, pixels):
    frames = [Image.fromarray(np.roll(pixels, k, 1)) for k in range(3)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    frames[0].save(tmp_path / "a.tif", save_all=True, append_images=frames[1:])
    for facts in survey([tmp_path / "a.gif", tmp_path / "a.tif"]):
        assert (facts.frames, facts.remarks) == (3, {SEVERAL})


def test_arrays_and_many_bands(tmp_path):
    array = np.random.default_rng(0).integers(0, 255, (40, 50, 5), np.uint8)
    np.save(tmp_path / "a.npy", array)
    (facts,) = survey([tmp_path / "a.npy"], channels=5)
    assert (facts.error, facts.format, facts.width, facts.height, facts.bits) == (None, "NPY", 50, 40, 8)
    assert facts.mean == pytest.approx(array.mean(), abs=1)


def bad_files(folder, pixels):
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (200, 300, 3), np.uint8)).save(buffer, "JPEG")
    whole = buffer.getvalue()
    png = io.BytesIO()
    Image.fromarray(pixels).save(png, "PNG")
    bomb = bytearray(png.getvalue())
    bomb[16:24] = (200_000).to_bytes(4, "big") * 2
    contents = {
        "empty.jpg": b"",
        "cut.jpg": whole[: len(whole) * 9 // 10],
        "zeros.jpg": whole[: len(whole) // 2] + bytes(len(whole) // 2),
        "cut.png": png.getvalue()[:-200],
        "bomb.png": bytes(bomb),
        "page.jpg": b"<html></html>",
        "text.png": b"hello",
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    (folder / "folder.jpg").mkdir()
    return sorted(folder / name for name in (*contents, "folder.jpg", "absent.jpg"))


def test_bad_files_say_what_the_reader_says_and_stop_nothing(tmp_path, pixels):
    paths = bad_files(tmp_path, pixels)
    good = save(tmp_path / "good.png", pixels)
    done = []
    *bad, last = survey([*paths, good], workers=2, progress=lambda *told: done.append(told))
    for path, facts in zip(paths, bad, strict=True):
        with pytest.raises(DataError) as raised:
            read_image(path)
        assert facts.error == str(raised.value)
        assert facts.thumbnail is None
    assert last.error is None
    assert done == [(k + 1, len(paths) + 1) for k in range(len(paths) + 1)]


def test_no_pictures():
    assert survey([]) == []
