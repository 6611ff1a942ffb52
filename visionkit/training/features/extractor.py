"""Features once: what a frozen backbone makes of pictures, computed in one pass and kept in a store.

Everything is found by content. A picture's key is the hash of its pixels, a store's key that of the backbone's weights
and of all else that its features depend on, so nothing kept can be out of date.
"""

from __future__ import annotations

import copy
import hashlib
import inspect
import json
import pickle
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from visionkit import __version__
from visionkit.core.component import spec_of
from visionkit.core.errors import DataError
from visionkit.core.files import read_bytes
from visionkit.core.sample import Batch, ImageInfo, Target
from visionkit.models.model import VisionModel
from visionkit.models.necks.identity import IdentityNeck
from visionkit.training.features.store import KEY_BYTES, CacheError, FeatureStore, Level

__all__ = ["Extractor", "KeptImages", "collect", "image_key", "read_levels"]

T = TypeVar("T", bound=Target)

MAX_TARGET_BYTES = 4e9  # bytes of targets that are kept in memory, at most


class Extractor:
    """Computes what is kept of pictures: the backbone's levels, reduced where no neck stands behind them.

    Args:
        model: Its backbone is frozen and on its device.
        size: Height and width of the pictures.
        batch_size: Pictures that are computed together; fewer are filled up, so that rounding is that of a full batch.
        precision: Name of the precision in which the training computes.
        context: Makes the context of that precision, such as autocast.
    """

    def __init__(
        self,
        model: VisionModel,
        *,
        size: tuple[int, int],
        batch_size: int,
        precision: str = "32-true",
        context: Callable[[], AbstractContextManager[Any]],
    ) -> None:
        self.model = model
        self.batch_size = batch_size
        self.precision = precision
        self.context = context
        self.device = model.scale.device
        self.reduces = isinstance(model.neck, IdentityNeck)
        black = torch.zeros((2, model.backbone.in_channels, *size), dtype=torch.uint8)
        levels = self._compute(black)
        with context(), torch.random.fork_rng(devices=[]):
            read = read_levels(model.neck, model.head, levels)
        self.levels = tuple(Level.of(level, kept) for level, kept in zip(levels, read, strict=True))
        """How a picture's levels are kept."""
        self.record = sum(level.size for level in self.levels)
        """Bytes of a picture."""

    def __call__(self, images: Tensor) -> list[Tensor]:
        """Return what is kept of images, uint8 [B, C, H, W], at most ``batch_size``: [B, C_l, H_l, W_l] a level."""
        missing = self.batch_size - len(images)
        full = torch.cat([images, images[-1:].repeat(missing, 1, 1, 1)]) if missing else images
        return [level[: len(images)] for level in self._compute(full)]

    @torch.no_grad()
    def _compute(self, images: Tensor) -> list[Tensor]:
        model = self.model
        images = images.to(self.device).contiguous(memory_format=torch.channels_last)
        mode = model.backbone.training
        model.backbone.eval()
        with self.context():
            levels = model.backbone(model.normalise(images))
            if self.reduces:
                levels = model.head.reduce_for_cache(levels)
        model.backbone.train(mode)
        return list(levels)

    def key(self) -> str:
        """Return what the numbers depend on, beside the picture, as 16 hexadecimal digits."""
        backbone, reduction = self.model.backbone, type(self.model.head).reduce_for_cache
        facts = {
            "backbone": spec_of(backbone),
            "code": _code(type(backbone)),
            "reduction": f"{reduction.__module__}.{reduction.__qualname__}" if self.reduces else None,
            "levels": [asdict(level) for level in self.levels],
            "precision": [self.precision, torch.get_float32_matmul_precision(), self.device.type],
            "versions": [__version__, torch.__version__, getattr(sys.modules.get("timm"), "__version__", "")],
        }
        found = hashlib.blake2b(json.dumps(facts, sort_keys=True).encode(), digest_size=8)
        tensors = {**backbone.state_dict(), "scale": self.model.scale, "shift": self.model.shift}
        for name, tensor in tensors.items():
            found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            found.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
        return found.hexdigest()


def read_levels(neck: nn.Module, head: nn.Module, levels: Sequence[Tensor]) -> list[bool]:
    """Return of each level whether a neck and a head read it in training.

    Args:
        neck: Takes the levels; it stays as it is.
        head: Takes the neck's levels; it stays as it is.
        levels: One tensor [B, C_l, H_l, W_l] a level.
    """
    neck, head = copy.deepcopy((neck, head))  # so that statistics do not move
    with torch.enable_grad():
        inputs = [level.detach().requires_grad_() for level in levels]
        found = pytree.tree_leaves(head.train()(neck.train()(inputs)))
        sums = [x.float().sum() for x in found if isinstance(x, Tensor) and x.requires_grad]
        return [g is not None for g in torch.autograd.grad(sums, inputs, allow_unused=True)]


def image_key(image: Tensor) -> str:
    """Return the hash of a picture, uint8 [C, H, W], in any memory order, as hexadecimal digits."""
    pixels = np.ascontiguousarray(image.permute(1, 2, 0).numpy())
    found = hashlib.blake2b(str(pixels.shape).encode(), digest_size=KEY_BYTES)
    found.update(pixels.data)
    return found.hexdigest()


@dataclass(frozen=True)
class KeptImages(Generic[T]):
    """The pictures of a data set, without their pixels.

    Args:
        rows: int64 [N], record of each in the store.
        targets: The truth of each, N.
        infos: Where each comes from, N.
    """

    rows: NDArray[np.int64]
    targets: list[T]
    infos: list[ImageInfo]


def collect(store: FeatureStore, extractor: Extractor, batches: Iterable[Batch[T]]) -> KeptImages[T]:
    """Go once over pictures, compute the features that are missing, and return what is known of the pictures.

    Args:
        store: Where the features are kept.
        extractor: Computes them.
        batches: Preprocessed pictures in order.

    Raises:
        CacheError: The targets take more memory than is sensible.
    """
    keys: list[str] = []
    targets: list[T] = []
    infos: list[ImageInfo] = []
    waiting: dict[str, Tensor] = {}
    memory = 0

    def compute(count: int) -> None:
        now = list(waiting)[:count]
        store.append(now, extractor(torch.stack([waiting.pop(key) for key in now])))

    for batch in batches:
        plain = pickle.dumps(batch.targets)  # workers share tensors, each by an open file: a copy has none
        memory += len(plain)
        if memory > MAX_TARGET_BYTES:
            raise CacheError(f"their labels alone take more than {MAX_TARGET_BYTES / 1e9:g} GB of memory")
        targets += pickle.loads(plain)  # noqa: S301  # our own bytes
        infos += batch.infos
        for image in batch.images:
            key = image_key(image)
            keys.append(key)
            if not store.holds(key):
                waiting[key] = image
        while len(waiting) >= extractor.batch_size:
            compute(extractor.batch_size)
    if waiting:
        compute(len(waiting))
    return KeptImages(np.array([store.rows[key] for key in keys], np.int64), targets, infos)


def _code(cls: type) -> str:
    """Return the hash of the file that a class comes from, or nothing where it comes from none."""
    try:
        return hashlib.blake2b(read_bytes(inspect.getfile(cls)), digest_size=8).hexdigest()
    except (DataError, TypeError):  # made in a notebook
        return ""
