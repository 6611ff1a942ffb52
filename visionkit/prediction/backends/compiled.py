"""The network as code that torch.compile writes for this processor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from visionkit.core.errors import UsageError
from visionkit.core.machine import refuse_foreign_code
from visionkit.models.model import VisionModel

__all__ = ["compiled"]


def compiled(model: VisionModel) -> Callable[[Tensor], Any]:
    """Return what computes the head's outputs, compiled at the first call with each shape, with frozen weights.

    Args:
        model: In evaluation mode, without gradients.

    Raises:
        UsageError: Others may write into the folder in which torch keeps such code.
    """
    refuse_foreign_code()
    network = torch.compile(model.forward, dynamic=False, options={"freezing": True})

    def compute(images: Tensor) -> Any:
        try:
            return network(images.contiguous(memory_format=torch.channels_last))
        except torch._dynamo.exc.TorchDynamoException as e:
            reason = next((line for line in str(e).splitlines() if line.strip()), type(e).__name__)
            raise UsageError(f"--backend compile: torch cannot compile this network ({reason.strip()})") from e

    return compute
