"""VisionModel: backbone -> neck -> head. Plain PyTorch; what people import, export and serve."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from visionkit.core.component import Spec, build, parameters_of, spec_of
from visionkit.core.errors import UsageError
from visionkit.core.prediction import Prediction
from visionkit.core.sample import Batch, Sample, collate
from visionkit.core.thresholds import Thresholds
from visionkit.data.images.given import Pictures, is_one_picture, is_picture, samples_of
from visionkit.data.transforms.preprocessing import Preprocessing
from visionkit.models.backbones.base import Backbone, FeatureSpec
from visionkit.models.evidence import Evidence, Subject
from visionkit.models.head import Head, HeadFactory
from visionkit.models.necks.base import Neck
from visionkit.models.necks.identity import IdentityNeck

__all__ = ["NeckFactory", "VisionModel", "teachers_of"]

NeckFactory = Callable[[FeatureSpec], Neck]
"""Makes a neck for feature maps of this spec."""


class VisionModel(nn.Module):
    """A backbone, a neck and a head, with the class names and the preprocessing that belong to them.

    Args:
        backbone: Turns images into feature maps.
        head: Makes the head from the neck's feature spec and the number of classes.
        classes: Class names; a name's position is its id inside tensors.
        neck: Makes the neck from the backbone's feature spec.
        preprocessing: Brings an image of any size to the size that the model was trained for.

    Raises:
        UsageError: Class names are missing or not unique, or preprocessing and backbone differ in channels.
    """

    images_at_once = 8
    """Pictures that :meth:`predict` computes together."""
    thresholds: Thresholds | None = None
    """From which score on each class counts, where ``visionkit evaluate --choose`` has chosen it; :meth:`predict` goes
    by it. A training drops them: they speak of the model as it was."""
    teachers: tuple[Mapping[str, str], ...] = ()
    """Names ("source") and hashes ("sha256") of the checkpoints that taught it, as far as its own checkpoint tells."""

    def __init__(
        self,
        backbone: Backbone,
        head: HeadFactory,
        classes: Sequence[str],
        neck: NeckFactory = IdentityNeck,
        *,
        preprocessing: Preprocessing | None = None,
    ) -> None:
        super().__init__()
        if not classes or len(set(classes)) != len(classes):
            raise UsageError(f"classes must be unique names, at least one; got {list(classes)}")
        self.classes = tuple(classes)
        self.preprocessing_is_assumed = preprocessing is None
        """Whether nobody said how pictures are brought to the model's size; a training then takes it from its data."""
        self.preprocessing = Preprocessing(channels=backbone.in_channels) if preprocessing is None else preprocessing
        _check_channels(self.preprocessing.channels, backbone.in_channels)
        self.backbone = backbone
        self.neck: Neck = neck(backbone.features)
        self.head: Head = head(self.neck.features, len(self.classes))
        self.scale: Tensor
        self.shift: Tensor
        for name in ("scale", "shift"):
            self.register_buffer(name, torch.empty(1, backbone.in_channels, 1, 1), persistent=False)
        self.take_statistics()

    def take_preprocessing(self, preprocessing: Preprocessing) -> None:
        """Go by the preprocessing of the data that the model is trained or measured on, unless it was given another.

        Args:
            preprocessing: The data's.

        Raises:
            UsageError: The model was given one that brings pictures to another form.
        """
        kinds = {type(self.preprocessing), type(preprocessing)}
        names = parameters_of(type(preprocessing))
        if len(kinds) == 1 and all(getattr(self.preprocessing, n) == getattr(preprocessing, n) for n in names):
            return
        if not self.preprocessing_is_assumed:
            raise UsageError(
                f"the model's preprocessing ({self.preprocessing}) is not the data's ({preprocessing}): give the model "
                "preprocessing=data.preprocessing, or data of the model's size"
            )
        _check_channels(preprocessing.channels, self.backbone.in_channels)
        self.preprocessing = preprocessing

    def take_statistics(self) -> None:
        """Let :meth:`normalise` go by the backbone's mean and std of now."""
        std = torch.tensor(self.backbone.std).view(1, -1, 1, 1) * 255.0
        self.scale.copy_(1.0 / std)
        self.shift.copy_(-torch.tensor(self.backbone.mean).view(1, -1, 1, 1) * 255.0 / std)

    def normalise(self, images: Tensor) -> Tensor:
        """Bring uint8 images to the statistics that the backbone expects.

        Args:
            images: uint8 [B, C, H, W].

        Returns:
            Float [B, C, H, W] in the same memory order.

        Raises:
            UsageError: The images have another number of channels than the backbone takes.
        """
        _check_channels(images.shape[1], self.backbone.in_channels)
        return (images * self.scale).add_(self.shift)

    def __call__(self, images: Any, *args: Any, **kwargs: Any) -> Any:
        """Predict pictures as :meth:`predict` does: ``visionkit.load("runs/classify-1")("photo.jpg")``.

        A batch of images, a tensor [B, C, H, W], goes through :meth:`forward` instead, as with any module.
        """
        pictures = images.ndim == 3 if isinstance(images, Tensor) else is_picture(images)
        return self.predict(images) if pictures else super().__call__(images, *args, **kwargs)

    def forward(self, images: Tensor) -> Any:
        """Compute the head's outputs.

        Args:
            images: uint8 [B, C, H, W]; normalised here, on the device.
        """
        return self.head(self.neck(self.backbone(self.normalise(images))))

    def outputs(self, batch: Batch[Any]) -> Any:
        """Compute the head's outputs of a batch of training or evaluation, as far as its targets ask for them.

        Args:
            batch: Images and targets; where it brings features, the backbone is spared.
        """
        levels = self.backbone(self.normalise(batch.images)) if batch.features is None else batch.features
        return self.head.forward_for(self.neck(levels), batch.targets)

    def loss(self, outputs: Any, targets: Sequence[Any]) -> dict[str, Tensor]:
        """Return the head's named losses."""
        return self.head.loss(outputs, targets)

    def predict(self, images: Pictures) -> Any:  # one Prediction or a list of them
        """Return what the model says of pictures, in their own pixels; it brings them to its size itself.

        Args:
            images: A picture, which gives one prediction: the path of a file, a Pillow image of any mode, an array
                uint8 [H, W, C] or grey [H, W], or a tensor uint8 [C, H, W]; or several, which give a list of as many: a
                list of pictures, or a tensor uint8 [B, C, H, W]. Colours are RGB. Models of 1 and 3 channels take grey
                and colour pictures alike.

        Raises:
            UsageError: Something is no picture, or the model is in training mode.
            DataError: A file cannot be read, or a picture has another number of channels.
        """
        self._refuse_training()
        found = [self.chosen(p) for p in self.predict_samples(samples_of(images, self.preprocessing.channels))]
        return found[0] if is_one_picture(images) else found

    def chosen(self, prediction: Prediction) -> Prediction:
        """Return a prediction as the model's thresholds leave it, the same one where there are none.

        Args:
            prediction: In pixels of the original.
        """
        return prediction if self.thresholds is None else prediction.over(self.thresholds.values, self.classes)

    @torch.no_grad()
    def predict_samples(self, samples: Iterable[Sample[Any]]) -> Iterator[Prediction]:
        """Yield the prediction of each sample as read, in pixels of the original; thresholds are not looked at."""
        waiting = iter(samples)
        while some := [self.preprocessing(sample) for sample in islice(waiting, self.images_at_once)]:
            seen = collate(some)
            found = self.decode(seen.images.to(self.scale.device))
            yield from (prediction.restore(info) for prediction, info in zip(found, seen.infos, strict=True))

    @torch.no_grad()
    def decode(self, images: Tensor) -> Sequence[Prediction]:
        """Return one prediction an image that is not restored yet: its ``restore`` still wants the image's info.

        Args:
            images: uint8 [B, C, H, W], preprocessed.

        Raises:
            UsageError: The model is in training mode.
        """
        self._refuse_training()
        return self.head.decode(self(images))

    @torch.no_grad()
    def evidence(self, images: Tensor, subject: Subject) -> Evidence:
        """Return what speaks for a subject in each of B images, without gradients.

        Args:
            images: uint8 [B, C, H, W], preprocessed, of one size.
            subject: What the head's ``subjects`` returned for one of them, or for an image like them.
        """
        return self.head.evidence(self(images), subject)

    def _refuse_training(self) -> None:
        if self.training:
            raise UsageError("the model is in training mode: call model.eval() before predict")

    def spec(self) -> Spec:
        """Describe the model in plain data; :meth:`from_spec` makes it again, without its weights."""
        return {
            "backbone": spec_of(self.backbone),
            "neck": spec_of(self.neck, drop=("features",)),
            "head": spec_of(self.head),
            "classes": list(self.classes),
            "preprocessing": spec_of(self.preprocessing),
        }

    @classmethod
    def from_spec(cls, spec: Spec, *, trust: Collection[str] = ()) -> VisionModel:
        """Make the model that a spec describes, with fresh weights.

        Args:
            spec: What :meth:`spec` returned.
            trust: Names of top-level packages, beside visionkit, whose classes may be imported.
        """
        return cls(
            build(spec["backbone"], trust=trust),
            lambda features, num_classes: build(spec["head"], trust=trust, features=features, num_classes=num_classes),
            spec["classes"],
            lambda features: build(spec["neck"], trust=trust, features=features),
            preprocessing=build(spec["preprocessing"], trust=trust),
        )


def teachers_of(models: Iterable[VisionModel]) -> tuple[Mapping[str, str], ...]:
    """Return the checkpoints that taught any of the models, each once."""
    return tuple({one["sha256"]: one for model in models for one in model.teachers}.values())


def _check_channels(images: int, backbone: int) -> None:
    if images != backbone:
        raise UsageError(
            f"the images have {images} channels but the backbone takes {backbone}: "
            f"set --data.channels {backbone} or --model.backbone.in_channels {images}"
        )
