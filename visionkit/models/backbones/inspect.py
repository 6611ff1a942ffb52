"""What a file of weights holds, without loading it into anything."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from visionkit.models.backbones.identify import Architecture, identify_architecture, skeleton
from visionkit.models.weights.file import COUNTER, read_weights
from visionkit.models.weights.load import Generation, lineage_of
from visionkit.models.weights.match import fit, top_level

__all__ = ["Inspection", "StageSize", "inspect_weights"]

_STATISTICS = ("running_mean", "running_var")  # BatchNorm's, no parameters
_CLASSIFIER = re.compile(r"(^|\.)(fc|head|heads|classifier|linear)(\.\d+|\.fc|\.head|\.linear)?\.weight$")


@dataclass(frozen=True)
class StageSize:
    """Size of one stage.

    Args:
        name: Name of the stage.
        tensors: Number of tensors (BatchNorm's counters apart).
        parameters: Numbers in them, BatchNorm's statistics apart.
    """

    name: str
    tensors: int
    parameters: int


@dataclass(frozen=True)
class Inspection:
    """What a file of weights holds.

    Args:
        source: The file or hub name, as it was given.
        sha256: Hash of the file, in hex.
        bytes: Size of the file.
        kind: What the file is, in words.
        network: The network, in words.
        backbone: Class of the backbone as ``--model.backbone`` takes it; "" where it is not known.
        arguments: The backbone's arguments, where they are not the defaults.
        options: The command-line arguments that ask for it.
        certain: Whether the file says so itself, or every name and shape was compared and no other network is alike.
        alike: Other timm networks with the same names and shapes.
        container: Where in the file the tensors lie; "" for the file itself.
        prefix: What their names have before the backbone's.
        averaged: Whether they are averages over the training (EMA).
        others: Where else in the file tensors lie -> how many.
        dtypes: Kind of number -> how many tensors.
        task: The task that trained a visionkit checkpoint, or "".
        classes: Class names that the file gives.
        outputs: Number of outputs of the classifier, where it has one of a usual name.
        mean: Mean of each channel that the weights expect, 0 to 1, or None where nothing says it.
        std: Standard deviation of each channel, likewise.
        statistics: Mean and std and where they are said, in words, or "".
        stages: Sizes of the stages.
        left_over: What lies beside the backbone: first part of the names -> how many tensors.
        lineage: What the weights were started from, newest first.
    """

    source: str
    sha256: str
    bytes: int
    kind: str
    network: str
    backbone: str
    arguments: Mapping[str, Any]
    options: str
    certain: bool
    alike: tuple[str, ...]
    container: str
    prefix: str
    averaged: bool
    others: Mapping[str, int]
    dtypes: Mapping[str, int]
    task: str
    classes: tuple[str, ...]
    outputs: int | None
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    statistics: str
    stages: tuple[StageSize, ...]
    left_over: Mapping[str, int]
    lineage: tuple[Generation, ...]

    def plain(self) -> dict[str, Any]:
        """Return it in plain data, for JSON."""
        return dataclasses.asdict(self)


def inspect_weights(source: str | Path) -> Inspection:
    """Say what a file of weights holds.

    Args:
        source: A .pth, .pt, .ckpt or .safetensors file, or a hub name (``timm/NAME``, ``hf-hub:OWNER/NAME``).

    Raises:
        UsageError: There is no such file.
        DataError: The file is damaged, of another format, holds no tensors or would run code.
    """
    file = read_weights(source)
    guess = identify_architecture(file) or Architecture("not recognised")
    net = skeleton(guess, file)
    container, prefix, averaged = file.container, "", file.is_averaged(file.container)
    unused: tuple[str, ...] = ()
    stages = {name: name.partition(".")[0] for name in file.tensors}
    if net is not None:
        found = fit(file, net)
        container, prefix, averaged, unused = found.container, found.prefix, found.averaged, found.unused
        paths = {id(m): path for path, m in net.named_modules()}
        named = {f"{paths[id(m)]}.": stage for stage, modules in net.stages().items() for m in modules}
        stages = {
            theirs: next((stage for path, stage in named.items() if ours.startswith(path)), "other")
            for ours, theirs in found.names.items()
        }
        order = [*net.stages(), "other"]
        stages = dict(sorted(stages.items(), key=lambda item: order.index(item[1])))
    tensors = file.groups[container]
    says = [
        f"{key} {' '.join(f'{v:.4g}' for v in values)}" for key in ("mean", "std") if (values := getattr(file, key))
    ]
    return Inspection(
        source=file.source,
        sha256=file.sha256,
        bytes=file.bytes,
        kind=file.kind,
        network=guess.title,
        backbone=guess.name,
        arguments=dict(guess.arguments or {}),
        options=guess.options,
        certain=guess.certain,
        alike=guess.alike,
        container=container,
        prefix=prefix,
        averaged=averaged,
        others={name: len(group) for name, group in file.groups.items() if name != container},
        dtypes=dict(Counter(str(t.dtype).removeprefix("torch.") for t in tensors.values())),
        task=file.task,
        classes=file.classes,
        outputs=_outputs(tensors),
        mean=file.mean,
        std=file.std,
        statistics=f"{', '.join(says)}: from {file.says}" if says else "",
        stages=_sizes(stages, tensors),
        left_over=top_level(unused, prefix),
        lineage=lineage_of(file),
    )


def _sizes(stages: Mapping[str, str], tensors: Mapping[str, Tensor]) -> tuple[StageSize, ...]:
    """Count the tensors of each stage, given the stage of each tensor."""
    sizes: dict[str, list[int]] = {}
    for name, stage in stages.items():
        if not name.endswith(COUNTER):
            counts = sizes.setdefault(stage, [0, 0])
            counts[0] += 1
            counts[1] += 0 if name.endswith(_STATISTICS) else tensors[name].numel()
    return tuple(StageSize(stage, *counts) for stage, counts in sizes.items())


def _outputs(tensors: Mapping[str, Tensor]) -> int | None:
    found = [t.shape[0] for name, t in tensors.items() if t.ndim == 2 and _CLASSIFIER.search(name)]
    return found[-1] if found else None
