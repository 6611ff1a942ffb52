"""Where weights lie on this machine: in the mirror folder or the cache of the hub. Nothing here asks the network."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from visionkit.core.errors import UsageError
from visionkit.models.weights.known import recommended

__all__ = [
    "AUTO",
    "FILE",
    "VARIABLE",
    "auto_source",
    "cached",
    "hub_source",
    "mirror",
    "mirror_name",
    "mirrored",
    "repository_of",
    "timm_configuration",
    "weights_at_hand",
]

AUTO = "auto"
"""The word that stands for the recommended weights of a backbone."""
VARIABLE = "VISIONKIT_WEIGHTS"
"""Environment variable that names the mirror folder."""
FILE = "model.safetensors"
"""The file of the hub's repositories that is taken."""
_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")  # in the order in which they are looked for


def mirror() -> Path | None:
    """Return the folder that ``VISIONKIT_WEIGHTS`` names, or None where it names none.

    Raises:
        UsageError: It is no folder.
    """
    if not (named := os.environ.get(VARIABLE)):
        return None
    if not (folder := Path(named).expanduser()).is_dir():
        raise UsageError(f"{VARIABLE} is {named}, which is no folder: name the folder where files of weights lie")
    return folder


def mirrored(repository: str) -> Path | None:
    """Return the mirror's file of a hub name, :func:`mirror_name` with .safetensors, .pth, .pt or .bin, or None.

    Args:
        repository: The name on the hub, OWNER/NAME.
    """
    folder = mirror()
    paths = [] if folder is None else [folder / f"{mirror_name(repository)}{suffix}" for suffix in _SUFFIXES]
    return next((path for path in paths if path.is_file()), None)


def mirror_name(repository: str) -> str:
    """Return the name of a file in the mirror, without suffix: NAME of timm/NAME, OWNER--NAME of others.

    Args:
        repository: The name on the hub, OWNER/NAME.
    """
    return repository.removeprefix("timm/").replace("/", "--")


def cached(repository: str) -> Path | None:
    """Return the file of a hub name that lies in the hub's cache, which timm and transformers share, or None.

    Args:
        repository: The name on the hub, OWNER/NAME.
    """
    from huggingface_hub import try_to_load_from_cache

    try:
        found = try_to_load_from_cache(repository, FILE)
    except ValueError:  # no name of a repository
        return None
    return Path(found) if isinstance(found, str) else None


def auto_source(network: str | None, whose: str) -> str:
    """Return what ``auto`` stands for: a file of the mirror, or a hub name, which may have to be fetched.

    In the mirror it is the first there is of: the recommended name (resnet18.a1_in1k.safetensors); the network's name
    alone (resnet18.pth); by alphabet, a name that begins with it (resnet18.tv_in1k.safetensors, resnet18_mine.pth).

    Args:
        network: Timm's name of the network, with or without a tag; None where weights for it are not known.
        whose: What is to be filled, in words, for messages.

    Raises:
        UsageError: There are no weights of this network, or the mirror is no folder.
    """
    source = None if network is None else hub_source(network)
    if source is not None and mirrored(repository_of(source)) is not None:
        return source
    if network is not None and (path := _of_network(network)) is not None:
        return f"timm/{path.stem}" if timm_configuration(path.stem) is not None else str(path)
    if source is None:
        raise UsageError(
            f"weights: auto: none are known for {whose}; `visionkit backbone list` shows what there is: take such a "
            "network, give a file (partial: true takes what fits of it), or weights: null to train from scratch"
        )
    return source


def weights_at_hand(what: int | str) -> Path | None:
    """Return the file that ``auto`` would take without asking the network, or None where it would have to.

    Args:
        what: Depth of a plain ResNet (18, 34, 50, 101, 152), or timm's name of a network, such as resnet50d; what
            ``Backbone.network_name`` returns.

    Raises:
        UsageError: The mirror is no folder.
    """
    network = f"resnet{what}" if isinstance(what, int) else what
    source = hub_source(network)
    repository = None if source is None else repository_of(source)
    found = None if repository is None else mirrored(repository)
    return found or _of_network(network) or (None if repository is None else cached(repository))


def hub_source(network: str) -> str | None:
    """Return the hub name of the weights that ``auto`` takes for a network, or None where there are none.

    Args:
        network: Timm's name of it; with a tag these very weights are meant, without one timm's choice.
    """
    if (known := recommended(network)) is not None:
        return known.source
    config = timm_configuration(network)
    hub = None if config is None else config.hf_hub_id
    return hub if hub is None or hub.startswith("timm/") else f"hf-hub:{hub}"


def repository_of(source: str) -> str:
    """Return OWNER/NAME of a hub name as ``weights`` takes it."""
    return source.removeprefix("hf-hub:")


def timm_configuration(name: str) -> Any:
    """Return what timm says of the weights of a network (licence, statistics), or None where it knows none.

    Args:
        name: NETWORK.TAG, or NETWORK for the weights that are timm's choice.
    """
    import timm

    try:
        return timm.get_pretrained_cfg(name) if timm.is_model(name) else None
    except RuntimeError:  # no such tag
        return None


def _of_network(network: str) -> Path | None:
    """Return the mirror's file of a network, its tag apart, under any name, or None."""
    if (folder := mirror()) is None:
        return None
    name = network.partition(".")[0]
    ours = re.compile(rf"{re.escape(name)}(\..*|[-_][^.]*)?", re.IGNORECASE)  # resnet50_gn.a1h is another network
    files = [p for p in folder.iterdir() if p.suffix in _SUFFIXES and ours.fullmatch(p.stem) and p.is_file()]
    return min(files, key=lambda p: (p.stem != name, p.name), default=None)
