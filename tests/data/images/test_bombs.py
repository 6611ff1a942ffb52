"""Small files that claim large pictures, tags or texts: refused before memory is taken."""

import io
import os
import struct
import time
import zlib
from collections import Counter

import cv2
import numpy as np
import pytest
from PIL import Image

from visionkit.core.errors import DataError
from visionkit.data.images import decode as decoding
from visionkit.data.images.decode import DARK, SEVERAL
from visionkit.data.images.reading import check_images, decode_image, read_image
from visionkit.data.images.tiff import TiffError, check_tags
from visionkit.data.labels.checks import header_size
from visionkit.tasks.segmentation.readers.mask_files import read_mask_file


def tiff(*tags, order="<", tail=b""):
    """Return a TIFF of these tags: number, type, count, value or offset."""
    entries = b"".join(struct.pack(f"{order}HHII", *tag) for tag in sorted(tags))
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}IH", 8, len(tags))
    return head + entries + b"\0\0\0\0" + tail


def picture_tags(width, height, bits, bands=1, kind=1):
    return [
        *((256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, bits), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 8)),
        *((277, 3, 1, bands), (278, 4, 1, height), (279, 4, 1, 100), (339, 3, 1, kind)),
    ]


def png_chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width, height, depth, colour, *chunks):
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    raw = zlib.compress(b"\0" * 1000)
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + png_chunk(b"IDAT", raw) + png_chunk(b"IEND", b"")


@pytest.fixture
def no_pixels(monkeypatch):
    """Nothing is decoded."""

    def refuse(*_):
        raise AssertionError("decoded")

    monkeypatch.setattr(cv2, "imdecode", refuse)
    monkeypatch.setattr(Image.Image, "load", refuse)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (tiff(*picture_tags(20000, 20000, 64, kind=3)), "20000 x 20000 pixels, more than 178 million"),
        (
            tiff(*picture_tags(13000, 13000, 64, kind=3)),
            r"13000 x 13000 pixels of 8 bytes take 1\.4 GB, more than 1\.1",
        ),
        (tiff(*picture_tags(13000, 13000, 32, 3, kind=3)), "13000 x 13000 pixels of 12 bytes take 2"),
        (png(13000, 13000, 16, 6), "13000 x 13000 pixels of 8 bytes take 1"),
        (png(60000, 60000, 8, 2), "more than 178 million pixels"),
    ],
    ids=["float64", "float64 of allowed pixels", "float32 x 3", "16 bits and alpha", "PNG"],
)
def test_sizes_are_bounded_by_what_decoding_takes(no_pixels, data, words):
    with pytest.raises(DataError, match=words):
        decode_image(data, "a")


@pytest.mark.parametrize("order", ["<", ">"])
def test_tags_cannot_claim_more_than_the_file(tmp_path, order):
    many = [(40000 + i, 7, 60_000, 8) for i in range(200)]  # each reads the file once more
    data = tiff(*picture_tags(10, 10, 8), *many, order=order, tail=b"\0" * 70_000)
    (tmp_path / "a.tif").write_bytes(data)
    with pytest.raises(DataError, match=r"a\.tif: a damaged TIFF: its tags claim 12,000,0.. bytes of a file of 72,"):
        read_image(tmp_path / "a.tif")
    with pytest.raises(DataError, match="its tags claim"):
        read_mask_file(tmp_path / "a.tif")
    with pytest.raises(DataError, match="its tags claim"):
        decode_image(data, "a", channels=5)
    assert header_size(tmp_path / "a.tif") is None
    check_tags(io.BytesIO(tiff(*picture_tags(10, 10, 8))))
    large = b"II+\0\x08\0\0\0" + struct.pack("<QQ", 16, 3) + struct.pack("<HHQQ", 40000, 7, 2**40, 8) * 3
    with pytest.raises(TiffError):
        check_tags(io.BytesIO(large))


def test_damaged_exif_leaves_the_picture():
    exif = b"MM\0*\0\0\0\x08" + struct.pack(">H", 500)
    exif += struct.pack(">HHII", 0x112, 3, 1, 6 << 16) + b"".join(
        struct.pack(">HHII", 40000 + i, 7, 10_000, 8) for i in range(499)
    )
    stream = io.BytesIO()
    Image.new("RGB", (5, 4)).save(stream, "PNG")
    whole = stream.getvalue()
    bomb = whole[:33] + png_chunk(b"eXIf", exif + b"\0" * 10_000) + whole[33:]
    assert decode_image(bomb, "a").shape == (4, 5, 3)
    fine = whole[:33] + png_chunk(b"eXIf", b"MM\0*\0\0\0\x08\0\1" + exif[10:22] + b"\0" * 4) + whole[33:]
    assert decode_image(fine, "a").shape == (5, 4, 3), "this one is turned"


@pytest.mark.parametrize("kind", [b"zTXt", b"iCCP"])
def test_texts_that_unpack_to_much_are_refused(kind):
    packed = png_chunk(kind, b"a\0\0" + zlib.compress(b"A" * 100_000_000, 9))
    with pytest.raises(DataError, match="the header is unreadable"):
        decode_image(png(10, 10, 8, 2, packed), "a")


@pytest.mark.parametrize("fail", [MemoryError, cv2.error])
def test_too_little_memory_is_no_damage(monkeypatch, fail):
    def imdecode(*_):
        error = fail("Insufficient memory")
        if fail is cv2.error:
            error.code = cv2.Error.StsNoMem
        raise error

    stream = io.BytesIO()
    Image.new("RGB", (5, 4)).save(stream, "JPEG")
    monkeypatch.setattr(cv2, "imdecode", imdecode)
    with pytest.raises(DataError, match="^a: memory does not suffice to decode it; make it smaller"):
        decode_image(stream.getvalue(), "a")


def test_large_pictures_are_decoded_one_at_a_time(tmp_path, monkeypatch):
    running, most = [], []
    convert = decoding.rgb_of

    def slow(im, remarks):
        running.append(1)
        most.append(len(running))
        time.sleep(0.01)
        running.pop()
        return convert(im, remarks)

    monkeypatch.setattr(decoding, "rgb_of", slow)
    files = [tmp_path / f"{i}.pgm" for i in range(8)]
    for file in files:
        Image.new("L", (5, 4)).save(file)
    check_images(files, workers=4)
    assert max(most) > 1
    most.clear()
    monkeypatch.setattr(decoding, "_LARGE", 10)
    check_images(files, workers=4)
    assert most == [1] * 8


def test_remarks_are_counted(tmp_path):
    def save(name, image, **options):
        image.save(tmp_path / name, **options)
        return tmp_path / name

    grey = np.linspace(0, 255, 200).astype(np.uint16).reshape(10, 20)
    page = Image.new("RGB", (6, 5))
    more = {"save_all": True, "append_images": [Image.new("RGB", (6, 5), "red")]}
    files = [
        *(save("full.png", Image.fromarray(grey * 257)), save("12.png", Image.fromarray(grey * 16))),
        *(save("12.tif", Image.fromarray(grey * 16)), save("black.png", Image.fromarray(grey * 0))),
        *(save("a.gif", page, **more), save("a.webp", page, **more), save("a.tif", page, **more)),
        *(save("one.gif", page), save("a.mpo", page, **more), save("one.jpg", page)),
    ]
    remarks = Counter()
    assert check_images(files, remarks=remarks) == []
    assert remarks == {DARK: 2, SEVERAL: 3}
    assert read_image(tmp_path / "12.png").max() == 16, "never stretched by the picture's own range"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes")
def test_a_pipe_is_no_picture_and_no_mask(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    for read in (read_image, read_mask_file):
        with pytest.raises(DataError, match=r"a\.png: is a pipe, not a file"):
            read(tmp_path / "a.png")
    (tmp_path / "b.png").symlink_to("/dev/zero")
    assert [m.partition(": ")[2][:11] for _, m in check_images([tmp_path / n for n in ("a.png", "b.png")])] == [
        "is a pipe, ",
        "is a device",
    ]
