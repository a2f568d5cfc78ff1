import json
import pickle
import warnings
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from models.vggt import VGGT
from models.vggt.config import VGGTConfig
from utils.errors import UserError

DOWNLOAD = "hf download facebook/VGGT-1B --local-dir ckpts/VGGT-1B"


@pytest.fixture
def folder(tmp_path: Path, tiny_config: VGGTConfig, tiny_vggt: VGGT) -> Path:
    (tmp_path / "config.json").write_text(json.dumps({**asdict(tiny_config), "surplus": 1}))
    save_file(tiny_vggt.state_dict(), tmp_path / "model.safetensors")
    return tmp_path


def assert_loads(folder: Path, expected: VGGT, tolerance: float = 0.0) -> None:
    loaded = VGGT.from_pretrained(folder)
    assert not loaded.training
    for key, value in loaded.state_dict().items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(
            value, expected.state_dict()[key], rtol=tolerance, atol=tolerance
        )
    with torch.no_grad():
        assert loaded(torch.rand(1, 1, 3, 28, 28)).depth.isfinite().all()


def refusal(folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        VGGT.from_pretrained(folder)
    message = str(caught.value)
    assert DOWNLOAD in message
    assert "xpected" in message
    assert "\n" not in message
    return message


def test_loads_what_was_saved(folder: Path, tiny_vggt: VGGT):
    assert_loads(folder, tiny_vggt)


def test_loaded_weights_can_be_trained(folder: Path):
    vggt = VGGT.from_pretrained(str(folder)).train()
    vggt(torch.rand(1, 2, 3, 28, 28)).depth.sum().backward()
    assert vggt.depth_head.norm.weight.grad is not None
    assert not vggt.aggregator.patch_embed.mask_token.requires_grad


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_becomes_float32(folder: Path, tiny_vggt: VGGT, dtype: torch.dtype):
    half = {key: value.to(dtype) for key, value in tiny_vggt.state_dict().items()}
    save_file(half, folder / "model.safetensors")
    assert_loads(folder, tiny_vggt, tolerance=1e-2)


@pytest.mark.parametrize("name", ["model.pt", "vggt_1B_commercial.pt"])
def test_falls_back_to_pt(folder: Path, tiny_vggt: VGGT, name: str):
    (folder / "model.safetensors").unlink()
    torch.save(tiny_vggt.state_dict(), folder / name)
    assert_loads(folder, tiny_vggt)


def test_prefers_safetensors_and_drops_the_tracker(folder: Path, tiny_vggt: VGGT):
    state = {**tiny_vggt.state_dict(), "track_head.tracker.weight": torch.zeros(1)}
    save_file(state, folder / "model.safetensors")
    (folder / "model.pt").write_bytes(b"not read")
    assert_loads(folder, tiny_vggt)


def test_missing_folder_config_or_weights(folder: Path, tmp_path: Path):
    assert "absent" in refusal(tmp_path / "absent")
    (folder / "model.safetensors").unlink()
    assert "model.safetensors" in refusal(folder)
    (folder / "config.json").unlink()
    assert "config.json" in refusal(folder)


def test_ambiguous_weights_are_listed(folder: Path):
    (folder / "model.safetensors").rename(folder / "a.safetensors")
    (folder / "b.pt").write_bytes(b"")
    assert "a.safetensors, b.pt" in refusal(folder)


@pytest.mark.parametrize(
    "text", ["{", "[1]", '{"embed_dim": "big"}', '{"embed_dim": 30}', '{"depth": true}', "\xff"]
)
def test_malformed_config(folder: Path, text: str):
    (folder / "config.json").write_text(text, encoding="latin-1")
    assert "config.json" in refusal(folder)


@pytest.mark.parametrize("kept", [0, 5, 1000, -1])
def test_truncated_safetensors(folder: Path, kept: int):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    assert "model.safetensors" in refusal(folder)


@pytest.mark.parametrize("kept", [0, 5, 1000, -1])
def test_truncated_pt(folder: Path, tiny_vggt: VGGT, kept: int):
    (folder / "model.safetensors").unlink()
    path = folder / "model.pt"
    torch.save(tiny_vggt.state_dict(), path)
    path.write_bytes(path.read_bytes()[:kept])
    assert "model.pt" in refusal(folder)


def test_not_safetensors_at_all(folder: Path):
    (folder / "model.safetensors").write_text("<html>404</html>" * 100)
    assert "model.safetensors" in refusal(folder)


def test_missing_and_unexpected_tensors_are_named(folder: Path, tiny_vggt: VGGT):
    state = dict(tiny_vggt.state_dict())
    state["stranger"] = state.pop("depth_head.norm.weight")
    save_file(state, folder / "model.safetensors")
    message = refusal(folder)
    assert "1 missing (depth_head.norm.weight)" in message
    assert "1 unexpected (stranger)" in message


def test_wrong_shape_is_named(folder: Path, tiny_vggt: VGGT):
    state = {**tiny_vggt.state_dict(), "depth_head.norm.weight": torch.zeros(7)}
    save_file(state, folder / "model.safetensors")
    assert "depth_head.norm.weight (7,) instead of (32,)" in refusal(folder)


class Hostile:
    """Runs code when it is unpickled in the ordinary way."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return Path.touch, (self.target,)


@pytest.mark.parametrize("writer", ["torch", "torch-legacy", "pickle"])
def test_hostile_pickle_does_not_run(folder: Path, tmp_path: Path, writer: str):
    (folder / "model.safetensors").unlink()
    victim = tmp_path / "owned"
    payload = {"aggregator.camera_token": Hostile(victim)}
    if writer == "pickle":
        (folder / "model.pt").write_bytes(pickle.dumps(payload, protocol=2))
    else:
        zipped = writer == "torch"
        torch.save(payload, folder / "model.pt", _use_new_zipfile_serialization=zipped)
    message = refusal(folder)
    assert "model.pt" in message
    assert not victim.exists()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if writer != "pickle":  # The same file is dangerous to a careless reader.
            torch.load(folder / "model.pt", weights_only=False)
            assert victim.exists()


@pytest.mark.parametrize("content", [[torch.zeros(1)], {"model": {"a": torch.zeros(1)}}, 3])
def test_other_content_than_a_state_dict(folder: Path, content: object):
    (folder / "model.safetensors").unlink()
    torch.save(content, folder / "model.pt")
    assert "model.pt" in refusal(folder)
