"""Sheets of pictures: where each lies, and that captions are there in any script."""

import torch

from visionkit.prediction.sheet import draw_sheet


def plain(colour, height, width):
    return torch.tensor(colour, dtype=torch.uint8)[:, None, None].expand(3, height, width)


def places(sheet, colour):
    """Top, left, bottom and right of the pixels of a colour."""
    rows, columns = (sheet == torch.tensor(colour)[:, None, None]).all(0).nonzero(as_tuple=True)
    return [int(v) for v in (rows.min(), columns.min(), rows.max() + 1, columns.max() + 1)]


RED, BLUE = (250, 0, 0), (0, 0, 250)


def test_pictures_of_a_group_stand_side_by_side_at_their_own_size():
    pair = [(plain(RED, 100, 200), "truth"), (plain(BLUE, 100, 200), "prediction")]
    sheet = draw_sheet([pair], "a heading")
    red, blue = places(sheet, RED), places(sheet, BLUE)
    assert (red[2] - red[0], red[3] - red[1]) == (100, 200)
    assert red[0] == blue[0]
    assert red[3] < blue[1] < red[3] + 20, "close together"
    captions = sheet[:, red[0] - 22 : red[0]]
    assert (captions[:, :, red[1] : red[3]] < 100).any()
    assert (captions[:, :, blue[1] : blue[3]] < 100).any()
    assert (sheet[:, : red[0] - 22] < 100).any(), "the heading"


def test_many_groups_make_rows():
    sheet = draw_sheet([[(plain(RED, 200, 200), str(k))] for k in range(16)], "all")
    inside = (sheet == torch.tensor(RED)[:, None, None]).all(0)
    assert int(inside.sum()) == 16 * 200 * 200, "all are there, none covers another"
    assert 0.6 < sheet.shape[2] / sheet.shape[1] < 2


def test_a_caption_is_no_wider_than_its_picture():
    long = "a name that is much too long for any picture of this width.jpg" * 3
    sheet = draw_sheet([[(plain(RED, 200, 200), long), (plain(BLUE, 200, 200), "")]], "")
    red, blue = places(sheet, RED), places(sheet, BLUE)
    assert (sheet[:, red[0] - 22 : red[0], blue[1] :] > 200).all()


def test_captions_of_any_script():
    one = draw_sheet([[(plain(RED, 100, 200), "Größe.jpg")]], "überall")
    other = draw_sheet([[(plain(RED, 100, 200), "Кошка.jpg")]], "überall")
    assert not torch.equal(one, other)
