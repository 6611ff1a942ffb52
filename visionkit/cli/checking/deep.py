"""What features of pretrained weights add to a check: neighbours to compare, and labels that are doubted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from visionkit.core.component import build, checked
from visionkit.core.errors import DataError, UsageError
from visionkit.core.prefetch import prefetch_map
from visionkit.data.audit.snapshot import Labelled, Suspicion
from visionkit.data.audit.suspects import label_suspects
from visionkit.data.images.decode import Array
from visionkit.data.images.reading import load_image
from visionkit.models.backbones.base import Backbone
from visionkit.models.backbones.identify import identify_architecture
from visionkit.models.weights.file import read_weights

__all__ = ["Doubts", "Network", "doubts_of"]

SIDE = 128  # pixels that the network sees of a picture or an object
MIN_OBJECT = 16.0  # pixels along both sides of an object that can be judged
MARGIN = 0.1  # of an object's sides, that is shown around it
_BATCH = 32
_LEAST = 20  # things from which cross-validation says anything


class Network:
    """A frozen network that makes features of pictures.

    Args:
        weights: A .pth, .pt, .ckpt or .safetensors file, or a hub name.

    Raises:
        UsageError: There is no such file, or nothing says which network it is of.
        DataError: It cannot be read.
    """

    def __init__(self, weights: str) -> None:
        file = read_weights(weights)
        found = identify_architecture(file)
        if found is None or not found.name:
            what = "the file does not say which network it is of"
            raise UsageError(f"--deep {weights}: {what}; give weights of a ResNet, or of a network of timm")
        backbone = build(checked({"class_path": f"visionkit.{found.name}", "init_args": dict(found.arguments or {})}))
        assert isinstance(backbone, Backbone)
        backbone.load(weights)
        if backbone.in_channels != 3:
            raise UsageError(f"--deep {weights}: its network takes {backbone.in_channels} channels, not 3")
        self.backbone = backbone.eval()
        self._mean = torch.tensor(backbone.mean).view(1, 3, 1, 1) * 255
        self._std = torch.tensor(backbone.std).view(1, 3, 1, 1) * 255

    def features(
        self, paths: Sequence[str], windows: Sequence[Any], progress: Callable[[int, int], None] | None = None
    ) -> NDArray[np.float32]:
        """Return a row a window, float32 [N, D]; zeros where a picture cannot be read.

        Args:
            paths: Image files.
            windows: What is looked at of each picture, float [N_i, 4] xyxy in its pixels; None for the whole.
            progress: Called with (done, total) after each picture.
        """
        rows: list[NDArray[np.float32]] = []
        waiting: list[Array] = []
        seen = prefetch_map(lambda pair: _cut(*pair), zip(paths, windows, strict=True), threads=2, depth=8)
        for done, cut in enumerate(seen, 1):
            waiting += cut
            while len(waiting) >= _BATCH:
                rows.append(self._compute(waiting[:_BATCH]))
                waiting = waiting[_BATCH:]
            if progress is not None:
                progress(done, len(paths))
        if waiting:
            rows.append(self._compute(waiting))
        return np.concatenate(rows) if rows else np.zeros((0, self.backbone.features.channels[-1]), np.float32)

    @torch.inference_mode()
    def _compute(self, pictures: Sequence[Array]) -> NDArray[np.float32]:
        images = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float()  # [B, 3, H, W]
        last = self.backbone((images - self._mean) / self._std)[-1]
        return np.asarray(last.mean((2, 3)).numpy(), np.float32)  # [B, D]


def _cut(path: str, windows: Any) -> list[Array]:
    """Return what is looked at of a picture, uint8 [SIDE, SIDE, 3] each."""
    count = 1 if windows is None else len(windows)
    try:
        near = (lambda size: (SIDE / size[0], SIDE / size[1])) if windows is None else None
        decoded = load_image(path, scale=near)
    except DataError:
        return [np.zeros((SIDE, SIDE, 3), np.uint8)] * count
    if windows is None:
        return [_resized(decoded.pixels)]
    height, width = decoded.pixels.shape[:2]
    found = []
    for x1, y1, x2, y2 in np.asarray(windows, np.float64):
        dx, dy = MARGIN * (x2 - x1), MARGIN * (y2 - y1)
        left, right = max(0, int(x1 - dx)), min(width, int(np.ceil(x2 + dx)))
        top, bottom = max(0, int(y1 - dy)), min(height, int(np.ceil(y2 + dy)))
        part = decoded.pixels[top:bottom, left:right]
        found.append(_resized(part) if part.size else np.zeros((SIDE, SIDE, 3), np.uint8))
    return found


def _resized(pixels: Array) -> Array:
    smaller = min(pixels.shape[:2]) > SIDE
    way = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(pixels, (SIDE, SIDE), interpolation=way))


class Doubts(NamedTuple):
    """What cross-validation says of the labels.

    Args:
        suspects: Labels that it expects otherwise, the likeliest mistakes first.
        agreement: Share of the labels that it expects as they are; None where none were judged.
    """

    suspects: tuple[Suspicion, ...] = ()
    agreement: float | None = None


def doubts_of(
    images: Sequence[Labelled],
    whole: NDArray[np.float32],
    groups: Sequence[int],
    network: Network,
    progress: Callable[[int, int], None] | None = None,
) -> Doubts:
    """Return what cross-validation on features says of the labels.

    Of images with one class each the images are judged, of images with boxes the objects; masks are not.

    Args:
        images: The images; all can be read.
        whole: Features of each of them, [N, D].
        groups: What must not be judged by each other (copies, frames of a video), a number each.
        network: Makes the features of objects.
        progress: Called with (done, total) after each picture.
    """
    places: list[tuple[int, int | None]] = []
    if any(i.boxes is not None for i in images):
        chosen = [(n, i.boxes, large) for n, i in enumerate(images) if len(large := _judged(i)) and i.boxes is not None]
        windows = [boxes[large] for _, boxes, large in chosen]
        features = network.features([images[n].path for n, _, _ in chosen], windows, progress)
        places = [(n, int(b)) for n, _, large in chosen for b in large]
        labels = [int(images[n].ids[b]) for n, b in places if b is not None]
    else:
        places = [(n, None) for n, i in enumerate(images) if len(i.classes) == 1 and i.pixels is None]
        features = whole[[n for n, _ in places]]
        labels = [images[n].classes[0] for n, _ in places]
    known = sorted(set(labels))
    if len(labels) < _LEAST or len(known) < 2:
        return Doubts()
    dense = {label: k for k, label in enumerate(known)}
    found = label_suspects(features, [dense[k] for k in labels], [groups[n] for n, _ in places])
    suspects = [
        Suspicion(places[s.position][0], known[s.given], known[s.likelier], s.probability, places[s.position][1])
        for s in found
    ]
    return Doubts(tuple(suspects), 1 - len(found) / len(labels))


def _judged(image: Labelled) -> NDArray[np.int64]:
    """Return the positions of the boxes that are large enough to be judged."""
    if image.boxes is None or not len(image.boxes):
        return np.zeros(0, np.int64)
    sides = (image.boxes[:, 2:] - image.boxes[:, :2]).min(1)
    return np.flatnonzero((sides >= MIN_OBJECT) & ~image.crowd)
