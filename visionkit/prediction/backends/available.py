"""Which backends there are, and what each needs to be there."""

from __future__ import annotations

import importlib.util
from typing import Literal, get_args

import torch

from visionkit.core.errors import UsageError
from visionkit.core.machine import has_compiler

__all__ = ["BackendName", "check_backend", "choose_device", "refuse_missing"]

BackendName = Literal["torch", "compile", "openvino", "onnx"]
"""What computes a network's outputs; predictions are decoded by torch with any of them."""

PACKAGES = {"openvino": ("openvino",), "onnx": ("onnxruntime", "onnx", "onnxscript")}
"""What each of visionkit's extras installs."""


def choose_device(name: str, backend: BackendName = "torch") -> torch.device:
    """Return the device of this name; "auto" takes a GPU where there is one that the backend can use.

    Raises:
        UsageError: There is no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() and _computes_on_cuda(backend) else "cpu")
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as e:
        raise UsageError(f"--device {name}: not available here ({str(e).splitlines()[0]})") from e
    return torch.device(name)


def check_backend(backend: BackendName, device: torch.device, precision: str = "auto") -> None:
    """Refuse a backend that cannot be used here.

    Args:
        backend: Its name.
        device: Where it shall compute.
        precision: "32", "bf16", "int8" or "auto".

    Raises:
        UsageError: There is no such backend, a package or the compiler that it needs is missing, or it cannot use the
            device or the precision.
    """
    if backend not in get_args(BackendName):
        raise UsageError(f"--backend {backend}: one of {', '.join(get_args(BackendName))}")
    for package in PACKAGES.get(backend, ()):
        if importlib.util.find_spec(package) is None:
            raise UsageError(f"--backend {backend} needs the package {package}: pip install 'visionkit[{backend}]'")
    if precision == "int8":
        if backend != "openvino":
            raise UsageError("--precision int8 is computed by OpenVINO alone: add --backend openvino")
        if importlib.util.find_spec("nncf") is None:
            raise UsageError("--precision int8 needs the package nncf: pip install 'visionkit[int8]'")
    if backend == "onnx" and precision == "bf16":
        raise UsageError("--backend onnx computes in float32: leave --precision bf16 out, or take another backend")
    if not (device.type == "cpu" or (device.type == "cuda" and _computes_on_cuda(backend))):
        if backend in PACKAGES:
            raise UsageError(f"--backend {backend} cannot compute on {device} here: take --device cpu")
    elif backend == "compile" and device.type == "cpu" and not has_compiler():
        raise UsageError(
            "--backend compile needs a C++ compiler, and none of g++, clang++ and $CXX is found: install one, or take "
            "--backend torch or openvino"
        )


def refuse_missing(backend: str, e: BaseException) -> None:
    """Raise a UsageError where an error comes from a package that is not there or cannot be imported.

    Args:
        backend: Its name.
        e: What was raised, by an exporter or an engine; they wrap what went wrong into errors of their own.

    Raises:
        UsageError: A package is missing.
    """
    cause: BaseException | None = e
    while cause is not None:
        if isinstance(cause, ImportError):
            what = f"the package {cause.name.partition('.')[0]}" if cause.name else "a package that cannot be imported"
            why = "" if cause.name else f" ({' '.join(str(cause).split())})"
            raise UsageError(f"--backend {backend} needs {what}{why}: pip install 'visionkit[{backend}]'") from e
        cause = cause.__cause__ or cause.__context__


def _computes_on_cuda(backend: BackendName) -> bool:
    if backend == "onnx" and importlib.util.find_spec("onnxruntime") is not None:
        import onnxruntime

        return "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    return backend in ("torch", "compile")
