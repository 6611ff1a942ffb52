"""What all tests share: where real data lies, small models, the command line in process."""

from __future__ import annotations

import os
import pickle
import select
import socket
import subprocess
import sys
from pathlib import Path

import lightning  # noqa: F401  # before nncf, as in a process of its own; see cli.parser._whole_numbers_first
import numpy as np
import pytest
import torch
from hypothesis import settings
from PIL import Image

from visionkit.core.machine import bf16_pays

bf16_pays()  # measured once: processes that tests start are told, and train at the same precision
# the same examples each time: a failure is the last change's; and no time limit, for a busy machine is no fault
settings.register_profile("same", derandomize=True, deadline=None)
settings.register_profile("search", derandomize=False, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))  # "search" looks for new ones


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of real test data; tests that need it are skipped where it is absent."""
    root = Path(os.environ.get("VISIONKIT_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not root.is_dir():
        pytest.skip(f"no test data at {root}; set VISIONKIT_TEST_DATA")
    return root


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of 3 classes with 8 tiny pictures each, told apart by colour."""
    rng = np.random.default_rng(0)
    root = tmp_path / "photos"
    for k, name in enumerate(("blue", "green", "red")):
        (root / name).mkdir(parents=True)
        for i in range(8):
            pixels = rng.integers(0, 60, (20, 24, 3), dtype=np.uint8)
            pixels[..., 2 - k] += 150
            Image.fromarray(pixels).save(root / name / f"{i}.png")
    return root


@pytest.fixture
def tiny_model():
    """A classifier of 3 classes with one block a stage, in evaluation mode."""
    import visionkit

    torch.manual_seed(0)
    backbone = visionkit.ResNet(layers=(1, 1, 1, 1), block="basic", stem="small")
    return visionkit.VisionModel(
        backbone,
        visionkit.LinearHead,
        ["blue", "green", "red"],
        preprocessing=visionkit.Preprocessing(32),
    ).eval()


class Pair:
    """Two processes of one gloo group, started once: importing torch and lightning takes seconds each time."""

    workers = ()

    def __call__(self, function, *arguments):
        """Return what a function of a test module returns on each process, and what the first one printed."""
        return self.call(function.__code__.co_filename, function.__name__, arguments)

    def run(self, *arguments):
        """Run the command line on both and return what the first one printed."""
        statuses, printed = self.call(str(Path(__file__).with_name("pair_worker.py")), "run_command", (arguments,))
        assert statuses == [0, 0], self.log()
        return printed

    def call(self, file, name, arguments):
        if not self.workers:
            self.start()
        for worker in self.workers:
            pickle.dump((file, name, arguments), worker.stdin)
            worker.stdin.flush()
        answers = []
        for worker in self.workers:
            ready, _, _ = select.select([worker.stdout], [], [], 240)
            answers.append(pickle.load(worker.stdout) if ready else (False, "no answer", ""))
            if not answers[-1][0]:  # the other one may wait for it
                log = self.log()
                self.close()
                pytest.fail(f"{answers[-1][1]}\n{log}")
        return [value for _, value, _ in answers], answers[0][2]

    def start(self):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            port = s.getsockname()[1]
        group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "NODE_RANK": "0"}
        group |= {"OMP_NUM_THREADS": "1"} | (
            {"GLOO_SOCKET_IFNAME": "lo"} if os.path.exists("/sys/class/net/lo") else {}
        )
        self.logs = [self.folder / f"{rank}.log" for rank in (0, 1)]
        self.workers = tuple(
            subprocess.Popen(
                [sys.executable, str(Path(__file__).with_name("pair_worker.py"))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log.open("w"),
                env={**os.environ, **group, "LOCAL_RANK": str(rank)},
                cwd=self.folder,
            )
            for rank, log in enumerate(self.logs)
        )

    def log(self):
        return "\n".join(log.read_text()[-3000:] for log in self.logs)

    def close(self):
        for worker in self.workers:
            worker.kill()
            worker.communicate()
        self.workers = ()


@pytest.fixture(scope="session")
def pair(tmp_path_factory):
    """Two processes to call functions of a test module on, or the command line; see :class:`Pair`."""
    made = Pair()
    made.folder = tmp_path_factory.mktemp("pair")
    yield made
    made.close()


CUT_OFF = """
import lightning as L
class CutOff(Exception):
    pass
class Cut(L.Callback):
    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if (trainer.current_epoch, batch_idx) == (1, 1):
            raise CutOff
"""


@pytest.fixture
def cut_off(tmp_path, monkeypatch):
    """An argument of ``fit`` that ends it with a CutOff in the second batch of the second epoch."""
    (tmp_path / "cut_callback.py").write_text(CUT_OFF)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "cut_callback", raising=False)
    return "--trainer.callbacks+=cut_callback.Cut"
