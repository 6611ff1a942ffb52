import pytest
import torch

import visionkit
from visionkit import ImageInfo, LinearHead, Preprocessing, ResNet, Sample, UsageError, VisionModel
from visionkit.models.backbones.base import IMAGENET_MEAN, IMAGENET_STD
from visionkit.tasks.detection.types import BoxPrediction
from visionkit.tasks.segmentation.types import MaskPrediction


def images(batch=2, size=32, channels=3):
    return torch.randint(
        0, 256, (batch, channels, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )


def test_normalise_equals_torchvision(tiny_model):
    from torchvision.transforms.functional import convert_image_dtype, normalize

    expected = normalize(convert_image_dtype(images(), torch.float32), IMAGENET_MEAN, IMAGENET_STD)
    torch.testing.assert_close(tiny_model.normalise(images()), expected)


def test_normalise_keeps_memory_order_and_input(tiny_model):
    batch = images().contiguous(memory_format=torch.channels_last)
    before = batch.clone()
    assert tiny_model.normalise(batch).is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(batch, before)


def test_wrong_number_of_channels_names_both_keys(tiny_model):
    with pytest.raises(UsageError, match=r"1 channels but the backbone takes 3.*--data.channels 3"):
        tiny_model(images(channels=1))


def test_classes_must_be_unique_and_there():
    for classes in ([], ["a", "a"]):
        with pytest.raises(UsageError, match="unique names"):
            VisionModel(ResNet(18), LinearHead, classes)


def test_predict_refuses_training_mode_and_leaves_no_graph(tiny_model):
    probabilities = tiny_model.predict(images())[0].probabilities
    assert not probabilities.requires_grad
    with pytest.raises(UsageError, match="model.eval"):
        tiny_model.train().predict(images())


@pytest.mark.parametrize("size", [(32, 32), (37, 50), (1, 33), (20, 8)])
def test_pictures_are_brought_to_the_models_size_and_predictions_back(tiny_model, monkeypatch, size):
    """The model's own preprocessing, whatever the size: masks end with the picture, and boxes in it."""
    batch = torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8)
    seen = [tiny_model.preprocessing(Sample(x, None, ImageInfo("", size))) for x in batch]
    expected = tiny_model.decode(torch.stack([s.image for s in seen]))
    for found, wanted in zip(tiny_model.predict(batch), expected, strict=True):
        torch.testing.assert_close(found.probabilities, wanted.probabilities)

    cells = MaskPrediction.of(torch.rand(3, 2, 2), 16)
    monkeypatch.setattr(LinearHead, "decode", lambda self, outputs: [cells] * len(outputs.logits))
    for mask in tiny_model.predict(batch):
        assert torch.equal(mask.labels, cells.restore(seen[0].info).labels)
        assert mask.labels.shape == size

    whole = BoxPrediction(torch.tensor([[0.0, 0, 32, 32]]), torch.ones(1), torch.zeros(1, dtype=torch.int64))
    monkeypatch.setattr(LinearHead, "decode", lambda self, outputs: [whole] * len(outputs.logits))
    for boxes in tiny_model.predict(batch):
        assert boxes.boxes[0].tolist() == pytest.approx([0, 0, size[1], size[0]])
        assert boxes.size == size


def test_decode_refuses_training_mode_and_leaves_no_graph(tiny_model):
    assert not tiny_model.decode(images())[0].probabilities.requires_grad
    with pytest.raises(UsageError, match="model.eval"):
        tiny_model.train().decode(images())


def test_spec_round_trip(tiny_model):
    again = VisionModel.from_spec(tiny_model.spec())
    assert again.spec() == tiny_model.spec()
    again.load_state_dict(tiny_model.state_dict())
    torch.testing.assert_close(again.eval()(images()), tiny_model(images()))


def test_spec_is_plain_data(tiny_model):
    import json

    assert json.loads(json.dumps(tiny_model.spec())) == tiny_model.spec()


def test_head_gets_channels_and_classes_from_the_model():
    model = VisionModel(ResNet(50), LinearHead, ["a", "b"])
    assert model.head.classifier[1].weight.shape == (2, 2048)


def test_grey_images_end_to_end():
    model = VisionModel(
        ResNet(18, in_channels=1), LinearHead, ["a", "b"], preprocessing=Preprocessing(32, channels=1)
    ).eval()
    assert len(model.predict(images(channels=1))) == 2
    assert visionkit.VisionModel.from_spec(model.spec()).backbone.in_channels == 1


class TestPreprocessingOfTheData:
    def test_it_is_taken_where_none_was_given(self):
        model = VisionModel(ResNet(18), LinearHead, ["a", "b"])
        theirs = Preprocessing((48, 64), resize="letterbox")
        model.take_preprocessing(theirs)
        assert model.preprocessing is theirs
        model.take_preprocessing(Preprocessing(32))  # another training on other data
        assert model.preprocessing.size == (32, 32)

    def test_another_than_the_given_one_is_refused(self):
        model = VisionModel(ResNet(18), LinearHead, ["a", "b"], preprocessing=Preprocessing(32))
        model.take_preprocessing(Preprocessing(32))
        for other in (Preprocessing(64), Preprocessing(32, resize="crop"), Preprocessing(32, denoise="median")):
            with pytest.raises(UsageError, match=r"32 x 32 pixels, RGB, squash\) is not the data's \(.*preprocessing="):
                model.take_preprocessing(other)
        assert model.preprocessing.size == (32, 32)

    def test_channels_must_be_the_backbones(self):
        model = VisionModel(ResNet(18), LinearHead, ["a", "b"])
        with pytest.raises(UsageError, match="1 channels but the backbone takes 3"):
            model.take_preprocessing(Preprocessing(224, channels=1))
