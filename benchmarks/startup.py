"""How long a command takes: help, the complete config, and the first training step, beside a plain LightningCLI script.

The reference is a script of one LightningModule and one LightningDataModule, as Lightning's documentation writes them,
around torchvision's ResNet-18. Each figure is the wall time of a whole process from outside; the first training step is
the time from the start of the process to the end of the first optimizer step, which one callback writes down for both.
Both train on the same drawn pictures, read by one worker; visionkit draws them itself, the script finds them in a file.
Each command runs once before it is measured: the files it reads are in memory.
"""

from __future__ import annotations

import argparse
import atexit
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

KEY = "seconds"
LOWER = True
REFERENCES: list[str] = []  # of the part that is measured

SCRIPT = '''
import lightning as L
import numpy as np
import torch
import torchvision
from lightning.pytorch.cli import LightningCLI
from torch.utils.data import DataLoader, TensorDataset


class Model(L.LightningModule):
    """ResNet-18.

    Args:
        classes: Number of classes.
        lr: Learning rate.
        weight_decay: Weight decay.
    """

    def __init__(self, classes: int = 6, lr: float = 1e-3, weight_decay: float = 0.05):
        super().__init__()
        self.save_hyperparameters()
        self.net = torchvision.models.resnet18(num_classes=classes)

    def training_step(self, batch, index):
        images, labels = batch
        loss = torch.nn.functional.cross_entropy(self.net(images.float() / 255), labels)
        self.log("train/loss", loss)
        return loss

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=self.hparams.lr, weight_decay=self.hparams.weight_decay)


class Data(L.LightningDataModule):
    """Pictures of an .npz file.

    Args:
        file: The file, with images and labels.
        batch_size: Images a batch.
        num_workers: Processes that read.
    """

    def __init__(self, file: str = "data.npz", batch_size: int = 32, num_workers: int = 1):
        super().__init__()
        self.file, self.batch_size, self.num_workers = file, batch_size, num_workers

    def train_dataloader(self):
        with np.load(self.file) as arrays:
            dataset = TensorDataset(torch.from_numpy(arrays["images"]), torch.from_numpy(arrays["labels"]))
        return DataLoader(dataset, self.batch_size, shuffle=True, num_workers=self.num_workers)


if __name__ == "__main__":
    LightningCLI(Model, Data)
'''
CALLBACK = """
import os
import time

import lightning as L


class FirstStep(L.Callback):
    def on_train_batch_end(self, trainer, *rest):
        with open(os.environ["FIRST_STEP"], "w") as file:
            file.write(str(time.time()))
"""
DATA = """
import sys

import numpy as np
import torch

import visionkit

data = visionkit.ClassificationData(size=64, augment=None, num_workers=0)
batches = list(data.train_dataloader())
images = torch.cat([b.images for b in batches]).numpy()
labels = torch.stack([t.scores.argmax() for b in batches for t in b.targets]).numpy()
np.savez(sys.argv[1], images=images, labels=labels)
"""
VISIONKIT = ["-m", "visionkit"]
FIT = ["fit", "--trainer.max_steps=1", "--trainer.limit_val_batches=0", "--trainer.enable_checkpointing=false"]
FIT += ["--trainer.accelerator=cpu", "--data.num_workers=1"]
PARTS = {
    "help": {
        "LightningCLI --help": ["cli.py", "--help"],
        "visionkit --help": [*VISIONKIT, "--help"],
        "visionkit predict --help": [*VISIONKIT, "predict", "--help"],
        "visionkit heads --help": [*VISIONKIT, "heads", "--help"],
        "visionkit backbone --help": [*VISIONKIT, "backbone", "--help"],
        "visionkit shapes --help": [*VISIONKIT, "shapes", "--help"],
    },
    "fit-help": {
        "LightningCLI fit --help": ["cli.py", "fit", "--help"],
        "visionkit fit --help": [*VISIONKIT, "fit", "--help"],
    },
    "config": {
        "LightningCLI --print_config": ["cli.py", "fit", "--print_config"],
        "visionkit --print_config": [*VISIONKIT, "fit", "-c", "classify.yaml", "--print_config"],
    },
    "first-step": {
        "LightningCLI first step": ["cli.py", *FIT, "--trainer.callbacks=first_step.FirstStep"],
        "visionkit first step": [*VISIONKIT, *FIT, "-c", "classify.yaml", "--trainer.callbacks+=first_step.FirstStep"],
    },
}
"""Part -> case -> arguments of python; the first case is the reference."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this comparison's options."""
    parser.add_argument("--part", choices=PARTS, default="help", help="what to measure (default: help)")


def cases(options: argparse.Namespace) -> dict[str, list[str]]:
    """Return the command of each case, in a folder with what the reference needs."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    (folder / "cli.py").write_text(SCRIPT)
    (folder / "first_step.py").write_text(CALLBACK)
    if options.part == "first-step":
        subprocess.run([sys.executable, "-c", DATA, str(folder / "data.npz")], check=True, cwd=folder)
    commands = {name: [sys.executable, __file__, options.part, name, str(folder)] for name in PARTS[options.part]}
    REFERENCES[:] = [next(iter(commands))]
    for command in commands.values():
        subprocess.run(command, check=True, capture_output=True)
    return commands


def main() -> None:
    """Run one case in its folder and print its figures."""
    part, case, folder = sys.argv[1:]
    written = Path(folder) / "first_step.txt"
    environment = {**os.environ, "FIRST_STEP": str(written)}
    environment["PYTHONPATH"] = os.pathsep.join([folder, str(Path(__file__).parents[1])])
    command = [sys.executable, *PARTS[part][case]]
    start = time.time()
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    end = float(written.read_text()) if part == "first-step" and written.is_file() else time.time()
    if done.returncode:
        sys.exit(done.stderr)
    for left in (*Path(folder).glob("lightning_logs"), *Path(folder).glob("runs"), written):
        shutil.rmtree(left, ignore_errors=True) if left.is_dir() else left.unlink(missing_ok=True)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(json.dumps({KEY: round(end - start, 3), "peak_mib": round(peak)}))


if __name__ == "__main__":
    main()
