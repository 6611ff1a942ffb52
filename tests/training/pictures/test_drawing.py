"""Truth and prediction on pictures that are resized to be seen."""

import torch

from visionkit import BoxPrediction, BoxTarget, ClassTarget, ImageInfo
from visionkit.training.pictures.drawing import draw_prediction, draw_truth


def grey(height, width, channels=3):
    return torch.full((channels, height, width), 100, dtype=torch.uint8)


def edges(drawn):
    rows, columns = (drawn != 100).any(0).nonzero(as_tuple=True)
    return [int(v) for v in (rows.min(), columns.min(), rows.max(), columns.max())]


def test_small_pictures_are_enlarged_and_large_ones_shrunk():
    one = ClassTarget.make(0, 2)
    assert draw_truth(grey(32, 16), one, ["cat", "dog"]).shape == (3, 224, 112)
    assert draw_truth(grey(3000, 4000), one, ["cat", "dog"]).shape == (3, 240, 320)
    boxes = BoxTarget.make([[1, 1, 3, 3]], [0])
    assert draw_truth(grey(32, 32), boxes, ["cat"]).shape == (3, 400, 400)


def test_boxes_move_with_their_picture():
    drawn = draw_truth(grey(40, 20), BoxTarget.make([[5, 10, 15, 30]], [0]), [""])
    assert edges(drawn)[:2] == [100, 50]
    assert abs(edges(drawn)[2] - 299) <= 1
    assert abs(edges(drawn)[3] - 149) <= 1


def test_a_prediction_lies_where_its_truth_does_whatever_the_model_saw():
    info = ImageInfo("a", (40, 20), scale=(3.0, 2.0), offset=(7, 5))  # of the picture that the model saw
    seen = torch.tensor([[5 * 2 + 5.0, 10 * 3 + 7, 15 * 2 + 5, 30 * 3 + 7]])
    guess = BoxPrediction(seen, torch.tensor([0.9]), torch.tensor([0]))
    truth = BoxTarget.make([[5, 10, 15, 30]], [0])
    drawn = draw_prediction(grey(40, 20), guess, truth, info, [""])
    places = edges(drawn)
    assert abs(places[2] - 299) <= 1
    assert abs(places[3] - 149) <= 1
    assert places[1] == 50


def test_the_first_channels_of_pictures_without_colours():
    image = torch.stack([torch.full((300, 300), v, dtype=torch.uint8) for v in (10, 20, 30, 40)])
    assert draw_truth(image, ClassTarget.make(0, 1), [""])[:, 150, 150].tolist() == [10, 20, 30]
    assert draw_truth(image[3:], ClassTarget.make(0, 1), [""])[:, 150, 150].tolist() == [40, 40, 40]
    assert draw_truth(image[:2], ClassTarget.make(0, 1), [""])[:, 150, 150].tolist() == [10, 10, 10]


def test_a_target_of_the_users_own_that_cannot_be_drawn():
    class Own:
        def to(self, device):
            return self

    assert torch.equal(draw_truth(grey(300, 300), Own(), []), grey(300, 300))
