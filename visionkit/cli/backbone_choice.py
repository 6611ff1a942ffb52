"""Which pretrained network knows most of a data set, and at which size: told by a linear head on its features."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from visionkit.cli.config.classes import Place
from visionkit.core.errors import VisionkitError
from visionkit.core.machine import choose_precision
from visionkit.data.dataset import load_sample
from visionkit.data.transforms.preprocessing import Preprocessing
from visionkit.models.backbones.base import Backbone
from visionkit.models.backbones.resnet import ResNet
from visionkit.models.backbones.timm import TimmBackbone
from visionkit.models.model import VisionModel
from visionkit.models.weights.places import AUTO, mirror, timm_configuration, weights_at_hand
from visionkit.tasks.classification.heads import LinearHead
from visionkit.tasks.classification.losses import binary_cross_entropy, soft_cross_entropy
from visionkit.tasks.classification.solve import judge
from visionkit.training.advice import spread
from visionkit.training.datamodule import VisionDataModule

__all__ = ["MOST_PICTURES", "choose_backbone", "choose_size"]

DEPTHS = (18, 34, 50)
MOST_PICTURES = 600
"""That are looked at for each network."""
SIZE, BATCH = 224, 16
SIZES = (96, 128, 160)  # that a CPU trains on in minutes
WITHIN = 0.015  # share of pictures by which a smaller size may be worse than the best
MARGIN = 0.01  # share of pictures by which a network must be better than the ResNet to take its place


def choose_backbone(
    content: dict[str, Any], data: VisionDataModule[Any], lines: list[str], most: int = MOST_PICTURES
) -> dict[Place, str]:
    """Write the network into a config whose frozen features tell the classes apart best.

    Only weights that lie on this machine are tried, and only where there are several; else the config stays.

    Args:
        content: A config of a classifier.
        data: The data that it names.
        lines: What is found goes there, for the terminal.
        most: Pictures that are looked at.

    Returns:
        The reason of the choice, by the place where it belongs.
    """
    networks = list(_at_hand())
    train = data.splits.train
    if len(networks) < 2 or train is None:
        return {}
    samples = _pictures(data, SIZE, most)
    found: list[tuple[float, str, Mapping[str, Any]]] = []
    for name, spec in networks:
        try:
            right = _judged(_made(spec), samples, data)
        except VisionkitError:  # whoever takes these weights says what is wrong with them
            continue
        found.append((right, name, spec))
    if not found:
        return {}
    plain = [entry for entry in found if entry[2]["class_path"] == "ResNet"]
    best = max(found, key=lambda entry: entry[0] - (MARGIN if plain and entry not in plain else 0.0))
    content["model"]["init_args"]["backbone"] = dict(best[2])
    said = ", ".join(f"{name} {right:.3f}" for right, name, _ in found)
    lines.append(f"network  {best[1]}: its frozen features get most of {len(samples)} pictures right ({said})")
    return {("model", "backbone", "class_path"): f"its frozen features get most pictures right ({said})"}


def choose_size(
    content: dict[str, Any],
    data: VisionDataModule[Any],
    lines: list[str],
    given: Mapping[Place, Any],
    most: int = MOST_PICTURES,
) -> dict[Place, str]:
    """Write the size of pictures into a config at which the frozen features of its network tell the classes apart.

    Networks see best at about the size that they were trained on, which weights do not say; and a CPU trains on small
    pictures several times as fast. Pictures, or a network, that make no difference leave the config as it is.

    Args:
        content: A config of a classifier.
        data: The data that it names.
        lines: What is found goes there, for the terminal.
        given: Keys that the command line sets.
        most: Pictures that are looked at.

    Returns:
        The reason of the choice, by the place where it belongs.
    """
    spec = content["model"]["init_args"]["backbone"]
    own = {place[2]: value for place, value in given.items() if place[:2] == ("model", "backbone") and len(place) == 3}
    made = {"class_path": own.pop("class_path", spec["class_path"]), "init_args": {**spec["init_args"], **own}}
    weights = made["init_args"].get("weights")
    network = made["init_args"].get("name" if made["class_path"] == "TimmBackbone" else "depth")
    if weights is None or (weights == AUTO and (network is None or weights_at_hand(network) is None)):
        return {}
    try:
        backbone = _made(made)
        found = [(_judged(backbone, _pictures(data, size, most), data), size) for size in SIZES]
    except (VisionkitError, TypeError, ValueError):  # whoever makes it says what is wrong
        return {}
    best = max(found)[0]
    size = next(size for right, size in found if right >= best - WITHIN)
    content["data"]["init_args"]["size"] = size
    said = ", ".join(f"{size} px {right:.3f}" for right, size in found)
    lines.append(f"size     {size} px: frozen features get about as many pictures right as at any ({said})")
    return {("data", "size"): f"frozen features get about as many right there as at any ({said})"}


def _pictures(data: VisionDataModule[Any], size: int, most: int) -> list[Any]:
    """Return training pictures that stand for all at a size."""
    train = data.splits.train
    assert train is not None  # asked before
    seen = Preprocessing(size, resize=data.preprocessing.resize, channels=data.preprocessing.channels)
    return [seen(load_sample(train, k, seen.scale)) for k in spread(len(train), most)]


def _at_hand() -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield name and description of each network whose weights lie here."""
    for depth in DEPTHS:
        if weights_at_hand(depth) is not None:
            yield f"ResNet-{depth}", {"class_path": "ResNet", "init_args": {"depth": depth, "weights": AUTO}}
    folder = mirror()
    for path in sorted(folder.iterdir()) if folder is not None else ():
        network = path.name.partition(".")[0]
        ours = network.startswith("resnet") or timm_configuration(network) is None
        if not ours and weights_at_hand(network) == path:
            yield network, {"class_path": "TimmBackbone", "init_args": {"name": network, "weights": AUTO}}


def _made(spec: Mapping[str, Any]) -> Backbone:
    arguments = dict(spec["init_args"])
    return ResNet(**arguments) if spec["class_path"] == "ResNet" else TimmBackbone(**arguments)


@torch.inference_mode()
def _judged(backbone: Backbone, samples: list[Any], data: VisionDataModule[Any]) -> float:
    """Return the share of pictures, preprocessed ones, that a linear head gets right which was solved on others."""
    multilabel = bool(getattr(data, "multilabel", False))
    model = VisionModel(backbone, LinearHead, data.classes, preprocessing=Preprocessing(SIZE)).eval()
    bf16 = choose_precision(torch.device("cpu")) == "bf16-mixed"
    pooled: list[Tensor] = []
    scores: list[Tensor] = []
    for start in range(0, len(samples), BATCH):
        part = samples[start : start + BATCH]
        images = torch.stack([sample.image for sample in part]).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            levels = model.backbone(model.normalise(images))
        pooled.append(levels[-1].float().mean(dim=(2, 3)))
        scores += [sample.target.scores for sample in part]
    loss = binary_cross_entropy if multilabel else soft_cross_entropy
    return judge(torch.cat(pooled), torch.stack(scores), loss)
