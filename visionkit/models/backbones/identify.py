"""Which backbone a file of weights belongs to, told from what it says, its tensors' names and their shapes."""

from __future__ import annotations

import difflib
import inspect
import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch

import visionkit
from visionkit.core.component import build, checked, class_path
from visionkit.models.backbones.residual import DEPTHS
from visionkit.models.outline import Unfilled, outline
from visionkit.models.weights.file import WeightsFile
from visionkit.models.weights.match import fit, top_level

__all__ = ["Architecture", "identify_architecture", "hint", "skeleton"]

_OWN = ("ResNet", "TimmBackbone")
_FIRST_CONV = re.compile(r"^(.*?)layer1\.0\.conv1\.(?:0\.)?weight$")
_NOT_SHAPE = ("weights", "partial", "mean", "std", "zero_init_last")


@dataclass(frozen=True)
class _Family:
    """Networks that are alike.

    Args:
        title: Their name in words.
        pattern: Regular expression that is found in one of their tensor names.
        models: Patterns of timm's names of them; none where timm names the tensors otherwise.
    """

    title: str
    pattern: str
    models: tuple[str, ...] = ()


_FAMILIES = (  # the first that fits; torchvision's names first, they hold parts of timm's
    _Family("torchvision's EfficientNet, MobileNetV3 or ConvNeXt", r"features\.\d+\.(\d+\.)?block\.\d"),
    _Family("torchvision's MobileNetV2", r"features\.\d+\.conv\.\d+\."),
    _Family("torchvision's vision transformer", r"encoder\.layers\.encoder_layer_0\."),
    _Family("torchvision's Swin transformer", r"features\.\d+\.\d+\.attn\."),
    _Family("a vision transformer of Hugging Face's transformers", r"embeddings\.patch_embeddings\."),
    _Family("a YOLO network", r"\.cv1\.conv\.weight"),
    _Family("a Swin transformer", r"relative_position_bias_table", ("swin*",)),
    _Family("a vision transformer (ViT)", r"blocks\.0\.attn\.qkv\.", ("vit_*", "deit*", "beit*", "eva*")),
    _Family("a ConvNeXt", r"stages[._]\d\.blocks\.\d+\.conv_dw\.", ("convnext*",)),
    _Family(
        "an EfficientNet or MobileNet",
        r"(^|\.)conv_stem\.weight",
        ("*efficientnet*", "mobilenet*", "mnasnet*", "fbnet*", "tinynet*", "lcnet*", "ghostnet*", "*mixnet*"),
    ),
    _Family("a DenseNet", r"denseblock1\.denselayer1\.", ("densenet*",)),
    _Family("an HRNet", r"stage2\.0\.branches\.", ("hrnet*",)),
    _Family("a RegNet", r"(^|\.)s1\.b1\.conv1\.", ("regnet*",)),
    _Family("a VGG", r"(^|\.)features\.\d+\.weight", ("vgg*",)),
    _Family(
        "a relative of ResNet", r"(^|\.)layer1\.0\.conv1\.", ("*resnet*", "*resnext*", "res2*", "resnest*", "skres*")
    ),
)


@dataclass(frozen=True)
class Architecture:
    """A backbone that a file of weights asks for.

    Args:
        title: What it is, in words.
        name: Class of the backbone as ``--model.backbone`` takes it; "" where only the family is known.
        arguments: Its constructor's arguments, where they are not the defaults.
        certain: Whether the file says so itself, or every name and shape was compared and no other network is alike.
        alike: Names of other timm networks that have the same names and shapes.
    """

    title: str
    name: str = ""
    arguments: Mapping[str, Any] | None = None
    certain: bool = False
    alike: tuple[str, ...] = ()

    @property
    def options(self) -> str:
        """The command-line arguments that ask for it; "" where only the family is known."""
        return " ".join([f"--model.backbone {self.name}", *_options(self.arguments or {})]) if self.name else ""


def identify_architecture(file: WeightsFile, *, seconds: float = 5.0) -> Architecture | None:
    """Tell the backbone of a file.

    A visionkit file says it; a ResNet is read from names and shapes; timm's networks of the family and with a name
    like the file's are tried out, without memory for their weights.

    Args:
        file: The file.
        seconds: How long to try out networks.
    """
    if file.backbone is not None:
        return _described(file.backbone)
    if (arguments := _resnet_arguments(file)) is not None:
        found = _architecture("ResNet", arguments)
        if (net := skeleton(found, file)) is not None and _passes(file, net) == 1:
            return found
    family = next((f for f in _FAMILIES if any(re.search(f.pattern, n) for n in file.tensors)), None)
    fitting = _try_out(file, family, seconds)
    if fitting:
        name, *alike = fitting
        return Architecture(f"timm's {name}", "TimmBackbone", {"name": name}, not alike, tuple(alike))
    return Architecture(family.title) if family is not None else None


def hint(backbone: Any, file: WeightsFile) -> str:
    """Say which backbone a file asks for, where it is another than this one.

    Args:
        backbone: The backbone into which the file does not go.
        file: The file.
    """
    found = identify_architecture(file)
    if found is None:
        return ""
    if not found.name:
        other = found.title.startswith(("torchvision", "a vision transformer of Hugging"))
        advice = (
            "take timm's file of it, with timm's names"
            if other
            else "name it with --model.backbone TimmBackbone --model.backbone.name NAME"
        )
        return f"the file looks like {found.title}: {advice}"
    if found.name not in (type(backbone).__name__, class_path(type(backbone))):
        alike = f" (or {', '.join(found.alike)}, with the same names and shapes)" if found.alike else ""
        return f"the file holds {found.title}{alike}: use {found.options}"
    if found.name == "ResNet":
        theirs = _resnet_arguments(file) or {}
        ours = _shape_arguments({k: tuple(v.shape) for k, v in backbone.state_dict().items()}) or {}
        wanted = {k: v for k, v in theirs.items() if ours.get(k) != v and k != "in_channels"}
        if "depth" in wanted and "layers" in ours:
            wanted["layers"] = None
    else:
        given = {**backbone._arguments, "name": getattr(backbone, "name", None)}
        wanted = {k: v for k, v in (found.arguments or {}).items() if given.get(k) != v}
    if not wanted:
        return ""
    return f"the file's tensors say {', '.join(f'{k}: {_yaml(v)}' for k, v in wanted.items())}: use " + " ".join(
        _options(wanted)
    )


def skeleton(architecture: Architecture, file: WeightsFile) -> Any:
    """Build one of visionkit's own backbones without memory for its weights, or return None where that fails.

    Args:
        architecture: What :func:`identify_architecture` returned.
        file: The file, whose tensors say how large the backbone can be.
    """
    if architecture.name not in _OWN:
        return None
    try:
        with outline(sum(map(len, file.groups.values()))):
            return build(checked(_spec(architecture.name, architecture.arguments)))
    except Exception:  # arguments that a file says can be anything
        return None


def _spec(name: str, arguments: Mapping[str, Any] | None) -> dict[str, Any]:
    return {"class_path": f"visionkit.{name}", "init_args": dict(arguments or {})}


def _architecture(name: str, arguments: Mapping[str, Any]) -> Architecture:
    """Leave out defaults, and find words."""
    known = inspect.signature(getattr(visionkit, name)).parameters if name in _OWN else {}
    defaults = {k: p.default for k, p in known.items()}
    always = ("depth",) if "layers" not in arguments or arguments["layers"] is None else ()
    kept = {
        k: v
        for k, v in arguments.items()
        if k not in _NOT_SHAPE and v is not None and (k in always or k not in defaults or v != defaults[k])
    }
    if name == "TimmBackbone":
        title = f"timm's {kept.get('name')}"
    else:
        title = " ".join(["a", name, "of" * bool(kept), ", ".join(f"{k} {_yaml(v)}" for k, v in kept.items())]).strip()
    return Architecture(title, name, kept, certain=True)


def _described(spec: Mapping[str, Any]) -> Architecture:
    path = str(spec["class_path"])
    name = path.removeprefix("visionkit.") if path.removeprefix("visionkit.") in _OWN else path
    arguments = dict(spec["init_args"])
    return _architecture(name, {"depth": 50, **arguments} if name == "ResNet" else arguments)


def _resnet_arguments(file: WeightsFile) -> dict[str, Any] | None:
    """Return all arguments of the ResNet that a file holds, or None where it holds none."""
    for container in dict.fromkeys([file.container, *file.groups]):
        tensors = file.groups[container]
        for prefix in dict.fromkeys(m[1] for n in tensors if (m := _FIRST_CONV.match(n))):
            own = {n.removeprefix(prefix): tuple(t.shape) for n, t in tensors.items() if n.startswith(prefix)}
            if (arguments := _shape_arguments(own)) is not None:
                return arguments
    return None


def _shape_arguments(shapes: Mapping[str, Sequence[int]]) -> dict[str, Any] | None:
    """Tell the arguments of a ResNet from its tensors' shapes by name; None if they are none of a ResNet."""
    counts = [len({m[1] for n in shapes if (m := re.match(rf"layer{i}\.(\d+)\.", n))}) for i in (1, 2, 3, 4)]
    stem = shapes.get("conv1.0.weight") or shapes.get("conv1.weight")
    if 0 in counts or stem is None or len(stem) != 4:
        return None
    kind = "bottleneck" if "layer1.0.conv3.weight" in shapes else "basic"
    depth = next((d for d, plan in DEPTHS.items() if plan == (kind, tuple(counts))), None)
    separable = any(re.match(r"layer1\.0\.conv\d\.1\.", n) for n in shapes)
    groups, width = 1, 64
    if kind == "bottleneck":
        width = shapes["layer1.0.conv1.weight"][0]
        if middle := shapes.get("layer1.0.conv2.weight"):
            groups = width // middle[1]
        width //= groups
    return {
        **({"depth": depth} if depth else {"layers": counts, "block": kind}),
        "stem": "deep" if "conv1.0.weight" in shapes else "small" if stem[-1] == 3 else "conv7",
        "avg_down": any(".downsample.2." in n for n in shapes),
        "squeeze_excitation": any(".se." in n for n in shapes),
        "depthwise_separable": separable,
        "groups": groups,
        "width_per_group": width,
        "in_channels": stem[1],
    }


def _try_out(file: WeightsFile, family: _Family | None, seconds: float) -> list[str]:
    """Return the timm networks that a file fits, the likeliest first."""
    import timm

    end = time.monotonic() + seconds
    fitting: dict[str, float] = {}  # name -> coverage
    for name, certain in _candidates(file, family):
        if time.monotonic() > end or len(fitting) > 3:
            break
        try:
            with torch.device("meta"), Unfilled():
                rough = fit(file, timm.create_model(name, num_classes=0))
        except Exception:  # noqa: S112 - a network that cannot be built so is no candidate
            continue
        parts = [set(top_level(names, "")) for names in (rough.copies, {*rough.missing, *rough.mismatched})]
        if rough.coverage < 0.95 and (rough.coverage < 0.7 or parts[0] & parts[1]):  # a head after pooling may lack
            continue
        for twin in (name, f"tf_{name}"):
            net = skeleton(Architecture("", "TimmBackbone", {"name": twin}), file)
            if net is not None and twin not in fitting and (coverage := _passes(file, net)):
                fitting[twin] = coverage
        if name in fitting and certain:
            return [name]
        if fitting:
            end = min(end, time.monotonic() + seconds / 5)  # for others that are alike
    return [name for name, coverage in fitting.items() if coverage == max(fitting.values())]


def _candidates(file: WeightsFile, family: _Family | None) -> Iterator[tuple[str, bool]]:
    """Yield names of timm's networks, likely ones first, and whether the file has this very name."""
    import timm

    models = timm.list_models()
    if family is not None:
        models = [m for m in models if any(fnmatch(m, p) for p in family.models)]
    stem = file.network or Path(file.source).stem
    stem = re.sub(r"-[0-9a-f]{8}$", "", stem).lower()  # torch's hash
    exact = [m for m in (stem, stem.partition(".")[0]) if m in models]
    plain = stem.replace("-", "_")
    within = sorted((m for m in models if m in plain), key=len, reverse=True)
    close = difflib.get_close_matches(plain, models, n=20, cutoff=0.5)
    rest = sorted((m for m in models if m.removeprefix("tf_") not in models or m[:3] != "tf_"), key=len)
    rest = rest if family is not None else []
    for name in dict.fromkeys([*exact, *within, *close, *rest]):
        yield name, name in exact


def _passes(file: WeightsFile, net: Any) -> float:
    """Return how much of a backbone a file covers, or 0 where it would be refused."""
    found = fit(file, net)
    return found.coverage if found.coverage >= 0.95 and not found.surplus else 0.0


def _options(arguments: Mapping[str, Any]) -> list[str]:
    return [
        f"--model.backbone.{k} {json.dumps(_yaml(v)) if ' ' in _yaml(v) else _yaml(v)}" for k, v in arguments.items()
    ]


def _yaml(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
