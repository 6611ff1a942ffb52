"""info: what is installed, what this machine can do, and what caches hold. Asks nothing of a network."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from visionkit import __version__
from visionkit.cli.commands.predict import Parser
from visionkit.core.text import say

__all__ = ["EXTRAS", "found_here", "main", "parser"]

PACKAGES = (
    *("torch", "torchvision", "lightning", "torchmetrics", "timm", "albumentations", "opencv-python-headless"),
    *("numpy", "pillow", "safetensors", "faster-coco-eval", "jsonargparse", "matplotlib"),
)
EXTRAS: Mapping[str, tuple[tuple[str, ...], str]] = {
    "track": (("tensorboard",), "curves in TensorBoard"),
    "heif": (("pi-heif",), "photos of telephones (.heic)"),
    "openvino": (("openvino",), "predict --backend openvino"),
    "int8": (("openvino", "nncf"), "predict --backend openvino --precision int8"),
    "onnx": (("onnxruntime", "onnx", "onnxscript"), "predict --backend onnx"),
}
"""Extras that can be installed beside visionkit -> their packages and what they are for."""
MOST_FILES = 200_000  # of a cache that are counted


def parser() -> Parser:
    """Return the parser of ``visionkit info``."""
    p = Parser(
        prog="visionkit info",
        description="Say which versions are installed, what this machine is fast at, which extras are there, and what "
        "caches hold. For a report of a fault, and to see why something is slow. Asks nothing of a network.",
        allow_abbrev=False,
    )
    p.add_argument("--json", action="store_true", help="print JSON")
    return p


def main(command: str, arguments: Sequence[str]) -> int:
    """Run the command."""
    options = parser().parse_args(arguments)
    found = found_here()
    say(*(json.dumps(found, indent=2).splitlines() if options.json else _lines(found)))
    return 0


def found_here() -> dict[str, Any]:
    """Return what is found, as plain data."""
    import torch

    from visionkit.core.machine import available_cores, bf16_pays, choose_precision, cpu_bf16, has_compiler
    from visionkit.data.caching.store import available_memory

    gpus = []
    for k in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        facts = torch.cuda.get_device_properties(k)
        fast = choose_precision(torch.device("cuda", k)) == "bf16-mixed"
        gpus.append({"name": facts.name, "memory_gb": round(facts.total_memory / 1e9, 1), "bf16": fast})
    extras = {name: {p: _version(p) for p in packages} for name, (packages, _) in EXTRAS.items()}
    return {
        "visionkit": __version__,
        "installed_in": str(Path(__file__).parents[2]),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "packages": {name: _version(name) for name in PACKAGES},
        "cores": available_cores(),
        "threads": torch.get_num_threads(),
        "cpu_bf16": cpu_bf16(),
        "bf16_pays": bf16_pays(),
        "precision": choose_precision(torch.device("cuda" if gpus else "cpu")),
        "compiler": has_compiler(),
        "free_memory_gb": round(available_memory() / 1e9, 1),
        "gpus": gpus,
        "mps": bool(torch.backends.mps.is_available()),
        "extras": extras,
        "caches": {name: {"path": str(path), **_size(path)} for name, path in _caches().items()},
    }


def _version(package: str) -> str | None:
    """Return the version of an installed package, or None."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _caches() -> dict[str, Path]:
    """Return the folders in which weights and runs are kept."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    hub = Path(os.environ.get("HF_HOME") or home / "huggingface") / "hub"
    found = {
        "weights of the hub": Path(os.environ.get("HF_HUB_CACHE") or hub),
        "weights of torch": Path(os.environ.get("TORCH_HOME") or home / "torch") / "hub",
        "runs": Path("runs"),
    }
    if mirror := os.environ.get("VISIONKIT_WEIGHTS"):
        found["weights at hand"] = Path(mirror)
    return found


def _size(folder: Path) -> dict[str, Any]:
    """Return how many files lie below a folder and what they take; links are not followed."""
    count = total = 0
    for where, _, files in os.walk(folder):
        for name in files:
            try:
                total += os.lstat(os.path.join(where, name)).st_size
            except OSError:  # it went meanwhile
                continue
            count += 1
        if count > MOST_FILES:
            break
    return {"files": count, "megabytes": round(total / 1e6, 1)}


def _lines(found: Mapping[str, Any]) -> list[str]:
    """Return what was found in words."""
    packages = [f"{name} {version or 'missing'}" for name, version in found["packages"].items()]
    bf16 = f"fast at bf16 ({found['cpu_bf16']})" if found["bf16_pays"] else "no fast bf16"
    if found["cpu_bf16"] and not found["bf16_pays"]:
        bf16 += f" ({found['cpu_bf16']} is no faster than float32 here)"
    lines = [
        f"visionkit  {found['visionkit']} in {found['installed_in']}",
        f"python     {found['python']} ({sys.executable}), {found['system']}",
        *_wrapped("packages", packages),
        f"processor  {found['cores']} cores, {found['threads']} threads of torch, {bf16}",
        f"memory     {found['free_memory_gb']:g} GB free",
    ]
    for gpu in found["gpus"]:
        fast = "fast at bf16" if gpu["bf16"] else "no fast bf16"
        lines.append(f"gpu        {gpu['name']}, {gpu['memory_gb']:g} GB, {fast}")
    if not found["gpus"]:
        lines.append("gpu        Apple's (mps)" if found["mps"] else "gpu        none that torch can use")
    lines.append(f"precision  {found['precision']} is chosen for training and prediction")
    lines.append(f"compiler   {'there' if found['compiler'] else 'none: predict --backend compile needs one'}")
    for name, versions in found["extras"].items():
        missing = [package for package, version in versions.items() if version is None]
        have = ", ".join(f"{package} {version}" for package, version in versions.items())
        said = f"not there: pip install 'visionkit[{name}]'" if missing else have
        lines.append(f"{'extras' if name == next(iter(found['extras'])) else '':<10} {name:<9} {said}")
    for k, (name, cache) in enumerate(found["caches"].items()):
        size = f"{cache['megabytes']:g} MB in {cache['files']} files" if cache["files"] else "empty"
        lines.append(f"{'' if k else 'caches':<10} {name}: {cache['path']}, {size}")
    return lines


def _wrapped(title: str, words: Sequence[str], width: int = 80) -> list[str]:
    """Return words in lines of a width, the first of which begins with a title."""
    lines, line = [], f"{title:<10}"
    for k, word in enumerate(words):
        part = f" {word}" + ("," if k < len(words) - 1 else "")
        if len(line) + len(part) > width:
            lines.append(line)
            line = " " * 10
        line += part
    return [*lines, line]
