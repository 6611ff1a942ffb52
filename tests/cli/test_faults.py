"""What is said when the machine is at fault."""

import errno
import sys
from types import SimpleNamespace

import pytest

from visionkit.cli.faults import explained, lacks_memory
from visionkit.cli.main import COMMANDS, run

CASES = {
    "memory": (MemoryError(), "not enough memory; lower --data.batch_size"),
    "allocator": (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"), "not enough memory"),
    "numpy": (MemoryError("Unable to allocate 9 GiB"), "not enough memory"),
    "gpu": (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), "not enough memory on the GPU"),
    "shared": (RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: Cannot allocate memory"), "--shm-size"),
    "worker": (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "), "a process that reads pictures was killed"),
    "worker left": (RuntimeError("DataLoader worker (pid(s) 7) exited unexpectedly"), "a process that reads pictures was killed"),
    "torch's disk": (RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0"), "no space left on the disk"),
    "handles": (OSError(errno.EMFILE, "Too many open files"), "ulimit -n"),
    "a batch's handle": (EOFError(), "ulimit -n"),
    "named": (PermissionError(errno.EACCES, "Permission denied", "a/b"), "a/b: Permission denied; check the path"),
    "named disk": (OSError(errno.ENOSPC, "No space left on device", "a/b"), "a/b: no space left on the disk"),
    "batch norm": (ValueError("Expected more than 1 value per channel when training, got input size [1, 64, 1, 1]"), "--data.batch_size 2"),
    "rank": (RuntimeError("[gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:1"), "another process of this training"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_fault_of_the_machine_is_one_line(name, monkeypatch, capsys):
    error, words = CASES[name]

    def fails(command, arguments):
        raise error

    monkeypatch.setitem(sys.modules, "failing_command", SimpleNamespace(main=fails))
    monkeypatch.setitem(COMMANDS, "fails", ("failing_command", ""))
    assert run(["fails"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert words in lines[0]


def test_a_fault_behind_another_error_is_found():
    error = RuntimeError("something else")
    error.__cause__ = OSError(errno.ENOSPC, "No space left on device", "x")
    assert "x: no space left" in str(explained(error))


@pytest.mark.parametrize(
    "error", [RuntimeError("mat1 and mat2 shapes cannot be multiplied"), KeyError("a"), ValueError("b")]
)
def test_a_fault_of_the_program_keeps_its_traceback(error):
    assert explained(error) is None


@pytest.mark.parametrize("name", CASES)
def test_whether_fewer_pictures_would_help(name):
    where = {"memory": "", "allocator": "", "numpy": "", "gpu": " on the GPU"}
    assert lacks_memory(CASES[name][0]) == where.get(name)


def test_memory_that_a_library_lacks_within_another_error():
    error = ValueError("the step failed")
    error.__cause__ = RuntimeError("could not create a primitive")
    assert lacks_memory(error) == ""
