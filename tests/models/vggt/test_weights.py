"""Folders of weights: what is read, what is refused and why, and what is written."""

import json
import pickle
import warnings
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from models.vggt.network import VGGT, random_vggt
from utils.errors import UserError

DOWNLOAD = "hf download facebook/VGGT-1B --local-dir ckpts/VGGT-1B"


@pytest.fixture
def folder(tmp_path, tiny_config, tiny_vggt):
    (tmp_path / "config.json").write_text(json.dumps({**asdict(tiny_config), "surplus": 1}))
    save_file(tiny_vggt.state_dict(), tmp_path / "model.safetensors")
    return tmp_path


@pytest.fixture
def pt_folder(folder):
    (folder / "model.safetensors").unlink()
    return folder


def assert_loads(folder, expected, tolerance=0.0):
    loaded = VGGT.from_pretrained(folder)
    assert not loaded.training
    for key, value in loaded.state_dict().items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(
            value, expected.state_dict()[key], rtol=tolerance, atol=tolerance
        )
    with torch.no_grad():
        assert loaded(torch.rand(1, 1, 3, 28, 28)).depth.isfinite().all()


def refusal(folder):
    with pytest.raises(UserError) as caught:
        VGGT.from_pretrained(folder)
    message = str(caught.value)
    assert DOWNLOAD in message
    assert "xpected" in message
    assert "\n" not in message
    return message


def test_loaded_weights_can_be_trained(folder, tiny_vggt):
    assert_loads(folder, tiny_vggt)
    vggt = VGGT.from_pretrained(str(folder)).train()
    vggt(torch.rand(1, 2, 3, 28, 28)).depth.sum().backward()
    assert vggt.depth_head.norm.weight.grad is not None
    assert not vggt.aggregator.patch_embed.mask_token.requires_grad


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_becomes_float32(folder, tiny_vggt, dtype):
    half = {key: value.to(dtype) for key, value in tiny_vggt.state_dict().items()}
    save_file(half, folder / "model.safetensors")
    assert_loads(folder, tiny_vggt, tolerance=1e-2)


@pytest.mark.parametrize("name", ["model.pt", "vggt_1B_commercial.pt"])
def test_falls_back_to_pt(pt_folder, tiny_vggt, name):
    torch.save(tiny_vggt.state_dict(), pt_folder / name)
    assert_loads(pt_folder, tiny_vggt)


def test_prefers_safetensors_and_drops_the_tracker(folder, tiny_vggt):
    state = {**tiny_vggt.state_dict(), "track_head.tracker.weight": torch.zeros(1)}
    save_file(state, folder / "model.safetensors")
    (folder / "model.pt").write_bytes(b"not read")
    assert_loads(folder, tiny_vggt)


def test_missing_folder_config_or_weights(pt_folder, tmp_path):
    assert "absent" in refusal(tmp_path / "absent")
    assert "model.safetensors" in refusal(pt_folder)
    (pt_folder / "config.json").unlink()
    assert "config.json" in refusal(pt_folder)


def test_ambiguous_weights_are_listed(folder):
    (folder / "model.safetensors").rename(folder / "a.safetensors")
    (folder / "b.pt").write_bytes(b"")
    assert "a.safetensors, b.pt" in refusal(folder)


@pytest.mark.parametrize(
    "text", ["{", "[1]", '{"embed_dim": "big"}', '{"embed_dim": 30}', '{"depth": true}', "\xff"]
)
def test_malformed_config(folder, text):
    (folder / "config.json").write_text(text, encoding="latin-1")
    assert "config.json" in refusal(folder)


@pytest.mark.parametrize(
    "sizes",
    [
        {"embed_dim": 10**9, "num_heads": 1},
        {"embed_dim": 8192, "depth": 256, "intermediate_layer_idx": [0, 1, 2, 255]},
        {"img_size": 14 * 10**6},
        {"depth": 10**8, "intermediate_layer_idx": [0, 1, 2, 10**8 - 1]},
        {"out_channels": [4, 4, 4, 4 * 10**9]},
        {"num_register_tokens": 10**10},
    ],
)
def test_absurd_sizes_are_refused_before_anything_is_allocated(folder, sizes):
    (folder / "config.json").write_text(json.dumps(sizes))
    message = refusal(folder)
    assert "config.json" in message and next(iter(sizes)) in message


@pytest.mark.parametrize("kept", [0, 5, 1000, -1, None])
@pytest.mark.parametrize("name", ["model.safetensors", "model.pt"])
def test_truncated_files_and_other_ones(folder, tiny_vggt, name, kept):
    path = folder / name
    if name == "model.pt":
        (folder / "model.safetensors").unlink()
        torch.save(tiny_vggt.state_dict(), path)
    content = b"<html>404</html>" * 100 if kept is None else path.read_bytes()[:kept]
    path.write_bytes(content)
    assert name in refusal(folder)


def test_a_flipped_bit_of_a_pt_file_is_damage(pt_folder, tiny_vggt):
    path, state = pt_folder / "model.pt", tiny_vggt.state_dict()
    torch.save(state, path)
    content = bytearray(path.read_bytes())
    content[content.index(state["aggregator.camera_token"].numpy().tobytes())] ^= 1
    path.write_bytes(content)
    assert "CRC" in refusal(pt_folder)


@pytest.mark.parametrize("declared", [0, 1 << 30, (1 << 63) - 1])
def test_a_header_that_declares_another_length_is_refused(folder, declared):
    path = folder / "model.safetensors"
    path.write_bytes(declared.to_bytes(8, "little") + path.read_bytes()[8:])
    assert "model.safetensors" in refusal(folder)


def test_differing_tensors_are_named(folder, tiny_vggt):
    state = dict(tiny_vggt.state_dict())
    save_file({**state, "depth_head.norm.weight": torch.zeros(7)}, folder / "model.safetensors")
    assert "depth_head.norm.weight (7,) instead of (32,)" in refusal(folder)
    state["stranger"] = state.pop("depth_head.norm.weight")
    save_file(state, folder / "model.safetensors")
    message = refusal(folder)
    assert "1 missing (depth_head.norm.weight)" in message
    assert "1 unexpected (stranger)" in message


class Hostile:
    """Runs code when it is unpickled in the ordinary way."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return Path.touch, (self.target,)


@pytest.mark.parametrize("writer", ["torch", "torch-legacy", "pickle"])
def test_hostile_pickle_does_not_run(pt_folder, tmp_path, writer):
    victim, path = tmp_path / "owned", pt_folder / "model.pt"
    payload = {"aggregator.camera_token": Hostile(victim)}
    if writer == "pickle":
        path.write_bytes(pickle.dumps(payload, protocol=2))
    else:
        torch.save(payload, path, _use_new_zipfile_serialization=writer == "torch")
    assert "model.pt" in refusal(pt_folder)
    assert not victim.exists()
    if writer != "pickle":  # The same file is dangerous to a careless reader.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.load(path, weights_only=False)
        assert victim.exists()


@pytest.mark.parametrize("content", [[torch.zeros(1)], {"model": {"a": torch.zeros(1)}}, 3])
def test_other_content_than_a_state_dict(pt_folder, content):
    torch.save(content, pt_folder / "model.pt")
    assert "model.pt" in refusal(pt_folder)


def test_written_weights_are_read_back(tmp_path, tiny_config):
    network = random_vggt(tiny_config, seed=0)
    path = network.save_pretrained(tmp_path / "mini")
    loaded = VGGT.from_pretrained(tmp_path / "mini")
    assert loaded.config == tiny_config
    assert json.loads((tmp_path / "mini" / "config.json").read_text())["embed_dim"] == 16
    for key, value in network.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[key], value, rtol=1e-3, atol=1e-6)
    size = sum(p.numel() for p in network.parameters())
    assert 2 * size < path.stat().st_size < 2 * size + 100_000
    assert {file.name for file in path.parent.iterdir()} == {"config.json", "model.safetensors"}


def test_weights_that_half_precision_cannot_hold(tmp_path, tiny_vggt):
    nn.init.constant_(tiny_vggt.depth_head.norm.weight, 1e6)
    with pytest.raises(UserError, match=r"depth_head\.norm\.weight"):
        tiny_vggt.save_pretrained(tmp_path)
    assert not list(tmp_path.iterdir())
