"""A model comes back from its checkpoint alone, or one line says why not."""

from dataclasses import asdict

import pytest
import torch

from models.checkpoints.general import read_checkpoint
from models.checkpoints.scene_file import load_finetuned
from models.config import BackboneConfig, ModelConfig
from utils.checkpoints import load_safely, save_atomically
from utils.config import settings_from_plain
from utils.errors import UserError


def test_model_is_the_one_that_was_saved(tiny_checkpoint, tiny_model, make_views):
    checkpoint = read_checkpoint(str(tiny_checkpoint.parent))
    assert checkpoint.path == tiny_checkpoint, "the newest of a folder"
    model = checkpoint.build_model()
    assert checkpoint.step == 7 and model.config == tiny_model.config and not model.training
    torch.testing.assert_close(model.state_dict(), tiny_model.state_dict(), rtol=0, atol=0)
    assert not any(parameter.requires_grad for parameter in model.parameters())
    views = make_views(1, 3)
    with torch.no_grad():
        near_far = torch.tensor([[2.0, 6.0]])
        ours, theirs = (m.encode(views, near_far) for m in (model, tiny_model))
        torch.testing.assert_close(asdict(ours), asdict(theirs), rtol=0, atol=0)


def test_sampling_can_be_chosen_and_nothing_else_changes(tiny_checkpoint):
    checkpoint = read_checkpoint(str(tiny_checkpoint))
    same = checkpoint.with_overrides(None, N_samples=None)
    assert same.model_config == checkpoint.model_config
    fewer = checkpoint.with_overrides(None, N_samples=5).build_model()
    assert fewer.config.rendering.N_samples == 5
    assert fewer.config.rendering.N_planes == checkpoint.model_config.rendering.N_planes
    with pytest.raises(UserError, match="N_samples"):
        checkpoint.with_overrides(None, N_samples=-1)
    with pytest.raises(UserError, match="absent"):
        checkpoint.with_overrides("absent").build_model()


def test_configs_survive_plain_data_and_younger_settings_take_their_defaults():
    for config in (ModelConfig(), BackboneConfig()):
        assert settings_from_plain(type(config), asdict(config), "x") == config
    older = asdict(ModelConfig())
    del older["rendering"]["pad"]
    assert settings_from_plain(ModelConfig, older, "x") == ModelConfig()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda c: c["vggt_nerf"]["settings"]["model"]["rendering"].update(wormholes=3),
            "model.rendering.wormholes: this version",
        ),
        (
            lambda content: content["vggt_nerf"].update(backbone_fingerprint="0123"),
            "another backbone .*0123.*--vggt_path",
        ),
        (lambda content: content["state_dict"].popitem(), "do not fit"),
    ],
)
def test_what_belongs_to_something_else(tiny_checkpoint, tmp_path, change, words):
    content = load_safely(tiny_checkpoint)
    change(content)
    save_atomically(content, tmp_path / "changed.ckpt")
    with pytest.raises(UserError, match=words):
        read_checkpoint(str(tmp_path / "changed.ckpt")).build_model()


@pytest.mark.parametrize("content", [{}, {"vggt_nerf": 3, "state_dict": {}}, {"state_dict": {}}])
def test_other_kinds_of_file(tmp_path, content):
    save_atomically(content, tmp_path / "other.ckpt")
    with pytest.raises(UserError, match="not a checkpoint of general training"):
        read_checkpoint(str(tmp_path / "other.ckpt"))


SINGLE_RAYS = {"radiance_field.density.bias": torch.zeros(1)}
NO_GUESS = {
    "volume.points.inward.weight": torch.zeros(1),
    "radiance_field.feature.weight": torch.zeros(16, 96),
    "decoder.inward.weight": torch.zeros(48, 31, 3, 3),
    "decoder.outward.weight": torch.zeros(12, 48, 3, 3),
}


@pytest.mark.parametrize("name", sorted(NO_GUESS.keys() - {"volume.points.inward.weight"}))
def test_weights_without_dimensions_are_refused_in_one_line(tmp_path, name):
    tensors = NO_GUESS | {name: torch.zeros(())}
    weights = {f"model.{key}": tensor for key, tensor in tensors.items()}
    settings = {"model": {}, "backbone": {}}
    header = {"settings": settings, "backbone_fingerprint": "0123"}
    path = tmp_path / "damaged.ckpt"
    save_atomically({"vggt_nerf": header, "state_dict": weights}, path)
    with pytest.raises(UserError, match=r"damaged.ckpt|ckpts/VGGT-1B"):
        read_checkpoint(str(path)).build_model()


@pytest.mark.parametrize("kind", ["general", "scene"])
@pytest.mark.parametrize(("tensors", "version"), [(SINGLE_RAYS, "cae2b32"), (NO_GUESS, "a0c2399")])
def test_weights_of_an_earlier_architecture(tmp_path, kind, tensors, version):
    """Whatever their settings were."""
    weights = {f"model.{name}": tensor for name, tensor in tensors.items()}
    path = tmp_path / "old.file"
    settings = {"model": {"rendering": {"wormholes": 3}}, "backbone": {}}
    header = {"settings": settings, "backbone_fingerprint": "0123"}
    if kind == "general":
        save_atomically({"vggt_nerf": header, "state_dict": weights}, path)
        read = read_checkpoint
    else:
        save_atomically({"vggt_nerf_scene": header, "state": weights, "training": {}}, path)
        read = load_finetuned
    with pytest.raises(UserError, match=f"old.file: is of an earlier architecture.*{version}"):
        read(str(path))
