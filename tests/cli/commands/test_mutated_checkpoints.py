"""What a checkpoint says of its model, changed at random: one line that names the file, or a model that works."""

import contextlib
import copy
import io
import os
import random
import resource
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

SEED, MOST_MEMORY = 14, 2e9
VALUES = [
    *(None, True, False, -1, 0, 1, 2, 3, 7, 1000, 10**6, 10**9, 2**40, 10**18, -(10**18), 2**63, 1 << 80),
    *(0.5, -0.5, 1e-30, 1e30, 1e308, float("nan"), float("inf"), "", "x", "3", "hard", "\x1b[2J\nerror: y", "x" * 10**5),
    *([], [1], [3, 3], [1, 1, 1, 1], [10**7] * 4, [-1] * 4, [0.5] * 3, [1] * 10**5, ["a"] * 3, [None], {}, {"a": 1}),
    *({"class_path": name, "init_args": {}} for name in ("visionkit.ResNet", "visionkit.FPN", "visionkit.LinearHead")),
]  # fmt: skip
KEYS = [
    None,
    3,
    0.5,
    "",
    "root",
    "weights",
    "partial",
    "trust",
    "size",
    "heads",
    "self",
    "__class__",
    "\x1b[2J",
    "n" * 2000,
]
CLASSES = [
    "ResNet",
    "TimmBackbone",
    "IdentityNeck",
    "FPN",
    "MultiTaskNeck",
    "LinearHead",
    "MLPHead",
    "FCOSHead",
    "FasterRCNNHead",
    "MaskRCNNHead",
    "FCNHead",
    "DeepLabV3PlusHead",
    "FPNSegmentationHead",
    "MultiTaskHead",
    "Preprocessing",
    "Classifier",
    "VisionModel",
    "save",
    "nothing",
]


def models():
    """Return models of all kinds, small enough to be read hundreds of times."""
    import visionkit

    def backbone():
        return visionkit.ResNet(layers=(1, 1, 1, 1), block="basic", depthwise_separable=True)

    fpn = partial(visionkit.FPN, channels=8, min_level=2, max_level=5)
    two = {"width": 8, "roi_size": 2, "post_nms_eval": 5}
    joint = partial(
        visionkit.MultiTaskHead,
        heads={"boxes": partial(visionkit.FCOSHead, channels=8, depth=1), "kind": visionkit.LinearHead},
        sizes={"boxes": 1, "kind": 2},
        levels=4,
    )
    small = visionkit.Preprocessing(64)
    for head, neck in (
        (visionkit.LinearHead, visionkit.IdentityNeck),
        (partial(visionkit.MLPHead, width=8, multilabel=True), visionkit.IdentityNeck),
        (partial(visionkit.FCOSHead, channels=8, depth=1), fpn),
        (partial(visionkit.FasterRCNNHead, **two), fpn),
        (partial(visionkit.MaskRCNNHead, **two, mask_size=4, mask_channels=8, mask_depth=1), fpn),
        (partial(visionkit.DeepLabV3PlusHead, channels=8, low_level_channels=4), visionkit.IdentityNeck),
        (partial(visionkit.FPNSegmentationHead, channels=8), fpn),
        (joint, partial(visionkit.MultiTaskNeck, neck=fpn)),
    ):
        names = ["boxes/a", "kind/a", "kind/b"] if head is joint else ["a", "b", "c"]
        yield visionkit.VisionModel(backbone(), head, names, neck, preprocessing=small)


def places(value, keys=()):
    """Return the keys that lead to every entry."""
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for key, entry in entries for place in [(*keys, key), *places(entry, (*keys, key))]]


def mutate(description, rng):
    """Change an entry of a description, or a few, at random, and return what was done."""
    done = []
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        if not (found := places(description)):
            break
        *keys, last = rng.choice(found)
        inside = description
        for key in keys:
            inside = inside[key]
        before = inside[last]
        kind = rng.choice(["value", "value", "remove", "add", "class", "wrap", "nest", "scale", "repeat"])
        if kind == "value":
            inside[last] = copy.deepcopy(rng.choice(VALUES))
        elif kind == "remove":
            del inside[last]
        elif kind == "add" and isinstance(before, dict):
            before[rng.choice(KEYS)] = copy.deepcopy(rng.choice(VALUES))
        elif kind == "class" and isinstance(before, dict) and "class_path" in before:
            before["class_path"] = f"visionkit.{rng.choice(CLASSES)}"
        elif kind == "wrap":
            inside[last] = rng.choice(
                [[before], {"a": before}, {"class_path": "visionkit.MultiTaskNeck", "init_args": {"neck": before}}]
            )
        elif kind == "nest":
            for _ in range(rng.choice([3, 28, 100])):
                inside[last] = {"class_path": "visionkit.MultiTaskNeck", "init_args": {"neck": inside[last]}}
        elif kind == "scale" and isinstance(before, int | float):
            inside[last] = before * rng.choice([-1, 2, 1000, 10**12])
        elif kind == "repeat" and isinstance(before, list):
            inside[last] = before * rng.choice([2, 1000])
        done.append((kind, *keys, last, f"{inside[last] if kind != 'remove' else ''!r:.80}"))
    return done


def try_all(folder, count):
    """Run commands on so many mutants; print what is wrong with any of them, and how much memory it took."""
    import numpy as np
    import torch
    from PIL import Image

    from visionkit.cli.main import run
    from visionkit.models import checkpoint

    os.chdir(folder)
    Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save("a.png")
    bases = []
    for model in models():
        state = {f"model.{k}": v for k, v in model.state_dict().items()}
        bases.append((state, checkpoint.spec_of_model(model)))
    rng = random.Random(SEED)
    works = 0
    for number in range(count):
        state, description = rng.choice(bases)
        description = copy.deepcopy(description)
        done = mutate(description, rng)
        torch.save({"state_dict": state, "visionkit": description}, "m.ckpt")
        arguments = ["predict", "--ckpt", "m.ckpt", "--out", "o", "--overwrite", "a.png"]
        if number % 10 == 0:
            arguments = ["heads", "list", "m.ckpt"]
        error = io.StringIO()
        try:
            with contextlib.redirect_stderr(error), contextlib.redirect_stdout(io.StringIO()):
                status = run(arguments)
        except BaseException as e:
            print(f"WRONG {number} {done}: {type(e).__name__}: {e!s:.200}")
            continue
        text = error.getvalue()
        one_line = text.startswith("error: m.ckpt: ") and text.count("\n") == 1 and text[:-1].isprintable()
        if (status, one_line) != (1, True) and (status, text) != (0, ""):
            print(f"WRONG {number} {done}: {status}, {text!r:.300}")
        works += not status
    print(f"DONE {works} {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux's bounds of memory")
@pytest.mark.parametrize("count", [200, pytest.param(1000, marks=pytest.mark.slow)])
def test_every_mutant_is_refused_in_one_line_or_works(tmp_path, count):
    def bound():
        resource.setrlimit(resource.RLIMIT_AS, (8 * 2**30, 8 * 2**30))

    found = subprocess.run(
        [sys.executable, __file__, str(tmp_path), str(count)],
        capture_output=True,
        text=True,
        preexec_fn=bound,
        timeout=300,
    )
    assert "WRONG" not in found.stdout, found.stdout
    done = found.stdout.splitlines()[-1].split() if found.stdout else [found.stderr]
    assert done[0] == "DONE", found.stderr[-2000:]
    assert count / 25 < int(done[1]) < count / 2  # some changes do not matter
    assert int(done[2]) < MOST_MEMORY


if __name__ == "__main__":
    try_all(Path(sys.argv[1]), int(sys.argv[2]))
