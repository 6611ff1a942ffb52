"""Batch normalisation of small maps."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["BatchNorm2d"]


class BatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation that takes its running statistics where a batch has one value a channel.

    One value has no variance: torch raises an error. It happens on the coarsest level of a pyramid with a batch of one.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalise [B, C, H, W]."""
        if self.training and x.numel() == x.shape[1]:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps)
        return super().forward(x)
