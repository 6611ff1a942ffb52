"""A folder of JPEGs to one JSON line a picture: ``visionkit predict`` beside plain Lightning.

"plain Lightning" is what its documentation shows: a LightningModule around torchvision's ResNet in float32,
torchvision's ``ImageFolder`` with PIL and its transforms, a DataLoader with a worker a core, ``Trainer.predict``, and a
JSON line a picture at the end. The other cases are visionkit's command with each backend, its table included. All have
the same weights and write the probability of each class. Counted is the whole process but for its imports: reading the
weights, exporting, calibrating and compiling, starting workers, predicting, writing. ``peak_mib`` is without
Lightning's workers.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import tempfile
import time
from pathlib import Path

KEY = "images_per_second"
REFERENCES = ["plain Lightning"]
BACKENDS = ("torch", "openvino", "openvino, int8", "onnx")
CLASSES = 10
SUFFIXES = (".jpg", ".jpeg")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this comparison's options."""
    parser.add_argument("--data", required=True, help="folder of JPEGs, searched through")
    parser.add_argument("--depth", type=int, choices=(18, 50), default=18)
    parser.add_argument("--count", type=int, default=1000, help="pictures; repeated where there are fewer")
    parser.add_argument("--batch-size", type=int, default=32, help="of plain Lightning (default: 32)")


def cases(options: argparse.Namespace) -> dict[str, list[str]]:
    """Return the command of each case."""
    given = ["--data", options.data, "--depth", str(options.depth), "--count", str(options.count)]
    given += ["--batch-size", str(options.batch_size)]
    return {name: [sys.executable, __file__, name, *given] for name in ("plain Lightning", *BACKENDS)}


def prepare(options: argparse.Namespace, folder: Path) -> tuple[Path, Path, Path]:
    """Write the same weights for both, and a folder with links to the pictures."""
    import torch
    import torchvision

    import visionkit

    torch.manual_seed(0)
    network = getattr(torchvision.models, f"resnet{options.depth}")(num_classes=CLASSES)
    model = visionkit.VisionModel(
        visionkit.ResNet(options.depth), visionkit.LinearHead, [f"class {k}" for k in range(CLASSES)]
    )
    weights = {name: value for name, value in network.state_dict().items() if not name.startswith("fc.")}
    model.backbone.load_state_dict(weights)
    model.head.classifier[1].load_state_dict(network.fc.state_dict())
    visionkit.save(model, folder / "model.ckpt")
    torch.save(network.state_dict(), folder / "model.pth")
    found = sorted(p.resolve() for p in Path(options.data).rglob("*") if p.suffix.lower() in SUFFIXES)
    pictures = folder / "pictures" / "all"
    pictures.mkdir(parents=True)
    for k in range(options.count):
        (pictures / f"{k:06d}.jpg").symlink_to(found[k % len(found)])
    return folder / "model.ckpt", folder / "model.pth", pictures.parent


def lightning_case(options: argparse.Namespace, weights: Path, pictures: Path, out: Path) -> None:
    """Predict as a user of Lightning writes it."""
    import lightning
    import torch
    import torchvision
    from torch.utils.data import DataLoader
    from torchvision import transforms

    class Classifier(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.network = getattr(torchvision.models, f"resnet{options.depth}")(num_classes=CLASSES)

        def predict_step(self, batch: list[torch.Tensor]) -> torch.Tensor:
            return self.network(batch[0]).softmax(1)

    steps = [
        transforms.Resize((224, 224)),
        transforms.ToTensor(),
        transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ]
    data = torchvision.datasets.ImageFolder(str(pictures), transforms.Compose(steps))
    loader = DataLoader(data, batch_size=options.batch_size, num_workers=os.cpu_count() or 1)
    model = Classifier()
    model.load_state_dict({f"network.{name}": value for name, value in torch.load(weights).items()})
    trainer = lightning.Trainer(logger=False, enable_checkpointing=False)
    batches = trainer.predict(model, loader)
    with out.open("w") as file:
        for (path, _), chances in zip(data.samples, torch.cat(batches).tolist(), strict=True):
            best = max(range(CLASSES), key=chances.__getitem__)
            named = {f"class {k}": value for k, value in enumerate(chances)}
            file.write(json.dumps({"image": path, "label": f"class {best}", "probabilities": named}) + "\n")


def main() -> None:
    """Run one case and print its figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("case", choices=("plain Lightning", *BACKENDS))
    add_arguments(parser)
    options = parser.parse_args()

    import lightning  # noqa: F401  # imports are not counted
    import torchvision  # noqa: F401

    from visionkit.cli.main import run
    from visionkit.prediction import files as inference  # noqa: F401

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ckpt, weights, pictures = prepare(options, folder)
        out = folder / "out" / "predictions.jsonl"
        start = time.perf_counter()
        if options.case == "plain Lightning":
            out.parent.mkdir()
            lightning_case(options, weights, pictures, out)
        else:
            backend, _, precision = options.case.partition(", ")
            how = ["--backend", backend, "--precision", precision or "auto", "--reduced-decode"]
            if status := run(["predict", "--ckpt", str(ckpt), "--out", str(out.parent), *how, str(pictures)]):
                sys.exit(status)
        seconds = time.perf_counter() - start
        records = [json.loads(line) for line in out.read_text().splitlines()]
    if len(records) != options.count:
        sys.exit(f"{len(records)} records of {options.count} pictures")
    figures = {
        KEY: round(options.count / seconds, 2),
        "seconds": round(seconds, 2),
        "first": round(records[0]["probabilities"]["class 0"], 4),
        "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
