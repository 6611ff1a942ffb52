"""A trained model made ready for prediction alone."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from visionkit.core.errors import UsageError
from visionkit.core.machine import choose_precision
from visionkit.core.prediction import Prediction
from visionkit.models.evidence import Evidence, Subject
from visionkit.models.model import VisionModel
from visionkit.prediction.backends.available import BackendName, check_backend
from visionkit.prediction.backends.folding import fold_batch_norm
from visionkit.prediction.backends.packing import pack_convolutions, pack_linears
from visionkit.prediction.backends.quantised import QuantisedNetwork, check_calibration

__all__ = ["PredictionModel", "convert"]

CAST = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.Linear)
"""Modules whose weights autocast would bring to bf16 in each call."""


class PredictionModel(VisionModel):
    """A model that cannot learn any more, as :func:`convert` makes it; it predicts like any other.

    Args:
        parts: The model whose parts it has.
        compute: Makes the head's outputs of uint8 images [B, C, H, W].
        fast: Whether its layers compute in bf16.
        fixed: Whether each shape of a batch is compiled for itself, so that batches are best filled up to one size.
    """

    def __init__(self, parts: VisionModel, compute: Callable[[Tensor], Any], *, fast: bool, fixed: bool) -> None:
        nn.Module.__init__(self)
        self.__dict__.update(parts.__dict__)
        self.compute = compute
        self.fast = fast
        self.fixed = fixed
        self.images_at_once = 1 if fixed else parts.images_at_once

    def forward(self, images: Tensor) -> Any:
        """Compute the head's outputs, without gradients.

        Args:
            images: uint8 [B, C, H, W], on the model's device.
        """
        with torch.no_grad(), self._arithmetic():
            return self.compute(images)

    @torch.no_grad()
    def decode(self, images: Tensor) -> Sequence[Prediction]:
        """Return one prediction an image that is not restored yet.

        Args:
            images: uint8 [B, C, H, W], preprocessed, on the model's device.
        """
        with self._arithmetic():  # a second stage is a network, too
            return super().decode(images)

    @torch.no_grad()
    def evidence(self, images: Tensor, subject: Subject) -> Evidence:
        """Return what speaks for a subject in each of B images.

        Args:
            images: uint8 [B, C, H, W], preprocessed, on the model's device.
            subject: As for any model.
        """
        with self._arithmetic():
            return super().evidence(images, subject)

    def _arithmetic(self) -> AbstractContextManager[Any]:
        """Return what casts the maps; the weights are cast already."""
        return torch.autocast(self.scale.device.type, torch.bfloat16) if self.fast else nullcontext()


def convert(
    model: VisionModel,
    backend: BackendName = "torch",
    *,
    precision: str = "auto",
    calibration: Iterable[Tensor] | None = None,
) -> PredictionModel:
    """Return a model that predicts the same faster: its weights are brought to their final type and order once.

    Args:
        model: In evaluation mode, on the device to use; it is not changed.
        backend: What computes the outputs. "torch": weights in bf16 where that is fast, batch normalisation folded into
            the convolutions, on a CPU weights in oneDNN's order. "compile": torch.compile with frozen weights, half a
            minute for each shape of a batch. "openvino" (CPUs) and "onnx" (ONNX Runtime): the network is exported, a
            second or some for each shape; a head that cannot be exported is computed by torch.
        precision: "32", "bf16", or "auto" for bf16 where the processor is fast at it. ONNX Runtime has float32 alone,
            and OpenVINO "int8", too: convolutions and matrix products in integers of 8 bits, the rest as with "auto".
            That is the fastest and no longer the same; ``prediction.backends.agreement.compare`` says how near.
        calibration: What "int8" learns the ranges of the maps from, and nothing else wants: uint8 images [B, C, H, W]
            as the model gets them, a hundred pictures or more. They are kept.

    Raises:
        UsageError: The model is in training mode, the backend is not there or cannot do what is asked, or "int8" lacks
            pictures.
    """
    if model.training:
        raise UsageError("the model is in training mode: call model.eval() before predict")
    device = model.scale.device
    check_backend(backend, device, precision)
    if calibration is not None and precision != "int8":
        raise UsageError("calibration: only precision='int8' learns from pictures: leave it out")
    pictures = check_calibration(calibration, model.backbone.in_channels) if precision == "int8" else []
    fast = backend != "onnx" and (
        precision == "bf16" or (precision in ("auto", "int8") and choose_precision(device) == "bf16-mixed")
    )
    made = copy.deepcopy(model).requires_grad_(False)
    if backend in ("openvino", "onnx"):
        from visionkit.prediction.backends.exported import ExportedNetwork, engine

        _cast(made, fast)  # for a second stage, or a head that cannot be exported
        if precision == "int8":
            network = QuantisedNetwork(model, made.head, fast=fast, pictures=pictures)
            return PredictionModel(made, network, fast=fast, fixed=False)
        compute: Callable[[Tensor], Any] = ExportedNetwork(model, made.head, engine(backend, device, fast), backend)
        return PredictionModel(made, compute, fast=fast, fixed=True)
    if device.type in ("cpu", "cuda"):
        made = made.to(memory_format=torch.channels_last)
    if backend == "compile":
        from visionkit.prediction.backends.compiled import compiled

        _cast(made, fast)
        return PredictionModel(made, compiled(made), fast=fast, fixed=True)
    shape = (1, made.backbone.in_channels, *made.preprocessing.size)
    fold_batch_norm(made, torch.zeros(shape, dtype=torch.uint8, device=device))
    _cast(made, fast)
    if device.type == "cpu":
        pack_convolutions(made)
        pack_linears(made)
    return PredictionModel(made, _in_order(made.forward), fast=fast, fixed=False)


def _in_order(forward: Callable[[Tensor], Any]) -> Callable[[Tensor], Any]:
    """Give a network its images in channels_last order, which collate makes, but not everyone."""
    return lambda images: forward(images.contiguous(memory_format=torch.channels_last))


def _cast(model: nn.Module, fast: bool) -> None:
    """Bring the weights of matrix products to bf16; all others stay as they are, as with autocast."""
    for module in model.modules() if fast else ():
        if isinstance(module, CAST):
            module.to(torch.bfloat16)
