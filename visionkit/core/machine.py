"""What this machine is fast at."""

from __future__ import annotations

import ctypes
import math
import os
import platform
import shutil
import stat
import time
from typing import Literal

import torch

from visionkit.core.errors import UsageError
from visionkit.core.files import make_folder

__all__ = [
    "Precision",
    "available_cores",
    "bf16_pays",
    "choose_precision",
    "choose_workers",
    "describe_processor",
    "has_compiler",
    "keep_freed_memory",
    "refuse_foreign_code",
    "return_freed_memory",
    "tune",
]

Precision = Literal["bf16-mixed", "32-true"]
MEASURED = "VISIONKIT_CPU_BF16"
"""Variable that says whether bf16 is fast on this CPU: 1 or 0."""
EDGE, TIMES = 768, 7  # of the matrices whose product is timed
FASTER = 1.2  # times, for which bf16 is taken


def available_cores() -> int:
    """Return the number of processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def choose_workers() -> int:
    """Return how many processes should read images: with a GPU one a core, else one for two cores; 1 to 8."""
    cores = available_cores()
    return max(1, min(8, cores if torch.cuda.is_available() else cores // 2))


def cpu_bf16() -> str | None:
    """Return the name of the CPU's bf16 instructions, or None; :func:`bf16_pays` says whether they are fast."""
    for name, question in (("AMX", "_is_amx_tile_supported"), ("AVX512-BF16", "_is_avx512_bf16_supported")):
        ask = getattr(torch.cpu, question, None)  # torch has no public name for it; without an answer, float32
        if ask is not None and ask():
            return name
    return None


def choose_precision(device: torch.device) -> Precision:
    """Return the fastest precision that trains as well as float32 on this device.

    bf16 autocast where the processor is fast at it (CUDA from Ampere on; CPUs see :func:`bf16_pays`); it keeps the
    weights, the optimizer, the losses and the normalisation in float32 and needs no loss scaling.
    """
    if device.type == "cuda":
        fast = torch.cuda.get_device_capability(device) >= (8, 0)
    else:
        fast = device.type == "cpu" and bf16_pays()
    return "bf16-mixed" if fast else "32-true"


def bf16_pays() -> bool:
    """Return whether this CPU computes faster in bf16 than in float32.

    Instructions alone do not say: some processors run those of AVX512-BF16 at half the rate of float32's. Where they
    are, a product of matrices is timed in both once, in some hundredths of a second; processes that this one starts
    are told.
    """
    if cpu_bf16() is None:
        return False
    if MEASURED not in os.environ:
        float32, bf16 = _seconds(torch.float32, torch.bfloat16)
        os.environ[MEASURED] = str(int(float32 > FASTER * bf16))
    return os.environ[MEASURED] == "1"


def _seconds(*kinds: torch.dtype) -> list[float]:
    """Return the least time that a product of matrices of each kind takes; they are timed in turn."""
    matrices = [torch.ones(EDGE, EDGE, dtype=kind) for kind in kinds]
    least = [math.inf] * len(kinds)
    for _ in range(TIMES):
        for k, a in enumerate(matrices):
            start = time.perf_counter()
            torch.mm(a, a)
            least[k] = min(least[k], time.perf_counter() - start)
    return least


def describe_processor(device: torch.device) -> str:
    """Return the processor in words, for the first lines of a run."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "cpu":
        extra = cpu_bf16()
        return f"CPU, {torch.get_num_threads()} threads" + (f", {extra}" if extra else "")
    return device.type


def has_compiler() -> bool:
    """Return whether there is a C++ compiler, without which torch.compile makes no code for a CPU."""
    names = (os.environ.get("CXX", ""), "g++", "clang++", "c++", "cl")
    return any(shutil.which(name) for name in names if name)


def refuse_foreign_code() -> None:
    """Make the folder in which torch.compile keeps its code, or refuse one that another user could have filled.

    Its name is known beforehand and lies where everybody may write (``/tmp/torchinductor_NAME``); what is in it runs.
    A folder that the user names himself (``TORCHINDUCTOR_CACHE_DIR``) is his own choice.

    Raises:
        UsageError: It belongs to another user, or everybody may write into it.
    """
    try:
        from torch._inductor.runtime.cache_dir_utils import default_cache_dir
    except ImportError:  # it has no public name
        return
    if not hasattr(os, "getuid") or "TORCHINDUCTOR_CACHE_DIR" in os.environ:
        return
    folder = default_cache_dir()
    make_folder(folder, mode=0o700)
    facts = os.lstat(folder)
    if facts.st_uid != os.getuid() or not stat.S_ISDIR(facts.st_mode) or facts.st_mode & stat.S_IWOTH:
        raise UsageError(
            f"{folder}: others may write into the folder of torch.compile, whose content is run: remove it, or set "
            "TORCHINDUCTOR_CACHE_DIR to a folder of your own"
        )


def keep_freed_memory() -> bool:
    """Tell glibc's malloc to keep freed memory for the next step instead of returning it to the system.

    A training step on a CPU frees and allocates the same hundreds of megabytes each time; without this each step pays
    for page faults on all of it (10-20 % of a ResNet-18 step, see benchmarks/). Peak memory grows by about a tenth.

    Returns:
        Whether it took effect; False on systems without glibc.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    trim_threshold, top_pad, mmap_max = -1, -2, -4  # M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX of malloc.h
    settings = ((mmap_max, 0), (trim_threshold, 2**31 - 1), (top_pad, 64 * 2**20))
    return all(mallopt(option, value) == 1 for option, value in settings)


def return_freed_memory() -> None:
    """Return to the system what :func:`keep_freed_memory` has kept, after a step for which memory did not suffice."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


def tune(device: torch.device) -> None:
    """Let this process train and predict as fast on a device as it can without losing accuracy.

    On a CPU freed memory is kept (:func:`keep_freed_memory`). On a GPU cuDNN tries its algorithms for each new shape
    and takes the fastest, and products of float32 matrices, where bf16 autocast leaves any, are computed in TF32: about
    three digits of the factors, sums in float32.

    Args:
        device: Where the work is done.
    """
    if device.type == "cpu":
        keep_freed_memory()
    elif device.type == "cuda":
        torch.backends.cudnn.benchmark = True
        torch.backends.cudnn.allow_tf32 = True
        torch.set_float32_matmul_precision("high")
