"""A digest of the model in a checkpoint file: the same as long as the model is, another one as soon as it is not."""

import pytest
import torch

import visionkit
from visionkit import DataError
from visionkit.core.thresholds import Thresholds
from visionkit.models.checkpoint import KEY
from visionkit.models.content_digest import digest_of
from visionkit.models.model_digest import digests_of, holds_model, model_digest
from visionkit.models.store_thresholds import store_thresholds


@pytest.fixture
def ckpt(tiny_model, tmp_path):
    visionkit.save(tiny_model, tmp_path / "m.ckpt", task="visionkit.Classifier")
    return tmp_path / "m.ckpt"


def test_thresholds_and_what_a_training_keeps_do_not_change_it(ckpt):
    digest, file = digests_of(ckpt)
    assert digest != file
    assert holds_model(ckpt, digest)
    assert holds_model(ckpt, file), "as files were named before"
    store_thresholds(ckpt, Thresholds("f1", {"blue": 0.5}))
    assert digests_of(ckpt)[1] != file
    assert model_digest(ckpt) == digest
    assert holds_model(ckpt, digest)
    assert not holds_model(ckpt, file)
    content = torch.load(ckpt, weights_only=True)
    torch.save({**content, "optimizer_states": [{"lr": 1.0}], "epoch": 3}, ckpt)
    assert model_digest(ckpt) == digest


@pytest.mark.parametrize("what", ["weight", "name", "dtype", "shape", "class", "statistics", "extra"])
def test_another_model_has_another_one(ckpt, what):
    content = torch.load(ckpt, weights_only=True)
    before, state, said = digest_of(content, ckpt), content["state_dict"], content[KEY]
    name = next(k for k in state if state[k].ndim == 4)
    if what == "weight":
        state[name].view(-1)[-1] += 1e-3
    elif what == "name":
        state[f"{name}_"] = state.pop(name)
    elif what == "dtype":
        state[name] = state[name].view(torch.int32)
    elif what == "shape":
        state[name] = state[name].reshape(-1)
    elif what == "class":
        said["model"]["classes"][0] = "azure"
    elif what == "statistics":
        said["passport"] = {"mean": [0.1, 0.2, 0.3]}
    else:
        state["model.head._extra_state"] = {"t": 2}
    assert digest_of(content, ckpt) != before


def test_tensors_of_any_layout_and_kind(ckpt):
    content = torch.load(ckpt, weights_only=True)
    state = content["state_dict"]
    before = digest_of(content, ckpt)
    for name, value in state.items():
        if value.ndim == 4:
            state[name] = value.contiguous(memory_format=torch.channels_last)
    assert digest_of(dict(reversed(content.items())), ckpt) == before, "neither order nor layout is the model"
    state |= {"a": torch.zeros(0), "b": torch.tensor(True), "c": torch.ones(2, dtype=torch.bfloat16)}
    assert digest_of(content, ckpt) != before
    state["d"] = torch.eye(2).to_sparse()
    with pytest.raises(DataError, match=r"m\.ckpt: its state_dict holds a tensor of an unknown kind under 'd'"):
        digest_of(content, ckpt)
