"""The one way from a root to the splits, with formats and a reader that are made up here."""

from collections.abc import Sequence
from dataclasses import replace

import lightning as L
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from visionkit import ClassificationData, Classifier, DataError, LinearHead, ResNet, UsageError
from visionkit.data.dataset import DataSplits, VisionDataset
from visionkit.data.formats import Format, Formats, Part, find_splits, make_splits, read_parts, recognise, tell_parts
from visionkit.tasks.classification.readers.formats import FORMATS
from visionkit.tasks.classification.readers.reader import ClassDataset, Entry


class Words(VisionDataset):
    """A word a line of a text file: the image's name and its class."""

    def __init__(self, lines: Sequence[str], classes: Sequence[str] | None) -> None:
        self.lines = list(lines)
        self.ids = [line.split()[0] for line in lines]
        words = [line.split()[1] for line in lines]
        self.classes = tuple(sorted(set(words))) if classes is None else tuple(classes)
        self.labels = [(self.classes.index(w),) for w in words]

    def groups_and_labels(self):
        return [i.split("-")[0] for i in self.ids], self.labels

    def subset(self, indices):
        return Words([self.lines[i] for i in indices], self.classes)


def words_format(suffix, **more):
    """A format of files such as train.SUFFIX; SUFFIX.SUFFIX is of no split."""

    def find(root):
        if root.is_file():
            return {"": root} if root.suffix == f".{suffix}" else None
        files = sorted(root.glob(f"*.{suffix}"))
        if any(f.read_text().startswith("broken") for f in files):
            raise DataError(f"{root}: broken {suffix}")
        if len(files) > 3:
            raise UsageError(f"{root}: several {suffix} can be meant")
        return {"" if f.stem == suffix else f.stem: f for f in files} or None

    def read(found, request):
        def one(file, *, classes, channels, options):
            seen.append((file.stem, classes, channels, options))
            return Words(file.read_text().splitlines(), classes)

        parts = {
            n: Part(f.name, lambda f=f, **asked: one(f, **asked, options=dict(request.options)))
            for n, f in found.items()
        }
        done = read_parts(parts, request)
        told = tell_parts({n: p.where for n, p in parts.items()}, done, lambda d: f"{len(d)} words")
        return make_splits(done, f"{suffix} of {request.root}: {told}")

    seen = []
    format = Format(suffix, f"{suffix} (train.{suffix})", find, read, frozenset({"class"}), **more)
    return format, seen


def no_check(found, request):
    pass


def table(*formats, check=no_check):
    def draw(count, seed, request):
        return Words([f"{seed}-{i} {'ab'[i % 2]}" for i in range(count)], None)

    return Formats(tuple(formats), "words", draw, (6, 4), check)


def write(root, **files):
    for name, lines in files.items():
        stem, _, suffix = name.partition("_")
        (root / f"{stem}.{suffix}").write_text("\n".join(lines))
    return root


TEN = [f"{i:02d} {'ab'[i % 2]}" for i in range(10)]


def test_without_a_root_shapes_are_drawn():
    found = find_splits(None, table(), seed=3)
    assert found.source == "drawn shapes: 6 for training, 4 for validation (seed 3)"
    assert (found.train.ids[0], found.val.ids[0], found.test) == ("6-0", "7-0", None)
    assert find_splits(None, table(), classes=["a", "b"]).train.classes == ("a", "b")
    with pytest.raises(UsageError) as e:
        find_splits(None, table(), classes=["b", "a"])
    assert str(e.value) == (
        "without a root the data are drawn shapes (a, b), but the classes are b, a; give the root of your images"
    )


def test_training_is_read_first_and_tells_the_classes(tmp_path):
    one, seen = words_format("one")
    write(tmp_path, test_one=TEN[:1], train_one=TEN, val_one=TEN[1:2])
    found = find_splits(tmp_path, table(one), channels=5, note="x")
    assert seen == [(n, c, 5, {"note": "x"}) for n, c in (("train", None), ("val", ("a", "b")), ("test", ("a", "b")))]
    assert (
        found.source == f"one of {tmp_path}: train 10 words (train.one), val 1 words (val.one), test 1 words (test.one)"
    )
    find_splits(tmp_path, table(one), classes=["b", "a"])
    assert [c for _, c, _, _ in seen[3:]] == [["b", "a"]] * 3


def test_of_several_formats_the_first_of_the_table_is_read(tmp_path):
    one, two, three = (words_format(n)[0] for n in ("one", "two", "three"))
    write(tmp_path, train_one=TEN, val_one=["x a"], train_two=TEN, val_two=["y b"], train_three=TEN, val_three=["z b"])
    found = find_splits(tmp_path, table(two, one, three))
    assert found.source == (
        f"two of {tmp_path}: train 10 words (train.two), val 1 words (val.two); one and three labels lie there too and are "
        "not read"
    )
    assert [r.format for r in recognise(tmp_path, table(two, one, three))] == [two, one, three]
    assert find_splits(tmp_path / "train.one", table(two, one)).source.startswith(
        f"one of {tmp_path}/train.one: 10 words"
    )


def test_what_is_wrong_with_the_first_format_is_said_and_with_others_it_does_not_matter(tmp_path):
    one, two, three = (words_format(n)[0] for n in ("one", "two", "three"))
    write(tmp_path, train_one=TEN, val_one=["x a"], a_two=TEN, b_two=TEN, c_two=TEN, d_two=TEN, a_three=["broken"])
    with pytest.raises(UsageError, match="several two can be meant"):
        find_splits(tmp_path, table(two, one))
    with pytest.raises(DataError, match="broken three"):
        find_splits(tmp_path, table(three, two, one))
    source = find_splits(tmp_path, table(one, two, three)).source
    assert source.endswith("(val.one); two labels lie there too and are not read")
    problems = [type(r.problem) for r in recognise(tmp_path, table(one, two, three))]
    assert problems == [type(None), UsageError, DataError]


def test_a_format_that_others_look_like_counts_where_there_is_no_other(tmp_path):
    one, weak = words_format("one")[0], words_format("two", fallback=True)[0]
    write(tmp_path, train_two=TEN)
    assert [r.format for r in recognise(tmp_path, table(one, weak))] == [weak]
    write(tmp_path, train_one=TEN)
    assert [r.format for r in recognise(tmp_path, table(one, weak))] == [one]


def test_nothing_that_is_understood_is_answered_with_what_is(tmp_path):
    one, two = words_format("one")[0], words_format("two")[0]
    for formats, understood in (
        ((one,), "understood is one (train.one)"),
        ((one, two), "understood are one (train.one) and two (train.two)"),
    ):
        with pytest.raises(DataError) as e:
            find_splits(tmp_path, table(*formats))
        assert str(e.value) == f"{tmp_path}: holds no images and no words; {understood}"
    Image.new("RGB", (2, 2)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match="holds 1 images but no words; understood is one"):
        find_splits(tmp_path, table(one))
    with pytest.raises(
        UsageError, match=r"a\.png: is neither a folder nor a file of a known format; understood is one"
    ):
        find_splits(tmp_path / "a.png", table(one))
    with pytest.raises(DataError, match="nowhere: no such folder or file; check the path; understood is one"):
        find_splits(tmp_path / "nowhere", table(one))


def test_what_is_asked_must_be_there(tmp_path):
    one, _ = words_format("one")
    write(tmp_path, test_one=["x a"])
    with pytest.raises(
        UsageError, match="has no train split to take the class names from; add it or give a checkpoint"
    ):
        find_splits(tmp_path, table(one))
    assert find_splits(tmp_path, table(one), classes=["a"], need=("test",)).test.ids == ["x"]
    with pytest.raises(DataError, match="there is no val split: one of"):
        find_splits(tmp_path, table(one), classes=["a"], need=("val",))
    write(tmp_path, train_one=["x a"], val_one=["y a"])
    with pytest.raises(DataError, match=r"1 training image\(s\); give 2 or more"):
        find_splits(tmp_path, table(one))
    with pytest.raises(UsageError, match="val_fraction: 1 is not between 0 and 1"):
        find_splits(tmp_path, table(one), val_fraction=1)


def test_a_file_in_two_splits_is_refused(tmp_path):
    one, _ = words_format("one")
    (tmp_path / "a.png").write_bytes(b"")
    line = f"{tmp_path}/a.png a"
    write(tmp_path, train_one=[line, "x b"], val_one=[line])
    with pytest.raises(DataError, match=r"a\.png is in both train and val, so the score would flatter; keep it in one"):
        find_splits(tmp_path, table(one))


def test_a_task_says_what_teaches_nothing(tmp_path):
    def check(found, request):
        raise DataError(f"{request.root}: {len(found.train)} images teach nothing")

    one, _ = words_format("one")
    write(tmp_path, one_one=TEN)
    with pytest.raises(DataError, match="10 images teach nothing"):
        find_splits(tmp_path, table(one, check=check))
    write(tmp_path, test_one=TEN)
    (tmp_path / "one.one").unlink()
    assert len(find_splits(tmp_path, table(one, check=check), classes=["a", "b"], need=("test",)).test) == 10


@given(
    st.lists(st.tuples(st.integers(0, 5), st.sampled_from("abc")), min_size=12, max_size=40),
    st.integers(0, 3),
    st.floats(0.1, 0.6),
)
def test_validation_images_are_taken_from_training(tmp_path_factory, rows, seed, fraction):
    """Nothing is lost, nothing comes twice, groups stay whole, and the order of the lines says nothing."""
    root = tmp_path_factory.mktemp("words")
    one, _ = words_format("one")
    lines = [f"{group}-{i} {label}" for i, (group, label) in enumerate(rows)]
    write(root, one_one=lines)
    try:
        found = find_splits(root, table(one), seed=seed, val_fraction=fraction)
    except DataError as e:
        assert "no validation images can be set aside" in str(e) or "1 training image(s)" in str(e)  # noqa: PT017
        return
    assert sorted([*found.train.lines, *found.val.lines]) == sorted(lines)
    sides = [{i.split("-")[0] for i in d.ids} for d in (found.train, found.val)]
    assert not sides[0] & sides[1]
    write(root, one_one=reversed(lines))
    again = find_splits(root, table(one), seed=seed, val_fraction=fraction)
    assert set(again.val.lines) == set(found.val.lines)


# --- a reader of one's own: a class, and a line in a copy of the table


class ListDataset(ClassDataset):
    """Pictures of a text file: a name and a class a line."""

    def __init__(self, file, *, classes=None, channels=3):
        rows = [line.split() for line in file.read_text().splitlines()]
        names = tuple(sorted({c for _, c in rows})) if classes is None else tuple(classes)
        entries = [Entry(str(file.parent / n), (names.index(c),), n) for n, c in rows]
        super().__init__(entries, names, channels=channels)


def read_list(file, request):
    data = ListDataset(file, classes=request.classes, channels=request.channels)
    return DataSplits(data, None, None, f"{len(data)} pictures of {file}")


LIST = Format(
    "list",
    "a list (pictures.lst)",
    lambda root: f if (f := root / "pictures.lst").is_file() else None,
    read_list,
    frozenset({"class", "names"}),
)


def test_a_new_reader_is_a_class_and_a_line_of_the_table(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    lines = []
    for i in range(20):
        pixels = rng.integers(0, 60, (24, 24, 3), dtype=np.uint8)
        pixels[..., i % 2] += 150
        Image.fromarray(pixels).save(tmp_path / f"{i:02d}.png")
        lines.append(f"{i:02d}.png {('red', 'green')[i % 2]}")
    (tmp_path / "pictures.lst").write_text("\n".join(lines))
    with pytest.raises(DataError, match="holds 20 images but no class folders; understood are a manifest"):
        _ = ClassificationData(str(tmp_path)).splits
    added = replace(FORMATS, formats=(*FORMATS.formats, LIST))
    monkeypatch.setattr("visionkit.tasks.classification.data.FORMATS", added)
    data = ClassificationData(str(tmp_path), size=32, batch_size=4, num_workers=0, augment=None)
    assert data.classes == ("green", "red")
    assert data.splits.source == (
        f"20 pictures of {tmp_path}/pictures.lst; automatic split: 16 for training, 4 for validation, by class (seed 0)"
    )
    torch.manual_seed(0)
    backbone = ResNet(layers=(1, 1, 1, 1), block="basic", stem="small")
    task = Classifier(backbone, LinearHead, data.classes, preprocessing=data.preprocessing)
    trainer = L.Trainer(
        max_epochs=2, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, use_distributed_sampler=False, num_sanity_val_steps=0,
    )  # fmt: skip
    trainer.fit(task, datamodule=data)
    assert trainer.global_step == 8
    assert trainer.callback_metrics["val/top1"] > 0.5
    with pytest.raises(
        DataError, match=r"understood are a manifest .*, class folders .* and a list \(pictures\.lst\)$"
    ):
        _ = ClassificationData(str(tmp_path / "nowhere")).splits


def test_an_empty_root_is_not_the_working_folder():
    with pytest.raises(UsageError, match=r"data\.root is empty"):
        find_splits("", FORMATS)
