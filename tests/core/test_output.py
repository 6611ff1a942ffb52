"""Folders of output and their mark."""

from visionkit.core.output import OUTPUT_MARK, is_output, mark_output


def test_a_new_folder_is_marked_and_stays_so_when_it_fills(tmp_path):
    run = tmp_path / "runs" / "1"
    assert mark_output(run)
    assert (run / OUTPUT_MARK).is_file()
    (run / "config.yaml").write_text("")
    assert mark_output(run)
    assert is_output(run)


def test_a_folder_that_holds_something_else_is_somebodys_data(tmp_path):
    (tmp_path / "cat.jpg").write_bytes(b"x")
    assert not mark_output(tmp_path)
    assert not is_output(tmp_path)
    assert mark_output(tmp_path, own=("cat.jpg",))


def test_a_folder_of_nothing_but_output_is_output(tmp_path):
    runs = tmp_path / "runs"
    mark_output(runs / "classify" / "1")
    mark_output(runs / "2")
    (runs / "claimed").mkdir()
    assert is_output(runs)
    (runs / "cat.jpg").write_bytes(b"x")
    assert not is_output(runs)
    (tmp_path / "empty").mkdir()
    assert not is_output(tmp_path / "empty")
    assert not is_output(tmp_path / "missing")
    mark_output(tmp_path / "mixed" / "1")
    (tmp_path / "mixed" / "2").mkdir()
    (tmp_path / "mixed" / "2" / "dog.jpg").write_bytes(b"x")
    assert not is_output(tmp_path / "mixed")
