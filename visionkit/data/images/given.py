"""Pictures that Python code hands over: paths, Pillow images, arrays, tensors, or a list of them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from visionkit.core.errors import DataError, UsageError
from visionkit.core.sample import ImageInfo, Sample
from visionkit.data.images.decode import rgb_of
from visionkit.data.images.formats import BadImageError, check_size, orientation
from visionkit.data.images.pixels import Array, luma, turn
from visionkit.data.images.reading import read_image

__all__ = ["Picture", "Pictures", "is_one_picture", "is_picture", "samples_of"]

Picture: TypeAlias = "str | os.PathLike[str] | Image.Image | np.ndarray[Any, Any] | Tensor"
"""One picture: the path of a file; a Pillow image of any mode; an array, uint8 [H, W, C] or [H, W]; or a tensor, uint8
[C, H, W]. Colours are RGB."""
Pictures: TypeAlias = "Picture | list[Any] | tuple[Any, ...]"
"""One picture, a list of pictures, or a tensor of several, uint8 [B, C, H, W]."""

WHAT = "give a path, a PIL image, an array uint8 [H, W, C], a tensor uint8 [C, H, W], or a list of them"


def is_one_picture(given: Pictures) -> bool:
    """Return whether one picture was given, not a list or batch of them."""
    return not (isinstance(given, list | tuple) or (isinstance(given, Tensor) and given.ndim == 4))


def is_picture(given: Any) -> bool:
    """Return whether something is a picture, or a list of such, by its kind alone; of a tensor that is left open."""
    return isinstance(given, str | os.PathLike | Image.Image | np.ndarray | list | tuple)


def samples_of(given: Pictures, channels: int) -> Iterator[Sample[Any]]:
    """Yield the pictures as a reader of files does, one by one, as they are asked for.

    Pixels of a file and those of a Pillow image, array or tensor made of it are the same. Grey pictures become RGB for
    a model that takes three channels, and the other way round.

    Args:
        given: One picture or several.
        channels: That the model takes.

    Raises:
        UsageError: Something given is no picture.
        DataError: A file cannot be read, or a picture has another number of channels.
    """
    if is_one_picture(given):
        yield _sample(given, "", channels)
        return
    for number, picture in enumerate(given):  # type: ignore[arg-type]  # one picture was dealt with
        yield _sample(picture, f"picture {number}", channels)


def _sample(picture: Any, name: str, channels: int) -> Sample[Any]:
    where = name or "the picture"
    try:
        pixels = _pixels(picture, where, channels)
    except BadImageError as e:
        raise DataError(f"{where}: {e}; {WHAT}") from None
    path = os.fspath(picture) if isinstance(picture, str | os.PathLike) else name
    image = torch.from_numpy(pixels if pixels.flags.writeable else pixels.copy()).permute(2, 0, 1)
    return Sample(image, None, ImageInfo(str(path), (pixels.shape[0], pixels.shape[1])))


def _pixels(picture: Any, where: str, channels: int) -> Array:
    """Return pixels, uint8 [H, W, C]."""
    if isinstance(picture, str | os.PathLike):
        return read_image(Path(picture), channels=channels)
    if isinstance(picture, Image.Image):
        return _of_pillow(picture, channels)
    if not isinstance(picture, np.ndarray | Tensor):
        raise UsageError(f"{where}: {_kind(picture)} is no picture: {WHAT}")
    shape, kind = list(picture.shape), str(picture.dtype).removeprefix("torch.")
    if kind != "uint8":
        raise UsageError(f"{where}: {_kind(picture)} of {kind} is no picture: values are uint8, 0..255; {WHAT}")
    if isinstance(picture, Tensor):
        if picture.ndim != 3 or shape[0] not in ({1, 3} | {channels}) or 0 in shape:
            raise UsageError(f"{where}: a tensor of shape {shape} is no picture: [C, H, W] with {_channels(channels)}")
        pixels = picture.detach().cpu().permute(1, 2, 0).numpy()
    else:
        if picture.ndim not in (2, 3) or 0 in shape or (picture.ndim == 3 and shape[2] not in ({1, 3} | {channels})):
            raise UsageError(
                f"{where}: an array of shape {shape} is no picture: [H, W, C] with {_channels(channels)}, or [H, W]"
            )
        pixels = picture if picture.ndim == 3 else picture[:, :, None]
    return np.ascontiguousarray(_with_channels(pixels, channels))


def _of_pillow(im: Image.Image, channels: int) -> Array:
    """Return the pixels of a Pillow image by the rules for files, upright."""
    if im.format == "EPS" and getattr(im, "tile", None):  # to decode it would start a program
        raise BadImageError("is an EPS file, which is not read")
    check_size(*im.size, len(im.getbands()))
    try:
        im.load()
        pixels = rgb_of(im, set()) if channels in (1, 3) else np.atleast_3d(np.array(im))
    except (BadImageError, MemoryError):
        raise
    except Exception as e:  # a damaged file can raise anything in a decoder
        raise BadImageError(f"cannot be decoded ({' '.join(str(e).split()) or type(e).__name__})") from None
    return np.ascontiguousarray(_with_channels(turn(pixels, orientation(im)), channels))


def _with_channels(pixels: Array, channels: int) -> Array:
    """Return pixels, uint8 [H, W, C], with so many channels, where one kind becomes the other."""
    found = pixels.shape[2]
    if found == channels:
        return pixels
    if (found, channels) == (3, 1):
        return luma(np.ascontiguousarray(pixels))
    if (found, channels) == (1, 3):
        return np.repeat(pixels, 3, axis=2)
    raise BadImageError(f"has {found} channels, the model takes {channels}")


def _kind(thing: Any) -> str:
    name = type(thing).__name__
    usual = {"ndarray": "an array", "Tensor": "a tensor", "NoneType": "None"}
    return usual.get(name, f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}")


def _channels(channels: int) -> str:
    return "C 3 (RGB) or 1 (grey)" if channels in (1, 3) else f"C {channels}"
