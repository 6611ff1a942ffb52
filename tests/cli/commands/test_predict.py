import io

import pytest

from visionkit import DataError, UsageError
from visionkit.cli.commands import predict
from visionkit.prediction import files as inference
from visionkit.prediction.files import PredictionRun
from visionkit.prediction.views import Views

NEEDED = ["--ckpt", "m.ckpt", "--out", "o", "a.png"]


def test_defaults():
    a = predict.parser().parse_args(NEEDED)
    assert (a.pictures, a.batch_size, a.num_workers, a.device, a.precision) == (["a.png"], None, None, "auto", "auto")
    assert a.backend == "torch"
    assert (a.save_images, a.overwrite, a.trust) == (False, False, [])
    assert (a.formats, a.coco_annotations, a.min_score) == ([], None, None)
    assert (a.flip, a.scales, a.window, a.overlap) == (False, None, None, None)


def test_trust_is_repeatable():
    assert predict.parser().parse_args([*NEEDED, "--trust", "a", "--trust=b"]).trust == ["a", "b"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "needs a model, a folder for the results and pictures: visionkit predict --ckpt runs/classify-1 --out"),
        (["a.png"], "the following arguments are required: --ckpt.*, --out"),
        (NEEDED[:4], r"which PICTURES\? Give files, folders, globs, URLs, or --list FILE"),
        (
            [*NEEDED, "-", "--list", "-"],
            "- stands for one picture on standard input; --list - reads standard input, too",
        ),
        ([*NEEDED, "-", "--resume"], "- stands for one picture on standard input; --resume goes on with files alone"),
        ([*NEEDED, "--save-crops", "--reduced-decode"], "--save-crops cuts all pixels of a picture: leave --reduced"),
        ([*NEEDED[:4], "s3://bucket/a.png"], "of URLs those of http and https are read; download it first"),
        (NEEDED[2:], "the following arguments are required: --ckpt"),
        ([*NEEDED, "--batch-sizes", "3"], r"unrecognized arguments: --batch-sizes 3; did you mean --batch-size\?"),
        ([*NEEDED, "--overwrit"], r"did you mean --overwrite\?"),
        ([*NEEDED, "--zzz"], "unrecognized arguments: --zzz; see"),
        ([*NEEDED, "--batch-size", "many"], "--batch-size.*: invalid int value: 'many'"),
        ([*NEEDED, "--batch-size", "0"], "--batch-size must be at least 1, got 0"),
        ([*NEEDED, "--num-workers", "-1"], "--num-workers must be at least 0, got -1"),
        ([*NEEDED, "--precision", "16"], "--precision: invalid choice: '16'"),
        (
            [*NEEDED, "--calibrate", "b.png"],
            "--calibrate names pictures for --precision int8: add that, or leave it out",
        ),
        ([*NEEDED, "--backend", "tensorrt"], "--backend: invalid choice: 'tensorrt' .*openvino"),
        ([*NEEDED, "--ckpt"], "--ckpt.*: expected one argument"),
        ([*NEEDED, "--min-score", "1.5"], "--min-score must be from 0 to 1, got 1.5"),
        ([*NEEDED, "--min-score", "nan"], "--min-score must be from 0 to 1, got nan"),
        ([*NEEDED, "--coco-annotations", "a.json"], "--coco-annotations gives the ids of --format coco: add that"),
        ([*NEEDED, "--scales", "1,big"], "--scales: '1,big': give factors such as 0.75,1,1.25"),
        ([*NEEDED, "--scales", ""], "--scales: '': give factors"),
        ([*NEEDED, "--window", "5x5x5"], "--window: '5x5x5': give pixels, such as 512, or height and width"),
        ([*NEEDED, "--window", "5x"], "--window: '5x': give pixels"),
        ([*NEEDED, "--overlap", "0.5"], "--overlap says how much of a window the next one repeats: add --window, too"),
        ([*NEEDED, "--scales", "1,0"], r"scales=\(1.0, 0.0\): factors of the model's size, above 0"),
        ([*NEEDED, "--window", "8"], "window=8: a number of pixels from 16 on"),
        ([*NEEDED, "--window", "64", "--overlap", "1"], "overlap=1.0: a share of a window, 0..0.9"),
        (
            [*NEEDED, "--coco-annotations", "a.json", "--format", "yolo"],
            "--coco-annotations gives the ids of --format coco",
        ),
    ],
)
def test_wrong_arguments_are_one_line(arguments, words, capsys):
    with pytest.raises(UsageError, match=words) as raised:
        predict.main("predict", arguments)
    assert "\n" not in str(raised.value)
    assert capsys.readouterr() == ("", ""), "no usage is printed"


@pytest.mark.parametrize("problems", [[], ["b.png: is no image"]])
def test_what_is_done_is_said_and_faults_decide_the_status(tmp_path, monkeypatch, capsys, problems):
    asked = {}

    def told(ckpt, pictures, out, **settings):
        asked.update(settings, ckpt=ckpt, out=out, pictures=[p.path for p in pictures])
        return PredictionRun(tmp_path / "predictions.jsonl", 2 - len(problems), problems, 1.25)

    monkeypatch.setattr(inference, "predict_to_folder", told)
    for name in ("a.png", "b.png"):
        (tmp_path / name).touch()
    arguments = [
        "--ckpt",
        "m.ckpt",
        "--out",
        "o",
        str(tmp_path),
        "--precision",
        "bf16",
        "--backend",
        "openvino",
        "--num-workers",
        "0",
        "--trust",
        "x",
    ]
    assert predict.main("predict", arguments) == len(problems)
    captured = capsys.readouterr()
    first, *others = captured.out.splitlines()
    assert (
        first == f"{2 - len(problems)} prediction{'' if problems else 's'} in 1.2 s: {tmp_path / 'predictions.jsonl'}"
    )
    assert others == ["hint     --save-images also draws what was found, into images/ there"]
    assert captured.err == ("b.png: is no image\nerror: 1 of 2 pictures could not be predicted\n" if problems else "")
    assert asked == {
        "ckpt": ["m.ckpt"], "out": "o", "pictures": [str(tmp_path / n) for n in ("a.png", "b.png")], "batch_size": None,
        "num_workers": 0, "device": "auto", "precision": "bf16", "save_images": False, "save_crops": False, "overwrite": False, "trust": ["x"],
        "formats": [], "annotations": None, "min_score": None, "views": None, "backend": "openvino", "resume": False,
        "calibrate": None, "tell": predict._tell, "progress": None, "reduced": False, "weights": None, "thresholds": None,
        "explain": None,
    }  # fmt: skip


def test_formats_and_scores_are_passed_on(tmp_path, monkeypatch, capsys):
    asked = {}

    def told(ckpt, pictures, out, **settings):
        asked.update(settings)
        return PredictionRun(tmp_path / "predictions.jsonl", 1, [], 1.0)

    monkeypatch.setattr(inference, "predict_to_folder", told)
    (tmp_path / "a.png").touch()
    more = ["--format", "coco", "--format=yolo", "--coco-annotations", "i.json", "--min-score", "0"]
    assert predict.main("predict", ["--ckpt", "m", "--out", "o", str(tmp_path / "a.png"), *more]) == 0
    assert (asked["formats"], asked["annotations"], asked["min_score"]) == (["coco", "yolo"], "i.json", 0.0)


@pytest.mark.parametrize(
    ("more", "views"),
    [
        (["--flip"], Views(flip=True)),
        (["--scales", "0.75,1,1.25"], Views(scales=(0.75, 1.0, 1.25))),
        (["--window", "512", "--overlap", "0"], Views(window=512, overlap=0.0)),
        (["--window=512X768", "--flip", "--scales=2"], Views(True, (2.0,), (512, 768))),
    ],
)
def test_views_are_passed_on(tmp_path, monkeypatch, capsys, more, views):
    asked = {}

    def told(ckpt, pictures, out, **settings):
        asked.update(settings)
        return PredictionRun(tmp_path / "predictions.jsonl", 1, [], 1.0)

    monkeypatch.setattr(inference, "predict_to_folder", told)
    (tmp_path / "a.png").touch()
    assert predict.main("predict", ["--ckpt", "m", "--out", "o", str(tmp_path / "a.png"), *more]) == 0
    assert asked["views"] == views


class Stdin:
    def __init__(self, data):
        self.buffer = io.BytesIO(data)


def run_with_stdin(monkeypatch, tmp_path, data, *arguments):
    asked = {}

    def told(ckpt, pictures, out, **settings):
        asked.update(settings, pictures=pictures)
        return PredictionRun(tmp_path / "predictions.jsonl", 1, [], 1.0)

    monkeypatch.setattr(inference, "predict_to_folder", told)
    monkeypatch.setattr("sys.stdin", Stdin(data))
    assert predict.main("predict", ["--ckpt", "m", "--out", "o", *arguments]) == 0
    return asked["pictures"]


def test_a_picture_comes_by_standard_input(tmp_path, monkeypatch):
    (tmp_path / "a.png").touch()
    stdin, file = run_with_stdin(monkeypatch, tmp_path, b"the bytes", "-", str(tmp_path / "a.png"), "-")
    assert (stdin.path, stdin.load()) == ("stdin", b"the bytes")
    assert (file.path, file.load) == (str(tmp_path / "a.png"), None)
    with pytest.raises(DataError, match="standard input: holds nothing"):
        run_with_stdin(monkeypatch, tmp_path, b"", "-")


def test_a_terminal_is_no_picture(monkeypatch):
    class Terminal:
        class buffer:  # noqa: N801
            isatty = staticmethod(lambda: True)

    monkeypatch.setattr("sys.stdin", Terminal)
    with pytest.raises(UsageError, match="- reads a picture's bytes from standard input, here a terminal"):
        predict.main("predict", ["--ckpt", "m", "--out", "o", "-"])


def test_paths_come_by_a_list(tmp_path, monkeypatch):
    lines = b"x[1].png\r\n\n sp ace.png\nhttps://h/a.png\n"
    expected = ["x[1].png", " sp ace.png", "https://h/a.png"]
    (tmp_path / "list.txt").write_bytes(lines)
    for given in ("-", str(tmp_path / "list.txt")):
        found = run_with_stdin(monkeypatch, tmp_path, lines, "--list", given)
        assert [p.path for p in found] == expected, "a line is a file: no glob, no URL"
        assert all(p.load is None for p in found)
    with pytest.raises(DataError, match="standard input: lists no pictures"):
        run_with_stdin(monkeypatch, tmp_path, b"\n\n", "--list", "-")
    with pytest.raises(DataError, match=r"none\.txt: no such file"):
        run_with_stdin(monkeypatch, tmp_path, b"", "--list", "none.txt")


def test_pictures_stand_anywhere_among_the_options(tmp_path, monkeypatch, capsys):
    asked = {}

    def told(ckpt, pictures, out, **settings):
        asked.update(ckpt=ckpt, pictures=[p.path for p in pictures])
        return PredictionRun(tmp_path / "predictions.jsonl", 2, [], 1.0)

    monkeypatch.setattr(inference, "predict_to_folder", told)
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "b.png", "m.ckpt", "n.ckpt"):
        (tmp_path / name).touch()
    for line in ("a.png --ckpt m.ckpt n.ckpt --out o b.png", "--ckpt m.ckpt --ckpt n.ckpt a.png --out o b.png"):
        assert predict.main("predict", line.split()) == 0
        assert asked == {"ckpt": ["m.ckpt", "n.ckpt"], "pictures": ["a.png", "b.png"]}
