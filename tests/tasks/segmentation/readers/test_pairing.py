import pytest
from PIL import Image

from visionkit.core.errors import DataError
from visionkit.tasks.segmentation.readers.pairing import pair_masks


def pictures(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4)).save(folder / name)


def keys(pairs, root):
    return [(p.key, p.mask.removeprefix(f"{root}/")) for p in pairs.found]


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("a.jpg", "a.png"), ("a.b.jpg", "a.b.png"), ("a.jpg", "a_mask.png"), ("a.jpg", "a-mask.png"), ("a.jpg", "a_Mask.png"),
        ("a.png", "a_L.png"), ("a.jpg", "a_segmentation.png"), ("a.jpg", "a_labelIds.png"), ("a.jpg", "a_gtFine_labelIds.png"),
        ("a_leftImg8bit.png", "a_gtFine_labelTrainIds.png"), ("a_leftImg8bit.png", "a_gtCoarse_labelIds.png"),
        ("a_mask.jpg", "a_mask.png"), ("a_mask.jpg", "a_mask_mask.png"), ("city/a.jpg", "city/a_label.png"),
    ],
)  # fmt: skip
def test_what_masks_are_called(tmp_path, image, mask):
    pictures(tmp_path / "i", image, "x/other.png")
    pictures(tmp_path / "m", mask)
    pairs = pair_masks(tmp_path / "i", tmp_path / "m")
    assert keys(pairs, tmp_path / "m") == [(image, mask)]
    assert pairs.unmasked == 1


def test_subfolders_keep_the_same_names_apart(tmp_path):
    pictures(tmp_path / "i", "one/a.png", "two/a.png", "a.png")
    pictures(tmp_path / "m", "one/a.png", "two/a_mask.png", "a.png")
    assert keys(pair_masks(tmp_path / "i", tmp_path / "m"), tmp_path / "m") == [
        ("a.png", "a.png"), ("one/a.png", "one/a.png"), ("two/a.png", "two/a_mask.png"),
    ]  # fmt: skip


def test_what_is_refused(tmp_path):
    images, masks = tmp_path / "i", tmp_path / "m"
    pictures(images, "a.png", "b.png")
    pictures(masks, "c.png")
    with pytest.raises(DataError) as e:
        pair_masks(images, masks)
    assert str(e.value) == (
        f"{images}: none of 2 images has a mask; looked in {masks} for files such as a.png or a_mask.png"
    )
    pictures(masks, "a.png", *(f"d{i}.png" for i in range(11)))
    with pytest.raises(DataError) as e:
        pair_masks(images, masks)
    lines = str(e.value).split("\n")
    assert lines[0] == f"{masks}/c.png: no image of this name"
    assert lines[10:] == [
        "... and 2 more",
        f"{masks}: 12 masks have no image in {images}; add the images or remove the masks",
    ]
    pictures(masks, "a_mask.png")
    with pytest.raises(
        DataError, match=rf"^{images}/a\.png: has two masks, {masks}/a\.png and {masks}/a_mask\.png; keep one of"
    ):
        pair_masks(images, masks)
    pictures(images, "a.jpg")
    with pytest.raises(
        DataError, match=rf"^{images}/a\.png: has the same name as a\.jpg beside it, so its mask is unclear; re"
    ):
        pair_masks(images, masks)
    with pytest.raises(DataError, match="nowhere: no such folder"):
        pair_masks(masks, tmp_path / "nowhere")


def test_only_masks_with_an_ending(tmp_path):
    pictures(tmp_path / "i", "a_leftImg8bit.png")
    pictures(tmp_path / "m", "a_gtFine_labelIds.png", "a_gtFine_color.png", "a_gtFine_instanceIds.png")
    with pytest.raises(DataError, match="2 masks have no image"):
        pair_masks(tmp_path / "i", tmp_path / "m")
    assert len(pair_masks(tmp_path / "i", tmp_path / "m", ending="_labelIds").found) == 1


def test_lists(tmp_path):
    images, masks, file = tmp_path / "i", tmp_path / "m", tmp_path / "list.txt"
    pictures(images, "a.jpg", "b.jpg", "c.jpg", "d.jpg")
    pictures(masks, "a.png", "b.png")
    file.write_text("b\na.jpg\r\n\nb\n")
    assert [p.key for p in pair_masks(images, masks, listed=file).found] == ["a.jpg", "b.jpg"]
    file.write_text("c\nd\n")
    assert pair_masks(images, masks, listed=file) == ([], (str(images / "c.jpg"), str(images / "d.jpg")))
    file.write_text("a\nc\n")
    with pytest.raises(DataError, match=rf"^{file}:2: c: no mask in {masks}; add it or remove the line$"):
        pair_masks(images, masks, listed=file)
    file.write_text("a\n\nz.jpg\n")
    with pytest.raises(DataError, match=rf"^{file}:3: z: no such image in {images}; add it or remove the line$"):
        pair_masks(images, masks, listed=file)
