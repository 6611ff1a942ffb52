import io
import os
import struct
import zlib

import cv2
import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from visionkit.core.errors import DataError, UsageError
from visionkit.data.images.reading import check_images, decode_image, list_images, load_image, read_image


def picture(height=40, width=56):
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def encode(image, kind, **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def jpeg(pixels=None, **options):
    return encode(Image.fromarray(picture() if pixels is None else pixels), "JPEG", **{"quality": 92} | options)


def png_chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png16(values, colour):
    """Write a 16-bit PNG by hand, uint16 [H, W, C]."""
    height, width = values.shape[:2]
    raw = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0)
    body = png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(raw)) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def pil_rgb(data):
    return np.array(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))


def near(a, b, limit):
    assert a.shape == b.shape
    assert a.dtype == np.uint8
    assert np.abs(a.astype(int) - b).max() <= limit


def test_jpeg_like_pil():
    near(decode_image(jpeg(), "a.jpg"), pil_rgb(jpeg()), 2)


@pytest.mark.parametrize("options", [{"progressive": True}, {"optimize": True}, {"restart_marker_blocks": 2}])
def test_jpeg_kinds(options):
    near(decode_image(jpeg(**options), "a.jpg"), pil_rgb(jpeg(**options)), 2)


def test_gray_jpeg_as_rgb_and_gray():
    data = encode(Image.fromarray(picture()).convert("L"), "JPEG")
    expected = np.array(Image.open(io.BytesIO(data)))
    near(decode_image(data, "a"), np.stack([expected] * 3, 2), 0)
    near(decode_image(data, "a", channels=1), expected[:, :, None], 0)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "GIF", "TIFF", "PPM"])
def test_colour_to_gray_like_pil(kind):
    data = encode(Image.fromarray(picture()), kind)
    expected = np.array(Image.open(io.BytesIO(data)).convert("RGB").convert("L"))[:, :, None]
    near(decode_image(data, "a", channels=1), expected, 0)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_like_pil(kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {"quality": 95} if kind == "JPEG" else {}
    data = encode(Image.fromarray(picture()), kind, exif=exif.tobytes(), **options)
    expected = pil_rgb(data)
    assert expected.shape[:2] == ((40, 56) if orientation < 5 else (56, 40))
    near(decode_image(data, "a"), expected, 2 if kind == "JPEG" else 0)


@pytest.mark.parametrize("size", [(1, 5), (5, 1)])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_picture_of_one_row_or_column_becomes_a_tensor(size, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    data = encode(Image.fromarray(pixels), "PNG", exif=exif.tobytes())
    near(torch.from_numpy(decode_image(data, "a")).numpy(), pil_rgb(data), 0)


def test_orientation_in_xmp():
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf tiff:Orientation="6"/></x:xmpmeta>'
    data = jpeg(xmp=xmp)
    near(decode_image(data, "a"), pil_rgb(data), 0)
    assert decode_image(data, "a").shape == (56, 40, 3)


def test_orientation_of_16_bit_colour():
    exif = Image.Exif()
    exif[0x0112] = 6
    values = picture().astype(np.uint16) * 257
    data = png16(values, 2)
    data = data[:33] + png_chunk(b"eXIf", exif.tobytes()[6:]) + data[33:]
    near(decode_image(data, "a"), np.rot90(picture(), -1), 0)


def test_damaged_exif_is_no_obstacle():
    data = jpeg(exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    near(decode_image(data, "a"), decode_image(jpeg(), "a"), 0)


def test_cmyk_like_pil():
    plain = encode(Image.fromarray(picture()).convert("CMYK"), "JPEG", quality=95)
    assert b"Adobe" in plain  # Pillow stores CMYK inverted, as Adobe does
    near(decode_image(plain, "a"), pil_rgb(plain), 0)
    near(decode_image(plain, "a"), picture(), 12)
    tiff = encode(Image.fromarray(picture()).convert("CMYK"), "TIFF")
    near(decode_image(tiff, "a"), picture(), 1)


def test_palette():
    data = encode(Image.fromarray(picture()).quantize(16), "PNG")
    near(decode_image(data, "a"), pil_rgb(data), 0)


def test_palette_with_transparency_on_white():
    im = Image.new("P", (2, 1))
    im.putpalette([200, 10, 10, 10, 200, 10])
    im.putdata([0, 1])
    pixels = decode_image(encode(im, "PNG", transparency=0), "a")
    assert pixels[0].tolist() == [[255, 255, 255], [10, 200, 10]]


def test_colour_key_on_white():
    im = Image.fromarray(np.array([[[9, 9, 9], [8, 8, 8]]], np.uint8))
    assert decode_image(encode(im, "PNG", transparency=(9, 9, 9)), "a")[0].tolist() == [[255] * 3, [8] * 3]


@pytest.mark.parametrize(("mode", "value", "expected"), [("RGBA", (100, 0, 0, 51), 224), ("LA", (100, 51), 224)])
def test_alpha_on_white(mode, value, expected):
    pixels = decode_image(encode(Image.new(mode, (3, 2), value), "PNG"), "a")
    assert pixels[0, 0, 0] == expected  # (100 * 51 + 255 * 204) / 255


def test_one_bit():
    im = Image.new("1", (2, 1))
    im.putpixel((1, 0), 1)
    assert decode_image(encode(im, "PNG"), "a")[0].tolist() == [[0] * 3, [255] * 3]


@pytest.mark.parametrize("colour", [0, 2, 4, 6])
def test_16_bit_png_by_a_fixed_rule(colour):
    bands = {0: 1, 2: 3, 4: 2, 6: 4}[colour]
    values = np.full((2, 3, bands), 65535, np.uint16)
    values[..., 0] = [[0, 257, 300], [1000, 32768, 65535]]
    pixels = decode_image(png16(values, colour), "a")
    assert pixels.shape == (2, 3, 3)
    assert pixels[..., 0].tolist() == [[0, 1, 1], [4, 128, 255]]


def test_16_bit_tiff_by_the_same_rule():
    gray = np.array([[0, 257, 1000]], np.uint16)
    assert decode_image(encode(Image.fromarray(gray), "TIFF"), "a")[0, :, 0].tolist() == [0, 1, 4]
    colour = np.stack([gray, gray * 0, gray * 2], 2)  # BGR for cv2
    data = cv2.imencode(".tiff", colour)[1].tobytes()
    assert decode_image(data, "a")[0].tolist() == [[0, 0, 0], [2, 0, 1], [8, 0, 4]]


def test_32_bit_integers():
    fits = encode(Image.fromarray(np.array([[0, 65535]], np.int32)), "TIFF")
    assert decode_image(fits, "a")[0, :, 0].tolist() == [0, 255]
    with pytest.raises(DataError, match=r"a\.tif: holds integers from 0 to 70000; save it with 8 or 16 bits"):
        decode_image(encode(Image.fromarray(np.array([[0, 70000]], np.int32)), "TIFF"), "a.tif")


def test_float_tiff():
    fits = encode(Image.fromarray(np.array([[0, 0.5, 1]], np.float32)), "TIFF")
    assert decode_image(fits, "a")[0, :, 0].tolist() == [0, 128, 255]
    for bad in (1.5, -0.1, float("nan")):
        with pytest.raises(DataError, match=r"float values from .* scale them to 0\.\.1"):
            decode_image(encode(Image.fromarray(np.array([[0, bad]], np.float32)), "TIFF"), "a.tif")


def all_kinds():
    big = picture(200, 240)
    for kind in ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM", "JPEG2000"):
        yield pytest.param(encode(Image.fromarray(big), kind), id=kind)
    yield pytest.param(encode(Image.fromarray(big), "JPEG", progressive=True), id="progressive")
    yield pytest.param(encode(Image.fromarray(big).convert("CMYK"), "JPEG"), id="CMYK")


@pytest.mark.parametrize("share", [0.02, 0.5, 0.95])
@pytest.mark.parametrize("data", list(all_kinds()))
def test_cut_files_are_refused(data, share, tmp_path):
    assert decode_image(data, "whole").shape == (200, 240, 3)
    file = tmp_path / "cut"
    file.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(DataError, match=r"^\S*cut: [^\n]+; [^\n]+$"):
        read_image(file)
    assert [i for i, _ in check_images([file])] == [0]


def test_jpeg_with_a_tail_of_zeros():
    data = jpeg(picture(200, 240))
    half = len(data) // 2
    with pytest.raises(DataError, match="cut off"):
        decode_image(data[:half] + bytes(len(data) - half), "a")


def test_jpeg_with_a_foreign_middle():
    data = bytearray(jpeg(picture(200, 240)))
    half = len(data) // 2
    data[half : half + 6] = b"\xff\xc0\x00\x11\x08\x00"  # pixel data cannot hold a frame header
    with pytest.raises(DataError, match="damaged"):
        decode_image(bytes(data), "a")


def test_jpeg_with_something_after_its_end():
    near(decode_image(jpeg() + b"trailing data of a phone", "a"), pil_rgb(jpeg()), 2)


def test_damaged_png():
    data = bytearray(encode(Image.fromarray(picture(200, 240)), "PNG"))
    data[len(data) // 2] ^= 0x55
    with pytest.raises(DataError, match=r"^a.png: the file is damaged; .*\(.*\)$"):
        decode_image(bytes(data), "a.png")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty"),
        (b"\0" * 500, "nothing but zeros"),
        (b"just a text", "not an image"),
        (b"<!DOCTYPE html><html>404</html>", "web page"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (b"%PDF-1.7", "PDF"),
        (b"\0\0\0\x18ftypheic" + bytes(99), "HEIC"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),
        (b"\xff\xd8\xff", "cut off"),
        (b"\x93NUMPY\x01\x00", "npy"),
    ],
)
def test_what_is_no_image(data, message):
    with pytest.raises(DataError, match=f"^x: .*{message}.*; ") as e:
        decode_image(data, "x")
    assert "\n" not in str(e.value)


def test_decompression_bombs():
    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(bytes(1000)))
    data = bytearray(jpeg())
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", 60_000, 60_000)
    for bomb in (png, bytes(data)):
        with pytest.raises(DataError, match="more than 178 million pixels"):
            decode_image(bomb, "bomb")


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        read_image(tmp_path / "a.jpg")
    with pytest.raises(DataError, match="is a folder"):
        read_image(tmp_path)


def test_channels_below_one():
    with pytest.raises(UsageError, match="channels"):
        decode_image(jpeg(), "a", channels=0)


def tiff_bands(pixels, *, planar=False, deflate=False, tile=0):
    """Write a TIFF by hand in strips of 3 rows or in tiles, little-endian."""
    height, width, bands = pixels.shape
    planes = [pixels[:, :, i : i + 1] for i in range(bands)] if planar else [pixels]
    strips = [p[y : y + 3].tobytes() for p in planes for y in range(0, height, 3)]
    if tile:
        full = np.pad(pixels, ((0, -height % tile), (0, -width % tile), (0, 0)))
        corners = [(y, x) for y in range(0, height, tile) for x in range(0, width, tile)]
        strips = [full[y : y + tile, x : x + tile].tobytes() for y, x in corners]
    strips = [zlib.compress(s) for s in strips] if deflate else strips
    tags = {256: [width], 257: [height], 258: [8 * pixels.itemsize] * bands, 259: [8 if deflate else 1], 262: [1]}
    tags |= {277: [bands], 278: [3], 279: [len(s) for s in strips], 284: [2 if planar else 1], 273: [0] * len(strips)}
    where = 324 if tile else 273
    if tile:
        del tags[273], tags[278]
        tags |= {322: [tile], 323: [tile], 324: [0] * len(strips), 325: tags.pop(279)}
    tail = 8 + 2 + 12 * len(tags) + 4
    start = tail + sum(4 * len(v) for v in tags.values() if len(v) > 1)
    tags[where] = [start + sum(map(len, strips[:i])) for i in range(len(strips))]
    entries, extra = b"", b""
    for tag, values in sorted(tags.items()):
        packed = struct.pack(f"<{len(values)}I", *values)
        if len(values) > 1:
            extra, packed = extra + packed, struct.pack("<I", tail + len(extra))
        entries += struct.pack("<HHI", tag, 4, len(values)) + packed
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + extra + b"".join(strips)


@pytest.mark.parametrize("bands", [2, 4, 5, 8])
@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("deflate", [False, True])
def test_tiff_of_many_bands(bands, planar, deflate):
    pixels = np.random.default_rng(0).integers(0, 256, (8, 9, bands), dtype=np.uint8)
    data = tiff_bands(pixels, planar=planar, deflate=deflate)
    near(decode_image(data, "a", channels=bands), pixels, 0)
    near(decode_image(tiff_bands(pixels.astype(np.uint16) * 257, planar=planar), "a", channels=bands), pixels, 0)
    with pytest.raises(DataError, match=rf"has {bands} band\(s\), not 7"):
        decode_image(data, "a", channels=7)
    with pytest.raises(DataError, match=r"cut off|damaged"):
        decode_image(data[:-20], "a", channels=bands)


def test_tiff_of_pillow_as_four_bands():
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 4), dtype=np.uint8)
    data = encode(Image.fromarray(pixels), "TIFF", compression="tiff_adobe_deflate")
    near(decode_image(data, "a", channels=4), pixels, 0)


def test_tiff_in_tiles():
    pixels = np.random.default_rng(0).integers(0, 256, (20, 40, 5), dtype=np.uint8)
    data = tiff_bands(pixels, tile=16)
    near(decode_image(data, "a", channels=5), pixels, 0)


def test_rgba_as_four_bands():
    pixels = np.random.default_rng(0).integers(0, 256, (4, 5, 4), dtype=np.uint8)
    near(decode_image(encode(Image.fromarray(pixels), "PNG"), "a", channels=4), pixels, 0)
    with pytest.raises(DataError, match=r"a.jpg: has 3 band\(s\), not 4"):
        decode_image(jpeg(), "a.jpg", channels=4)


def test_npy(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (4, 5, 6), dtype=np.uint8)
    np.save(tmp_path / "a.npy", pixels)
    assert (read_image(tmp_path / "a.npy", channels=6) == pixels).all()
    np.save(tmp_path / "f.npy", np.asfortranarray(pixels))
    assert (read_image(tmp_path / "f.npy", channels=6) == pixels).all()
    with pytest.raises(DataError, match=r"save it as uint8 \[H, W, 5\]"):
        read_image(tmp_path / "a.npy", channels=5)
    np.save(tmp_path / "b.npy", pixels.astype(np.float32))
    with pytest.raises(DataError, match="float32"):
        read_image(tmp_path / "b.npy", channels=6)
    (tmp_path / "c.npy").write_bytes((tmp_path / "a.npy").read_bytes()[:-1])
    with pytest.raises(DataError, match="cut off"):
        read_image(tmp_path / "c.npy", channels=6)
    np.save(tmp_path / "d.npy", np.array([{}]), allow_pickle=True)
    with pytest.raises(DataError, match="object"):
        read_image(tmp_path / "d.npy", channels=6)


def test_arrays_are_writable_and_contiguous():
    for data in (jpeg(), encode(Image.fromarray(picture()), "PNG"), encode(Image.new("RGBA", (3, 2)), "PNG")):
        for channels in (1, 3):
            pixels = decode_image(data, "a", channels=channels)
            assert pixels.flags.writeable
            assert pixels.flags.c_contiguous


def test_list_images(tmp_path):
    for name in ("b.JPG", "a/c.png", "a/d.txt", ".e.jpg", ".f/g.jpg", "a/h.TiFf", "i.npy", "._j.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    assert [p.relative_to(tmp_path).as_posix() for p in list_images(tmp_path)] == ["a/c.png", "a/h.TiFf", "b.JPG"]
    assert tmp_path / "i.npy" in list_images(tmp_path, channels=5)
    with pytest.raises(DataError, match="no such folder"):
        list_images(tmp_path / "nowhere")
    with pytest.raises(DataError, match="is a file"):
        list_images(tmp_path / "b.JPG")


def test_check_images(tmp_path):
    good, empty, cut = tmp_path / "good.jpg", tmp_path / "empty.png", tmp_path / "cut.jpg"
    good.write_bytes(jpeg())
    empty.touch()
    cut.write_bytes(jpeg()[:-30])
    seen = []
    problems = check_images(
        [cut, good, None, empty, tmp_path / "gone.jpg"], workers=3, progress=lambda *s: seen.append(s)
    )
    assert [i for i, _ in problems] == [0, 3, 4]
    assert [m.split(": ", 1)[0] for _, m in problems] == [str(cut), str(empty), str(tmp_path / "gone.jpg")]
    assert seen == [(i, 5) for i in range(1, 6)]
    assert check_images([]) == []


def encoded(pixels, **options):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=95, **options)
    return stream.getvalue()


def soft(height, width):
    coarse = np.random.default_rng(0).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("needed", "reduced"), [((0.51, 0.1), 1), ((0.5, 0.3), 2), ((0.2, 0.26), 2), ((0.25, 0.25), 4), ((0.01, 0.125), 8)]
)
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_reduced_decoding_leaves_what_is_needed(tmp_path, channels, needed, reduced, mode):
    path = tmp_path / "a.jpg"
    picture = soft(203, 301)
    path.write_bytes(encoded(np.asarray(Image.fromarray(picture).convert(mode))))
    asked = []
    found = load_image(path, channels=channels, scale=lambda size: asked.append(size) or needed)
    assert asked == [(203, 301)]
    assert (found.reduced, found.size) == (reduced, (203, 301))
    assert found.pixels.shape == (-(-203 // reduced), -(-301 // reduced), channels)
    whole = read_image(path, channels=channels)
    assert np.array_equal(load_image(path, channels=channels).pixels, whole)
    height, width = (edge // reduced * reduced for edge in whole.shape[:2])
    blocks = whole[:height, :width].reshape(height // reduced, reduced, width // reduced, reduced, channels)
    means = blocks.astype(float).mean((1, 3))
    assert np.abs(found.pixels[: height // reduced, : width // reduced] - means).mean() < 2.5


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("shape", [(160, 240), (161, 240), (160, 160)])
def test_reduced_decoding_of_turned_pictures(tmp_path, orientation, shape):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "a.jpg"
    path.write_bytes(encoded(soft(*shape), exif=exif))
    whole = read_image(path)
    found = load_image(path, scale=lambda size: (0.2, 0.25) if size == whole.shape[:2] else (0.25, 0.2))
    assert found.size == whole.shape[:2]
    assert found.reduced == (1 if shape[0] % 2 else 4)  # a pixel that is one in part must not come first
    small = cv2.resize(whole, found.pixels.shape[1::-1], interpolation=cv2.INTER_AREA)
    assert np.abs(found.pixels.astype(int) - small).mean() < 2.5


def test_what_is_no_plain_jpeg_is_read_whole(tmp_path):
    for name, mode in (("a.png", "RGB"), ("a.jpg", "CMYK")):
        Image.fromarray(soft(64, 96)).convert(mode).save(tmp_path / name)
        found = load_image(tmp_path / name, scale=lambda size: (0.1, 0.1))
        assert (found.reduced, found.size, found.pixels.shape) == (1, (64, 96), (64, 96, 3))
        assert np.array_equal(found.pixels, read_image(tmp_path / name))


def test_reduced_decoding_finds_what_is_wrong(tmp_path):
    data = encoded(soft(64, 96))
    for name, content in (("cut.jpg", data[:-400]), ("empty.jpg", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=name) as whole:
            read_image(tmp_path / name)
        with pytest.raises(DataError) as reduced:
            load_image(tmp_path / name, scale=lambda size: (0.1, 0.1))
        assert str(whole.value) == str(reduced.value)


def test_a_device_or_a_pipe_is_no_picture(tmp_path):
    os.symlink("/dev/zero", tmp_path / "a.jpg")
    os.mkfifo(tmp_path / "b.jpg")
    found = check_images([tmp_path / "a.jpg", tmp_path / "b.jpg"])
    assert [message.partition(".jpg: ")[2] for _, message in found] == [
        "is a device, not a file; give a file, or remove it",
        "is a pipe, not a file; give a file, or remove it",
    ]
