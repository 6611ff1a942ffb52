import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from visionkit.core.errors import DataError
from visionkit.tasks.segmentation.readers.mask_files import find_ids, pack, read_mask_file, unpack


def png(path, values, depth, colour_type=0):
    """Write a PNG of 1, 2, 4 bits by hand."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b""
    for row in values:
        bits = "".join(f"{v:0{depth}b}" for v in row)
        bits += "0" * (-len(bits) % 8)
        rows += b"\0" + bytes(int(bits[i : i + 8], 2) for i in range(0, len(bits), 8))
    head = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], depth, colour_type, 0, 0, 0)
    palette = chunk(b"PLTE", bytes(i % 256 for i in range(3 * 2**depth))) if colour_type == 3 else b""
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + palette
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
@pytest.mark.parametrize("colour_type", [0, 3])
def test_ids_of_few_bits_are_not_stretched(tmp_path, depth, colour_type):
    values = np.random.default_rng(0).integers(0, 2**depth, (5, 7))
    png(tmp_path / "a.png", values, depth, colour_type)
    mask = read_mask_file(tmp_path / "a.png")
    assert mask.ids.dtype == np.uint8
    assert (mask.ids == values).all()
    assert (mask.palette is None) == (colour_type == 0)


def test_sixteen_bits(tmp_path):
    values = np.array([[0, 200], [300, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png")
    assert (read_mask_file(tmp_path / "a.png").ids == values).all()
    Image.fromarray(values.astype(np.int32)).save(tmp_path / "a.tif")
    assert (read_mask_file(tmp_path / "a.tif").ids == values).all()
    Image.fromarray(np.array([[0, -3]], np.int32)).save(tmp_path / "b.tif")
    with pytest.raises(DataError, match=r"b\.tif: holds the value -3; ids are 0\.\.65535, correct the mask$"):
        read_mask_file(tmp_path / "b.tif")


def test_colours_and_alpha(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (3, 4, 4), np.uint8)
    Image.fromarray(pixels[..., :3]).save(tmp_path / "a.png")
    mask = read_mask_file(tmp_path / "a.png")
    assert mask.ids is None
    assert [unpack(int(c)) for c in mask.colours.ravel()] == [tuple(p) for p in pixels[..., :3].reshape(-1, 3).tolist()]
    assert (pack(pixels[..., :3]) == mask.colours).all()
    pixels[..., 3] = 255
    Image.fromarray(pixels).save(tmp_path / "b.png")
    assert (read_mask_file(tmp_path / "b.png").colours == mask.colours).all()
    pixels[0, 0, 3] = 254
    Image.fromarray(pixels).save(tmp_path / "b.png")
    with pytest.raises(DataError, match=r"b\.png: the mask has transparent pixels, whose class is not clear; save it"):
        read_mask_file(tmp_path / "b.png")


def test_orientation_does_not_count(tmp_path):
    values = np.arange(6, dtype=np.uint8).reshape(2, 3)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(values).save(tmp_path / "a.png", exif=exif)
    assert (read_mask_file(tmp_path / "a.png").ids == values).all()


def test_files_that_are_no_masks(tmp_path):
    with pytest.raises(DataError, match=r"a\.png: no such file; check the path"):
        read_mask_file(tmp_path / "a.png")
    (tmp_path / "a.png").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"a\.png: the mask cannot be read \(.*\); copy or export it again"):
        read_mask_file(tmp_path / "a.png")
    Image.new("L", (40, 40)).save(tmp_path / "b.png")
    (tmp_path / "b.png").write_bytes((tmp_path / "b.png").read_bytes()[:50])
    with pytest.raises(DataError, match=r"b\.png: the mask cannot be read"):
        read_mask_file(tmp_path / "b.png")
    Image.new("L", (4, 4)).save(tmp_path / "c.jpg")
    with pytest.raises(DataError, match=r"c\.jpg: is a JPEG, which blurs the ids of a mask; export the masks as PNG"):
        read_mask_file(tmp_path / "c.jpg")
    Image.fromarray(np.zeros((2, 2), np.float32)).save(tmp_path / "d.tif")
    with pytest.raises(DataError, match=r"d\.tif: a mask of mode F holds neither ids nor colours; save it as PNG"):
        read_mask_file(tmp_path / "d.tif")


def test_ids_of_many_masks(tmp_path):
    paths = [str(tmp_path / f"{i}.png") for i in range(4)]
    for path, values in zip(paths, ([0, 1], [1, 255], [3, 3]), strict=False):
        Image.fromarray(np.array([values], np.uint8)).save(path)
    found = find_ids(paths, colours=False)
    assert found.ids == {0: 1, 1: 2, 3: 1, 255: 1}
    assert found.masks == 3
    assert found.problem == f"{paths[3]}: no such file; check the path"
    Image.fromarray(np.full((2, 2, 3), 9, np.uint8)).save(paths[3])
    assert find_ids(paths, colours=False).ids[9] == 1
    assert find_ids(paths, colours=True).coloured == paths[3]
    Image.fromarray(np.array([[[9, 9, 8]]], np.uint8)).save(paths[3])
    assert find_ids(paths, colours=False).coloured == paths[3]


def test_no_program_is_started_for_a_mask(tmp_path, monkeypatch):
    """Pillow draws EPS with Ghostscript, whatever the file's name says."""
    (tmp_path / "gs").write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    (tmp_path / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    (tmp_path / "a.png").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n%%EndComments\nshowpage\n%%EOF\n")
    with pytest.raises(DataError, match=r"a\.png: the mask cannot be read \(not an image of a known kind\); copy or"):
        read_mask_file(tmp_path / "a.png")
    assert not (tmp_path / "ran").exists()
