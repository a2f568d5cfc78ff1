"""Weights of wrapped, foreign, incomplete and broken files."""

import gzip
import io
import zipfile

import numpy as np
import pytest
import torch
from torch import nn

from models.checkpoints.general import read_checkpoint
from models.checkpoints.scene_file import read_scene_file
from utils.checkpoints import load_safely, save_atomically
from utils.errors import UserError


@pytest.fixture
def content(tiny_checkpoint):
    return load_safely(tiny_checkpoint)


@pytest.fixture
def opened(content, tmp_path):
    """Write changed content and build its model."""

    def build(change=None):
        if change is not None:
            content["state_dict"] = change(content["state_dict"])
        save_atomically(content, tmp_path / "changed.ckpt")
        return read_checkpoint(str(tmp_path / "changed.ckpt")).build_model()

    return build


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda name: name.replace("model.", "model.module.", 1),
        lambda name: name.replace("model.", "model._orig_mod.", 1),
        lambda name: f"module.{name}",
        lambda name: f"_orig_mod.module.{name}".replace("decoder.", "decoder._orig_mod."),
    ],
)
def test_names_that_wrappers_leave(opened, tiny_model, wrapped):
    model = opened(lambda state: {wrapped(name): value for name, value in state.items()})
    torch.testing.assert_close(model.state_dict(), tiny_model.state_dict(), rtol=0, atol=0)


def test_half_precision_becomes_the_precision_of_the_model(opened, tiny_model):
    model = opened(lambda state: {name: value.half() for name, value in state.items()})
    assert {value.dtype for value in model.state_dict().values()} == {torch.float32}
    close = {"rtol": 1e-3, "atol": 1e-3}
    torch.testing.assert_close(model.state_dict(), tiny_model.state_dict(), **close)


def test_half_of_the_weights_is_told_in_one_line(opened):
    with pytest.raises(UserError, match=r"changed\.ckpt: the weights do not fit.* missing") as told:
        opened(
            lambda state: {
                "model.volume.points.inward.weight": torch.zeros(3),
                "x": next(iter(state.values())),
            }
        )
    assert "1 unexpected (x)" in str(told.value) and "1 of another shape" in str(told.value)
    assert len(str(told.value)) < 500


def test_weights_that_are_not_finite(opened):
    def spoil(state):
        next(iter(state.values())).view(-1)[0] = torch.nan
        return state

    with pytest.raises(UserError, match="1 of .* tensors hold values that are not finite"):
        opened(spoil)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ({"a.weight": torch.zeros(3), "b": torch.zeros(1)}, "a bare state dict of 2 tensors"),
        ({"network_fn_state_dict": {}, "network_mvs_state_dict": {}}, "a checkpoint of MVSNeRF"),
        ({"state_dict": {"a": torch.zeros(1)}, "epoch": 3}, "a checkpoint of another program"),
        ({"vggt_nerf_scene": {}, "state": {}}, r"a fine-tuned scene; its name must end in \.tar"),
        ({"pipeline": {}, "step": 3}, "a file of pipeline, step"),
        ({}, "a file of nothing"),
    ],
)
def test_files_of_others_are_named(tmp_path, content, what):
    save_atomically(content, tmp_path / "other.ckpt")
    with pytest.raises(UserError, match=f"not a checkpoint of general training, but {what}"):
        read_checkpoint(str(tmp_path / "other.ckpt"))


def zipped(name):
    with zipfile.ZipFile(file := io.BytesIO(), "w") as archive:
        archive.writestr(name, b"weights")
    return file.getvalue()


def test_a_general_checkpoint_is_no_scene(tiny_checkpoint):
    with pytest.raises(UserError, match="not a fine-tuned scene, but a checkpoint of general"):
        read_scene_file(tiny_checkpoint)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({"step": np.float64(3), "pipeline": {}}, r"it holds numpy\.[\w.]*scalar"),
        (nn.Linear(2, 2), r"it holds torch\.nn\.modules\.linear\.Linear"),
        (b"version https://git-lfs.github.com/spec/v1\n", "fetch it with git lfs pull"),
        (b"<!DOCTYPE html>", "is a web page"),
        (gzip.compress(b"weights", mtime=0), r"is packed \(gzip\); unpack it"),
        (zipped("model.ckpt"), "holds model.ckpt; unpack it, python -m zipfile -e .*other.ckpt"),
        (b"nothing", "it is damaged or of another kind"),
    ],
)
def test_what_stands_in_place_of_a_checkpoint(tmp_path, content, told):
    path = tmp_path / "other.ckpt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(UserError, match=told) as refusal:
        read_checkpoint(str(path))
    assert "weights_only" not in str(refusal.value)


@pytest.mark.parametrize(
    ("group", "name", "size"),
    [
        ("pyramid", "pyramid_width", 16 * 10**6),
        ("radiance_field", "field_width", 10**9),
        ("decoder", "decoder_widths", [4 * 10**5] * 2),
    ],
)
def test_sizes_without_their_weights_take_no_memory(tiny_checkpoint, tmp_path, group, name, size):
    content = load_safely(tiny_checkpoint)
    content["vggt_nerf"]["settings"]["model"][group][name] = size
    save_atomically(content, tmp_path / "x.ckpt")
    with pytest.raises(UserError, match=r"x\.ckpt: .* (do not fit|not describe a model|must lie)"):
        read_checkpoint(str(tmp_path / "x.ckpt")).build_model()
