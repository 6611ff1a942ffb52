"""What a training step costs beside its mathematics: ``visionkit fit`` beside bare Lightning and a bare loop.

The network has as many layers as a ResNet-18, but 8 channels, and sees two pictures of 32 px, so that a step is mostly
Python; the batches are made beforehand. All train the same network with the same loss, optimizer, schedule and
precision on one thread. The bare loop has nothing else; "bare Lightning" is the smallest LightningModule under a
Trainer without logging, callbacks, checkpoints and bar; "visionkit fit" is the command with the defaults of
``classify.yaml`` (run folder, TensorBoard, logging, seeds of each step), once more with averaged weights. Checkpoints
are off, and the one at the end would not count.

The figure is what a step takes outside of its mathematics (forward pass, loss, backward pass, the optimizer's update of
the weights), from the end of a step to the end of the next: the median of the processor time of the one thread that
does everything. Other programs of the machine disturb neither much, while the whole step, ``step_ms`` (its median, as
time that passes), changes by more than what is looked for. What visionkit adds is the difference to "bare Lightning".
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

KEY = "python_ms"
REFERENCES = ["bare Lightning"]
LOWER = True
WARMUP = 50
Ends = tuple[list[float], list[float]]
"""When each step ended, and the processor time outside of the mathematics by then, in seconds."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this comparison's options."""
    parser.add_argument("--steps", type=int, default=1000, help=f"counted steps, after {WARMUP} of warm-up")


def cases(options: argparse.Namespace) -> dict[str, list[str]]:
    """Return the command of each case."""
    names = ("bare loop", "bare Lightning", "visionkit fit", "visionkit fit, EMA")
    return {name: [sys.executable, __file__, name, "--steps", str(options.steps)] for name in names}


def parts(steps: int) -> tuple[Any, Any, Any]:
    """Return network, recipe and loader of the bare cases: those that the config makes."""
    import torch
    from measuring.tiny import PreparedData, TinyBackbone

    from visionkit import LinearHead, Recipe, VisionModel

    torch.manual_seed(0)
    data = PreparedData(steps=steps)
    model = VisionModel(
        TinyBackbone(),
        lambda features, classes: LinearHead(features, classes, label_smoothing=0.1),
        data.classes,
        preprocessing=data.preprocessing,
    )
    return model.to(memory_format=torch.channels_last), Recipe(), data.train_dataloader()


def set_mathematics_aside() -> None:
    """Leave out what every training computes."""
    import torch
    from measuring.steps import set_aside

    from visionkit import VisionModel

    for owner, name in ((VisionModel, "outputs"), (VisionModel, "loss"), (torch.Tensor, "backward")):
        set_aside(owner, name)
    set_aside(sys.modules[torch.optim.Adam.__module__], "adam")  # of AdamW, too


def bare_loop(steps: int) -> Ends:
    """Train without anything else; return when each step ended."""
    import torch
    from measuring.steps import outside

    from visionkit.core.machine import choose_precision

    model, recipe, loader = parts(steps)
    optimizer, schedule = recipe.configure(model, total_steps=steps, steps_per_epoch=steps)
    bf16 = choose_precision(torch.device("cpu")) == "bf16-mixed"
    ends, others = [], []
    model.train()
    for batch in loader:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = model.loss(model.outputs(batch), batch.targets)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        ends.append(time.perf_counter())
        others.append(outside())
    return ends, others


def bare_lightning(steps: int) -> Ends:
    """Train under Lightning's Trainer without logging and callbacks; return when each step ended."""
    import lightning as L
    import torch
    from measuring.steps import StepTimes

    from visionkit.core.machine import choose_precision

    model, recipe, loader = parts(steps)

    class Plain(L.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return self.model.loss(self.model.outputs(batch), batch.targets)["loss"]

        def configure_optimizers(self) -> Any:
            optimizer, schedule = recipe.configure(self.model, total_steps=steps, steps_per_epoch=steps)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    trainer = L.Trainer(
        max_epochs=1,
        accelerator="cpu",
        precision=choose_precision(torch.device("cpu")),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[StepTimes()],
    )
    trainer.fit(Plain(), loader)
    return StepTimes.ends, StepTimes.outside


def visionkit(steps: int, *, ema: bool) -> Ends:
    """Train through the command line; return when each step ended."""
    import yaml
    from measuring.steps import StepTimes, fit

    from visionkit.cli.config.configs import folder

    config = yaml.safe_load((folder() / "classify.yaml").read_text(encoding="utf-8"))
    config["data"] = {"class_path": "measuring.tiny.PreparedData", "init_args": {"steps": steps}}
    config["model"]["init_args"]["backbone"] = {"class_path": "measuring.tiny.TinyBackbone"}
    config["trainer"] |= {"accelerator": "cpu", "max_epochs": 1, "enable_checkpointing": False}
    recipe = config["model"]["init_args"]["recipe"]
    config["model"]["init_args"]["recipe"] = {k: v for k, v in recipe.items() if v != "auto"}
    config["model"]["init_args"]["recipe"]["optimizer"]["init_args"]["lr"] = 1e-3
    if ema:
        config["model"]["init_args"]["recipe"]["ema"] = 0.999
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "config.yaml"
        path.write_text(yaml.safe_dump(config))
        fit(str(path), {})
    return StepTimes.ends, StepTimes.outside


def main() -> None:
    """Run one case and print its figures."""
    os.environ["OMP_NUM_THREADS"] = "1"  # the second thread of such small work is noise
    parser = argparse.ArgumentParser()
    parser.add_argument("case")
    add_arguments(parser)
    options = parser.parse_args()
    steps = WARMUP + options.steps
    set_mathematics_aside()
    if options.case.startswith("visionkit"):
        ends, others = visionkit(steps, ema=options.case.endswith("EMA"))
    else:
        ends, others = bare_loop(steps) if options.case == "bare loop" else bare_lightning(steps)

    import numpy as np
    from measuring.figures import report

    step, python = (1000 * np.diff(times)[WARMUP - 1 :] for times in (ends, others))
    report({KEY: np.median(python).item(), "mean_ms": python.mean().item(), "step_ms": np.median(step).item()})


if __name__ == "__main__":
    main()
