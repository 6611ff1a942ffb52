"""The network as a graph that OpenVINO or ONNX Runtime computes."""

from __future__ import annotations

import logging
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from visionkit.core.errors import DataError, UsageError
from visionkit.models.model import VisionModel
from visionkit.prediction.backends.available import refuse_missing
from visionkit.prediction.backends.outputs import Rebuild, flatten_outputs

__all__ = ["Compute", "Engine", "Exported", "ExportedNetwork", "engine", "export", "openvino_core", "silenced"]

Compute: TypeAlias = Callable[[Tensor], list[Tensor]]
"""Makes tensors of uint8 images [B, C, H, W] of one shape."""

Engine: TypeAlias = Callable[[ExportedProgram], Compute]
"""Makes what computes an exported program."""


class Exported:
    """What computes a head's outputs outside of torch, made ready at the first call with each shape of a batch.

    A head that cannot be exported is computed by torch, behind the exported backbone and neck.

    Args:
        model: In evaluation mode, as it was trained.
        head: What computes the outputs where the model's own head cannot be exported.
        name: What error messages call it.
    """

    def __init__(self, model: VisionModel, head: nn.Module, name: str) -> None:
        self.model = model
        self.head = head
        self.name = name
        self.whole = True
        self.ready: dict[torch.Size, Callable[[Tensor], Any]] = {}

    def __call__(self, images: Tensor) -> Any:
        """Compute the head's outputs of uint8 images [B, C, H, W].

        Raises:
            UsageError: Not even the backbone and the neck can be exported.
            DataError: There is no room for temporary files.
        """
        if images.shape not in self.ready:
            with torch.autocast(images.device.type, enabled=False):  # an engine shall see the network in float32
                self.ready[images.shape] = self._prepare(images)
        return self.ready[images.shape](images)

    def _prepare(self, images: Tensor) -> Callable[[Tensor], Any]:
        if self.whole:
            try:
                return self._export(self.model, images)
            except (DataError, MemoryError):  # the machine's fault
                raise
            except Exception as e:  # each exporter has errors of its own; which it is does not matter
                refuse_missing(self.name, e)
                self.whole = False
        try:
            levels = self._export(_Trunk(self.model), images)
        except (DataError, MemoryError):
            raise
        except Exception as e:
            refuse_missing(self.name, e)
            reason = next((line.strip() for line in str(e).splitlines() if line.strip()), type(e).__name__)
            raise UsageError(
                f"--backend {self.name}: this network cannot be exported: take --backend torch ({reason})"
            ) from e
        return lambda images: self.head(levels(images))

    def _export(self, network: nn.Module, images: Tensor) -> Callable[[Tensor], Any]:
        """Return what computes a network's outputs of images of this shape."""
        raise NotImplementedError


class ExportedNetwork(Exported):
    """What computes a head's outputs with an engine, exported at the first call with each shape of a batch.

    Args:
        model: In evaluation mode, as it was trained.
        head: What computes the outputs where the model's own head cannot be exported.
        engine: Makes what computes a program.
        name: What error messages call it.
    """

    def __init__(self, model: VisionModel, head: nn.Module, engine: Engine, name: str) -> None:
        super().__init__(model, head, name)
        self.engine = engine

    def _export(self, network: nn.Module, images: Tensor) -> Callable[[Tensor], Any]:
        rebuilds: list[Rebuild] = []
        with silenced():
            compute = self.engine(export(network, images, rebuilds.append))
        return lambda images: rebuilds[-1](compute(images.contiguous()))


def export(network: nn.Module, images: Tensor, tell: Callable[[Rebuild], None]) -> ExportedProgram:
    """Return a network as torch's graph, for images of one shape, with a plain tuple of tensors as its outputs.

    Args:
        network: Takes images.
        images: uint8 [B, C, H, W].
        tell: Is told how the outputs are made of the tensors.
    """
    return torch.export.export(_Flat(network, tell), (images.contiguous(),), strict=False)


class _Trunk(nn.Module):
    """The network up to the head."""

    def __init__(self, model: VisionModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> list[Tensor]:
        levels: list[Tensor] = self.model.neck(self.model.backbone(self.model.normalise(images)))
        return levels


class _Flat(nn.Module):
    """A network that returns a plain tuple of tensors, and says how to make its outputs of them."""

    def __init__(self, network: nn.Module, tell: Callable[[Rebuild], None]) -> None:
        super().__init__()
        self.network = network
        self.tell = tell

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        tensors: list[Tensor] = []
        self.tell(flatten_outputs(self.network(images), tensors))
        return tuple(tensors)


def engine(name: str, device: torch.device, fast: bool) -> Engine:
    """Return the engine of a backend.

    Args:
        name: "openvino" or "onnx".
        device: Where it computes, and where tensors come from and go to.
        fast: Whether to compute in bf16.

    Raises:
        UsageError: The processor has no bf16, or a package is missing.
    """
    try:
        return _openvino(fast) if name == "openvino" else _onnx(device)
    except ImportError as e:
        refuse_missing(name, e)
        raise


def openvino_core(fast: bool) -> tuple[Any, dict[str, Any]]:
    """Return OpenVINO's core and its settings for one network at a time, with all threads that torch has.

    Args:
        fast: Whether to compute in bf16.

    Raises:
        UsageError: The processor has no bf16.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # its import alone reports to its makers
    import openvino

    core = openvino.Core()
    if fast and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise UsageError("--precision bf16: OpenVINO has none on this processor: leave --precision out")
    return core, {
        "PERFORMANCE_HINT": "LATENCY",  # all cores on one batch: as fast as a stream a core, with half the memory
        "INFERENCE_PRECISION_HINT": "bf16" if fast else "f32",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
    }


def _openvino(fast: bool) -> Engine:
    core, settings = openvino_core(fast)
    import openvino  # now that it is kept from reporting

    def make(program: ExportedProgram) -> Compute:
        request = core.compile_model(openvino.convert_model(program), "CPU", settings).create_infer_request()

        def compute(images: Tensor) -> list[Tensor]:
            found = request.infer([images.numpy()], share_inputs=True)  # outputs are copies: the next call overwrites
            return [torch.from_numpy(value) for value in found.to_tuple()]

        return compute

    return make


def _onnx(device: torch.device) -> Engine:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    provider = "CUDAExecutionProvider" if device.type == "cuda" else "CPUExecutionProvider"

    def make(program: ExportedProgram) -> Compute:
        exported = torch.onnx.export(program, (), dynamo=True, verbose=False)
        assert exported is not None
        with _temporary_folder() as folder:
            path = folder / "network.onnx"
            exported.save(str(path), external_data=True)  # one file holds 2 GiB at most
            session = onnxruntime.InferenceSession(str(path), options, providers=[provider])
        (image,) = session.get_inputs()

        def compute(images: Tensor) -> list[Tensor]:
            found: Sequence[Any] = session.run(None, {image.name: images.cpu().numpy()})
            return [torch.from_numpy(value).to(device) for value in found]

        return compute

    return make


@contextmanager
def _temporary_folder() -> Iterator[Path]:
    """Yield a folder for files of a moment.

    Raises:
        DataError: They cannot be written.
    """
    where = "where temporary files go"
    try:
        where = tempfile.gettempdir()
        with tempfile.TemporaryDirectory(prefix="visionkit-") as name:
            yield Path(name)
    except OSError as e:  # NumPy's has words alone
        why = e.strerror or str(e)
        raise DataError(
            f"{where}: the network cannot be written there ({why}); free some space, or set TMPDIR to another folder"
        ) from e


class silenced(warnings.catch_warnings):  # noqa: N801  # a context manager, like its base
    """Keep exporters' notices to their developers off the screen."""

    def __enter__(self) -> None:
        super().__enter__()
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)

    def __exit__(self, *error: Any) -> None:
        logging.disable(logging.NOTSET)
        super().__exit__(*error)
