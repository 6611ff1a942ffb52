"""What all tests share: where real data lies, small models, the command line in process."""

from __future__ import annotations

import os
from pathlib import Path

import lightning  # noqa: F401  # before nncf, as in a process of its own; see cli.lightning._whole_numbers_first
import numpy as np
import pytest
import torch
from hypothesis import settings
from PIL import Image

settings.register_profile("same", derandomize=True)  # the same examples each time: a failure is the last change's
settings.register_profile("search", derandomize=False)
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
