import os
import subprocess
import sys

import pytest
import torch

from visionkit.core import machine
from visionkit.core.errors import UsageError
from visionkit.core.machine import available_cores, choose_precision, describe_processor, keep_freed_memory


@pytest.fixture
def processor(monkeypatch):
    """Let the CPU have these bf16 instructions."""

    def have(*, amx=False, avx512=False, faster=True):
        monkeypatch.setattr(machine, "_seconds", lambda *kinds: [2.0, 1.0] if faster else [1.0, 2.0])
        monkeypatch.setenv("VISIONKIT_CPU_BF16", "")  # what it was comes back after the test
        monkeypatch.delenv("VISIONKIT_CPU_BF16")
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)

    return have


@pytest.mark.parametrize(
    ("instructions", "precision", "words"),
    [
        ({}, "32-true", None),
        ({"avx512": True}, "bf16-mixed", "AVX512-BF16"),
        ({"avx512": True, "faster": False}, "32-true", "AVX512-BF16"),
        ({"amx": True, "avx512": True}, "bf16-mixed", "AMX"),
    ],
)
def test_cpu(processor, instructions, precision, words):
    processor(**instructions)
    assert choose_precision(torch.device("cpu")) == precision
    described = describe_processor(torch.device("cpu"))
    assert described.startswith(f"CPU, {torch.get_num_threads()} threads")
    assert described.endswith(words or "threads")


def test_processes_that_are_started_are_told_what_was_measured(processor, monkeypatch):
    processor(avx512=True)
    assert choose_precision(torch.device("cpu")) == "bf16-mixed"
    assert os.environ["VISIONKIT_CPU_BF16"] == "1"
    monkeypatch.setattr(machine, "_seconds", lambda *kinds: pytest.fail("it is known"))
    assert choose_precision(torch.device("cpu")) == "bf16-mixed"


@pytest.mark.skipif(machine.cpu_bf16() is None, reason="this processor has no instructions for bf16")
def test_the_measurement_is_short_and_repeats_itself():
    seconds = machine._seconds(torch.float32, torch.bfloat16)
    assert len(seconds) == 2
    assert all(0 < s < 1 for s in seconds)


@pytest.mark.parametrize(
    ("capability", "precision"), [((7, 5), "32-true"), ((8, 0), "bf16-mixed"), ((9, 0), "bf16-mixed"), ((10, 0), "bf16-mixed")]
)  # fmt: skip
def test_gpu(processor, monkeypatch, capability, precision):
    processor()
    asked = []
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: asked.append(device) or capability)
    assert choose_precision(torch.device("cuda:1")) == precision
    assert asked == [torch.device("cuda:1")], "the device itself, not the first one"


def test_other_devices_take_float32(processor):
    processor(amx=True)
    assert choose_precision(torch.device("mps")) == "32-true"
    assert describe_processor(torch.device("mps")) == "mps"


def test_cores_are_those_that_this_process_may_use(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5, 8}, raising=False)
    assert available_cores() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert available_cores() == 1


def test_keeping_freed_memory_can_be_asked_again_and_again():
    code = """
import numpy
from visionkit.core.machine import keep_freed_memory
answers = [keep_freed_memory() for _ in range(3)]
assert numpy.ones(3_000_000).sum() == 3_000_000
print(answers)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    glibc = machine.platform.libc_ver()[0] == "glibc"
    assert done.stdout.strip() == str([glibc] * 3)


def test_without_glibc_it_says_that_nothing_happened(monkeypatch):
    monkeypatch.setattr(machine.platform, "libc_ver", lambda: ("musl", "1.2"))
    monkeypatch.setattr(machine.ctypes, "CDLL", lambda *_: pytest.fail("mallopt must not be looked for"))
    assert keep_freed_memory() is False


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="users are numbers on Unix")
def test_the_folder_of_compiled_code_is_nobody_elses(tmp_path, monkeypatch):
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    machine.refuse_foreign_code()
    (folder,) = tmp_path.glob("torchinductor_*")
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o755)
    machine.refuse_foreign_code()
    folder.chmod(0o777)
    with pytest.raises(UsageError, match=r"torchinductor_.*: others may write .* set TORCHINDUCTOR_CACHE_DIR"):
        machine.refuse_foreign_code()
    folder.chmod(0o700)
    monkeypatch.setattr(os, "getuid", lambda: folder.stat().st_uid + 1)
    with pytest.raises(UsageError, match="others may write"):
        machine.refuse_foreign_code()
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(folder))
    machine.refuse_foreign_code()
    monkeypatch.undo()
    folder.rename(tmp_path / "real")
    folder.symlink_to(tmp_path / "real")
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(UsageError, match="others may write"):
        machine.refuse_foreign_code()
