import importlib.util
import shutil
import subprocess
import sys

import pytest
import torch

from visionkit import UsageError, convert
from visionkit.prediction.backends import available
from visionkit.prediction.backends.available import check_backend, choose_device

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("backend", "missing"),
    [("openvino", "openvino"), ("onnx", "onnxruntime"), ("onnx", "onnx"), ("onnx", "onnxscript")],
)
def test_a_missing_package_is_named_with_what_installs_it(monkeypatch, backend, missing):
    there = importlib.util.find_spec("torch")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == missing else there)
    with pytest.raises(UsageError) as raised:
        check_backend(backend, CPU)
    assert str(raised.value) == (f"--backend {backend} needs the package {missing}: pip install 'visionkit[{backend}]'")
    assert raised.value.exit_status == 2


def test_no_compiler(monkeypatch):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(
        UsageError, match=r"--backend compile needs a C\+\+ compiler, .* install one, or take --backend"
    ):
        check_backend("compile", CPU)
    monkeypatch.setenv("CXX", "mine")
    monkeypatch.setattr(shutil, "which", lambda name: "/bin/mine" if name == "mine" else None)
    check_backend("compile", CPU)


def test_an_unknown_backend():
    with pytest.raises(UsageError, match="--backend tensorrt: one of torch, compile, openvino, onnx$"):
        check_backend("tensorrt", CPU)


def test_what_a_backend_cannot_do(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(available, "_computes_on_cuda", lambda backend: False)
    with pytest.raises(UsageError, match="--backend openvino cannot compute on cuda here: take --device cpu"):
        check_backend("openvino", torch.device("cuda"))
    with pytest.raises(UsageError, match="--backend onnx computes in float32: leave --precision bf16 out"):
        check_backend("onnx", CPU, "bf16")
    check_backend("onnx", CPU, "32")


def test_the_device_is_one_that_the_backend_can_use(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("auto", "openvino").type == "cpu"
    assert choose_device("auto", "torch").type == "cuda"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto", "torch").type == "cpu"


def test_openvino_reports_to_nobody():
    """Its package sends an event to its makers as soon as it is imported, unless it is kept from it."""
    pytest.importorskip("openvino")
    code = (
        "import sys, torch, visionkit\n"
        "from visionkit.prediction.backends.exported import engine\n"
        "engine('openvino', torch.device('cpu'), False)\n"
        "assert 'openvino' in sys.modules\n"
        "print([m for m in sys.modules if m.startswith('openvino_telemetry') and sys.modules[m] is not None])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_package_that_is_missing_is_named_and_not_the_network(tiny_model, monkeypatch):
    """However deep an exporter hides it, and whichever of an extra's packages it is."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")

    def export(*arguments, **settings):
        try:
            raise ModuleNotFoundError("No module named 'onnx_ir.passes'", name="onnx_ir.passes")
        except ImportError as e:
            raise RuntimeError("Failed to export the model") from e

    monkeypatch.setattr(torch.onnx, "export", export)
    fast = convert(tiny_model, "onnx")
    with pytest.raises(
        UsageError, match=r"--backend onnx needs the package onnx_ir: pip install 'visionkit\[onnx\]'"
    ) as e:
        fast.predict(torch.zeros(3, 32, 32, dtype=torch.uint8))
    assert "\n" not in str(e.value)
