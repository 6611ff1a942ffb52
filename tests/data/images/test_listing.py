"""What is a picture by its name, and what is passed over."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from visionkit.core.errors import DataError
from visionkit.core.output import mark_output
from visionkit.data.images import listing
from visionkit.data.images.listing import list_folders, list_images, passed_over
from visionkit.data.images.reading import read_image


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def names(paths, root):
    return [p.relative_to(root).as_posix() for p in paths]


def test_what_systems_leave_behind_is_no_picture(tmp_path):
    touch(tmp_path, "a.jpg", "b/._x.jpg", "__MACOSX/b/._x.jpg", "__MACOSX/c.jpg", "@eaDir/a.jpg/t.jpg", "b/Thumbs.db")
    touch(tmp_path, ".ipynb_checkpoints/a.jpg", "b/.DS_Store", "b/x.MPO", "$RECYCLE.BIN/a.png")
    assert names(list_images(tmp_path), tmp_path) == ["a.jpg", "b/x.MPO"]
    assert names(list_folders(tmp_path), tmp_path) == ["b"]


def test_what_visionkit_wrote_is_no_data_unless_it_is_asked_for(tmp_path):
    touch(tmp_path, "cat/a.jpg")
    mark_output(tmp_path / "runs" / "classify-1")
    mark_output(tmp_path / "cat" / "preds")
    touch(tmp_path, "runs/classify-1/curves.png", "cat/preds/images/a.jpg")
    assert names(list_images(tmp_path), tmp_path) == ["cat/a.jpg"]
    assert names(list_folders(tmp_path), tmp_path) == ["cat"]
    assert names(passed_over([tmp_path, tmp_path / "cat"]).outputs, tmp_path) == ["runs", "cat/preds"]
    assert names(list_images(tmp_path / "cat" / "preds"), tmp_path) == ["cat/preds/images/a.jpg"]


def test_pictures_of_kinds_that_are_not_read_are_counted(tmp_path):
    touch(tmp_path, "a.HEIC", "b/c.heic", "b/d.dng", "b/e.jpg", "b/f.txt", ".g.heic", "__MACOSX/h.heic")
    found = passed_over([tmp_path])
    assert dict(found.kinds) == {".heic": 2, ".dng": 1}
    assert found.lines() == [
        "3 pictures of kinds that are not read are left out (1 .dng, 2 .heic): pip install 'visionkit[heif]' reads "
        ".heic, else convert them to JPEG or PNG"
    ]
    assert passed_over([tmp_path / "b" / "e.jpg", tmp_path / "none"]).lines() == []


def test_a_name_cannot_forge_a_line(tmp_path):
    mark_output(tmp_path / "a\nerror: no")
    (line,) = passed_over([tmp_path]).lines()
    assert "\n" not in line


@pytest.mark.skipif(listing.reads_heif, reason="the extra heif is installed")
def test_heic_says_what_reads_it(tmp_path):
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 50)
    with pytest.raises(DataError, match=r"a\.heic: a HEIC picture.*pip install 'visionkit\[heif\]'"):
        read_image(tmp_path / "a.heic")


FAKE = """
from PIL import Image, PngImagePlugin

class HeifImageFile(PngImagePlugin.PngImageFile):
    format = "HEIF"

def register_heif_opener():
    Image.register_open("HEIF", HeifImageFile, lambda prefix: prefix[:4] == b"\\x89PNG")
"""


def test_heic_is_read_with_the_extra(tmp_path):
    """A decoder that stands in for pi-heif takes PNG for HEIC: what counts is that it is asked."""
    (tmp_path / "fake").mkdir()
    (tmp_path / "fake" / "pi_heif.py").write_text(FAKE)
    Image.new("RGB", (4, 3), (9, 8, 7)).save(tmp_path / "a.png")
    os.replace(tmp_path / "a.png", tmp_path / "a.heic")
    script = (
        "import sys; from visionkit.data.images.reading import *; from visionkit.data.images import formats;"
        "formats._FORMATS = ('HEIF',); (file,) = list_images(sys.argv[1]); print(read_image(file)[0, 0].tolist())"
    )
    path = os.pathsep.join([str(tmp_path / "fake"), str(Path(listing.__file__).parents[3])])
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.strip() == "[9, 8, 7]", done.stderr


def test_a_folder_that_cannot_be_read_is_named_and_not_taken_for_empty(tmp_path, monkeypatch):
    (tmp_path / "a" / "locked").mkdir(parents=True)
    (tmp_path / "a" / "1.png").touch()
    scan = os.scandir

    def refusing(path):
        if os.fspath(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", refusing)
    for ask in (list_images, lambda folder: passed_over([folder])):
        with pytest.raises(DataError, match=r"a/locked: the folder cannot be read \(Permission denied\)"):
            ask(tmp_path)
    monkeypatch.undo()
    deep, here = tmp_path / "deep", os.open(".", os.O_RDONLY)
    try:
        deep.mkdir()
        os.chdir(deep)
        for _ in range(20):  # more than a path may have
            os.mkdir("d" * 240)
            os.chdir("d" * 240)
    finally:
        os.chdir(here)
        os.close(here)
    with pytest.raises(DataError, match="the folder cannot be read .*name too long"):
        list_images(deep)
    shutil.rmtree(deep)
