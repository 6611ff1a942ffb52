"""Who may import whom; what `import visionkit` may cost; that the public API is true."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import visionkit

PACKAGE = Path(visionkit.__file__).parent
ROOMS = ("classification", "detection", "segmentation", "multitask", "video")
PLAIN = (  # torch, timm, torchvision: no Lightning
    "errors", "component", "sample", "coco_files", "coco_json", "masks", "reading", "dataset", "classes", "split", "shapes", "weights", "weights_file", "weights_match", "weights_export", "weights_inspect", "head", "model", "checkpoint", "inference", "results", "views",
    "feature_store", "features", "loading", "samplers", "picture_cache", "picture_store", "plots", "recipe", "records", "backbones", "necks", "transforms", "losses", "ops", "backends",
)  # fmt: skip
LIGHTNING = ("metric", "task", "datamodule", "callbacks")
LAYERS = [*PLAIN, *LIGHTNING, *ROOMS, "commands", "cli", "__main__", "__init__"]


def modules() -> list[tuple[str, Path]]:
    return [(".".join(p.relative_to(PACKAGE).with_suffix("").parts), p) for p in sorted(PACKAGE.rglob("*.py"))]


def imports(path: Path, *, top_level: bool = False) -> set[str]:
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level else list(ast.walk(tree))
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def part(module: str) -> str:
    return module.removeprefix("visionkit.").partition(".")[0]


@pytest.mark.parametrize(("name", "path"), modules())
def test_every_module_has_a_place(name, path):
    assert name.partition(".")[0] in LAYERS


@pytest.mark.parametrize(("name", "path"), [m for m in modules() if m[0].partition(".")[0] in PLAIN])
def test_plain_parts_import_neither_lightning_nor_what_is_above(name, path):
    for module in imports(path):
        assert module.partition(".")[0] not in ("lightning", "pytorch_lightning", "jsonargparse"), module
        if module.startswith("visionkit."):
            assert part(module) not in (*LIGHTNING, *ROOMS, "commands", "cli"), module


@pytest.mark.parametrize(("name", "path"), [m for m in modules() if m[0].partition(".")[0] in LIGHTNING])
def test_framework_never_imports_a_room(name, path):
    for module in imports(path):
        if module.startswith("visionkit."):
            assert part(module) not in (*ROOMS, "commands", "cli"), module


@pytest.mark.parametrize(("name", "path"), [m for m in modules() if m[0].partition(".")[0] in ROOMS])
def test_rooms_never_import_each_other_or_commands(name, path):
    own = name.partition(".")[0]
    for module in imports(path):
        if module.startswith("visionkit."):
            assert part(module) not in {*ROOMS, "commands", "cli"} - {own}, module


def test_steps_stand_in_task_alone():
    for name, path in modules():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and node.name in ("training_step", "validation_step", "test_step"):
                assert name == "task"


def test_import_and_help_are_light():
    code = (
        "import sys, visionkit; from visionkit.cli import run; run(['--help']);\n"
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
