"""The benchmarks can be started; what they share computes what it says. No speed is tested here."""

import argparse
import gc
import json
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"
NAMES = sorted(p.stem for p in FOLDER.glob("*.py") if p.stem not in ("run", "gpu"))


@pytest.fixture
def run(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    sys.modules.pop("run", None)
    import run

    yield run
    for name in [m for m in sys.modules if m == "run" or m.partition(".")[0] == "measuring"]:
        del sys.modules[name]
    gc.collect()  # the classes too: other tests look at all subclasses there are


def options_of(module, *given):
    parser = argparse.ArgumentParser()
    module.add_arguments(parser)
    required = [a for a in parser._actions if a.required]
    return parser.parse_args(
        [*(x for a in required for x in (a.option_strings[0], next(iter(a.choices or ["PATH"])))), *given]
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_comparison_names_its_figure_its_cases_and_existing_references(run, name):
    module = run.load(name)
    cases = module.cases(options_of(module))
    assert isinstance(module.KEY, str)
    assert module.REFERENCES
    assert set(module.REFERENCES) <= set(cases)
    assert isinstance(getattr(module, "LOWER", False), bool)
    for command in cases.values():
        assert command[:2] == [sys.executable, str(FOLDER / f"{name}.py")]
        assert all(isinstance(word, str) for word in command)


@pytest.mark.parametrize(
    ("name", "given", "cases", "references"),
    [
        ("detection", ["--only", "fcos"], ["visionkit fcos", "torchvision fcos"], ["torchvision fcos"]),
        (
            "segmentation",
            ["--depth", "50"],
            ["visionkit", "torchvision deeplabv3_resnet50", "torchvision stride 16"],
            ["torchvision deeplabv3_resnet50", "torchvision stride 16"],
        ),
        (
            "ultralytics_classification",
            ["--depths", "18"],
            ["visionkit ResNet-18", "ultralytics ResNet-18"],
            ["ultralytics ResNet-18"],
        ),
    ],
)
def test_options_choose_cases_and_their_references(run, name, given, cases, references):
    module = run.load(name)
    assert list(module.cases(options_of(module, *given))) == cases
    assert references == module.REFERENCES


def simulated(run, *given, population=20_000):
    module = run.load("interval_coverage")
    module.POPULATION = population
    return module.figures(options_of(module, *given), "visionkit")


def test_intervals_hold_what_they_should_on_a_few_simulated_sets(run):
    found = simulated(run, "--what", "top1", "--images", "100", "--sets", "150")
    assert 0.9 <= found["share"] <= 1
    found = simulated(run, "--what", "miou", "--sets", "40", "--draws", "60", population=2000)
    assert 0.8 <= found["share"] <= 1
    assert 0.05 < found["width"] < 0.2


def test_equal_detectors_are_seldom_told_apart_and_better_ones_often(run):
    given = ["--images", "40", "--sets", "20", "--draws", "50"]
    assert simulated(run, "--what", "equal", *given, population=500)["share"] <= 0.2
    found = simulated(run, "--what", "better", "--gain", "0.5", *given, population=500)
    assert found["gain"] > 0.05
    assert found["share"] >= 0.8


@pytest.mark.slow
@pytest.mark.parametrize(
    ("given", "least", "most"),
    [
        (["--what", "top1", "--images", "50", "--right", "0.98"], 0.9, 0.99),
        (["--what", "top1", "--images", "153", "--right", "0.95"], 0.92, 0.99),
        (["--what", "miou", "--images", "18", "--sets", "500"], 0.88, 0.98),
        (["--what", "miou", "--images", "50", "--sets", "500"], 0.92, 0.98),
        (["--what", "map", "--images", "40", "--sets", "400"], 0.88, 0.98),
        (["--what", "map", "--images", "100", "--sets", "400"], 0.92, 0.98),
        (["--what", "equal", "--images", "60", "--sets", "500"], 0.02, 0.07),
    ],
)
def test_intervals_and_comparisons_keep_their_word(run, given, least, most):
    assert least <= simulated(run, *given, "--draws", "250")["share"] <= most


def test_a_comparison_runs_prints_ratios_and_writes_its_figures(run, tmp_path, monkeypatch, capsys):
    (tmp_path / "toy.py").write_text(
        "import sys\n"
        'KEY, REFERENCES, LOWER = "seconds", ["slow"], True\n'
        "def add_arguments(parser): parser.add_argument('--factor', type=float, default=3.0)\n"
        "def cases(options):\n"
        "    def line(s): return [sys.executable, '-c', f'print(\\'{{\"seconds\": {s}, \"peak_mib\": 7}}\\')']\n"
        "    return {'slow': line(options.factor), 'fast': line(1.0)}\n"
    )
    monkeypatch.setattr(run, "HERE", tmp_path)
    file = tmp_path / "figures.json"
    monkeypatch.setattr(sys, "argv", ["run.py", "toy", "--rounds", "2", "--json", str(file)])
    run.main()
    table = capsys.readouterr().out.splitlines()
    assert "3.00 (3.00-3.00)" in next(x for x in table if x.startswith("fast"))
    assert json.loads(file.read_text())["figures"]["slow"] == [{"seconds": 3.0, "peak_mib": 7}] * 2


def test_speed_counts_what_lies_between_the_steps_after_the_warm_up(run):
    from measuring.figures import speed

    ends = [10.0, 50.0, 50.5, 51.0, 54.0]  # a slow start and a pause before the last step
    assert speed(ends, images=8, warmup=2) == 8 * 3 / 4.0
    with pytest.raises(SystemExit, match="too few pictures"):
        speed(ends[:2], images=8, warmup=2)


def test_the_figures_are_one_line_of_json_with_memory(run, capsys):
    from measuring.figures import report

    report({"seconds": 1.23456789})
    figures = json.loads(capsys.readouterr().out)
    assert figures["seconds"] == 1.2346
    assert figures["peak_mib"] > 50  # torch is in this process
    assert "workers_mib" not in figures


def test_fit_tells_when_its_epochs_and_steps_end(run, photos):
    from measuring.steps import StepTimes, fit

    settings = {
        "data.root": photos,
        "data.size": 32,
        "data.batch_size": 4,
        "data.num_workers": 0,
        "model.backbone.stem": "small",
        "trainer.accelerator": "cpu",
        "trainer.max_epochs": 2,
        "trainer.limit_train_batches": 2,
        "trainer.logger": "false",
    }
    folder = fit("classify.yaml", settings, ["trainer.limit_val_batches=1"])
    assert (folder / "metrics.csv").is_file()
    assert [len(x) for x in (StepTimes.epochs, StepTimes.ends, StepTimes.done)] == [2, 4, 1]
    assert StepTimes.epochs[0] < StepTimes.ends[1] < StepTimes.epochs[1] < StepTimes.ends[3] < StepTimes.done[0]


def test_the_prepared_batches_are_given_again_and_again(run):
    from measuring.tiny import PreparedData

    data = PreparedData(steps=11, size=32, batch_size=2)
    batches = list(data.train_dataloader())
    assert len(batches) == len(data.train_dataloader()) == 11
    assert batches[0].images.shape == (2, 3, 32, 32)
    assert batches[8] is batches[0]


def test_an_epoch_of_equal_size_links_equally_many_pictures_of_each_class(run, photos, tmp_path):
    module = run.load("ultralytics_classification")
    for split in ("train", "val"):
        (tmp_path / "data").mkdir(exist_ok=True)
        (tmp_path / "data" / split).symlink_to(photos)
    found = module.subset(tmp_path / "data", tmp_path / "links", 7, 3)
    counts = {s: [len(list(c.iterdir())) for c in sorted((found / s).iterdir())] for s in ("train", "val")}
    assert counts == {"train": [3, 2, 2], "val": [1, 1, 1]}
    with pytest.raises(SystemExit, match="lower --train"):
        module.subset(tmp_path / "data", tmp_path / "more", 100, 3)


def test_torchvisions_whole_model_has_the_output_stride_that_is_asked_for(run):
    torch = pytest.importorskip("torch")
    module = run.load("segmentation")
    for stride in (8, 16):
        model = module.whole(50, stride, 5).eval()
        with torch.inference_mode():
            features = model.backbone(torch.zeros(1, 3, 64, 64))["out"]
            assert features.shape == (1, 2048, 64 // stride, 64 // stride)
            assert model(torch.zeros(1, 3, 64, 64))["out"].shape == (1, 5, 64, 64)


def test_the_script_for_a_gpu_works_in_its_short_form(run, tmp_path, monkeypatch):
    gpu = run.load("gpu")
    parser = argparse.ArgumentParser()
    gpu.add_arguments(parser)
    options = parser.parse_args(["--json", str(tmp_path / "all.json"), "--short"])

    def part(name, options, photos, left):
        options.photos = str(photos)
        return gpu.RUN[name](options)

    monkeypatch.setattr(gpu, "_part", part)
    monkeypatch.chdir(tmp_path)
    options.only = [name for name in gpu.PARTS if name != "tests"]  # pytest within pytest
    gpu.run_all(options)
    found = json.loads((tmp_path / "all.json").read_text())
    assert list(found) == ["machine", "short", *options.only]
    assert found["compiled"]["images_per_second"] > 0
    assert found["fit"]["images_per_second"] > 0
    assert found["fcos"]["visionkit"]["ms"] > 0
    assert found["deeplab"].keys() == {"visionkit", "torchvision, stride 8"}
    assert found["predict"]["images"] == 24
    assert 0 < found["average_precision"]["map"] < 1


def test_a_part_that_fails_or_takes_too_long_is_said(run, tmp_path, capsys):
    gpu = run.load("gpu")
    parser = argparse.ArgumentParser()
    gpu.add_arguments(parser)
    options = parser.parse_args(["--json", str(tmp_path / "all.json"), "--short", "--only", "fit"])
    assert gpu._part("fit", options, tmp_path / "nothing", 0.01) == {"left_out": "it did not end within 0 s"}
    assert "nothing" in " ".join(gpu._part("fit", options, tmp_path / "nothing", 60)["failed"])
    options.minutes = 0.0
    assert gpu.run_all(options)["fit"] == {"left_out": "the time is over"}


@pytest.mark.slow
def test_a_student_is_taught_by_the_members_that_are_trained_before(run, photos, tmp_path, monkeypatch):
    module = run.load("distillation")
    tiny = ["model.backbone.layers=[1,1,1,1]", "model.backbone.block=basic", "model.backbone.stem=small",
            "data.size=32", "data.num_workers=0", "trainer.max_epochs=1", "pictures=none"]  # fmt: skip
    options = options_of(module, "--data", str(photos), "--members", "2", "--set", *tiny)
    options.home, options.seed = str(tmp_path), 1
    monkeypatch.setattr(module, "training", without_time(module.training))
    monkeypatch.setattr(module.subprocess, "run", in_process)
    teachers = module.trained_teachers(options)
    assert [Path(path).name for path in teachers] == ["member-1", "member-2"]
    assert module.trained_teachers(options) == teachers
    found = module.student(options, teachers)
    assert set(found) == {"metric", "best", "seconds", "epochs", "teachers"}
    assert found["epochs"] == 1


def without_time(training):
    return lambda *a: [word for word in training(*a) if not word.startswith(("--minutes", "--model.backbone.depth"))]


def in_process(command, *, cwd, **settings):
    from contextlib import chdir

    from visionkit.cli.main import run

    with chdir(cwd):
        assert run(command[3:]) == 0
