"""What a command imports: the answers that need no network come without the modules that take seconds."""

import contextlib
import gc
import subprocess
import sys

import pytest
import yaml

from visionkit.cli.config import configs
from visionkit.cli.imports import uncollected

HEAVY = "{'torch', 'lightning', 'torchmetrics', 'torchvision', 'timm', 'numpy', 'cv2', 'albumentations', 'jsonargparse', 'matplotlib'}"


def imports_of(*arguments):
    """Return what ``python -m visionkit`` prints, which heavy modules it has imported, and its exit status."""
    code = (
        "import runpy, sys\n"
        f"sys.argv = {['visionkit', *arguments]!r}\n"
        "try: runpy.run_module('visionkit', run_name='__main__')\n"
        f"finally: print(sorted({HEAVY} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert not done.stderr
    *text, heavy = done.stdout.splitlines()
    return "\n".join(text), heavy, done.returncode


LIGHT = {
    "nothing": [], "version": ["--version"], "help": ["--help"], "predict": ["predict", "--help"], "heads": ["heads", "--help"], "heads list": ["heads", "list", "--help"],
    "backbone": ["backbone", "--help"], "backbone inspect": ["backbone", "inspect", "--help"], "shapes": ["shapes", "--help"],
    "info": ["info", "--help"], "completion": ["completion", "--help"], "completion of bash": ["completion", "bash"],
    "fit": ["fit", "--help"], "test": ["test", "--help"], "fit with classes": ["fit", "-c", "detect.yaml", "--model.neck", "FPN", "--help"],
    **{f"fit {name}": ["fit", "-c", name, "--help"] for name in configs.shipped()},
}  # fmt: skip


@pytest.mark.parametrize("case", LIGHT)
def test_light_commands(case):
    text, heavy, status = imports_of(*LIGHT[case])
    assert heavy == "[]"
    assert text
    assert status == (0 if LIGHT[case] else 2)


SHORT = {
    "Classifier": ("MLPHead", "ClassificationData"),
    "Detector": ("FasterRCNNHead", "DetectionData"),
    "Segmenter": ("FCNHead", "SegmentationData"),
}


def test_short_names_are_known_in_a_fresh_process(tmp_path):
    """Only what a config names is imported, and the parser still knows classes by short names."""
    for task, (head, data) in SHORT.items():
        backbone = {"class_path": "ResNet"}
        config = {
            "model": {"class_path": task, "init_args": {"backbone": backbone, "head": {"class_path": head}}},
            "data": {"class_path": data},
        }
        (tmp_path / f"{task}.yaml").write_text(yaml.safe_dump(config))
    code = (
        "import sys\nfrom visionkit.cli.main import run\n"
        "for name in sys.argv[1:]:\n"
        "    assert run(['fit', '-c', name, '--print_config']) == 0\n"
        "    print('---')\n"
        "assert 'lightning' in sys.modules and 'visionkit.tasks.multitask.task' not in sys.modules"
    )
    files = [str(tmp_path / f"{task}.yaml") for task in SHORT]
    done = subprocess.run([sys.executable, "-c", code, *files], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    printed = [yaml.safe_load(text) for text in done.stdout.split("---\n")[:-1]]
    heads = [config["model"]["init_args"]["head"]["class_path"] for config in printed]
    assert heads == [f"visionkit.{head}" for head, _ in SHORT.values()]


def test_the_collector_rests_during_imports_only():
    assert gc.isenabled()
    frozen = gc.get_freeze_count()
    with contextlib.suppress(KeyError), uncollected():
        assert not gc.isenabled()
        raise KeyError
    assert gc.isenabled()
    assert gc.get_freeze_count() == frozen, "what a longer process has made can still be collected"
    gc.disable()
    try:
        with uncollected():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_a_refused_training_says_one_line():
    """Whatever the libraries that were imported have to say when the process ends is no news to a person."""
    asked = ["fit", "-c", "classify.yaml", "--data.cache", "ram", "--data.cache_folder", "x"]
    done = subprocess.run([sys.executable, "-m", "visionkit", *asked], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert (
        done.stderr == "error: data.cache_folder is for data.cache disk, not ram: set data.cache disk or leave it out\n"
    )
