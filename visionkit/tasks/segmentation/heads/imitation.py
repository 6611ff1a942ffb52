"""What a segmenter learns from a teacher: the probabilities of each cell, wherever the picture shows something."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from visionkit.data.labels.masks import IGNORE

__all__ = ["at_cells", "cell_divergence", "cell_weights", "same_cells", "taught_pixels"]


def cell_divergence(logits: Tensor, taught: Tensor, weights: Tensor, *, temperature: float) -> Tensor:
    """Return the weighted mean over cells of the divergence from a teacher's probabilities, 0 where they are equal.

    Kullback-Leibler at a temperature, times its square (Hinton et al. 2015; Liu et al., "Structured Knowledge
    Distillation for Semantic Segmentation", CVPR 2019, equation 1, for pixels).

    Args:
        logits: Float [B, S, h, w].
        taught: Float [B, S, h, w], the teacher's, of the same cells.
        weights: Float [B, h, w], what each cell counts, >= 0; 0 where none does.
        temperature: By which both are divided, > 0.
    """
    log_p = F.log_softmax(logits.float() / temperature, 1)
    log_q = F.log_softmax(taught.float() / temperature, 1)
    divergence = F.kl_div(log_p, log_q, reduction="none", log_target=True).sum(1)  # [B, h, w]
    return temperature**2 * (divergence * weights).sum() / weights.sum().clamp_min(1e-6)


def taught_pixels(images: Tensor, mask: Tensor, own: Tensor) -> Tensor:
    """Return which pixels a teacher speaks of, bool [B, H, W].

    Not those of classes that it does not know, nor those in which the picture shows nothing: without a label, and of
    one colour with their neighbours, such as the grey around an image. Pixels that are merely not labelled count.

    Args:
        images: uint8 [B, C, H, W].
        mask: uint8 [B, H, W], class ids and 255.
        own: int64 [S], ids of the classes that it knows.
    """
    known = torch.zeros(IGNORE + 1, dtype=torch.bool, device=mask.device)
    known[own] = True
    known[IGNORE] = True
    across = (images[..., 1:] == images[..., :-1]).all(1)  # [B, H, W - 1]
    down = (images[..., 1:, :] == images[..., :-1, :]).all(1)  # [B, H - 1, W]
    flat = F.pad(across, (0, 1), value=True) & F.pad(across, (1, 0), value=True)
    flat &= F.pad(down, (0, 0, 0, 1), value=True) & F.pad(down, (0, 0, 1, 0), value=True)
    return known[mask.long()] & ~(flat & (mask == IGNORE))


def same_cells(
    logits: Tensor, stride: float, taught: Tensor, strides: tuple[float, float]
) -> tuple[Tensor, Tensor, tuple[float, float]]:
    """Return two maps of a picture on the cells of the finer one, and the height and width of those in pixels.

    Args:
        logits: Float [B, S, h, w], of square cells of ``stride`` pixels.
        stride: Side of a cell.
        taught: Float [B, S, h', w'], of cells of ``strides`` pixels.
        strides: Their height and width.
    """
    if logits.shape == taught.shape and strides == (stride, stride):
        return logits, taught, strides
    if strides[0] < stride:
        return at_cells(logits, (stride, stride), taught, strides), taught, strides
    return logits, at_cells(taught, strides, logits, (stride, stride)), (stride, stride)


def at_cells(x: Tensor, own: tuple[float, float], others: Tensor, strides: tuple[float, float]) -> Tensor:
    """Return a map at the middles of other cells, bilinear; beyond its outermost middles it stays as it is there.

    Args:
        x: Float [B, S, h, w], of cells of ``own`` (height, width) pixels.
        own: Height and width of its cells.
        others: [..., h', w'], a map of the other cells.
        strides: Their height and width in pixels.

    Returns:
        Float32 [B, S, h', w'].
    """
    places = []
    for axis in (0, 1):
        middles = (torch.arange(others.shape[axis - 2], device=x.device, dtype=torch.float32) + 0.5) * strides[axis]
        places.append(2 * middles / (own[axis] * x.shape[axis - 2]) - 1)  # -1 and 1 are the map's edges
    rows, columns = torch.meshgrid(*places, indexing="ij")
    grid = torch.stack((columns, rows), -1).expand(len(x), -1, -1, -1)  # [B, h', w', 2], x first
    return F.grid_sample(x.float(), grid, mode="bilinear", padding_mode="border", align_corners=False)


def cell_weights(pixels: Tensor, cells: tuple[int, int], strides: tuple[float, float]) -> Tensor:
    """Return the share of the pixels of each cell that count, float32 [B, h, w].

    Args:
        pixels: Bool [B, H, W].
        cells: Height and width of the map of cells; the last ones can reach beyond the picture.
        strides: Height and width of a cell in pixels.
    """
    height, width = (round(n * s) for n, s in zip(cells, strides, strict=True))
    missing = (0, max(0, width - pixels.shape[2]), 0, max(0, height - pixels.shape[1]))
    return F.interpolate(F.pad(pixels[:, None].float(), missing), cells, mode="area")[:, 0]
