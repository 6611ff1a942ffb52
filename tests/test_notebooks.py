"""Every notebook runs, and is committed as it came out of a run."""

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
FOREIGN = re.compile(r"(/home/|/root/|/Users/|/tmp/|/work/|site-packages|[A-Z]:\\\\)")  # paths of somebody's machine
LARGEST = 200_000  # bytes of a file: outputs are small


def code_cells(path):
    return [c for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]


def problems(cells):
    """Return what a reader should not see: errors, and anything on stderr, such as warnings."""
    outputs = [o for c in cells for o in c.outputs]
    return [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"]


def test_there_are_notebooks():
    assert NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebook_is_stored_as_it_came_out_of_a_run(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    assert set(notebook.metadata) <= {"kernelspec", "language_info"}
    cells = code_cells(path)
    assert [c.execution_count for c in cells] == list(range(1, len(cells) + 1)), "run it from top to bottom"
    assert sum(bool(c.outputs) for c in cells) >= len(cells) / 2, "outputs are missing"
    assert not problems(cells)
    text = path.read_text(encoding="utf-8")
    assert not FOREIGN.search(text), FOREIGN.search(text)
    assert len(text) < LARGEST
    assert text.count('"image/') <= 2


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebook_runs(path, tmp_path, monkeypatch):
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))  # nobody's own start-up files
    notebook = nbformat.read(path, as_version=4)
    printed = [bool(c.outputs) for c in notebook.cells if c.cell_type == "code"]
    work = tmp_path / "work"
    work.mkdir()
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(work)}}).execute()
    cells = [c for c in notebook.cells if c.cell_type == "code"]
    assert not problems(cells)
    assert [bool(c.outputs) for c in cells] == printed, "the stored outputs are those of another version"
