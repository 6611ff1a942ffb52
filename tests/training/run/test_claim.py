import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from visionkit import DataError, UsageError
from visionkit.core.output import OUTPUT_MARK
from visionkit.training.run.claim import LOCK, Claim, numbers

HOLD = """
import sys, time
from pathlib import Path
from visionkit.training.run.claim import Claim
with Claim() as claim:
    claim.take(Path(sys.argv[1]))
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds ``tmp_path/run``."""
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(HOLD), str(tmp_path / "run")], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_a_folder_belongs_to_one_run(holder, tmp_path):
    with Claim() as claim:
        with pytest.raises(UsageError, match=f"run is in use by another run .process {holder.pid} on "):
            claim.take(tmp_path / "run")
        holder.kill()
        holder.wait()
        claim.take(tmp_path / "run")  # a process that was killed holds nothing
        assert (tmp_path / "run" / LOCK).read_text().startswith(f"process {os.getpid()} on ")


def test_what_was_made_in_vain_is_removed(tmp_path):
    with Claim() as claim:
        claim.take(tmp_path / "a" / "b")
        claim.take(tmp_path / "c")
        (tmp_path / "c" / "kept").touch()
    assert [p.name for p in tmp_path.iterdir()] == ["c"]
    assert {p.name for p in (tmp_path / "c").iterdir()} == {"kept", OUTPUT_MARK}


def test_making_a_numbered_folder_is_the_claim(tmp_path, monkeypatch):
    for name in ("classify-2", "classify-old", "classify-10", "detect-30", "classify-1-2"):
        (tmp_path / name).mkdir()
    assert numbers(tmp_path, "classify") == [2, 10]
    (tmp_path / "classify-11").mkdir()
    monkeypatch.setattr("visionkit.training.run.claim.numbers", lambda *_: [10])  # the other run was faster
    with Claim() as claim:
        assert claim.take_numbered(tmp_path, "classify") == tmp_path / "classify-12"
        assert (tmp_path / "classify-12" / LOCK).is_file()


def test_left_over_files_are_removed_and_others_stay(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    for name in ("checkpoints/.last.abcd1234.ckpt", ".metrics.abcd_234.json", ".confusion_matrix.abcdefgh.png"):
        (tmp_path / name).touch()
    kept = {"checkpoints/last.ckpt", ".hidden", "metrics.json", ".notes.abcdefgh.txt"}
    for name in kept:
        (tmp_path / name).touch()
    with Claim() as claim:
        claim.take(tmp_path)
    assert {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()} == kept | {OUTPUT_MARK}


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no /proc")
def test_impossible_folders_are_named(tmp_path):
    (tmp_path / "file").touch()
    with Claim() as claim:
        for folder, words in (("/proc/run", "cannot be written"), (tmp_path / "file" / "run", "a file has the name")):
            with pytest.raises(DataError, match=words):
                claim.take(Path(folder))
