"""The network with most of its products in integers of 8 bits: OpenVINO, with ranges that NNCF learns from pictures."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from visionkit.core.errors import UsageError
from visionkit.models.model import VisionModel
from visionkit.prediction.backends.exported import Exported, export, openvino_core, silenced
from visionkit.prediction.backends.outputs import flatten_outputs

__all__ = ["QuantisedNetwork", "check_calibration"]

Array: TypeAlias = NDArray[Any]


def check_calibration(calibration: Iterable[Tensor] | None, channels: int) -> list[Tensor]:
    """Return the pictures of a calibration one by one, uint8 [1, C, H, W] each.

    Args:
        calibration: uint8 images [B, C, H, W].
        channels: What the model takes, C.

    Raises:
        UsageError: There are none, or they are something else.
    """
    if calibration is None:
        raise UsageError(
            "precision='int8' learns the range of each map from pictures: give calibration=..., uint8 images "
            "[B, C, H, W] as the model gets them"
        )
    pictures: list[Tensor] = []
    for images in [calibration] if isinstance(calibration, Tensor) else calibration:
        if not _fits(images, channels):
            found = f"{images.dtype} {list(images.shape)}" if isinstance(images, Tensor) else type(images).__name__
            raise UsageError(f"calibration: images are uint8 [B, {channels}, H, W], not {found}")
        pictures += images.cpu().contiguous().split(1)
    if not pictures:
        raise UsageError("calibration: no pictures to learn ranges from; a hundred or more are well")
    return pictures


class QuantisedNetwork(Exported):
    """What computes a head's outputs in integers of 8 bits, one picture at a time.

    The ranges are learnt at the first call with each size of pictures, for all batches of that size, so what comes out
    does not depend on the batch that a picture is in. On a CPU that is as fast as batches are. A head that cannot be
    exported is computed by torch, behind the backbone and the neck in 8 bits.

    Args:
        model: In evaluation mode, as it was trained.
        head: What computes the outputs where the model's own head cannot be exported.
        fast: Whether what is left computes in bf16.
        pictures: What the ranges are learnt from, uint8 [1, C, H, W] each; pictures of another size than those that are
            predicted are brought to it.
    """

    def __init__(self, model: VisionModel, head: nn.Module, *, fast: bool, pictures: Sequence[Tensor]) -> None:
        super().__init__(model, head, "openvino")
        self.fast = fast
        self.pictures = pictures
        self.singles: dict[tuple[bool, torch.Size], _Singles] = {}

    def _export(self, network: nn.Module, images: Tensor) -> Any:
        key = (self.whole, images.shape[1:])
        if key not in self.singles:
            self.singles[key] = self._quantise(network, images[:1])
        singles = self.singles[key]
        tensors: list[Tensor] = []
        with torch.no_grad():
            rebuild = flatten_outputs(network(images), tensors)  # what the outputs of so many pictures look like
        shapes = [tensor.shape for tensor in tensors]
        return lambda images: rebuild(_joined(singles(images.contiguous()), shapes))

    def _quantise(self, network: nn.Module, image: Tensor) -> _Singles:
        core, settings = openvino_core(self.fast)
        import openvino  # now that it is kept from reporting

        with silenced():
            model = openvino.convert_model(export(network, image, lambda _: None))
        quantised = quantise(model, _of_size(self.pictures, image.shape[2:]))
        return _Singles(lambda hint: core.compile_model(quantised, "CPU", {**settings, "PERFORMANCE_HINT": hint}))


class _Singles:
    """Computes pictures one by one: alone with all cores, several side by side.

    Args:
        compile_for: Compiles the network for one picture, for OpenVINO's "LATENCY" or "THROUGHPUT".
    """

    def __init__(self, compile_for: Callable[[str], Any]) -> None:
        self.compile_for = compile_for
        self.alone: Any = None
        self.several: Any = None

    def __call__(self, images: Tensor) -> list[list[Array]]:
        """Return the outputs of each picture of uint8 [B, C, H, W]."""
        import openvino

        if len(images) == 1:
            if self.alone is None:
                self.alone = self.compile_for("LATENCY").create_infer_request()
            found = self.alone.infer([images.numpy()], share_inputs=True)  # outputs are copies
            return [list(found.to_tuple())]
        if self.several is None:
            self.several = openvino.AsyncInferQueue(self.compile_for("THROUGHPUT"))
            self.several.set_callback(_keep)
        outputs: list[list[Array]] = [[] for _ in range(len(images))]
        for image, kept in zip(images.split(1), outputs, strict=True):
            self.several.start_async([image.numpy()], kept, share_inputs=True)
        self.several.wait_all()
        return outputs


def _keep(request: Any, kept: list[Array]) -> None:
    """Take copies of a request's outputs: its next picture overwrites them."""
    kept += [np.array(tensor.data) for tensor in request.output_tensors]


def quantise(model: Any, pictures: Sequence[Tensor]) -> Any:
    """Return OpenVINO's model in 8 bits.

    Convolutions and matrix products get weights of 8 bits, a scale a channel, and maps of 8 bits between the ranges
    that they have on the pictures; a bias is shifted by what the rounding changes on average (Nagel et al.,
    "Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV 2019).

    Args:
        model: For one picture, in float32.
        pictures: uint8 [1, C, H, W] each.
    """
    kind = logging.getLoggerClass()
    with silenced(), contextlib.redirect_stdout(io.StringIO()):  # its progress bars
        try:
            import nncf  # after openvino_core or engine: those keep it, too, from reporting to its makers
        finally:
            logging.setLoggerClass(kind)  # it takes over the loggers of everybody
        return nncf.quantize(
            model,
            nncf.Dataset([p.numpy() for p in pictures]),
            subset_size=len(pictures),
            fast_bias_correction=False,  # the fast one costs detectors a point of precision: their levels share weights
        )


def _of_size(pictures: Sequence[Tensor], size: torch.Size) -> list[Tensor]:
    """Return the pictures that have this size, or, where none has, all of them brought to it."""
    fitting = [p for p in pictures if p.shape[2:] == size]
    if fitting:
        return fitting
    resized = [F.interpolate(p.float(), tuple(size), mode="bilinear", antialias=True) for p in pictures]
    return [r.round().clamp(0, 255).to(torch.uint8) for r in resized]


def _joined(parts: Sequence[Sequence[Array]], shapes: Sequence[torch.Size]) -> list[Tensor]:
    """Put the outputs of single pictures together to those of a batch.

    Args:
        parts: The outputs of each picture.
        shapes: Those of the batch; the axis that differs counts its pictures, and what does not differ is the same for
            all of them.
    """
    joined = []
    for own, shape in zip(zip(*parts, strict=True), shapes, strict=True):
        axes = [k for k, (one, all_) in enumerate(zip(own[0].shape, shape, strict=True)) if one != all_]
        joined.append(torch.from_numpy(np.concatenate(own, axes[0]) if axes else own[0]))
    return joined


def _fits(images: Any, channels: int) -> bool:
    return (
        isinstance(images, Tensor) and images.dtype == torch.uint8 and images.ndim == 4 and images.shape[1] == channels
    )
