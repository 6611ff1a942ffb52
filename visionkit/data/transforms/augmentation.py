"""Random changes of training images: a list of albumentations transforms in plain data."""

from __future__ import annotations

import difflib
import inspect
import random
import warnings
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from visionkit.core.errors import UsageError
from visionkit.core.sample import Loaded, Sample, Target, is_spatial
from visionkit.data.transforms.base import RandomTransform

__all__ = [
    "CLASSIFICATION_AUGMENTATION",
    "DETECTION_AUGMENTATION",
    "READ_ONLY",
    "SEGMENTATION_AUGMENTATION",
    "Augmentation",
]

T = TypeVar("T", bound=Target)

CLASSIFICATION_AUGMENTATION: list[dict[str, Any] | str] = [
    {"RandomResizedCrop": {"size": "input", "scale": [0.35, 1.0], "ratio": [0.75, 1.3333]}},
    {"HorizontalFlip": {"p": 0.5}},
    {"Affine": {"rotate": [-15, 15], "shear": [-5, 5], "border_mode": 4, "p": 0.2}},  # 4 = mirrored border
    {"ColorJitter": {"brightness": 0.3, "contrast": 0.3, "saturation": 0.3, "hue": 0.03, "p": 0.5}},
    {"ToGray": {"p": 0.05}},
    {"GaussianBlur": {"sigma_limit": [0.3, 1.2], "p": 0.1}},
    {
        "CoarseDropout": {
            "num_holes_range": [1, 2],
            "hole_height_range": [0.1, 0.3],
            "hole_width_range": [0.1, 0.3],
            "fill": 114,
            "p": 0.25,
        }
    },
]
"""A default for some hundred to some ten thousand photos that a network sees 15 to 50 times; grey or RGB images."""

DETECTION_AUGMENTATION: list[dict[str, Any] | str] = [
    {"HorizontalFlip": {"p": 0.5}},
    {
        "Affine": {  # nothing is turned: a turned box no longer fits its object
            "scale": [0.6, 1.6],
            "keep_ratio": True,
            "translate_percent": {"x": [-0.15, 0.15], "y": [-0.15, 0.15]},
            "fill": 114,
            "p": 0.8,
        }
    },
    {"ColorJitter": {"brightness": 0.3, "contrast": 0.3, "saturation": 0.4, "hue": 0.02, "p": 0.5}},
    {"ToGray": {"p": 0.02}},
    {"GaussianBlur": {"sigma_limit": [0.3, 1.2], "p": 0.05}},
]
"""A default for some hundred to some ten thousand photos with objects in boxes; grey or RGB images."""

SEGMENTATION_AUGMENTATION: list[dict[str, Any] | str] = [  # sizes are changed by RandomScaledCrop
    {"HorizontalFlip": {"p": 0.5}},
    {"ColorJitter": {"brightness": 0.25, "contrast": 0.25, "saturation": 0.25, "hue": 0.02, "p": 0.5}},
    {"ToGray": {"p": 0.02}},
    {"GaussianBlur": {"sigma_limit": [0.3, 1.2], "p": 0.05}},
]
"""A default for some hundred to some ten thousand photos with masks; grey or RGB images."""

SIZE_ARGUMENTS = ("size", "height", "width")
LISTS = ("transforms",)  # arguments that hold transforms
SINGLES = ("first", "second")  # arguments that hold one transform
READ_ONLY = ("RandomResizedCrop", "HorizontalFlip")  # often the first; they never write into the image they are given
MOVED = {"bboxes": "boxes", "mask": "masks", "masks": "masks"}  # what targets give to albumentations, and its name
NO_PIXELS = {  # what they do belongs elsewhere
    "Normalize": "the model normalises the images itself",
    "ToFloat": "images stay uint8 until they are in the model",
    "FromFloat": "images are uint8 already",
    "ToTensorV2": "images are tensors already",
    "ToTensor3D": "images are tensors already",
}


class Augmentation(RandomTransform):
    """Change training images at random, as a list of albumentations transforms says.

    What happens to a sample depends on the seed alone: not on worker, order or global random state. Targets that lie
    in pixels move with their images; boxes are clipped to the picture, and those that leave it are dropped.

    Args:
        transforms: The transforms in order, each as ``{HorizontalFlip: {p: 0.5}}``, as
            ``{class_path: albumentations.HorizontalFlip, init_args: {p: 0.5}}`` or as the bare name. OneOf, SomeOf,
            Sequential and the like take a list ``transforms`` of the same kind. Where an argument size, height or width
            is "input", the image's own size is put in. None or an empty list changes nothing.
        min_visible: Share of a box's area, 0..1; a box of which one of the transforms leaves less is dropped.

    Raises:
        UsageError: An unknown transform or argument, or a value that the transform refuses.
    """

    off = "data.augment null"

    def __init__(self, transforms: list[dict[str, Any] | str] | None, *, min_visible: float = 0.1) -> None:
        if not 0 <= min_visible <= 1:
            raise UsageError(f"min_visible={min_visible}: a share of a box's area, 0..1")
        self.transforms = list(transforms or [])
        self.min_visible = min_visible
        self._composed: dict[Any, Any] = {}
        self._random = random.Random()  # seeded anew for each image
        self._sized = _mentions_input(self.transforms)
        if self.transforms:
            self._compose((64, 64), ())  # finds mistakes before training

    @property
    def acts(self) -> bool:
        """Whether there are transforms, or a call is a subclass's own."""
        return bool(self.transforms) or type(self).__call__ is not Augmentation.__call__

    def __call__(self, sample: Sample[T], seed: int) -> Sample[T]:
        """Return the sample with image and target changed, the image uint8 [C, H, W] in channels_last memory order.

        Args:
            sample: A sample at the model's size.
            seed: Any whole number; the same number changes the same image in the same way.

        Raises:
            UsageError: A transform cannot take this kind of image, does not return uint8 or cannot move the target.
        """
        return self.change(Loaded.of(sample), seed).sample() if self.transforms else sample

    def change(self, loaded: Loaded[T], seed: int) -> Loaded[T]:
        """Change a sample as a call does; pixels that cannot be written are copied for a transform that might.

        Args:
            loaded: A sample at the model's size.
            seed: Any whole number.

        Raises:
            UsageError: As a call does.
        """
        pixels, target, info = loaded
        seed %= 2**32
        arrays = target.arrays() if is_spatial(target) else {}
        compose = self._compose((pixels.shape[0], pixels.shape[1]), tuple(sorted(arrays)))
        # One stream through all transforms. set_random_seed would give each its own copy of the same stream: those with
        # the same p would always act together and draw the same numbers.
        self._random.seed(seed)
        compose.set_random_state(_Generator(seed), self._random)
        cv2.setRNGSeed(seed % 2**31)  # a few transforms draw in OpenCV
        try:
            result = compose(image=_writable(pixels), **arrays) if arrays else {"image": _in_turn(compose, pixels)}
        except Exception as e:  # albumentations and OpenCV raise all kinds
            raise UsageError(
                f"augmentation fails on {info.id}, {pixels.shape[0]} x {pixels.shape[1]} pixels, "
                f"{pixels.shape[2]} channels: {_one_line(e)}; change or remove the transform"
            ) from e
        changed = result["image"]
        if changed.dtype != np.uint8:
            raise UsageError(f"augmentation turns uint8 images into {changed.dtype}: remove the transform that does so")
        changed = np.ascontiguousarray(changed if changed.ndim == 3 else changed[..., None])
        if is_spatial(target):
            target = target.with_arrays({k: result[k] for k in arrays}, (changed.shape[0], changed.shape[1]))
        return Loaded(changed, target, info)

    def __getstate__(self) -> dict[str, Any]:
        """Travel to worker processes as plain data; they compose the transforms again."""
        return self.__dict__ | {"_composed": {}}

    def _compose(self, size: tuple[int, int], kinds: tuple[str, ...]) -> Any:
        """Return the transforms for images of ``size`` whose targets have these arrays."""
        key = (size if self._sized else None, kinds)
        if key not in self._composed:
            import albumentations

            made = _make_list(self.transforms, size, "augmentation")
            for kind in MOVED.keys() & set(kinds):
                _check_moves(made, kind)
            boxes = None
            if "bboxes" in kinds:
                boxes = albumentations.BboxParams(
                    "pascal_voc",
                    label_fields=["box_index"],
                    min_visibility=self.min_visible,
                    filter_invalid_bboxes=True,
                )
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Got processor for bboxes")  # transforms that leave boxes alone
                self._composed[key] = albumentations.Compose(made, bbox_params=boxes, is_check_shapes=False)
        return self._composed[key]


class _Generator:
    """numpy's generator of a seed, made when it is first used: most transforms draw all they need from Python's."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._made: np.random.Generator | None = None

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # of the object itself: pickle and copy ask for them
            raise AttributeError(name)
        if self._made is None:
            self._made = np.random.default_rng(self._seed)
        return getattr(self._made, name)


def _in_turn(compose: Any, pixels: NDArray[np.uint8]) -> Any:
    """Return what a composition makes of an image alone, without what it does for boxes and masks at each step."""
    compose.py_random.random()  # which the composition draws, to know whether to do anything at all
    data: dict[str, Any] = {"image": pixels}
    for transform in compose.transforms:
        if type(transform).__name__ not in READ_ONLY:
            data["image"] = _writable(data["image"])
        data = transform(**data)
    return data["image"]


def _writable(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return an image that a transform may change in place."""
    return pixels if pixels.flags.writeable else pixels.copy()


def _check_moves(transforms: Sequence[Any], kind: str) -> None:
    """Refuse transforms that move pixels but not what lies in them."""
    import albumentations as album

    for transform in transforms:
        inner = list(getattr(transform, "transforms", ()))  # of a composition
        if isinstance(transform, album.SelectiveChannelTransform):
            still = all(isinstance(t, album.ImageOnlyTransform) for t in inner)
        elif isinstance(transform, album.BaseCompose):
            _check_moves(inner, kind)
            still = True
        else:
            still = isinstance(transform, album.ImageOnlyTransform) or kind in transform.available_keys
        if not still:
            raise UsageError(f"augmentation: {type(transform).__name__} cannot move {MOVED[kind]}; remove it")


def _mentions_input(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any((k in SIZE_ARGUMENTS and v == "input") or _mentions_input(v) for k, v in value.items())
    return isinstance(value, list | tuple) and any(_mentions_input(v) for v in value)


@cache
def _known() -> dict[str, type]:
    """Return albumentations' transforms and compositions by name."""
    import albumentations
    from albumentations import BaseCompose, BasicTransform, ReplayCompose

    return {
        name: cls
        for name, cls in vars(albumentations).items()
        if inspect.isclass(cls)
        and issubclass(cls, BasicTransform | BaseCompose)
        and cls not in (BaseCompose, ReplayCompose)
        and not (issubclass(cls, BasicTransform) and cls.__module__.startswith("albumentations.core"))  # base classes
    }


def _make_list(entries: Any, size: tuple[int, int], where: str) -> list[Any]:
    if not isinstance(entries, Sequence) or isinstance(entries, str):
        raise UsageError(f"{where}: a list of transforms is needed, not {entries!r}")
    return [_make(entry, size, f"{where}[{i}]") for i, entry in enumerate(entries)]


def _make(entry: Any, size: tuple[int, int], where: str) -> Any:
    """Build one transform from its plain data."""
    name, arguments = _name_and_arguments(entry, where)
    if name in NO_PIXELS:
        raise UsageError(f"{where}: remove {name}: {NO_PIXELS[name]}")
    known = _known()
    if name not in known:
        raise UsageError(f"{where}: albumentations has no transform {name!r}{_nearest(name, known)}")
    cls = known[name]
    accepted = [a for a in inspect.signature(cls).parameters if a != "strict"]
    for argument in arguments:
        if argument not in accepted:
            raise UsageError(
                f"{where}: {name} has no argument {argument!r}{_nearest(argument, accepted)}; "
                f"it takes {', '.join(accepted)}"
            )
    if arguments.get("fill_mask") is not None:  # targets give masks in which 0, albumentations' default, says nothing
        raise UsageError(f"{where}: remove fill_mask: what a transform uncovers is ignored by itself")
    if arguments.get("mask_interpolation", cv2.INTER_NEAREST) not in (cv2.INTER_NEAREST, cv2.INTER_NEAREST_EXACT):
        raise UsageError(
            f"{where}: remove mask_interpolation: between classes there is nothing, masks take the nearest"
        )
    inputs = {"size": size, "height": size[0], "width": size[1]}
    values = {k: inputs[k] if k in inputs and v == "input" else v for k, v in arguments.items()}
    for argument in LISTS:
        if values.get(argument) is not None:
            values[argument] = _make_list(values[argument], size, f"{where}.{name}.{argument}")
    for argument in SINGLES:
        if values.get(argument) is not None:
            values[argument] = _make(values[argument], size, f"{where}.{name}.{argument}")
    owner = next(c for c in cls.__mro__ if "__init__" in vars(c))
    if "InitSchema" in vars(owner):
        values["strict"] = True  # a value that its check cannot digest is an error, not a warning and the default
    try:
        made = cls(**values)
    except Exception as e:  # albumentations raises all kinds
        raise UsageError(f"{where}: {name} refuses its arguments: {_one_line(e)}") from e
    if getattr(made, "targets_as_params", None):
        raise UsageError(f"{where}: {name} needs further input beside the image ({', '.join(made.targets_as_params)})")
    return made


def _name_and_arguments(entry: Any, where: str) -> tuple[str, dict[str, Any]]:
    if isinstance(entry, str):
        path, arguments = entry, None
    elif isinstance(entry, Mapping) and "class_path" in entry and not set(entry) - {"class_path", "init_args"}:
        path, arguments = entry["class_path"], entry.get("init_args")
    elif isinstance(entry, Mapping) and len(entry) == 1 and "class_path" not in entry:
        ((path, arguments),) = entry.items()
    else:
        raise UsageError(
            f"{where}: {entry!r} is no transform; write {{HorizontalFlip: {{p: 0.5}}}} or "
            "{class_path: HorizontalFlip, init_args: {p: 0.5}}"
        )
    if not isinstance(path, str) or not isinstance(arguments, Mapping | None):
        raise UsageError(f"{where}: {entry!r}: a transform is a name and a mapping of its arguments")
    package, _, name = path.rpartition(".")
    if package and package.partition(".")[0] != "albumentations":
        raise UsageError(f"{where}: {path}: only albumentations' transforms can stand here")
    return name, dict(arguments or {})


def _nearest(name: str, known: Sequence[str] | Mapping[str, Any]) -> str:
    lower = {k.lower(): k for k in known}
    near = difflib.get_close_matches(name.lower(), lower, n=1, cutoff=0.5)
    return f", did you mean {lower[near[0]]!r}?" if near else ""


def _one_line(error: Exception) -> str:
    """Return an error's message in one line; pydantic's as argument, complaint and value."""
    if isinstance(error, KeyError) and error.args[0] in MOVED:
        return f"the targets have no {MOVED[error.args[0]]}, which a transform needs"
    cause: Any = error.__cause__
    if hasattr(cause, "errors"):
        return "; ".join(
            f"{'.'.join(map(str, e['loc'])) or 'value'}: {e['msg']}, given {e['input']!r}" for e in cause.errors()
        )
    return " ".join(str(error).split())
