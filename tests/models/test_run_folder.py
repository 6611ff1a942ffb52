import pytest

import visionkit
from visionkit import DataError
from visionkit.models.run_folder import find_checkpoint


@pytest.fixture
def run(tiny_model, tmp_path):
    """A run folder with both checkpoints."""
    folder = tmp_path / "classify-1"
    for name in ("best", "last"):
        visionkit.save(tiny_model, folder / "checkpoints" / f"{name}.ckpt")
    return folder


def test_a_file_is_meant_itself_there_or_not(run, tmp_path):
    for path in (run / "checkpoints" / "last.ckpt", tmp_path / "missing.ckpt"):
        assert find_checkpoint(path) == path
        assert find_checkpoint(str(path)) == path


def test_a_run_folder_means_its_best_checkpoint(run, capsys):
    best = run / "checkpoints" / "best.ckpt"
    assert find_checkpoint(run) == find_checkpoint(run / "checkpoints") == best
    assert capsys.readouterr() == ("", "")


def test_a_run_without_a_best_one_means_its_last_and_says_so(run, capsys):
    (run / "checkpoints" / "best.ckpt").unlink()
    assert find_checkpoint(run) == run / "checkpoints" / "last.ckpt"
    assert capsys.readouterr().err == f"{run}: the run has no best.ckpt yet: last.ckpt is taken\n"


def test_another_folder_is_one_line(tmp_path):
    with pytest.raises(DataError, match="is a folder, and no run folder with checkpoints/best.ckpt in it") as raised:
        find_checkpoint(tmp_path)
    assert "\n" not in str(raised.value)


def test_it_is_taken_wherever_a_checkpoint_is(run, tiny_model, tmp_path):
    for loaded in (visionkit.load(run), visionkit.load(str(run))):
        assert loaded.classes == tiny_model.classes
    file = visionkit.read_weights(run)
    assert file.path == run / "checkpoints" / "best.ckpt"
    assert visionkit.export_backbone(run, tmp_path / "b.safetensors").coverage == 1
    for call in (visionkit.load, visionkit.read_weights):
        with pytest.raises(DataError, match="no run folder"):
            call(tmp_path)
