import dataclasses

import pytest
import torch

from visionkit.core.errors import DataError
from visionkit.core.sample import Batch, ImageInfo, Sample, collate
from visionkit.tasks.classification.types import ClassTarget


def sample(i=0, shape=(3, 4, 5)):
    image = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(i))
    return Sample(image, ClassTarget(torch.tensor([float(i), 1.0])), ImageInfo(f"{i}.jpg", shape[1:]))


def test_info_defaults_to_the_original_pixels():
    info = ImageInfo("a", (4, 5))
    assert info.scale == (1.0, 1.0)
    assert info.offset == (0, 0)
    assert info.extra == {}


def test_sample_is_frozen_and_replaces():
    s = sample()
    with pytest.raises(dataclasses.FrozenInstanceError):
        s.image = None
    other = s.replace(info=ImageInfo("b", (1, 1)))
    assert other.info.id == "b"
    assert other.image is s.image
    assert s.info.id == "0.jpg"


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_collate_keeps_pixels_in_channels_last_order(channels):
    samples = [sample(i, (channels, 4, 5)) for i in range(3)]
    batch = collate(samples)
    assert len(batch) == 3
    assert batch.images.shape == (3, channels, 4, 5)
    assert batch.images.dtype == torch.uint8
    assert batch.images.is_contiguous(memory_format=torch.channels_last)
    for row, s in zip(batch.images, samples, strict=True):
        assert torch.equal(row, s.image)
    assert [t.scores[0].item() for t in batch.targets] == [0, 1, 2]
    assert [i.id for i in batch.infos] == ["0.jpg", "1.jpg", "2.jpg"]


def test_collate_copies():
    s = sample()
    before = s.image.clone()
    batch = collate([s])
    batch.images.zero_()
    assert torch.equal(s.image, before)


@pytest.mark.parametrize("shape", [(3, 4, 6), (1, 4, 5)])
def test_collate_names_the_image_that_differs(shape):
    with pytest.raises(DataError, match=r"^1\.jpg: image of shape"):
        collate([sample(0), sample(1, shape)])


def test_batch_moves_images_and_targets():
    batch = collate([sample(0), sample(1)]).to("meta")
    assert isinstance(batch, Batch)
    assert batch.images.device.type == "meta"
    assert all(t.scores.device.type == "meta" for t in batch.targets)
    assert batch.images.dtype == torch.uint8
