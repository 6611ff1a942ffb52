import os

import pytest
import torch

from visionkit import DataError
from visionkit.training.run.checkpoints import FOLDER, BestAndLast, SafeCheckpointIO
from visionkit.training.run.folder import RunFolder

SPEC = {"class_path": "visionkit.X", "init_args": {}}
MODEL = {"backbone": SPEC, "neck": SPEC, "head": SPEC, "classes": ["a"], "preprocessing": SPEC}
CONTENT = {
    "state_dict": {"model.w": torch.arange(3.0)},
    "visionkit": {"format": 1, "version": "1", "task": None, "model": MODEL},
}


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


class TestSafeCheckpointIO:
    def test_what_is_written_comes_back(self, tmp_path):
        SafeCheckpointIO().save_checkpoint(CONTENT, tmp_path / "sub" / "a.ckpt")
        again = SafeCheckpointIO().load_checkpoint(tmp_path / "sub" / "a.ckpt")
        assert torch.equal(again["state_dict"]["model.w"], torch.arange(3.0))

    def test_failing_half_way_leaves_the_old_file_alone(self, tmp_path, monkeypatch):
        io = SafeCheckpointIO()
        io.save_checkpoint(CONTENT, tmp_path / "a.ckpt")
        before = (tmp_path / "a.ckpt").read_bytes()

        def full_disk(content, file):
            file.write(b"half")
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(torch, "save", full_disk)
        with pytest.raises(DataError, match=r"a\.ckpt: no space left on the disk \(0\.0 MB needed\); free some"):
            io.save_checkpoint({**CONTENT, "epoch": 2}, tmp_path / "a.ckpt")
        assert (tmp_path / "a.ckpt").read_bytes() == before
        assert [p.name for p in tmp_path.iterdir()] == ["a.ckpt"]

    @pytest.mark.parametrize("weights_only", [None, True, False])
    def test_code_is_refused_whatever_the_caller_asks(self, tmp_path, weights_only):
        torch.save({**CONTENT, "x": Evil(str(tmp_path / "ran"))}, tmp_path / "evil.ckpt")
        with pytest.raises(DataError, match=r"evil\.ckpt: refused, it holds the Python object posix\.mkdir"):
            SafeCheckpointIO().load_checkpoint(tmp_path / "evil.ckpt", weights_only=weights_only)
        assert not (tmp_path / "ran").exists()

    def test_removing_twice_is_harmless(self, tmp_path):
        (tmp_path / "a.ckpt").write_bytes(b"x")
        for _ in range(2):
            SafeCheckpointIO().remove_checkpoint(tmp_path / "a.ckpt")
        assert not list(tmp_path.iterdir())


class TestBestAndLast:
    @pytest.fixture
    def train(self, tmp_path, told_task, told_trainer):
        """Run epochs with these scores; each checkpoint holds its epoch's number."""

        def run_epochs(scores, mode="max", cars=(), **settings):
            run, task = RunFolder(tmp_path), told_task(mode, {"best-cars": ("cars", "max")} if cars else ())
            keep = BestAndLast(run)
            for epoch, score in enumerate(scores):
                more = {"val_cars": cars[epoch]} if cars else {}
                trainer = told_trainer(epoch, **{"val_score": score, **more, **settings})
                trainer.save_checkpoint = lambda path, weights_only, e=epoch: SafeCheckpointIO().save_checkpoint(
                    {**CONTENT, "epoch": e + 1}, path
                )
                run.on_train_epoch_end(trainer, task)
                keep.on_train_epoch_end(trainer, task)
            return {p.name: torch.load(p)["epoch"] for p in (tmp_path / FOLDER).glob("*.ckpt")}

        return run_epochs

    @pytest.mark.parametrize("links", [True, False], ids=["hard links", "no hard links"])
    @pytest.mark.parametrize(("mode", "best"), [("max", 2), ("min", 3)], ids=["higher is better", "lower is better"])
    def test_best_is_the_best_epochs_and_last_the_newest(self, train, tmp_path, monkeypatch, links, mode, best):
        if not links:
            monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError(95, "Operation not supported")))
        assert train([0.5, 0.9, 0.1, 0.4], mode) == {"best.ckpt": best, "last.ckpt": 4}
        assert not list(tmp_path.rglob(".*")), "no temporary files are left"

    def test_a_best_newest_epoch_takes_the_room_of_one_file(self, train, tmp_path):
        assert train([0.5, 0.9]) == {"best.ckpt": 2, "last.ckpt": 2}
        best, last = tmp_path / FOLDER / "best.ckpt", tmp_path / FOLDER / "last.ckpt"
        assert best.samefile(last)
        assert best.stat().st_mode & 0o777 == last.stat().st_mode & 0o777

    def test_an_equal_score_does_not_replace_the_best(self, train):
        assert train([0.5, 0.5]) == {"best.ckpt": 1, "last.ckpt": 2}

    def test_each_monitor_keeps_its_best(self, train, tmp_path):
        kept = train([0.5, 0.9, 0.1, 0.4], cars=[0.1, 0.2, 0.7, 0.3])
        assert kept == {"best.ckpt": 2, "best-cars.ckpt": 3, "last.ckpt": 4}
        assert not list(tmp_path.rglob(".*"))

    def test_an_epoch_that_is_best_twice_takes_the_room_of_one_file(self, train, tmp_path):
        assert train([0.5, 0.9], cars=[0.1, 0.2]) == {"best.ckpt": 2, "best-cars.ckpt": 2, "last.ckpt": 2}
        files = [tmp_path / FOLDER / f"{name}.ckpt" for name in ("best", "best-cars", "last")]
        assert len({f.stat().st_ino for f in files}) == 1

    def test_only_the_first_process_links(self, train):
        assert train([0.5, 0.9], rank=1) == {"last.ckpt": 2}

    def test_a_trial_run_saves_nothing(self, tmp_path, told_task, told_trainer):
        trainer = told_trainer(val_score=1.0)
        trainer.fast_dev_run = True
        BestAndLast(RunFolder(tmp_path)).on_train_epoch_end(trainer, told_task("max"))
        assert not list(tmp_path.iterdir())
