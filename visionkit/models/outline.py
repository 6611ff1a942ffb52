"""Networks in outline: what a file describes is made without memory for its numbers, and compared with the file."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as registration
from torch.overrides import TorchFunctionMode

__all__ = ["BoundError", "Unfilled", "bounded", "misfit", "outline"]

COUNTER = "num_batches_tracked"
EXTRA = "_extra_state"  # what a module keeps beside tensors
MOST_BYTES = 8  # that a model takes a byte of its file: float64 of what was saved in 8 bits


class BoundError(Exception):
    """A network has more parts than the tensors of its file can belong to."""


class Unfilled(TorchFunctionMode):
    """Leaves out start values, which take most of the time on the meta device."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Return the tensor of an initialisation as it is."""
        if getattr(func, "__module__", "") == "torch.nn.init":
            return args[0] if args else (kwargs or {}).get("tensor")
        return func(*args, **(kwargs or {}))


@contextmanager
def bounded(tensors: int) -> Iterator[None]:
    """Let no more modules and parameters be made than a file with so many tensors can fill, whatever it asks for.

    Four times as many parameters are allowed, and some: timm makes some networks twice, and drops parts of them.

    Args:
        tensors: Number of tensors in the file.

    Raises:
        BoundError: There are more.
    """
    thread = threading.get_ident()
    left = {"parameters": 4 * tensors + 2000, "modules": 16 * tensors + 8000}

    def count(what: str) -> Callable[..., None]:
        def hook(*_: Any) -> None:
            if threading.get_ident() == thread:
                left[what] -= 1
                if left[what] < 0:
                    raise BoundError(f"it has far more {what} than the {tensors} tensors of the file")

        return hook

    with ExitStack() as stack:
        for register, what in (
            (registration.register_module_parameter_registration_hook, "parameters"),
            (registration.register_module_buffer_registration_hook, "parameters"),
            (registration.register_module_module_registration_hook, "modules"),
        ):
            stack.callback(register(count(what)).remove)
        yield


@contextmanager
def outline(tensors: int) -> Iterator[None]:
    """Make what is made within it on the meta device, without start values, and :func:`bounded`."""
    with bounded(tensors), torch.device("meta"), Unfilled():
        yield


def misfit(module: nn.Module, state: Mapping[str, Any]) -> str | None:
    """Return what is wrong between a module in outline and the tensors that shall fill it, or None.

    Args:
        module: On the meta device.
        state: Name -> tensor.
    """
    wanted = {k: t for k, t in module.state_dict().items() if isinstance(t, Tensor)}
    given = {k: t for k, t in state.items() if isinstance(t, Tensor)}
    for name, tensor in wanted.items():
        if name not in given:
            if not name.endswith(COUNTER):  # torch counts anew
                return _more("the file lacks", [k for k in wanted if k not in given])
        elif given[name].shape != tensor.shape:
            return f"{name} is {_shape(given[name])} in the file and {_shape(tensor)} in the model"
    if left := [k for k in given if k not in wanted and not k.endswith(EXTRA)]:
        return _more("the model has no place for", left)
    held = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in given.values()}
    if sum(t.numel() * t.element_size() for t in wanted.values()) > MOST_BYTES * sum(held.values()) + 2**20:
        return "its tensors share their numbers, so that the model is many times as large as the file"
    return None


def _more(what: str, names: list[str]) -> str:
    return f"{what} {names[0]:.200}" + (f" and {len(names) - 1} more" if len(names) > 1 else "")


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "one number"
