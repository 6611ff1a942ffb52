"""Files of weights: found, read without running code, and asked what they say of themselves."""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from visionkit.core.errors import DataError, UsageError
from visionkit.core.files import missing, open_binary
from visionkit.models.content_digest import digest_of
from visionkit.models.description import KEY, Description, check_description, is_spec
from visionkit.models.run_folder import find_checkpoint
from visionkit.models.torch_file import AGAIN, check_tensors, first_line, format_of, read_torch
from visionkit.models.weights.hub import check_cached, fetch
from visionkit.models.weights.known import by_name
from visionkit.models.weights.places import cached, mirrored, repository_of, timm_configuration

__all__ = ["COUNTER", "PREFERRED", "WeightsFile", "find_weights", "is_hub_name", "read_state_dict", "read_weights"]

COUNTER = "num_batches_tracked"
"""How the names of BatchNorm's step counters end: many files leave them out, and no forward pass needs them."""
_SUFFIXES = (".pth", ".pt", ".ckpt", ".safetensors", ".bin")
PREFERRED = ("", "state_dict", "model", "model_state_dict")  # where several mappings hold tensors
_MAX_DEPTH = 10  # of mappings within mappings
_MAX_MAPPINGS = 10_000  # that are looked into: those that hold each other have no end
_NO_WEIGHTS = (KEY, "optimizer", "optimizer_states", "lr_schedulers", "callbacks", "loops", "averaging_state")
_AVERAGED = re.compile(r"(^|[._])(ema|avg|averaged?|swa|teacher)([._]|$)")


@dataclass(frozen=True)
class WeightsFile:
    """What a file of weights holds and says of itself.

    Args:
        source: The file or hub name, as it was given.
        path: The local file.
        groups: Where in the file tensors lie (``state_dict``, ``model_ema``; "" for the file itself) -> name -> tensor.
        sha256: Hash of the file, in hex.
        bytes: Size of the file.
        form: ``PyTorch`` or ``safetensors``.
        digest: Of the model of a visionkit checkpoint, in hex, which thresholds do not change; or None.
        description: What a visionkit checkpoint says of its model, or None.
        backbone: The backbone's spec (``class_path``, ``init_args``), where the file holds it.
        mean: Mean of each channel, 0 to 1, that the weights expect, where the file or the hub says it.
        std: Standard deviation of each channel, 0 to 1, likewise.
        says: Where ``mean`` and ``std`` are said, in words.
        passport: Plain data of the passport that the file holds, or None.
        program: What wrote the file, in words, where that can be told.
        network: The network's name that the file or the hub gives, such as timm's ``arch``, or "".
    """

    source: str
    path: Path
    groups: Mapping[str, Mapping[str, Tensor]]
    sha256: str
    bytes: int
    form: str
    digest: str | None = None
    description: Description | None = None
    backbone: Mapping[str, Any] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    says: str = ""
    passport: Mapping[str, Any] | None = None
    program: str = ""
    network: str = ""

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        """The tensors by name: the averaged ones where plain ones lie beside them."""
        return self.groups[self.container]

    @cached_property
    def container(self) -> str:
        """Where ``tensors`` lie in the file; "" for the file itself."""

        def rank(group: str) -> tuple[bool, int, bool]:  # where averaged ones are complete, they come first
            usual = group in PREFERRED or self.is_averaged(group)
            return usual, sum(not n.endswith(COUNTER) for n in self.groups[group]), self.is_averaged(group)

        return max(self.groups, key=rank)

    def is_averaged(self, group: str, prefix: str = "") -> bool:
        """Return whether names say that tensors are averaged over the training (EMA).

        Args:
            group: Where they lie in the file.
            prefix: What their names start with.
        """
        lightning = group == "state_dict" and "current_model_state" in self.groups  # its WeightAveraging
        return lightning or bool(_AVERAGED.search(group.lower()) or _AVERAGED.search(prefix.lower()))

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names that a visionkit checkpoint gives, else none."""
        return () if self.description is None else tuple(self.description["model"]["classes"])

    @property
    def task(self) -> str:
        """The task that trained a visionkit checkpoint, such as ``Classifier``, or ""."""
        task = None if self.description is None else self.description["task"]
        return (task or "").rpartition(".")[2]

    @property
    def kind(self) -> str:
        """What the file is, in words."""
        if self.description is not None:
            what = f"visionkit checkpoint of a {self.task}" if self.task else "visionkit checkpoint"
            return what + (f", {len(self.classes)} classes" if self.classes else "")
        return self.program or f"{self.form} state dict"


def find_weights(source: str | Path) -> Path:
    """Return the local file of a path or, downloaded if need be, of a hub name.

    Of a hub name it is the one in the folder that ``VISIONKIT_WEIGHTS`` names, else that in the hub's cache.

    Args:
        source: A path, or ``timm/NAME`` or ``hf-hub:OWNER/NAME``, whose model.safetensors is taken; of a run folder
            its best checkpoint.

    Raises:
        UsageError: There is no such file.
        DataError: The hub cannot be reached or has no such file, or the folder is none of a run.
    """
    path, name = Path(source).expanduser(), str(source)
    if path.exists() and not (path.is_dir() and is_hub_name(name)):  # a pipe or a device is named when it is read
        return find_checkpoint(path)
    if (known := by_name(name)) is not None:
        name = known.source
    if is_hub_name(name):
        repository = repository_of(name)
        return mirrored(repository) or cached(repository) or fetch(repository)
    raise UsageError(f"weights {missing(name)} (hub names are written timm/NAME or hf-hub:OWNER/NAME)")


def is_hub_name(source: str) -> bool:
    """Return whether a source is a name of the hub: ``timm/NAME``, ``hf-hub:OWNER/NAME`` or one that is known."""
    return source.startswith("hf-hub:") or _is_timm(source) or by_name(source) is not None


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Read the tensors of a file by name, without running any code it may hold.

    Files that wrap them (under ``state_dict``, ``model``, ...) are unwrapped; averaged ones come before plain ones.

    Args:
        path: A PyTorch (.pth, .pt, .ckpt) or safetensors file; the content decides, not the name.

    Raises:
        DataError: The file is damaged, of another format, holds no tensors or would run code.
    """
    return dict(_read(Path(path), str(path)).tensors)


def read_weights(source: str | Path) -> WeightsFile:
    """Read a file of weights with all that it says of itself, without running any code it may hold.

    Args:
        source: A .pth, .pt, .ckpt or .safetensors file, a run folder, or a hub name (``timm/NAME``,
            ``hf-hub:OWNER/NAME``); the content decides, not the name. ``FILE#PART`` takes the tensors alone that lie
            under PART, such as ``encoder_q``, where a file holds several networks.

    Raises:
        UsageError: There is no such file.
        DataError: The file is damaged, of another format, holds no tensors or would run code.
    """
    name, hash_, part = str(source).rpartition("#")
    if not (hash_ and part) or Path(source).expanduser().exists():  # the path may hold a #
        return _read(find_weights(source), str(source))
    file = _read(find_weights(name), str(source))
    groups = {
        group: chosen
        for group, tensors in file.groups.items()
        if (chosen := {k: t for k, t in tensors.items() if f".{part}." in f".{group}.{k}."})
    }
    if not groups:
        raise DataError(f"weights {name}: no tensor's name has a part {part!r}")
    return replace(file, groups=groups)


def _read(path: Path, source: str) -> WeightsFile:
    metadata: Mapping[str, str] = {}
    with open_binary(path) as file:
        form = format_of(file, path)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        size = file.tell()
        check_cached(path, digest)
        if form == "PyTorch":
            content = read_torch(file, path)
        else:
            content, metadata = _read_safetensors(file, path)
    groups = _collect(content) if isinstance(content, Mapping) else {}
    if not groups:
        raise DataError(f"{path}: holds no tensors by name; expected a state dict")
    return WeightsFile(source, path, groups, digest, size, form, **_facts(source, path, content, metadata))


def _collect(content: Mapping[Any, Any]) -> dict[str, dict[str, Tensor]]:
    """Return the mappings from names to tensors, by the keys that lead to them; one that holds itself has no end."""
    groups: dict[str, dict[str, Tensor]] = {}
    waiting = [(content, "", 0)]
    for content, where, depth in waiting:
        if tensors := {k: v for k, v in content.items() if isinstance(k, str) and isinstance(v, Tensor)}:
            groups[where] = tensors
        for key, value in content.items():
            inner = isinstance(key, str) and isinstance(value, Mapping) and (where or key not in _NO_WEIGHTS)
            if inner and depth < _MAX_DEPTH and len(waiting) < _MAX_MAPPINGS:
                waiting.append((value, f"{where}.{key}" if where else key, depth + 1))
    return groups


def _facts(source: str, path: Path, content: Mapping[str, Any], metadata: Mapping[str, str]) -> dict[str, Any]:
    """Return what the file, its header or the hub say: statistics, backbone, passport."""
    facts: dict[str, Any] = {}
    said: Mapping[str, Any] = {}
    if KEY in content:
        description = check_description(content[KEY], path)
        backbone = description["model"]["backbone"]
        facts = {"description": description, "backbone": backbone, "passport": description.get("passport")}
        said, facts["says"] = backbone["init_args"], "the checkpoint"
        state = content.get("state_dict")
        if isinstance(state, Mapping) and all(isinstance(name, str) for name in state):
            facts["digest"] = digest_of({KEY: description, "state_dict": state}, path)
    elif "visionkit" in metadata:
        spec = _json(metadata, "backbone")
        said = {key: _json(metadata, key) for key in ("mean", "std")}
        facts = {
            "backbone": spec if is_spec(spec) else None,
            "passport": _json(metadata, "passport"),
            "says": "the file's header",
        }
        facts["program"] = f"backbone exported by visionkit {metadata['visionkit']}"
    elif "pytorch-lightning_version" in content:
        facts["program"] = "Lightning checkpoint"
    elif isinstance(arch := content.get("arch"), str):
        facts |= {"program": f"timm checkpoint of {arch}", "network": arch}
    elif isinstance(args := content.get("args"), argparse.Namespace) and isinstance(getattr(args, "model", 0), str):
        facts |= {"program": f"training checkpoint of {args.model}", "network": args.model}
    hub = known.source if (known := by_name(source)) is not None else repository_of(source)
    if not said and _is_timm(hub) and not Path(source).expanduser().is_file():
        facts["network"] = hub.removeprefix("timm/")
        if (cfg := timm_configuration(facts["network"])) is not None:
            said, facts["says"] = {"mean": cfg.mean, "std": cfg.std}, f"timm's configuration of {facts['network']}"
    facts |= {key: _statistics(said.get(key)) for key in ("mean", "std")}
    if not isinstance(facts.get("passport"), Mapping):
        facts["passport"] = None
    return facts


def _statistics(values: Any) -> tuple[float, ...] | None:
    """Return pixel statistics on the 0..1 scale, or None where there are none."""
    if not isinstance(values, Sequence) or isinstance(values, str) or not values:
        return None
    return tuple(map(float, values)) if all(isinstance(v, int | float) and 0 <= v <= 1 for v in values) else None


def _json(metadata: Mapping[str, str], key: str) -> Any:
    try:
        return json.loads(metadata.get(key, "null"))
    except (ValueError, RecursionError):
        return None


def _read_safetensors(file: io.BufferedReader, path: Path) -> tuple[dict[str, Tensor], Mapping[str, str]]:
    from safetensors import SafetensorError
    from safetensors.torch import load

    file.seek(0)
    data = file.read()
    try:
        tensors = load(data)  # it checks the header, which json alone would take as it is
    except (SafetensorError, ValueError, RuntimeError, KeyError) as e:  # KeyError: numbers of a kind that torch lacks
        raise DataError(f"{path}: damaged or no safetensors file: {first_line(e)}: {AGAIN}") from e
    check_tensors(tensors, len(data), path)
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return tensors, header.get("__metadata__", {})


def _is_timm(name: str) -> bool:
    return bool(re.fullmatch(r"timm/[\w.-]+", name)) and not name.endswith(_SUFFIXES)
