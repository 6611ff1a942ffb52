"""soup: average the weights of several trainings into one checkpoint."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from visionkit.cli.commands.backbone import new_file
from visionkit.cli.commands.predict import Parser
from visionkit.core.errors import UsageError
from visionkit.core.text import say

if TYPE_CHECKING:
    from torch import Tensor

    from visionkit.data.dataset import VisionDataset
    from visionkit.models.model import VisionModel

__all__ = ["main", "pictures_of", "task_of", "value_of"]

STATISTICS = 512  # training pictures that statistics of batch normalisation are computed of
BATCH = 16


def parser() -> Parser:
    """Return the parser of ``visionkit soup``."""
    p = Parser(
        prog="visionkit soup",
        description="Average the weights of several trainings of one network, which started from the same weights, "
        "into one checkpoint that takes the time of one (greedy soup, Wortsman et al. 2022). The best one on the "
        "validation pictures comes first; each further one stays where the average is not worse with it. What batch "
        "normalisation knows of its maps is computed anew on training pictures. Trainings of different networks, "
        "classes or starts are refused: predict --ckpt A B takes them as an ensemble.",
        allow_abbrev=False,
    )
    p.add_argument("ckpts", nargs="+", metavar="CKPT",
                   help="two checkpoints of visionkit fit or more, or the folders of runs; all are in memory at "
                   "once")  # fmt: skip
    p.add_argument("--data", required=True, metavar="ROOT",
                   help="their data: the val split chooses, the train split gives statistics")  # fmt: skip
    p.add_argument("--out", required=True, metavar="OUT.ckpt",
                   help="file to write; the best checkpoint as it is where nothing is gained")  # fmt: skip
    p.add_argument("--batch-size", "--batch", "--batch_size", type=int, metavar="N",
                   help="pictures at once (default: 8 on a CPU, 32 on a GPU)")  # fmt: skip
    p.add_argument("--num-workers", "--workers", type=int, metavar="N",
                   help="threads that read pictures (default: by the machine)")  # fmt: skip
    p.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, ... (default: a GPU when there is one)")
    p.add_argument("--overwrite", action="store_true", help="replace OUT.ckpt where it exists")
    p.add_argument("--trust", action="append", default=[], metavar="PACKAGE",
                   help="a package beside visionkit whose classes the checkpoints may name (repeatable)")  # fmt: skip
    return p


def main(command: str, arguments: Sequence[str]) -> int:
    """Run the command."""
    options = parser().parse_args(arguments)
    paths = list(dict.fromkeys(options.ckpts))
    if len(paths) < 2:
        raise UsageError("visionkit soup averages two checkpoints or more: name another one")
    if options.batch_size is not None and options.batch_size < 1:
        raise UsageError(f"--batch-size must be at least 1, got {options.batch_size}")
    if options.num_workers is not None and options.num_workers < 0:
        raise UsageError(f"--num-workers must be at least 0, got {options.num_workers}")
    out = new_file(options.out, ".ckpt", "a checkpoint", overwrite=options.overwrite)

    from visionkit.cli.measured import data_for
    from visionkit.cli.trained_on import training_of
    from visionkit.core.machine import choose_workers
    from visionkit.evaluation.soup import Ingredient, check_alike, cook
    from visionkit.models import checkpoint
    from visionkit.models.content_digest import digest_of
    from visionkit.models.run_folder import find_checkpoint
    from visionkit.prediction.backends.available import choose_device
    from visionkit.prediction.resuming import digest

    device = choose_device(options.device)
    files = [find_checkpoint(path) for path in paths]
    contents = [checkpoint.read(file) for file in files]
    models = [
        checkpoint.restore(content, file, trust=options.trust).to(device)
        for content, file in zip(contents, files, strict=True)
    ]
    digests = [digest_of(content, file) for content, file in zip(contents, files, strict=True)]
    ingredients = [Ingredient(*one) for one in zip(paths, digests, models, map(digest, files), strict=True)]
    check_alike(ingredients)
    first = models[0]
    asked: dict[str, Any] = {
        "task": task_of(first),
        "classes": first.classes,
        "channels": first.preprocessing.channels,
        "trainings": {path: training_of(path) for path in paths},
    }
    val, train = (data_for(options.data, split=split, **asked) for split in ("val", "train"))
    for line in val.warnings:
        say(f"warning: {line}", error=True)
    workers = choose_workers() if options.num_workers is None else options.num_workers
    say(f"data     {len(val.dataset)} val pictures choose by {first.head.metric(first.classes).monitor}")
    soup = cook(
        ingredients,
        lambda model: value_of(model, val.dataset, options.batch_size, workers),
        lambda: pictures_of(first, train.dataset, workers),
        make=lambda: checkpoint.make_model(contents[0][checkpoint.KEY], files[0], trust=options.trust).to(device),
        tell=say,
    )
    checkpoint.save(soup.model, out, task=contents[0][checkpoint.KEY]["task"])
    names = [one.name for one in soup.made_of]
    if len(names) == 1:
        say(f"written  {out}: {names[0]} as it is, {soup.value:.4f}; no average with another one is as good")
    else:
        made = f"average of {len(names)} of {len(paths)}"
        say(f"written  {out}: {made}, {soup.value:.4f}, the best alone {soup.best:.4f}, on the pictures that chose")
    return 0


def task_of(model: VisionModel) -> Any:
    """Return which labels a model is measured with.

    Raises:
        UsageError: There is no one kind of them.
    """
    from visionkit.tasks.classification.types import ClassPrediction
    from visionkit.tasks.detection.instances import InstancePrediction
    from visionkit.tasks.detection.types import BoxPrediction
    from visionkit.tasks.segmentation.types import MaskPrediction

    kinds = {
        InstancePrediction: "instance",
        BoxPrediction: "detection",
        ClassPrediction: "classification",
        MaskPrediction: "segmentation",
    }
    for kind, task in kinds.items():
        if issubclass(model.head.prediction, kind):
            return task
    raise UsageError(
        f"visionkit soup measures models of one task; {type(model.head).__name__} has none or several: take a head out "
        "(visionkit heads take)"
    )


def value_of(model: VisionModel, dataset: VisionDataset[Any], batch_size: int | None, workers: int) -> float:
    """Return how good a model is: the number that says which checkpoint of a training is the best."""
    from visionkit.core.prefetch import prefetch_map
    from visionkit.data.dataset import load_sample
    from visionkit.prediction.predictor import Predictor

    predictor, metric = Predictor(model, batch_size=batch_size), model.head.metric(model.classes)
    targets: dict[str, Any] = {}

    def read(index: int) -> Any:
        sample = load_sample(dataset, index, predictor.scale())
        targets[sample.info.id] = sample.target
        return predictor.prepare(sample, keep=False)

    items = prefetch_map(read, range(len(dataset)), threads=workers, depth=2 * predictor.batch_size + workers)
    for result in predictor.results(items):
        if not isinstance(result, tuple):
            raise result
        sample, prediction = result
        metric.update([prediction], [targets.pop(sample.info.id)])
    return float(metric.compute()[metric.monitor])


def pictures_of(model: VisionModel, dataset: VisionDataset[Any], workers: int) -> Iterator[Tensor]:
    """Yield training pictures as the network sees them in evaluation, uint8 [B, C, H, W]."""
    from visionkit.core.prefetch import prefetch_map
    from visionkit.core.sample import collate
    from visionkit.data.dataset import load_sample

    count = min(len(dataset), STATISTICS)
    rows = [k * len(dataset) // count for k in range(count)]

    def read(index: int) -> Any:
        sample = load_sample(dataset, index, model.preprocessing.scale)
        return model.preprocessing(sample.replace(target=None))

    ready = prefetch_map(read, rows, threads=workers, depth=2 * BATCH)
    batch: list[Any] = []
    for sample in ready:
        batch.append(sample)
        if len(batch) == BATCH:
            yield collate(batch).images
            batch = []
    if len(batch) > BATCH // 2 or (batch and count < BATCH):  # a small one would count as much as the others
        yield collate(batch).images
