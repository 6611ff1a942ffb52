import dataclasses
import os
import pickle
import zipfile

import pytest
import torch
from safetensors.torch import save_file

import visionkit
from visionkit import DataError, UsageError
from visionkit.models import checkpoint
from visionkit.models.checkpoint import KEY
from visionkit.tasks.multitask.take_join import join_heads, take_head


def images():
    return torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_saved_model_comes_back_equal(tiny_model, tmp_path):
    visionkit.save(tiny_model, tmp_path / "m.ckpt")
    again = visionkit.load(tmp_path / "m.ckpt")
    assert again.classes == tiny_model.classes
    assert again.preprocessing.size == tiny_model.preprocessing.size
    assert not again.training
    assert torch.equal(again(images()).logits, tiny_model(images()).logits)


def test_file_holds_plain_data_only(tiny_model, tmp_path):
    visionkit.save(tiny_model, tmp_path / "m.ckpt")
    content = torch.load(tmp_path / "m.ckpt", weights_only=True)
    assert content[KEY]["model"]["backbone"]["class_path"] == "visionkit.ResNet"


def test_weights_file_is_not_needed_again(tiny_model, tmp_path):
    torch.save(tiny_model.backbone.state_dict(), tmp_path / "w.pth")
    backbone = visionkit.ResNet(layers=(1, 1, 1, 1), block="basic", stem="small", weights=str(tmp_path / "w.pth"))
    model = visionkit.VisionModel(backbone, visionkit.LinearHead, ["a", "b"])
    visionkit.save(model, tmp_path / "m.ckpt")
    (tmp_path / "w.pth").unlink()
    loaded = visionkit.load(tmp_path / "m.ckpt").backbone.weights_report
    assert loaded.source == "w.pth"
    assert dataclasses.replace(loaded, source=str(tmp_path / "w.pth")) == backbone.weights_report


def test_missing_file():
    with pytest.raises(DataError, match="nowhere.ckpt: no such file"):
        visionkit.load("nowhere.ckpt")


@pytest.mark.parametrize("content", [b"", b"not a checkpoint at all", b"PK\x03\x04broken"])
def test_files_of_another_kind(tmp_path, content):
    (tmp_path / "x.ckpt").write_bytes(content)
    with pytest.raises(DataError, match=r"x\.ckpt: "):
        visionkit.load(tmp_path / "x.ckpt")


def test_truncated_file(tiny_model, tmp_path):
    visionkit.save(tiny_model, tmp_path / "m.ckpt")
    data = (tmp_path / "m.ckpt").read_bytes()
    (tmp_path / "cut.ckpt").write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match=r"cut\.ckpt: damaged or no PyTorch file: .*: download or copy it again"):
        visionkit.load(tmp_path / "cut.ckpt")


def test_one_changed_byte_is_noticed(tiny_model, tmp_path):
    visionkit.save(tiny_model, tmp_path / "m.ckpt")
    data = bytearray((tmp_path / "m.ckpt").read_bytes())
    data[len(data) // 2] ^= 0xFF
    (tmp_path / "bad.ckpt").write_bytes(data)
    with pytest.raises(DataError, match="damaged or tampered"):
        visionkit.load(tmp_path / "bad.ckpt")


def test_weights_of_another_program_are_explained(tmp_path):
    torch.save({"conv1.weight": torch.zeros(1)}, tmp_path / "w.pth")
    with pytest.raises(DataError, match=r"not a visionkit checkpoint.*--model.backbone.weights"):
        visionkit.load(tmp_path / "w.pth")


class Payload:
    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize("legacy", [False, True])
def test_code_is_refused_and_does_not_run(tmp_path, legacy):
    payload = {"state_dict": {}, KEY: {"format": 1, "x": Payload(f"touch {tmp_path}/ran")}}
    path = tmp_path / "evil.ckpt"
    if legacy:
        path.write_bytes(pickle.dumps(payload))
    else:
        torch.save(payload, path)
    with pytest.raises(DataError, match=r"evil\.ckpt: refused, it holds (the Python object posix\.system|code)"):
        visionkit.load(path)
    assert not (tmp_path / "ran").exists()


def test_class_paths_outside_visionkit_need_trust(tiny_model, tmp_path):
    content = {"state_dict": {}, KEY: checkpoint.spec_of_model(tiny_model)}
    content[KEY]["model"]["head"] = {"class_path": "antigravity.Head", "init_args": {}}
    checkpoint.write(content, tmp_path / "m.ckpt")
    with pytest.raises(UsageError, match=r"antigravity.Head, outside visionkit.*trust"):
        visionkit.load(tmp_path / "m.ckpt")
    with pytest.raises(UsageError, match=r"m\.ckpt: .*antigravity.Head, which cannot be imported"):
        visionkit.load(tmp_path / "m.ckpt", trust=["antigravity"])


def test_names_inside_visionkit_that_are_no_components_are_refused(tiny_model, tmp_path):
    content = {"state_dict": {}, KEY: checkpoint.spec_of_model(tiny_model)}
    content[KEY]["model"]["head"] = {"class_path": "visionkit.load_weights", "init_args": {}}
    checkpoint.write(content, tmp_path / "m.ckpt")
    with pytest.raises(DataError, match=r"m\.ckpt: .*no component"):
        visionkit.load(tmp_path / "m.ckpt")


def test_own_head_loads_with_trust(tmp_path, monkeypatch):
    (tmp_path / "my_own_heads.py").write_text(
        "from visionkit import LinearHead\nclass MyHead(LinearHead):\n    '''Mine.'''\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    from my_own_heads import MyHead

    visionkit.save(visionkit.VisionModel(visionkit.ResNet(18), MyHead, ["a", "b"]), tmp_path / "m.ckpt")
    with pytest.raises(UsageError, match="trust"):
        visionkit.load(tmp_path / "m.ckpt")
    assert type(visionkit.load(tmp_path / "m.ckpt", trust=["my_own_heads"]).head) is MyHead


def test_other_format_version(tiny_model, tmp_path):
    content = {"state_dict": {}, KEY: {**checkpoint.spec_of_model(tiny_model), "format": 99}}
    checkpoint.write(content, tmp_path / "m.ckpt")
    with pytest.raises(DataError, match="upgrade visionkit"):
        visionkit.load(tmp_path / "m.ckpt")


def test_weights_that_do_not_fit(tiny_model, tmp_path):
    content = {"state_dict": {"model.x": torch.zeros(1)}, KEY: checkpoint.spec_of_model(tiny_model)}
    checkpoint.write(content, tmp_path / "m.ckpt")
    with pytest.raises(DataError, match="do not fit the model it describes"):
        visionkit.load(tmp_path / "m.ckpt")


def test_failed_write_leaves_the_old_file(tiny_model, tmp_path):
    visionkit.save(tiny_model, tmp_path / "m.ckpt")
    before = (tmp_path / "m.ckpt").read_bytes()
    with pytest.raises(Exception, match="pickle"):
        checkpoint.write({"x": lambda: None}, tmp_path / "m.ckpt")
    assert (tmp_path / "m.ckpt").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["m.ckpt"]


def test_file_is_a_zip_that_others_can_read(tiny_model, tmp_path):
    visionkit.save(tiny_model, tmp_path / "m.ckpt")
    assert zipfile.is_zipfile(tmp_path / "m.ckpt")
    assert (tmp_path / "m.ckpt").stat().st_mode & 0o044


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite_are_refused(tiny_model, tmp_path, value):
    with torch.no_grad():
        tiny_model.backbone.layer2[0].conv1.weight[3, 2, 1, 0] = value
    visionkit.save(tiny_model, tmp_path / "m.ckpt")
    with pytest.raises(
        DataError, match=r"m\.ckpt: model\.backbone\.layer2\.0\.conv1\.weight holds values that are not"
    ):
        visionkit.load(tmp_path / "m.ckpt")
    arguments = {"layers": (1, 1, 1, 1), "block": "basic", "stem": "small"}
    for name in ("m.ckpt", "w.pth", "w.safetensors"):
        if name == "w.pth":
            torch.save(tiny_model.backbone.state_dict(), tmp_path / name)
        if name == "w.safetensors":
            save_file(tiny_model.backbone.state_dict(), tmp_path / name)
        with pytest.raises(DataError, match=rf"{name}: .*layer2\.0\.conv1\.weight holds values that are not finite"):
            visionkit.ResNet(weights=str(tmp_path / name), **arguments)


@pytest.mark.parametrize("kind", [torch.int8, torch.uint8, torch.bool, torch.complex64])
def test_weights_that_are_no_fractions_are_refused(tiny_model, tmp_path, kind):
    """Of a network in 8 bits: taken as they are they would be weights of -128 to 127."""
    whole = {k: (t * 100).to(kind) if t.ndim == 4 else t for k, t in tiny_model.backbone.state_dict().items()}
    torch.save(whole, tmp_path / "w.pth")
    save_file(whole, tmp_path / "w.safetensors")
    for name in ("w.pth", "w.safetensors"):
        with pytest.raises(
            DataError, match=rf"{name}: \S+weight \({str(kind)[6:]}\) holds numbers that are no weights"
        ):
            visionkit.ResNet(weights=str(tmp_path / name), layers=(1, 1, 1, 1), block="basic", stem="small")
    visionkit.save(tiny_model, tmp_path / "m.ckpt")
    content = torch.load(tmp_path / "m.ckpt", weights_only=True)
    content["state_dict"] |= {f"model.backbone.{k}": t for k, t in whole.items()}
    torch.save(content, tmp_path / "m.ckpt")
    with pytest.raises(DataError, match=r"m\.ckpt: model\.backbone\.\S+ holds numbers that are no weights"):
        visionkit.load(tmp_path / "m.ckpt")


def test_a_task_is_saved_as_its_model(tmp_path):
    task = visionkit.Classifier(visionkit.ResNet(18), classes=["a", "b"])
    visionkit.save(task, tmp_path / "m.ckpt")
    assert visionkit.load(tmp_path / "m.ckpt").classes == ("a", "b")
    assert checkpoint.read(tmp_path / "m.ckpt")[checkpoint.KEY]["task"].endswith(".Classifier")
    for other in (task.model.backbone, {"state_dict": {}}, None):
        with pytest.raises(visionkit.UsageError, match="takes a VisionModel or the Task that trains one, not a"):
            visionkit.save(other, tmp_path / "n.ckpt")
    assert not (tmp_path / "n.ckpt").exists()


def test_what_taught_a_model_stays_with_it(tiny_model, tmp_path):
    taught = [{"source": f"{k}.ckpt", "sha256": str(k) * 64} for k in (1, 2)]
    tiny_model.teachers = tuple(taught)
    visionkit.save(tiny_model, tmp_path / "a.ckpt")
    visionkit.save(visionkit.load(tmp_path / "a.ckpt"), tmp_path / "b.ckpt")
    assert checkpoint.read(tmp_path / "b.ckpt")[checkpoint.KEY]["teachers"] == taught
    other = visionkit.load(tmp_path / "a.ckpt")
    other.teachers = (taught[1], {"source": "3.ckpt", "sha256": "3" * 64})
    joint = join_heads({"one": tiny_model, "two": other})
    assert [one["source"] for one in joint.teachers] == ["1.ckpt", "2.ckpt", "3.ckpt"]
    assert take_head(joint, "one").teachers == joint.teachers
    checkpoint.adopt(other, {}, "of before")
    assert other.teachers == ()
    assert "teachers" not in checkpoint.spec_of_model(other)
