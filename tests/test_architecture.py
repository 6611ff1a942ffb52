"""Who may import whom; what `import visionkit` may cost; that the public API is true."""

import ast
import graphlib
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import visionkit

PACKAGE = Path(visionkit.__file__).parent
ORDER = (
    *("core", "security", "data", "models"),
    *("training", "prediction", "tasks", "evaluation", "serving", "cli"),
)
"""Folders of the package: each imports from those before it alone; training and prediction are at one height."""
MODULES = {
    ".".join(("visionkit", *p.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__"): p
    for p in sorted(PACKAGE.rglob("*.py"))
}


def imports(path: Path) -> set[str]:
    """All modules that a file imports: inside functions and for type checkers, too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {
                f"{node.module}.{a.name}" if f"{node.module}.{a.name}" in MODULES else node.module for a in node.names
            }
    return found


def folder(module: str) -> str:
    return module.split(".")[1] if module.count(".") else "visionkit"


@pytest.mark.parametrize("name", [m for m in MODULES if folder(m) in ORDER])
def test_the_rule(name):
    """Folders import in one direction, no task imports another, Lightning and jsonargparse have two homes."""
    own = folder(name)
    for module in imports(MODULES[name]):
        package, place = module.partition(".")[0], folder(module)
        assert own in ("training", "cli") or package not in ("lightning", "pytorch_lightning", "jsonargparse"), module
        if package == "visionkit" and place in ORDER:
            assert ORDER.index(place) <= ORDER.index(own), module
            assert {own, place} != {"training", "prediction"}, module
            if own == place == "tasks":
                assert len({*module.split(".")[2:3], *name.split(".")[2:3]}) < 2, module


def test_every_module_is_in_a_folder_that_the_rule_knows():
    assert {folder(m) for m in MODULES} <= {*ORDER, "visionkit", "__main__"}


def test_no_circle_of_modules():
    graph = {
        name: {m for m in imports(path) if m in MODULES and m not in ("visionkit", name)}
        for name, path in MODULES.items()
    }
    graphlib.TopologicalSorter(graph).prepare()


def test_steps_stand_in_task_alone():
    for name, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and node.name in ("training_step", "validation_step", "test_step"):
                assert name == "visionkit.training.task"


OPENERS = {
    *("open", "read_bytes", "read_text", "imread", "memmap", "fromfile", "loadtxt", "genfromtxt", "safe_open"),
    *("ZipFile", "TarFile", "mmap", "np.load", "torch.load", "pickle.load", "FileIO"),
}
MAY_OPEN = {
    "visionkit.core.files": {"os.open", "path.open"},  # the door, and the lock
    "visionkit.core.web": {"opener.open"},  # a URL that the user names
    "visionkit.data.caching.store": {"os.open", "mmap.mmap"},  # its own files, shared with other processes
    "visionkit.data.images.formats": {"Image.open"},  # of a file that is open
    "visionkit.data.labels.coco_files": {"mmap.mmap"},  # of a file that is open
    "visionkit.evaluation.archive": {"zipfile.ZipFile"},  # of a file that is open
    "visionkit.models.torch_file": {"torch.load", "zipfile.ZipFile"},  # of a file that is open
    "visionkit.models.weights.hub": {"build_opener(_Redirect).open"},  # an address of the hub
    "visionkit.prediction.resuming": {"records.open"},  # to cut off half a line of its own file
    "visionkit.prediction.run_output": {"self.records.open"},  # to write behind the records that are there
    "visionkit.prediction.writers": {"self._path.open"},  # the table that it is writing
    "visionkit.training.features.store": {"np.memmap"},  # its own file
    "visionkit.training.run.claim": {"path.open"},  # its own lock
}
"""Beside core/files, and what opens a file to write it, these may open files, for the reasons named."""


def openings(path: Path) -> set[str]:
    """Calls that open a file to read it, or may."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        position = 1 if isinstance(node.func, ast.Name) else 0  # open(path, mode), path.open(mode)
        mode = ast.unparse(node.args[position]).strip("'") if len(node.args) > position else "r"
        writes = called.rpartition(".")[2] == "open" and mode in ("w", "wb", "a", "ab", "x", "xb")
        door = called in ("read_bytes", "read_text")  # those of core/files, by their own names
        if not writes and not door and {called, called.rpartition(".")[2]} & OPENERS:
            found.add(called)
    return found


@pytest.mark.parametrize("name", MODULES)
def test_files_are_read_through_one_door(name):
    assert openings(MODULES[name]) <= MAY_OPEN.get(name, set())


def test_the_door_is_found_where_it_is_passed_by(tmp_path):
    lines = "open(p)\nPath(p).open()\np.open('rb')\np.read_text()\nImage.open(p)\nnp.load(p)\nwith open(p, 'w'): pass\n"
    (tmp_path / "a.py").write_text(lines + "p.open('w')\nread_text(p)\nself.load()\n")
    assert openings(tmp_path / "a.py") == {
        *("open", "Path(p).open", "p.open", "p.read_text", "Image.open", "np.load"),
    }


def test_import_and_help_are_light():
    code = (
        "import sys, visionkit; from visionkit.cli.main import run; run(['--help']);\n"
        "try: run(['predict', '--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'lightning', 'timm', 'numpy', 'cv2', 'albumentations', 'jsonargparse'} & set(sys.modules)\n"
        "print('heavy:', sorted(heavy))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.rstrip().endswith("heavy: []")


def test_public_api_is_what_it_says():
    for name, module in visionkit.PUBLIC.items():
        value = getattr(visionkit, name)
        assert value.__module__ == module or not hasattr(value, "__module__")
        assert name in importlib.import_module(module).__all__
    assert set(visionkit.PUBLIC) < set(dir(visionkit))
    with pytest.raises(AttributeError, match="no attribute 'ResNat'"):
        visionkit.ResNat  # noqa: B018


def test_type_stub_names_the_same_api():
    stub = ast.parse((PACKAGE / "__init__.pyi").read_text())
    named = {
        alias.asname: node.module for node in stub.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert named == visionkit.PUBLIC
